//! The host's data in the language of test vectors and decision logs, and back.

use weir_policy_vectors as vectors;
use weir_policy_vectors::{Answer, Call};

use super::FlushPlan;
use super::bindings::flush;
use crate::model::{Action, Backlog, Effect, Id, Intent, RateLimit, ToggleChange, ToggleRule, Verb};

fn id(id: &Id) -> vectors::Id {
    match id {
        Id::Int(value) => vectors::Id::Int(*value),
        other => vectors::Id::Text(other.to_string()),
    }
}

/// UUIDs cross the border as text, so text is what a module gets again.
fn to_id(id: &vectors::Id) -> Id {
    match id {
        vectors::Id::Int(value) => Id::Int(*value),
        vectors::Id::Text(value) => Id::Text(value.as_str().into()),
    }
}

pub(super) fn to_intent(intent: &vectors::Intent) -> Intent {
    Intent {
        target: to_id(&intent.target),
        actor: to_id(&intent.actor),
        verb: match intent.verb {
            vectors::Verb::Toggle => Verb::Toggle,
            vectors::Verb::Set => Verb::Set,
            vectors::Verb::Clear => Verb::Clear,
        },
    }
}

pub(super) fn to_change(entry: &vectors::Entry) -> ToggleChange {
    ToggleChange {
        target: to_id(&entry.target),
        actor: to_id(&entry.actor),
        action: match entry.action {
            vectors::Action::Add => Action::Add,
            vectors::Action::Remove => Action::Remove,
        },
        at_ms: 0,
    }
}

pub(super) fn to_backlog(backlog: &vectors::Backlog) -> flush::Backlog {
    flush::Backlog { entries: backlog.entries, bytes: backlog.bytes, oldest_age_ms: backlog.oldest_age_ms }
}

/// A call of `toggle.decide`.
pub(super) fn decide(kind: &str, now_ms: u64, batch: &[Intent]) -> Call {
    let intent = |intent: &Intent| vectors::Intent {
        target: id(&intent.target),
        actor: id(&intent.actor),
        verb: match intent.verb {
            Verb::Toggle => vectors::Verb::Toggle,
            Verb::Set => vectors::Verb::Set,
            Verb::Clear => vectors::Verb::Clear,
        },
    };
    Call::ToggleDecide(vectors::ToggleDecide {
        kind: kind.to_owned(),
        now_ms,
        batch: batch.iter().map(intent).collect(),
    })
}

/// A call of `flush.plan`.
pub(super) fn flush_plan(kind: &str, now_ms: u64, backlog: &Backlog) -> Call {
    let waiting = super::convert::backlog(backlog, now_ms);
    let (entries, bytes, oldest_age_ms) = (waiting.entries, waiting.bytes, waiting.oldest_age_ms);
    let backlog = vectors::Backlog { entries, bytes, oldest_age_ms };
    Call::FlushPlan(vectors::FlushPlan { kind: kind.to_owned(), now_ms, backlog })
}

/// A call of `flush.coalesce`.
pub(super) fn flush_coalesce(kind: &str, changes: &[ToggleChange]) -> Call {
    let entry = |change: &ToggleChange| vectors::Entry {
        target: id(&change.target),
        actor: id(&change.actor),
        action: match change.action {
            Action::Add => vectors::Action::Add,
            Action::Remove => vectors::Action::Remove,
        },
    };
    let entries = changes.iter().map(entry).collect();
    Call::FlushCoalesce(vectors::FlushCoalesce { kind: kind.to_owned(), entries })
}

/// The answer of `toggle.decide`.
pub(super) fn rules(rules: &[ToggleRule]) -> Answer {
    let effect = |effect| match effect {
        Effect::Add => vectors::Effect::Add,
        Effect::Remove => vectors::Effect::Remove,
        Effect::Keep => vectors::Effect::Keep,
        Effect::Deny => vectors::Effect::Deny,
    };
    let limit = |limit: RateLimit| vectors::RateLimit { burst: limit.burst, period_ms: limit.period_ms };
    let rule = |rule: &ToggleRule| vectors::Rule {
        when_absent: effect(rule.when_absent),
        when_present: effect(rule.when_present),
        limit: rule.limit.map(limit),
    };
    Answer::Rules(rules.iter().map(rule).collect())
}

/// The answer of `flush.plan`.
pub(super) fn plan(plan: &FlushPlan) -> Answer {
    let FlushPlan { flush_now, changes_max, look_again_ms } = *plan;
    Answer::Plan(vectors::Plan { flush_now, changes_max, look_again_ms })
}
