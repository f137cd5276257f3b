//! Asking the origin, and handling its answer: it is stored, it validates a stored response, or it goes only to the client that
//! asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Body;
use hyper::header::HeaderMap;
use hyper::{Method, Response, StatusCode};

use super::deliver::{Delivery, FullAnswer};
use super::fill::{Fill, put_private};
use super::origin::{OriginAnswer, empty};
use super::serve::{Lookup, ReadRequest, Sending};
use super::stored::{Moments, Terms, Verdict, judge};
use super::{Upstream, UpstreamError, UpstreamFailure, UpstreamLeader, conditional};
use weir_cache::{CacheStatus, Forwarded, Generation, LoadResult};
use weir_core::config::Staleness;
use weir_listener::Reply;
use weir_listener::reply::ReplyBody;

/// When the request was sent, and the generation in which the load started.
struct FetchStart {
    at: Moments,
    generation: Generation,
}

/// The head of a response, as clients get it.
struct ResponseHead {
    status: StatusCode,
    headers: HeaderMap,
}

impl Upstream {
    /// Asks the origin for this request alone, because the rule stores nothing.
    pub(super) async fn bypass(&self, request: &ReadRequest, reason: &str) -> Result<Reply, UpstreamFailure> {
        let sent = self.ask(request, request.out.method.clone(), request.out.as_asked()).await;
        let answered = sent.map_err(|error| UpstreamFailure::after(error, Forwarded::Bypass))?;
        let status = CacheStatus::forwarded(Forwarded::Bypass);
        if self.config.class == Some(Staleness::Live) {
            return Ok(self.pass(&request.out, answered, status.because("live"), None));
        }
        Ok(self.pass(&request.out, answered, status.because("rule"), Some(reason)))
    }

    /// Asks the origin, and measures the time, except when the request never reached it.
    async fn ask(
        &self,
        request: &ReadRequest,
        method: Method,
        headers: HeaderMap,
    ) -> Result<OriginAnswer, UpstreamError> {
        let started = Instant::now();
        let sent = self.origin.send((method, &request.out.path), headers, empty(), request.interim.clone()).await;
        if sent.as_ref().map_or_else(|error| error.was_asked(), |_| true) {
            self.ruling.profile().read(started.elapsed());
        }
        sent
    }

    /// Asks the origin. With a `leader` others wait for the response.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        request: ReadRequest,
        lookup: Lookup,
        sending: Sending,
        leader: Option<UpstreamLeader>,
    ) -> Result<Reply, UpstreamFailure> {
        let generation = self.cache.generation();
        let is_for_all = sending == Sending::ForAll;
        let candidate = lookup.stored().filter(|(_, stored, _)| is_for_all && stored.has_validator());
        let (method, mut headers) = match sending {
            // Load the whole, to store it; the stored response then answers the client's conditions.
            Sending::ForAll => (Method::GET, request.out.headers().clone()),
            Sending::AsAsked => (request.out.method.clone(), request.out.as_asked()),
        };
        if let Some((_, stored, _)) = candidate {
            conditional::put_conditions(&mut headers, &stored.headers);
        }
        let request_ms = self.clock.steady_ms();
        let sent = self.ask(&request, method, headers).await;
        let (response_ms, ahead_ms) = (self.clock.steady_ms(), self.clock.ahead_ms());
        let start = FetchStart { at: Moments { request_ms, response_ms, ahead_ms }, generation };
        let answered = match sent {
            Ok(answered) => answered,
            Err(error) => {
                let served = self.serve_on_error(&request, &lookup);
                finish(leader, LoadResult::Failed);
                return served.ok_or(UpstreamFailure::after(error, lookup.why));
            }
        };
        let status = answered.response.status();
        if status == StatusCode::NOT_MODIFIED && candidate.is_some() {
            return Ok(self.validated(&request, &lookup, answered, start, leader));
        }
        if is_failure(status)
            && let Some(reply) = self.serve_on_error(&request, &lookup)
        {
            finish(leader, LoadResult::Failed);
            return Ok(reply);
        }
        if !is_for_all {
            let cache_status =
                CacheStatus { origin_status: Some(status.as_u16()), ..CacheStatus::forwarded(lookup.why) };
            return Ok(self.pass(&request.out, answered, cache_status, None));
        }
        Ok(self.fetched(&request, &lookup, answered, start, leader))
    }

    /// The origin confirms the stored response.
    fn validated(
        &self,
        request: &ReadRequest,
        lookup: &Lookup,
        answered: OriginAnswer,
        start: FetchStart,
        leader: Option<UpstreamLeader>,
    ) -> Reply {
        let (head, _) = answered.response.into_parts();
        let mut fresh = head.headers;
        self.to_client(&request.out, head.version, &mut fresh);
        // The request carried its validators, so there is one.
        let Some((_, stored, _)) = lookup.stored() else { return Response::new(ReplyBody::default()) };
        let headers = conditional::merged(&stored.headers, &fresh);
        let status = CacheStatus { origin_status: Some(304), ..CacheStatus::forwarded(lookup.why) };
        self.ruling.profile().compared(false);
        // The client that asked gets all headers of the origin, also those that are not stored.
        let whole =
            FullAnswer { status: stored.status, headers: headers.clone(), body: Delivery::Whole(stored.body.clone()) };
        match self.judge(request, (stored.status, &headers), start.at) {
            Ok(verdict) => {
                let age_ms = verdict.initial_age_ms;
                let fill = self.fill(request, lookup, ResponseHead { status: stored.status, headers }, verdict, start);
                fill.store(stored.body.clone());
                finish(leader, LoadResult::Cached);
                self.serve_full(request, whole, age_ms, CacheStatus { stored: true, ..status })
            }
            Err(reason) => {
                // An answer to a request with an identity says nothing about the response for all others.
                if !request.out.person.is_known() {
                    self.cache.remove(&lookup.key);
                }
                finish(leader, LoadResult::Private);
                self.serve_full(request, whole, 0, status.because(reason))
            }
        }
    }

    /// The origin sent a new response.
    fn fetched(
        &self,
        request: &ReadRequest,
        lookup: &Lookup,
        answered: OriginAnswer,
        start: FetchStart,
        leader: Option<UpstreamLeader>,
    ) -> Reply {
        let (status, headers) = (answered.response.status(), answered.response.headers());
        let cache_status = CacheStatus { origin_status: Some(status.as_u16()), ..CacheStatus::forwarded(lookup.why) };
        if let Some((_, stored, _)) = lookup.stored() {
            self.ruling.profile().compared(!conditional::is_same(&stored.headers, headers));
        }
        let too_large = answered.response.body().size_hint().lower() > self.config.limits.stored_body_bytes_max;
        let verdict = match self.judge(request, (status, headers), start.at) {
            Ok(_) if too_large => Err("too-large"),
            other => other,
        };
        match verdict {
            Err(reason) => {
                self.not_cached(request, lookup, status, reason, start);
                finish(leader, LoadResult::Private);
                self.pass(&request.out, answered, cache_status.because(reason), None)
            }
            Ok(verdict) => {
                let (mut head, body) = answered.response.into_parts();
                self.to_client(&request.out, head.version, &mut head.headers);
                let length = body.size_hint().exact();
                let is_same =
                    status == StatusCode::OK && conditional::is_not_modified(request.out.own(), &head.headers);
                let response_head = ResponseHead { status, headers: head.headers.clone() };
                let fill = Fill { leader, ..self.fill(request, lookup, response_head, verdict, start) };
                let idle = Duration::from_millis(self.config.limits.body_idle_timeout_ms);
                let follower = fill.run(body, idle, answered.permit);
                let cache_status = CacheStatus { stored: true, ..cache_status };
                let bytes = usize::try_from(length.unwrap_or_default()).unwrap_or(usize::MAX);
                if is_same {
                    let headers = conditional::not_modified_headers(&head.headers);
                    return self.reply(
                        (StatusCode::NOT_MODIFIED, headers),
                        ReplyBody::default(),
                        (cache_status, None),
                        bytes,
                    );
                }
                let body =
                    follower.map(|follower| ReplyBody::stream(follower.into_stream(), length)).unwrap_or_default();
                self.reply((status, head.headers), body, (cache_status, None), bytes)
            }
        }
    }

    /// The response is not stored: for a while such requests need not wait for each other, and an earlier response is dropped.
    /// A response to a request with an identity, with `no-store` or with an error says nothing about the others.
    fn not_cached(
        &self,
        request: &ReadRequest,
        lookup: &Lookup,
        status: StatusCode,
        reason: &'static str,
        start: FetchStart,
    ) {
        let is_wrong = status.is_client_error() || status.is_server_error();
        if reason == "request-no-store" || is_wrong && reason == "no-lifetime" {
            return;
        }
        let (upstream, primary) = (&self.config.name, &request.out.primary);
        put_private(&self.cache, upstream, primary, &lookup.flight_key, start.generation, start.at.response_ms);
        if !is_wrong && !request.out.person.is_known() {
            self.cache.remove(&lookup.key);
        }
    }

    fn fill(
        &self,
        request: &ReadRequest,
        lookup: &Lookup,
        head: ResponseHead,
        verdict: Verdict,
        start: FetchStart,
    ) -> Fill {
        Fill {
            cache: Arc::clone(&self.cache),
            upstream: self.config.name.clone(),
            sent: Arc::clone(&request.out),
            flight_key: lookup.flight_key.clone(),
            status: head.status,
            headers: head.headers,
            verdict,
            at: start.at,
            generation: start.generation,
            leader: None,
            body_bytes_max: self.config.limits.stored_body_bytes_max,
            usage: Arc::clone(self.ruling.usage()),
            named: request.allowance.as_ref().as_ref().map(|allowance| allowance.groups.clone()).unwrap_or_default(),
        }
    }

    /// Whether and for how long a response may be stored.
    fn judge(
        &self,
        request: &ReadRequest,
        response: (StatusCode, &HeaderMap),
        at: Moments,
    ) -> Result<Verdict, &'static str> {
        let Ok(allowance) = &*request.allowance else { return Err("rule") };
        let (person, no_store) = (request.out.person, request.wishes.no_store);
        judge(response, at, Terms { config: &self.config, allowance, person, no_store })
    }
}

fn finish(leader: Option<UpstreamLeader>, result: LoadResult) {
    if let Some(leader) = leader {
        leader.finish(result);
    }
}

/// Whether a status says that the origin has failed.
fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}
