//! The OpenAPI 3.1 description of this listener, generated from the route table and the types of [`weir_core::operators`].
//!
//! Pure. What a route takes and answers is said here once, beside its summary.

use hyper::Method;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::routes::{PolicyRoute, ROUTES, Route};
use super::{ADMIN_TYPES, ARRIVALS_LIMIT_MAX, DEAD_LETTERS_LIMIT_MAX, METRICS_TYPE};
use weir_core::operators::{
    Acknowledged, Alive, Arrivals, Audit, CacheReport, Commanded, DeadLetters, Done, Explanation, FlushReport, Flushed,
    JournalHoles, PolicyDiff, PolicyList, Problem, Purged, Ready, Uploaded,
};
use weir_listener::problem::{LISTENER_TYPES, ProblemType};

/// Where references to schemas lead.
const SCHEMAS: &str = "/components/schemas";

/// The document.
pub(super) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = SCHEMAS.into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let problem = schemas.subschema_for::<Problem>().to_value();
    let mut paths = Map::new();
    for (pattern, route) in ROUTES {
        paths.insert(pattern.to_owned(), path_item(pattern, route, &problem, &mut schemas));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "weir, operators' API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What the operators' listener answers. HEAD is answered wherever GET is. Unknown query fields are 400. \
                Where a token is configured, everything but pages and probes needs it.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": { "operator": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn path_item(pattern: &str, route: Route, problem: &Value, schemas: &mut SchemaGenerator) -> Value {
    let methods = route.methods().filter(|method| *method != Method::HEAD);
    let item = methods.map(|method| {
        let mut operation = operation(route, &method, schemas);
        operation["parameters"] = Value::Array(parameters(pattern, route, &method));
        operation["security"] = if route.is_open() { json!([{}]) } else { json!([{}, { "operator": [] }]) };
        for status in refusals(pattern, route, &method) {
            operation["responses"][status.to_string()] = refusal(status, problem);
        }
        (method.as_str().to_ascii_lowercase(), operation)
    });
    Value::Object(item.collect())
}

/// Name, summary and answers of an operation.
fn operation(route: Route, method: &Method, schemas: &mut SchemaGenerator) -> Value {
    let mut of = OperationWriter { schemas };
    match route {
        Route::Page => text("getPage", "The dashboard", "text/html"),
        Route::Script => text("getScript", "The script of the dashboard", "text/javascript"),
        Route::Style => text("getStyle", "The style of the dashboard", "text/css"),
        Route::Metrics => text("getMetrics", "The metrics in Prometheus' text format", METRICS_TYPE),
        Route::OpenApi => of.json::<Map<String, Value>>("getOpenApi", "This document"),
        Route::Alive => of.probe::<Alive>("getLiveness", "Whether the host works; 503 when only a restart may help"),
        Route::Ready => of.probe::<Ready>("getReadiness", "Every check; 503 when one of them does not hold"),
        Route::Flush if method == Method::POST => {
            of.json::<Flushed>("flush", "Flush now what waits of a kind, or of all")
        }
        Route::Flush => of.json::<FlushReport>("getFlush", "What waits in the journals"),
        Route::Cache => of.json::<CacheReport>("getCache", "How reads and upstreams use the cache"),
        Route::Purge => of.json::<Purged>("purgeCache", "Purge a key, a prefix, a group, or everything"),
        Route::DeadLetters => of.json::<DeadLetters>("listDeadLetters", "Dead letters, oldest first"),
        Route::DeadLetter => of.json::<Done>("dropDeadLetter", "Drop a dead letter; SQL stays as it is"),
        Route::Replay => of.json::<Done>("replayDeadLetter", "Try to store a dead letter again"),
        Route::Holes => of.json::<JournalHoles>("listJournalHoles", "What journals have lost, newest first"),
        Route::AcknowledgeHoles => of.json::<Acknowledged>(
            "acknowledgeJournalHoles",
            "Acknowledge the holes of a kind, so that hosts are ready again",
        ),
        Route::Explain => of.json::<Explanation>("explainPair", "Everything known of one actor on a target"),
        Route::ExplainTarget => of.json::<Explanation>("explainTarget", "Everything known of a target"),
        Route::Arrivals => {
            of.json::<Arrivals>("listArrivals", "Who takes part in the draw of a queue, in order of arrival")
        }
        Route::Policy(route) => policy_operation(route, method, &mut of),
    }
}

fn policy_operation(route: PolicyRoute, method: &Method, of: &mut OperationWriter<'_>) -> Value {
    match route {
        PolicyRoute::All if method == Method::POST => of.upload(),
        PolicyRoute::All => of.json::<PolicyList>("listPolicies", "What serves, what is tried, and the registry"),
        PolicyRoute::Rollback => {
            of.json::<Commanded>("rollBackPolicy", "The set before the last activation serves again")
        }
        PolicyRoute::Diff => of.json::<PolicyDiff>("getPolicyDiff", "What shadow and canary have shown"),
        PolicyRoute::Audit => of.json::<Audit>("getPolicyAudit", "Who did what with modules, newest first"),
        PolicyRoute::Shadow => of.json::<Commanded>("endShadow", "End the shadow; its report stays"),
        PolicyRoute::Canary => of.json::<Commanded>("endCanary", "End the canary; its report stays"),
        PolicyRoute::Module => of.json::<Commanded>("deletePolicy", "Remove a module from the registry"),
        PolicyRoute::ActivateModule => of.json::<Commanded>("activatePolicy", "A module serves what it exports"),
        PolicyRoute::ShadowModule => of.json::<Commanded>("beginShadow", "A module decides besides, without effect"),
        PolicyRoute::CanaryModule => of.json::<Commanded>("beginCanary", "A module serves a share of the targets"),
    }
}

/// An operation that answers with text.
fn text(id: &str, summary: &str, media_type: &str) -> Value {
    let media_type = media_type.split(';').next().unwrap_or_default();
    let ok = json!({ "description": summary, "content": { media_type: { "schema": { "type": "string" } } } });
    json!({ "operationId": id, "summary": summary, "responses": { "200": ok } })
}

/// Writes operations down, and collects the schemas of their answers.
struct OperationWriter<'a> {
    schemas: &'a mut SchemaGenerator,
}

impl OperationWriter<'_> {
    fn content<T: JsonSchema>(&mut self) -> Value {
        json!({ "application/json": { "schema": self.schemas.subschema_for::<T>() } })
    }

    fn json<T: JsonSchema>(&mut self, id: &str, summary: &str) -> Value {
        let ok = json!({ "description": summary, "content": self.content::<T>() });
        json!({ "operationId": id, "summary": summary, "responses": { "200": ok } })
    }

    /// A failed probe is answered in the same form, not with a problem.
    fn probe<T: JsonSchema>(&mut self, id: &str, summary: &str) -> Value {
        let mut operation = self.json::<T>(id, summary);
        operation["responses"]["503"] = operation["responses"]["200"].clone();
        operation
    }

    fn upload(&mut self) -> Value {
        let mut operation = self.json::<Uploaded>("uploadPolicy", "Take a component into the registry, if it is good");
        operation["responses"]["201"] = json!({ "description": "It is new", "content": self.content::<Uploaded>() });
        operation["responses"]["200"]["description"] = "It was known".into();
        let component = json!({ "schema": { "type": "string", "format": "binary" } });
        let form = json!({
            "type": "object",
            "properties": {
                "module": { "type": "string", "format": "binary" },
                "vectors": { "type": "string", "description": "Test vectors to run besides those that it carries" },
                "name": { "type": "string" },
                "version": { "type": "string" },
                "activate": { "type": "boolean" },
            },
            "required": ["module"],
        });
        operation["requestBody"] = json!({
            "required": true,
            "content": {
                "application/wasm": component,
                "application/octet-stream": component,
                "multipart/form-data": { "schema": form },
            },
        });
        operation
    }
}

fn parameters(pattern: &str, route: Route, method: &Method) -> Vec<Value> {
    let in_path = pattern.split(['{', '}']).skip(1).step_by(2);
    let mut list: Vec<Value> = in_path.map(|name| parameter(name, "path", true, path_text(name))).collect();
    let mut query = |name: &str, text: &str| list.push(parameter(name, "query", false, text));
    let writes = method == Method::POST || method == Method::DELETE;
    match route {
        Route::Flush if writes => query("kind", "Only this kind"),
        Route::Holes => query("kind", "Only this kind"),
        Route::DeadLetters => {
            query("kind", "Only this kind");
            query("after", "The id of the last dead letter of the page before");
            query("limit", &format!("Length of the page, up to {DEAD_LETTERS_LIMIT_MAX}"));
        }
        Route::Arrivals => {
            query("skip", "So many are left out at the beginning");
            query("limit", &format!("Length of the page, up to {ARRIVALS_LIMIT_MAX}"));
        }
        Route::Purge => {
            query("key", "One key");
            query("group", "A group, such as `table:NAME`");
            query("prefix", "All keys that begin so");
            query("all", "`1`: everything");
            query("mode", "`hard` (default) or `soft`");
        }
        Route::Policy(PolicyRoute::All) if writes => {
            query("name", "The module's name, when it is not the one that it carries");
            query("version", "Its version, when it is not the one that it carries");
            query("activate", "`true`: it serves at once, if it is good");
        }
        Route::Policy(PolicyRoute::Audit) => query("limit", "Lines at most"),
        Route::Policy(PolicyRoute::ActivateModule) => query("interfaces", "Only these, separated by commas"),
        Route::Policy(PolicyRoute::ShadowModule) => query("share", "Share of the batches, above 0, at most 1"),
        Route::Policy(PolicyRoute::CanaryModule) => {
            list.push(parameter("share", "query", true, "Share of the targets, above 0, at most 1"));
        }
        _ => {}
    }
    if matches!(route, Route::Policy(_)) && writes {
        list.push(parameter("X-Operator", "header", false, "Who asks, for the audit log"));
    }
    list
}

fn path_text(name: &str) -> &'static str {
    match name {
        "module" => "A digest, the beginning of one (6 digits or more), a name (the youngest with it), or name@version",
        "id" => "The number of the dead letter",
        "kind" => "The kind, such as feed-like",
        "target" => "The target's id; of a waiting room its queue",
        "actor" => "The actor's id",
        _ => "The queue",
    }
}

fn parameter(name: &str, place: &str, required: bool, text: &str) -> Value {
    json!({ "name": name, "in": place, "required": required, "schema": { "type": "string" }, "description": text })
}

/// Statuses of problems, beside those of the probes.
fn refusals(pattern: &str, route: Route, method: &Method) -> Vec<u16> {
    let writes = method == Method::POST || method == Method::DELETE;
    let mut statuses = vec![400, 403, 405];
    if !route.is_open() {
        statuses.extend([401, 503]);
    }
    if pattern.contains('{') || matches!(route, Route::Flush | Route::Purge) {
        statuses.push(404);
    }
    if writes && matches!(route, Route::Policy(_) | Route::Replay) {
        statuses.push(409);
    }
    if route == Route::Policy(PolicyRoute::All) && writes {
        statuses.extend([408, 413, 415]);
    }
    if writes && matches!(route, Route::Policy(_)) {
        statuses.push(422);
    }
    statuses
}

fn refusal(status: u16, problem: &Value) -> Value {
    let kinds = LISTENER_TYPES.iter().chain(ADMIN_TYPES).copied().filter(|kind| kind.status == status);
    let texts: Vec<String> = kinds.map(|kind: &ProblemType| format!("`{}`: {}", kind.name, kind.title)).collect();
    json!({ "description": texts.join("; "), "content": { "application/problem+json": { "schema": problem } } })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_and_method_is_described() {
        let document = document();
        let mut ids = BTreeSet::new();
        for (pattern, route) in ROUTES {
            for method in route.methods().filter(|method| *method != Method::HEAD) {
                let operation = &document["paths"][pattern][method.as_str().to_ascii_lowercase()];
                assert!(!operation["summary"].as_str().unwrap_or_default().is_empty(), "{method} {pattern}");
                assert!(ids.insert(operation["operationId"].to_string()), "{method} {pattern}: its id is taken");
                let media = operation["responses"]["200"]["content"].as_object().unwrap();
                assert!(media.values().all(|media| media["schema"].is_object()), "{method} {pattern}");
                for (status, response) in operation["responses"].as_object().unwrap() {
                    assert_ne!(response["description"], "", "{method} {pattern} {status}");
                }
            }
        }
        assert_eq!(document["paths"].as_object().unwrap().len(), ROUTES.len());
    }

    #[test]
    fn every_reference_leads_to_a_schema_and_every_field_is_described() {
        fn look(value: &Value, document: &Value) {
            match value {
                Value::Object(fields) => {
                    if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
                        assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
                    }
                    for (name, property) in fields.get("properties").and_then(Value::as_object).into_iter().flatten() {
                        let is_said = property.get("description").is_some() || property.get("type").is_some();
                        assert!(is_said || property.get("$ref").is_some(), "{name}: {property}");
                    }
                    fields.values().for_each(|value| look(value, document));
                }
                Value::Array(items) => items.iter().for_each(|item| look(item, document)),
                _ => {}
            }
        }
        let document = document();
        look(&document, &document);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for name in ["PolicyList", "FlushReport", "Explanation", "DeadLetter", "Problem", "TrialReport", "CacheReport"]
        {
            assert!(schemas.contains_key(name), "{name} is not in {:?}", schemas.keys().collect::<Vec<_>>());
        }
        let required = schemas["KindFlush"]["required"].as_array().unwrap();
        assert!(required.contains(&json!("backlog_entries")), "{required:?}");
    }
}
