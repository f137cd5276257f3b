//! Watches calls of a module that is new, and says when it must go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::instance::CallFailure;
use weir_core::clock::Clock;
use weir_core::config::CanaryConfig;

/// One failure in this many calls, over the whole trial, is too many.
const FAILURES_PER: u64 = 1_000;

/// Counts within windows. Cheap enough for every call.
pub(crate) struct Judge {
    bounds: CanaryConfig,
    clock: Clock,
    window: Mutex<Window>,
    condemned: AtomicBool,
}

struct Window {
    /// By the steady clock.
    began_ms: u64,
    calls: u64,
    failures: u64,
    /// Failures since the last call that succeeded, in this window or before: where calls are rare, no window would
    /// ever hold too many.
    in_a_row: u64,
    /// Calls and failures since the trial began: a module that fails in one call of a hundred must go where calls are
    /// few, too.
    all: (u64, u64),
    /// Calls that took longer than the bound: the percentile is above it when they are over a hundredth.
    slow: u64,
}

impl Window {
    fn fresh(began_ms: u64, in_a_row: u64, all: (u64, u64)) -> Self {
        Self { began_ms, calls: 0, failures: 0, in_a_row, all, slow: 0 }
    }
}

impl Judge {
    pub(crate) fn new(bounds: CanaryConfig, clock: Clock) -> Self {
        let window = Mutex::new(Window::fresh(clock.steady_ms(), 0, (0, 0)));
        Self { bounds, clock, window, condemned: AtomicBool::new(false) }
    }

    /// Notes a call. The reason why the module must go, once: to the first caller that meets it.
    pub(crate) fn note(&self, elapsed: Duration, failure: Option<&CallFailure>) -> Option<String> {
        if self.condemned.load(Ordering::Relaxed) {
            return None;
        }
        if failure.is_some_and(|failure| !failure.is_of_module()) {
            return None;
        }
        let verdict = self.count(elapsed, failure)?;
        // Two callers may come to a verdict at once.
        (!self.condemned.swap(true, Ordering::Relaxed)).then_some(verdict)
    }

    fn count(&self, elapsed: Duration, failure: Option<&CallFailure>) -> Option<String> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = self.clock.steady_ms();
        if now_ms.saturating_sub(window.began_ms) >= self.bounds.window_ms {
            let (calls, slow) = (window.calls, window.slow);
            *window = Window::fresh(now_ms, window.in_a_row, window.all);
            if calls >= self.bounds.calls_min.max(1) && slow.saturating_mul(100) > calls {
                let bound = self.bounds.call_p99_ms_max;
                return Some(format!(
                    "{slow} of {calls} calls within {} ms took longer than policy.canary.call_p99_ms_max = {bound}",
                    self.bounds.window_ms
                ));
            }
        }
        window.calls += 1;
        window.all.0 += 1;
        window.slow += u64::from(elapsed > Duration::from_millis(self.bounds.call_p99_ms_max));
        let Some(failure) = failure else {
            window.in_a_row = 0;
            return None;
        };
        window.failures += 1;
        window.in_a_row += 1;
        window.all.1 += 1;
        let (calls, failures) = window.all;
        let CanaryConfig { failures_max, window_ms, .. } = self.bounds;
        let which = if window.failures > failures_max {
            format!("{} of {} calls failed within {window_ms} ms", window.failures, window.calls)
        } else if window.in_a_row > failures_max {
            format!("{} calls in a row failed", window.in_a_row)
        } else if failures > failures_max && failures.saturating_mul(FAILURES_PER) >= calls {
            format!("{failures} of {calls} calls failed since it began")
        } else {
            return None;
        };
        let (cause, reason) = (failure.cause.as_str(), &failure.reason);
        Some(format!("{which} (policy.canary.failures_max = {failures_max}), the last with {cause}: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::Cause;

    const QUICK: Duration = Duration::from_micros(10);

    fn failure() -> CallFailure {
        CallFailure { cause: Cause::Trap, reason: "unreachable".into() }
    }

    fn judge(failures_max: u64, window_ms: u64) -> Judge {
        let bounds = CanaryConfig { window_ms, failures_max, call_p99_ms_max: 5, calls_min: 10 };
        Judge::new(bounds, Clock::manual(1_000_000))
    }

    #[test]
    fn one_failure_over_the_bound_is_a_verdict_and_only_once() {
        let judge = judge(1, 3_600_000);
        assert_eq!(judge.note(QUICK, Some(&failure())), None);
        assert_eq!(judge.note(QUICK, None), None);
        let verdict = judge.note(QUICK, Some(&failure())).unwrap();
        assert!(verdict.contains("2 of 3 calls failed") && verdict.contains("trap: unreachable"), "{verdict}");
        assert_eq!(judge.note(QUICK, Some(&failure())), None);
    }

    #[test]
    fn failures_in_a_row_are_a_verdict_however_far_apart() {
        let judge = judge(2, 1);
        // So many that those over the whole trial are not too many.
        assert!((0..10_000).all(|_| judge.note(QUICK, None).is_none()));
        let spaced = |failing: Option<&CallFailure>| {
            judge.clock.advance_ms(3);
            judge.note(QUICK, failing)
        };
        assert_eq!((spaced(Some(&failure())), spaced(Some(&failure())), spaced(None)), (None, None, None));
        assert_eq!((spaced(Some(&failure())), spaced(Some(&failure()))), (None, None));
        let verdict = spaced(Some(&failure())).unwrap();
        assert!(verdict.contains("3 calls in a row failed") && verdict.contains("unreachable"), "{verdict}");
    }

    #[test]
    fn failures_that_are_far_apart_are_counted_over_the_whole_trial() {
        let judge = judge(2, 1);
        let mut verdict = None;
        for call in 0..300 {
            let failing = (call % 100 == 99).then(failure);
            judge.clock.advance_ms(1);
            verdict = verdict.or(judge.note(QUICK, failing.as_ref()));
        }
        assert!(verdict.unwrap().contains("3 of 300 calls failed since it began"));
        let judge = judge_of_rare();
        assert!((0..30_000).all(|call| judge.note(QUICK, (call % 5_000 == 0).then(failure).as_ref()).is_none()));
    }

    /// Its windows end at once, so that only the whole trial counts.
    fn judge_of_rare() -> Judge {
        judge(2, 0)
    }

    #[test]
    fn slow_calls_are_judged_when_their_window_ends() {
        let slow = Duration::from_millis(6);
        let judge = judge(0, 40);
        for call in 0..40 {
            assert_eq!(judge.note(slow, None), None, "{call}: its window has not ended");
            judge.clock.advance_ms(1);
        }
        let verdict = judge.note(slow, None).unwrap();
        assert!(verdict.contains("40 of 40 calls") && verdict.contains("call_p99_ms_max = 5"), "{verdict}");
    }
}
