//! Storing a response while it is served: the body grows for all followers, and enters the cache only when it is complete. The
//! fill continues when the client has left, because others may wait; it gives up storing a body that grows too large.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use hyper::header::{HeaderMap, HeaderName};
use tokio::sync::OwnedSemaphorePermit;

use super::origin::next_piece;
use super::outgoing::Outgoing;
use super::shared_body::{BodySource, Follower, SharedBody};
use super::stored::{Cached, Moments, Stored, Verdict, groups};
use super::{Responses, UpstreamLeader, key};
use weir_cache::{Entry, Generation, LoadResult, Times, Usage};
use weir_core::telemetry::request;

/// Memory of a header besides its bytes.
const HEADER_OVERHEAD_BYTES: usize = 64;

/// A response whose head has arrived.
#[derive(Clone)]
pub(super) struct InFlight {
    /// As it will be stored, but without its body.
    pub(super) entry: Arc<Entry<Cached>>,
    /// The key that it will be stored under.
    pub(super) key: Arc<str>,
    /// Names of the request headers that it depends on.
    pub(super) vary: Arc<[HeaderName]>,
    pub(super) body: Arc<SharedBody>,
}

/// Everything that is needed to store a response, once its head has arrived.
pub(super) struct Fill {
    pub(super) cache: Arc<Responses>,
    pub(super) upstream: String,
    /// The request as it was sent: the key is made of it.
    pub(super) sent: Arc<Outgoing>,
    /// The key of the single flight that loads it.
    pub(super) flight_key: String,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) verdict: Verdict,
    pub(super) at: Moments,
    /// From before the request.
    pub(super) generation: Generation,
    pub(super) leader: Option<UpstreamLeader>,
    pub(super) body_bytes_max: u64,
    /// Counts stored responses.
    pub(super) usage: Arc<Usage>,
    /// The groups that the rule names.
    pub(super) named: Vec<String>,
}

impl InFlight {
    /// Whether it answers this request, too, as far as the request's headers decide that.
    pub(super) fn is_for(&self, sent: &Outgoing) -> bool {
        if self.vary.is_empty() { *sent.key == *self.key } else { variant(sent, &self.vary) == *self.key }
    }
}

impl Fill {
    /// Streams the body to the client that asked and to all followers, and stores it.
    pub(super) fn run(self, body: Incoming, idle: Duration, permit: OwnedSemaphorePermit) -> Option<Follower> {
        let (source, shared) = SharedBody::begin(body.size_hint().exact());
        let follower = shared.follow();
        if let Some(leader) = &self.leader {
            self.publish(leader, shared);
        }
        tokio::spawn(request::carry(self.pump(body, idle, permit, source)));
        follower
    }

    /// Waiters may follow the response from now on.
    fn publish(&self, leader: &UpstreamLeader, body: Arc<SharedBody>) {
        let vary = &self.verdict.vary;
        let is_response = |key: &str| {
            let lookup = self.cache.get(key, self.at.response_ms);
            lookup.is_some_and(|(entry, _)| matches!(entry.value, Cached::Response(_)))
        };
        // Waiters for other variants start loads of their own now. A response that was stored without variants stays as long as
        // it may be needed.
        if !vary.is_empty() && !is_response(&self.sent.key) {
            self.put_vary(self.groups());
        }
        leader.publish(InFlight {
            entry: Arc::new(self.entry(Bytes::new())),
            key: self.key().into(),
            vary: vary.clone().into(),
            body,
        });
    }

    async fn pump(mut self, mut body: Incoming, idle: Duration, permit: OwnedSemaphorePermit, source: BodySource) {
        loop {
            match next_piece(&mut body, idle).await {
                None => break,
                Some(Err(cut)) => {
                    if let Some(leader) = self.leader.take() {
                        leader.finish(LoadResult::Failed);
                    }
                    return source.end(Err(cut));
                }
                Some(Ok(bytes)) => {
                    if source.push(bytes) > self.body_bytes_max {
                        self.give_up();
                        source.set_oversized();
                        return pass(body, idle, permit, source).await;
                    }
                }
            }
        }
        let leader = self.leader.take();
        let whole = source.whole();
        self.store(whole.clone());
        if let Some(leader) = leader {
            leader.finish(LoadResult::Cached);
        }
        // End the stream last: when the client sees the end, the next request finds the response in the cache.
        source.finish(whole);
    }

    /// The body is too large: followers go on, later requests load for themselves.
    fn give_up(&mut self) {
        put_private(
            &self.cache,
            &self.upstream,
            &self.sent.primary,
            &self.flight_key,
            self.cache.generation(),
            self.at.response_ms,
        );
        if let Some(leader) = self.leader.take() {
            leader.finish(LoadResult::Private);
        }
    }

    /// Stores the response, unless it was invalidated while it arrived, or a newer one is in the cache.
    pub(super) fn store(&self, body: Bytes) {
        let (key, entry) = (self.key(), self.entry(body));
        let now_ms = self.at.response_ms;
        let is_newer = |entry: &Entry<Cached>| matches!(&entry.value, Cached::Response(stored) if stored.response_ms > self.at.response_ms);
        if self.cache.check(&key, &entry, now_ms).is_none()
            || self.cache.get(&key, now_ms).is_some_and(|(there, _)| is_newer(&there))
        {
            return;
        }
        if !self.verdict.vary.is_empty() {
            self.put_vary(self.groups());
        }
        self.cache.put(&key, entry.counted(&self.usage));
    }

    fn entry(&self, body: Bytes) -> Entry<Cached> {
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
            anonymous_only: self.verdict.anonymous_only,
            backoff_until_ms: AtomicU64::new(0),
        };
        let (generation, times) = (self.generation.clone(), self.verdict.times);
        Entry::new(Cached::Response(Box::new(stored)), bytes as u64, self.groups(), generation, times, cost_ms)
    }

    fn groups(&self) -> Box<[Box<str>]> {
        let mut groups = groups(&self.upstream, &self.headers);
        groups.push(key::uri_group(&self.sent.primary).into());
        groups.push(upstream_group(&self.upstream));
        groups.extend(self.named.iter().map(|group| group.as_str().into()));
        groups.into_boxed_slice()
    }

    /// The key that it is stored under.
    fn key(&self) -> String {
        variant(&self.sent, &self.verdict.vary)
    }

    fn put_vary(&self, groups: Box<[Box<str>]>) {
        let vary = self.verdict.vary.clone().into_boxed_slice();
        let bytes = vary.iter().map(|name| name.as_str().len()).sum::<usize>() as u64;
        let (generation, times) = (self.generation.clone(), self.verdict.times);
        self.cache.put(&self.sent.key, Entry::new(Cached::Vary(vary), bytes, groups, generation, times, 0));
    }
}

/// The key of a response that depends on these headers, for this request.
fn variant(sent: &Outgoing, vary: &[HeaderName]) -> String {
    if vary.is_empty() { sent.key.clone() } else { key::variant(&sent.key, vary, sent.headers()) }
}

/// How long the cache remembers that a response may not be stored, in milliseconds.
const PRIVATE_MS: u64 = 5_000;

/// Remembers that a response may not be stored, so that requests for it do not wait for each other.
pub(super) fn put_private(
    cache: &Responses,
    upstream: &str,
    primary: &str,
    flight_key: &str,
    generation: Generation,
    now_ms: u64,
) {
    let until_ms = now_ms + PRIVATE_MS;
    let times = Times { fresh_until_ms: until_ms, revalidate_until_ms: until_ms, error_until_ms: until_ms };
    let groups = Box::new([key::uri_group(primary).into(), upstream_group(upstream)]);
    cache.put(flight_key, Entry::new(Cached::Private, 0, groups, generation, times, 0));
}

/// The group of all responses of an upstream.
pub(super) fn upstream_group(upstream: &str) -> Box<str> {
    format!("upstream:{upstream}").into()
}

fn headers_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD_BYTES).sum()
}

/// Streams the rest of a body that is no longer stored, as long as it has followers.
async fn pass(mut body: Incoming, idle: Duration, permit: OwnedSemaphorePermit, source: BodySource) {
    while source.wait_for_slowest(idle).await {
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
