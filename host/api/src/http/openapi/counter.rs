//! What is particular to counters.

use hyper::Method;
use serde_json::{Map, Value, json};

use super::{id_schema, idempotency_key, level, object, parameter, receipt, targets};
use crate::http::route::Route;
use weir_core::config::{CounterConfig, HttpConfig};

pub(super) fn parameters(route: Route, method: &Method, kind: &CounterConfig, http: &HttpConfig) -> Vec<Value> {
    let id_type = kind.table.target_type;
    let target = || parameter("target", "path", true, &id_schema(id_type), "What is counted");
    match route {
        Route::CounterMany => vec![targets(id_type, http)],
        Route::CounterStatus => [target()].into_iter().chain(receipt()).collect(),
        _ if method == Method::POST => vec![target(), idempotency_key()],
        _ => vec![target()],
    }
}

pub(super) fn request_schema(kind: &CounterConfig) -> Value {
    let by = json!({ "type": "integer", "minimum": 1, "maximum": kind.by_max, "default": 1 });
    json!({ "type": "object", "properties": { "by": by }, "additionalProperties": false })
}

pub(super) fn success_schema(route: Route, method: &Method) -> Value {
    let count = json!({ "type": "integer", "minimum": 0, "maximum": 9_007_199_254_740_991_i64 });
    let mut properties = Map::new();
    let mut add = |name: &str, schema: Value| properties.insert(name.to_owned(), schema);
    match route {
        Route::CounterMany => {
            let text = "Given, and then false, only for a target that does not exist; the count is absent then";
            let exists = json!({ "const": false, "description": text });
            let item = json!({ "target": {}, "count": count, "exists": exists });
            let item = json!({ "type": "object", "properties": item, "required": ["target"] });
            add("targets", json!({ "type": "array", "items": item }));
        }
        Route::CounterStatus => {
            add("durability", level());
        }
        _ => {
            add("count", count);
            add("timestamp", json!({ "type": "string", "format": "date-time" }));
            if method == Method::POST {
                let text = "false for what the rules ignore, and for a repetition within a window of uniqueness";
                add("counted", json!({ "type": "boolean", "description": text }));
                add("durability", level());
            }
        }
    }
    object(properties)
}
