//! Makes a component of the rules, and remembers the settings of its kinds.

use std::cell::RefCell;
use std::collections::BTreeMap;

use weir_policy_sdk::{
    Admission, AdmissionPlan, Arrival, Backlog, Cache, CacheRule, Column, Counter, Delivery, Document, Entry, Flush,
    FlushPlan, Hit, HitRule, Id, Ingest, Intent, Level, Placement, ReadProfile, Room, Rule, Toggle, Values, Verdict,
    log, setting,
};

use crate::admission;
use crate::delivery;
use crate::rules::{self, Settings};

/// Kinds whose settings are remembered. The host has few; a bound keeps the memory of an instance flat all the same.
const KINDS_REMEMBERED_MAX: usize = 1_024;

struct DefaultPolicy;

weir_policy_sdk::export!(DefaultPolicy:toggle, counter, ingest, delivery, flush, admission, cache);

thread_local! {
    static SETTINGS: RefCell<BTreeMap<String, Settings>> = const { RefCell::new(BTreeMap::new()) };
    static DELIVERY: RefCell<BTreeMap<String, delivery::Settings>> = const { RefCell::new(BTreeMap::new()) };
}

/// The settings of `kind`. They never change during an instance's life, so they are asked for once.
fn settings(kind: &str) -> Settings {
    SETTINGS.with_borrow_mut(|known| {
        if let Some(settings) = known.get(kind) {
            return *settings;
        }
        let ignored = |key: &str, value: &str| {
            log(Level::Warn, &format!("setting {key} of {kind} is {value:?}, which is not usable: the default holds"));
        };
        let settings = Settings::read(|key| setting(kind, key), ignored);
        if known.len() < KINDS_REMEMBERED_MAX {
            known.insert(kind.to_owned(), settings);
        }
        settings
    })
}

impl Toggle for DefaultPolicy {
    fn decide(kind: &str, _now_ms: u64, batch: &[Intent]) -> Vec<Rule> {
        let settings = settings(kind);
        batch.iter().map(|intent| rules::decide(&settings, intent.verb)).collect()
    }
}

impl Counter for DefaultPolicy {
    fn decide(kind: &str, _now_ms: u64, batch: &[Hit]) -> Vec<HitRule> {
        vec![rules::count(&settings(kind)); batch.len()]
    }
}

impl Ingest for DefaultPolicy {
    fn validate(_kind: &str, _now_ms: u64, batch: &[Document]) -> Vec<Verdict> {
        batch.iter().map(|_| Ok(None)).collect()
    }
}

impl Delivery for DefaultPolicy {
    fn fields(kind: &str, topic: &str) -> Vec<String> {
        delivery::fields(setting(kind, &format!("topic:{topic}")).as_deref())
    }

    fn enabled(kind: &str, _topic: &str, now_ms: u64, members: usize, columns: &[Column]) -> Vec<bool> {
        let columns: Vec<delivery::Column<'_>> = columns.iter().map(column).collect();
        DELIVERY.with_borrow_mut(|known| {
            if known.len() >= KINDS_REMEMBERED_MAX && !known.contains_key(kind) {
                known.clear();
            }
            if let Some(settings) = known.get(kind) {
                return delivery::enabled(settings, now_ms, members, &columns);
            }
            let settings = delivery::Settings::read(|key| setting(kind, key));
            let enabled = delivery::enabled(&settings, now_ms, members, &columns);
            known.insert(kind.to_owned(), settings);
            enabled
        })
    }
}

/// A column as the rules take it.
fn column(column: &Column) -> delivery::Column<'_> {
    let values = match &column.values {
        Values::Bools(values) => delivery::Values::Bools(values),
        Values::Ints(values) => delivery::Values::Ints(values),
        Values::Texts(values) => delivery::Values::Texts(values.iter().map(String::as_str).collect()),
    };
    delivery::Column { field: &column.field, values }
}

impl Flush for DefaultPolicy {
    fn plan(kind: &str, _now_ms: u64, backlog: &Backlog) -> FlushPlan {
        rules::plan(&settings(kind), *backlog)
    }

    fn coalesce(_kind: &str, entries: &[Entry]) -> Vec<u32> {
        let pairs: Vec<(&Id, &Id)> = entries.iter().map(|entry| (&entry.target, &entry.actor)).collect();
        rules::coalesce(&pairs)
    }
}

impl Admission for DefaultPolicy {
    fn place(kind: &str, now_ms: u64, batch: &[Arrival]) -> Vec<Placement> {
        vec![admission::place(&settings(kind).admission, now_ms); batch.len()]
    }

    fn plan(kind: &str, now_ms: u64, room: &Room) -> AdmissionPlan {
        admission::plan(&settings(kind).admission, now_ms, *room)
    }
}

impl Cache for DefaultPolicy {
    fn eligible(_kind: &str, _now_ms: u64, profile: &ReadProfile) -> CacheRule {
        match rules::cache::eligible(profile) {
            Ok(keep) => CacheRule::Store(keep),
            Err(reason) => CacheRule::Bypass(reason.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_policy_sdk::{Effect, testing, vectors};

    #[test]
    fn the_cases_hold() {
        vectors::check::<DefaultPolicy>(include_str!("../cases.json"));
    }

    #[test]
    fn a_batch_is_answered_in_order() {
        testing::set("like", "limit-burst", "2");
        let batch = [Intent::clear(1, 9), Intent::toggle(1, "bo"), Intent::set("a", "b")];
        let rules = <DefaultPolicy as Toggle>::decide("like", 5, &batch);
        let limited = |absent, present| Rule::new(absent, present).limited(2, 10_000);
        let expected = [
            limited(Effect::Keep, Effect::Remove),
            limited(Effect::Add, Effect::Remove),
            limited(Effect::Add, Effect::Keep),
        ];
        assert_eq!(rules, expected);
        assert!(<DefaultPolicy as Toggle>::decide("like", 5, &[]).is_empty());
    }

    #[test]
    fn hits_and_documents_are_answered_one_by_one() {
        testing::set("view", "weight", "2");
        testing::set("view", "unique-ms", "1000");
        testing::set("view", "limit-burst", "3");
        let batch = [Hit::new(1, 9), Hit::anonymous("a").times(5)];
        let rules = <DefaultPolicy as Counter>::decide("view", 5, &batch);
        assert_eq!(rules, [HitRule::new(2).unique(1_000).limited(3, 10_000); 2]);
        assert!(<DefaultPolicy as Counter>::decide("view", 5, &[]).is_empty());
        let batch = [Document::new("a", 9, "{}"), Document::new("b", 9, r#"{"title":"x"}"#)];
        assert_eq!(DefaultPolicy::validate("playlist", 5, &batch), [Ok(None), Ok(None)]);
    }

    #[test]
    fn settings_are_per_kind_and_read_once() {
        testing::set("eager", "flush-entries", "1");
        let flushes = |kind: &str| <DefaultPolicy as Flush>::plan(kind, 0, &Backlog::waiting(1, 0)).flush_now;
        assert_eq!((flushes("eager"), flushes("other")), (true, false));
        testing::set("eager", "flush-entries", "2");
        assert!(flushes("eager"), "an instance never sees settings change");
    }

    #[test]
    fn an_unusable_setting_is_logged_once() {
        testing::set("like", "flush-age-ms", "soon");
        assert_eq!(<DefaultPolicy as Flush>::plan("like", 0, &Backlog::waiting(1, 0)).look_again_ms, 2_000);
        <DefaultPolicy as Flush>::plan("like", 0, &Backlog::waiting(1, 0));
        let logged = testing::logged();
        assert_eq!(logged.len(), 1);
        assert!(logged[0].1.contains("flush-age-ms of like is \"soon\""), "{logged:?}");
    }

    #[test]
    fn ids_of_both_cases_are_told_apart() {
        let entries = [Entry::add(1, 1), Entry::add("1", 1), Entry::remove(1, 1), Entry::add(1, "1")];
        assert_eq!(DefaultPolicy::coalesce("like", &entries), [1, 2, 3]);
    }
}
