//! Keeping a response while it is told: the body grows for all who follow it, and goes into the cache only when it has come
//! whole. Goes on when the client has left, because others may wait; gives up keeping what grows too large.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use hyper::header::{HeaderMap, HeaderName};
use tokio::sync::OwnedSemaphorePermit;

use super::growing::{Follower, Growing, Source};
use super::origin::next_piece;
use super::outgoing::Outgoing;
use super::stored::{Kept, Moments, Stored, Verdict, groups};
use super::{Responses, UpstreamLead, key};
use crate::cache::{Entry, Flown, Stamp, Times, Usage};
use crate::telemetry::request;

/// What a header takes besides its bytes.
const HEADER_OVERHEAD_BYTES: usize = 64;

/// A response of which the head has come.
#[derive(Clone)]
pub(super) struct Coming {
    /// As it will be kept, but for its body.
    pub(super) entry: Arc<Entry<Kept>>,
    /// The key that it will be kept under.
    pub(super) place: Arc<str>,
    /// Names of request headers that it depends on.
    pub(super) vary: Arc<[HeaderName]>,
    pub(super) body: Arc<Growing>,
}

/// What is known of a response when its head has come.
pub(super) struct Fill {
    pub(super) cache: Arc<Responses>,
    pub(super) upstream: String,
    /// What was sent: the key is made of it.
    pub(super) sent: Arc<Outgoing>,
    /// Whose place it was read at.
    pub(super) seat: String,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) verdict: Verdict,
    pub(super) at: Moments,
    /// From before it was asked for.
    pub(super) stamp: Stamp,
    pub(super) lead: Option<UpstreamLead>,
    pub(super) body_bytes_max: u64,
    /// Counts what is kept.
    pub(super) usage: Arc<Usage>,
    /// Groups that the rule names.
    pub(super) named: Vec<String>,
}

impl Coming {
    /// Whether it is the answer to this request, too, as far as the request's headers decide that.
    pub(super) fn is_for(&self, sent: &Outgoing) -> bool {
        if self.vary.is_empty() { *sent.key == *self.place } else { variant(sent, &self.vary) == *self.place }
    }
}

impl Fill {
    /// Tells the body to the one who asked, and to all who join, and keeps it.
    pub(super) fn run(self, body: Incoming, idle: Duration, permit: OwnedSemaphorePermit) -> Option<Follower> {
        let (source, growing) = Growing::begin(body.size_hint().exact());
        let follower = growing.follow();
        if let Some(lead) = &self.lead {
            self.show(lead, growing);
        }
        tokio::spawn(request::carry(self.pump(body, idle, permit, source)));
        follower
    }

    /// Those who wait may be told what comes.
    fn show(&self, lead: &UpstreamLead, body: Arc<Growing>) {
        let vary = &self.verdict.vary;
        let is_response = |key: &str| {
            let found = self.cache.get(key, self.at.response_ms);
            found.is_some_and(|(entry, _)| matches!(entry.value, Kept::Response(_)))
        };
        // Those who wait for other variants begin to ask for them now. What is kept without variants stays as long as it may
        // be needed.
        if !vary.is_empty() && !is_response(&self.sent.key) {
            self.put_vary(self.groups());
        }
        lead.show(Coming {
            entry: Arc::new(self.entry(Bytes::new())),
            place: self.place().into(),
            vary: vary.clone().into(),
            body,
        });
    }

    async fn pump(mut self, mut body: Incoming, idle: Duration, permit: OwnedSemaphorePermit, source: Source) {
        loop {
            match next_piece(&mut body, idle).await {
                None => break,
                Some(Err(cut)) => {
                    if let Some(lead) = self.lead.take() {
                        lead.land(Flown::Failed);
                    }
                    return source.end(Err(cut));
                }
                Some(Ok(bytes)) => {
                    if source.push(bytes) > self.body_bytes_max {
                        self.give_up();
                        source.pass();
                        return pass(body, idle, permit, source).await;
                    }
                }
            }
        }
        let lead = self.lead.take();
        let whole = source.whole();
        self.keep(whole.clone());
        if let Some(lead) = lead {
            lead.land(Flown::Kept);
        }
        // The client learns of the end when whoever comes next finds it.
        source.finish(whole);
    }

    /// It is too large: those who follow it go on, whoever comes now reads for himself.
    fn give_up(&mut self) {
        put_unshared(
            &self.cache,
            &self.upstream,
            &self.sent.primary,
            &self.seat,
            self.cache.stamp(),
            self.at.response_ms,
        );
        if let Some(lead) = self.lead.take() {
            lead.land(Flown::Unshared);
        }
    }

    /// Puts it into the cache, unless it was invalidated while it came, or something newer is there.
    pub(super) fn keep(&self, body: Bytes) {
        let (place, entry) = (self.place(), self.entry(body));
        let now_ms = self.at.response_ms;
        let is_newer = |entry: &Entry<Kept>| matches!(&entry.value, Kept::Response(stored) if stored.response_ms > self.at.response_ms);
        if self.cache.judge(&place, &entry, now_ms).is_none()
            || self.cache.get(&place, now_ms).is_some_and(|(there, _)| is_newer(&there))
        {
            return;
        }
        if !self.verdict.vary.is_empty() {
            self.put_vary(self.groups());
        }
        self.cache.put(&place, entry.counted(&self.usage));
    }

    fn entry(&self, body: Bytes) -> Entry<Kept> {
        let mut headers = self.headers.clone();
        for field in &self.verdict.fields {
            headers.remove(field.as_str());
        }
        headers.remove(hyper::header::AGE);
        let bytes = body.len() + headers_bytes(&headers);
        let cost_ms = self.at.response_ms.saturating_sub(self.at.request_ms);
        let stored = Stored {
            status: self.status,
            headers,
            body,
            response_ms: self.at.response_ms,
            initial_age_ms: self.verdict.initial_age_ms,
            lifetime_ms: self.verdict.lifetime_ms,
            no_cache: self.verdict.no_cache,
            strict: self.verdict.strict,
            for_strangers: self.verdict.for_strangers,
            held_until_ms: AtomicU64::new(0),
        };
        let (stamp, times) = (self.stamp.clone(), self.verdict.times);
        Entry::new(Kept::Response(Box::new(stored)), bytes as u64, self.groups(), stamp, times, cost_ms)
    }

    fn groups(&self) -> Box<[Box<str>]> {
        let mut groups = groups(&self.upstream, &self.headers);
        groups.push(key::uri_group(&self.sent.primary).into());
        groups.push(upstream_group(&self.upstream));
        groups.extend(self.named.iter().map(|group| group.as_str().into()));
        groups.into_boxed_slice()
    }

    /// The key that it is kept under.
    fn place(&self) -> String {
        variant(&self.sent, &self.verdict.vary)
    }

    fn put_vary(&self, groups: Box<[Box<str>]>) {
        let vary = self.verdict.vary.clone().into_boxed_slice();
        let bytes = vary.iter().map(|name| name.as_str().len()).sum::<usize>() as u64;
        let (stamp, times) = (self.stamp.clone(), self.verdict.times);
        self.cache.put(&self.sent.key, Entry::new(Kept::Vary(vary), bytes, groups, stamp, times, 0));
    }
}

/// The key of a response that depends on these headers, for this request.
fn variant(sent: &Outgoing, vary: &[HeaderName]) -> String {
    if vary.is_empty() { sent.key.clone() } else { key::variant(&sent.key, vary, sent.headers()) }
}

/// How long it is remembered that a response was not to be kept.
const UNSHARED_MS: u64 = 5_000;

/// Remembers that a response was not to be kept, so that those who ask for it do not wait for each other.
pub(super) fn put_unshared(cache: &Responses, upstream: &str, primary: &str, seat: &str, stamp: Stamp, now_ms: u64) {
    let until_ms = now_ms + UNSHARED_MS;
    let times = Times { fresh_until_ms: until_ms, revalidate_until_ms: until_ms, error_until_ms: until_ms };
    let groups = Box::new([key::uri_group(primary).into(), upstream_group(upstream)]);
    cache.put(seat, Entry::new(Kept::Unshared, 0, groups, stamp, times, 0));
}

/// The group of everything of an upstream.
pub(super) fn upstream_group(upstream: &str) -> Box<str> {
    format!("upstream:{upstream}").into()
}

fn headers_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD_BYTES).sum()
}

/// Tells the rest of a body that is no longer kept, for as long as anybody follows it.
async fn pass(mut body: Incoming, idle: Duration, permit: OwnedSemaphorePermit, source: Source) {
    while source.room(idle).await {
        match next_piece(&mut body, idle).await {
            Some(Ok(bytes)) => drop(source.push(bytes)),
            Some(Err(cut)) => return source.end(Err(cut)),
            None => {
                drop(permit);
                return source.end(Ok(()));
            }
        }
    }
}
