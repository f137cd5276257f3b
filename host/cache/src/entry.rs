//! A value, how long it may be served, and when to refresh it early.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand::RngExt;

use super::ENTRY_OVERHEAD_BYTES;
use super::usage::{Share, Usage};

/// How eagerly entries are refreshed early (`beta` of XFetch); 1 is the optimum of Vattani et al., VLDB 2015.
const EARLY_BETA: f64 = 1.0;
/// Entries are refreshed early only in the last such part of their lifetime.
const EARLY_SHARE: u64 = 10;

/// How long a value may be served, in milliseconds of the clock that never jumps, each at least as late as the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Without a refresh.
    pub fresh_until_ms: u64,
    /// While a request reads it again (stale-while-revalidate).
    pub revalidate_until_ms: u64,
    /// When it cannot be read again (stale-if-error).
    pub error_until_ms: u64,
}

/// How a value may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshness {
    /// Serve it.
    Fresh,
    /// Serve it while a request reads it again.
    Stale,
    /// Serve it when it cannot be read again.
    OnError,
    /// Use it for validation at most.
    Spent,
}

/// The generation of the invalidation log in which a read started, and the last one in which its result was found valid.
#[derive(Debug)]
pub struct Generation {
    pub(super) started: u64,
    pub(super) valid_at: AtomicU64,
}

impl Clone for Generation {
    fn clone(&self) -> Self {
        Self { started: self.started, valid_at: AtomicU64::new(self.valid_at.load(Ordering::Relaxed)) }
    }
}

/// A value that was read.
#[derive(Debug)]
pub struct Entry<V> {
    /// The value.
    pub value: V,
    /// Its size, in bytes.
    pub bytes: u64,
    /// The groups that it belongs to.
    pub groups: Box<[Box<str>]>,
    /// How long it may be served.
    pub times: Times,
    /// How long it took to read, in milliseconds.
    pub cost_ms: u64,
    pub(super) generation: Generation,
    pub(super) share: Option<Share>,
    /// A newer entry of the same key replaced it: dropping it is no eviction.
    pub(super) is_replaced: AtomicBool,
}

impl<V: AsRef<[u8]>> AsRef<[u8]> for Entry<V> {
    fn as_ref(&self) -> &[u8] {
        self.value.as_ref()
    }
}

impl<V> Entry<V> {
    /// A value whose read took `cost_ms` and started in `generation`.
    pub fn new(
        value: V,
        bytes: u64,
        groups: Box<[Box<str>]>,
        generation: Generation,
        times: Times,
        cost_ms: u64,
    ) -> Self {
        Self { value, bytes, groups, times, cost_ms, generation, share: None, is_replaced: AtomicBool::new(false) }
    }

    /// The same entry, counted by `usage`.
    pub fn counted(self, usage: &Arc<Usage>) -> Self {
        let share = Share::new(usage, self.bytes.saturating_add(ENTRY_OVERHEAD_BYTES));
        Self { share: Some(share), ..self }
    }

    pub(super) fn freshness(&self, now_ms: u64) -> Freshness {
        let Times { fresh_until_ms, revalidate_until_ms, error_until_ms } = self.times;
        match now_ms {
            now if now < fresh_until_ms => Freshness::Fresh,
            now if now < revalidate_until_ms => Freshness::Stale,
            now if now < error_until_ms => Freshness::OnError,
            _ => Freshness::Spent,
        }
    }

    /// Whether to refresh it although it is fresh. By chance, more likely the nearer its end and the longer a read takes
    /// (XFetch), so that the readers of one host do not all meet the end. Only in the last tenth of its `lifetime_ms`: every
    /// reader draws, and many readers together would refresh it all the time.
    pub fn is_due_early(&self, now_ms: u64, lifetime_ms: u64) -> bool {
        let left_ms = self.times.fresh_until_ms.saturating_sub(now_ms);
        // Beyond 40 times the cost the chance is below 10^-17: not worth a random number for each hit.
        if self.cost_ms == 0 || left_ms > self.cost_ms.saturating_mul(40) || left_ms > lifetime_ms / EARLY_SHARE {
            return false;
        }
        #[allow(clippy::cast_precision_loss, reason = "milliseconds, far below 2^53")]
        let (left_ms, cost_ms) = (left_ms as f64, self.cost_ms as f64);
        let chance: f64 = rand::rng().random();
        cost_ms * EARLY_BETA * -chance.max(f64::MIN_POSITIVE).ln() >= left_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chance_of_an_early_refresh_follows_the_time_left() {
        let entry = |cost_ms| {
            let times = Times { fresh_until_ms: 10_000, revalidate_until_ms: 0, error_until_ms: 0 };
            let generation = Generation { started: 0, valid_at: AtomicU64::new(0) };
            Entry::new((), 0, Box::new([]), generation, times, cost_ms)
        };
        let share = |cost_ms, now_ms| {
            let entry = entry(cost_ms);
            (0..20_000).filter(|_| entry.is_due_early(now_ms, 10_000)).count() / 200
        };
        assert_eq!(share(0, 9_999), 0, "a read that costs nothing is never refreshed early");
        assert_eq!(share(100, 1_000), 0);
        assert_eq!(share(1_000, 8_999), 0, "too early, however long it takes");
        // P = exp(-left / cost): 36.8 % at one cost before the end.
        assert!((34..=39).contains(&share(100, 9_900)), "{}", share(100, 9_900));
        assert!((59..=62).contains(&share(100, 9_950)), "{}", share(100, 9_950));
    }
}
