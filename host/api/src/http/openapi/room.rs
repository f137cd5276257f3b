//! What is particular to waiting rooms.

use serde_json::{Map, Value, json};

use super::{id_schema, object, parameter};
use crate::http::route::Route;
use weir_core::config::{HttpConfig, RoomConfig};

pub(super) fn parameters(route: Route, kind: &RoomConfig) -> Vec<Value> {
    let queue = || parameter("target", "path", true, &id_schema(kind.queue_type), "The queue");
    let token =
        || parameter("token", "path", true, &json!({ "type": "string" }), "The token of the join; a pass is refused");
    match route {
        Route::RoomVerify => Vec::new(),
        Route::RoomToken | Route::RoomComplete | Route::RoomExtend => vec![queue(), token()],
        _ => vec![queue()],
    }
}

/// Whether a body is required, and its schema.
pub(super) fn request(route: Route, kind: &RoomConfig, http: &HttpConfig) -> (bool, Value) {
    let one = |name: &str, schema: Value, required: bool| {
        let required_names: &[&str] = if required { &[name] } else { &[] };
        let properties = json!({ name: schema });
        let schema = json!({
            "type": "object", "properties": properties, "required": required_names, "additionalProperties": false,
        });
        (required, schema)
    };
    match route {
        Route::RoomStatus => {
            let items = json!({ "type": "string" });
            let tokens = json!({ "type": "array", "items": items, "minItems": 1, "maxItems": http.targets_max });
            one("tokens", tokens, true)
        }
        Route::RoomVerify => {
            one("token", json!({ "type": "string", "description": "The pass; the token of the join is refused" }), true)
        }
        Route::RoomExtend => {
            let text = "From now; without it as long as the rules gave when the holder was let in";
            let ttl = json!({ "type": "integer", "minimum": 1, "maximum": kind.stay_ms_max, "description": text });
            one("ttlMs", ttl, false)
        }
        _ => (false, json!({ "type": "object", "additionalProperties": false })),
    }
}

pub(super) fn success_schema(route: Route) -> Value {
    let number = || json!({ "type": "integer", "minimum": 0 });
    let time = || json!({ "type": "string", "format": "date-time" });
    let mut properties = Map::new();
    let mut add = |name: &str, schema: Value| properties.insert(name.to_owned(), schema);
    match route {
        Route::Room => {
            add("queue", json!({}));
            add("mode", json!({ "enum": ["open", "queue-all", "closed", "pass-through"] }));
            for name in ["waiting", "active", "capacity"] {
                add(name, number());
            }
            add("admittedPerSecond", json!({ "type": "number" }));
            add("eta", eta());
            add("totals", json!({ "type": "object" }));
            let text = "Places by lot: SHA-256 of the seed, and, once somebody was let in, the seed";
            add("draw", json!({ "type": "object", "description": text }));
            add("timestamp", time());
        }
        Route::RoomVerify => {
            add("active", json!({ "type": "boolean" }));
            add("status", status_schema());
            add("queue", json!({}));
            add("actor", json!({}));
            add("timestamp", time());
        }
        Route::RoomStatus => {
            let text = "As of one token, or `token` and `problem` with `type`, `status` and `detail`";
            add("tokens", json!({ "type": "array", "items": { "type": "object" }, "description": text }));
        }
        _ => return standing(),
    }
    object(properties)
}

fn status_schema() -> Value {
    json!({ "enum": ["waiting", "active", "expired", "completed", "left"] })
}

fn eta() -> Value {
    let text = "When it will be so, in milliseconds from now: not before, not after; null while that cannot be said";
    json!({ "type": ["object", "null"], "description": text, "properties": { "lowMs": {}, "highMs": {} } })
}

/// How it stands with one.
fn standing() -> Value {
    let number = |text: &str| json!({ "type": ["integer", "null"], "description": text });
    let token =
        "For later requests; of a poll after half of its time a new one, while the old one is good until its end";
    let not_seen = "Of whoever expired: did not ask for too long, or was let in and did not come";
    json!({
        "type": "object",
        "properties": {
            "token": { "type": "string", "description": token },
            "status": status_schema(),
            "queue": {},
            "position": number("Of whoever waits; exact, 1 is the front; null before the draw"),
            "ahead": number("So many are before"),
            "waiting": number("So many wait"),
            "eta": eta(),
            "pollAfterMs": number("When to ask again; also Retry-After"),
            "pass": { "type": "string", "description": "Of whoever is in: what the protected service verifies" },
            "expiresAt": { "type": "string", "format": "date-time" },
            "reason": { "enum": ["stay-over", "not-seen"], "description": not_seen },
            "cfWaitingRoom": { "type": "object", "description": "The names of Cloudflare's waiting room" },
        },
        "required": ["token", "status", "queue", "timestamp", "cfWaitingRoom"],
    })
}
