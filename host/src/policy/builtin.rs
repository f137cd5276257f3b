//! The built-in rules: the component that is compiled in, and the same rules natively, to fall back on.

use std::collections::BTreeMap;

use weir_default_policy::rules::{self, Settings};

use super::FlushPlan;
use crate::model::{Backlog, Effect, Intent, RateLimit, ToggleRule, Verb};

/// The default policy, built by `weir policy build guest/default`. A test fails when it is older than its sources.
pub(super) const COMPONENT: &[u8] = include_bytes!("../../../guest/default/policy.wasm");

/// Reads a kind's settings as the default rules understand them. What is unusable is said by the component, once.
pub(super) fn settings(kind: &BTreeMap<String, String>) -> Settings {
    Settings::read(|key| kind.get(key).cloned(), |_, _| ())
}

/// The built-in rules for a batch.
pub(super) fn decide(settings: &Settings, batch: &[Intent]) -> Vec<ToggleRule> {
    let effect = |effect| match effect {
        rules::Effect::Add => Effect::Add,
        rules::Effect::Remove => Effect::Remove,
        rules::Effect::Keep => Effect::Keep,
    };
    let rule = |intent: &Intent| {
        let verb = match intent.verb {
            Verb::Toggle => rules::Verb::Toggle,
            Verb::Set => rules::Verb::Set,
            Verb::Clear => rules::Verb::Clear,
        };
        let rule = rules::decide(settings, verb);
        ToggleRule {
            when_absent: effect(rule.when_absent),
            when_present: effect(rule.when_present),
            limit: rule.limit.map(|(burst, period_ms)| RateLimit { burst, period_ms }),
        }
    };
    batch.iter().map(rule).collect()
}

/// The built-in plan.
pub(super) fn plan(settings: &Settings, now_ms: u64, backlog: &Backlog) -> FlushPlan {
    let plan = rules::plan(settings, backlog.entries, backlog.oldest_age_ms(now_ms));
    FlushPlan { flush_now: plan.flush_now, changes_max: u32::MAX, look_again_ms: plan.look_again_ms }
}
