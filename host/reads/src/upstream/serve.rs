//! The life of a request: look up the cache, serve a cached response, or have one request ask the origin for all waiters.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use metrics::counter;

use super::allowance::Allowance;
use super::control::Wishes;
use super::deliver::{Delivery, hit};
use super::fill::InFlight;
use super::origin::empty;
use super::outgoing::Outgoing;
use super::stored::{Cached, Stored, group_names};
use super::{UPSTREAM_METHODS, Upstream, UpstreamError, UpstreamFailure, UpstreamLeader, hop, key};
use weir_cache::{CacheStatus, Entry, Forwarded, Freshness, Join, LoadResult, Progress, PurgeMode, Waiter};
use weir_core::telemetry::{SHED_TOTAL, request};
use weir_listener::forwarded::Caller;
use weir_listener::reply::ReplyBody;
use weir_listener::{Interim, Reply};

const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");
/// How often a request looks up the cache, once more after each wait for another request's load.
const LOOKUPS_MAX: usize = 4;
/// Backoff after a failure of the origin, in milliseconds: while it lasts, a stale response is served without a request.
const BACKOFF_MS: u64 = 1_000;

/// A request that reads.
#[derive(Clone)]
pub(super) struct ReadRequest {
    /// The request as the origin gets it.
    pub(super) out: Arc<Outgoing>,
    pub(super) wishes: Wishes,
    /// What the rule allows to be stored, or why nothing.
    pub(super) allowance: Arc<Result<Allowance, String>>,
    /// Receives informational responses of the origin.
    pub(super) interim: Interim,
}

/// What the cache has for a request.
pub(super) struct Lookup {
    pub(super) key: String,
    /// The key of the single flight.
    pub(super) flight_key: String,
    pub(super) cached: Option<(Arc<Entry<Cached>>, Freshness)>,
    pub(super) why: Forwarded,
    /// The cache knows that the response may not be stored.
    is_private: bool,
}

/// What goes to the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    /// The common part of all such requests: the response may be stored.
    ForAll,
    /// The whole request of this client: the response is for this client alone.
    AsAsked,
}

/// The load that a request has waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waited {
    /// None yet.
    Not,
    /// Another request's load, whose response had begun to arrive when this request came.
    ForAnother,
    /// Another request's load, whose response had not: the response is not older than this request.
    FromTheBeginning,
    /// A load for all that this request started, for this reason.
    ForItsOwn(Forwarded),
}

impl Waited {
    fn is_for_another(self) -> bool {
        matches!(self, Self::ForAnother | Self::FromTheBeginning)
    }
}

impl ReadRequest {
    /// What to send where the response may be for this client alone.
    fn alone(&self) -> Sending {
        if self.out.is_for_all() { Sending::ForAll } else { Sending::AsAsked }
    }

    /// A response without an explicit lifetime, or with a loosened one, is not served to a request with an identity.
    fn may_be_served(&self, stored: &Stored) -> bool {
        self.allowance.is_ok() && !(stored.anonymous_only && self.out.person.is_known())
    }
}

/// The response to an `OPTIONS` that ends here.
fn options() -> Reply {
    let mut response = Response::new(ReplyBody::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(UPSTREAM_METHODS));
    response
}

/// The result of a wait.
enum WaitResult {
    /// There is a response, or a failure.
    Answered(Box<Result<Reply, UpstreamFailure>>),
    /// The response is in the cache.
    Cached,
    /// The response is of no use to this request, and another load may start.
    LookAgain,
    /// The request must ask the origin for itself.
    LoadAlone,
}

impl Lookup {
    pub(super) fn stored(&self) -> Option<(&Arc<Entry<Cached>>, &Stored, Freshness)> {
        match &self.cached {
            Some((entry, freshness)) => match &entry.value {
                Cached::Response(stored) => Some((entry, stored, *freshness)),
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
    /// See [`UpstreamError`]. A failed response is never stored.
    pub async fn handle(
        self: &Arc<Self>,
        head: Parts,
        body: Incoming,
        caller: Caller,
        interim: Interim,
    ) -> Result<Reply, UpstreamFailure> {
        if self.ruling.is_due(self.clock.steady_ms()) {
            // No request waits for the rule.
            drop(self.ask_rule_aside());
        }
        let answered = self.answer(head, body, caller, interim).await;
        // A bad request says nothing about the upstream, and must not change its rule.
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
        // At the origin such a path may leave the prefix, and name the resource of another key.
        if key::has_dot_segment(head.uri.path()) {
            return Err(UpstreamError::DotSegment.into());
        }
        if self.passage.pseudonym.has_seen(&head.headers) {
            return Err(UpstreamError::Loop.into());
        }
        // TRACE would show a script the headers that a browser hides, and an attacker the headers that proxies add.
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
            return self.read(ReadRequest { out: Arc::new(out), wishes, allowance, interim }).await;
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

    /// Answers a GET or HEAD: from the cache, from a load in flight, or by a load of its own.
    async fn read(self: &Arc<Self>, request: ReadRequest) -> Result<Reply, UpstreamFailure> {
        if let Err(reason) = &*request.allowance
            && !request.wishes.only_if_cached
        {
            return self.bypass(&request, reason).await;
        }
        // Each round looks up the cache, then joins the single flight. Rounds are bounded, so that a request whose response never
        // becomes usable ends with a load of its own.
        let (mut waited, mut last) = (Waited::Not, None);
        for _ in 0..LOOKUPS_MAX {
            let mut lookup = self.look(&request);
            if let Some(reply) = self.serve_cached(&request, &lookup, waited) {
                return Ok(reply);
            }
            if request.wishes.only_if_cached {
                return Err(UpstreamError::NotCached.into());
            }
            // A fresh response that may not be served: the request itself rejects it.
            if matches!(lookup.stored(), Some((_, stored, Freshness::Fresh)) if !stored.no_cache) {
                lookup.why = Forwarded::Request;
            }
            // A response that may not be stored may not be served to waiters either.
            if lookup.is_private || request.wishes.no_store {
                return self.fetch(request.clone(), lookup, request.alone(), None).await;
            }
            // This request started a load for all, and still cannot use the result.
            if matches!(waited, Waited::ForItsOwn(_)) {
                break;
            }
            let join = self.cache.join(&lookup.flight_key);
            if matches!(join, Join::Leader(_)) {
                // An earlier leader may have stored its response since our lookup.
                let again = self.look(&request);
                if let Some(reply) = self.serve_cached(&request, &again, waited) {
                    return Ok(reply);
                }
            }
            let mut waiter = match join {
                Join::Leader(leader) if request.out.wants_whole() => {
                    return self.load_as_leader(request, lookup, leader).await;
                }
                Join::Leader(leader) => {
                    // A range, or HEAD: load the whole for all, and serve this request its part.
                    waited = Waited::ForItsOwn(lookup.why);
                    let waiter = leader.subscribe();
                    self.load_in_background(&request, &lookup, leader);
                    waiter
                }
                Join::Waiter(waiter) => {
                    waited = if waiter.is_early() { Waited::FromTheBeginning } else { Waited::ForAnother };
                    waiter
                }
                Join::Full => return Err(UpstreamError::Overloaded.into()),
            };
            match self.wait(&request, &lookup, &mut waiter, waited).await {
                WaitResult::Answered(reply) => return *reply,
                WaitResult::Cached => {}
                // The next lookup may find a response that is older than this request.
                WaitResult::LookAgain => waited = Waited::Not,
                WaitResult::LoadAlone => return self.load_alone(&request, &waiter).await,
            }
            last = Some(waiter);
        }
        match last {
            Some(waiter) => self.load_alone(&request, &waiter).await,
            None => self.fetch(request.clone(), self.look(&request), request.alone(), None).await,
        }
    }

    /// Waits until the response arrives or is stored. Waits for its head as long as the leader does, whose time is bounded.
    async fn wait(
        &self,
        request: &ReadRequest,
        lookup: &Lookup,
        waiter: &mut Waiter<InFlight>,
        waited: Waited,
    ) -> WaitResult {
        let result = match waiter.progress().await {
            Progress::Done(result) => result,
            Progress::Streaming(in_flight) if !in_flight.is_for(&request.out) => return WaitResult::LookAgain,
            Progress::Streaming(in_flight) => {
                let now_ms = self.clock.steady_ms();
                let freshness = self.cache.check(&in_flight.key, &in_flight.entry, now_ms);
                if let Some(reply) = freshness.and_then(|fresh| self.follow(request, &in_flight, fresh, waited)) {
                    return WaitResult::Answered(Box::new(Ok(reply)));
                }
                // The response was invalidated, is too old by now, or too large: later requests must start a new load.
                if freshness.is_none() || freshness != Some(Freshness::Fresh) && !waiter.is_early() {
                    waiter.release();
                    return WaitResult::LookAgain;
                }
                match tokio::time::timeout(self.wait, waiter.result()).await {
                    Ok(result) => result,
                    Err(_) => return WaitResult::LoadAlone,
                }
            }
        };
        match result {
            LoadResult::Cached => WaitResult::Cached,
            LoadResult::Failed => {
                let mut failure = UpstreamFailure::after(UpstreamError::Broken, lookup.why);
                failure.status.collapsed = waited.is_for_another();
                WaitResult::Answered(Box::new(self.serve_on_error(request, lookup).ok_or(failure)))
            }
            LoadResult::Private | LoadResult::Abandoned => WaitResult::LoadAlone,
        }
    }

    /// Serves a response in flight from its beginning, where it answers this request, too.
    fn follow(
        &self,
        request: &ReadRequest,
        in_flight: &InFlight,
        freshness: Freshness,
        waited: Waited,
    ) -> Option<Reply> {
        let Cached::Response(stored) = &in_flight.entry.value else { return None };
        if !request.may_be_served(stored) {
            return None;
        }
        let (status, _) = self.may_serve(request, (&in_flight.entry, stored, freshness), waited)?;
        let follower = in_flight.body.follow()?;
        Some(self.serve_with(request, stored, Delivery::Streaming(follower, in_flight.body.length()), status))
    }

    /// Asks the origin for this request alone, after it has waited for a load that it cannot use. Such requests go a few at a
    /// time, so that no wait ends in a stampede.
    async fn load_alone(
        self: &Arc<Self>,
        request: &ReadRequest,
        waiter: &Waiter<InFlight>,
    ) -> Result<Reply, UpstreamFailure> {
        let limit = Duration::from_millis(self.config.limits.head_timeout_ms);
        let Ok(turn) = tokio::time::timeout(limit, waiter.turn()).await else {
            counter!(SHED_TOTAL, "limit" => "upstream.head_timeout_ms").increment(1);
            return Err(UpstreamError::Overloaded.into());
        };
        let lookup = self.look(request);
        // A request with an identity waited for a response of its own, not for one that was stored for all meanwhile.
        if !request.out.person.is_known()
            && let Some(reply) = self.serve_cached(request, &lookup, Waited::Not)
        {
            return Ok(reply);
        }
        let reply = self.fetch(request.clone(), lookup, request.alone(), None).await;
        drop(turn);
        reply
    }

    /// Loads the response for all waiters.
    async fn load_as_leader(
        self: &Arc<Self>,
        request: ReadRequest,
        lookup: Lookup,
        leader: UpstreamLeader,
    ) -> Result<Reply, UpstreamFailure> {
        let (upstream, why) = (Arc::clone(self), lookup.why);
        // On a task of its own: the waiters need the load even when this client disconnects.
        let fetching = async move { upstream.fetch(request, lookup, Sending::ForAll, Some(leader)).await };
        let task = tokio::spawn(request::carry(fetching));
        task.await.unwrap_or(Err(UpstreamFailure::after(UpstreamError::Broken, why)))
    }

    fn look(&self, request: &ReadRequest) -> Lookup {
        let (now_ms, base) = (self.clock.steady_ms(), &request.out.key);
        let is_person = request.out.person.is_known();
        let (key, cached, why) = match self.cache.get(base, now_ms) {
            None => (base.clone(), None, Forwarded::UriMiss),
            Some((entry, freshness)) => match &entry.value {
                Cached::Vary(names) => {
                    let key = key::variant(base, names, request.out.headers());
                    let cached = self.cache.get(&key, now_ms);
                    (key, cached, Forwarded::VaryMiss)
                }
                _ => (base.clone(), Some((entry, freshness)), Forwarded::UriMiss),
            },
        };
        let flight_key = key::flight(&key, is_person);
        let (cached, why) = match &cached {
            Some((entry, _)) => match &entry.value {
                Cached::Response(stored) if request.may_be_served(stored) => (cached, Forwarded::Stale),
                Cached::Response(_) => (None, Forwarded::Request),
                _ => (None, why),
            },
            None => (None, why),
        };
        let is_marked = || matches!(self.cache.get(&flight_key, now_ms), Some((_, Freshness::Fresh)));
        let is_private = cached.is_none() && is_marked();
        Lookup { key, flight_key, cached, why, is_private }
    }

    /// Serves the cached response, where that needs no request to the origin; starts its refresh where that is due.
    fn serve_cached(self: &Arc<Self>, request: &ReadRequest, lookup: &Lookup, waited: Waited) -> Option<Reply> {
        let (entry, stored, freshness) = lookup.stored()?;
        let (status, refresh) = self.may_serve(request, (entry, stored, freshness), waited)?;
        if refresh && let Some(leader) = self.cache.try_lead(&lookup.flight_key) {
            self.load_in_background(request, lookup, leader);
        }
        Some(self.serve(request, stored, status))
    }

    /// Whether a response may be served without a request to the origin, with its status; and whether to refresh it then.
    fn may_serve(
        &self,
        request: &ReadRequest,
        (entry, stored, freshness): (&Entry<Cached>, &Stored, Freshness),
        waited: Waited,
    ) -> Option<(CacheStatus, bool)> {
        let now_ms = self.clock.steady_ms();
        if let Waited::ForItsOwn(why) = waited {
            // This request started the load.
            return Some((CacheStatus { stored: true, ..CacheStatus::forwarded(why) }, false));
        }
        let collapsed = waited.is_for_another();
        let (wanted, forced) = match stored.wanted(&request.wishes, now_ms) {
            // The load started after this request, or was in flight: no response is newer.
            Some(false) if collapsed => (None, None),
            Some(false) if !self.config.clients_may_force => (None, Some("client-may-not-force")),
            wanted => (wanted, None),
        };
        // The origin made the response after this request came, so it is no older than one of its own would be.
        let is_new = waited == Waited::FromTheBeginning;
        let (refresh, detail) = match (wanted, freshness) {
            (Some(false), _) => return None,
            (Some(true), _) => (false, Some("max-stale")),
            (None, Freshness::Fresh) if !stored.no_cache => (entry.is_due_early(now_ms, stored.lifetime_ms), forced),
            (None, _) if is_new && !stored.no_cache && !stored.strict => (false, None),
            (None, Freshness::Stale) if !stored.no_cache && !stored.strict => (true, Some("stale-while-revalidate")),
            (None, Freshness::OnError) if stored.is_backing_off(now_ms) => (false, Some("origin-failed")),
            _ => return None,
        };
        Some((CacheStatus { collapsed, detail, ..hit(stored, freshness, now_ms) }, refresh))
    }

    /// Serves the cached response after a failure of the origin, where that is allowed.
    pub(super) fn serve_on_error(&self, request: &ReadRequest, lookup: &Lookup) -> Option<Reply> {
        let (_, stored, freshness) = lookup.stored()?;
        let now_ms = self.clock.steady_ms();
        if freshness == Freshness::Spent || stored.strict || stored.no_cache {
            return None;
        }
        stored.back_off(now_ms + BACKOFF_MS);
        Some(self.serve(request, stored, hit(stored, freshness, now_ms).because("origin-failed")))
    }

    /// Loads the whole for all, on a task of its own.
    fn load_in_background(self: &Arc<Self>, request: &ReadRequest, lookup: &Lookup, leader: UpstreamLeader) {
        let lookup = Lookup {
            key: lookup.key.clone(),
            flight_key: lookup.flight_key.clone(),
            cached: lookup.cached.clone(),
            why: lookup.why,
            is_private: false,
        };
        let (upstream, request) = (Arc::clone(self), request.clone());
        let fetching = async move { drop(upstream.fetch(request, lookup, Sending::ForAll, Some(leader)).await) };
        tokio::spawn(request::carry(fetching));
    }

    /// After an unsafe request: invalidates its target, and the locations and groups that its response names (RFC 9111,
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
        self.cache.invalidations().invalidate_groups(all, PurgeMode::Hard);
    }
}
