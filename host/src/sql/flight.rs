//! One flush transaction: fence, rows, dead letters, commit; and the search for rows that can never be stored.
//!
//! Engine-free part of the room: an engine lends it a [`Flight`] and all statements are the engine's. Decides nothing
//! about when to flush, and never retries.

use std::collections::{BTreeSet, HashSet};
use std::future::Future;
use std::time::Duration;

use super::aside::{Around, Waiting, between_targets, settled};
use super::classify::{Class, Failure, commit_error, judge, kept, sql_error};
use super::lease::within;
use super::rows::Unstorable;
use super::{Applied, Fence, Row, SqlError};
use crate::model::{Aside, Id, Incarnation};

/// How often a transaction is begun anew because a target was found locked of which something was written already.
const RESTARTS_MAX: usize = 4;
/// Locks that are met in one search; what fails then is set aside as a whole, rather than keep the locks of all others.
const LOCKS_MET_MAX: usize = 200;

/// A flush, as it was asked for.
pub(super) struct Flush<'a> {
    /// The kind.
    pub kind: &'a str,
    /// The checkpoints that move.
    pub fences: &'a [Fence],
    /// What is written.
    pub rows: &'a [Row],
    /// Around what.
    pub around: &'a Around,
    /// The time, in Unix milliseconds.
    pub now_ms: u64,
}

/// What one part of a flush did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// Rows really inserted.
    pub inserted: u64,
    /// Rows really deleted.
    pub deleted: u64,
    /// Counters to which something was added.
    pub updated: u64,
    /// Rows that can never be stored, found before a statement failed for them: index into the part, and the reason.
    pub dead: Vec<Unstorable>,
}

/// A row on its way to the dead letters.
pub(super) struct Dead<'a> {
    /// The row.
    pub row: &'a Row,
    /// The life of the journal that it comes from.
    pub incarnation: Option<Incarnation>,
    /// What the database said.
    pub reason: &'a str,
}

/// A connection on which one transaction flies. Every method sends statements of that transaction.
pub(super) trait Flight: Send {
    /// Marks the point that `UNDO` returns to.
    const MARK: &'static str = "SAVEPOINT weir_rows";
    /// Undoes everything since the mark.
    const UNDO: &'static str = "ROLLBACK TO SAVEPOINT weir_rows";
    /// Forgets the mark.
    const UNMARK: &'static str = "RELEASE SAVEPOINT weir_rows";
    /// Ends well.
    const COMMIT: &'static str = "COMMIT";
    /// Ends without effect.
    const ROLLBACK: &'static str = "ROLLBACK";

    /// Begins the transaction, for writing, at read committed, with constraints checked at once, and with its time limit for
    /// locks.
    fn begin(&mut self) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// From here on locks are not waited for, or again as long as they are from the beginning.
    fn probe(&mut self, is_probing: bool) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Sends one of the constants.
    fn command(&mut self, text: &'static str) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Moves the checkpoints by compare-and-set, locking in partition order; how many it moved.
    fn fence(&mut self, kind: &str, fences: &[Fence]) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Stores rows of one case, which are sorted by target and actor, and all that follows from them: all but those that
    /// it names, or an error.
    fn store(&mut self, rows: &[&Row]) -> impl Future<Output = Result<Effect, sqlx::Error>> + Send;

    /// What in the tables themselves, read again, makes every row of this one's case fail, or what is known of them
    /// wrong: no row can be blamed then. `reason` is what the database said, if it said anything.
    fn misfit(&mut self, row: &Row, reason: &str) -> impl Future<Output = Result<Option<String>, sqlx::Error>> + Send;

    /// Writes dead letters.
    fn bury(
        &mut self,
        kind: &str,
        dead: &[Dead<'_>],
        now_ms: u64,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Puts checkpoints where asides say, and writes these; of one without targets nothing is left.
    fn set_aside(&mut self, kind: &str, asides: &[Aside]) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Statements sent so far.
    fn statements(&self) -> u64;
}

/// Flies the transaction. After an error it is rolled back, and its connection must be closed.
pub(super) async fn fly<F: Flight>(flight: &mut F, limit: Duration, flush: &Flush<'_>) -> Result<Applied, SqlError> {
    let mut waiting = Waiting::new();
    for _ in 0..=RESTARTS_MAX {
        let result = transact(flight, limit, flush, &mut waiting).await;
        match result {
            Ok(Some(applied)) => return Ok(applied),
            // A target is stored whole or not at all: once more, without it.
            Ok(None) => within(limit, flight.command(F::ROLLBACK)).await.map_err(sql_error)?,
            Err(error) => {
                if !matches!(error, SqlError::OutcomeUnknown(_)) {
                    // Frees the locks now rather than when the server notices the closed connection; it may be gone.
                    let _ = within(limit, flight.command(F::ROLLBACK)).await;
                }
                return Err(error);
            }
        }
    }
    Err(SqlError::Locked("whatever is left out, something else is locked".into()))
}

/// `None` when it must be begun anew, without those that wait.
async fn transact<F: Flight>(
    flight: &mut F,
    limit: Duration,
    flush: &Flush<'_>,
    waiting: &mut Waiting,
) -> Result<Option<Applied>, SqlError> {
    let Flush { kind, fences, rows, around, now_ms } = *flush;
    within(limit, flight.begin()).await.map_err(sql_or_locked)?;
    if !fences.is_empty() {
        let mut ordered = fences.to_vec();
        ordered.sort_by_key(|fence| fence.from.partition);
        let moved = within(limit, flight.fence(kind, &ordered)).await.map_err(sql_or_locked)?;
        if moved < ordered.len() as u64 {
            return Err(SqlError::Fenced);
        }
    }
    // Only the user's rows: weir's own are waited for, whoever else flushes.
    if around.set_aside {
        within(limit, flight.probe(true)).await.map_err(sql_or_locked)?;
    }
    let Some(mut applied) = Search::new(flush, waiting).run(flight, limit).await? else { return Ok(None) };
    if around.set_aside {
        within(limit, flight.probe(false)).await.map_err(sql_or_locked)?;
    }
    if !applied.dead.is_empty() {
        let dead: Vec<Dead<'_>> = applied
            .dead
            .iter()
            .map(|(index, reason)| {
                let row = &rows[*index];
                let fence = fences.iter().find(|fence| fence.from.partition == row.partition());
                Dead { row, incarnation: fence.map(|fence| fence.from.incarnation), reason }
            })
            .collect();
        within(limit, flight.bury(kind, &dead, now_ms)).await.map_err(sql_or_locked)?;
    }
    applied.asides = settled(fences, around, rows, waiting)?;
    if !applied.asides.is_empty() {
        within(limit, flight.set_aside(kind, &applied.asides)).await.map_err(sql_or_locked)?;
    }
    within(limit, flight.command(F::COMMIT)).await.map_err(commit_error)?;
    applied.waiting = waiting.values().cloned().collect();
    applied.statements = flight.statements();
    Ok(Some(applied))
}

/// A lock is not an outage.
fn locked_or(failure: Failure) -> SqlError {
    match failure.class {
        Class::Locked => SqlError::Locked(failure.reason),
        _ => failure.into(),
    }
}

fn sql_or_locked(error: sqlx::Error) -> SqlError {
    locked_or(judge(&error))
}

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
struct Search<'a> {
    rows: &'a [Row],
    set_aside: bool,
    /// Parts to store: indexes of rows.
    todo: Vec<Vec<usize>>,
    /// Targets that wait.
    waiting: &'a mut Waiting,
    /// Targets of which something was written or buried; kept where others are set aside.
    written: BTreeSet<&'a Id>,
    locks_met: usize,
    applied: Applied,
}

impl<'a> Search<'a> {
    fn new(flush: &Flush<'a>, waiting: &'a mut Waiting) -> Self {
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
    async fn run<F: Flight>(mut self, flight: &mut F, limit: Duration) -> Result<Option<Applied>, SqlError> {
        // Nobody is declared dead before the tables were looked at: once for each case, and for each word of the database.
        let mut looked_at = HashSet::new();
        while let Some(mut part) = self.todo.pop() {
            let all = self.rows;
            part.retain(|index| self.waiting.is_empty() || !self.waiting.contains_key(all[*index].target()));
            let rows: Vec<&Row> = part.iter().map(|index| &all[*index]).collect();
            let Some(first) = rows.first().copied() else { continue };
            within(limit, flight.command(F::MARK)).await.map_err(sql_error)?;
            let stored = within(limit, flight.store(&rows)).await;
            let failure = stored.as_ref().err().map(judge);
            if let Some(failure) = &failure {
                if !(failure.class == Class::Row || failure.class == Class::Locked && self.set_aside) {
                    return Err(locked_or(failure.clone()));
                }
                within(limit, flight.command(F::UNDO)).await.map_err(sql_error)?;
            }
            let someone_is_dead = match &stored {
                Ok(effect) => !effect.dead.is_empty(),
                Err(_) => failure.as_ref().is_some_and(|failure| failure.class == Class::Row),
            };
            let said = failure.as_ref().map_or("", |failure| failure.reason.as_str());
            let code = said.split([' ', ':']).next().unwrap_or_default();
            if someone_is_dead
                && looked_at.insert((case(first), code.to_owned()))
                && let Some(problem) = within(limit, flight.misfit(first, said)).await.map_err(sql_error)?
            {
                let reason = if said.is_empty() { String::new() } else { format!(" ({said})") };
                return Err(SqlError::Permanent(format!("{problem}{reason}")));
            }
            if failure.is_some() || !self.todo.is_empty() {
                within(limit, flight.command(F::UNMARK)).await.map_err(sql_error)?;
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
    use crate::model::{Action, Id, Origin};
    use crate::sql::{CountRow, EventRow, RowChange};

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
