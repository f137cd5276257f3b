//! The rate limit: GCRA in whole microseconds. The embedded store calls it; `redis/batch.lua` implements the same in Lua, and the
//! conformance suite tests both.
//!
//! An operation costs one *interval* = period / burst, rounded up, so that rounding never admits more. The *theoretical arrival
//! time* (TAT) is when the limit is full again; it is at most burst intervals ahead. A TAT further ahead comes from a clock that
//! was set back or from an earlier, wider rule, and is capped.

use weir_core::model::{RateLimit, RateState};

/// The decision on one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Let it pass; store the new TAT if it is evaluated.
    Pass {
        /// The new theoretical arrival time, in microseconds.
        tat_us: u64,
        /// The limit's state afterwards.
        rate: RateState,
    },
    /// Refuse it.
    Limited {
        /// Milliseconds until one operation is allowed again.
        retry_after_ms: u64,
        /// The limit's state.
        rate: RateState,
    },
}

/// Cost of one operation, in microseconds.
pub(super) fn interval_us(limit: RateLimit) -> u64 {
    (u64::from(limit.period_ms.max(1)) * 1_000).div_ceil(u64::from(limit.burst.max(1)))
}

/// Evaluates `limit` at `now_us` where the last TAT was `tat_us` (0 when there was none).
pub(super) fn check(limit: RateLimit, now_us: u64, tat_us: u64) -> Verdict {
    let interval = interval_us(limit);
    let tolerance = interval * u64::from(limit.burst.max(1));
    let ahead = tat_us.saturating_sub(now_us).min(tolerance);
    let after = ahead + interval;
    if after > tolerance {
        let rate = RateState { remaining: 0, reset_ms: ahead.div_ceil(1_000) };
        return Verdict::Limited { retry_after_ms: (after - tolerance).div_ceil(1_000), rate };
    }
    let remaining = u32::try_from((tolerance - after) / interval).unwrap_or(u32::MAX);
    let rate = RateState { remaining, reset_ms: after.div_ceil(1_000) };
    Verdict::Pass { tat_us: now_us.saturating_add(after), rate }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn burst_at_once_then_one_per_interval(burst in 1u32..50, period_ms in 1u32..100_000, start in 0u64..1 << 50) {
            let limit = RateLimit { burst, period_ms };
            let mut tat = 0;
            for index in 0..burst {
                match check(limit, start, tat) {
                    Verdict::Pass { tat_us, rate } => {
                        prop_assert_eq!(rate.remaining, burst - index - 1);
                        tat = tat_us;
                    }
                    limited => prop_assert!(false, "{:?}", limited),
                }
            }
            let Verdict::Limited { retry_after_ms, rate } = check(limit, start, tat) else {
                return Err(TestCaseError::fail("the limit let one more pass"));
            };
            prop_assert_eq!(rate.remaining, 0);
            let too_early = check(limit, start + interval_us(limit) - 1, tat);
            let in_time = check(limit, start + retry_after_ms * 1_000, tat);
            let is_limited = matches!(too_early, Verdict::Limited { .. });
            let is_passed = matches!(in_time, Verdict::Pass { .. });
            prop_assert!(is_limited && is_passed);
        }

        #[test]
        fn extremes_never_overflow(burst in any::<u32>(), period_ms in any::<u32>(), now in any::<u64>(), tat in any::<u64>()) {
            let _ = check(RateLimit { burst, period_ms }, now, tat);
        }
    }

    #[test]
    fn a_clock_that_went_back_costs_one_interval_at_most() {
        let limit = RateLimit { burst: 2, period_ms: 1_000 };
        let Verdict::Limited { retry_after_ms, .. } = check(limit, 1_000_000, u64::MAX) else {
            panic!("a full limit must refuse");
        };
        assert_eq!(retry_after_ms, 500);
    }
}
