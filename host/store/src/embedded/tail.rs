//! The tail of the journal for targets that are not loaded, after a restart: the store lays it over the rows of SQL.

use std::collections::HashMap;

use super::target::{Mode, Pair, Target};
use crate::count::COUNT_MAX;
use weir_core::model::{Action, Change, Id, Position, Settings};

/// The journal's changes of a target that is not loaded: of a toggle the last change of each pair, of a counter the amount of
/// each entry, of a member the last value of each field.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pairs: HashMap<Id, (Action, u64)>,
    increments: Vec<(Position, u64)>,
    settings: Settings,
    pub(super) last: Position,
}

impl Tail {
    /// Takes a change of the entry at `position`, accepted at `at_ms`, no earlier than those before. Documents have no tail.
    pub(super) fn add(&mut self, position: Position, at_ms: u64, change: Change) {
        self.last = position;
        match change {
            Change::Toggle(change) => drop(self.pairs.insert(change.actor, (change.action, at_ms))),
            Change::Count(change) => match self.increments.last_mut() {
                Some((last, by)) if *last == position => *by = by.saturating_add(change.by),
                _ => self.increments.push((position, change.by)),
            },
            Change::Settings(change) => self.settings = change.settings.over(&self.settings),
            Change::Document(_) => {}
        }
    }

    /// Whether it can be laid over a target whose rows were read at the checkpoint at `position`, or later. Only the rows of a
    /// huge target could tell whether a later change altered its count. Once the flusher has read the journal up to `read_to`,
    /// the store cannot tell whether a count in SQL contains it.
    pub(super) fn fits(&self, target: &Target, position: Position, read_to: Position) -> bool {
        match target.mode {
            Mode::Huge => self.last <= position,
            Mode::Count => self.last <= position || read_to <= position,
            Mode::Missing | Mode::Whole | Mode::Exists | Mode::Settings => true,
        }
    }

    /// Lays it over what SQL returned for the target as of the checkpoint at `position`, which is no earlier than the journal's
    /// `flushed`. A change of a pair states the result, so it does not matter whether SQL already has it; increments do not, so
    /// they count from the checkpoint on.
    pub(super) fn over(self, target: &mut Target, position: Position, flushed: Position) {
        if target.mode == Mode::Whole {
            for (actor, (action, at_ms)) in self.pairs {
                match action {
                    Action::Remove => target.set(&actor, Pair::Absent),
                    Action::Add if target.pair(&actor) == Pair::Absent => target.set(&actor, Pair::Present(at_ms)),
                    Action::Add => {}
                }
            }
            target.count = target.pairs_known();
        } else if target.mode == Mode::Count {
            let later = self.increments.iter().filter(|(of, _)| *of > position);
            target.count = later.fold(target.count, |count, (_, by)| count.saturating_add(*by)).min(COUNT_MAX);
        }
        if target.mode == Mode::Settings {
            target.settings = self.settings.over(&target.settings);
        }
        target.last = self.last;
        if self.last > flushed {
            target.expires_ms = 0;
        }
    }
}
