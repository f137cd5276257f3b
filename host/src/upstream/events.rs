//! Streams of events of an origin (`text/event-stream`): told as they come and never kept, not cut because nothing happens.
//!
//! While nothing happens weir sends a comment now and then, where a line begins, so that proxies before it do not cut the
//! stream either, and a client that has left is noticed. Comments mean nothing to event sources.

use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use metrics::counter;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::control::{joined, split};
use crate::config::UpstreamLimits;
use crate::listener::reply::{CutShort, Piece};
use crate::telemetry::SHED_TOTAL;

/// A comment of an event stream.
const COMMENT: &[u8] = b":\n";
/// Between two looks at a stream into which nothing may be put.
const LOOK: Duration = Duration::from_secs(15);

/// Whether an answer is a stream of events.
pub(super) fn is_events(headers: &HeaderMap) -> bool {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return false };
    let essence = given.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    essence.eq_ignore_ascii_case(b"text/event-stream")
}

/// Whether comments may be put into it: not into what is compressed, has a length, or is not to be changed.
fn may_be_commented(headers: &HeaderMap) -> bool {
    let control = joined(headers, &header::CACHE_CONTROL);
    !headers.contains_key(header::CONTENT_ENCODING)
        && !headers.contains_key(header::CONTENT_LENGTH)
        && !split(&control, b',').iter().any(|directive| directive.eq_ignore_ascii_case("no-transform"))
}

/// A stream on its way.
struct Events {
    body: Incoming,
    /// One of the requests that the origin may have at once.
    _permit: OwnedSemaphorePermit,
    heartbeat: Option<Duration>,
    idle: Option<Duration>,
    since: Instant,
    /// A line begins.
    at_line: bool,
}

/// Tells the events as they come.
pub(super) fn telling(
    body: Incoming,
    headers: &HeaderMap,
    limits: &UpstreamLimits,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Piece> + Send + use<> {
    let time = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms));
    let events = Events {
        body,
        _permit: permit,
        heartbeat: time(limits.event_heartbeat_ms).filter(|_| may_be_commented(headers)),
        idle: time(limits.event_idle_timeout_ms),
        since: Instant::now(),
        at_line: true,
    };
    futures_util::stream::unfold(Some(events), |events| async move {
        let mut events = events?;
        let piece = events.next().await?;
        let goes_on = piece.is_ok();
        Some((piece, goes_on.then_some(events)))
    })
}

impl Events {
    async fn next(&mut self) -> Option<Piece> {
        loop {
            let look = self.heartbeat.unwrap_or(LOOK).min(self.idle.unwrap_or(LOOK));
            let frame = match tokio::time::timeout(look, self.body.frame()).await {
                Ok(frame) => frame,
                Err(_) if self.idle.is_some_and(|idle| self.since.elapsed() >= idle) => {
                    counter!(SHED_TOTAL, "limit" => "upstream.event_idle_timeout_ms").increment(1);
                    return Some(Err(CutShort("the origin's events stood still for too long".into())));
                }
                Err(_) if self.heartbeat.is_some() && self.at_line => return Some(Ok(Bytes::from_static(COMMENT))),
                Err(_) => continue,
            };
            self.since = Instant::now();
            match frame? {
                Err(error) => return Some(Err(CutShort(format!("the origin's events were cut short: {error}")))),
                // Trailers are not passed on.
                Ok(frame) => {
                    if let Ok(bytes) = frame.into_data()
                        && let Some(last) = bytes.last()
                    {
                        self.at_line = *last == b'\n';
                        return Some(Ok(bytes));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_of_events_is_known_and_changed_only_where_it_may_be() {
        let of = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            (is_events(&headers), may_be_commented(&headers))
        };
        assert_eq!(of(&[("content-type", "Text/Event-Stream; charset=utf-8")]), (true, true));
        assert_eq!(of(&[("content-type", "text/event-streams")]), (false, true));
        assert_eq!(of(&[]), (false, true));
        for (name, value) in
            [("content-encoding", "br"), ("content-length", "5"), ("cache-control", "no-store, No-Transform")]
        {
            assert_eq!(of(&[("content-type", "text/event-stream"), (name, value)]), (true, false), "{name}");
        }
    }
}
