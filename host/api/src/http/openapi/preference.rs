//! What is particular to preferences.

use hyper::Method;
use serde_json::{Map, Value, json};

use super::{id_schema, idempotency_key, level, object, parameter, receipt};
use crate::http::preference::MERGE_PATCH;
use crate::http::route::Route;
use weir_core::config::PreferenceConfig;
use weir_core::model::{SETTING_TEXT_BYTES_MAX, SettingType};

pub(super) fn parameters(route: Route, method: &Method, kind: &PreferenceConfig) -> Vec<Value> {
    let member = || parameter("target", "path", true, &id_schema(kind.table.member_type), "The member");
    match route {
        Route::PreferenceLookup => Vec::new(),
        Route::PreferenceStatus => [member()].into_iter().chain(receipt()).collect(),
        _ if method == Method::PUT || method == Method::PATCH => vec![member(), idempotency_key()],
        _ => vec![member()],
    }
}

/// The settings: all of them, or some.
fn settings(kind: &PreferenceConfig) -> Value {
    let field = |setting_type| match setting_type {
        SettingType::Bool => json!({ "type": "boolean" }),
        SettingType::Int => json!({ "type": "integer", "format": "int64" }),
        SettingType::Text => json!({ "type": "string", "maxLength": SETTING_TEXT_BYTES_MAX }),
    };
    let fields: Map<String, Value> = kind
        .table
        .fields
        .iter()
        .map(|given| {
            let mut schema = field(given.field_type);
            schema["default"] = given.default.to_json();
            (given.name.clone(), schema)
        })
        .collect();
    json!({ "type": "object", "properties": fields, "additionalProperties": false, "minProperties": 1 })
}

pub(super) fn request_body(route: Route, method: &Method, kind: &PreferenceConfig) -> Value {
    if route != Route::PreferenceLookup {
        let mut content = json!({ "application/json": { "schema": settings(kind) } });
        if method == Method::PATCH {
            content[MERGE_PATCH] = json!({ "schema": settings(kind) });
        }
        return json!({ "required": true, "content": content });
    }
    let topics: Vec<&String> = kind.topics.keys().collect();
    let members = json!({
        "type": "array", "items": id_schema(kind.table.member_type), "maxItems": kind.lookup_members_max,
    });
    let schema = json!({
        "type": "object",
        "properties": { "topic": { "type": "string", "enum": topics }, "members": members },
        "required": ["topic", "members"],
        "additionalProperties": false,
    });
    let text =
        "Any number of members: the first line is {\"topic\":…}, each further one a member or an array of members";
    json!({ "required": true, "content": {
        "application/json": { "schema": schema },
        "application/x-ndjson": { "schema": { "type": "string", "description": text } },
    } })
}

pub(super) fn success_schema(route: Route, method: &Method, kind: &PreferenceConfig) -> Value {
    let mut properties = Map::new();
    let mut add = |name: &str, schema: Value| properties.insert(name.to_owned(), schema);
    match route {
        Route::PreferenceLookup => {
            let text = "Those that have it enabled, in the order asked for; one that is asked for twice is there twice";
            let enabled = json!({ "type": "array", "items": id_schema(kind.table.member_type), "description": text });
            let error = json!({ "member": {}, "type": { "type": "string" }, "detail": { "type": "string" } });
            let error = json!({ "type": "object", "properties": error, "required": ["member", "type", "detail"] });
            let text = "Members of which it is not known, each with a problem's type; absent where there are none";
            let errors = json!({ "type": "array", "items": error, "description": text });
            return json!({
                "type": "object", "properties": { "enabled": enabled, "errors": errors }, "required": ["enabled"],
            });
        }
        Route::PreferenceStatus => {
            add("durability", level());
        }
        _ => {
            add("member", id_schema(kind.table.member_type));
            add("settings", settings(kind));
            add("timestamp", json!({ "type": "string", "format": "date-time" }));
            if method == Method::PUT || method == Method::PATCH {
                add("durability", level());
            }
        }
    }
    object(properties)
}
