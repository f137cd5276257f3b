//! The OpenAPI 3.1 document, written from the route table and the configured kinds: concrete paths with the names and
//! id types of each kind.

mod counter;
mod ingest;
mod preference;
mod read;
mod room;
mod toggle;

use hyper::Method;
use serde_json::{Map, Value, json};

use super::problem::API_TYPES;
use super::route::{ROUTES, Route, SHARED_STATUSES};
use weir_core::config::{
    AuthConfig, CounterConfig, HttpConfig, IngestConfig, PreferenceConfig, ReadConfig, RoomConfig, ToggleConfig,
};
use weir_core::model::{ID_TEXT_BYTES_MAX, IdType};
use weir_listener::problem::{LISTENER_TYPES, ProblemType};

/// A configured kind.
#[derive(Clone, Copy)]
pub(super) enum KindConfig<'a> {
    Toggle(&'a ToggleConfig),
    Counter(&'a CounterConfig),
    Ingest(&'a IngestConfig),
    Preference(&'a PreferenceConfig),
    Room(&'a RoomConfig),
    Read(&'a ReadConfig),
}

impl KindConfig<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Toggle(kind) => &kind.kind,
            Self::Counter(kind) => &kind.kind,
            Self::Ingest(kind) => &kind.kind,
            Self::Preference(kind) => &kind.kind,
            Self::Room(kind) => &kind.kind,
            Self::Read(read) => &read.name,
        }
    }

    /// Whether `route` is one of its capability.
    fn has(&self, route: Route) -> bool {
        match route {
            Route::Toggle | Route::ToggleMany | Route::ToggleActors | Route::ToggleStatus => {
                matches!(self, Self::Toggle(_))
            }
            Route::Counter | Route::CounterMany | Route::CounterStatus => matches!(self, Self::Counter(_)),
            Route::Ingest | Route::IngestDocument => matches!(self, Self::Ingest(_)),
            Route::PreferenceLookup | Route::Preference | Route::PreferenceStatus => {
                matches!(self, Self::Preference(_))
            }
            Route::Room
            | Route::RoomTokens
            | Route::RoomStatus
            | Route::RoomToken
            | Route::RoomComplete
            | Route::RoomExtend
            | Route::RoomVerify => matches!(self, Self::Room(_)),
            Route::Read => matches!(self, Self::Read(_)),
            Route::OpenApi | Route::Jwks | Route::Root | Route::Upstream | Route::Unknown => false,
        }
    }

    fn parameters(&self, route: Route, method: &Method, http: &HttpConfig) -> Vec<Value> {
        match self {
            Self::Toggle(kind) => toggle::parameters(route, method, kind, http),
            Self::Counter(kind) => counter::parameters(route, method, kind, http),
            Self::Ingest(kind) => ingest::parameters(route, method, kind, http),
            Self::Preference(kind) => preference::parameters(route, method, kind),
            Self::Room(kind) => room::parameters(route, kind),
            Self::Read(read) => read::parameters(read),
        }
    }

    fn success_schema(&self, route: Route, method: &Method) -> Value {
        match self {
            Self::Toggle(kind) => toggle::success_schema(route, method, kind),
            Self::Counter(_) => counter::success_schema(route, method),
            Self::Ingest(kind) => ingest::success_schema(route, method, kind),
            Self::Preference(kind) => preference::success_schema(route, method, kind),
            Self::Room(_) => room::success_schema(route),
            Self::Read(_) => read::success_schema(),
        }
    }

    /// What is sent; `None` where nothing is.
    fn request_body(&self, route: Route, method: &Method, http: &HttpConfig) -> Value {
        let (required, schema) = match self {
            Self::Toggle(_) => (false, json!({ "type": "object", "additionalProperties": false })),
            Self::Counter(kind) => (false, counter::request_schema(kind)),
            Self::Ingest(kind) => (true, ingest::request_schema(kind)),
            Self::Preference(kind) => return preference::request_body(route, method, kind),
            Self::Room(kind) => room::request(route, kind, http),
            Self::Read(_) => (false, json!({ "type": "object", "additionalProperties": false })),
        };
        json!({ "required": required, "content": { "application/json": { "schema": schema } } })
    }

    /// Whether a request may omit the actor.
    fn needs_no_actor(&self, route: Route, method: &Method) -> bool {
        match self {
            Self::Toggle(_) => method == Method::GET,
            Self::Counter(kind) => method == Method::GET || kind.actor == weir_core::config::ActorNeed::Optional,
            Self::Ingest(_) => false,
            Self::Preference(_) => method == Method::GET || route == Route::PreferenceLookup,
            Self::Room(_) => route != Route::RoomTokens,
            Self::Read(_) => true,
        }
    }
}

/// The document.
pub(super) fn document(kinds: &[KindConfig<'_>], http: &HttpConfig, auth: &AuthConfig) -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        if matches!(route, Route::OpenApi | Route::Jwks | Route::Root) {
            let item = json!({ "get": operation(route, &Method::GET, None, http) });
            paths.insert(route.pattern().to_owned(), item);
        }
        for kind in kinds.iter().filter(|kind| kind.has(route)) {
            paths.insert(route.pattern().replace("{kind}", kind.name()), path_item(route, kind, http));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "weir",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Hot paths answered from a store and written behind to SQL. HEAD is answered wherever GET \
                is, OPTIONS everywhere; a CORS preflight is answered 204, with or without permissions. Every reply has the request's \
                id in X-Request-Id, or in the header that http.trace.request_id_header names. Unknown query parameters and \
                repeated headers are 400.",
        },
        "paths": paths,
        "components": {
            "schemas": { "Problem": problem_schema() },
            // What belongs to an origin behind weir is described by that; these are what weir answers in its place.
            "responses": { "OriginFailed": refusal(502), "OriginLate": refusal(504), "Loop": refusal(508) },
            "securitySchemes": security_schemes(auth),
        },
    })
}

fn path_item(route: Route, kind: &KindConfig<'_>, http: &HttpConfig) -> Value {
    let mut item = Map::new();
    for method in route.methods() {
        let name = method.as_str().to_ascii_lowercase();
        item.insert(name, operation(route, method, Some(kind), http));
    }
    Value::Object(item)
}

fn operation(route: Route, method: &Method, kind: Option<&KindConfig<'_>>, http: &HttpConfig) -> Value {
    let mut responses = Map::new();
    for status in route.statuses(method).iter().chain(&SHARED_STATUSES) {
        let response = match *status {
            200..=202 => success(route, method, kind, *status),
            304 => json!( {"description":"What If-None-Match names is still so"}),
            refused => refusal(refused),
        };
        responses.insert(status.to_string(), response);
    }
    let id = match kind {
        Some(kind) => format!("{}-{}-{}", method.as_str().to_ascii_lowercase(), kind.name(), route_word(route)),
        None => route_word(route).to_owned(),
    };
    let mut operation = json!({ "operationId": id, "summary": summary(route, method), "responses": responses });
    if let Some(kind) = kind {
        operation["tags"] = json!([kind.name()]);
        operation["parameters"] = Value::Array(kind.parameters(route, method, http));
        // `{}` says that no identity is needed.
        let optional = kind.needs_no_actor(route, method);
        operation["security"] = if optional { json!([{}, { "actor": [] }]) } else { json!([{ "actor": [] }]) };
        if method != Method::GET {
            operation["requestBody"] = kind.request_body(route, method, http);
        }
    }
    operation
}

fn route_word(route: Route) -> &'static str {
    match route {
        Route::Toggle => "toggle",
        Route::ToggleMany => "toggles",
        Route::ToggleActors => "actors",
        Route::ToggleStatus | Route::CounterStatus | Route::PreferenceStatus => "status",
        Route::PreferenceLookup => "lookup",
        Route::Preference => "settings",
        Route::Counter => "counter",
        Route::CounterMany => "counters",
        Route::Ingest => "documents",
        Route::IngestDocument => "document",
        Route::Room => "queue",
        Route::RoomTokens => "tokens",
        Route::RoomStatus => "statuses",
        Route::RoomToken => "token",
        Route::RoomComplete => "complete",
        Route::RoomExtend => "extend",
        Route::RoomVerify => "verify",
        Route::Jwks => "jwks",
        Route::OpenApi => "openapi",
        Route::Read => "read",
        Route::Root | Route::Upstream | Route::Unknown => "root",
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
        (Route::ToggleStatus | Route::CounterStatus | Route::PreferenceStatus, _) => {
            "Whether a write has reached SQL; Prefer: wait=N waits for it, within the deadline"
        }
        (Route::Counter, &Method::POST) => "Count, by the rules of the kind",
        (Route::Counter, _) => "The count",
        (Route::CounterMany, _) => "The counts of many targets, in the order asked for",
        (Route::Ingest, &Method::POST) => "Create one document, or several together: all of them or none",
        (Route::Ingest, _) => "The actor's own documents: pending ones first, each part newest first",
        (Route::IngestDocument, _) => "What has become of a document of the actor's own",
        (Route::PreferenceLookup, _) => "Who of many members has a topic enabled",
        (Route::Preference, &Method::PATCH) => "Change some of a member's settings; the others stay",
        (Route::Preference, &Method::PUT) => "The same as PATCH: what is not named stays",
        (Route::Preference, _) => "The settings of a member",
        (Route::Room, _) => "The queue: how many wait and are in, how fast it goes, and the draw",
        (Route::RoomTokens, _) => "Join: a place for the actor, or the one that it has; needs no Idempotency-Key",
        (Route::RoomStatus, _) => "How it stands with many, in the order asked for",
        (Route::RoomToken, &Method::DELETE) => "Leave, or end the stay; once more is the same, for ended_ttl_ms",
        (Route::RoomToken, _) => {
            "How it stands; keeps the place. Accept: text/event-stream streams it to those who are near the front"
        }
        (Route::RoomComplete, _) => {
            "End the stay; the place is given on at once; once more is the same, for ended_ttl_ms"
        }
        (Route::RoomExtend, _) => "A longer stay, up to the kind's longest",
        (Route::RoomVerify, _) => "Whether a pass's holder is in, for a service that asks",
        (Route::Jwks, _) => "The public keys of the passes of all rooms (RFC 7517)",
        (Route::OpenApi, _) => "This document",
        (Route::Read, _) => "The rows of a named read; Cache-Status says whether they were kept, and why",
        (Route::Root | Route::Upstream | Route::Unknown, _) => "Where to begin",
    }
}

/// A parameter.
fn parameter(name: &str, place: &str, required: bool, schema: &Value, text: &str) -> Value {
    json!({ "name": name, "in": place, "required": required, "schema": schema, "description": text })
}

/// A string of a structured field, or the same without quotes.
const IDEMPOTENCY_KEY_PATTERN: &str = r#"^("([ !#-\[\]-~]|\\["\\])+"|[!#-~][!-~]*)$"#;

/// `Idempotency-Key`.
fn idempotency_key() -> Value {
    let schema = json!({ "type": "string", "minLength": 1, "pattern": IDEMPOTENCY_KEY_PATTERN });
    let text = "A string as structured fields write it, such as \"a1\", of 1 to 255 characters; a1 is the same key. The same key with the same request answers the first outcome again: makes it safe to repeat. A key \
                belongs to the actor and to the target in the path: with another target it is another request";
    parameter("Idempotency-Key", "header", false, &schema, text)
}

/// `?targets=`.
fn targets(id_type: IdType, http: &HttpConfig) -> Value {
    let items = id_schema(id_type);
    let schema = json!({ "type": "array", "items": items, "minItems": 1, "maxItems": http.targets_max });
    json!({
        "name": "targets", "in": "query", "required": true, "style": "form", "explode": false,
        "schema": schema, "description": "Ids, separated by commas; a comma in a text id is %2C",
    })
}

/// `?position=` and `Prefer`.
fn receipt() -> [Value; 2] {
    let schema = json!({ "type": "string", "pattern": "^[0-9]+-[0-9]+-[0-9a-f]{32}$" });
    [parameter("position", "query", true, &schema, "`Weir-Receipt` of a write"), prefer_wait()]
}

fn prefer_wait() -> Value {
    parameter("Prefer", "header", false, &json!({ "type": "string" }), "`wait=N`: wait for SQL up to N seconds")
}

/// `journaled` or `stored`; `dead-letter` is what `…/status` says of a write of which SQL did not take a row.
fn level() -> Value {
    json!({ "type": "string", "enum": ["journaled", "stored", "dead-letter"] })
}

/// An object all of whose properties are there.
fn object(properties: Map<String, Value>) -> Value {
    let required: Vec<String> = properties.keys().cloned().collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

fn success(route: Route, method: &Method, kind: Option<&KindConfig<'_>>, status: u16) -> Value {
    let text = match (route, status) {
        (Route::Ingest, 201) => "Created: all of them are in SQL",
        (Route::Ingest, 202) => "Accepted: on their way to SQL, or some were refused there",
        _ => summary(route, method),
    };
    let mut response = json!({ "description": text });
    let schema = kind.map_or_else(|| json!({ "type": "object" }), |kind| kind.success_schema(route, method));
    response["content"] = json!({ "application/json": { "schema": schema } });
    let streamed = match route {
        Route::PreferenceLookup => Some(("application/x-ndjson", "An answer line for each part, as members come")),
        Route::RoomToken if method == Method::GET => Some(("text/event-stream", "The same, whenever it changes")),
        _ => None,
    };
    if let Some((media_type, text)) = streamed {
        response["content"][media_type] = json!({ "schema": { "type": "string", "description": text } });
    }
    if method != Method::GET && route != Route::PreferenceLookup && !matches!(kind, Some(KindConfig::Room(_))) {
        let header = |text: &str| json!({ "schema": { "type": "string" }, "description": text });
        let mut headers = json!({
            "Weir-Durability": header("The level reached, as in the body"),
            "Weir-Receipt": header("Place in the journal: ask …/status?position= with it"),
            "Idempotency-Replayed": header("`true` when this is the outcome of an earlier request with the same key"),
        });
        if route == Route::Ingest {
            headers["Location"] = header("Of a single document");
            headers["Preference-Applied"] =
                header("`wait=N` where a wish to wait was followed, with the seconds that it could be");
        } else if route != Route::Preference {
            headers["RateLimit-Policy"] = header("The rule's limit, when it has one");
            headers["RateLimit"] = header("What is left of it");
        }
        response["headers"] = headers;
    }
    response
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
            "requestId": { "type": "string", "description": "The request's id, as in the reply's header: log lines have it, too" },
            "violations": {
                "type": "array",
                "description": "Of `invalid-document`: what is wrong where (JSON Pointer; in a list it begins with the index)",
                "items": { "type": "object", "properties": { "path": { "type": "string" }, "message": { "type": "string" } } },
            },
        },
        "required": ["type", "title", "status", "detail"],
    })
}

fn security_schemes(auth: &AuthConfig) -> Value {
    let actor = match (&auth.jwt, &auth.trusted_header) {
        // Where either is enough, the token is the one that every client can send.
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
        let (toggle, counter, ingest) = (ToggleConfig::demo(), CounterConfig::demo(), IngestConfig::demo());
        let preference = PreferenceConfig::demo();
        let room = RoomConfig::demo("room.pem".into());
        let reads = weir_core::config::Config::demo(std::path::Path::new("d")).reads;
        let kinds = [
            KindConfig::Toggle(&toggle),
            KindConfig::Counter(&counter),
            KindConfig::Ingest(&ingest),
            KindConfig::Preference(&preference),
            KindConfig::Room(&room),
            KindConfig::Read(&reads[0]),
        ];
        document(&kinds, &HttpConfig::default(), &AuthConfig::default())
    }

    #[test]
    fn every_route_method_and_status_is_described() {
        let document = demo();
        for route in ROUTES {
            let kinds = ["feed-like", "video-view", "playlist", "notification", "concert", "concert-dates"];
            let paths = kinds.map(|kind| route.pattern().replace("{kind}", kind));
            let path = paths.iter().find(|path| !document["paths"][path].is_null()).unwrap();
            for method in route.methods() {
                let operation = &document["paths"][path][method.as_str().to_ascii_lowercase()];
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
