//! The default rules, pure. They see ids only as something that can be compared.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `limit-burst` | 10 for toggles, 0 for counters | operations by one actor on one target allowed at once; 0 turns the limit off |
//! | `limit-period-ms` | 10000 | time in which they are refilled; 1 or more |
//! | `weight` | 1 | what each unit of a hit counts for; at most 1000000, 0 counts nothing |
//! | `unique-ms` | 0 | within so many milliseconds an actor counts once on a target; 0: every hit counts |
//! | `flush-entries` | 100 | changes at which a flush is due; 1 or more |
//! | `flush-targets` | 0 | targets at which a flush is due; 0: however many there are |
//! | `flush-age-ms` | 2000 | age of the oldest change at which a flush is due |
//!
//! A setting that is no such number counts as not set; [`Settings::read`] says which. The host hands each kind the
//! defaults of its capability as settings. Documents are taken in as they are: their shape is the configuration's matter.

pub mod cache;

use std::ops::RangeInclusive;

use weir_policy_vectors::{Backlog, Effect, FlushPlan, HitRule, RateLimit, Rule, Verb};

use crate::admission;

/// What an operator may set for a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    limit: Option<RateLimit>,
    hit: HitRule,
    flush_entries: u32,
    flush_targets: u32,
    flush_age_ms: u32,
    /// What concerns waiting rooms.
    pub admission: admission::Settings,
}

impl Settings {
    /// Reads the settings through `get`; `unusable` is told the name and value of each that is ignored.
    pub fn read(get: impl Fn(&str) -> Option<String>, mut unusable: impl FnMut(&str, &str)) -> Self {
        let admission = admission::Settings::read(&get, &mut unusable);
        let mut number = |key: &str, allowed: RangeInclusive<u32>| {
            let text = get(key)?;
            let usable = text.trim().parse().ok().filter(|value| allowed.contains(value));
            if usable.is_none() {
                unusable(key, &text);
            }
            usable
        };
        let burst = number("limit-burst", 0..=u32::MAX);
        let period_ms = number("limit-period-ms", 1..=u32::MAX).unwrap_or(10_000);
        let limit = |burst: u32| (burst > 0).then_some(RateLimit { burst, period_ms });
        Self {
            limit: limit(burst.unwrap_or(10)),
            hit: HitRule {
                weight: number("weight", 0..=HitRule::WEIGHT_MAX).unwrap_or(1),
                unique_ms: number("unique-ms", 0..=u32::MAX).filter(|unique_ms| *unique_ms > 0),
                limit: limit(burst.unwrap_or(0)),
            },
            flush_entries: number("flush-entries", 1..=u32::MAX).unwrap_or(100),
            flush_targets: number("flush-targets", 0..=u32::MAX).unwrap_or(0),
            flush_age_ms: number("flush-age-ms", 0..=u32::MAX).unwrap_or(2_000),
            admission,
        }
    }
}

/// A toggle adds when absent and removes when present; set and clear are the idempotent halves of it.
pub fn decide(settings: &Settings, verb: Verb) -> Rule {
    let (when_absent, when_present) = match verb {
        Verb::Toggle => (Effect::Add, Effect::Remove),
        Verb::Set => (Effect::Add, Effect::Keep),
        Verb::Clear => (Effect::Keep, Effect::Remove),
    };
    Rule { when_absent, when_present, limit: settings.limit }
}

/// Every hit counts for the same.
pub fn count(settings: &Settings) -> HitRule {
    settings.hit
}

/// Flush when enough waits, on enough targets, or when the oldest has waited long enough; look again when that will be.
pub fn plan(settings: &Settings, backlog: Backlog) -> FlushPlan {
    let Backlog { entries, targets, oldest_age_ms, .. } = backlog;
    let age_ms = u64::from(settings.flush_age_ms);
    let many_targets = settings.flush_targets > 0 && targets >= u64::from(settings.flush_targets);
    let is_due = entries >= u64::from(settings.flush_entries) || many_targets || oldest_age_ms >= age_ms;
    let flush_now = entries > 0 && is_due;
    // After a flush the oldest that is left is unknown: whatever comes next is due no sooner than a whole age.
    let wait_ms = if entries == 0 || flush_now { age_ms } else { age_ms - oldest_age_ms };
    // The host's adaptive batch knows better what SQL takes.
    FlushPlan { flush_now, changes_max: u32::MAX, look_again_ms: u32::try_from(wait_ms).unwrap_or(u32::MAX).max(1) }
}

/// Ascending indexes of the last of each equal pair. Sorts instead of hashing: no client can choose ids that make it slow.
pub fn coalesce<Pair: Ord>(pairs: &[Pair]) -> Vec<u32> {
    // A batch has at most 2^32 entries: it comes out of a 32-bit memory.
    let mut order: Vec<u32> = (0..=u32::MAX).take(pairs.len()).collect();
    let pair = |index: u32| &pairs[index as usize];
    order.sort_unstable_by(|&a, &b| pair(a).cmp(pair(b)).then(b.cmp(&a)));
    order.dedup_by(|later, first| pair(*later) == pair(*first));
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(set: &[(&str, &str)]) -> Settings {
        let get = |key: &str| set.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned());
        Settings::read(get, |key, value| panic!("{key} = {value} is unusable"))
    }

    #[test]
    fn each_verb_has_its_table() {
        let table = |verb| {
            let rule = decide(&settings(&[]), verb);
            (rule.when_absent, rule.when_present)
        };
        assert_eq!(table(Verb::Toggle), (Effect::Add, Effect::Remove));
        assert_eq!(table(Verb::Set), (Effect::Add, Effect::Keep));
        assert_eq!(table(Verb::Clear), (Effect::Keep, Effect::Remove));
    }

    #[test]
    fn ten_in_ten_seconds_unless_set_otherwise() {
        let limit = |set: &[(&str, &str)]| decide(&settings(set), Verb::Toggle).limit;
        assert_eq!(limit(&[]), Some(RateLimit { burst: 10, period_ms: 10_000 }));
        assert_eq!(
            limit(&[("limit-burst", "3"), ("limit-period-ms", " 60000 ")]),
            Some(RateLimit { burst: 3, period_ms: 60_000 })
        );
        assert_eq!(limit(&[("limit-burst", "0")]), None);
    }

    #[test]
    fn an_unusable_setting_is_named_and_ignored() {
        let bad = ["", "ten", "-1", "1.5", "4294967296"];
        for value in bad {
            let mut named = Vec::new();
            let get = |key: &str| (key == "limit-burst").then(|| value.to_owned());
            let read = Settings::read(get, |key, value| named.push(format!("{key}={value}")));
            assert_eq!((read, named), (settings(&[]), vec![format!("limit-burst={value}")]));
        }
        let mut named = Vec::new();
        let zero = Settings::read(|_| Some("0".into()), |key, _| named.push(key.to_owned()));
        assert_eq!(named, ["active-ttl-ms", "tick-ms", "limit-period-ms", "flush-entries"]);
        assert_eq!(decide(&zero, Verb::Set).limit, None);
        let mut named = Vec::new();
        let heavy = Settings::read(
            |key| (key == "weight").then(|| "1000001".into()),
            |key, value| named.push(format!("{key}={value}")),
        );
        assert_eq!((count(&heavy).weight, named), (1, vec!["weight=1000001".to_owned()]));
    }

    #[test]
    fn a_hit_counts_one_without_limit_unless_set_otherwise() {
        let counted = |set: &[(&str, &str)]| count(&settings(set));
        let plain = HitRule { weight: 1, unique_ms: None, limit: None };
        assert_eq!(counted(&[]), plain);
        assert_eq!(counted(&[("unique-ms", "0"), ("limit-burst", "0"), ("weight", "1")]), plain);
        assert_eq!(counted(&[("weight", "0")]), HitRule { weight: 0, ..plain });
        let all = [("weight", "1000000"), ("unique-ms", "60000"), ("limit-burst", "3"), ("limit-period-ms", "7")];
        assert_eq!(counted(&all), HitRule::new(1_000_000).unique(60_000).limited(3, 7));
    }

    fn waiting(entries: u64, oldest_age_ms: u64) -> Backlog {
        Backlog::waiting(entries.min(u64::MAX / 19), oldest_age_ms)
    }

    #[test]
    fn a_flush_is_due_by_number_or_by_age() {
        let default = settings(&[]);
        let plan = |entries, age| {
            let plan = plan(&default, waiting(entries, age));
            (plan.flush_now, plan.look_again_ms)
        };
        assert_eq!(plan(0, 0), (false, 2_000));
        assert_eq!(plan(0, 9_000), (false, 2_000));
        assert_eq!(plan(1, 0), (false, 2_000));
        assert_eq!(plan(99, 1_999), (false, 1));
        assert_eq!(plan(100, 0), (true, 2_000));
        assert_eq!(plan(1, 2_000), (true, 2_000));
        assert_eq!(plan(u64::MAX, u64::MAX), (true, 2_000));
    }

    #[test]
    fn with_no_age_a_flush_is_due_at_once_and_the_host_is_not_kept_spinning() {
        let eager = settings(&[("flush-age-ms", "0")]);
        assert_eq!(plan(&eager, waiting(1, 0)), FlushPlan { flush_now: true, changes_max: u32::MAX, look_again_ms: 1 });
        assert_eq!(
            plan(&eager, waiting(0, 0)),
            FlushPlan { flush_now: false, changes_max: u32::MAX, look_again_ms: 1 }
        );
    }

    #[test]
    fn a_flush_is_due_by_targets_where_that_is_set() {
        let of_targets =
            |set: &[(&str, &str)], targets| plan(&settings(set), waiting(50, 0).on_targets(targets)).flush_now;
        assert!(!of_targets(&[], 50) && !of_targets(&[("flush-targets", "0")], 50));
        assert!(!of_targets(&[("flush-targets", "20")], 19) && of_targets(&[("flush-targets", "20")], 20));
    }

    #[test]
    fn the_last_of_each_pair_survives_in_order() {
        assert_eq!(coalesce::<i64>(&[]), Vec::<u32>::new());
        assert_eq!(coalesce(&[(1, "a")]), [0]);
        assert_eq!(coalesce(&[(1, "a"), (1, "b"), (1, "a"), (2, "a"), (1, "b")]), [2, 3, 4]);
        assert_eq!(coalesce(&[(1, "a"); 1_000]), [999]);
        let distinct: Vec<u64> = (0..1_000).rev().collect();
        assert_eq!(coalesce(&distinct), (0..1_000).collect::<Vec<u32>>());
    }
}
