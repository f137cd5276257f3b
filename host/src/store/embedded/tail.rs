//! What waits in the journal of targets that are not known, after a restart: it is laid over what SQL says of them.

use std::collections::HashMap;

use super::target::{Mode, Pair, Target};
use crate::model::{Action, Change, Id, Position, Settings};
use crate::store::count::COUNT_MAX;

/// What the journal holds of a target that is not known: of a toggle the last change of each pair, of a counter what each
/// entry adds, of a member the last value of each field.
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

    /// Whether it can be laid over a target that SQL has shown as of the checkpoint at `position`, or later. Whether what
    /// came later changed the count of a huge target, only its rows could tell. Whether SQL has shown it in a count, nobody
    /// can tell once the flusher has read it: it has read up to `read_to`.
    pub(super) fn fits(&self, target: &Target, position: Position, read_to: Position) -> bool {
        match target.mode {
            Mode::Huge => self.last <= position,
            Mode::Count => self.last <= position || read_to <= position,
            Mode::Missing | Mode::Whole | Mode::Exists | Mode::Settings => true,
        }
    }

    /// Lays it over what SQL said of the target as of the checkpoint at `position`, which is no earlier than the journal's
    /// `flushed`. Changes of pairs say what holds afterwards, so it does not matter which of them SQL has already;
    /// increments do not, so they count from the checkpoint on.
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
