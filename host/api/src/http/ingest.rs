//! The requests of the ingest capability.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use super::problem::{
    BAD_QUERY, DOCUMENT_EXISTS, DOCUMENT_MISSING, INVALID_BODY, INVALID_DOCUMENT, Repeatable, TOO_MANY_DOCUMENTS,
    from_refusal,
};
use super::reply::{self, timestamp};
use super::shared::{PREFERENCE_APPLIED, Shared, refused_read, waited};
use super::{json as body_json, query};
use weir_core::config::DurabilityLevel;
use weir_core::model::{Id, Violation};
use weir_listener::Reply;
use weir_listener::body::BodyLimits;
use weir_listener::problem::Problem;
use weir_listener::text::decode_query_value;
use weir_write::ingest::{CreateRefusal, CreateReply, CreateRequest, Fields, IngestKind, Listed, Status, StatusOf};

/// Documents in one list when the caller gives no limit.
const LIST_LIMIT_DEFAULT: usize = 50;
/// Most violations that an answer lists for one request.
const VIOLATIONS_MAX: usize = 100;
/// Bodies larger than this are read as JSON on a thread that may be busy for some milliseconds.
const INLINE_BYTES_MAX: usize = 32 << 10;

/// One kind.
pub(super) struct IngestView {
    kind: Arc<IngestKind>,
}

/// A create whose head was understood; its body is still to be read.
pub(super) struct Create {
    actor: Id,
    idempotency_key: Option<String>,
    wait: Duration,
}

impl IngestView {
    pub(super) fn new(kind: Arc<IngestKind>) -> Self {
        Self { kind }
    }

    fn actor(&self, shared: &Shared, headers: &HeaderMap, peer: IpAddr) -> Result<Id, Problem> {
        let actor = shared.authenticator.actor(headers, peer, self.kind.config().table.actor_type)?;
        actor.ok_or_else(|| shared.authenticator.missing())
    }

    /// Bounds of a body of this kind.
    pub(super) fn body_limits(&self, limits: BodyLimits) -> BodyLimits {
        BodyLimits { bytes_max: self.kind.config().body_bytes_max, ..limits }
    }

    /// The kind.
    pub(super) fn kind(&self) -> &Arc<IngestKind> {
        &self.kind
    }

    /// `POST`: everything but the body.
    pub(super) fn read_create(&self, shared: &Shared, head: &Parts, peer: IpAddr) -> Result<Create, Problem> {
        let [] = query::parameters(head.uri.query(), [])?;
        let actor = self.actor(shared, &head.headers, peer)?;
        let wait = Duration::from_secs(query::prefer_wait_s(&head.headers).unwrap_or(0).min(shared.deadline.as_secs()));
        Ok(Create { actor, idempotency_key: query::idempotency_key(&head.headers)?, wait })
    }

    /// `POST`.
    pub(super) async fn create(&self, shared: &Shared, create: Create, body: bytes::Bytes) -> Result<Reply, Problem> {
        let (documents, is_list) = self.documents(body).await?;
        let Create { actor, idempotency_key, wait } = create;
        let repeatable = if idempotency_key.is_some() { Repeatable::Yes } else { Repeatable::No };
        let request = CreateRequest { documents, actor, idempotency_key, wait };
        let created = shared.within(async { Ok(self.kind.create(request).await) }).await;
        match created.map_err(|refusal| from_refusal(&refusal, repeatable))? {
            Ok(reply) => Ok(self.created(&reply, is_list, wait)),
            Err(CreateRefusal::Invalid(violations)) => Err(invalid(&violations, is_list)),
            Err(CreateRefusal::Exists(index, id)) => Err(self.exists(index, &id, is_list)),
            Err(CreateRefusal::Other(refusal)) => Err(from_refusal(&refusal, repeatable)),
        }
    }

    /// The documents of a body, and whether it is a list of them.
    async fn documents(&self, body: bytes::Bytes) -> Result<(Vec<Fields>, bool), Problem> {
        let value = if body.len() <= INLINE_BYTES_MAX {
            body_json::read(&body)?
        } else {
            let read = tokio::task::spawn_blocking(move || body_json::read(&body)).await;
            read.unwrap_or_else(|_| Err(Problem::new(&INVALID_BODY, "the body could not be read")))?
        };
        let documents_max = self.kind.config().documents_max;
        match value {
            Value::Object(fields) => Ok((vec![fields], false)),
            Value::Array(elements) if elements.len() > documents_max => {
                Err(Problem::new(&TOO_MANY_DOCUMENTS, format!("send at most {documents_max} documents at once")))
            }
            Value::Array(elements) if !elements.is_empty() => {
                let mut documents = Vec::with_capacity(elements.len());
                let mut wrong = Vec::new();
                for (index, element) in elements.into_iter().enumerate() {
                    match element {
                        Value::Object(fields) => documents.push(fields),
                        _ => wrong
                            .push((index, Violation { path: String::new(), message: "must be a JSON object".into() })),
                    }
                }
                if wrong.is_empty() { Ok((documents, true)) } else { Err(invalid(&wrong, true)) }
            }
            _ => Err(Problem::new(&INVALID_BODY, "send one document as a JSON object, or several in an array")),
        }
    }

    fn location(&self, id: &Id) -> String {
        let mut location = format!("/v1/ingest/{}/", self.kind.config().kind);
        for byte in id.to_string().bytes() {
            // What needs no encoding in a path segment (RFC 3986, unreserved).
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                location.push(char::from(byte));
            } else {
                // Writing into a `String` cannot fail.
                let _ = write!(location, "%{byte:02X}");
            }
        }
        location
    }

    fn created(&self, reply: &CreateReply, is_list: bool, wait: Duration) -> Reply {
        let document = |(id, status): (&Id, &StatusOf)| CreatedDocument { id: id.to_json(), status: status.as_str() };
        let mut created: Vec<CreatedDocument> = reply.ids.iter().zip(&reply.statuses).map(document).collect();
        let (one, documents) = if is_list { (None, Some(created)) } else { (created.pop(), None) };
        let body = Accepted { one, documents, timestamp: timestamp(reply.at_ms), durability: reply.durability };
        let mut response = reply::json(text_of(&body));
        let is_stored = reply.durability == DurabilityLevel::Stored.as_str();
        *response.status_mut() = if is_stored { StatusCode::CREATED } else { StatusCode::ACCEPTED };
        reply::journaled(response.headers_mut(), reply.durability, reply.receipt, reply.replayed);
        if let ([id], false) = (&reply.ids[..], is_list)
            && let Ok(location) = HeaderValue::try_from(self.location(id))
        {
            response.headers_mut().insert(header::LOCATION, location);
        }
        if wait > Duration::ZERO {
            response.headers_mut().insert(PREFERENCE_APPLIED, waited(wait));
        }
        response
    }

    fn exists(&self, index: usize, id: &Id, is_list: bool) -> Problem {
        let which = if is_list { format!("document {index}: ") } else { String::new() };
        let problem = Problem::new(&DOCUMENT_EXISTS, format!("{which}nothing was created; {id} exists already"));
        let problem = problem.value("id", id.to_json()).value("index", json!(index));
        match HeaderValue::try_from(self.location(id)) {
            Ok(location) => problem.header(header::LOCATION, location),
            Err(_) => problem,
        }
    }

    /// `GET` of one document.
    pub(super) async fn read(
        &self,
        shared: &Shared,
        head: &Parts,
        peer: IpAddr,
        segment: &str,
    ) -> Result<Reply, Problem> {
        let id = query::target(segment, self.kind.config().table.id_type)?;
        let [] = query::parameters(head.uri.query(), [])?;
        let actor = self.actor(shared, &head.headers, peer)?;
        let status = shared.within(self.kind.status(&id, &actor)).await.map_err(refused_read)?;
        match status {
            Some(status) => Ok(reply::json(text_of(&shown(&status)))),
            None => Err(Problem::new(&DOCUMENT_MISSING, "use the id of a document that you have created")),
        }
    }

    /// `GET` of the actor's own documents.
    pub(super) async fn list(&self, shared: &Shared, head: &Parts, peer: IpAddr) -> Result<Reply, Problem> {
        let [limit, after] = query::parameters(head.uri.query(), ["limit", "after"])?;
        let limit = query::limit(limit, LIST_LIMIT_DEFAULT, shared.actors_limit_max)?;
        let id_type = self.kind.config().table.id_type;
        let after = after.map(|text| read_cursor(text, id_type)).transpose()?;
        let actor = self.actor(shared, &head.headers, peer)?;
        let page = shared.within(self.kind.list(&actor, after.as_ref(), limit)).await.map_err(refused_read)?;
        let documents = page.documents.iter().map(shown).collect();
        Ok(reply::json(text_of(&Pages { documents, next: page.next.as_ref().map(cursor) })))
    }
}

/// 422, with what is wrong where. In a list, paths begin with the index of the document.
fn invalid(violations: &[(usize, Violation)], is_list: bool) -> Problem {
    let violation = |(index, violation): &(usize, Violation)| {
        let path = if is_list { format!("/{index}{}", violation.path) } else { violation.path.clone() };
        json!({ "path": path, "message": violation.message })
    };
    let told: Vec<Value> = violations.iter().take(VIOLATIONS_MAX).map(violation).collect();
    let detail =
        format!("nothing was created; {} violations, see \"violations\" for what is wrong where", violations.len());
    Problem::new(&INVALID_DOCUMENT, detail).value("violations", Value::Array(told))
}

/// One document of an answer to `POST`.
#[derive(Serialize)]
struct CreatedDocument {
    id: Value,
    status: &'static str,
}

/// The answer to `POST`.
#[derive(Serialize)]
struct Accepted {
    #[serde(flatten)]
    one: Option<CreatedDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    documents: Option<Vec<CreatedDocument>>,
    timestamp: String,
    durability: &'static str,
}

/// A document, as `GET` answers it.
#[derive(Serialize)]
struct Shown<'a> {
    id: Value,
    status: &'static str,
    #[serde(rename = "createdAt", skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    document: &'a Fields,
}

/// A page of them.
#[derive(Serialize)]
struct Pages<'a> {
    documents: Vec<Shown<'a>>,
    next: Option<String>,
}

fn shown(status: &Status) -> Shown<'_> {
    Shown {
        id: status.id.to_json(),
        status: status.of.as_str(),
        created_at: status.at_ms.map(timestamp),
        reason: status.reason.as_deref(),
        document: &status.document,
    }
}

/// Nothing of it can fail to be written.
fn text_of(body: &impl Serialize) -> String {
    serde_json::to_string(body).unwrap_or_default()
}

/// Where a list goes on. Opaque to callers.
fn cursor(place: &Listed) -> String {
    let (letter, at_ms, id) = match place {
        Listed::Pending { at_ms, id } => ('p', Some(*at_ms), id),
        Listed::Stored { at_ms, id } => ('s', *at_ms, id),
    };
    let mut cursor = format!("{letter}{}.", at_ms.map(|at_ms| format!("{at_ms:x}")).unwrap_or_default());
    for byte in id.to_string().bytes() {
        // Writing into a `String` cannot fail.
        let _ = write!(cursor, "{byte:02x}");
    }
    cursor
}

fn read_cursor(text: &str, id_type: weir_core::model::IdType) -> Result<Listed, Problem> {
    let read = || {
        let text = decode_query_value(text).ok()?;
        let (letter, rest) = text.split_at_checked(1)?;
        let (time, digits) = rest.split_once('.')?;
        let at_ms = if time.is_empty() { None } else { Some(u64::from_str_radix(time, 16).ok()?) };
        let pairs: Vec<u8> = (0..digits.len())
            .step_by(2)
            .map(|at| digits.get(at..at + 2))
            .collect::<Option<Vec<_>>>()?
            .into_iter()
            .map(|pair| u8::from_str_radix(pair, 16))
            .collect::<Result<_, _>>()
            .ok()?;
        let id = Id::parse(id_type, std::str::from_utf8(&pairs).ok()?).ok()?;
        let place = match (letter, at_ms) {
            ("p", Some(at_ms)) => Listed::Pending { at_ms, id },
            ("s", at_ms) => Listed::Stored { at_ms, id },
            _ => return None,
        };
        (cursor(&place) == text).then_some(place)
    };
    read().ok_or_else(|| Problem::new(&BAD_QUERY, "after must be the \"next\" of an earlier answer for this kind"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::model::IdType;

    #[test]
    fn a_cursor_leads_back_to_its_place() {
        let text = Id::Text("a/é".into());
        for place in [
            Listed::Pending { at_ms: 17, id: text.clone() },
            Listed::Stored { at_ms: Some(18), id: text.clone() },
            Listed::Stored { at_ms: None, id: text },
        ] {
            assert_eq!(read_cursor(&cursor(&place), IdType::Text).unwrap(), place);
        }
        for wrong in ["", "p", "p.61", "x1.61", "s1.6", "s1.zz", "s01.61", "é"] {
            assert!(read_cursor(wrong, IdType::Text).is_err(), "{wrong}");
        }
    }
}
