//! By day SQL is busy with your application, so changes wait there for a minute or until they are many, and go in large
//! transactions. At night they go as they come.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `night-from`, `night-until` | 22, 6 | hours of UTC, 0 to 23; the night may pass midnight; the same hour twice: no night |
//! | `day-age-ms`, `day-entries` | 60000, 5000 | by day: flush when the oldest is so old, or when so many wait |
//! | `night-age-ms` | 2000 | at night: flush when the oldest is so old |
//!
//! Waiting loses nothing: the journal keeps what was acknowledged. It does cost room there, and whoever reads the tables
//! sees changes later. A kind with `durability = "stored"` waits for its flush, so give it no such rule.
//!
//! `coalesce` is the SDK's: the last change of each pair. A like that is taken back within the minute never becomes a row.

use weir_policy_sdk::{Backlog, Flush, FlushPlan, export, setting};

struct NightFlush;

impl Flush for NightFlush {
    fn plan(kind: &str, now_ms: u64, backlog: &Backlog) -> FlushPlan {
        let number = |key: &str, default: u64| setting(kind, key).and_then(|text| text.parse().ok()).unwrap_or(default);
        let hour = now_ms / 3_600_000 % 24;
        let (age_ms, entries) = if is_night(hour, number("night-from", 22), number("night-until", 6)) {
            (number("night-age-ms", 2_000), 1_000)
        } else {
            (number("day-age-ms", 60_000), number("day-entries", 5_000))
        };
        let due = backlog.oldest_age_ms >= age_ms || backlog.entries >= entries;
        let flush_now = backlog.entries > 0 && due;
        // Not before the oldest is due, and not so late that the change of the hour is missed by much: the host asks again
        // within its `flush.look_again_ms_max`, and whenever many changes arrive.
        let left_ms = if flush_now { age_ms } else { age_ms.saturating_sub(backlog.oldest_age_ms) };
        let look_again_ms = u32::try_from(left_ms).unwrap_or(u32::MAX).max(1);
        FlushPlan { flush_now, changes_max: u32::MAX, look_again_ms }
    }
}

/// Whether `hour` is in the night, which may pass midnight.
fn is_night(hour: u64, from: u64, until: u64) -> bool {
    if from <= until { (from..until).contains(&hour) } else { hour >= from || hour < until }
}

export!(NightFlush: flush);

#[cfg(test)]
mod tests {
    use super::*;
    use weir_policy_sdk::vectors;

    #[test]
    fn the_cases_hold() {
        vectors::check::<NightFlush>(include_str!("../cases.json"));
    }

    #[test]
    fn a_night_may_pass_midnight_and_need_not() {
        let hours = |from, until| (0..24).filter(|hour| is_night(*hour, from, until)).collect::<Vec<u64>>();
        assert_eq!(hours(22, 2), [0, 1, 22, 23]);
        assert_eq!(hours(1, 4), [1, 2, 3]);
        assert!(hours(5, 5).is_empty());
    }
}
