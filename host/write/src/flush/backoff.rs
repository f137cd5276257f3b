//! How soon again: the backoff between attempts.

use std::time::Duration;

use rand::RngExt;

use weir_core::config::FlushConfig;

/// Pauses between attempts while something is away: doubled each time, with full jitter in the upper half, for ever.
#[derive(Debug)]
pub(super) struct Backoff {
    pause_ms: u64,
    pause_ms_min: u64,
    pause_ms_max: u64,
}

impl Backoff {
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
    fn backoff_grows_to_its_bound_and_no_further() {
        let config = FlushConfig { retry_ms_min: 100, retry_ms_max: 5_000, ..FlushConfig::default() };
        let mut backoff = Backoff::new(&config);
        let first = backoff.next().as_millis();
        assert!((50..=100).contains(&first), "{first}");
        let pauses: Vec<_> = (0..20).map(|_| backoff.next().as_millis()).collect();
        assert!(pauses.iter().all(|pause| *pause <= 5_000));
        assert!(pauses[19] >= 2_500);
        backoff.reset();
        assert!(backoff.next().as_millis() <= 100);
    }
}
