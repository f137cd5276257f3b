//! Asking the origin for what may be kept, and what becomes of its answer: kept, validated, or passed on to the one who
//! asked and to nobody else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Body;
use hyper::header::HeaderMap;
use hyper::{Method, Response, StatusCode};

use super::fill::{Fill, put_unshared};
use super::origin::{Answered, empty};
use super::serve::{Asked, Found, Sending};
use super::stored::{Moments, Terms, Verdict, judge};
use super::tell::{Telling, Whole};
use super::{Upstream, UpstreamError, UpstreamFailure, UpstreamLead, conditional};
use crate::cache::{CacheStatus, Flown, Forwarded, Stamp};
use crate::config::Staleness;
use crate::listener::Reply;
use crate::listener::reply::ReplyBody;

/// When it was asked, and what was invalidated by then.
struct When {
    at: Moments,
    stamp: Stamp,
}

/// The head of an answer, as clients are told it.
struct Told {
    status: StatusCode,
    headers: HeaderMap,
}

impl Upstream {
    /// Asks the origin for this request alone: the rule keeps nothing.
    pub(super) async fn bypass(&self, asked: &Asked, reason: &str) -> Result<Reply, UpstreamFailure> {
        let sent = self.ask(asked, asked.out.method.clone(), asked.out.as_asked()).await;
        let answered = sent.map_err(|error| UpstreamFailure::after(error, Forwarded::Bypass))?;
        let status = CacheStatus::forwarded(Forwarded::Bypass);
        if self.config.class == Some(Staleness::Live) {
            return Ok(self.pass(&asked.out, answered, status.because("live"), None));
        }
        Ok(self.pass(&asked.out, answered, status.because("rule"), Some(reason)))
    }

    /// Asks the origin, and measures how long that takes; what never reached it is no measure.
    async fn ask(&self, asked: &Asked, method: Method, headers: HeaderMap) -> Result<Answered, UpstreamError> {
        let started = Instant::now();
        let sent = self.origin.send((method, &asked.out.path), headers, empty(), asked.interim.clone()).await;
        if sent.as_ref().map_or_else(|error| error.was_asked(), |_| true) {
            self.ruling.profile().read(started.elapsed());
        }
        sent
    }

    /// Asks the origin. With a `lead` others wait for it.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        asked: Asked,
        found: Found,
        sending: Sending,
        lead: Option<UpstreamLead>,
    ) -> Result<Reply, UpstreamFailure> {
        let stamp = self.cache.stamp();
        let is_for_all = sending == Sending::ForAll;
        let candidate = found.stored().filter(|(_, stored, _)| is_for_all && stored.has_validator());
        let (method, mut headers) = match sending {
            // The whole answer is wanted, to be kept; the client's conditions are answered from that.
            Sending::ForAll => (Method::GET, asked.out.headers().clone()),
            Sending::AsAsked => (asked.out.method.clone(), asked.out.as_asked()),
        };
        if let Some((_, stored, _)) = candidate {
            conditional::put_conditions(&mut headers, &stored.headers);
        }
        let request_ms = self.clock.steady_ms();
        let sent = self.ask(&asked, method, headers).await;
        let (response_ms, ahead_ms) = (self.clock.steady_ms(), self.clock.ahead_ms());
        let when = When { at: Moments { request_ms, response_ms, ahead_ms }, stamp };
        let answered = match sent {
            Ok(answered) => answered,
            Err(error) => {
                let told = self.tell_on_error(&asked, &found);
                land(lead, Flown::Failed);
                return told.ok_or(UpstreamFailure::after(error, found.why));
            }
        };
        let status = answered.response.status();
        if status == StatusCode::NOT_MODIFIED && candidate.is_some() {
            return Ok(self.validated(&asked, &found, answered, when, lead));
        }
        if is_failure(status)
            && let Some(reply) = self.tell_on_error(&asked, &found)
        {
            land(lead, Flown::Failed);
            return Ok(reply);
        }
        if !is_for_all {
            let told = CacheStatus { origin_status: Some(status.as_u16()), ..CacheStatus::forwarded(found.why) };
            return Ok(self.pass(&asked.out, answered, told, None));
        }
        Ok(self.fetched(&asked, &found, answered, when, lead))
    }

    /// The origin says that what is kept is still so.
    fn validated(
        &self,
        asked: &Asked,
        found: &Found,
        answered: Answered,
        when: When,
        lead: Option<UpstreamLead>,
    ) -> Reply {
        let (head, _) = answered.response.into_parts();
        let mut fresh = head.headers;
        self.to_client(&asked.out, head.version, &mut fresh);
        // There is one: it was asked about.
        let Some((_, stored, _)) = found.stored() else { return Response::new(ReplyBody::default()) };
        let headers = conditional::merged(&stored.headers, &fresh);
        let status = CacheStatus { origin_status: Some(304), ..CacheStatus::forwarded(found.why) };
        self.ruling.profile().compared(false);
        // The one who asked is told all that the origin says to it, also what is not kept.
        let whole =
            Whole { status: stored.status, headers: headers.clone(), body: Telling::Whole(stored.body.clone()) };
        match self.judge(asked, (stored.status, &headers), when.at) {
            Ok(verdict) => {
                let age_ms = verdict.initial_age_ms;
                let fill = self.fill(asked, found, Told { status: stored.status, headers }, verdict, when);
                fill.keep(stored.body.clone());
                land(lead, Flown::Kept);
                self.tell_whole(asked, whole, age_ms, CacheStatus { stored: true, ..status })
            }
            Err(reason) => {
                // What is said to somebody who says who he is says nothing of what all others are told.
                if !asked.out.person.is_known() {
                    self.cache.remove(&found.key);
                }
                land(lead, Flown::Unshared);
                self.tell_whole(asked, whole, 0, status.because(reason))
            }
        }
    }

    /// The origin has answered anew.
    fn fetched(
        &self,
        asked: &Asked,
        found: &Found,
        answered: Answered,
        when: When,
        lead: Option<UpstreamLead>,
    ) -> Reply {
        let (status, headers) = (answered.response.status(), answered.response.headers());
        let told = CacheStatus { origin_status: Some(status.as_u16()), ..CacheStatus::forwarded(found.why) };
        if let Some((_, stored, _)) = found.stored() {
            self.ruling.profile().compared(!conditional::is_same(&stored.headers, headers));
        }
        let too_large = answered.response.body().size_hint().lower() > self.config.limits.stored_body_bytes_max;
        let verdict = match self.judge(asked, (status, headers), when.at) {
            Ok(_) if too_large => Err("too-large"),
            other => other,
        };
        match verdict {
            Err(reason) => {
                self.unkept(asked, found, status, reason, when);
                land(lead, Flown::Unshared);
                self.pass(&asked.out, answered, told.because(reason), None)
            }
            Ok(verdict) => {
                let (mut head, body) = answered.response.into_parts();
                self.to_client(&asked.out, head.version, &mut head.headers);
                let length = body.size_hint().exact();
                let is_same = status == StatusCode::OK && conditional::is_not_modified(asked.out.own(), &head.headers);
                let head_told = Told { status, headers: head.headers.clone() };
                let fill = Fill { lead, ..self.fill(asked, found, head_told, verdict, when) };
                let idle = Duration::from_millis(self.config.limits.body_idle_timeout_ms);
                let follower = fill.run(body, idle, answered.permit);
                let told = CacheStatus { stored: true, ..told };
                let bytes = usize::try_from(length.unwrap_or_default()).unwrap_or(usize::MAX);
                if is_same {
                    let headers = conditional::not_modified_headers(&head.headers);
                    return self.reply((StatusCode::NOT_MODIFIED, headers), ReplyBody::default(), (told, None), bytes);
                }
                let body =
                    follower.map(|follower| ReplyBody::stream(follower.into_stream(), length)).unwrap_or_default();
                self.reply((status, head.headers), body, (told, None), bytes)
            }
        }
    }

    /// The answer is not kept: those who ask so need not wait for each other for a while, and what was kept before is not so
    /// any more. What is told to one who says who he is, or asks so, or does wrong, says nothing of the others.
    fn unkept(&self, asked: &Asked, found: &Found, status: StatusCode, reason: &'static str, when: When) {
        let is_wrong = status.is_client_error() || status.is_server_error();
        if reason == "request-no-store" || is_wrong && reason == "no-lifetime" {
            return;
        }
        let (upstream, primary) = (&self.config.name, &asked.out.primary);
        put_unshared(&self.cache, upstream, primary, &found.seat, when.stamp, when.at.response_ms);
        if !is_wrong && !asked.out.person.is_known() {
            self.cache.remove(&found.key);
        }
    }

    fn fill(&self, asked: &Asked, found: &Found, head: Told, verdict: Verdict, when: When) -> Fill {
        Fill {
            cache: Arc::clone(&self.cache),
            upstream: self.config.name.clone(),
            sent: Arc::clone(&asked.out),
            seat: found.seat.clone(),
            status: head.status,
            headers: head.headers,
            verdict,
            at: when.at,
            stamp: when.stamp,
            lead: None,
            body_bytes_max: self.config.limits.stored_body_bytes_max,
            usage: Arc::clone(self.ruling.usage()),
            named: asked.allowance.as_ref().as_ref().map(|allowance| allowance.groups.clone()).unwrap_or_default(),
        }
    }

    /// Whether and for how long an answer may be kept.
    fn judge(&self, asked: &Asked, response: (StatusCode, &HeaderMap), at: Moments) -> Result<Verdict, &'static str> {
        let Ok(allowance) = &*asked.allowance else { return Err("rule") };
        let (person, no_store) = (asked.out.person, asked.wishes.no_store);
        judge(response, at, Terms { config: &self.config, allowance, person, no_store })
    }
}

fn land(lead: Option<UpstreamLead>, flown: Flown) {
    if let Some(lead) = lead {
        lead.land(flown);
    }
}

/// Whether a status is one of an origin in trouble.
fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}
