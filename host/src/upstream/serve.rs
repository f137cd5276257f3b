//! The way of a request: look, tell what is kept, or have the origin asked once for all who wait.

use std::sync::Arc;

use hyper::Method;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::http::request::Parts;

use super::allowance::Allowance;
use super::control::Wishes;
use super::origin::empty;
use super::outgoing::Outgoing;
use super::stored::{Kept, Stored, group_names};
use super::tell::hit;
use super::{Upstream, UpstreamError, UpstreamFailure, key};
use crate::cache::{CacheStatus, Entry, Flown, Forwarded, Freshness, Hardness, Lead, Seat};
use crate::listener::Reply;
use crate::listener::forwarded::Caller;

const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");
/// How often a request looks again after it has waited for another's.
const LOOKS_MAX: usize = 3;
/// How long the origin is left alone after it failed, where there is something stale to tell, in milliseconds.
const HOLD_MS: u64 = 1_000;

/// A request that reads.
#[derive(Clone)]
pub(super) struct Asked {
    /// What the origin gets.
    pub(super) out: Arc<Outgoing>,
    pub(super) wishes: Wishes,
    /// What the rule allows to be kept, or why nothing.
    pub(super) allowance: Arc<Result<Allowance, String>>,
}

/// What the cache has for a request.
pub(super) struct Found {
    pub(super) key: String,
    /// The place of those who read it.
    pub(super) seat: String,
    pub(super) kept: Option<(Arc<Entry<Kept>>, Freshness)>,
    pub(super) why: Forwarded,
    /// It is known that the answer is not kept.
    unshared: bool,
}

/// What is sent to the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    /// What all who ask so have in common: the answer may be kept.
    ForAll,
    /// All that this client asks for: the answer is for this client alone.
    AsAsked,
}

/// What a request has waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waited {
    /// Nothing yet.
    Not,
    /// The answer to another's request.
    ForAnother,
    /// What was read for all because it asked, for this reason.
    ForItsOwn(Forwarded),
}

impl Asked {
    /// What to send where the answer is not known to be for all.
    fn alone(&self) -> Sending {
        if self.out.is_for_all() { Sending::ForAll } else { Sending::AsAsked }
    }
}

impl Found {
    pub(super) fn stored(&self) -> Option<(&Arc<Entry<Kept>>, &Stored, Freshness)> {
        match &self.kept {
            Some((entry, freshness)) => match &entry.value {
                Kept::Response(stored) => Some((entry, stored, *freshness)),
                _ => None,
            },
            None => None,
        }
    }
}

impl Upstream {
    /// Answers one request.
    ///
    /// # Errors
    /// See [`UpstreamError`]: nothing was kept of what failed.
    pub async fn handle(
        self: &Arc<Self>,
        head: Parts,
        body: Incoming,
        caller: Caller,
    ) -> Result<Reply, UpstreamFailure> {
        if self.ruling.is_due(self.clock.steady_ms()) {
            // Nobody waits for it.
            drop(self.ask_rule_aside());
        }
        let answered = self.answer(head, body, caller).await;
        // What a client asks wrongly says nothing of the upstream: no rule is to be moved by it.
        if answered.as_ref().is_err_and(|failure| failure.error.is_of_upstream()) {
            self.ruling.profile().failed();
        }
        answered
    }

    async fn answer(self: &Arc<Self>, head: Parts, body: Incoming, caller: Caller) -> Result<Reply, UpstreamFailure> {
        // What it would name at the origin may lie outside the prefix, and under another key.
        if key::has_dot_segment(head.uri.path()) {
            return Err(UpstreamError::DotSegment.into());
        }
        let out = self.passage.outgoing(head, caller);
        let reads = out.method == Method::GET || out.method == Method::HEAD;
        if reads && body.is_end_stream() {
            let wishes = Wishes::of(&out.as_asked());
            let no_store = wishes.no_store && self.config.clients_may_force;
            let wishes = Wishes { no_store, ..wishes };
            let allowance = Arc::new(Allowance::of(&self.ruling.rule(), &self.config));
            return self.read(Asked { out: Arc::new(out), wishes, allowance }).await;
        }
        if self.origin.is_too_large(&body) {
            return Err(UpstreamError::RequestBodyTooLarge.into());
        }
        let safe = reads || out.method == Method::OPTIONS || out.method == Method::TRACE;
        let body = if body.is_end_stream() { empty() } else { self.origin.bounded(body) };
        let sent = self.origin.send(out.method.clone(), &out.path, out.as_asked(), body).await;
        let answered = sent.map_err(|error| UpstreamFailure::after(error, Forwarded::Method))?;
        let status = answered.response.status();
        if !safe && (status.is_success() || status.is_redirection()) {
            self.invalidate(&out, answered.response.headers());
        }
        Ok(self.pass(&out, answered, CacheStatus::forwarded(Forwarded::Method), None))
    }

    async fn read(self: &Arc<Self>, asked: Asked) -> Result<Reply, UpstreamFailure> {
        let mut waited = Waited::Not;
        if let Err(reason) = &*asked.allowance
            && !asked.wishes.only_if_cached
        {
            return self.bypass(&asked, reason).await;
        }
        for _ in 0..LOOKS_MAX {
            let mut found = self.look(&asked);
            if let Some(reply) = self.tell_kept(&asked, &found, waited) {
                return Ok(reply);
            }
            if asked.wishes.only_if_cached {
                return Err(UpstreamError::NotKept.into());
            }
            if matches!(found.stored(), Some((_, stored, Freshness::Fresh)) if !stored.no_cache) {
                found.why = Forwarded::Request;
            }
            // What may not be kept cannot be told to those who wait either.
            if found.unshared || asked.wishes.no_store || matches!(waited, Waited::ForItsOwn(_)) {
                return self.fetch(asked.clone(), found, asked.alone(), None).await;
            }
            let (wait, why) = match self.cache.seat(&found.seat) {
                Seat::Lead(lead) if asked.out.wants_whole() => return self.lead(asked, found, lead).await,
                Seat::Lead(lead) => {
                    // A part, or the head: the whole is read for all, and this one is told what it wants of it.
                    let (wait, why) = (lead.wait(), found.why);
                    self.read_aside(&asked, &found, lead);
                    waited = Waited::ForItsOwn(why);
                    (wait, why)
                }
                Seat::Wait(wait) => {
                    waited = Waited::ForAnother;
                    (wait, found.why)
                }
                Seat::Full => return Err(UpstreamError::Overloaded.into()),
            };
            match tokio::time::timeout(self.wait, wait.landed()).await {
                Ok(Flown::Kept) => {}
                Ok(Flown::Failed) => {
                    let mut failure = UpstreamFailure::after(UpstreamError::Broken, why);
                    failure.status.collapsed = waited == Waited::ForAnother;
                    return self.tell_on_error(&asked, &found).ok_or(failure);
                }
                _ => return self.fetch(asked.clone(), found, asked.alone(), None).await,
            }
        }
        let found = self.look(&asked);
        self.fetch(asked.clone(), found, asked.alone(), None).await
    }

    /// Reads for all who wait.
    async fn lead(self: &Arc<Self>, asked: Asked, found: Found, lead: Lead) -> Result<Reply, UpstreamFailure> {
        let (upstream, why) = (Arc::clone(self), found.why);
        // On a task of its own: others wait for it, also when this client goes away.
        let task = tokio::spawn(async move { upstream.fetch(asked, found, Sending::ForAll, Some(lead)).await });
        task.await.unwrap_or(Err(UpstreamFailure::after(UpstreamError::Broken, why)))
    }

    fn look(&self, asked: &Asked) -> Found {
        let (now_ms, base) = (self.clock.steady_ms(), &asked.out.key);
        let is_person = asked.out.person.is_known();
        let (key, kept, why) = match self.cache.get(base, now_ms) {
            None => (base.clone(), None, Forwarded::UriMiss),
            Some((entry, freshness)) => match &entry.value {
                Kept::Vary(names) => {
                    let key = key::variant(base, names, asked.out.headers());
                    let kept = self.cache.get(&key, now_ms);
                    (key, kept, Forwarded::VaryMiss)
                }
                _ => (base.clone(), Some((entry, freshness)), Forwarded::UriMiss),
            },
        };
        let seat = key::seat(&key, is_person);
        // What the origin has not said for how long, or for less, is not for a request that says who asks.
        let is_for = |stored: &Stored| asked.allowance.is_ok() && !(stored.for_strangers && is_person);
        let (kept, why) = match &kept {
            Some((entry, _)) => match &entry.value {
                Kept::Response(stored) if is_for(stored) => (kept, Forwarded::Stale),
                Kept::Response(_) => (None, Forwarded::Request),
                _ => (None, why),
            },
            None => (None, why),
        };
        let marked = || matches!(self.cache.get(&seat, now_ms), Some((_, Freshness::Fresh)));
        let unshared = kept.is_none() && marked();
        Found { key, seat, kept, why, unshared }
    }

    /// What is kept, where it may be told without asking.
    fn tell_kept(self: &Arc<Self>, asked: &Asked, found: &Found, waited: Waited) -> Option<Reply> {
        let (entry, stored, freshness) = found.stored()?;
        let now_ms = self.clock.steady_ms();
        if let Waited::ForItsOwn(why) = waited {
            // Just read, because this one asked.
            let status = CacheStatus { stored: true, ..CacheStatus::forwarded(why) };
            return Some(self.tell(asked, stored, status));
        }
        let collapsed = waited == Waited::ForAnother;
        let (wanted, forced) = match stored.wanted(&asked.wishes, now_ms) {
            // It was read after this one asked, or was being read: that is as new as it gets.
            Some(false) if collapsed => (None, None),
            Some(false) if !self.config.clients_may_force => (None, Some("client-may-not-force")),
            wanted => (wanted, None),
        };
        let (refresh, detail) = match (wanted, freshness) {
            (Some(false), _) => return None,
            (Some(true), _) => (false, Some("max-stale")),
            (None, Freshness::Fresh) if !stored.no_cache => (entry.is_due_early(now_ms, stored.lifetime_ms), forced),
            (None, Freshness::Stale) if !stored.no_cache && !stored.strict => (true, Some("stale-while-revalidate")),
            (None, Freshness::OnError) if stored.is_held(now_ms) => (false, Some("origin-failed")),
            _ => return None,
        };
        if refresh && let Some(lead) = self.cache.lead(&found.seat) {
            self.read_aside(asked, found, lead);
        }
        let status = CacheStatus { collapsed, detail, ..hit(stored, freshness, now_ms) };
        Some(self.tell(asked, stored, status))
    }

    /// What is kept, where the origin has failed and it may be told then.
    pub(super) fn tell_on_error(&self, asked: &Asked, found: &Found) -> Option<Reply> {
        let (_, stored, freshness) = found.stored()?;
        let now_ms = self.clock.steady_ms();
        if freshness == Freshness::Spent || stored.strict || stored.no_cache {
            return None;
        }
        stored.hold(now_ms + HOLD_MS);
        Some(self.tell(asked, stored, hit(stored, freshness, now_ms).because("origin-failed")))
    }

    /// Reads the whole for all, on a task of its own.
    fn read_aside(self: &Arc<Self>, asked: &Asked, found: &Found, lead: Lead) {
        let found = Found {
            key: found.key.clone(),
            seat: found.seat.clone(),
            kept: found.kept.clone(),
            why: found.why,
            unshared: false,
        };
        let (upstream, asked) = (Arc::clone(self), asked.clone());
        tokio::spawn(async move { drop(upstream.fetch(asked, found, Sending::ForAll, Some(lead)).await) });
    }

    /// An unsafe request was done: what is kept of its target, and of what its answer names, is true no more (RFC 9111,
    /// section 4.4; RFC 9875, section 3).
    fn invalidate(&self, out: &Outgoing, answer: &HeaderMap) {
        let host = out.caller.host.as_deref().unwrap_or_default();
        let authorities = [host, self.origin.authority.to_str().unwrap_or_default()];
        let mut groups = vec![key::uri_group(&out.primary)];
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            let location = answer.get(name).and_then(|value| value.to_str().ok());
            if let Some(path) = location.and_then(|location| key::same_origin(location, &out.path, &authorities)) {
                groups.push(key::uri_group(&key::primary(&self.config.name, &path)));
            }
        }
        let named = group_names(&self.config.name, answer, &CACHE_GROUP_INVALIDATION);
        let all = groups.iter().map(String::as_str).chain(named.iter().map(|group| &**group));
        self.cache.ledger().invalidate_groups(all, Hardness::Hard);
    }
}
