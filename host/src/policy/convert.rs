//! Across the border: the host's data into the guest's types, and the guest's answers checked before they are believed.

use std::collections::HashSet;

use super::FlushPlan;
use super::bindings::{Id as WireId, flush, toggle};
use crate::model::{Action, Backlog, Effect, Id, Intent, RateLimit, ToggleChange, ToggleRule, Verb};

/// Length of a hyphenated UUID.
const UUID_TEXT_BYTES: usize = 36;

/// Room for the texts of all UUIDs of a batch: one allocation, none when there are no UUIDs.
pub(super) struct UuidTexts(Vec<u8>);

impl UuidTexts {
    /// Room for the UUIDs among `ids`.
    pub(super) fn for_ids<'a>(ids: impl Iterator<Item = &'a Id>) -> Self {
        let uuids = ids.filter(|id| matches!(id, Id::Uuid(_))).count();
        Self(vec![0; uuids * UUID_TEXT_BYTES])
    }

    fn writer(&mut self) -> UuidWriter<'_> {
        UuidWriter(&mut self.0)
    }
}

struct UuidWriter<'a>(&'a mut [u8]);

impl<'a> UuidWriter<'a> {
    fn id(&mut self, id: &'a Id) -> WireId<'a> {
        match id {
            Id::Int(value) => WireId::Int(*value),
            Id::Text(value) => WireId::Text(value),
            Id::Uuid(value) => {
                let (text, rest) = std::mem::take(&mut self.0).split_at_mut(UUID_TEXT_BYTES);
                self.0 = rest;
                WireId::Text(value.hyphenated().encode_lower(text))
            }
        }
    }
}

/// A batch for `toggle.decide`. `texts` is [`UuidTexts::for_ids`] of its ids.
pub(super) fn intents<'a>(batch: &'a [Intent], texts: &'a mut UuidTexts) -> Vec<toggle::Intent<'a>> {
    let mut writer = texts.writer();
    let intent = |intent: &'a Intent| toggle::Intent {
        target: writer.id(&intent.target),
        actor: writer.id(&intent.actor),
        verb: match intent.verb {
            Verb::Toggle => toggle::Verb::Toggle,
            Verb::Set => toggle::Verb::Set,
            Verb::Clear => toggle::Verb::Clear,
        },
    };
    batch.iter().map(intent).collect()
}

/// Changes for `flush.coalesce`. `texts` is [`UuidTexts::for_ids`] of their ids.
pub(super) fn entries<'a>(changes: &'a [ToggleChange], texts: &'a mut UuidTexts) -> Vec<flush::Entry<'a>> {
    let mut writer = texts.writer();
    let entry = |change: &'a ToggleChange| flush::Entry {
        target: writer.id(&change.target),
        actor: writer.id(&change.actor),
        action: match change.action {
            Action::Add => flush::Action::Add,
            Action::Remove => flush::Action::Remove,
        },
    };
    changes.iter().map(entry).collect()
}

/// A backlog for `flush.plan`.
pub(super) fn backlog(backlog: &Backlog, now_ms: u64) -> flush::Backlog {
    flush::Backlog {
        entries: backlog.entries,
        bytes: backlog.bytes,
        oldest_age_ms: if backlog.entries == 0 { 0 } else { backlog.oldest_age_ms(now_ms) },
    }
}

/// The answer of `toggle.decide` to a batch of `length`, or how it breaks the contract.
pub(super) fn check_rules(length: usize, rules: &[toggle::Rule]) -> Result<Vec<ToggleRule>, String> {
    if rules.len() != length {
        return Err(format!("{} rules for {length} intents", rules.len()));
    }
    let effect = |effect| match effect {
        toggle::Effect::Add => Effect::Add,
        toggle::Effect::Remove => Effect::Remove,
        toggle::Effect::Keep => Effect::Keep,
        toggle::Effect::Deny => Effect::Deny,
    };
    let rule = |(index, rule): (usize, &toggle::Rule)| {
        let limit = match rule.limit {
            None => None,
            Some(limit) if limit.burst == 0 => return Err(format!("rule {index} has a limit with a burst of 0")),
            Some(limit) if limit.period_ms == 0 => return Err(format!("rule {index} has a limit with a period of 0")),
            Some(limit) => Some(RateLimit { burst: limit.burst, period_ms: limit.period_ms }),
        };
        Ok(ToggleRule { when_absent: effect(rule.when_absent), when_present: effect(rule.when_present), limit })
    };
    rules.iter().enumerate().map(rule).collect()
}

/// The answer of `flush.plan`, or how it breaks the contract.
pub(super) fn check_plan(plan: flush::FlushPlan) -> Result<FlushPlan, String> {
    if plan.changes_max == 0 {
        return Err("changes-max is 0".into());
    }
    if plan.look_again_ms == 0 {
        return Err("look-again-ms is 0".into());
    }
    Ok(FlushPlan { flush_now: plan.flush_now, changes_max: plan.changes_max, look_again_ms: plan.look_again_ms })
}

/// The answer of `flush.coalesce`, or how it breaks the contract. `last` is [`last_of_each_pair`]: nothing of it may be
/// missing. What a guest keeps beyond it is overtaken by a later change of the same pair, so `last` is what is written.
pub(super) fn check_kept(last: &[usize], changes: usize, kept: &[u32]) -> Result<(), String> {
    let mut previous: Option<usize> = None;
    let mut needed = last.iter().copied().peekable();
    for index in kept.iter().map(|&index| index as usize) {
        if index >= changes {
            return Err(format!("index {index} is out of the range of {changes} entries"));
        }
        if previous.is_some_and(|previous| index <= previous) {
            return Err(format!("index {index} is not greater than the one before it"));
        }
        previous = Some(index);
        needed.next_if_eq(&index);
    }
    match needed.next() {
        None => Ok(()),
        Some(index) => Err(format!("entry {index}, the last of its pair, is dropped")),
    }
}

/// Ascending indexes of the last change of each (target, actor) pair: the host's own rule, and the measure of a guest's.
pub(super) fn last_of_each_pair(changes: &[ToggleChange]) -> Vec<usize> {
    let mut seen = HashSet::with_capacity(changes.len());
    let newest_first = changes.iter().enumerate().rev();
    let mut last: Vec<usize> = newest_first
        .filter(|(_, change)| seen.insert((&change.target, &change.actor)))
        .map(|(index, _)| index)
        .collect();
    last.reverse();
    last
}
