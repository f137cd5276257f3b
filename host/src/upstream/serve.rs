//! The way of a request: look, tell what is kept, or have the origin asked once for all who wait.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use metrics::counter;

use super::allowance::Allowance;
use super::control::Wishes;
use super::fill::Coming;
use super::origin::empty;
use super::outgoing::Outgoing;
use super::stored::{Kept, Stored, group_names};
use super::tell::{Telling, hit};
use super::{UPSTREAM_METHODS, Upstream, UpstreamError, UpstreamFailure, UpstreamLead, hop, key};
use crate::cache::{CacheStatus, Entry, Flown, Forwarded, Freshness, Hardness, Seat, Seen, Wait};
use crate::listener::forwarded::Caller;
use crate::listener::reply::ReplyBody;
use crate::listener::{Interim, Reply};
use crate::telemetry::{SHED_TOTAL, request};

const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");
/// How often a request looks again after it has waited for another's.
const LOOKS_MAX: usize = 4;
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
    /// Where goes what the origin says before it answers.
    pub(super) interim: Interim,
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
    /// The answer to another's request, that had begun to come when this one asked.
    ForAnother,
    /// The same, that had not: the answer is not older than this request.
    FromTheBeginning,
    /// What was read for all because it asked, for this reason.
    ForItsOwn(Forwarded),
}

impl Waited {
    fn is_for_another(self) -> bool {
        matches!(self, Self::ForAnother | Self::FromTheBeginning)
    }
}

impl Asked {
    /// What to send where the answer is not known to be for all.
    fn alone(&self) -> Sending {
        if self.out.is_for_all() { Sending::ForAll } else { Sending::AsAsked }
    }

    /// What the origin has not said for how long, or for less, is not for a request that says who asks.
    fn may_be_told(&self, stored: &Stored) -> bool {
        self.allowance.is_ok() && !(stored.for_strangers && self.out.person.is_known())
    }
}

/// The answer to an `OPTIONS` that goes no further.
fn options() -> Reply {
    let mut response = Response::new(ReplyBody::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(UPSTREAM_METHODS));
    response
}

/// What became of a wait.
enum Awaited {
    /// There is an answer, or none.
    Told(Box<Result<Reply, UpstreamFailure>>),
    /// It is kept.
    Kept,
    /// It is not for this one, and others may begin.
    LookAgain,
    /// It must be asked for once more.
    InVain,
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
        interim: Interim,
    ) -> Result<Reply, UpstreamFailure> {
        if self.ruling.is_due(self.clock.steady_ms()) {
            // Nobody waits for it.
            drop(self.ask_rule_aside());
        }
        let answered = self.answer(head, body, caller, interim).await;
        // What a client asks wrongly says nothing of the upstream: no rule is to be moved by it.
        if answered.as_ref().is_err_and(|failure| failure.error.is_of_upstream()) {
            self.ruling.profile().failed();
        }
        answered
    }

    async fn answer(
        self: &Arc<Self>,
        mut head: Parts,
        body: Incoming,
        caller: Caller,
        interim: Interim,
    ) -> Result<Reply, UpstreamFailure> {
        // What it would name at the origin may lie outside the prefix, and under another key.
        if key::has_dot_segment(head.uri.path()) {
            return Err(UpstreamError::DotSegment.into());
        }
        if self.passage.pseudonym.has_seen(&head.headers) {
            return Err(UpstreamError::Loop.into());
        }
        // It would tell a script what a browser hides from it, and an attacker what proxies add.
        if head.method == Method::TRACE {
            return Err(UpstreamError::MethodRefused.into());
        }
        if head.method == Method::OPTIONS && hop::forwards_left(&mut head.headers) == Some(0) {
            return Ok(options());
        }
        let out = self.passage.outgoing(head, caller);
        let reads = out.method == Method::GET || out.method == Method::HEAD;
        if reads && body.is_end_stream() {
            let wishes = Wishes::of(&out.as_asked());
            let no_store = wishes.no_store && self.config.clients_may_force;
            let wishes = Wishes { no_store, ..wishes };
            let allowance = Arc::new(Allowance::of(&self.ruling.rule(), &self.config));
            return self.read(Asked { out: Arc::new(out), wishes, allowance, interim }).await;
        }
        if self.origin.is_too_large(&body) {
            return Err(UpstreamError::RequestBodyTooLarge.into());
        }
        let safe = reads || out.method == Method::OPTIONS;
        let body = if body.is_end_stream() { empty() } else { self.origin.bounded(body) };
        let sent = self.origin.send((out.method.clone(), &out.path), out.as_asked(), body, interim).await;
        let answered = sent.map_err(|error| UpstreamFailure::after(error, Forwarded::Method))?;
        let status = answered.response.status();
        if !safe && (status.is_success() || status.is_redirection()) {
            self.invalidate(&out, answered.response.headers());
        }
        Ok(self.pass(&out, answered, CacheStatus::forwarded(Forwarded::Method), None))
    }

    async fn read(self: &Arc<Self>, asked: Asked) -> Result<Reply, UpstreamFailure> {
        if let Err(reason) = &*asked.allowance
            && !asked.wishes.only_if_cached
        {
            return self.bypass(&asked, reason).await;
        }
        let (mut waited, mut last) = (Waited::Not, None);
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
            if found.unshared || asked.wishes.no_store {
                return self.fetch(asked.clone(), found, asked.alone(), None).await;
            }
            if matches!(waited, Waited::ForItsOwn(_)) {
                break;
            }
            let seat = self.cache.seat(&found.seat);
            if matches!(seat, Seat::Lead(_)) {
                // Whoever led before may have kept its answer since we looked.
                let again = self.look(&asked);
                if let Some(reply) = self.tell_kept(&asked, &again, waited) {
                    return Ok(reply);
                }
            }
            let mut wait = match seat {
                Seat::Lead(lead) if asked.out.wants_whole() => return self.lead(asked, found, lead).await,
                Seat::Lead(lead) => {
                    // A part, or the head: the whole is read for all, and this one is told what it wants of it.
                    waited = Waited::ForItsOwn(found.why);
                    let wait = lead.wait();
                    self.read_aside(&asked, &found, lead);
                    wait
                }
                Seat::Wait(wait) => {
                    waited = if wait.is_early() { Waited::FromTheBeginning } else { Waited::ForAnother };
                    wait
                }
                Seat::Full => return Err(UpstreamError::Overloaded.into()),
            };
            match self.wait(&asked, &found, &mut wait, waited).await {
                Awaited::Told(reply) => return *reply,
                Awaited::Kept => {}
                // What is found then may be older than this request.
                Awaited::LookAgain => waited = Waited::Not,
                Awaited::InVain => return self.read_alone(&asked, &wait).await,
            }
            last = Some(wait);
        }
        match last {
            Some(wait) => self.read_alone(&asked, &wait).await,
            None => self.fetch(asked.clone(), self.look(&asked), asked.alone(), None).await,
        }
    }

    /// Waits for an answer to come or to be kept. For its head as long as whoever asked for it does, which is bounded there.
    async fn wait(&self, asked: &Asked, found: &Found, wait: &mut Wait<Coming>, waited: Waited) -> Awaited {
        let flown = match wait.seen().await {
            Seen::Landed(flown) => flown,
            Seen::Coming(coming) if !coming.is_for(&asked.out) => return Awaited::LookAgain,
            Seen::Coming(coming) => {
                let now_ms = self.clock.steady_ms();
                let freshness = self.cache.judge(&coming.place, &coming.entry, now_ms);
                if let Some(reply) = freshness.and_then(|fresh| self.join(asked, &coming, fresh, waited)) {
                    return Awaited::Told(Box::new(Ok(reply)));
                }
                // It was invalidated, or is too old by now, or too large: it is for nobody who asks from now on.
                if freshness.is_none() || freshness != Some(Freshness::Fresh) && !wait.is_early() {
                    wait.unseat();
                    return Awaited::LookAgain;
                }
                match tokio::time::timeout(self.wait, wait.landed()).await {
                    Ok(flown) => flown,
                    Err(_) => return Awaited::InVain,
                }
            }
        };
        match flown {
            Flown::Kept => Awaited::Kept,
            Flown::Failed => {
                let mut failure = UpstreamFailure::after(UpstreamError::Broken, found.why);
                failure.status.collapsed = waited.is_for_another();
                Awaited::Told(Box::new(self.tell_on_error(asked, found).ok_or(failure)))
            }
            Flown::Unshared | Flown::Lost => Awaited::InVain,
        }
    }

    /// Tells what comes, from its beginning, where it is for this one, too.
    fn join(&self, asked: &Asked, coming: &Coming, freshness: Freshness, waited: Waited) -> Option<Reply> {
        let Kept::Response(stored) = &coming.entry.value else { return None };
        if !asked.may_be_told(stored) {
            return None;
        }
        let (status, _) = self.may_tell(asked, (&coming.entry, stored, freshness), waited)?;
        let follower = coming.body.follow()?;
        Some(self.tell_with(asked, stored, Telling::Coming(follower, coming.body.length()), status))
    }

    /// Asks the origin for this request alone, after it has waited for another's answer in vain. Those who did so go a few at
    /// a time, so that no wait ends in a herd.
    async fn read_alone(self: &Arc<Self>, asked: &Asked, wait: &Wait<Coming>) -> Result<Reply, UpstreamFailure> {
        let limit = Duration::from_millis(self.config.limits.head_timeout_ms);
        let Ok(turn) = tokio::time::timeout(limit, wait.turn()).await else {
            counter!(SHED_TOTAL, "limit" => "upstream.head_timeout_ms").increment(1);
            return Err(UpstreamError::Overloaded.into());
        };
        let found = self.look(asked);
        // Somebody who says who he is waited for an answer of his own: not for what is kept for all meanwhile.
        if !asked.out.person.is_known()
            && let Some(reply) = self.tell_kept(asked, &found, Waited::Not)
        {
            return Ok(reply);
        }
        let reply = self.fetch(asked.clone(), found, asked.alone(), None).await;
        drop(turn);
        reply
    }

    /// Reads for all who wait.
    async fn lead(self: &Arc<Self>, asked: Asked, found: Found, lead: UpstreamLead) -> Result<Reply, UpstreamFailure> {
        let (upstream, why) = (Arc::clone(self), found.why);
        // On a task of its own: others wait for it, also when this client goes away.
        let fetching = async move { upstream.fetch(asked, found, Sending::ForAll, Some(lead)).await };
        let task = tokio::spawn(request::carry(fetching));
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
        let (kept, why) = match &kept {
            Some((entry, _)) => match &entry.value {
                Kept::Response(stored) if asked.may_be_told(stored) => (kept, Forwarded::Stale),
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
        let (status, refresh) = self.may_tell(asked, (entry, stored, freshness), waited)?;
        if refresh && let Some(lead) = self.cache.lead(&found.seat) {
            self.read_aside(asked, found, lead);
        }
        Some(self.tell(asked, stored, status))
    }

    /// Whether something that is kept, or will be, may be told without asking; whether to read it anew then.
    fn may_tell(
        &self,
        asked: &Asked,
        (entry, stored, freshness): (&Entry<Kept>, &Stored, Freshness),
        waited: Waited,
    ) -> Option<(CacheStatus, bool)> {
        let now_ms = self.clock.steady_ms();
        if let Waited::ForItsOwn(why) = waited {
            // Just read, because this one asked.
            return Some((CacheStatus { stored: true, ..CacheStatus::forwarded(why) }, false));
        }
        let collapsed = waited.is_for_another();
        let (wanted, forced) = match stored.wanted(&asked.wishes, now_ms) {
            // It was read after this one asked, or was being read: that is as new as it gets.
            Some(false) if collapsed => (None, None),
            Some(false) if !self.config.clients_may_force => (None, Some("client-may-not-force")),
            wanted => (wanted, None),
        };
        // The origin has made it since this one asked, so it is no older than an answer of its own would be.
        let is_new = waited == Waited::FromTheBeginning;
        let (refresh, detail) = match (wanted, freshness) {
            (Some(false), _) => return None,
            (Some(true), _) => (false, Some("max-stale")),
            (None, Freshness::Fresh) if !stored.no_cache => (entry.is_due_early(now_ms, stored.lifetime_ms), forced),
            (None, _) if is_new && !stored.no_cache && !stored.strict => (false, None),
            (None, Freshness::Stale) if !stored.no_cache && !stored.strict => (true, Some("stale-while-revalidate")),
            (None, Freshness::OnError) if stored.is_held(now_ms) => (false, Some("origin-failed")),
            _ => return None,
        };
        Some((CacheStatus { collapsed, detail, ..hit(stored, freshness, now_ms) }, refresh))
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
    fn read_aside(self: &Arc<Self>, asked: &Asked, found: &Found, lead: UpstreamLead) {
        let found = Found {
            key: found.key.clone(),
            seat: found.seat.clone(),
            kept: found.kept.clone(),
            why: found.why,
            unshared: false,
        };
        let (upstream, asked) = (Arc::clone(self), asked.clone());
        let fetching = async move { drop(upstream.fetch(asked, found, Sending::ForAll, Some(lead)).await) };
        tokio::spawn(request::carry(fetching));
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
