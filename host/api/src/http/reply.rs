//! Successful replies, written by hand: the field names of a kind are escaped once, at start.

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use weir_core::config::ToggleResponse;
use weir_core::model::{Id, Member, PairState, RateLimit, RateState};
use weir_listener::Reply;
use weir_listener::reply::ReplyBody;
use weir_listener::text::{push, push_hex, push_json_string, push_number, push_timestamp};
use weir_write::capability::Receipt;
use weir_write::counter::CountReply;
use weir_write::toggle::ToggleReply;

/// What the cache did (RFC 9211).
pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// `RateLimit` (draft-ietf-httpapi-ratelimit-headers).
pub(super) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub(super) const WEIR_DURABILITY: HeaderName = HeaderName::from_static("weir-durability");
const WEIR_RECEIPT: HeaderName = HeaderName::from_static("weir-receipt");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// What one reply to a toggle takes, with names of usual length.
const TOGGLE_BYTES: usize = 192;
/// What one header's value takes at most: a receipt.
const HEADER_BYTES: usize = 64;
/// Headers of a reply to a toggle.
const TOGGLE_HEADERS: usize = 8;

/// The texts of a kind, as they stand in replies.
pub(super) struct ReplyText {
    active: Vec<u8>,
    count: Vec<u8>,
    message_active: Vec<u8>,
    message_inactive: Vec<u8>,
}

impl ReplyText {
    pub(super) fn new(names: &ToggleResponse) -> Self {
        let json = |text: &str| {
            let mut json = Vec::new();
            push_json_string(&mut json, text);
            json
        };
        Self {
            active: json(&names.active),
            count: json(&names.count),
            message_active: json(&names.message_active),
            message_inactive: json(&names.message_inactive),
        }
    }

    fn push_state(&self, to: &mut Vec<u8>, state: PairState) {
        to.extend_from_slice(&self.active);
        to.extend_from_slice(if state.active { b":true," } else { b":false," });
        to.extend_from_slice(&self.count);
        to.push(b':');
        push_number(to, state.count);
    }

    /// The reply to `POST`, `PUT` and `DELETE`.
    pub(super) fn toggled(&self, reply: &ToggleReply) -> Reply {
        let mut body = Vec::with_capacity(TOGGLE_BYTES);
        body.push(b'{');
        self.push_state(&mut body, reply.state);
        body.extend_from_slice(b",\"message\":");
        body.extend_from_slice(if reply.state.active { &self.message_active } else { &self.message_inactive });
        body.extend_from_slice(b",\"timestamp\":\"");
        push_timestamp(&mut body, reply.at_ms);
        body.extend_from_slice(b"\",\"durability\":\"");
        body.extend_from_slice(reply.durability.as_bytes());
        body.extend_from_slice(b"\"}");
        let mut response = json(body);
        let headers = response.headers_mut();
        journaled(headers, reply.durability, reply.receipt, reply.replayed);
        if let Some((rate, limit)) = reply.rate {
            headers.insert(RATE_LIMIT_POLICY, rate_limit_policy_value(limit));
            headers.insert(RATE_LIMIT, rate_limit_value(rate, limit));
        }
        response
    }

    /// The reply to `GET` of one target.
    pub(super) fn state(&self, state: PairState, now_ms: u64) -> Reply {
        let mut body = Vec::with_capacity(TOGGLE_BYTES);
        body.push(b'{');
        self.push_state(&mut body, state);
        body.extend_from_slice(b",\"timestamp\":\"");
        push_timestamp(&mut body, now_ms);
        body.extend_from_slice(b"\"}");
        json(body)
    }

    /// The reply to `GET` of many targets: in the order of the request; a target that does not exist says so.
    pub(super) fn states(&self, targets: &[Id], states: &[Option<PairState>]) -> Reply {
        let mut body = Vec::with_capacity(TOGGLE_BYTES / 2 * (targets.len() + 1));
        body.extend_from_slice(b"{\"targets\":[");
        for (index, (target, state)) in targets.iter().zip(states).enumerate() {
            body.extend_from_slice(if index == 0 { b"{\"target\":" } else { b",{\"target\":" });
            push_id(&mut body, target);
            body.push(b',');
            match state {
                Some(state) => self.push_state(&mut body, *state),
                None => body.extend_from_slice(b"\"exists\":false"),
            }
            body.push(b'}');
        }
        body.extend_from_slice(b"]}");
        json(body)
    }
}

/// The headers of every write that was accepted.
pub(super) fn journaled(headers: &mut HeaderMap, durability: &'static str, receipt: Receipt, replayed: bool) {
    headers.insert(WEIR_DURABILITY, HeaderValue::from_static(durability));
    headers.insert(WEIR_RECEIPT, receipt_value(receipt));
    if replayed {
        headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
}

/// The reply to a hit on a counter.
pub(super) fn counted(reply: &CountReply) -> Reply {
    let mut body = Vec::with_capacity(TOGGLE_BYTES);
    body.extend_from_slice(b"{\"count\":");
    push_number(&mut body, reply.count);
    body.extend_from_slice(if reply.counted { b",\"counted\":true" } else { b",\"counted\":false" });
    body.extend_from_slice(b",\"timestamp\":\"");
    push_timestamp(&mut body, reply.at_ms);
    body.extend_from_slice(b"\",\"durability\":\"");
    body.extend_from_slice(reply.durability.as_bytes());
    body.extend_from_slice(b"\"}");
    let mut response = json(body);
    let headers = response.headers_mut();
    journaled(headers, reply.durability, reply.receipt, reply.replayed);
    if let Some((rate, limit)) = reply.rate {
        headers.insert(RATE_LIMIT_POLICY, rate_limit_policy_value(limit));
        headers.insert(RATE_LIMIT, rate_limit_value(rate, limit));
    }
    response
}

/// The reply to `GET` of one counter.
pub(super) fn count(count: u64, now_ms: u64) -> Reply {
    let mut body = Vec::with_capacity(TOGGLE_BYTES);
    body.extend_from_slice(b"{\"count\":");
    push_number(&mut body, count);
    body.extend_from_slice(b",\"timestamp\":\"");
    push_timestamp(&mut body, now_ms);
    body.extend_from_slice(b"\"}");
    json(body)
}

/// The reply to `GET` of many counters: in the order of the request; a target that does not exist says so.
pub(super) fn counts(targets: &[Id], counts: &[Option<u64>]) -> Reply {
    let mut body = Vec::with_capacity(TOGGLE_BYTES / 4 * (targets.len() + 1));
    body.extend_from_slice(b"{\"targets\":[");
    for (index, (target, count)) in targets.iter().zip(counts).enumerate() {
        body.extend_from_slice(if index == 0 { b"{\"target\":" } else { b",{\"target\":" });
        push_id(&mut body, target);
        match count {
            Some(count) => {
                body.extend_from_slice(b",\"count\":");
                push_number(&mut body, *count);
            }
            None => body.extend_from_slice(b",\"exists\":false"),
        }
        body.push(b'}');
    }
    body.extend_from_slice(b"]}");
    json(body)
}

/// A time as replies write it.
pub(super) fn timestamp(at_ms: u64) -> String {
    let mut text = Vec::new();
    push_timestamp(&mut text, at_ms);
    String::from_utf8(text).unwrap_or_default()
}

/// The reply to `GET …/actors`. `next` is the cursor of the page after this one.
pub(super) fn actors(members: &[Member], next: Option<&str>) -> Reply {
    let mut body = b"{\"actors\":[".to_vec();
    for (index, member) in members.iter().enumerate() {
        body.extend_from_slice(if index == 0 { b"{\"actor\":" } else { b",{\"actor\":" });
        push_id(&mut body, &member.actor);
        if member.since_ms == 0 {
            body.extend_from_slice(b",\"since\":null}");
        } else {
            body.extend_from_slice(b",\"since\":\"");
            push_timestamp(&mut body, member.since_ms);
            body.extend_from_slice(b"\"}");
        }
    }
    body.extend_from_slice(b"],\"next\":");
    match next {
        Some(cursor) => push_json_string(&mut body, cursor),
        None => body.extend_from_slice(b"null"),
    }
    body.push(b'}');
    json(body)
}

/// What `GET …/status` says of an entry of which SQL took a row not: it is in the dead letters.
pub(super) const DEAD_LETTER: &str = "dead-letter";

/// The reply to `GET …/status`.
pub(super) fn durability(level: &'static str) -> Reply {
    let mut response = json(format!("{{\"durability\":\"{level}\"}}").into_bytes());
    response.headers_mut().insert(WEIR_DURABILITY, HeaderValue::from_static(level));
    response
}

/// 200 with a JSON body that must not be cached: it is true of one moment and one actor.
pub(super) fn json(body: impl Into<Bytes>) -> Reply {
    let mut response = Response::new(ReplyBody::whole(body));
    let headers = response.headers_mut();
    // At once: a map that grows is made anew and filled again.
    headers.reserve(TOGGLE_HEADERS);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// 204 with `Allow`.
pub(super) fn options(allow: HeaderValue) -> Reply {
    let mut response = Response::new(ReplyBody::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

/// An id as JSON.
pub(super) fn push_id(to: &mut Vec<u8>, id: &Id) {
    match id {
        Id::Int(value) => push(to, format_args!("{value}")),
        Id::Uuid(value) => push(to, format_args!("\"{}\"", value.hyphenated())),
        Id::Text(value) => push_json_string(to, value),
    }
}

/// `"toggle";r=9;t=10`: what is left, and the seconds until it is whole again. Where nothing is left, the seconds until there
/// is something: as long as `Retry-After` of the next one would say.
pub(super) fn rate_limit_value(rate: RateState, limit: RateLimit) -> HeaderValue {
    let burst = u64::from(limit.burst.max(1));
    let whole_but_one_ms = u64::from(limit.period_ms) * (burst - 1) / burst;
    let after_ms = if rate.remaining == 0 { rate.reset_ms.saturating_sub(whole_but_one_ms) } else { rate.reset_ms };
    rate_limit_after(rate.remaining, after_ms.div_ceil(1_000).max(1))
}

/// `"toggle";r=0;t=1`: what is left, and after how many seconds there is more.
pub(super) fn rate_limit_after(remaining: u32, after_s: u64) -> HeaderValue {
    let mut text = Vec::with_capacity(HEADER_BYTES);
    text.extend_from_slice(b"\"toggle\";r=");
    push_number(&mut text, u64::from(remaining));
    text.extend_from_slice(b";t=");
    push_number(&mut text, after_s);
    digits(text)
}

/// `"toggle";q=10;w=10`: the quota, and its window in seconds.
pub(super) fn rate_limit_policy_value(limit: RateLimit) -> HeaderValue {
    let mut text = Vec::with_capacity(HEADER_BYTES);
    text.extend_from_slice(b"\"toggle\";q=");
    push_number(&mut text, u64::from(limit.burst));
    text.extend_from_slice(b";w=");
    push_number(&mut text, u64::from(limit.period_ms.div_ceil(1000)));
    digits(text)
}

/// As [`Receipt`] displays itself, which a test holds it to.
fn receipt_value(receipt: Receipt) -> HeaderValue {
    let mut text = Vec::with_capacity(HEADER_BYTES);
    push_number(&mut text, u64::from(receipt.partition));
    text.push(b'-');
    push_number(&mut text, receipt.position);
    text.push(b'-');
    push_hex(&mut text, receipt.incarnation.0.as_bytes());
    digits(text)
}

fn digits(text: Vec<u8>) -> HeaderValue {
    // Digits and punctuation are always a header value.
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::*;

    fn body(reply: Reply) -> Value {
        let bytes = futures_util::FutureExt::now_or_never(reply.into_body().collect()).unwrap().unwrap().to_bytes();
        serde_json::from_slice(&bytes).unwrap()
    }

    fn text() -> ReplyText {
        ReplyText::new(&ToggleResponse {
            active: "liked".into(),
            count: "like\"Count".into(),
            message_active: "Liked ♥".into(),
            message_inactive: "Like \\ removed".into(),
        })
    }

    fn toggled() -> ToggleReply {
        ToggleReply {
            state: PairState { active: true, count: 2 },
            changed: true,
            durability: "journaled",
            receipt: Receipt {
                partition: 3,
                incarnation: weir_core::model::Incarnation(uuid::Uuid::nil()),
                position: 17,
            },
            rate: Some((RateState { remaining: 9, reset_ms: 9_001 }, RateLimit { burst: 10, period_ms: 10_000 })),
            replayed: false,
            at_ms: 951_782_400_000,
        }
    }

    #[test]
    fn a_toggle_answers_state_message_time_and_durability() {
        let reply = text().toggled(&toggled());
        assert_eq!(reply.headers()["weir-receipt"], "3-17-00000000000000000000000000000000");
        let receipt = Receipt { incarnation: weir_core::model::Incarnation::fresh(), ..toggled().receipt };
        assert_eq!(receipt_value(receipt), receipt.to_string());
        assert_eq!(reply.headers()["weir-durability"], "journaled");
        assert_eq!(reply.headers()["ratelimit-policy"], "\"toggle\";q=10;w=10");
        assert_eq!(reply.headers()["ratelimit"], "\"toggle\";r=9;t=10");
        assert!(!reply.headers().contains_key("idempotency-replayed"));
        let expected = json!({
            "liked": true, "like\"Count": 2, "message": "Liked ♥",
            "timestamp": "2000-02-29T00:00:00.000Z", "durability": "journaled",
        });
        assert_eq!(body(reply), expected);
    }

    #[test]
    fn what_is_left_says_when_there_is_more() {
        let limit = RateLimit { burst: 10, period_ms: 10_000 };
        let of = |remaining, reset_ms| rate_limit_value(RateState { remaining, reset_ms }, limit);
        assert_eq!(of(9, 1_000), "\"toggle\";r=9;t=1");
        assert_eq!(of(1, 8_001), "\"toggle\";r=1;t=9", "whole again");
        assert_eq!(of(0, 10_000), "\"toggle\";r=0;t=1", "one more");
        assert_eq!(of(0, 9_001), "\"toggle\";r=0;t=1");
    }

    #[test]
    fn a_replayed_answer_says_so() {
        let state = PairState { active: false, count: 0 };
        let reply = text().toggled(&ToggleReply { replayed: true, rate: None, state, ..toggled() });
        assert_eq!(reply.headers()["idempotency-replayed"], "true");
        assert!(!reply.headers().contains_key("ratelimit"));
        assert_eq!(body(reply)["message"], "Like \\ removed");
    }

    #[test]
    fn many_targets_keep_their_order() {
        let targets = [Id::Int(1), Id::Text("a\"b".into())];
        let states = [Some(PairState { active: false, count: 5 }), None];
        let expected = json!({ "targets": [
            { "target": 1, "liked": false, "like\"Count": 5 }, { "target": "a\"b", "exists": false },
        ]});
        assert_eq!(body(text().states(&targets, &states)), expected);
    }

    #[test]
    fn actors_have_a_time_when_it_is_known() {
        let members = [Member { actor: Id::Int(7), since_ms: 1 }, Member { actor: Id::Text("x".into()), since_ms: 0 }];
        let expected = json!({
            "actors": [{ "actor": 7, "since": "1970-01-01T00:00:00.001Z" }, { "actor": "x", "since": null }],
            "next": "c",
        });
        assert_eq!(body(actors(&members, Some("c"))), expected);
        assert_eq!(body(actors(&[], None)), json!({ "actors": [], "next": null }));
    }
}
