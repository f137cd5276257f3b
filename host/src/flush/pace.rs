//! How much at once, and how soon again.

use std::time::Duration;

use rand::RngExt;

use crate::config::FlushConfig;

/// Steps in which a batch grows from its smallest to its largest size.
const GROWTH_STEPS: usize = 20;

/// Adaptive batch size: grows by a step after a full batch that was quick, halves after a slow one (AIMD on the time
/// of the flush).
#[derive(Debug)]
pub(super) struct BatchSize {
    changes: usize,
    changes_min: usize,
    changes_max: usize,
    latency_target: Duration,
}

impl BatchSize {
    pub(super) fn new(config: &FlushConfig) -> Self {
        // The knee of all three engines lies at one or two thousand rows; begin there.
        let changes = 1_000.clamp(config.batch_changes_min, config.batch_changes_max);
        Self {
            changes,
            changes_min: config.batch_changes_min,
            changes_max: config.batch_changes_max,
            latency_target: Duration::from_millis(config.latency_target_ms),
        }
    }

    pub(super) fn changes(&self) -> usize {
        self.changes
    }

    /// Halves.
    pub(super) fn shrink(&mut self) {
        self.changes = (self.changes / 2).max(self.changes_min);
    }

    /// Learns from one flush of `taken` changes.
    pub(super) fn learn(&mut self, taken: usize, elapsed: Duration) {
        if elapsed > self.latency_target * 2 {
            self.shrink();
        } else if elapsed < self.latency_target && taken >= self.changes {
            let step = ((self.changes_max - self.changes_min) / GROWTH_STEPS).max(1);
            self.changes = (self.changes + step).min(self.changes_max);
        }
    }
}

/// Pauses between attempts while something is away: doubled each time, with full jitter in the upper half, for ever.
#[derive(Debug)]
pub(super) struct Patience {
    pause_ms: u64,
    pause_ms_min: u64,
    pause_ms_max: u64,
}

impl Patience {
    pub(super) fn new(config: &FlushConfig) -> Self {
        Self { pause_ms: config.retry_ms_min, pause_ms_min: config.retry_ms_min, pause_ms_max: config.retry_ms_max }
    }

    pub(super) fn next(&mut self) -> Duration {
        let pause_ms = self.pause_ms;
        self.pause_ms = (self.pause_ms * 2).min(self.pause_ms_max);
        Duration::from_millis(rand::rng().random_range(pause_ms / 2..=pause_ms).max(1))
    }

    pub(super) fn reset(&mut self) {
        self.pause_ms = self.pause_ms_min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_grow_when_full_and_quick_and_halve_when_slow() {
        let mut size = BatchSize::new(&FlushConfig::default());
        let start = size.changes();
        size.learn(start - 1, Duration::from_millis(5));
        assert_eq!(size.changes(), start, "a batch that was not full says nothing");
        size.learn(start, Duration::from_millis(5));
        assert!(size.changes() > start);
        let grown = size.changes();
        size.learn(grown, Duration::from_millis(300));
        assert_eq!(size.changes(), grown, "between once and twice the target it stays");
        size.learn(grown, Duration::from_secs(5));
        assert_eq!(size.changes(), grown / 2);
        for _ in 0..100 {
            size.learn(1, Duration::from_secs(5));
        }
        assert_eq!(size.changes(), FlushConfig::default().batch_changes_min);
        for _ in 0..1_000 {
            size.learn(usize::MAX, Duration::ZERO);
        }
        assert_eq!(size.changes(), FlushConfig::default().batch_changes_max);
    }

    #[test]
    fn patience_grows_to_its_bound_and_no_further() {
        let config = FlushConfig { retry_ms_min: 100, retry_ms_max: 5_000, ..FlushConfig::default() };
        let mut patience = Patience::new(&config);
        let first = patience.next().as_millis();
        assert!((50..=100).contains(&first), "{first}");
        let pauses: Vec<_> = (0..20).map(|_| patience.next().as_millis()).collect();
        assert!(pauses.iter().all(|pause| *pause <= 5_000));
        assert!(pauses[19] >= 2_500);
        patience.reset();
        assert!(patience.next().as_millis() <= 100);
    }
}
