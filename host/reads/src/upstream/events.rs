//! Event streams of an origin (`text/event-stream`): passed on as they arrive, never stored, and not cut while they are silent.
//!
//! During silence weir sends a comment now and then, at the start of a line: it keeps other proxies from cutting the stream, and
//! reveals a client that has left. Event sources ignore comments.

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
use weir_core::config::UpstreamLimits;
use weir_core::telemetry::SHED_TOTAL;
use weir_listener::reply::{CutShort, Piece};

/// A comment of an event stream.
const COMMENT: &[u8] = b":\n";
/// Interval of the checks of a stream that may not carry comments.
const CHECK_INTERVAL: Duration = Duration::from_secs(15);

/// Whether an answer is an event stream.
pub(super) fn is_events(headers: &HeaderMap) -> bool {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return false };
    let essence = given.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    essence.eq_ignore_ascii_case(b"text/event-stream")
}

/// Whether the stream may carry comments: not when it is compressed, has a length, or forbids changes.
fn may_be_commented(headers: &HeaderMap) -> bool {
    let control = joined(headers, &header::CACHE_CONTROL);
    !headers.contains_key(header::CONTENT_ENCODING)
        && !headers.contains_key(header::CONTENT_LENGTH)
        && !split(&control, b',').iter().any(|directive| directive.eq_ignore_ascii_case("no-transform"))
}

/// An event stream in progress.
struct Events {
    body: Incoming,
    /// One of the requests that the origin may have at once.
    _permit: OwnedSemaphorePermit,
    heartbeat: Option<Duration>,
    idle: Option<Duration>,
    since: Instant,
    /// The next byte starts a line.
    at_line: bool,
}

/// The events as they arrive.
pub(super) fn stream(
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
            let wait = self.heartbeat.unwrap_or(CHECK_INTERVAL).min(self.idle.unwrap_or(CHECK_INTERVAL));
            let frame = match tokio::time::timeout(wait, self.body.frame()).await {
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
