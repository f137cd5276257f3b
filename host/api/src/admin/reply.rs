//! Replies of this listener: JSON, the page's files, and the problem of each failed operation.

use bytes::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::{BAD_REQUEST, CONFLICT, NOT_FOUND, OperationsError, REFUSED, UNAVAILABLE};
use weir_core::operators::to_text;
use weir_listener::Reply;
use weir_listener::problem::Problem;
use weir_listener::reply::ReplyBody;

/// The page loads nothing from other origins, and no page may frame it.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);

pub(super) fn json(status: StatusCode, answer: &impl Serialize) -> Reply {
    let mut reply = page(to_text(answer), "application/json");
    *reply.status_mut() = status;
    reply
}

pub(super) fn page(content: impl Into<Bytes>, content_type: &'static str) -> Reply {
    let mut reply = Response::new(ReplyBody::whole(content));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    reply
}

pub(super) fn wrong(detail: impl Into<String>) -> Problem {
    Problem::new(&BAD_REQUEST, detail.into())
}

pub(super) fn from_error(error: &OperationsError) -> Problem {
    let detail = error.to_string();
    match error {
        OperationsError::NotFound(_) => Problem::new(&NOT_FOUND, detail),
        OperationsError::Invalid(_) => Problem::new(&BAD_REQUEST, detail),
        OperationsError::Conflict(_) => Problem::new(&CONFLICT, detail),
        OperationsError::Refused { code, .. } => Problem::new(&REFUSED, detail).member("code", *code),
        OperationsError::Unavailable(_) => Problem::new(&UNAVAILABLE, detail),
    }
}
