//! What a client is told: what is kept, whole or in part, or what the origin says as it comes.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode, Version};

use super::growing::Follower;
use super::origin::{Answered, passing};
use super::outgoing::Outgoing;
use super::range::{Part, part};
use super::serve::Asked;
use super::stored::Stored;
use super::{Upstream, conditional, events, hop, location};
use crate::cache::{CacheStatus, Freshness};
use crate::listener::Reply;
use crate::listener::reply::ReplyBody;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// A whole answer.
pub(super) struct Whole {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Telling,
}

/// The body of a whole answer.
pub(super) enum Telling {
    /// It is there.
    Whole(Bytes),
    /// It comes; with its length, where that is known.
    Coming(Follower, Option<u64>),
}

impl Telling {
    fn length(&self) -> Option<usize> {
        match self {
            Self::Whole(body) => Some(body.len()),
            Self::Coming(_, length) => length.and_then(|length| usize::try_from(length).ok()),
        }
    }

    fn part(self, range: Range<usize>) -> Self {
        match self {
            Self::Whole(body) => Self::Whole(body.slice(range)),
            Self::Coming(follower, _) => {
                let length = range.len() as u64;
                Self::Coming(follower.part(range), Some(length))
            }
        }
    }

    fn into_body(self) -> ReplyBody {
        match self {
            Self::Whole(body) => ReplyBody::whole(body),
            Self::Coming(follower, length) => ReplyBody::stream(follower.into_stream(), length),
        }
    }
}

impl Upstream {
    /// The headers of an answer as the client sees them; those that are kept are kept so.
    pub(super) fn to_client(&self, out: &Outgoing, version: Version, headers: &mut HeaderMap) {
        hop::to_client(headers, self.passage.pseudonym.via(version));
        location::rewrite(headers, &self.config, &out.caller);
    }

    /// Passes an answer on as it comes.
    pub(super) fn pass(&self, out: &Outgoing, answered: Answered, status: CacheStatus, reason: Option<&str>) -> Reply {
        let (mut head, body) = answered.response.into_parts();
        let is_events = events::is_events(&head.headers);
        self.to_client(out, head.version, &mut head.headers);
        let length = body.size_hint().exact();
        let idle = Duration::from_millis(self.config.limits.body_idle_timeout_ms);
        let body = if body.is_end_stream() {
            ReplyBody::default()
        } else if is_events {
            let events = events::telling(body, &head.headers, &self.config.limits, answered.permit);
            ReplyBody::stream(events, length)
        } else {
            ReplyBody::stream(passing(body, idle, answered.permit), length)
        };
        let bytes = usize::try_from(length.unwrap_or_default()).unwrap_or(usize::MAX);
        self.reply((head.status, head.headers), body, (status, reason), bytes)
    }

    /// Tells what is kept.
    pub(super) fn tell(&self, asked: &Asked, stored: &Stored, status: CacheStatus) -> Reply {
        self.tell_with(asked, stored, Telling::Whole(stored.body.clone()), status)
    }

    /// Tells what is kept, or will be, with this body.
    pub(super) fn tell_with(&self, asked: &Asked, stored: &Stored, body: Telling, status: CacheStatus) -> Reply {
        let age_ms = stored.age_ms(self.clock.steady_ms());
        let whole = Whole { status: stored.status, headers: stored.headers.clone(), body };
        self.tell_whole(asked, whole, age_ms, status)
    }

    /// Tells a whole answer: all of it, a part, or that the client has it.
    pub(super) fn tell_whole(&self, asked: &Asked, whole: Whole, age_ms: u64, status: CacheStatus) -> Reply {
        let Whole { status: code, mut headers, body } = whole;
        let own = asked.out.own();
        let is_ok = code == StatusCode::OK;
        let is_same = is_ok && conditional::is_not_modified(own, &headers);
        let wants_part = is_ok && asked.out.method == Method::GET && conditional::if_range_holds(own, &headers);
        headers.insert(header::AGE, HeaderValue::from(age_ms / 1_000));
        headers.remove(header::CONTENT_LENGTH);
        if is_same {
            let headers = conditional::not_modified_headers(&headers);
            return self.reply((StatusCode::NOT_MODIFIED, headers), ReplyBody::default(), (status, None), 0);
        }
        // A range of what comes is told where its length is known; otherwise the whole, as RFC 9110, 14.2 allows.
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
                (StatusCode::RANGE_NOT_SATISFIABLE, Telling::Whole(Bytes::new()))
            }
        };
        if asked.out.method == Method::HEAD {
            if let Some(length) = body.length() {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
            return self.reply((code, headers), ReplyBody::default(), (status, None), 0);
        }
        let bytes = body.length().unwrap_or_default();
        self.reply((code, headers), body.into_body(), (status, None), bytes)
    }

    /// With `Cache-Status`, and the reason that a rule gave.
    pub(super) fn reply(
        &self,
        (code, mut headers): (StatusCode, HeaderMap),
        body: ReplyBody,
        (status, reason): (CacheStatus, Option<&str>),
        bytes: usize,
    ) -> Reply {
        self.ruling.told(status, bytes);
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

/// What is said of what is kept when it is told.
pub(super) fn hit(stored: &Stored, freshness: Freshness, now_ms: u64) -> CacheStatus {
    let hit = CacheStatus::hit(stored.ttl_ms(now_ms));
    if freshness == Freshness::Fresh { hit } else { hit.stale() }
}
