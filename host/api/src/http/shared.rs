//! What the requests of all kinds share: who asks, deadlines, waiting for SQL.

use std::future::Future;
use std::task::Poll;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;
use metrics::counter;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::identity::Authenticator;
use super::problem::{Repeatable, from_refusal};
use super::{query, reply};
use weir_core::clock::Clock;
use weir_core::config::{DurabilityLevel, HttpConfig};
use weir_core::error::Refusal;
use weir_core::telemetry::SHED_TOTAL;
use weir_listener::Reply;
use weir_listener::problem::Problem;
use weir_write::capability::KindContext;

/// First pause between two looks at a checkpoint while a caller waits for it; doubled each time.
const STATUS_POLL_MIN: Duration = Duration::from_millis(50);
/// Longest such pause.
const STATUS_POLL_MAX: Duration = Duration::from_millis(400);
/// At most one in this many running requests may wait for a checkpoint. Waiting is a courtesy: the others are
/// answered at once, so that waiting requests do not keep writes out.
const WAITS_SHARE: usize = 4;
/// Time reserved before the deadline to answer a waiting caller.
const STATUS_MARGIN: Duration = Duration::from_millis(100);
/// Response header that confirms an applied preference (RFC 7240).
pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// What the requests of all kinds share.
pub(super) struct Shared {
    pub(super) authenticator: Authenticator,
    pub(super) clock: Clock,
    pub(super) deadline: Duration,
    pub(super) targets_max: usize,
    pub(super) actors_limit_max: usize,
    waits: Semaphore,
}

impl Shared {
    pub(super) fn new(config: &HttpConfig, authenticator: Authenticator, clock: Clock) -> Self {
        Self {
            authenticator,
            clock,
            deadline: Duration::from_millis(config.request_deadline_ms),
            targets_max: config.targets_max,
            actors_limit_max: config.actors_limit_max,
            waits: Semaphore::new((config.requests_max / WAITS_SHARE).min(Semaphore::MAX_PERMITS)),
        }
    }

    /// Bounds an operation by the deadline. Dropping it does not undo it: the outcome is unknown then. Sets no timer:
    /// the listener polls a request that has taken so long (see [`weir_listener::Limits::request_deadline`]).
    pub(super) async fn within<T>(&self, operation: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        // From when it first has to wait: most do not, and need no clock.
        let mut until = None;
        let mut operation = std::pin::pin!(operation);
        std::future::poll_fn(|task| {
            let polled = operation.as_mut().poll(task);
            if polled.is_ready() {
                return polled;
            }
            let now = Instant::now();
            if now >= *until.get_or_insert(now + self.deadline) {
                counter!(SHED_TOTAL, "limit" => "request_deadline_ms").increment(1);
                return Poll::Ready(Err(Refusal::DeadlineExceeded));
            }
            polled
        })
        .await
    }

    /// The right to wait for SQL; `None` where too many wait already, and the caller is answered at once.
    pub(super) fn may_wait(&self) -> Option<SemaphorePermit<'_>> {
        self.waits.try_acquire().ok()
    }

    /// `GET …/status`: at once, or as long as `Prefer: wait=N` and the deadline let it wait for `stored`.
    pub(super) async fn status(&self, context: &KindContext, head: &Parts) -> Result<Reply, Problem> {
        let [position] = query::parameters(head.uri.query(), ["position"])?;
        let receipt = query::receipt(position)?;
        let wait_s = query::prefer_wait_s(&head.headers);
        let waits = wait_s.and_then(|_| self.may_wait());
        let wait = if waits.is_some() { Duration::from_secs(wait_s.unwrap_or(0)) } else { Duration::ZERO };
        let until = Instant::now() + wait.min(self.deadline.saturating_sub(STATUS_MARGIN));
        let mut pause = STATUS_POLL_MIN;
        let looked = self.within(async {
            loop {
                if context.is_stored(receipt).await? {
                    return Ok(DurabilityLevel::Stored.as_str());
                }
                if context.knows_dead(receipt) {
                    return Ok(reply::DEAD_LETTER);
                }
                let now = Instant::now();
                if now >= until {
                    return Ok(DurabilityLevel::Journaled.as_str());
                }
                // The last look is at the end of the wait.
                tokio::time::sleep(pause.min(until - now)).await;
                pause = (pause * 2).min(STATUS_POLL_MAX);
            }
        });
        let level = looked.await.map_err(refused_read)?;
        let mut response = reply::durability(level);
        if waits.is_some() {
            // As RFC 7240 has it: the preference was followed, whether or not the time was used up.
            response.headers_mut().insert(PREFERENCE_APPLIED, waited(wait.min(self.deadline)));
        }
        Ok(response)
    }
}

/// `wait=5`: the preference that was followed, with the seconds that it could be.
pub(super) fn waited(wait: Duration) -> HeaderValue {
    HeaderValue::from_str(&format!("wait={}", wait.as_secs())).unwrap_or(HeaderValue::from_static("wait"))
}

/// The problem of a read that was refused.
pub(super) fn refused_read(refusal: Refusal) -> Problem {
    from_refusal(&refusal, Repeatable::Yes)
}
