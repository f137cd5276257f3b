//! A module is tried: with test vectors, as a shadow, as a canary, on recorded decisions.

pub(super) mod comparison;
pub(super) mod decisions;
pub(super) mod judge;
pub(super) mod vectors;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::module::Module;
use comparison::Comparison;
use judge::Judge;
use weir_core::model::Id;
use weir_core::operators::{ModuleName, TrialReport};

/// A module that is being tried beside the live ones: as a shadow or as a canary.
pub(super) struct Trial {
    pub(super) module: Arc<Module>,
    /// Of the batches for a shadow, of the targets for a canary. Above 0, at most 1.
    pub(super) share: f64,
    /// Since when, in Unix milliseconds.
    pub(super) since_ms: u64,
    /// Who began it.
    pub(super) by: String,
    /// Watches a canary.
    pub(super) judge: Judge,
    comparison: Mutex<Comparison>,
    /// Batches that were to be compared, and were not. Counted where requests are answered, so without the lock.
    skipped: AtomicU64,
    /// Why it ended, once it has.
    ended: Mutex<Option<String>>,
}

impl Trial {
    pub(super) fn new(module: Arc<Module>, share: f64, since_ms: u64, by: String, judge: Judge) -> Self {
        Self {
            module,
            share,
            since_ms,
            by,
            judge,
            comparison: Mutex::default(),
            skipped: AtomicU64::new(0),
            ended: Mutex::default(),
        }
    }

    /// Whether a canary serves this target: sticky, and not in step with the partitions.
    pub(super) fn takes(&self, target: &Id) -> bool {
        takes(self.share, target)
    }

    /// A batch is not compared: too many wait, or its live module does I/O.
    pub(super) fn skip(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }

    /// Changes what it has shown.
    pub(super) fn with_comparison(&self, change: impl FnOnce(&mut Comparison)) {
        change(&mut self.comparison.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Notes why it ended.
    pub(super) fn end(&self, why: &str) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| why.to_owned());
    }

    /// What it has shown so far.
    pub(super) fn report(&self) -> TrialReport {
        let label = self.module.label();
        let report = self.comparison.lock().unwrap_or_else(PoisonError::into_inner).report();
        TrialReport {
            module: ModuleName {
                digest: self.module.digest.to_string(),
                name: label.name.clone(),
                version: label.version.clone(),
            },
            skipped: self.skipped.load(Ordering::Relaxed),
            share: self.share,
            since_ms: self.since_ms,
            ended: self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            ..report
        }
    }
}

/// Whether `target` is among the `share` of targets: a hash of its canonical text, so that it holds on every host and
/// after a restart, and independent of [`weir_core::model::partition_of`], so that no partition is the canary's alone.
fn takes(share: f64, target: &Id) -> bool {
    /// Steps of the share.
    const STEPS: u16 = 10_000;
    // Another base than the partitions', by a text that no id of one type begins with alike.
    let salted = Id::Text(format!("canary\u{0}{target}").into());
    let step = weir_core::model::partition_of(&salted, STEPS);
    f64::from(step) < share * f64::from(STEPS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_targets_is_that_share_and_sticky() {
        let of = |share: f64| (0..20_000).filter(|n| takes(share, &Id::Int(*n))).count();
        assert_eq!((of(1.0), of(0.0)), (20_000, 0));
        for share in [0.01, 0.1, 0.5] {
            let got = of(share) as f64 / 20_000.0;
            assert!((got - share).abs() < 0.02, "{share}: {got}");
        }
        let smaller: Vec<i64> = (0..1_000).filter(|n| takes(0.1, &Id::Int(*n))).collect();
        assert!(smaller.iter().all(|n| takes(0.2, &Id::Int(*n))), "a larger share holds the smaller one");
    }

    #[test]
    fn a_canary_is_not_a_partition() {
        for partition in 0..8 {
            let of_partition = (0..8_000).map(Id::Int).filter(|id| weir_core::model::partition_of(id, 8) == partition);
            let (taken, all) =
                of_partition.fold((0, 0), |(taken, all), id| (taken + i32::from(takes(0.1, &id)), all + 1));
            assert!((5..20).contains(&(taken * 100 / all)), "{partition}: {taken} of {all}");
        }
    }
}
