//! A value, until when it may be told, and when to read it anew before that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand::RngExt;

use super::ENTRY_OVERHEAD_BYTES;
use super::usage::{Share, Usage};

/// How eagerly entries are refreshed early (`beta` of XFetch); 1 is the optimum of Vattani et al., VLDB 2015.
const EARLY_BETA: f64 = 1.0;
/// They are not before the last so many-th of their lifetime.
const EARLY_SHARE: u64 = 10;

/// Until when a value may be told, in milliseconds of the clock that never jumps, each at least as late as the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Without asking.
    pub fresh_until_ms: u64,
    /// While somebody reads it anew (stale-while-revalidate).
    pub revalidate_until_ms: u64,
    /// When it cannot be read anew (stale-if-error).
    pub error_until_ms: u64,
}

/// What a value is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshness {
    /// To be told.
    Fresh,
    /// To be told while somebody reads it anew.
    Stale,
    /// To be told when it cannot be read anew.
    OnError,
    /// To be validated at most.
    Spent,
}

/// The moment in the ledger of invalidations before a read began, and the last one at which it was found good.
#[derive(Debug)]
pub struct Stamp {
    pub(super) begun: u64,
    pub(super) good_at: AtomicU64,
}

impl Clone for Stamp {
    fn clone(&self) -> Self {
        Self { begun: self.begun, good_at: AtomicU64::new(self.good_at.load(Ordering::Relaxed)) }
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
    /// Until when it may be told.
    pub times: Times,
    /// How long it took to read, in milliseconds.
    pub cost_ms: u64,
    pub(super) stamp: Stamp,
    pub(super) share: Option<Share>,
    /// Another one of the same key has come: it is not dropped for room.
    pub(super) is_replaced: AtomicBool,
}

impl<V> Entry<V> {
    /// A value that was read in `cost_ms`, after `stamp` was taken.
    pub fn new(value: V, bytes: u64, groups: Box<[Box<str>]>, stamp: Stamp, times: Times, cost_ms: u64) -> Self {
        Self { value, bytes, groups, times, cost_ms, stamp, share: None, is_replaced: AtomicBool::new(false) }
    }

    /// The same, as a part of what `usage` counts.
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

    /// Whether to read it anew although it is fresh: by chance, the likelier the nearer its end and the longer a read takes
    /// (XFetch), so that readers of one host do not all meet the end. Only in the last tenth of its `lifetime_ms`: each of
    /// many readers tosses, and together they would read it anew all the time.
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
            let stamp = Stamp { begun: 0, good_at: AtomicU64::new(0) };
            Entry::new((), 0, Box::new([]), stamp, times, cost_ms)
        };
        let share = |cost_ms, now_ms| {
            let entry = entry(cost_ms);
            (0..20_000).filter(|_| entry.is_due_early(now_ms, 10_000)).count() / 200
        };
        assert_eq!(share(0, 9_999), 0, "what costs nothing is never read early");
        assert_eq!(share(100, 1_000), 0);
        assert_eq!(share(1_000, 8_999), 0, "too early, however long it takes");
        // P = exp(-left / cost): 36.8 % at one cost before the end.
        assert!((34..=39).contains(&share(100, 9_900)), "{}", share(100, 9_900));
        assert!((59..=62).contains(&share(100, 9_950)), "{}", share(100, 9_950));
    }
}
