//! A like stays: it can be given, never taken back.
//!
//! `POST` and `PUT` like what is not liked yet. `POST` on what is liked is answered with the like as it is (`keep`), not
//! refused: it is what a double click sends, and the caller has what they asked for. `DELETE` on what is liked is refused
//! (`deny`, 403): there the caller asks for what the rule forbids, and must be told so. `DELETE` on what is not liked
//! changes nothing, and says so.
//!
//! One actor may try five times a minute on one target, or as often as the kind's setting `burst` says.

use weir_policy_sdk::{Effect, Intent, Rule, Toggle, Verb, export, setting};

struct OneWayLikes;

impl Toggle for OneWayLikes {
    fn decide(kind: &str, _now_ms: u64, batch: &[Intent]) -> Vec<Rule> {
        let burst = setting(kind, "burst").and_then(|text| text.parse().ok()).filter(|burst| *burst > 0).unwrap_or(5);
        let rule = |intent: &Intent| match intent.verb {
            Verb::Toggle | Verb::Set => Rule::new(Effect::Add, Effect::Keep).limited(burst, 60_000),
            Verb::Clear => Rule::new(Effect::Keep, Effect::Deny),
        };
        batch.iter().map(rule).collect()
    }
}

export!(OneWayLikes: toggle);

#[cfg(test)]
mod tests {
    use super::*;
    use weir_policy_sdk::{testing, vectors};

    #[test]
    fn the_cases_hold() {
        vectors::check::<OneWayLikes>(include_str!("../cases.json"));
    }

    #[test]
    fn nothing_ever_removes() {
        for intent in [Intent::toggle(1, 2), Intent::set(1, 2), Intent::clear(1, 2)] {
            let rule = &OneWayLikes::decide("feed-like", 0, &[intent])[0];
            assert!(rule.when_absent != Effect::Remove && rule.when_present != Effect::Remove);
        }
    }

    #[test]
    fn a_burst_that_is_no_number_counts_as_not_set() {
        for text in ["0", "-1", "many"] {
            testing::set("feed-like", "burst", text);
            let rules = OneWayLikes::decide("feed-like", 0, &[Intent::toggle(1, 2)]);
            assert_eq!(rules, [Rule::new(Effect::Add, Effect::Keep).limited(5, 60_000)]);
        }
    }
}
