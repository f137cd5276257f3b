//! The OpenAPI 3.1 document, written from the route table and the configured kinds: concrete paths with the names and
//! id types of each kind.

use hyper::Method;
use serde_json::{Map, Value, json};

use super::problem::API_TYPES;
use super::route::{ROUTES, Route, SHARED_STATUSES};
use crate::config::{AuthConfig, HttpConfig, ToggleConfig};
use crate::listener::problem::{LISTENER_TYPES, ProblemType};
use crate::model::{ID_TEXT_BYTES_MAX, IdType};

/// The document.
pub(super) fn document(kinds: &[&ToggleConfig], http: &HttpConfig, auth: &AuthConfig) -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        match route {
            Route::OpenApi | Route::Root => {
                let item = json!({ "get": operation(route, &Method::GET, None, http) });
                paths.insert(route.pattern().to_owned(), item);
            }
            _ => {
                for kind in kinds {
                    paths.insert(route.pattern().replace("{kind}", &kind.kind), path_item(route, kind, http));
                }
            }
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "weir",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Hot paths answered from a store and written behind to SQL. HEAD is answered wherever GET \
                is, OPTIONS everywhere. Unknown query parameters and repeated headers are 400.",
        },
        "paths": paths,
        "components": { "schemas": { "Problem": problem_schema() }, "securitySchemes": security_schemes(auth) },
    })
}

fn path_item(route: Route, kind: &ToggleConfig, http: &HttpConfig) -> Value {
    let mut item = Map::new();
    for method in route.methods() {
        let name = method.as_str().to_ascii_lowercase();
        item.insert(name, operation(route, method, Some(kind), http));
    }
    Value::Object(item)
}

fn operation(route: Route, method: &Method, kind: Option<&ToggleConfig>, http: &HttpConfig) -> Value {
    let mut responses = Map::new();
    for status in route.statuses(method).iter().chain(&SHARED_STATUSES) {
        let response = match *status {
            200 => success(route, method, kind),
            refused => refusal(refused),
        };
        responses.insert(status.to_string(), response);
    }
    let id = match kind {
        Some(kind) => format!("{}-{}-{}", method.as_str().to_ascii_lowercase(), kind.kind, route_word(route)),
        None => route_word(route).to_owned(),
    };
    let mut operation = json!({ "operationId": id, "summary": summary(route, method), "responses": responses });
    if let Some(kind) = kind {
        operation["tags"] = json!([kind.kind]);
        operation["parameters"] = parameters(route, method, kind, http);
        // Reads need no identity; `{}` says so.
        let optional = method == Method::GET;
        operation["security"] = if optional { json!([{}, { "actor": [] }]) } else { json!([{ "actor": [] }]) };
        if !optional {
            let empty = json!({ "type": "object", "additionalProperties": false });
            operation["requestBody"] =
                json!({ "required": false, "content": { "application/json": { "schema": empty } } });
        }
    }
    operation
}

fn route_word(route: Route) -> &'static str {
    match route {
        Route::Toggle => "toggle",
        Route::ToggleMany => "toggles",
        Route::ToggleActors => "actors",
        Route::ToggleStatus => "status",
        Route::OpenApi => "openapi",
        Route::Root | Route::Unknown => "root",
    }
}

fn summary(route: Route, method: &Method) -> &'static str {
    match (route, method) {
        (Route::Toggle, &Method::POST) => "Toggle, by the rules of the kind",
        (Route::Toggle, &Method::PUT) => "Set; without effect when it is set",
        (Route::Toggle, &Method::DELETE) => "Clear; without effect when it is clear",
        (Route::Toggle, _) => "State for this actor, and count",
        (Route::ToggleMany, _) => "State and count of many targets, in the order asked for",
        (Route::ToggleActors, _) => "Actors, newest first",
        (Route::ToggleStatus, _) => "Whether a write has reached SQL; Prefer: wait=N waits for it, within the deadline",
        (Route::OpenApi, _) => "This document",
        (Route::Root | Route::Unknown, _) => "Where to begin",
    }
}

fn parameters(route: Route, method: &Method, kind: &ToggleConfig, http: &HttpConfig) -> Value {
    let table = &kind.table;
    let mut list = Vec::new();
    let mut add = |name: &str, place: &str, required: bool, schema: Value, text: &str| {
        list.push(json!({ "name": name, "in": place, "required": required, "schema": schema, "description": text }));
    };
    if route != Route::ToggleMany {
        add("target", "path", true, id_schema(table.target_type), "What is toggled");
    }
    match route {
        Route::Toggle if method != Method::GET => {
            let schema = json!({ "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" });
            let text = "The same key with the same request answers the first outcome again: makes it safe to repeat";
            add("Idempotency-Key", "header", false, schema, text);
        }
        Route::ToggleMany => {
            let items = id_schema(table.target_type);
            let schema = json!({ "type": "array", "items": items, "minItems": 1, "maxItems": http.targets_max });
            list.push(json!({
                "name": "targets", "in": "query", "required": true, "style": "form", "explode": false,
                "schema": schema, "description": "Ids, separated by commas; a comma in a text id is %2C",
            }));
        }
        Route::ToggleActors => {
            let schema = json!({ "type": "integer", "minimum": 1, "maximum": http.actors_limit_max });
            add("limit", "query", false, schema, "Length of the list");
            add("before", "query", false, json!({ "type": "string" }), "`next` of the page before this one");
        }
        Route::ToggleStatus => {
            let schema = json!({ "type": "string", "pattern": "^[0-9]+-[0-9]+$" });
            add("position", "query", true, schema, "`Weir-Receipt` of a write");
            add("Prefer", "header", false, json!({ "type": "string" }), "`wait=N`: wait up to N seconds");
        }
        _ => {}
    }
    Value::Array(list)
}

fn success(route: Route, method: &Method, kind: Option<&ToggleConfig>) -> Value {
    let mut response = json!({ "description": summary(route, method) });
    let schema = match kind {
        None => json!({ "type": "object" }),
        Some(kind) => success_schema(route, method, kind),
    };
    response["content"] = json!({ "application/json": { "schema": schema } });
    if route == Route::Toggle && method != Method::GET {
        let header = |text: &str| json!({ "schema": { "type": "string" }, "description": text });
        response["headers"] = json!({
            "Weir-Durability": header("The level reached, as in the body"),
            "Weir-Receipt": header("Place in the journal: ask …/status?position= with it"),
            "RateLimit-Policy": header("The rule's limit, when it has one"),
            "RateLimit": header("What is left of it"),
            "Idempotency-Replayed": header("`true` when this is the outcome of an earlier request with the same key"),
        });
    }
    response
}

fn success_schema(route: Route, method: &Method, kind: &ToggleConfig) -> Value {
    let names = &kind.response;
    let active = json!({ "type": "boolean", "description": "false for a request that names no actor" });
    let count = json!({ "type": "integer", "minimum": 0 });
    let time = json!({ "type": "string", "format": "date-time" });
    let level = json!({ "type": "string", "enum": ["journaled", "stored"] });
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
            add("durability", &level);
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
                add("durability", &level);
            }
        }
    }
    let required: Vec<_> = properties.keys().cloned().collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

fn refusal(status: u16) -> Value {
    let kinds: Vec<&ProblemType> =
        LISTENER_TYPES.iter().chain(API_TYPES).copied().filter(|kind| kind.status == status).collect();
    let texts: Vec<_> = kinds.iter().map(|kind| format!("`{}`: {}", kind.name, kind.title)).collect();
    let mut response = json!({
        "description": texts.join("; "),
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
    });
    let header = |text: &str| json!({ "schema": { "type": "string" }, "description": text });
    match status {
        401 => response["headers"] = json!({ "WWW-Authenticate": header("What is expected") }),
        405 => response["headers"] = json!({ "Allow": header("The methods of this path") }),
        429 | 503 => {
            let text = "Seconds; absent where the outcome is unknown and no Idempotency-Key was sent";
            response["headers"] = json!({ "Retry-After": header(text) });
            if status == 429 {
                response["headers"]["RateLimit"] = header("What is left: `\"toggle\";r=0;t=9`");
                response["headers"]["RateLimit-Policy"] = header("The limit: `\"toggle\";q=10;w=10`");
            }
        }
        _ => {}
    }
    response
}

fn problem_schema() -> Value {
    let types: Vec<_> =
        LISTENER_TYPES.iter().chain(API_TYPES).map(|kind| format!("urn:weir:problem:{}", kind.name)).collect();
    json!({
        "type": "object",
        "description": "RFC 9457",
        "properties": {
            "type": { "type": "string", "enum": types },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string", "description": "What to do next" },
        },
        "required": ["type", "title", "status", "detail"],
    })
}

fn security_schemes(auth: &AuthConfig) -> Value {
    let actor = match (&auth.jwt, &auth.trusted_header) {
        (None, Some(name)) => json!({ "type": "apiKey", "in": "header", "name": name }),
        _ => json!({ "type": "http", "scheme": "bearer", "bearerFormat": "JWT" }),
    };
    json!({ "actor": actor })
}

fn id_schema(id_type: IdType) -> Value {
    match id_type {
        IdType::Integer => json!({ "type": "integer", "format": "int64" }),
        IdType::Uuid => json!({ "type": "string", "format": "uuid" }),
        IdType::Text => json!({ "type": "string", "minLength": 1, "maxLength": ID_TEXT_BYTES_MAX }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo() -> Value {
        let kind = ToggleConfig::demo();
        document(&[&kind], &HttpConfig::default(), &AuthConfig::default())
    }

    #[test]
    fn every_route_method_and_status_is_described() {
        let document = demo();
        for route in ROUTES {
            let path = route.pattern().replace("{kind}", "feed-like");
            for method in route.methods() {
                let operation = &document["paths"][&path][method.as_str().to_ascii_lowercase()];
                for status in route.statuses(method).iter().chain(&SHARED_STATUSES) {
                    let response = &operation["responses"][status.to_string()];
                    let text = response["description"].as_str().unwrap_or_default();
                    assert!(!text.is_empty(), "{method} {path} {status}");
                }
            }
        }
    }

    #[test]
    fn every_problem_is_named() {
        let document = demo();
        let names = document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"].as_array().unwrap();
        assert_eq!(names.len(), API_TYPES.len() + LISTENER_TYPES.len());
        let described = document.to_string();
        for kind in API_TYPES.iter().chain(LISTENER_TYPES) {
            assert!(described.contains(&format!("`{}`: ", kind.name)), "{} is in no response", kind.name);
        }
    }

    #[test]
    fn a_kind_has_its_own_names() {
        let document = demo();
        let reply = &document["paths"]["/v1/toggles/feed-like/{target}"]["post"]["responses"]["200"];
        let properties = &reply["content"]["application/json"]["schema"]["properties"];
        assert_eq!(properties["liked"]["type"], "boolean");
        assert_eq!(properties["likeCount"]["type"], "integer");
    }

    #[test]
    fn operations_have_ids_of_their_own() {
        let document = demo();
        let mut ids: Vec<String> = document["paths"]
            .as_object()
            .unwrap()
            .values()
            .flat_map(|item| item.as_object().unwrap().values())
            .map(|operation| operation["operationId"].as_str().unwrap().to_owned())
            .collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }
}
