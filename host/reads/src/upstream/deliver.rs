//! Delivery to the client: a stored response, whole or in part, or the origin's answer as it arrives.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode, Version};

use super::origin::{OriginAnswer, passing};
use super::outgoing::Outgoing;
use super::range::{Part, part};
use super::serve::ReadRequest;
use super::shared_body::Follower;
use super::stored::Stored;
use super::{Upstream, conditional, events, hop, location};
use weir_cache::{CacheStatus, Freshness};
use weir_listener::Reply;
use weir_listener::reply::ReplyBody;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// A full response, before ranges and conditions apply.
pub(super) struct FullAnswer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Delivery,
}

/// The body of a full response.
pub(super) enum Delivery {
    /// It is complete.
    Whole(Bytes),
    /// It is arriving; with its length, where that is known.
    Streaming(Follower, Option<u64>),
}

impl Delivery {
    fn length(&self) -> Option<usize> {
        match self {
            Self::Whole(body) => Some(body.len()),
            Self::Streaming(_, length) => length.and_then(|length| usize::try_from(length).ok()),
        }
    }

    fn part(self, range: Range<usize>) -> Self {
        match self {
            Self::Whole(body) => Self::Whole(body.slice(range)),
            Self::Streaming(follower, _) => {
                let length = range.len() as u64;
                Self::Streaming(follower.part(range), Some(length))
            }
        }
    }

    fn into_body(self) -> ReplyBody {
        match self {
            Self::Whole(body) => ReplyBody::whole(body),
            Self::Streaming(follower, length) => ReplyBody::stream(follower.into_stream(), length),
        }
    }
}

impl Upstream {
    /// The headers of a response as the client sees them; they are stored in this form.
    pub(super) fn to_client(&self, out: &Outgoing, version: Version, headers: &mut HeaderMap) {
        hop::to_client(headers, self.passage.pseudonym.via(version));
        location::rewrite(headers, &self.config, &out.caller);
    }

    /// Streams an answer to one client, without storing it.
    pub(super) fn pass(
        &self,
        out: &Outgoing,
        answered: OriginAnswer,
        status: CacheStatus,
        reason: Option<&str>,
    ) -> Reply {
        let (mut head, body) = answered.response.into_parts();
        let is_events = events::is_events(&head.headers);
        self.to_client(out, head.version, &mut head.headers);
        let length = body.size_hint().exact();
        let idle = Duration::from_millis(self.config.limits.body_idle_timeout_ms);
        let body = if body.is_end_stream() {
            ReplyBody::default()
        } else if is_events {
            let events = events::stream(body, &head.headers, &self.config.limits, answered.permit);
            ReplyBody::stream(events, length)
        } else {
            ReplyBody::stream(passing(body, idle, answered.permit), length)
        };
        let bytes = usize::try_from(length.unwrap_or_default()).unwrap_or(usize::MAX);
        self.reply((head.status, head.headers), body, (status, reason), bytes)
    }

    /// Serves a stored response.
    pub(super) fn serve(&self, request: &ReadRequest, stored: &Stored, status: CacheStatus) -> Reply {
        self.serve_with(request, stored, Delivery::Whole(stored.body.clone()), status)
    }

    /// Serves a response that is stored, or will be, with this body.
    pub(super) fn serve_with(
        &self,
        request: &ReadRequest,
        stored: &Stored,
        body: Delivery,
        status: CacheStatus,
    ) -> Reply {
        let age_ms = stored.age_ms(self.clock.steady_ms());
        let whole = FullAnswer { status: stored.status, headers: stored.headers.clone(), body };
        self.serve_full(request, whole, age_ms, status)
    }

    /// Serves a full response: all of it, a range, or 304.
    pub(super) fn serve_full(
        &self,
        request: &ReadRequest,
        whole: FullAnswer,
        age_ms: u64,
        status: CacheStatus,
    ) -> Reply {
        let FullAnswer { status: code, mut headers, body } = whole;
        let own = request.out.own();
        let is_ok = code == StatusCode::OK;
        let is_same = is_ok && conditional::is_not_modified(own, &headers);
        let wants_part = is_ok && request.out.method == Method::GET && conditional::if_range_holds(own, &headers);
        headers.insert(header::AGE, HeaderValue::from(age_ms / 1_000));
        headers.remove(header::CONTENT_LENGTH);
        if is_same {
            let headers = conditional::not_modified_headers(&headers);
            return self.reply((StatusCode::NOT_MODIFIED, headers), ReplyBody::default(), (status, None), 0);
        }
        // A range of an arriving body needs its length; without it serve the whole, as RFC 9110, section 14.2 allows.
        let length = body.length();
        let wanted = length.filter(|_| wants_part).map_or(Part::Whole, |length| part(own, length));
        let length = length.unwrap_or_default();
        let content_range =
            |text: String| HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("bytes */*"));
        let (code, body) = match wanted {
            Part::Whole => (code, body),
            Part::Bytes(range) => {
                let text = format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1));
                headers.insert(header::CONTENT_RANGE, content_range(text));
                (StatusCode::PARTIAL_CONTENT, body.part(range))
            }
            Part::Beyond => {
                headers.insert(header::CONTENT_RANGE, content_range(format!("bytes */{length}")));
                (StatusCode::RANGE_NOT_SATISFIABLE, Delivery::Whole(Bytes::new()))
            }
        };
        if request.out.method == Method::HEAD {
            if let Some(length) = body.length() {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
            return self.reply((code, headers), ReplyBody::default(), (status, None), 0);
        }
        let bytes = body.length().unwrap_or_default();
        self.reply((code, headers), body.into_body(), (status, None), bytes)
    }

    /// Builds the reply, with `Cache-Status` and the reason that a rule gave.
    pub(super) fn reply(
        &self,
        (code, mut headers): (StatusCode, HeaderMap),
        body: ReplyBody,
        (status, reason): (CacheStatus, Option<&str>),
        bytes: usize,
    ) -> Reply {
        self.ruling.served(status, bytes);
        let mut text = status.text();
        if let Some(reason) = reason {
            text.push('-');
            text.push_str(reason);
        }
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.append(CACHE_STATUS, value);
        }
        let mut response = Response::new(body);
        *response.status_mut() = code;
        *response.headers_mut() = headers;
        response
    }
}

/// The cache status of a stored response.
pub(super) fn hit(stored: &Stored, freshness: Freshness, now_ms: u64) -> CacheStatus {
    let hit = CacheStatus::hit(stored.ttl_ms(now_ms));
    if freshness == Freshness::Fresh { hit } else { hit.stale() }
}
