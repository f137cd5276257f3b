//! The requests of SQL reads.

use std::sync::OnceLock;

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use super::problem::{BAD_PATH, BAD_QUERY, READ_MISSING, from_read};
use super::reply::CACHE_STATUS;
use super::shared::Shared;
use weir_core::config::ReadConfig;
use weir_core::error::Refusal;
use weir_core::model::SqlValue;
use weir_listener::Reply;
use weir_listener::problem::Problem;
use weir_listener::reply::ReplyBody;
use weir_listener::text::{decode_query_value, decode_segment, query_parts};
use weir_reads::read::{ReadReply, Reads, statement};

/// Headers of a reply: no more than a map of eight places takes.
const HEADERS: usize = 6;

/// Ages and times to live below this, in seconds, are written once for all hits.
const WRITTEN_ONCE: usize = 4_096;
static AGES: [OnceLock<&str>; WRITTEN_ONCE] = [const { OnceLock::new() }; WRITTEN_ONCE];
static HITS: [OnceLock<&str>; WRITTEN_ONCE] = [const { OnceLock::new() }; WRITTEN_ONCE];

/// `GET /v1/reads/{name}`, where that needs no waiting; `None`: [`answer`] says what there is, or what is wrong.
pub(super) fn answer_at_once(reads: &Reads, name: &str, (query, headers): (Option<&str>, &HeaderMap)) -> Option<Reply> {
    let read = reads.get(&decode_segment(name).ok()?)?;
    let reply = read.answer_at_once(&values(read.config(), query).ok()?)?;
    Some(written(reply, headers))
}

/// `GET /v1/reads/{name}`.
pub(super) async fn answer(reads: &Reads, shared: &Shared, name: &str, head: &Parts) -> Result<Reply, Problem> {
    let name = decode_segment(name).map_err(|error| Problem::new(&BAD_PATH, format!("read: {error}")))?;
    let Some(read) = reads.get(&name) else {
        return Err(Problem::new(&READ_MISSING, "see / for the reads that there are"));
    };
    let values = values(read.config(), head.uri.query())?;
    let mut failed = None;
    let within = shared.within(async {
        read.answer(values).await.map_err(|failure| {
            failed = Some(failure);
            Refusal::SqlUnavailable
        })
    });
    let answered = within.await;
    match (answered, failed) {
        (Ok(reply), _) => Ok(written(reply, &head.headers)),
        (Err(_), Some(failure)) => Err(from_read(&failure)),
        (Err(refusal), None) => Err(from_read(&refusal.into())),
    }
}

/// The value of each parameter, in the order of their names.
fn values(config: &ReadConfig, query: Option<&str>) -> Result<Vec<SqlValue>, Problem> {
    let wrong = |detail: String| Problem::new(&BAD_QUERY, detail);
    // No value is NULL: it stands for one that is missing.
    let mut values: Vec<SqlValue> = config.parameters.iter().map(|_| SqlValue::Null).collect();
    for (name, encoded) in query_parts(query) {
        let known = config.parameters.iter().zip(&mut values).find(|((known, _), _)| *known == name);
        let Some(((_, wanted), place)) = known else {
            let known: Vec<&str> = config.parameters.keys().map(String::as_str).collect();
            return Err(wrong(format!("only these query parameters are known here: {}", known.join(", "))));
        };
        let text = decode_query_value(encoded).map_err(|error| wrong(format!("{name}: {error}")))?;
        let value = statement::value(&text, *wanted)
            .ok_or_else(|| wrong(format!("{name} must be of type {wanted:?}").to_lowercase()))?;
        if std::mem::replace(place, value) != SqlValue::Null {
            return Err(wrong(format!("give {name} once")));
        }
    }
    let missing = config.parameters.keys().zip(&values).find(|(_, value)| **value == SqlValue::Null);
    match missing {
        Some((name, _)) => Err(wrong(format!("give ?{name}="))),
        None => Ok(values),
    }
}

/// A header with a number. Its text is written once and never freed, so it needs no reference count.
fn once(texts: &'static [OnceLock<&'static str>], number: u64, write: impl FnOnce() -> String) -> HeaderValue {
    match usize::try_from(number).ok().and_then(|number| texts.get(number)) {
        Some(text) => HeaderValue::from_static(text.get_or_init(|| write().leak())),
        None => HeaderValue::from_str(&write()).unwrap_or(HeaderValue::from_static("")),
    }
}

/// What `Cache-Status` says.
fn cache_status(reply: &ReadReply) -> HeaderValue {
    let plain_ttl_s = reply.status.plain_hit_ttl_s().and_then(|ttl_s| u64::try_from(ttl_s).ok());
    if let Some(ttl_s) = plain_ttl_s {
        return once(&HITS, ttl_s, || reply.status.text());
    }
    let mut text = reply.status.text();
    if let Some(reason) = &reply.reason {
        text.push('-');
        text.push_str(reason);
    }
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("weir"))
}

fn written(reply: ReadReply, asked: &HeaderMap) -> Reply {
    let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let same = known
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == reply.etag());
    let mut headers = HeaderMap::with_capacity(HEADERS);
    if !same {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    // What weir keeps it invalidates itself; a cache before it could not know.
    let control = if reply.live { "no-store" } else { "no-cache" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(control));
    if let Ok(etag) = HeaderValue::from_str(reply.etag()) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::AGE, once(&AGES, reply.age_s, || reply.age_s.to_string()));
    headers.insert(CACHE_STATUS, cache_status(&reply));
    let mut response = Response::new(if same { ReplyBody::default() } else { ReplyBody::shared(reply.into_json()) });
    if same {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    *response.headers_mut() = headers;
    response
}
