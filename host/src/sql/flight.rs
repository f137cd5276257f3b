//! One flush transaction: fence, rows, dead letters, commit; and the search for rows that can never be stored.
//!
//! Engine-free part of the room: an engine lends it a [`Flight`] and all statements are the engine's. Decides nothing
//! about when to flush, and never retries.

use std::future::Future;
use std::ops::Range;
use std::time::Duration;

use super::classify::{Class, commit_error, judge, kept, sql_error};
use super::lease::within;
use super::rows::Unstorable;
use super::{Applied, Fence, Row, SqlError};
use crate::model::Incarnation;

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
    /// Begins the transaction, for writing, at read committed, with constraints checked at once.
    const BEGIN: &'static str;
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

    /// Sends one of the constants.
    fn command(&mut self, text: &'static str) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Moves the checkpoints by compare-and-set, locking in partition order; how many it moved.
    fn fence(&mut self, kind: &str, fences: &[Fence]) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Stores rows of one case, which are sorted by target and actor, and all that follows from them: all but those that
    /// it names, or an error.
    fn store(&mut self, rows: &[&Row]) -> impl Future<Output = Result<Effect, sqlx::Error>> + Send;

    /// What in the tables themselves, read again, makes every row of this one's case fail, or what is known of them
    /// wrong: no row can be blamed then.
    fn misfit(&mut self, row: &Row) -> impl Future<Output = Result<Option<String>, sqlx::Error>> + Send;

    /// Writes dead letters.
    fn bury(
        &mut self,
        kind: &str,
        dead: &[Dead<'_>],
        now_ms: u64,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Statements sent so far.
    fn statements(&self) -> u64;
}

/// Flies the transaction. After an error it is rolled back, and its connection must be closed.
pub(super) async fn fly<F: Flight>(
    flight: &mut F,
    limit: Duration,
    kind: &str,
    fences: &[Fence],
    rows: &[Row],
    now_ms: u64,
) -> Result<Applied, SqlError> {
    let result = transact(flight, limit, kind, fences, rows, now_ms).await;
    if matches!(result, Err(SqlError::Fenced | SqlError::Transient(_) | SqlError::ReadOnly(_) | SqlError::Permanent(_)))
    {
        // Frees the locks now rather than when the server notices the closed connection; it may be gone already.
        let _ = within(limit, flight.command(F::ROLLBACK)).await;
    }
    result
}

async fn transact<F: Flight>(
    flight: &mut F,
    limit: Duration,
    kind: &str,
    fences: &[Fence],
    rows: &[Row],
    now_ms: u64,
) -> Result<Applied, SqlError> {
    within(limit, flight.command(F::BEGIN)).await.map_err(sql_error)?;
    if !fences.is_empty() {
        let mut ordered = fences.to_vec();
        ordered.sort_by_key(|fence| fence.from.partition);
        let moved = within(limit, flight.fence(kind, &ordered)).await.map_err(sql_error)?;
        if moved < ordered.len() as u64 {
            return Err(SqlError::Fenced);
        }
    }
    let mut applied = bisect(flight, limit, rows).await?;
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
        within(limit, flight.bury(kind, &dead, now_ms)).await.map_err(sql_error)?;
    }
    within(limit, flight.command(F::COMMIT)).await.map_err(commit_error)?;
    applied.statements = flight.statements();
    Ok(applied)
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

/// Runs of rows of one case, the last one first.
fn runs(sorted: &[&Row]) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut start = 0;
    for part in sorted.chunk_by(|a, b| case(a) == case(b)) {
        runs.push(start..start + part.len());
        start += part.len();
    }
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

/// Stores all rows but those that can never be stored, which it finds by halving whatever failed: one bad row among
/// n costs about 2·log2(n) parts.
async fn bisect<F: Flight>(flight: &mut F, limit: Duration, rows: &[Row]) -> Result<Applied, SqlError> {
    let order = order(rows);
    let sorted: Vec<&Row> = order.iter().map(|index| &rows[*index]).collect();
    let mut applied = Applied::default();
    let mut todo = runs(&sorted);
    // Case by case: nobody is declared dead before the tables were looked at.
    let mut looked_at = None;
    while let Some(part) = todo.pop() {
        let first = sorted[part.start];
        within(limit, flight.command(F::MARK)).await.map_err(sql_error)?;
        let stored = within(limit, flight.store(&sorted[part.clone()])).await;
        let failure = match &stored {
            Err(error) => Some(judge(error)),
            Ok(_) => None,
        };
        if let Some(failure) = &failure {
            if failure.class != Class::Row {
                return Err(failure.clone().into());
            }
            within(limit, flight.command(F::UNDO)).await.map_err(sql_error)?;
        }
        let someone_is_dead = stored.as_ref().map_or(true, |effect| !effect.dead.is_empty());
        if someone_is_dead && looked_at != Some(case(first)) {
            looked_at = Some(case(first));
            if let Some(problem) = within(limit, flight.misfit(first)).await.map_err(sql_error)? {
                let reason = failure.map_or(String::new(), |failure| format!(" ({})", failure.reason));
                return Err(SqlError::Permanent(format!("{problem}{reason}")));
            }
        }
        if failure.is_some() || !todo.is_empty() {
            within(limit, flight.command(F::UNMARK)).await.map_err(sql_error)?;
        }
        match (stored, failure) {
            (Ok(effect), _) => take(&mut applied, effect, &order[part]),
            (Err(_), Some(failure)) if part.len() == 1 => applied.dead.push((order[part.start], failure.reason)),
            (Err(_), _) => {
                let middle = part.start + part.len() / 2;
                todo.push(middle..part.end);
                todo.push(part.start..middle);
            }
        }
    }
    applied.dead.sort_unstable_by_key(|(index, _)| *index);
    Ok(applied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Action, Digest, Id};
    use crate::sql::{CountRow, EventRow, RowChange};

    fn count(target: i64) -> Row {
        let (target, digest) = (Id::Int(target), Digest::default());
        Row::Count(CountRow { partition: 0, target, by: 1, at_ms: 0, position: 0, digest })
    }

    fn event(target: i64, actor: i64, at_ms: u64) -> Row {
        let (target, actor, digest) = (Id::Int(target), Some(Id::Int(actor)), Digest::default());
        Row::Event(EventRow { partition: 0, target, actor, by: 1, at_ms, position: 0, digest })
    }

    #[test]
    fn counts_come_first_and_events_keep_the_order_of_the_journal() {
        let rows = [event(2, 9, 1), count(2), event(1, 5, 2), count(1), event(2, 1, 3)];
        let order = order(&rows);
        assert_eq!(order, [3, 1, 2, 0, 4]);
        let sorted: Vec<&Row> = order.iter().map(|index| &rows[*index]).collect();
        assert_eq!(runs(&sorted), [2..5, 0..2], "the last run first");
        assert!(runs(&[]).is_empty());
    }

    #[test]
    fn toggles_are_ordered_by_target_and_actor() {
        let toggle = |target: i64, actor: i64| {
            let (target, actor, digest) = (Id::Int(target), Id::Int(actor), Digest::default());
            Row::Toggle(RowChange { partition: 0, target, actor, action: Action::Add, at_ms: 0, position: 0, digest })
        };
        assert_eq!(order(&[toggle(2, 1), toggle(1, 9), toggle(1, 10), toggle(1, 2)]), [3, 1, 2, 0]);
    }
}
