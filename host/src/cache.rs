//! The cache: what was read, for how long it may be told again, and who reads it anew.
//!
//! Tier 2: imports tier 0. Knows neither SQL nor HTTP nor policy: a [`Cache`] holds values of whoever reads, under keys of
//! theirs. In memory, bounded by bytes; `quick_cache` (S3-FIFO) decides what is dropped, an entry's own times decide
//! what is told.
//!
//! - `entry`: a value, its times, and early refresh by chance (XFetch).
//! - [`ledger`]: invalidation by group, key and prefix, shared by all caches of a host, without walking over entries.
//! - `flight`: one reader for a key at a time; the others wait, bounded in number and time.
//! - `profile`: what is measured of a read. [`eligibility`]: who says what may be kept of it. `ruling`: what it says now.
//!   `usage`: what one has in the cache.
//!
//! Never reads anything itself, never tells what an invalidation that came before it has made untrue: also not what was
//! being read when the invalidation came.

pub mod eligibility;
mod entry;
mod flight;
pub mod ledger;
mod profile;
mod ruling;
mod status;
mod usage;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{counter, gauge};
use quick_cache::{DefaultHashBuilder, Lifecycle, Weighter};

use serde::Serialize;

use crate::telemetry::{CACHE_BYTES, CACHE_EVICTIONS_TOTAL};
pub use entry::{Entry, Freshness, Stamp, Times};
use flight::Flights;
pub use flight::{Flown, Lead, Seat, Seen, Wait};
pub use ledger::{Hardness, Ledger, Mark};
pub use profile::{Profile, Totals};
pub use ruling::{Rules, Ruling, RulingState, Subject};
pub use status::{CacheStatus, Forwarded};
pub use usage::Usage;

/// What an entry takes besides its value and key, in bytes: the maps' own share, times, counters.
const ENTRY_OVERHEAD_BYTES: u64 = 192;
/// What an entry is expected to take, in bytes: sizes the maps at start, bounds nothing.
const ENTRY_BYTES_EXPECTED: u64 = 4 << 10;

/// Bounds of a cache.
#[derive(Debug, Clone, Copy)]
pub struct CacheLimits {
    /// Memory of entries, in bytes; beyond, some are dropped.
    pub bytes_max: u64,
    /// Requests that wait for somebody else's read, over all keys; a further one is refused.
    pub waiters_max: usize,
}

/// What a cache holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CacheMemory {
    /// Entries.
    pub entries: usize,
    /// Their memory, in bytes.
    pub bytes: u64,
}

/// Values by key. `S` is what a read shows to those who wait for it while it goes on.
pub struct Cache<V, S = ()> {
    entries: quick_cache::sync::Cache<Box<str>, Arc<Entry<V>>, ByBytes, DefaultHashBuilder, CountEvictions>,
    flights: Flights<S>,
    ledger: Arc<Ledger>,
    name: &'static str,
    bytes_told: AtomicU64,
}

/// Weighs an entry in bytes.
#[derive(Clone)]
struct ByBytes;

impl<V> Weighter<Box<str>, Arc<Entry<V>>> for ByBytes {
    fn weight(&self, key: &Box<str>, entry: &Arc<Entry<V>>) -> u64 {
        entry.bytes.saturating_add(key.len() as u64).saturating_add(ENTRY_OVERHEAD_BYTES)
    }
}

/// Counts what is dropped for room.
#[derive(Clone)]
struct CountEvictions(&'static str);

impl<V> Lifecycle<Box<str>, Arc<Entry<V>>> for CountEvictions {
    type RequestState = ();

    fn begin_request(&self) {}

    fn on_evict(&self, (): &mut (), _key: Box<str>, entry: Arc<Entry<V>>) {
        // The crate calls what is replaced an eviction, too.
        if entry.is_replaced.load(Ordering::Relaxed) {
            return;
        }
        if let Some(share) = &entry.share {
            share.evicted();
        }
        counter!(CACHE_EVICTIONS_TOTAL, "cache" => self.0).increment(1);
    }
}

impl<V: Send + Sync + 'static, S: Clone> Cache<V, S> {
    /// An empty one. `name` is its name in metrics.
    pub fn new(name: &'static str, limits: CacheLimits, ledger: Arc<Ledger>) -> Self {
        let expected = usize::try_from(limits.bytes_max / ENTRY_BYTES_EXPECTED).unwrap_or(usize::MAX).max(64);
        let entries = quick_cache::sync::Cache::with(
            expected,
            limits.bytes_max,
            ByBytes,
            DefaultHashBuilder::default(),
            CountEvictions(name),
        );
        let flights = Flights::new(limits.waiters_max);
        Self { entries, flights, ledger, name, bytes_told: AtomicU64::new(0) }
    }

    /// The entry of `key` and what it is good for at `now_ms`; `None` where there is none, or none that may be told.
    pub fn get(&self, key: &str, now_ms: u64) -> Option<(Arc<Entry<V>>, Freshness)> {
        let entry = self.entries.get(key)?;
        let Some(freshness) = self.judge(key, &entry, now_ms) else {
            self.entries.remove_if(key, |there| Arc::ptr_eq(there, &entry));
            return None;
        };
        Some((entry, freshness))
    }

    /// What an entry is good for at `now_ms` under `key`, whether or not it is there; `None` where it may not be told.
    pub fn judge(&self, key: &str, entry: &Entry<V>, now_ms: u64) -> Option<Freshness> {
        match self.ledger.judge(key, &entry.groups, &entry.stamp) {
            Mark::Good => Some(entry.freshness(now_ms)),
            Mark::Soft => Some(entry.freshness(now_ms).max(Freshness::Stale)),
            Mark::Hard => None,
        }
    }

    /// The moment before a read begins. What is read after it is good until an invalidation that comes later.
    pub fn stamp(&self) -> Stamp {
        self.ledger.stamp()
    }

    /// Keeps an entry, in the place of one of the same key. One that is larger than the cache is not kept.
    pub fn put(&self, key: &str, entry: Entry<V>) -> Arc<Entry<V>> {
        let entry = Arc::new(entry);
        if let Some(before) = self.entries.peek(key) {
            before.is_replaced.store(true, Ordering::Relaxed);
        }
        self.entries.insert(key.into(), Arc::clone(&entry));
        let bytes = self.entries.weight();
        if self.bytes_told.swap(bytes, Ordering::Relaxed) != bytes {
            #[allow(clippy::cast_precision_loss, reason = "a gauge is a float; memory is far below 2^53")]
            gauge!(CACHE_BYTES, "cache" => self.name).set(bytes as f64);
        }
        entry
    }

    /// Drops the entry of `key`.
    pub fn remove(&self, key: &str) {
        self.entries.remove(key);
    }

    /// A place in the reading of `key`: to do it, or to wait for who does.
    pub fn seat(&self, key: &str) -> Seat<S> {
        self.flights.seat(key)
    }

    /// The right to read `key` anew, unless somebody does already.
    pub fn lead(&self, key: &str) -> Option<Lead<S>> {
        match self.flights.seat(key) {
            Seat::Lead(lead) => Some(lead),
            _ => None,
        }
    }

    /// Memory of entries, in bytes.
    pub fn bytes(&self) -> u64 {
        self.entries.weight()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Both.
    pub fn memory(&self) -> CacheMemory {
        CacheMemory { entries: self.len(), bytes: self.bytes() }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The ledger of invalidations.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(bytes_max: u64) -> Cache<u32> {
        Cache::new("test", CacheLimits { bytes_max, waiters_max: 2 }, Arc::new(Ledger::default()))
    }

    fn entry(cache: &Cache<u32>, value: u32, groups: &[&str]) -> Entry<u32> {
        let times = Times { fresh_until_ms: 100, revalidate_until_ms: 200, error_until_ms: 300 };
        Entry::new(value, 100, groups.iter().map(|group| (*group).into()).collect(), cache.stamp(), times, 0)
    }

    #[test]
    fn an_entry_ages() {
        let cache = cache(1 << 20);
        cache.put("a", entry(&cache, 1, &[]));
        let at = |now_ms| cache.get("a", now_ms).map(|(entry, freshness)| (entry.value, freshness));
        assert_eq!(at(99), Some((1, Freshness::Fresh)));
        assert_eq!(at(100), Some((1, Freshness::Stale)));
        assert_eq!(at(200), Some((1, Freshness::OnError)));
        assert_eq!(at(300), Some((1, Freshness::Spent)));
        assert_eq!(cache.get("b", 0).map(|_| ()), None);
    }

    #[test]
    fn what_is_invalidated_is_not_told() {
        let cache = cache(1 << 20);
        let value = |key: &str| cache.get(key, 0).map(|(_, freshness)| freshness);
        let begun_before = entry(&cache, 1, &["table:seat"]);
        cache.ledger().invalidate_groups(["table:seat"], Hardness::Hard);
        cache.put("a", begun_before);
        assert_eq!(value("a"), None, "it was being read when the invalidation came");
        cache.put("a", entry(&cache, 1, &["table:seat"]));
        cache.put("b", entry(&cache, 2, &["table:concert"]));
        assert_eq!(value("a"), Some(Freshness::Fresh));
        cache.ledger().invalidate_groups(["table:seat"], Hardness::Soft);
        assert_eq!(value("a"), Some(Freshness::Stale));
        cache.ledger().invalidate_groups(["table:seat"], Hardness::Hard);
        assert_eq!((value("a"), value("b")), (None, Some(Freshness::Fresh)));
        cache.ledger().invalidate_prefix("b", Hardness::Hard);
        assert_eq!(value("b"), None);
        cache.put("b", entry(&cache, 2, &[]));
        cache.ledger().invalidate_key("b", Hardness::Hard);
        assert_eq!(value("b"), None);
        cache.put("b", entry(&cache, 2, &[]));
        cache.ledger().invalidate_all(Hardness::Hard);
        assert_eq!(value("b"), None);
    }

    #[test]
    fn what_one_read_has_is_counted() {
        let cache = cache(64 << 10);
        let usage = Arc::<Usage>::default();
        let of = |number| entry(&cache, number, &[]).counted(&usage);
        cache.put("a", of(1));
        cache.put("a", of(2));
        assert_eq!((usage.entries(), usage.bytes(), usage.evictions()), (1, 100 + ENTRY_OVERHEAD_BYTES, 0));
        for number in 0..1_000 {
            cache.put(&number.to_string(), of(number));
        }
        assert_eq!(usage.entries(), cache.len() as u64);
        assert!(usage.evictions() > 500 && usage.bytes() <= 64 << 10, "{usage:?}");
    }

    #[test]
    fn memory_is_bounded() {
        let cache = cache(64 << 10);
        for key in 0..10_000 {
            cache.put(&format!("key-{key}"), entry(&cache, key, &[]));
        }
        assert!(cache.bytes() <= 64 << 10, "{}", cache.bytes());
        assert!(cache.len() > 50, "{}", cache.len());
    }

    /// Of a trace in which few keys are asked for often, our weights by bytes cost no more than a point of hit ratio against
    /// the same crate with weights of 1, and memory stays within its bound.
    #[test]
    fn the_hit_ratio_is_that_of_the_eviction_policy() {
        use rand::rngs::StdRng;
        use rand::{RngExt, SeedableRng};

        const KEYS: usize = 20_000;
        const KEPT: u64 = 1_000;
        const BYTES: u64 = 1_024;
        let weights = (1..=KEYS).scan(0.0, |sum, rank| {
            *sum += (rank as f64).powf(-0.9);
            Some(*sum)
        });
        let cumulative: Vec<f64> = weights.collect();
        let total = cumulative[KEYS - 1];
        let mut rng = StdRng::seed_from_u64(7);
        let bytes_max = KEPT * (BYTES + ENTRY_OVERHEAD_BYTES + 8);
        let ours = cache(bytes_max);
        let bare = quick_cache::sync::Cache::<usize, u32>::new(KEPT as usize);
        let (mut hits, mut bare_hits, requests) = (0_u32, 0_u32, 300_000_u32);
        for _ in 0..requests {
            let place: f64 = rng.random::<f64>() * total;
            let key = cumulative.partition_point(|sum| *sum < place).min(KEYS - 1);
            let name = format!("{key:08}");
            if ours.get(&name, 0).is_some() {
                hits += 1;
            } else {
                let times = Times { fresh_until_ms: 100, revalidate_until_ms: 200, error_until_ms: 300 };
                ours.put(&name, Entry::new(1, BYTES, Box::new([]), ours.stamp(), times, 0));
            }
            if bare.get(&key).is_some() {
                bare_hits += 1;
            } else {
                bare.insert(key, 1);
            }
            assert!(ours.bytes() <= bytes_max);
        }
        let percent = |hits: u32| f64::from(hits) * 100.0 / f64::from(requests);
        println!("zipf 0.9: hit ratio {:.2} %, of the bare crate {:.2} %", percent(hits), percent(bare_hits));
        assert!((percent(hits) - percent(bare_hits)).abs() <= 1.0, "{} {}", percent(hits), percent(bare_hits));
    }

    #[tokio::test]
    async fn one_reads_and_the_others_wait_within_bounds() {
        let cache = cache(1 << 20);
        let Seat::Lead(lead) = cache.seat("a") else { panic!("the first one reads") };
        let Seat::Wait(mut first) = cache.seat("a") else { panic!("the second one waits") };
        let Seat::Wait(second) = cache.seat("a") else { panic!("the third one waits") };
        assert!(matches!(cache.seat("a"), Seat::Full), "two may wait");
        assert!(cache.lead("a").is_none() && cache.lead("b").is_some());
        lead.land(Flown::Kept);
        assert_eq!(first.landed().await, Flown::Kept);
        drop((first, second));
        let Seat::Lead(lead) = cache.seat("a") else { panic!("it has landed") };
        let Seat::Wait(mut waits) = cache.seat("a") else { panic!("waits") };
        drop(lead);
        assert_eq!(waits.landed().await, Flown::Lost, "who was dropped has read nothing");
    }

    #[tokio::test]
    async fn what_comes_is_shown_to_those_who_wait() {
        let limits = CacheLimits { bytes_max: 1 << 20, waiters_max: 9 };
        let cache = Cache::<u32, &str>::new("test", limits, Arc::new(Ledger::default()));
        let Seat::Lead(lead) = cache.seat("a") else { panic!("reads") };
        let Seat::Wait(mut early) = cache.seat("a") else { panic!("waits") };
        lead.show("half");
        let Seat::Wait(mut late) = cache.seat("a") else { panic!("waits") };
        assert!(early.is_early() && !late.is_early());
        assert!(matches!(early.seen().await, Seen::Coming("half")));
        assert!(matches!(late.seen().await, Seen::Coming("half")));
        late.unseat();
        let Seat::Lead(anew) = cache.seat("a") else { panic!("what comes is not good for it") };
        lead.land(Flown::Kept);
        assert_eq!(early.landed().await, Flown::Kept);
        assert!(matches!(cache.seat("a"), Seat::Wait(_)), "it leaves no seat but its own");
        drop(anew);
        assert!(matches!(cache.seat("a"), Seat::Lead(_)));
    }

    #[tokio::test]
    async fn a_wait_in_vain_ends_in_no_herd() {
        use futures_util::FutureExt;

        let cache: Cache<u32> =
            Cache::new("test", CacheLimits { bytes_max: 1 << 20, waiters_max: 100 }, Arc::new(Ledger::default()));
        let Seat::Lead(lead) = cache.seat("a") else { panic!("reads") };
        let waits: Vec<_> = (0..100).map(|_| cache.seat("a")).collect();
        let waits: Vec<Wait> = waits
            .into_iter()
            .map(|seat| match seat {
                Seat::Wait(wait) => wait,
                _ => panic!("waits"),
            })
            .collect();
        lead.land(Flown::Unshared);
        let (mut left, mut rounds) = (&waits[..], Vec::new());
        while !left.is_empty() {
            let turns: Vec<_> = left.iter().map_while(|wait| wait.turn().now_or_never()).collect();
            left = &left[turns.len()..];
            rounds.push(turns.len());
        }
        assert_eq!(rounds, [4, 8, 16, 32, 40], "each that has its answer lets a few more go");
    }
}
