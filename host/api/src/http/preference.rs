//! The requests of the preference capability.
//!
//! - `asked`: the body of a look-up, read.
//! - `stream`: look-ups whose members come and whose answers go line by line.

mod lookup_request;
mod stream;

use std::net::IpAddr;
use std::sync::Arc;

use hyper::body::{Body, Incoming};
use hyper::http::request::Parts;
use hyper::{HeaderMap, header};
use serde_json::{Map, Value, json};

use super::json;
use super::problem::{BAD_ID, INVALID_SETTINGS, NOT_OWN, Repeatable, TOO_MANY_MEMBERS, UNKNOWN_TOPIC, from_refusal};
use super::query;
use super::reply::{self, push_id, timestamp};
use super::shared::{Shared, refused_read};
use lookup_request::{LookupRequest, Named};
use weir_core::config::{PreferenceTable, WriteRights};
use weir_core::model::{Id, Setting, Settings};
use weir_listener::Reply;
use weir_listener::body::{self, BodyLimits};
use weir_listener::problem::Problem;
use weir_listener::text::push_json_string;
use weir_write::preference::{Looked, PreferenceKind, PutRequest, Topic};

/// Most members that one answer names individually when their look-up failed. Beyond that, it gives only the count.
const ERRORS_MAX: usize = 10_000;
/// Content type of a look-up that is streamed.
const NDJSON: &str = "application/x-ndjson";
/// Content type of a change, besides JSON.
pub(super) const MERGE_PATCH: &str = "application/merge-patch+json";

/// One kind.
pub(super) struct PreferenceView {
    kind: Arc<PreferenceKind>,
}

/// A change whose head was understood; its body is still to be read.
pub(super) struct Put {
    member: Id,
    actor: Id,
    idempotency_key: Option<String>,
}

impl PreferenceView {
    pub(super) fn new(kind: Arc<PreferenceKind>) -> Self {
        Self { kind }
    }

    fn table(&self) -> &PreferenceTable {
        &self.kind.config().table
    }

    /// `PUT` and `PATCH`: everything but the body.
    pub(super) fn read_put(&self, shared: &Shared, head: &Parts, peer: IpAddr, segment: &str) -> Result<Put, Problem> {
        let member_type = self.table().member_type;
        let member = query::target(segment, member_type)?;
        let [] = query::parameters(head.uri.query(), [])?;
        let actor = shared.authenticator.actor(&head.headers, peer, member_type)?;
        let actor = actor.ok_or_else(|| shared.authenticator.missing())?;
        if self.kind.config().writes == WriteRights::Own && actor != member {
            return Err(Problem::new(&NOT_OWN, "nothing was changed; an actor may write its own settings only"));
        }
        Ok(Put { member, actor, idempotency_key: query::idempotency_key(&head.headers)? })
    }

    /// `PUT` and `PATCH`. `body` is JSON.
    pub(super) async fn put(&self, shared: &Shared, put: Put, body: &[u8]) -> Result<Reply, Problem> {
        let settings = settings(self.table(), &json::read(body)?)?;
        let Put { member, actor, idempotency_key } = put;
        let request = PutRequest { member: member.clone(), actor, settings: settings.clone(), idempotency_key };
        let put = shared.within(self.kind.write(request)).await;
        let put = put.map_err(|refusal| from_refusal(&refusal, Repeatable::Yes))?;
        let body = json!({
            "member": member.to_json(),
            "settings": settings.to_json(),
            "timestamp": timestamp(put.at_ms),
            "durability": put.durability,
        });
        let mut response = reply::json(body.to_string());
        reply::journaled(response.headers_mut(), put.durability, put.receipt, put.replayed);
        Ok(response)
    }

    /// `GET` of one member.
    pub(super) async fn read(&self, shared: &Shared, head: &Parts, segment: &str) -> Result<Reply, Problem> {
        let member = query::target(segment, self.table().member_type)?;
        let [] = query::parameters(head.uri.query(), [])?;
        let fields = shared.within(self.kind.read(&member)).await.map_err(refused_read)?;
        let settings: Map<String, Value> = fields.into_iter().map(|(name, value)| (name, value.to_json())).collect();
        let now = timestamp(shared.clock.now_ms());
        let body = json!({ "member": member.to_json(), "settings": settings, "timestamp": now });
        Ok(reply::json(body.to_string()))
    }

    /// `GET …/status`.
    pub(super) async fn status(&self, shared: &Shared, head: &Parts, segment: &str) -> Result<Reply, Problem> {
        query::target(segment, self.table().member_type)?;
        shared.status(self.kind.context(), head).await
    }

    /// `POST …/lookup`.
    pub(super) async fn lookup(
        &self,
        shared: &Shared,
        head: &Parts,
        body: Incoming,
        limits: BodyLimits,
    ) -> Result<Reply, Problem> {
        let [] = query::parameters(head.uri.query(), [])?;
        let config = self.kind.config();
        if is_ndjson(&head.headers) {
            body::check_uncoded(&head.headers)?;
            return stream::begin(&self.kind, body, limits.timeout).await;
        }
        body::check_json_type(&head.headers)?;
        let limits = BodyLimits { bytes_max: config.lookup_body_bytes_max, ..limits };
        let announced = body.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok());
        let held = announced.unwrap_or(limits.bytes_max).min(limits.bytes_max);
        let _held = self.kind.reserve(held).map_err(|refusal| from_refusal(&refusal, Repeatable::Yes).close())?;
        let bytes = body::read(body, limits).await?;
        let LookupRequest { topic, members } = lookup_request::read(&bytes, config.table.member_type)?;
        if members.len() > config.lookup_members_max {
            let detail = format!("ask for at most {} members, or stream them as {NDJSON}", config.lookup_members_max);
            return Err(Problem::new(&TOO_MANY_MEMBERS, detail));
        }
        let topic = known_topic(&self.kind, &topic).await?;
        let answer = shared.within(async { Ok(answer(&self.kind, &topic, members).await) }).await;
        let Answer { mut body, .. } = answer.map_err(refused_read)??;
        body.push(b'}');
        Ok(reply::json(body))
    }
}

/// The topic of this name, or 422.
async fn known_topic(kind: &PreferenceKind, name: &str) -> Result<Topic, Problem> {
    let topic = kind.topic(name).await.map_err(refused_read)?;
    let known = || kind.config().topics.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    topic.ok_or_else(|| Problem::new(&UNKNOWN_TOPIC, format!("there is no such topic; configured: {}", known())))
}

/// What is answered for some members.
struct Answer {
    /// `{"enabled":[…]` and, where some failed, `,"errors":[…]`, without the last brace.
    body: Vec<u8>,
    enabled: usize,
    errors: usize,
}

/// Looks members up. The answer names each member whose id is invalid or that cannot be read.
async fn answer(kind: &PreferenceKind, topic: &Topic, members: Vec<Named>) -> Result<Answer, Problem> {
    let mut wrong = Vec::new();
    let mut ids = Vec::with_capacity(members.len());
    for named in members {
        match named {
            Named::Id(id) => ids.push(id),
            Named::Wrong(text, reason) => wrong.push((text, reason)),
        }
    }
    let looked = kind.lookup(topic, &ids).await.map_err(refused_read)?;
    Ok(written(&ids, &looked, &wrong))
}

fn written(ids: &[Id], looked: &Looked, wrong: &[(Value, String)]) -> Answer {
    let mut body = Vec::with_capacity(16 + ids.len() * 8);
    body.extend_from_slice(b"{\"enabled\":[");
    let mut count = 0;
    for (id, _) in ids.iter().zip(&looked.enabled).filter(|(_, enabled)| **enabled) {
        if count > 0 {
            body.push(b',');
        }
        push_id(&mut body, id);
        count += 1;
    }
    body.push(b']');
    let errors = wrong.len() + looked.failed.len();
    if errors > 0 {
        body.extend_from_slice(b",\"errors\":[");
        let of_ids = wrong.iter().map(|(given, reason)| (given.clone(), Problem::new(&BAD_ID, reason.clone())));
        let failed = looked
            .failed
            .iter()
            .filter_map(|(index, refusal)| Some((ids.get(*index)?.to_json(), from_refusal(refusal, Repeatable::Yes))));
        for (index, (member, problem)) in of_ids.chain(failed).take(ERRORS_MAX).enumerate() {
            body.extend_from_slice(if index == 0 { b"{\"member\":" } else { b",{\"member\":" });
            body.extend_from_slice(member.to_string().as_bytes());
            let (name, detail) = problem.named();
            body.extend_from_slice(b",\"type\":");
            push_json_string(&mut body, &name);
            body.extend_from_slice(b",\"detail\":");
            push_json_string(&mut body, detail);
            body.push(b'}');
        }
        body.push(b']');
        if errors > ERRORS_MAX {
            body.extend_from_slice(format!(",\"errorCount\":{errors}").as_bytes());
        }
    }
    Answer { body, enabled: count, errors }
}

fn is_ndjson(headers: &HeaderMap) -> bool {
    is_of_type(headers, NDJSON)
}

/// Whether a body is declared as a merge patch (RFC 7396). A field that it takes away is refused: each has a value.
pub(super) fn is_merge_patch(headers: &HeaderMap) -> bool {
    is_of_type(headers, MERGE_PATCH)
}

fn is_of_type(headers: &HeaderMap, media_type: &str) -> bool {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return false };
    let essence = given.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    essence.eq_ignore_ascii_case(media_type.as_bytes())
}

/// The fields of a change, each known and of its type, or 422 with what is wrong where.
fn settings(table: &PreferenceTable, body: &Value) -> Result<Settings, Problem> {
    let wrong = |violations: Vec<Value>| {
        let detail = "nothing was changed; see \"violations\" for what is wrong where";
        Err(Problem::new(&INVALID_SETTINGS, detail).value("violations", Value::Array(violations)))
    };
    let violation = |path: String, message: String| json!({ "path": path, "message": message });
    let Value::Object(fields) = body else {
        return wrong(vec![violation(String::new(), "send an object of fields and values".into())]);
    };
    if fields.is_empty() {
        return wrong(vec![violation(String::new(), "name at least one field".into())]);
    }
    let (mut values, mut violations) = (Vec::with_capacity(fields.len()), Vec::new());
    for (name, value) in fields {
        let path = || format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        match table.field(name) {
            None => {
                let known: Vec<&str> = table.fields.iter().map(|field| field.name.as_str()).collect();
                violations.push(violation(path(), format!("is none of the fields: {}", known.join(", "))));
            }
            Some(field) => match Setting::from_json(field.field_type, value) {
                Some(value) => values.push((name.as_str(), value)),
                None => violations.push(violation(path(), format!("must be of type {}", field.field_type.as_str()))),
            },
        }
    }
    if violations.is_empty() {
        return Ok(Settings::of(values.iter().map(|(name, value)| (*name, value))));
    }
    wrong(violations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::config::PreferenceConfig;
    use weir_core::error::Refusal;

    #[test]
    fn a_change_names_known_fields_of_their_type() {
        let table = PreferenceConfig::demo().table;
        let read = |body: Value| settings(&table, &body);
        let good = read(json!({"social": false, "quiet_from": 5, "app_version": "1"})).unwrap();
        assert_eq!(Value::Object(good.to_json()), json!({"social": false, "quiet_from": 5, "app_version": "1"}));
        for wrong in [json!({}), json!([]), json!({"x": 1}), json!({"social": 1}), json!({"social": null})] {
            assert_eq!(read(wrong.clone()).unwrap_err().status(), 422, "{wrong}");
        }
    }

    #[test]
    fn what_failed_is_named_beside_what_is_enabled() {
        let ids = [Id::Int(1), Id::Int(2), Id::Int(1), Id::Int(3)];
        let looked = Looked { enabled: vec![true, false, true, false], failed: vec![(3, Refusal::StoreUnavailable)] };
        let mut answer = written(&ids, &looked, &[(json!("x"), "expected an integer".into())]);
        answer.body.push(b'}');
        let value: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(value["enabled"], json!([1, 1]));
        assert_eq!(value["errors"][0]["type"], "urn:weir:problem:bad-id");
        assert_eq!(value["errors"][0]["member"], "x");
        assert_eq!(value["errors"][1]["member"], 3);
        assert_eq!(value["errors"][1]["type"], "urn:weir:problem:store-unavailable");
        assert_eq!((answer.enabled, answer.errors), (2, 2));
    }
}
