//! `flush`: a backlog out, a plan back; changes out, the indexes of those that survive back.

use std::collections::HashSet;

use weir_default_policy::rules::{self, Settings};
use weir_policy_vectors as vectors;
use weir_policy_vectors::Call;

use super::Interface;
use crate::bindings::flush;
use crate::call::{Called, Outcome, Role, not_exported};
use crate::convert::UuidTexts;
use crate::instance::Warm;
use crate::module::Module;
use crate::record::{self, to_id};
use weir_core::model::{Action, Backlog, FlushPlan, ToggleChange};

/// Changes that one deadline is for when a batch is coalesced: it is many times the size of a batch of requests.
const COALESCE_STEP: usize = 1_000;

impl Module {
    /// When to flush.
    pub(crate) fn plan(&self, role: Role, kind: &str, now_ms: u64, waiting: vectors::Backlog) -> Outcome<FlushPlan> {
        let vectors::Backlog { entries, targets, bytes, oldest_age_ms } = waiting;
        let waiting = flush::Backlog { entries, targets, bytes, oldest_age_ms };
        let call = |warm: &mut Warm| match &warm.exports.flush {
            Some(flush) => flush.call_plan(&mut warm.store, kind, now_ms, waiting),
            None => Err(not_exported()),
        };
        self.run(role, Called { interface: Interface::Flush, function: "plan", kind }, 1, call, check_plan)
    }

    /// Indexes of the changes that survive, `last` among them: [`last_of_each_pair`].
    pub(crate) fn coalesce(
        &self,
        role: Role,
        kind: &str,
        changes: &[ToggleChange],
        last: &[usize],
    ) -> Outcome<Vec<u32>> {
        let mut texts = UuidTexts::for_ids(changes.iter().flat_map(|change| [&change.target, &change.actor]));
        let entries = entries(changes, &mut texts);
        let call = |warm: &mut Warm| match &warm.exports.flush {
            Some(flush) => flush.call_coalesce(&mut warm.store, kind, &entries),
            None => Err(not_exported()),
        };
        let check = |kept: Vec<u32>| check_kept(last, changes.len(), &kept).map(|()| kept);
        let deadlines = changes.len().div_ceil(COALESCE_STEP) as u64;
        self.run(role, Called { interface: Interface::Flush, function: "coalesce", kind }, deadlines, call, check)
    }
}

/// A backlog as the rules see it at `now_ms`.
pub(crate) fn backlog(backlog: &Backlog, now_ms: u64) -> vectors::Backlog {
    vectors::Backlog {
        entries: backlog.entries,
        targets: backlog.targets,
        bytes: backlog.bytes,
        oldest_age_ms: if backlog.entries == 0 { 0 } else { backlog.oldest_age_ms(now_ms) },
    }
}

/// Changes as the guest gets them. `texts` is [`UuidTexts::for_ids`] of their ids.
fn entries<'a>(changes: &'a [ToggleChange], texts: &'a mut UuidTexts) -> Vec<flush::Entry<'a>> {
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

/// A plan, or how it breaks the contract.
fn check_plan(plan: flush::FlushPlan) -> Result<FlushPlan, String> {
    if plan.changes_max == 0 {
        return Err("changes-max is 0".into());
    }
    if plan.look_again_ms == 0 {
        return Err("look-again-ms is 0".into());
    }
    Ok(FlushPlan { flush_now: plan.flush_now, changes_max: plan.changes_max, look_again_ms: plan.look_again_ms })
}

/// What survives, or how it breaks the contract. `last` is [`last_of_each_pair`]: nothing of it may be missing. What a
/// guest keeps beyond it is overtaken by a later change of the same pair, so `last` is what is written.
fn check_kept(last: &[usize], changes: usize, kept: &[u32]) -> Result<(), String> {
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
pub(crate) fn last_of_each_pair(changes: &[ToggleChange]) -> Vec<usize> {
    let mut seen = HashSet::with_capacity(changes.len());
    let newest_first = changes.iter().enumerate().rev();
    let mut last: Vec<usize> = newest_first
        .filter(|(_, change)| seen.insert((&change.target, &change.actor)))
        .map(|(index, _)| index)
        .collect();
    last.reverse();
    last
}

/// The built-in plan.
pub(crate) fn builtin_plan(settings: &Settings, now_ms: u64, waiting: &Backlog) -> FlushPlan {
    rules::plan(settings, backlog(waiting, now_ms))
}

/// A call of `flush.plan`.
pub(crate) fn record_plan(kind: &str, now_ms: u64, waiting: &Backlog) -> Call {
    Call::FlushPlan(vectors::PlanFlush { kind: kind.to_owned(), now_ms, backlog: backlog(waiting, now_ms) })
}

/// A call of `flush.coalesce`.
pub(crate) fn record_coalesce(kind: &str, changes: &[ToggleChange]) -> Call {
    let entry = |change: &ToggleChange| vectors::Entry {
        target: record::id(&change.target),
        actor: record::id(&change.actor),
        action: change.action,
    };
    let entries = changes.iter().map(entry).collect();
    Call::FlushCoalesce(vectors::FlushCoalesce { kind: kind.to_owned(), entries })
}

/// A recorded change.
pub(crate) fn to_change(entry: &vectors::Entry) -> ToggleChange {
    ToggleChange { target: to_id(&entry.target), actor: to_id(&entry.actor), action: entry.action }
}
