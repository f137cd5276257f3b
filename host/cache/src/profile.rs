//! The measurements of a read or of an upstream: counters on each request, a histogram on each load.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use metrics::{Counter, counter, histogram};

use weir_core::model::ReadProfile;
use weir_core::telemetry::tally::Tally;
use weir_core::telemetry::{READ_HIT_BYTES_TOTAL, READ_ORIGIN_SECONDS, READ_SAVED_SECONDS_TOTAL, READS_TOTAL};

/// Length of a window, in milliseconds: the rule sees a profile once per window at most.
const WINDOW_MS: u64 = 1_000;
/// The host asks for the rule again after so many windows, even when no number has moved.
const WINDOWS_MAX: u64 = 10;
/// Loads that the percentiles are made of; after that the histogram starts again.
const READINGS_MAX: u64 = 4_096;
/// Longest time that the histogram distinguishes, in microseconds.
const COST_US_MAX: u64 = 60_000_000;
/// A number has moved when it is 5/4 of what it was, or the other way round.
const MOVED_NEW: u64 = 5;
const MOVED_OLD: u64 = 4;

/// The cost of all reads of a cache.
#[derive(Debug, Default)]
pub struct Totals {
    cost_us: AtomicU64,
}

/// One read's measurements.
pub struct Profile {
    name: String,
    class: &'static str,
    totals: Arc<Totals>,
    tally: Arc<Tally<COUNTS>>,
    /// Requests and hits before the last [`Profile::forget`].
    requests_before: AtomicU64,
    hits_before: AtomicU64,
    readings: AtomicU64,
    compared: AtomicU64,
    changed: AtomicU64,
    bytes_mean: AtomicU64,
    cost_us: AtomicU64,
    cost_p50_us: AtomicU64,
    next_ms: AtomicU64,
    costs: Mutex<Option<Histogram<u64>>>,
    last: Mutex<Last>,
    was_shown: AtomicBool,
}

/// Indexes of the tally.
const HIT: usize = 0;
const STALE: usize = 1;
const COLLAPSED: usize = 2;
const MISS: usize = 3;
const BYPASS: usize = 4;
const ERROR: usize = 5;
/// Forwarded without a cache lookup: not part of the profile.
const PASSED: usize = 6;
const HIT_BYTES: usize = 7;
const SAVED_US: usize = 8;
const COUNTS: usize = 9;

/// The profile that the rule saw last.
#[derive(Default)]
struct Last {
    at_ms: u64,
    requests: u64,
    version: u64,
    windows: u64,
    shown: Option<ReadProfile>,
}

fn tally(name: &str) -> Arc<Tally<COUNTS>> {
    let of = |how: &'static str| counter!(READS_TOTAL, "read" => name.to_owned(), "how" => how);
    let hit_bytes = counter!(READ_HIT_BYTES_TOTAL, "read" => name.to_owned());
    let bypass = of("bypass");
    let passed = bypass.clone();
    let saved_us = Counter::noop();
    let counters =
        [of("hit"), of("stale"), of("collapsed"), of("miss"), bypass, of("error"), passed, hit_bytes, saved_us];
    let tally = Tally::new(counters);
    tally.in_seconds(SAVED_US, READ_SAVED_SECONDS_TOTAL, ("read", name));
    tally
}

impl Profile {
    /// A profile without measurements. `name` is its name in metrics.
    pub fn new(name: &str, class: &'static str, totals: Arc<Totals>) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            name: name.to_owned(),
            class,
            totals,
            tally: tally(name),
            requests_before: zero(),
            hits_before: zero(),
            readings: zero(),
            compared: zero(),
            changed: zero(),
            bytes_mean: zero(),
            cost_us: zero(),
            cost_p50_us: zero(),
            next_ms: zero(),
            // These bounds are always valid; without a histogram costs are 0.
            costs: Mutex::new(Histogram::new_with_bounds(1, COST_US_MAX, 2).ok()),
            last: Mutex::default(),
            was_shown: AtomicBool::new(false),
        }
    }

    /// Counts a request that was answered: `how` comes from [`super::CacheStatus::how`].
    pub fn served(&self, how: &'static str, bytes: usize) {
        let place = match how {
            "hit" => HIT,
            "stale" => STALE,
            "collapsed" => COLLAPSED,
            "bypass" => BYPASS,
            _ => MISS,
        };
        self.tally.add(place, 1);
        if matches!(place, HIT | STALE | COLLAPSED) {
            self.tally.add(SAVED_US, self.cost_p50_us.load(Ordering::Relaxed));
            self.tally.add(HIT_BYTES, bytes as u64);
        } else if bytes > 0 {
            // An answer without a body or a known length says nothing about the size.
            // An eighth of the difference: the mean follows the last tens of answers.
            let mean = self.bytes_mean.load(Ordering::Relaxed);
            let next = if mean == 0 { bytes as u64 } else { (mean * 7 + bytes as u64) / 8 };
            self.bytes_mean.store(next, Ordering::Relaxed);
        }
    }

    /// Counts a forwarded request that no cache could have answered: not part of the profile.
    pub(super) fn passed(&self) {
        self.tally.add(PASSED, 1);
    }

    /// Counts a request without an answer.
    pub fn failed(&self) {
        self.tally.add(ERROR, 1);
    }

    /// Counts a load from SQL or from the origin.
    pub fn read(&self, took: Duration) {
        let cost_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).clamp(1, COST_US_MAX);
        histogram!(READ_ORIGIN_SECONDS, "read" => self.name.clone()).record(took.as_secs_f64());
        self.readings.fetch_add(1, Ordering::Relaxed);
        self.cost_us.fetch_add(cost_us, Ordering::Relaxed);
        self.totals.cost_us.fetch_add(cost_us, Ordering::Relaxed);
        if let Some(costs) = &mut *self.costs.lock().unwrap_or_else(PoisonError::into_inner) {
            if costs.len() >= READINGS_MAX {
                costs.reset();
            }
            costs.saturating_record(cost_us);
            self.cost_p50_us.store(costs.value_at_quantile(0.5), Ordering::Relaxed);
        }
    }

    /// Counts a load of a value that was cached before.
    pub fn compared(&self, changed: bool) {
        self.compared.fetch_add(1, Ordering::Relaxed);
        self.changed.fetch_add(u64::from(changed), Ordering::Relaxed);
    }

    /// Starts counting again. Answers that were not cached have no hits, and would look for ever as if no request repeated.
    pub(super) fn forget(&self) {
        self.requests_before.store(self.requests_ever(), Ordering::Relaxed);
        self.hits_before.store(self.hits_ever(), Ordering::Relaxed);
        for count in [&self.compared, &self.changed] {
            count.store(0, Ordering::Relaxed);
        }
    }

    fn requests_ever(&self) -> u64 {
        [HIT, STALE, COLLAPSED, MISS, BYPASS, ERROR].iter().map(|place| self.tally.sum(*place)).sum()
    }

    fn hits_ever(&self) -> u64 {
        [HIT, STALE, COLLAPSED].iter().map(|place| self.tally.sum(*place)).sum()
    }

    /// Work that SQL or the origin was saved, in microseconds.
    pub(super) fn saved_us(&self) -> u64 {
        self.tally.sum(SAVED_US)
    }

    /// Requests that were served a stale answer.
    pub(super) fn stale(&self) -> u64 {
        self.tally.sum(STALE)
    }

    /// Requests without an answer.
    pub(super) fn failures(&self) -> u64 {
        self.tally.sum(ERROR)
    }

    /// Whether a window has passed; true for one caller only.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        let next_ms = self.next_ms.load(Ordering::Relaxed);
        let later_ms = now_ms + WINDOW_MS;
        now_ms >= next_ms
            && self.next_ms.compare_exchange(next_ms, later_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The numbers now; the caller adds the rate.
    pub(super) fn look(&self) -> ReadProfile {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (cost_p50_us, cost_p99_us) = match &*self.costs.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(costs) if !costs.is_empty() => (costs.value_at_quantile(0.5), costs.value_at_quantile(0.99)),
            _ => (0, 0),
        };
        // Hits first: a request between the two loads counts as a request only, so hits never exceed requests.
        let hits = self.hits_ever().saturating_sub(of(&self.hits_before));
        let requests = self.requests_ever().saturating_sub(of(&self.requests_before));
        ReadProfile {
            name: self.name.clone(),
            class: self.class,
            requests,
            requests_per_minute: 0,
            hit_permille: permille(hits, requests),
            cost_p50_us,
            cost_p99_us,
            cost_share_permille: permille(of(&self.cost_us), of(&self.totals.cost_us)),
            bytes: of(&self.bytes_mean),
            change_permille: permille(of(&self.changed), of(&self.compared)),
        }
    }

    /// The numbers for the rule, if they have moved since it saw them last, or if the rule has changed.
    pub(super) fn take(&self, now_ms: u64, version: u64) -> Option<ReadProfile> {
        let mut profile = self.look();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed_ms = now_ms.saturating_sub(last.at_ms).max(1);
        profile.requests_per_minute =
            profile.requests.saturating_sub(last.requests).saturating_mul(60_000) / elapsed_ms;
        last.windows += 1;
        let first = !self.was_shown.swap(true, Ordering::Relaxed);
        let moved = last.shown.as_ref().is_none_or(|shown| has_moved(shown, &profile));
        if !first && !moved && last.version == version && last.windows < WINDOWS_MAX {
            return None;
        }
        let requests = profile.requests;
        *last = Last { at_ms: now_ms, requests, version, windows: 0, shown: Some(profile.clone()) };
        Some(profile)
    }
}

/// A part of a whole in 1,000 parts.
fn permille(part: u64, whole: u64) -> u32 {
    u32::try_from(part.saturating_mul(1_000).checked_div(whole).unwrap_or(0)).unwrap_or(u32::MAX)
}

fn has_moved(shown: &ReadProfile, now: &ReadProfile) -> bool {
    let moved = |one: u64, other: u64| one.max(other) * MOVED_OLD > one.min(other) * MOVED_NEW;
    let pairs = [
        (shown.requests, now.requests),
        (shown.requests_per_minute, now.requests_per_minute),
        (shown.hit_permille.into(), now.hit_permille.into()),
        (shown.cost_p50_us, now.cost_p50_us),
        (shown.cost_p99_us, now.cost_p99_us),
        (shown.cost_share_permille.into(), now.cost_share_permille.into()),
        (shown.bytes, now.bytes),
        (shown.change_permille.into(), now.change_permille.into()),
    ];
    pairs.into_iter().any(|(one, other)| moved(one, other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_asked_when_something_has_moved() {
        let profile = Profile::new("r", "seconds", Arc::default());
        assert!(profile.take(1_000, 0).is_some(), "the first time");
        assert!(profile.take(2_000, 0).is_none());
        assert!(profile.take(2_000, 1).is_some(), "another rule");
        profile.served("miss", 100);
        profile.read(Duration::from_millis(5));
        let seen = profile.take(3_000, 1).unwrap();
        assert_eq!((seen.requests, seen.bytes, seen.hit_permille, seen.cost_share_permille), (1, 100, 0, 1_000));
        assert!((4_900..=5_100).contains(&seen.cost_p50_us), "{}", seen.cost_p50_us);
        profile.served("hit", 100);
        assert!(profile.saved_us() >= 4_900);
        assert_eq!(profile.take(4_000, 1).unwrap().hit_permille, 500);
        profile.forget();
        assert_eq!(profile.take(5_000, 1).unwrap().requests, 0, "less has moved, too");
    }

    #[test]
    fn a_window_is_for_one() {
        let profile = Profile::new("r", "seconds", Arc::default());
        assert!(profile.is_due(5_000) && !profile.is_due(5_999) && profile.is_due(6_000));
    }
}
