//! RFC 9457 `application/problem+json`: how every refusal looks.
//!
//! A [`ProblemType`] is one line of a table: a stable URN, its status and its title. The types that a connection can
//! meet before it is known what it asks for stand here; those of the API in `http::problem`.

use std::borrow::Cow;

use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;

use super::Reply;
use super::reply::ReplyBody;
use super::text::push_json_string;

/// The media type of problems.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// One kind of refusal. Its URN never changes its meaning.
#[derive(Debug, PartialEq, Eq)]
pub struct ProblemType {
    /// Last part of `urn:weir:problem:…`.
    pub name: &'static str,
    /// Its one status.
    pub status: u16,
    /// A few words, always the same.
    pub title: &'static str,
}

/// Constants of problem types, and the list of them.
#[macro_export]
macro_rules! problem_types {
    ($list:ident: $($constant:ident = $status:literal $name:literal $title:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "`: ", $title, ".")]
            pub const $constant: $crate::problem::ProblemType =
                $crate::problem::ProblemType { name: $name, status: $status, title: $title };
        )*
        /// All of the above.
        pub const $list: &[&$crate::problem::ProblemType] = &[$(&$constant),*];
    };
}
pub use problem_types;

problem_types! { LISTENER_TYPES:
    MALFORMED = 400 "malformed" "The request is not well-formed HTTP";
    BAD_HOST = 400 "bad-host" "Host is missing, repeated or malformed";
    BAD_BODY = 400 "bad-body" "The body is not what is expected";
    METHOD_NOT_ALLOWED = 405 "method-not-allowed" "The method is not allowed here";
    BODY_TIMEOUT = 408 "body-timeout" "The body did not arrive in time";
    BODY_TOO_LARGE = 413 "body-too-large" "The body is too large";
    TARGET_TOO_LONG = 414 "target-too-long" "The request target is too long";
    UNSUPPORTED_BODY = 415 "unsupported-body" "The body's type is not supported";
    EXPECTATION_FAILED = 417 "expectation-failed" "The expectation cannot be met";
    TOO_MANY_HEADERS = 431 "too-many-headers" "The headers are too large or too many";
}

/// One refusal.
#[derive(Debug)]
pub struct Problem {
    kind: &'static ProblemType,
    detail: Cow<'static, str>,
    members: Vec<(&'static str, Value)>,
    retry_after_s: Option<u64>,
    headers: Vec<(HeaderName, HeaderValue)>,
    close: bool,
}

impl Problem {
    /// `detail` says what the caller can do. It reaches the client: no secrets, no internals.
    pub fn new(kind: &'static ProblemType, detail: impl Into<Cow<'static, str>>) -> Self {
        let detail = detail.into();
        Self { kind, detail, members: Vec::new(), retry_after_s: None, headers: Vec::new(), close: false }
    }

    /// Adds an extension member, for callers that branch on more than the type. `name` is none of RFC 9457's own.
    pub fn member(mut self, name: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        self.members.push((name, Value::String(text.into().into_owned())));
        self
    }

    /// Adds an extension member that is more than a text.
    pub fn value(mut self, name: &'static str, value: Value) -> Self {
        self.members.push((name, value));
        self
    }

    /// Adds `Retry-After`.
    pub fn retry_after_s(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Closes the connection after it.
    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// Its stable name, and what the caller can do, where it is one of many in an answer.
    pub fn named(&self) -> (String, &str) {
        (format!("urn:weir:problem:{}", self.kind.name), &self.detail)
    }

    /// The last word of its type.
    pub fn name(&self) -> &'static str {
        self.kind.name
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        // The statuses are constants above; a test checks each.
        StatusCode::from_u16(self.kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(160 + self.detail.len());
        body.extend_from_slice(b"{\"type\":\"urn:weir:problem:");
        body.extend_from_slice(self.kind.name.as_bytes());
        body.extend_from_slice(b"\",\"title\":");
        push_json_string(&mut body, self.kind.title);
        body.extend_from_slice(b",\"status\":");
        body.extend_from_slice(self.kind.status.to_string().as_bytes());
        body.extend_from_slice(b",\"detail\":");
        push_json_string(&mut body, &self.detail);
        for (name, value) in &self.members {
            body.push(b',');
            push_json_string(&mut body, name);
            body.push(b':');
            body.extend_from_slice(value.to_string().as_bytes());
        }
        body.push(b'}');
        body
    }

    /// As a reply.
    pub fn into_reply(self) -> Reply {
        let mut reply = Response::new(ReplyBody::whole(self.body()));
        *reply.status_mut() = self.status();
        let headers = reply.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        headers.extend(self.headers);
        reply
    }

    /// The bytes of a last reply, for a connection where request boundaries are no longer certain.
    pub(super) fn last_words(&self) -> Vec<u8> {
        let body = self.body();
        let status = self.status();
        let mut bytes = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n",
            status.as_u16(),
            status.canonical_reason().unwrap_or("Error"),
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(&body);
        bytes
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        problem.into_reply()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_json_whatever_its_detail() {
        let problem = Problem::new(&MALFORMED, "a \"quote\", a \\ and \u{1}\n").retry_after_s(3).close();
        let value: serde_json::Value = serde_json::from_slice(&problem.body()).unwrap();
        assert_eq!(value["type"], "urn:weir:problem:malformed");
        assert_eq!(value["status"], 400);
        assert_eq!(value["detail"], "a \"quote\", a \\ and \u{1}\n");
        let reply = problem.into_reply();
        assert_eq!(reply.headers()["retry-after"], "3");
        assert_eq!(reply.headers()["connection"], "close");
        assert_eq!(reply.headers()["content-type"], "application/problem+json");
    }

    #[test]
    fn members_stand_beside_the_rest() {
        let problem = Problem::new(&MALFORMED, "so").member("code", "a \"word\"").member("what", "more");
        let value: serde_json::Value = serde_json::from_slice(&problem.body()).unwrap();
        assert_eq!(
            (&value["code"], &value["what"], &value["detail"]),
            (&"a \"word\"".into(), &"more".into(), &"so".into())
        );
    }

    #[test]
    fn every_status_is_one() {
        for kind in LISTENER_TYPES {
            assert_eq!(Problem::new(kind, "").status().as_u16(), kind.status, "{}", kind.name);
            assert!((400..600).contains(&kind.status));
        }
    }
}
