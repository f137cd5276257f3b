//! How much at once: the adaptive batch size.

use std::time::Duration;

use weir_core::config::FlushConfig;

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
}
