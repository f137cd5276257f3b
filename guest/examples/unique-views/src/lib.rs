//! A view counts once a day for each viewer and video, and the views of bots count nothing.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `window-ms` | 86400000 | within so many milliseconds a viewer counts once; 1 or more |
//! | `bots` | none | actors that count nothing, with commas between: `17, crawler` |
//!
//! The rule does not ask whether the viewer was there before: it says for how long a view is remembered, and the store,
//! which knows, counts or does not, in one step. Who is not counted is answered all the same, with the count as it is. A
//! view by nobody known counts each time: make the actor required in the kind's table if you do not want that.

use std::collections::BTreeSet;

use weir_policy_sdk::{Counter, Hit, HitRule, export, setting};

/// A day.
const WINDOW_MS: u32 = 24 * 60 * 60 * 1_000;

struct UniqueViews;

impl Counter for UniqueViews {
    fn decide(kind: &str, _now_ms: u64, batch: &[Hit]) -> Vec<HitRule> {
        let window_ms = setting(kind, "window-ms").and_then(|text| text.trim().parse().ok());
        let window_ms = window_ms.filter(|window_ms| *window_ms > 0).unwrap_or(WINDOW_MS);
        let bots = setting(kind, "bots").unwrap_or_default();
        let bots: BTreeSet<&str> = bots.split(',').map(str::trim).filter(|bot| !bot.is_empty()).collect();
        let is_bot = |hit: &Hit| hit.actor.as_ref().is_some_and(|actor| bots.contains(actor.to_string().as_str()));
        let rule = |hit: &Hit| if is_bot(hit) { HitRule::new(0) } else { HitRule::new(1).unique(window_ms) };
        batch.iter().map(rule).collect()
    }
}

export!(UniqueViews: counter);

#[cfg(test)]
mod tests {
    use super::*;
    use weir_policy_sdk::{testing, vectors};

    #[test]
    fn the_cases_hold() {
        vectors::check::<UniqueViews>(include_str!("../cases.json"));
    }

    #[test]
    fn a_window_that_is_no_number_counts_as_not_set() {
        for text in ["0", "-1", "a day"] {
            testing::set("video-view", "window-ms", text);
            assert_eq!(UniqueViews::decide("video-view", 0, &[Hit::new(1, 2)]), [HitRule::new(1).unique(WINDOW_MS)]);
        }
    }

    #[test]
    fn an_empty_list_names_nobody() {
        testing::set("video-view", "bots", " , ,");
        assert_eq!(UniqueViews::decide("video-view", 0, &[Hit::new(1, "")])[0].weight, 1);
    }
}
