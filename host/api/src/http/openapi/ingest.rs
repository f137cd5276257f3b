//! What is particular to creates.

use hyper::Method;
use serde_json::{Value, json};

use super::{id_schema, idempotency_key, level, parameter, prefer_wait};
use crate::http::route::Route;
use weir_core::config::{HttpConfig, IngestConfig};

pub(super) fn parameters(route: Route, method: &Method, kind: &IngestConfig, http: &HttpConfig) -> Vec<Value> {
    match (route, method) {
        (Route::Ingest, &Method::POST) => vec![idempotency_key(), prefer_wait()],
        (Route::Ingest, _) => {
            let schema = json!({ "type": "integer", "minimum": 1, "maximum": http.actors_limit_max });
            let after = "`next` of the page before this one";
            vec![
                parameter("limit", "query", false, &schema, "Length of the list"),
                parameter("after", "query", false, &json!({ "type": "string" }), after),
            ]
        }
        _ => vec![parameter("target", "path", true, &id_schema(kind.table.id_type), "The document's id")],
    }
}

pub(super) fn request_schema(kind: &IngestConfig) -> Value {
    let schema: Option<Value> = kind.schema.as_ref().and_then(|schema| serde_json::from_str(schema).ok());
    let document = schema.unwrap_or_else(|| json!({ "type": "object" }));
    let list = json!({ "type": "array", "items": document, "minItems": 1, "maxItems": kind.documents_max });
    json!({ "oneOf": [document, list] })
}

pub(super) fn success_schema(route: Route, method: &Method, kind: &IngestConfig) -> Value {
    let id = id_schema(kind.table.id_type);
    let status = json!({ "type": "string", "enum": ["pending", "stored", "rejected"] });
    let time = json!({ "type": "string", "format": "date-time" });
    let document = json!({
        "type": "object",
        "properties": {
            "id": id, "status": status, "document": { "type": "object" }, "createdAt": time,
            "reason": { "type": "string", "description": "Of a rejected one: what the database said" },
        },
        "required": ["id", "status", "document"],
    });
    match (route, method) {
        (Route::Ingest, &Method::POST) => {
            let brief = json!({ "type": "object", "properties": { "id": id, "status": status } });
            json!({
                "type": "object",
                "properties": {
                    "id": id, "status": status, "documents": { "type": "array", "items": brief },
                    "durability": level(), "timestamp": time,
                },
                "description": "`id` and `status` of one document, `documents` of a list of them",
                "required": ["durability", "timestamp"],
            })
        }
        (Route::Ingest, _) => json!({
            "type": "object",
            "properties": {
                "documents": { "type": "array", "items": document }, "next": { "type": ["string", "null"] },
            },
            "required": ["documents", "next"],
        }),
        _ => document,
    }
}
