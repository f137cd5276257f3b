//! The way of a request: look, tell what is kept, or ask the origin once for all who wait; keep what may be kept.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::allowance::{Allowance, is_personal};
use super::control::Wishes;
use super::fill::{Fill, put_unshared};
use super::origin::{Answered, empty, passing};
use super::range::{Part, part};
use super::stored::{Kept, Moments, Stored, Terms, group_names, judge};
use super::{Upstream, UpstreamError, UpstreamFailure, conditional, hop, key};
use crate::cache::{CacheStatus, Entry, Flown, Forwarded, Freshness, Hardness, Lead, Seat, Stamp};
use crate::config::Staleness;
use crate::listener::Reply;
use crate::listener::reply::ReplyBody;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");
/// How often a request looks again after it has waited for another's.
const LOOKS_MAX: usize = 3;
/// How long the origin is left alone after it failed, where there is something stale to tell, in milliseconds.
const HOLD_MS: u64 = 1_000;

/// A request that reads.
#[derive(Clone)]
struct Asked {
    method: Method,
    /// As the origin sees it.
    path: String,
    primary: String,
    headers: HeaderMap,
    wishes: Wishes,
    peer: IpAddr,
    /// What the rule allows to be kept, or why nothing.
    allowance: Arc<Result<Allowance, String>>,
}

/// What the cache has for a request.
struct Found {
    key: String,
    kept: Option<(Arc<Entry<Kept>>, Freshness)>,
    why: Forwarded,
    /// It is known that the answer is not kept.
    unshared: bool,
}

impl Asked {
    /// Whether one answer may serve all who ask so.
    fn is_shared(&self) -> bool {
        self.method == Method::GET && !self.headers.contains_key(header::RANGE)
    }
}

impl Found {
    fn stored(&self) -> Option<(&Arc<Entry<Kept>>, &Stored, Freshness)> {
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
    pub async fn handle(self: &Arc<Self>, head: Parts, body: Incoming, peer: IpAddr) -> Result<Reply, UpstreamFailure> {
        if self.ruling.is_due(self.clock.now_ms()) {
            // Nobody waits for it.
            drop(self.ask_rule_aside());
        }
        let answered = self.answer(head, body, peer).await;
        // What a client asks wrongly says nothing of the upstream: no rule is to be moved by it.
        if answered.as_ref().is_err_and(|failure| failure.error.is_of_upstream()) {
            self.ruling.profile().failed();
        }
        answered
    }

    async fn answer(self: &Arc<Self>, head: Parts, body: Incoming, peer: IpAddr) -> Result<Reply, UpstreamFailure> {
        // What it would name at the origin may lie outside the prefix, and under another key.
        if key::has_dot_segment(head.uri.path()) {
            return Err(UpstreamError::DotSegment.into());
        }
        let strip = self.config.strip_prefix.then_some(self.config.prefix.as_str());
        let path = key::path_and_query(&head.uri, strip);
        let primary = key::primary(&self.config.name, &path);
        let wishes = Wishes::of(&head.headers);
        let allowance = Arc::new(Allowance::of(&self.ruling.rule(), &self.config));
        let asked = Asked { method: head.method, path, primary, headers: head.headers, wishes, peer, allowance };
        let reads = asked.method == Method::GET || asked.method == Method::HEAD;
        if reads && body.is_end_stream() {
            return self.read(asked).await;
        }
        if self.origin.is_too_large(&body) {
            return Err(UpstreamError::RequestBodyTooLarge.into());
        }
        let safe = reads || asked.method == Method::OPTIONS || asked.method == Method::TRACE;
        let mut headers = asked.headers.clone();
        hop::to_origin(&mut headers, peer, &self.origin.authority);
        let body = if body.is_end_stream() { empty() } else { self.origin.bounded(body) };
        let sent = self.origin.send(asked.method.clone(), &asked.path, headers, body).await;
        let answered = sent.map_err(|error| UpstreamFailure::after(error, Forwarded::Method))?;
        let status = answered.response.status();
        if !safe && (status.is_success() || status.is_redirection()) {
            self.invalidate(&asked, answered.response.headers());
        }
        Ok(self.pass(answered, CacheStatus::forwarded(Forwarded::Method), None))
    }

    /// Asks the origin for what may be kept, and measures how long that takes; what never reached it is no measure.
    async fn ask(&self, asked: &Asked, headers: HeaderMap) -> Result<Answered, UpstreamError> {
        let started = Instant::now();
        let sent = self.origin.send(asked.method.clone(), &asked.path, headers, empty()).await;
        if sent.as_ref().map_or_else(|error| error.was_asked(), |_| true) {
            self.ruling.profile().read(started.elapsed());
        }
        sent
    }

    /// Asks the origin for this request alone: the rule keeps nothing.
    async fn bypass(&self, asked: &Asked, reason: &str) -> Result<Reply, UpstreamFailure> {
        let mut headers = asked.headers.clone();
        hop::to_origin(&mut headers, asked.peer, &self.origin.authority);
        let sent = self.ask(asked, headers).await;
        let answered = sent.map_err(|error| UpstreamFailure::after(error, Forwarded::Bypass))?;
        let status = CacheStatus::forwarded(Forwarded::Bypass);
        if self.config.class == Some(Staleness::Live) {
            return Ok(self.pass(answered, status.because("live"), None));
        }
        Ok(self.pass(answered, status.because("rule"), Some(reason)))
    }

    async fn read(self: &Arc<Self>, asked: Asked) -> Result<Reply, UpstreamFailure> {
        let mut collapsed = false;
        if let Err(reason) = &*asked.allowance
            && !asked.wishes.only_if_cached
        {
            return self.bypass(&asked, reason).await;
        }
        for _ in 0..LOOKS_MAX {
            let found = self.look(&asked);
            if let Some(reply) = self.tell_kept(&asked, &found, collapsed) {
                return Ok(reply);
            }
            if asked.wishes.only_if_cached {
                return Err(UpstreamError::NotKept.into());
            }
            if !asked.is_shared() || found.unshared {
                return self.fetch(asked, found, None).await;
            }
            match self.cache.seat(&found.key) {
                Seat::Lead(lead) => {
                    let (upstream, why) = (Arc::clone(self), found.why);
                    // On a task of its own: others wait for it, also when this client goes away.
                    let task = tokio::spawn(async move { upstream.fetch(asked, found, Some(lead)).await });
                    return task.await.unwrap_or(Err(UpstreamFailure::after(UpstreamError::Broken, why)));
                }
                Seat::Wait(wait) => match tokio::time::timeout(self.wait, wait.landed()).await {
                    Ok(Flown::Kept) => collapsed = true,
                    Ok(Flown::Failed) => {
                        let mut failure = UpstreamFailure::after(UpstreamError::Broken, found.why);
                        failure.status.collapsed = true;
                        return self.tell_on_error(&asked, &found).ok_or(failure);
                    }
                    _ => return self.fetch(asked, found, None).await,
                },
                Seat::Full => return Err(UpstreamError::Overloaded.into()),
            }
        }
        let found = self.look(&asked);
        self.fetch(asked, found, None).await
    }

    fn look(&self, asked: &Asked) -> Found {
        let now_ms = self.clock.now_ms();
        let place = |key: String, kept, why, unshared| Found { key, kept, why, unshared };
        let Some((entry, freshness)) = self.cache.get(&asked.primary, now_ms) else {
            return place(asked.primary.clone(), None, Forwarded::UriMiss, false);
        };
        match &entry.value {
            Kept::Unshared => place(asked.primary.clone(), None, Forwarded::UriMiss, freshness == Freshness::Fresh),
            Kept::Response(stored) => {
                self.place(asked, asked.primary.clone(), stored.loosened, (entry.clone(), freshness))
            }
            Kept::Vary(names) => {
                let key = key::variant(&asked.primary, names, &asked.headers);
                match self.cache.get(&key, now_ms) {
                    Some((entry, freshness)) => {
                        let loosened = matches!(&entry.value, Kept::Response(stored) if stored.loosened);
                        self.place(asked, key, loosened, (entry, freshness))
                    }
                    None => place(key, None, Forwarded::VaryMiss, false),
                }
            }
        }
    }

    /// What is kept, for whom it is: what is kept for longer than the origin says is not for a request that says who asks.
    fn place(&self, asked: &Asked, key: String, loosened: bool, kept: (Arc<Entry<Kept>>, Freshness)) -> Found {
        if asked.allowance.is_err() || loosened && is_personal(&asked.headers, self.identity.as_ref()) {
            return Found { key, kept: None, why: Forwarded::Request, unshared: true };
        }
        Found { key, kept: Some(kept), why: Forwarded::Stale, unshared: false }
    }

    /// What is kept, where it may be told without asking.
    fn tell_kept(self: &Arc<Self>, asked: &Asked, found: &Found, collapsed: bool) -> Option<Reply> {
        let (entry, stored, freshness) = found.stored()?;
        let now_ms = self.clock.now_ms();
        let (refresh, detail) = match (stored.wanted(&asked.wishes, now_ms), freshness) {
            (Some(false), _) => return None,
            (Some(true), _) => (false, Some("max-stale")),
            (None, Freshness::Fresh) if !stored.no_cache => (entry.is_due_early(now_ms, stored.lifetime_ms), None),
            (None, Freshness::Stale) if !stored.no_cache && !stored.strict => (true, Some("stale-while-revalidate")),
            (None, Freshness::OnError) if stored.is_held(now_ms) => (false, Some("origin-failed")),
            _ => return None,
        };
        if refresh {
            self.refresh(asked, found);
        }
        let status = CacheStatus { collapsed, detail, ..hit(stored, freshness, now_ms) };
        Some(self.tell(asked, stored, status))
    }

    /// What is kept, where the origin has failed and it may be told then.
    fn tell_on_error(&self, asked: &Asked, found: &Found) -> Option<Reply> {
        let (_, stored, freshness) = found.stored()?;
        let now_ms = self.clock.now_ms();
        if freshness == Freshness::Spent || stored.strict || stored.no_cache {
            return None;
        }
        stored.hold(now_ms + HOLD_MS);
        Some(self.tell(asked, stored, hit(stored, freshness, now_ms).because("origin-failed")))
    }

    /// Reads it anew while what is kept is told.
    fn refresh(self: &Arc<Self>, asked: &Asked, found: &Found) {
        let Some(lead) = self.cache.lead(&found.key) else { return };
        let mut asked = asked.clone();
        asked.method = Method::GET;
        asked.headers.remove(header::RANGE);
        let found = Found { key: found.key.clone(), kept: found.kept.clone(), why: Forwarded::Stale, unshared: false };
        let upstream = Arc::clone(self);
        tokio::spawn(async move { drop(upstream.fetch(asked, found, Some(lead)).await) });
    }

    /// Asks the origin. With a `lead` others wait for it.
    async fn fetch(self: &Arc<Self>, asked: Asked, found: Found, lead: Option<Lead>) -> Result<Reply, UpstreamFailure> {
        let stamps = (self.cache.stamp(), self.cache.stamp());
        let mut headers = asked.headers.clone();
        hop::to_origin(&mut headers, asked.peer, &self.origin.authority);
        let candidate = found.stored().filter(|(_, stored, _)| asked.is_shared() && stored.has_validator());
        if asked.is_shared() && !found.unshared {
            // The whole answer is wanted, to be kept; the client's conditions are answered from that.
            conditional::CONDITIONS.iter().for_each(|name| drop(headers.remove(name)));
        }
        if let Some((_, stored, _)) = candidate {
            conditional::put_conditions(&mut headers, &stored.headers);
        }
        let request_ms = self.clock.now_ms();
        let sent = self.ask(&asked, headers).await;
        let at = Moments { request_ms, response_ms: self.clock.now_ms() };
        let answered = match sent {
            Ok(answered) => answered,
            Err(error) => {
                let told = self.tell_on_error(&asked, &found);
                if let Some(lead) = lead {
                    lead.land(Flown::Failed);
                }
                return told.ok_or(UpstreamFailure::after(error, found.why));
            }
        };
        let status = answered.response.status();
        if status == StatusCode::NOT_MODIFIED && candidate.is_some() {
            return Ok(self.validated(&asked, &found, answered, (at, stamps), lead));
        }
        if is_failure(status)
            && let Some(reply) = self.tell_on_error(&asked, &found)
        {
            if let Some(lead) = lead {
                lead.land(Flown::Failed);
            }
            return Ok(reply);
        }
        Ok(self.fetched(&asked, &found, answered, (at, stamps), lead))
    }

    /// The origin says that what is kept is still so.
    fn validated(
        &self,
        asked: &Asked,
        found: &Found,
        answered: Answered,
        (at, stamps): (Moments, (Stamp, Stamp)),
        lead: Option<Lead>,
    ) -> Reply {
        let mut fresh = answered.response.into_parts().0.headers;
        hop::to_client(&mut fresh);
        // There is one: it was asked about.
        let Some((_, stored, _)) = found.stored() else { return Response::new(ReplyBody::default()) };
        let headers = conditional::merged(&stored.headers, &fresh);
        let status = CacheStatus { origin_status: Some(304), ..CacheStatus::forwarded(found.why) };
        self.ruling.profile().compared(false);
        let verdict = self.judge(asked, (stored.status, &headers), at);
        let (reply, flown) = match verdict {
            Ok(verdict) => {
                let fill = self.fill(asked, (stored.status, headers), verdict, (at, stamps), None);
                let entry = fill.keep(stored.body.clone());
                let status = CacheStatus { stored: true, ..status };
                match &entry.value {
                    Kept::Response(stored) => (self.tell(asked, stored, status), Flown::Kept),
                    _ => (Response::new(ReplyBody::default()), Flown::Lost),
                }
            }
            Err(reason) => {
                self.cache.remove(&found.key);
                (self.tell(asked, stored, status.because(reason)), Flown::Unshared)
            }
        };
        if let Some(lead) = lead {
            lead.land(flown);
        }
        reply
    }

    /// The origin has answered anew.
    fn fetched(
        &self,
        asked: &Asked,
        found: &Found,
        answered: Answered,
        (at, stamps): (Moments, (Stamp, Stamp)),
        lead: Option<Lead>,
    ) -> Reply {
        let (status, headers) = (answered.response.status(), answered.response.headers());
        let told = CacheStatus { origin_status: Some(status.as_u16()), ..CacheStatus::forwarded(found.why) };
        if !asked.is_shared() {
            return self.pass(answered, told, None);
        }
        if let Some((_, stored, _)) = found.stored() {
            self.ruling.profile().compared(!conditional::is_same(&stored.headers, headers));
        }
        let too_large = answered.response.body().size_hint().lower() > self.config.limits.stored_body_bytes_max;
        let verdict = match self.judge(asked, (status, headers), at) {
            Ok(_) if too_large => Err("too-large"),
            other => other,
        };
        match verdict {
            Err(reason) => {
                // What is told to one who has signed in, or asked so, says nothing about the others.
                let of_one = matches!(reason, "authorization" | "request-no-store")
                    || self.config.may_loosen && is_personal(&asked.headers, self.identity.as_ref());
                if !of_one {
                    put_unshared(&self.cache, &self.config.name, &asked.primary, stamps.0, at.response_ms);
                }
                if let Some(lead) = lead {
                    lead.land(Flown::Unshared);
                }
                self.pass(answered, told.because(reason), None)
            }
            Ok(verdict) => {
                let (mut head, body) = answered.response.into_parts();
                hop::to_client(&mut head.headers);
                let length = body.size_hint().exact();
                let modified =
                    !(status == StatusCode::OK && conditional::is_not_modified(&asked.headers, &head.headers));
                let fill = self.fill(asked, (status, head.headers.clone()), verdict, (at, stamps), lead);
                let idle = Duration::from_millis(self.config.limits.body_idle_timeout_ms);
                let pieces = fill.run(body, idle, answered.permit);
                let told = CacheStatus { stored: true, ..told };
                let bytes = usize::try_from(length.unwrap_or_default()).unwrap_or(usize::MAX);
                if !modified {
                    return self.reply(
                        (StatusCode::NOT_MODIFIED, conditional::not_modified_headers(&head.headers)),
                        ReplyBody::default(),
                        (told, None),
                        bytes,
                    );
                }
                let body = ReplyBody::channel(pieces).of_length(length);
                self.reply((status, head.headers), body, (told, None), bytes)
            }
        }
    }

    fn fill(
        &self,
        asked: &Asked,
        (status, headers): (StatusCode, HeaderMap),
        verdict: super::stored::Verdict,
        (at, stamps): (Moments, (Stamp, Stamp)),
        lead: Option<Lead>,
    ) -> Fill {
        Fill {
            cache: Arc::clone(&self.cache),
            upstream: self.config.name.clone(),
            primary: asked.primary.clone(),
            asked: asked.headers.clone(),
            status,
            headers,
            verdict,
            at,
            stamps,
            lead,
            body_bytes_max: self.config.limits.stored_body_bytes_max,
            usage: Arc::clone(self.ruling.usage()),
            named: asked.allowance.as_ref().as_ref().map(|allowance| allowance.groups.clone()).unwrap_or_default(),
        }
    }

    /// Whether and for how long an answer may be kept.
    fn judge(
        &self,
        asked: &Asked,
        response: (StatusCode, &HeaderMap),
        at: Moments,
    ) -> Result<super::stored::Verdict, &'static str> {
        let Ok(allowance) = &*asked.allowance else { return Err("rule") };
        let terms = Terms { limits: &self.config.limits, allowance, identity: self.identity.as_ref() };
        judge(&asked.headers, response, at, terms)
    }

    /// Passes an answer on as it comes.
    fn pass(&self, answered: Answered, status: CacheStatus, reason: Option<&str>) -> Reply {
        let (mut head, body) = answered.response.into_parts();
        hop::to_client(&mut head.headers);
        let length = body.size_hint().exact();
        let idle = Duration::from_millis(self.config.limits.body_idle_timeout_ms);
        let body = if body.is_end_stream() {
            ReplyBody::default()
        } else {
            ReplyBody::stream(passing(body, idle, answered.permit), length)
        };
        let bytes = usize::try_from(length.unwrap_or_default()).unwrap_or(usize::MAX);
        self.reply((head.status, head.headers), body, (status, reason), bytes)
    }

    /// Tells what is kept: the whole, a part, or that the client has it.
    fn tell(&self, asked: &Asked, stored: &Stored, status: CacheStatus) -> Reply {
        let mut headers = stored.headers.clone();
        let age_s = stored.age_ms(self.clock.now_ms()) / 1_000;
        headers.insert(header::AGE, HeaderValue::from(age_s));
        headers.remove(header::CONTENT_LENGTH);
        let whole = stored.status == StatusCode::OK;
        if whole && conditional::is_not_modified(&asked.headers, &stored.headers) {
            let headers = conditional::not_modified_headers(&headers);
            return self.reply((StatusCode::NOT_MODIFIED, headers), ReplyBody::default(), (status, None), 0);
        }
        let length = stored.body.len();
        let wanted = match asked.method {
            Method::GET if whole && conditional::if_range_holds(&asked.headers, &stored.headers) => {
                part(&asked.headers, length)
            }
            _ => Part::Whole,
        };
        let content_range =
            |text: String| HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("bytes */*"));
        let (code, body) = match wanted {
            Part::Whole => (stored.status, stored.body.clone()),
            Part::Bytes(range) => {
                let text = format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1));
                headers.insert(header::CONTENT_RANGE, content_range(text));
                (StatusCode::PARTIAL_CONTENT, stored.body.slice(range))
            }
            Part::Beyond => {
                headers.insert(header::CONTENT_RANGE, content_range(format!("bytes */{length}")));
                (StatusCode::RANGE_NOT_SATISFIABLE, Bytes::new())
            }
        };
        if asked.method == Method::HEAD {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
            return self.reply((code, headers), ReplyBody::default(), (status, None), 0);
        }
        let bytes = body.len();
        self.reply((code, headers), ReplyBody::whole(body), (status, None), bytes)
    }

    /// With `Cache-Status`, and the reason that a rule gave.
    fn reply(
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

    /// An unsafe request was done: what is kept of its target, and of what its answer names, is true no more (RFC 9111,
    /// section 4.4; RFC 9875, section 3).
    fn invalidate(&self, asked: &Asked, answer: &HeaderMap) {
        let host = asked.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let authorities = [host, self.origin.authority.to_str().unwrap_or_default()];
        let mut groups = vec![key::uri_group(&asked.primary)];
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            let location = answer.get(name).and_then(|value| value.to_str().ok());
            if let Some(path) = location.and_then(|location| key::same_origin(location, &asked.path, &authorities)) {
                groups.push(key::uri_group(&key::primary(&self.config.name, &path)));
            }
        }
        let named = group_names(&self.config.name, answer, &CACHE_GROUP_INVALIDATION);
        let all = groups.iter().map(String::as_str).chain(named.iter().map(|group| &**group));
        self.cache.ledger().invalidate_groups(all, Hardness::Hard);
    }
}

/// What is said of what is kept when it is told.
fn hit(stored: &Stored, freshness: Freshness, now_ms: u64) -> CacheStatus {
    let hit = CacheStatus::hit(stored.ttl_ms(now_ms));
    if freshness == Freshness::Fresh { hit } else { hit.stale() }
}

/// Whether a status is one of an origin in trouble.
fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}
