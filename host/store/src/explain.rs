//! The parts of `weir explain` that both stores share.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::Head;
use weir_core::journal::Entry;
use weir_core::model::{Action, Change, Id};

/// Most journal entries of one pair that are shown: the newest.
const ENTRIES_MAX: usize = 100;

/// Adds the changes in `entry` of the target, or of the pair where there is an actor; keeps the newest [`ENTRIES_MAX`].
pub(super) fn entry(entry: &Entry, target: &Id, actor: Option<&Id>, found: &mut VecDeque<Value>) {
    let concerns = |change: &&Change| change.target() == target && (actor.is_none() || change.actor() == actor);
    for change in entry.changes.iter().filter(concerns) {
        if found.len() == ENTRIES_MAX {
            found.pop_front();
        }
        found.push_back(json!({
            "position": entry.position,
            "action": match change {
                Change::Toggle(change) if change.action == Action::Add => "add",
                Change::Toggle(_) => "remove",
                Change::Count(_) => "count",
                Change::Document(_) => "create",
                Change::Settings(_) => "set",
            },
            "at_ms": entry.at_ms,
            "digest": entry.digest.to_string(),
        }));
    }
}

/// A head.
pub(super) fn head(head: &Head) -> Value {
    json!({
        "incarnation": head.incarnation.to_string(),
        "last": head.last,
        "flushed": head.flushed,
        "floor": head.floor,
        "backlog": head.backlog,
    })
}
