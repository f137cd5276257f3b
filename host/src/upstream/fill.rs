//! Keeping a response while it is passed on: the body goes to the client and into memory, and into the cache only when it
//! has come whole. Goes on when the client has left, because others may wait; gives up keeping what grows too large.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::key;
use super::origin::next_piece;
use super::outgoing::Outgoing;
use super::stored::{Kept, Moments, Stored, Verdict, groups};
use crate::cache::{Cache, Entry, Flown, Lead, Stamp, Times, Usage};
use crate::listener::reply::Piece;

/// Pieces of a body that wait for a client while it is being kept: their bytes are bounded by what is kept.
const PIECES_MAX: usize = 8_192;
/// Pieces that wait once it is no longer kept.
const PIECES_PASSING: usize = 8;
/// What a header takes besides its bytes.
const HEADER_OVERHEAD_BYTES: usize = 64;

/// What is known of a response when its head has come.
pub(super) struct Fill {
    pub(super) cache: Arc<Cache<Kept>>,
    pub(super) upstream: String,
    /// What was sent: the key is made of it.
    pub(super) sent: Arc<Outgoing>,
    /// Whose place it was read at.
    pub(super) seat: String,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) verdict: Verdict,
    pub(super) at: Moments,
    /// Two: a response that varies takes two entries.
    pub(super) stamps: (Stamp, Stamp),
    pub(super) lead: Option<Lead>,
    pub(super) body_bytes_max: u64,
    /// Counts what is kept.
    pub(super) usage: Arc<Usage>,
    /// Groups that the rule names.
    pub(super) named: Vec<String>,
}

impl Fill {
    /// Passes the body on through the returned channel, and keeps it.
    pub(super) fn run(self, body: Incoming, idle: Duration, permit: OwnedSemaphorePermit) -> mpsc::Receiver<Piece> {
        let (pieces, taken) = mpsc::channel(PIECES_MAX);
        tokio::spawn(self.pump(body, idle, permit, pieces));
        taken
    }

    async fn pump(
        mut self,
        mut body: Incoming,
        idle: Duration,
        permit: OwnedSemaphorePermit,
        pieces: mpsc::Sender<Piece>,
    ) {
        let mut whole = BytesMut::new();
        loop {
            match next_piece(&mut body, idle).await {
                None => break,
                Some(Err(cut)) => {
                    if let Some(lead) = self.lead.take() {
                        lead.land(Flown::Failed);
                    }
                    let _ = pieces.send(Err(cut)).await;
                    return;
                }
                Some(Ok(bytes)) => {
                    if (whole.len() + bytes.len()) as u64 > self.body_bytes_max {
                        self.give_up();
                        drop(whole);
                        return pass(bytes, body, idle, permit, pieces).await;
                    }
                    whole.extend_from_slice(&bytes);
                    // An error means that the client has left: others may still want it.
                    let _ = pieces.send(Ok(bytes)).await;
                }
            }
        }
        let lead = self.lead.take();
        self.keep(whole.freeze());
        if let Some(lead) = lead {
            lead.land(Flown::Kept);
        }
        // The client learns of the end when whoever comes next finds it.
        drop(pieces);
    }

    /// It is too large: those who wait read for themselves.
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

    /// Puts it into the cache.
    pub(super) fn keep(self, body: Bytes) -> Arc<Entry<Kept>> {
        let Self { cache, upstream, sent, status, mut headers, verdict, at, stamps, named, usage, .. } = self;
        for field in &verdict.fields {
            headers.remove(field.as_str());
        }
        headers.remove(hyper::header::AGE);
        let mut groups = groups(&upstream, &headers);
        groups.push(key::uri_group(&sent.primary).into());
        groups.push(upstream_group(&upstream));
        groups.extend(named.into_iter().map(String::into_boxed_str));
        let groups = groups.into_boxed_slice();
        let bytes = body.len() + headers_bytes(&headers);
        let cost_ms = at.response_ms.saturating_sub(at.request_ms);
        let stored = Stored {
            status,
            headers,
            body,
            response_ms: at.response_ms,
            initial_age_ms: verdict.initial_age_ms,
            lifetime_ms: verdict.lifetime_ms,
            no_cache: verdict.no_cache,
            strict: verdict.strict,
            for_strangers: verdict.for_strangers,
            held_until_ms: AtomicU64::new(0),
        };
        let mut place = sent.key.clone();
        if !verdict.vary.is_empty() {
            place = key::variant(&sent.key, &verdict.vary, sent.headers());
            put_vary(&cache, &sent.key, verdict.vary, groups.clone(), stamps.1, verdict.times);
        }
        let value = Kept::Response(Box::new(stored));
        cache.put(&place, Entry::new(value, bytes as u64, groups, stamps.0, verdict.times, cost_ms).counted(&usage))
    }
}

fn put_vary(
    cache: &Cache<Kept>,
    key: &str,
    vary: Vec<HeaderName>,
    groups: Box<[Box<str>]>,
    stamp: Stamp,
    times: Times,
) {
    let bytes = vary.iter().map(|name| name.as_str().len()).sum::<usize>() as u64;
    cache.put(key, Entry::new(Kept::Vary(vary.into_boxed_slice()), bytes, groups, stamp, times, 0));
}

/// How long it is remembered that a response was not to be kept.
const UNSHARED_MS: u64 = 5_000;

/// Remembers that a response was not to be kept, so that those who ask for it do not wait for each other.
pub(super) fn put_unshared(cache: &Cache<Kept>, upstream: &str, primary: &str, seat: &str, stamp: Stamp, now_ms: u64) {
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

/// Passes the rest of a body on that is no longer kept.
async fn pass(
    first: Bytes,
    mut body: Incoming,
    idle: Duration,
    permit: OwnedSemaphorePermit,
    pieces: mpsc::Sender<Piece>,
) {
    let mut piece = Some(Ok(first));
    while let Some(given) = piece {
        let is_end = given.is_err();
        // Waits until few pieces are left; all but one place are given back.
        let Ok(mut places) = pieces.reserve_many(PIECES_MAX - PIECES_PASSING).await else { return };
        if let Some(place) = places.next() {
            place.send(given);
        }
        drop(places);
        if is_end {
            return;
        }
        piece = next_piece(&mut body, idle).await;
    }
    drop(permit);
}
