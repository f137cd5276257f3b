//! Lines of a module into the host's log: so many a second, so long, one line each.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::counter;

use crate::telemetry::POLICY_LOG_LINES_TOTAL;

/// Lines of one module written in a second; what is over is dropped and counted.
const LINES_PER_SECOND_MAX: u32 = 20;
/// Bytes of a message that are kept.
const MESSAGE_BYTES_MAX: usize = 1_000;

/// Bounds what one module writes to the log. Shared by its instances.
#[derive(Debug)]
pub(super) struct LogGate {
    module: String,
    /// Nothing is written: while test vectors run, nobody is served.
    muted: bool,
    window: Mutex<(Instant, u32)>,
}

impl LogGate {
    /// `module` names the module in each line.
    pub(super) fn new(module: String, muted: bool) -> Self {
        Self { module, muted, window: Mutex::new((Instant::now(), 0)) }
    }

    /// Writes a line, or drops and counts it.
    pub(super) fn write(&self, level: tracing::Level, message: &str) {
        if self.muted {
            return;
        }
        if !self.admit() {
            counter!(POLICY_LOG_LINES_TOTAL, "level" => "dropped").increment(1);
            return;
        }
        let message = one_line(message);
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

/// At most [`MESSAGE_BYTES_MAX`] bytes, without control characters: a module cannot forge another line.
fn one_line(message: &str) -> String {
    let kept = &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)];
    let printable = |c: char| match c {
        '\n' | '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    kept.chars().map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_bounded_line() {
        assert_eq!(one_line("a\nb\u{1b}[31m"), "a b\u{fffd}[31m");
        assert_eq!(one_line(&"x".repeat(5_000)).len(), 1_000);
        assert_eq!(one_line(&"é".repeat(501)).len(), 1_000);
        assert_eq!(one_line(&format!("x{}", "é".repeat(600))).len(), 999);
        assert_eq!(one_line(""), "");
    }

    #[test]
    fn what_is_over_the_rate_is_dropped() {
        let gate = LogGate::new("m".into(), false);
        // A window begins at most once while this loop runs faster than a second; either way most lines are dropped.
        let admitted = (0..1_000).filter(|_| gate.admit()).count();
        assert!((20..=100).contains(&admitted), "{admitted}");
    }
}
