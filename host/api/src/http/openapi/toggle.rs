//! What is particular to toggles.

use hyper::Method;
use serde_json::{Map, Value, json};

use super::{id_schema, idempotency_key, level, object, parameter, receipt, targets};
use crate::http::route::Route;
use weir_core::config::{HttpConfig, ToggleConfig};

pub(super) fn parameters(route: Route, method: &Method, kind: &ToggleConfig, http: &HttpConfig) -> Vec<Value> {
    let table = &kind.table;
    let mut list = Vec::new();
    if route != Route::ToggleMany {
        list.push(parameter("target", "path", true, &id_schema(table.target_type), "What is toggled"));
    }
    match route {
        Route::Toggle if method != Method::GET => list.push(idempotency_key()),
        Route::ToggleMany => list.push(targets(table.target_type, http)),
        Route::ToggleActors => {
            let schema = json!({ "type": "integer", "minimum": 1, "maximum": http.actors_limit_max });
            list.push(parameter("limit", "query", false, &schema, "Length of the list"));
            let text = "`next` of the page before this one";
            list.push(parameter("before", "query", false, &json!({ "type": "string" }), text));
        }
        Route::ToggleStatus => list.extend(receipt()),
        _ => {}
    }
    list
}

pub(super) fn success_schema(route: Route, method: &Method, kind: &ToggleConfig) -> Value {
    let names = &kind.response;
    let active = json!({ "type": "boolean", "description": "false for a request that names no actor" });
    let count = json!({ "type": "integer", "minimum": 0 });
    let time = json!({ "type": "string", "format": "date-time" });
    let mut properties = Map::new();
    let mut add = |name: &str, schema: &Value| properties.insert(name.to_owned(), schema.clone());
    match route {
        Route::ToggleActors => {
            let since = json!({ "type": ["string", "null"], "format": "date-time" });
            let actor = json!({ "actor": id_schema(kind.table.actor_type), "since": since });
            let item = json!({ "type": "object", "properties": actor, "required": ["actor", "since"] });
            add("actors", &json!({ "type": "array", "items": item }));
            add("next", &json!({ "type": ["string", "null"] }));
        }
        Route::ToggleStatus => {
            add("durability", &level());
        }
        Route::ToggleMany => {
            let mut item = Map::new();
            item.insert("target".into(), id_schema(kind.table.target_type));
            item.insert(names.active.clone(), active);
            item.insert(names.count.clone(), count);
            let text = "Given, and then false, only for a target that does not exist; state and count are absent then";
            item.insert("exists".into(), json!({ "const": false, "description": text }));
            let item = json!({ "type": "object", "properties": item, "required": ["target"] });
            let list = json!({ "type": "array", "items": item });
            return json!({ "type": "object", "properties": { "targets": list }, "required": ["targets"] });
        }
        _ => {
            add(&names.active, &active);
            add(&names.count, &count);
            add("timestamp", &time);
            if method != Method::GET {
                add("message", &json!({ "type": "string" }));
                add("durability", &level());
            }
        }
    }
    object(properties)
}
