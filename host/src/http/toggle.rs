//! The requests of the toggle capability.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use metrics::counter;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::identity::Authenticator;
use super::problem::{Repeatable, TARGET_MISSING, from_refusal};
use super::query;
use super::reply::{self, ReplyText};
use crate::clock::Clock;
use crate::config::{DurabilityLevel, HttpConfig};
use crate::error::Refusal;
use crate::listener::Reply;
use crate::listener::problem::Problem;
use crate::model::{Id, Verb};
use crate::telemetry::SHED_TOTAL;
use crate::toggle::{ToggleKind, ToggleRequest};

/// Actors in one list when the caller does not say.
const ACTORS_LIMIT_DEFAULT: usize = 50;
/// First pause between two looks at a checkpoint while a caller waits for it; doubled each time.
const STATUS_POLL_MIN: Duration = Duration::from_millis(50);
/// Longest such pause.
const STATUS_POLL_MAX: Duration = Duration::from_millis(400);
/// Of the requests under way, one in so many may wait for a checkpoint. Waiting is a courtesy: the others are answered at
/// once, so that those who wait do not keep those who write out.
const WAITS_SHARE: usize = 4;
/// What is kept of the deadline to answer a caller who waits.
const STATUS_MARGIN: Duration = Duration::from_millis(100);
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// One kind, with what its replies need.
pub(super) struct KindView {
    kind: Arc<ToggleKind>,
    text: ReplyText,
}

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

    /// Bounds an operation by the deadline. Dropping it does not undo it: the outcome is unknown then. Sets no timer: the
    /// listener polls a request that has taken so long (see [`crate::listener::Limits::request_deadline`]).
    async fn within<T>(&self, operation: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        let until = Instant::now() + self.deadline;
        let mut operation = std::pin::pin!(operation);
        std::future::poll_fn(|context| {
            let polled = operation.as_mut().poll(context);
            if polled.is_pending() && Instant::now() >= until {
                counter!(SHED_TOTAL, "limit" => "request_deadline_ms").increment(1);
                return Poll::Ready(Err(Refusal::DeadlineExceeded));
            }
            polled
        })
        .await
    }
}

/// A write whose head was understood; its body is still to be read.
pub(super) struct Write {
    request: ToggleRequest,
}

impl KindView {
    pub(super) fn new(kind: Arc<ToggleKind>) -> Self {
        let text = ReplyText::new(&kind.config().response);
        Self { kind, text }
    }

    fn actor(&self, shared: &Shared, headers: &HeaderMap, peer: IpAddr) -> Result<Option<Id>, Problem> {
        shared.authenticator.actor(headers, peer, self.kind.config().table.actor_type)
    }

    fn target(&self, segment: &str) -> Result<Id, Problem> {
        query::target(segment, self.kind.config().table.target_type)
    }

    /// `POST`, `PUT`, `DELETE`: everything but the body.
    pub(super) fn read_write(
        &self,
        shared: &Shared,
        head: &Parts,
        peer: IpAddr,
        (verb, segment): (Verb, &str),
    ) -> Result<Write, Problem> {
        let target = self.target(segment)?;
        let [] = query::parameters(head.uri.query(), [])?;
        let actor = self.actor(shared, &head.headers, peer)?.ok_or_else(|| shared.authenticator.missing())?;
        let idempotency_key = query::idempotency_key(&head.headers)?;
        Ok(Write { request: ToggleRequest { verb, target, actor, idempotency_key } })
    }

    /// `POST`, `PUT`, `DELETE`.
    pub(super) async fn write(&self, shared: &Shared, write: Write) -> Result<Reply, Problem> {
        // PUT and DELETE say what shall hold: sent twice they come to the same (RFC 9110, 9.2.2).
        let absolute = write.request.verb != Verb::Toggle;
        let repeatable =
            if absolute || write.request.idempotency_key.is_some() { Repeatable::Yes } else { Repeatable::No };
        let applied = shared.within(self.kind.apply(write.request)).await;
        applied.map(|reply| self.text.toggled(&reply)).map_err(|refusal| from_refusal(&refusal, repeatable))
    }

    /// `GET` of one target.
    pub(super) async fn read(
        &self,
        shared: &Shared,
        head: &Parts,
        peer: IpAddr,
        segment: &str,
    ) -> Result<Reply, Problem> {
        let target = self.target(segment)?;
        let [] = query::parameters(head.uri.query(), [])?;
        let actor = self.actor(shared, &head.headers, peer)?;
        let states = shared.within(self.kind.read(std::slice::from_ref(&target), actor.as_ref())).await;
        match states.map_err(refused_read)?.first() {
            Some(Some(state)) => Ok(self.text.state(*state, shared.clock.now_ms())),
            _ => Err(Problem::new(&TARGET_MISSING, "use the id of a target that exists")),
        }
    }

    /// `GET` of many targets.
    pub(super) async fn read_many(&self, shared: &Shared, head: &Parts, peer: IpAddr) -> Result<Reply, Problem> {
        let [targets] = query::parameters(head.uri.query(), ["targets"])?;
        let targets = query::targets(targets, self.kind.config().table.target_type, shared.targets_max)?;
        let actor = self.actor(shared, &head.headers, peer)?;
        let states = shared.within(self.kind.read(&targets, actor.as_ref())).await.map_err(refused_read)?;
        Ok(self.text.states(&targets, &states))
    }

    /// `GET …/actors`, newest first.
    pub(super) async fn actors(
        &self,
        shared: &Shared,
        head: &Parts,
        peer: IpAddr,
        segment: &str,
    ) -> Result<Reply, Problem> {
        let target = self.target(segment)?;
        let [limit, before] = query::parameters(head.uri.query(), ["limit", "before"])?;
        let limit = query::limit(limit, ACTORS_LIMIT_DEFAULT, shared.actors_limit_max)?;
        let actor_type = self.kind.config().table.actor_type;
        let before = before.map(|cursor| query::read_cursor(cursor, actor_type)).transpose()?;
        self.actor(shared, &head.headers, peer)?;
        // One more than asked for tells whether there is a next page.
        let members = shared.within(self.kind.members(&target, before.as_ref(), limit + 1));
        let mut members = members.await.map_err(refused_read)?;
        let more = members.len() > limit;
        members.truncate(limit);
        let next = members.last().filter(|_| more).map(query::cursor);
        Ok(reply::actors(&members, next.as_deref()))
    }

    /// `GET …/status`: at once, or as long as `Prefer: wait=N` and the deadline let it wait for `stored`.
    pub(super) async fn status(
        &self,
        shared: &Shared,
        head: &Parts,
        peer: IpAddr,
        segment: &str,
    ) -> Result<Reply, Problem> {
        self.target(segment)?;
        let [position] = query::parameters(head.uri.query(), ["position"])?;
        let receipt = query::receipt(position)?;
        self.actor(shared, &head.headers, peer)?;
        let wait_s = query::prefer_wait_s(&head.headers);
        let waits = wait_s.and_then(|_| shared.waits.try_acquire().ok());
        let wait = if waits.is_some() { Duration::from_secs(wait_s.unwrap_or(0)) } else { Duration::ZERO };
        let until = Instant::now() + wait.min(shared.deadline.saturating_sub(STATUS_MARGIN));
        let mut pause = STATUS_POLL_MIN;
        let looked = shared.within(async {
            loop {
                if self.kind.is_stored(receipt).await? {
                    return Ok(DurabilityLevel::Stored);
                }
                let now = Instant::now();
                if now >= until {
                    return Ok(DurabilityLevel::Journaled);
                }
                // The last look is at the end of the wait.
                tokio::time::sleep(pause.min(until - now)).await;
                pause = (pause * 2).min(STATUS_POLL_MAX);
            }
        });
        let level = looked.await.map_err(refused_read)?;
        let mut response = reply::durability(level.as_str());
        if waits.is_some() {
            // As RFC 7240 has it: the preference was followed, whether or not the time was used up.
            response.headers_mut().insert(PREFERENCE_APPLIED, HeaderValue::from_static("wait"));
        }
        Ok(response)
    }
}

fn refused_read(refusal: Refusal) -> Problem {
    from_refusal(&refusal, Repeatable::Yes)
}
