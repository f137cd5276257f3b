//! Lines of a module into the host's log: so many a second, so long, one line each.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::counter;

use super::said::clip;
use weir_core::telemetry::POLICY_LOG_LINES_TOTAL;

/// Lines of one module written in a second; what is over is dropped and counted.
const LINES_PER_SECOND_MAX: u32 = 20;
/// Bytes of a message that are kept.
const MESSAGE_BYTES_MAX: usize = 1_000;
/// The same where the host says why a call failed: the guest's own words are in it.
const FAILURE_BYTES_MAX: usize = 3_000;

/// Bounds what one module writes to the log. Shared by its instances.
#[derive(Debug)]
pub(super) struct LogGate {
    module: String,
    /// Nothing is written: while test vectors run, no request is served.
    muted: bool,
    window: Mutex<(Instant, u32)>,
}

impl LogGate {
    /// `module` names the module in each line.
    pub(super) fn new(module: String, muted: bool) -> Self {
        Self { module, muted, window: Mutex::new((Instant::now(), 0)) }
    }

    /// Writes why a call failed, at the same rate.
    pub(super) fn failed(&self, message: &str) {
        self.write_up_to(FAILURE_BYTES_MAX, tracing::Level::ERROR, message);
    }

    /// Writes a line, or drops and counts it.
    pub(super) fn write(&self, level: tracing::Level, message: &str) {
        self.write_up_to(MESSAGE_BYTES_MAX, level, message);
    }

    fn write_up_to(&self, bytes_max: usize, level: tracing::Level, message: &str) {
        if self.muted {
            return;
        }
        if !self.admit() {
            counter!(POLICY_LOG_LINES_TOTAL, "level" => "dropped").increment(1);
            return;
        }
        let message = clip(message, bytes_max);
        let module = self.module.as_str();
        let label = match level {
            tracing::Level::ERROR => {
                tracing::error!(module, "{message}");
                "error"
            }
            tracing::Level::WARN => {
                tracing::warn!(module, "{message}");
                "warn"
            }
            tracing::Level::INFO => {
                tracing::info!(module, "{message}");
                "info"
            }
            _ => {
                tracing::debug!(module, "{message}");
                "debug"
            }
        };
        counter!(POLICY_LOG_LINES_TOTAL, "level" => label).increment(1);
    }

    fn admit(&self) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.0.elapsed() >= Duration::from_secs(1) {
            *window = (Instant::now(), 0);
        }
        window.1 = window.1.saturating_add(1);
        window.1 <= LINES_PER_SECOND_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_the_rate_is_dropped() {
        let gate = LogGate::new("m".into(), false);
        // A window begins at most once while this loop runs faster than a second; either way most lines are dropped.
        let admitted = (0..1_000).filter(|_| gate.admit()).count();
        assert!((20..=100).contains(&admitted), "{admitted}");
    }
}
