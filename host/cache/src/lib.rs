//! The cache: values that were read, how long they may be served, and which request reads them again.
//!
//! Uses `weir-core` alone. Knows neither SQL nor HTTP nor policy: callers load the values of a [`Cache`] and choose their keys.
//! Entries are in memory, bounded by bytes; `quick_cache` (S3-FIFO) evicts, an entry's own times decide how long it is served.
//!
//! - `entry`: a value, its times, and early refresh by chance (XFetch).
//! - [`invalidation`]: the invalidation log, by group, key and prefix, shared by all caches of a host.
//! - `single_flight`: one load of a key at a time; the other callers wait, bounded in number and time.
//! - `profile`: the measurements of a read. [`eligibility`]: the rule for what may be cached. `ruling`: the rule now.
//!   `usage`: one read's share of the cache.
//!
//! The cache loads nothing itself, and never serves an entry whose read started before its invalidation.

pub mod eligibility;
mod entry;
pub mod invalidation;
mod profile;
mod ruling;
mod single_flight;
mod status;
mod usage;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{counter, gauge};
use quick_cache::{DefaultHashBuilder, Lifecycle, Weighter};

pub use entry::{Entry, Freshness, Generation, Times};
pub use invalidation::{InvalidationLog, PurgeMode, Validity};
pub use profile::{Profile, Totals};
pub use ruling::{Rules, Ruling, Subject};
use single_flight::SingleFlight;
pub use single_flight::{Join, Leader, LoadResult, Progress, Waiter};
pub use status::{CacheStatus, Forwarded};
pub use usage::Usage;
use weir_core::operators::CacheMemory;
use weir_core::telemetry::{CACHE_BYTES, CACHE_EVICTIONS_TOTAL};

/// Memory of an entry besides its value and key, in bytes: the maps' own share, times, counters.
const ENTRY_OVERHEAD_BYTES: u64 = 192;
/// Expected memory of an entry, in bytes: sizes the maps at start, bounds nothing.
const ENTRY_BYTES_EXPECTED: u64 = 4 << 10;

/// Bounds of a cache.
#[derive(Debug, Clone, Copy)]
pub struct CacheLimits {
    /// Most memory of entries, in bytes; beyond, some are evicted.
    pub bytes_max: u64,
    /// Most requests that wait for another request's load, over all keys; a further one is refused.
    pub waiters_max: usize,
}

/// Values by key. `S` is what a load publishes to its waiters while it goes on.
pub struct Cache<V, S = ()> {
    entries: quick_cache::sync::Cache<Box<str>, Arc<Entry<V>>, ByBytes, DefaultHashBuilder, CountEvictions>,
    single_flight: SingleFlight<S>,
    invalidations: Arc<InvalidationLog>,
    name: &'static str,
    bytes_reported: AtomicU64,
}

/// Weighs an entry in bytes.
#[derive(Clone)]
struct ByBytes;

impl<V> Weighter<Box<str>, Arc<Entry<V>>> for ByBytes {
    fn weight(&self, key: &Box<str>, entry: &Arc<Entry<V>>) -> u64 {
        entry.bytes.saturating_add(key.len() as u64).saturating_add(ENTRY_OVERHEAD_BYTES)
    }
}

/// Counts evictions.
#[derive(Clone)]
struct CountEvictions(&'static str);

impl<V> Lifecycle<Box<str>, Arc<Entry<V>>> for CountEvictions {
    type RequestState = ();

    fn begin_request(&self) {}

    fn on_evict(&self, (): &mut (), _key: Box<str>, entry: Arc<Entry<V>>) {
        // The crate also reports a replaced entry as evicted.
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
    pub fn new(name: &'static str, limits: CacheLimits, invalidations: Arc<InvalidationLog>) -> Self {
        let expected = usize::try_from(limits.bytes_max / ENTRY_BYTES_EXPECTED).unwrap_or(usize::MAX).max(64);
        let entries = quick_cache::sync::Cache::with(
            expected,
            limits.bytes_max,
            ByBytes,
            DefaultHashBuilder::default(),
            CountEvictions(name),
        );
        let single_flight = SingleFlight::new(limits.waiters_max);
        Self { entries, single_flight, invalidations, name, bytes_reported: AtomicU64::new(0) }
    }

    /// The entry of `key` and its freshness at `now_ms`; `None` where there is none, or none that may be served.
    pub fn get(&self, key: &str, now_ms: u64) -> Option<(Arc<Entry<V>>, Freshness)> {
        let entry = self.entries.get(key)?;
        let Some(freshness) = self.check(key, &entry, now_ms) else {
            self.entries.remove_if(key, |there| Arc::ptr_eq(there, &entry));
            return None;
        };
        Some((entry, freshness))
    }

    /// The freshness of an entry at `now_ms` under `key`, whether or not it is in the cache; `None` where it may not be served.
    pub fn check(&self, key: &str, entry: &Entry<V>, now_ms: u64) -> Option<Freshness> {
        match self.invalidations.check(key, &entry.groups, &entry.generation) {
            Validity::Valid => Some(entry.freshness(now_ms)),
            Validity::Stale => Some(entry.freshness(now_ms).max(Freshness::Stale)),
            Validity::Invalid => None,
        }
    }

    /// The generation before a read starts. The result of a read that starts after it is valid until a later invalidation.
    pub fn generation(&self) -> Generation {
        self.invalidations.generation()
    }

    /// Caches an entry, and replaces the one of the same key. An entry that is larger than the cache is not cached.
    pub fn put(&self, key: &str, entry: Entry<V>) -> Arc<Entry<V>> {
        let entry = Arc::new(entry);
        if let Some(before) = self.entries.peek(key) {
            before.is_replaced.store(true, Ordering::Relaxed);
        }
        self.entries.insert(key.into(), Arc::clone(&entry));
        let bytes = self.entries.weight();
        if self.bytes_reported.swap(bytes, Ordering::Relaxed) != bytes {
            #[allow(clippy::cast_precision_loss, reason = "a gauge is a float; memory is far below 2^53")]
            gauge!(CACHE_BYTES, "cache" => self.name).set(bytes as f64);
        }
        entry
    }

    /// Drops the entry of `key`.
    pub fn remove(&self, key: &str) {
        self.entries.remove(key);
    }

    /// Joins the load of `key`: as its leader, or as a waiter.
    pub fn join(&self, key: &str) -> Join<S> {
        self.single_flight.join(key)
    }

    /// Becomes the leader of a load of `key`, unless a load is in flight.
    pub fn try_lead(&self, key: &str) -> Option<Leader<S>> {
        match self.single_flight.join(key) {
            Join::Leader(leader) => Some(leader),
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

    /// Number of entries and their memory.
    pub fn memory(&self) -> CacheMemory {
        CacheMemory { entries: self.len(), bytes: self.bytes() }
    }

    /// Whether the cache has no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The invalidation log.
    pub fn invalidations(&self) -> &Arc<InvalidationLog> {
        &self.invalidations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(bytes_max: u64) -> Cache<u32> {
        Cache::new("test", CacheLimits { bytes_max, waiters_max: 2 }, Arc::new(InvalidationLog::default()))
    }

    fn entry(cache: &Cache<u32>, value: u32, groups: &[&str]) -> Entry<u32> {
        let times = Times { fresh_until_ms: 100, revalidate_until_ms: 200, error_until_ms: 300 };
        Entry::new(value, 100, groups.iter().map(|group| (*group).into()).collect(), cache.generation(), times, 0)
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
    fn an_invalidated_entry_is_not_served() {
        let cache = cache(1 << 20);
        let value = |key: &str| cache.get(key, 0).map(|(_, freshness)| freshness);
        let begun_before = entry(&cache, 1, &["table:seat"]);
        cache.invalidations().invalidate_groups(["table:seat"], PurgeMode::Hard);
        cache.put("a", begun_before);
        assert_eq!(value("a"), None, "it was being read when the invalidation came");
        cache.put("a", entry(&cache, 1, &["table:seat"]));
        cache.put("b", entry(&cache, 2, &["table:concert"]));
        assert_eq!(value("a"), Some(Freshness::Fresh));
        cache.invalidations().invalidate_groups(["table:seat"], PurgeMode::Soft);
        assert_eq!(value("a"), Some(Freshness::Stale));
        cache.invalidations().invalidate_groups(["table:seat"], PurgeMode::Hard);
        assert_eq!((value("a"), value("b")), (None, Some(Freshness::Fresh)));
        cache.invalidations().invalidate_prefix("b", PurgeMode::Hard);
        assert_eq!(value("b"), None);
        cache.put("b", entry(&cache, 2, &[]));
        cache.invalidations().invalidate_key("b", PurgeMode::Hard);
        assert_eq!(value("b"), None);
        cache.put("b", entry(&cache, 2, &[]));
        cache.invalidations().invalidate_all(PurgeMode::Hard);
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
                ours.put(&name, Entry::new(1, BYTES, Box::new([]), ours.generation(), times, 0));
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
        let Join::Leader(leader) = cache.join("a") else { panic!("the first one reads") };
        let Join::Waiter(mut first) = cache.join("a") else { panic!("the second one waits") };
        let Join::Waiter(second) = cache.join("a") else { panic!("the third one waits") };
        assert!(matches!(cache.join("a"), Join::Full), "two may wait");
        assert!(cache.try_lead("a").is_none() && cache.try_lead("b").is_some());
        leader.finish(LoadResult::Cached);
        assert_eq!(first.result().await, LoadResult::Cached);
        drop((first, second));
        let Join::Leader(leader) = cache.join("a") else { panic!("the load has ended") };
        let Join::Waiter(mut waits) = cache.join("a") else { panic!("waits") };
        drop(leader);
        assert_eq!(waits.result().await, LoadResult::Abandoned, "a dropped leader has loaded nothing");
    }

    #[tokio::test]
    async fn waiters_follow_a_load_in_flight() {
        let limits = CacheLimits { bytes_max: 1 << 20, waiters_max: 9 };
        let cache = Cache::<u32, &str>::new("test", limits, Arc::new(InvalidationLog::default()));
        let Join::Leader(leader) = cache.join("a") else { panic!("reads") };
        let Join::Waiter(mut early) = cache.join("a") else { panic!("waits") };
        leader.publish("half");
        let Join::Waiter(mut late) = cache.join("a") else { panic!("waits") };
        assert!(early.is_early() && !late.is_early());
        assert!(matches!(early.progress().await, Progress::Streaming("half")));
        assert!(matches!(late.progress().await, Progress::Streaming("half")));
        late.release();
        let Join::Leader(anew) = cache.join("a") else { panic!("the load in flight is of no use") };
        leader.finish(LoadResult::Cached);
        assert_eq!(early.result().await, LoadResult::Cached);
        assert!(matches!(cache.join("a"), Join::Waiter(_)), "it releases its own slot only");
        drop(anew);
        assert!(matches!(cache.join("a"), Join::Leader(_)));
    }

    #[tokio::test]
    async fn a_useless_load_ends_in_no_stampede() {
        use futures_util::FutureExt;

        let cache: Cache<u32> = Cache::new(
            "test",
            CacheLimits { bytes_max: 1 << 20, waiters_max: 100 },
            Arc::new(InvalidationLog::default()),
        );
        let Join::Leader(leader) = cache.join("a") else { panic!("reads") };
        let waits: Vec<_> = (0..100).map(|_| cache.join("a")).collect();
        let waits: Vec<Waiter> = waits
            .into_iter()
            .map(|join| match join {
                Join::Waiter(wait) => wait,
                _ => panic!("waits"),
            })
            .collect();
        leader.finish(LoadResult::Private);
        let (mut left, mut rounds) = (&waits[..], Vec::new());
        while !left.is_empty() {
            let turns: Vec<_> = left.iter().map_while(|wait| wait.turn().now_or_never()).collect();
            left = &left[turns.len()..];
            rounds.push(turns.len());
        }
        assert_eq!(rounds, [4, 8, 16, 32, 40], "each waiter that has its answer releases a few more");
    }
}
