//! The search for rows that can never be stored, and for those that are locked, by halving whatever failed.
//!
//! Runs inside of a flush transaction, under savepoints. Decides nothing about when to flush, and never retries.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use super::flush::{Effect, Flush, FlushTransaction, locked_or};
use crate::aside::{Waiting, between_targets};
use crate::classify::{Class, judge, kept, sql_error};
use crate::engine::Engine;
use crate::lease::within;
use crate::{Applied, Row, SqlError};
use weir_core::model::Id;

/// Locks that are met in one search; what fails then is set aside as a whole, rather than keep the locks of all others.
const LOCKS_MET_MAX: usize = 200;
/// Marks the point that `UNDO` returns to.
const MARK: &str = "SAVEPOINT weir_rows";
/// Undoes everything since the mark.
const UNDO: &str = "ROLLBACK TO SAVEPOINT weir_rows";
/// Forgets the mark.
const UNMARK: &str = "RELEASE SAVEPOINT weir_rows";

/// Which rows are stored together, and in which order: counts are there before their events.
fn case(row: &Row) -> u8 {
    match row {
        Row::Toggle(_) => 0,
        Row::Count(_) => 1,
        Row::Event(_) => 2,
        Row::Document(_) => 3,
        Row::Settings(_) => 4,
    }
}

/// The rows in the order in which they are written. Neighbours in the index are written together, and all flushers lock
/// in the same order; events of one target stay in the order of the journal.
fn order(rows: &[Row]) -> Vec<usize> {
    let key = |row: &usize| {
        let row = &rows[*row];
        (case(row), row.target(), row.actor().filter(|_| matches!(row, Row::Toggle(_))))
    };
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|a, b| key(a).cmp(&key(b)));
    order
}

/// Runs of rows of one case, the last one first; of indexes in their order.
fn runs(rows: &[Row], order: &[usize]) -> Vec<Vec<usize>> {
    let parts = order.chunk_by(|a, b| case(&rows[*a]) == case(&rows[*b]));
    let mut runs: Vec<Vec<usize>> = parts.map(<[usize]>::to_vec).collect();
    runs.reverse();
    runs
}

/// Adds what one part did, whose rows these are.
fn take(applied: &mut Applied, effect: Effect, rows: &[usize]) {
    applied.inserted += effect.inserted;
    applied.deleted += effect.deleted;
    applied.updated += effect.updated;
    applied.dead.extend(effect.dead.iter().map(|(index, reason)| (rows[*index], kept(reason))));
}

/// Stores all rows but those that can never be stored, and those whose targets are locked where these are set aside. It
/// finds both by halving whatever failed: one bad row among n costs about 2·log2(n) parts.
pub(super) struct Search<'a> {
    rows: &'a [Row],
    set_aside: bool,
    /// Parts to store: indexes of rows.
    todo: Vec<Vec<usize>>,
    /// Targets that wait.
    waiting: &'a mut Waiting,
    /// Targets of which something was written or became a dead letter; noted where others are set aside.
    written: BTreeSet<&'a Id>,
    locks_met: usize,
    applied: Applied,
}

impl<'a> Search<'a> {
    /// Of all rows of a flush.
    pub(super) fn new(flush: &Flush<'a>, waiting: &'a mut Waiting) -> Self {
        let rows = flush.rows;
        Self {
            rows,
            set_aside: flush.around.set_aside,
            todo: runs(rows, &order(rows)),
            waiting,
            written: BTreeSet::new(),
            locks_met: 0,
            applied: Applied::default(),
        }
    }

    /// `None` when a target is locked of which something was written already.
    pub(super) async fn run<E: Engine>(
        mut self,
        flush: &mut FlushTransaction<'_, E>,
        limit: Duration,
    ) -> Result<Option<Applied>, SqlError> {
        // Check the tables before declaring any row dead: once for each case, and for each word of the database.
        let mut looked_at = HashSet::new();
        while let Some(mut part) = self.todo.pop() {
            let all = self.rows;
            part.retain(|index| self.waiting.is_empty() || !self.waiting.contains_key(all[*index].target()));
            let rows: Vec<&Row> = part.iter().map(|index| &all[*index]).collect();
            let Some(first) = rows.first().copied() else { continue };
            within(limit, flush.command(MARK)).await.map_err(sql_error)?;
            let stored = within(limit, flush.store(&rows)).await;
            let failure = stored.as_ref().err().map(judge);
            if let Some(failure) = &failure {
                if !(failure.class == Class::Row || failure.class == Class::Locked && self.set_aside) {
                    return Err(locked_or(failure.clone()));
                }
                within(limit, flush.command(UNDO)).await.map_err(sql_error)?;
            }
            let someone_is_dead = match &stored {
                Ok(effect) => !effect.dead.is_empty(),
                Err(_) => failure.as_ref().is_some_and(|failure| failure.class == Class::Row),
            };
            let said = failure.as_ref().map_or("", |failure| failure.reason.as_str());
            let code = said.split([' ', ':']).next().unwrap_or_default();
            if someone_is_dead
                && looked_at.insert((case(first), code.to_owned()))
                && let Some(problem) = within(limit, flush.mismatch(first, said)).await.map_err(sql_error)?
            {
                let reason = if said.is_empty() { String::new() } else { format!(" ({said})") };
                return Err(SqlError::Permanent(format!("{problem}{reason}")));
            }
            if failure.is_some() || !self.todo.is_empty() {
                within(limit, flush.command(UNMARK)).await.map_err(sql_error)?;
            }
            match (stored, failure) {
                (Ok(effect), _) => {
                    take(&mut self.applied, effect, &part);
                    self.note_written(&part);
                }
                (Err(_), Some(failure)) if failure.class == Class::Locked => {
                    if !self.wait(part, &failure.reason) {
                        return Ok(None);
                    }
                }
                (Err(_), failure) => self.halve(part, failure.map_or_else(String::new, |failure| failure.reason)),
            }
        }
        self.applied.dead.sort_unstable_by_key(|(index, _)| *index);
        Ok(Some(self.applied))
    }

    /// A part has a row that can never be stored.
    fn halve(&mut self, mut part: Vec<usize>, reason: String) {
        if let [index] = part[..] {
            self.applied.dead.push((index, reason));
            self.note_written(&part);
            return;
        }
        let rest = part.split_off(part.len() / 2);
        self.todo.push(rest);
        self.todo.push(part);
    }

    /// A part has a row that is locked. `false` when something of its target was written already.
    fn wait(&mut self, mut part: Vec<usize>, reason: &str) -> bool {
        self.locks_met += 1;
        if let Some(at) = between_targets(self.rows, &part).filter(|_| self.locks_met < LOCKS_MET_MAX) {
            let rest = part.split_off(at);
            self.todo.push(rest);
            self.todo.push(part);
            return true;
        }
        let (rows, mut is_whole) = (self.rows, true);
        for index in part {
            let target = rows[index].target();
            is_whole &= !self.written.contains(target);
            self.waiting.entry(target.clone()).or_insert_with(|| (index, reason.to_owned()));
        }
        is_whole
    }

    fn note_written(&mut self, part: &[usize]) {
        if self.set_aside {
            let rows = self.rows;
            self.written.extend(part.iter().map(|index| rows[*index].target()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CountRow, EventRow, RowChange};
    use weir_core::model::{Action, Id, Origin};

    fn count(target: i64) -> Row {
        Row::Count(CountRow { origin: Origin::default(), target: Id::Int(target), by: 1 })
    }

    fn event(target: i64, actor: i64, at_ms: u64) -> Row {
        let origin = Origin { at_ms, ..Origin::default() };
        Row::Event(EventRow { origin, target: Id::Int(target), actor: Some(Id::Int(actor)), by: 1 })
    }

    #[test]
    fn counts_come_first_and_events_keep_the_order_of_the_journal() {
        let rows = [event(2, 9, 1), count(2), event(1, 5, 2), count(1), event(2, 1, 3)];
        let order = order(&rows);
        assert_eq!(order, [3, 1, 2, 0, 4]);
        assert_eq!(runs(&rows, &order), [vec![2, 0, 4], vec![3, 1]], "the last run first");
        assert!(runs(&[], &[]).is_empty());
    }

    #[test]
    fn toggles_are_ordered_by_target_and_actor() {
        let toggle = |target: i64, actor: i64| {
            let (origin, target, actor) = (Origin::default(), Id::Int(target), Id::Int(actor));
            Row::Toggle(RowChange { origin, target, actor, action: Action::Add })
        };
        assert_eq!(order(&[toggle(2, 1), toggle(1, 9), toggle(1, 10), toggle(1, 2)]), [3, 1, 2, 0]);
    }
}
