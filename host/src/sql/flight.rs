//! One flush transaction: fence, rows, dead letters, commit; and the search for rows that can never be stored.
//!
//! Engine-free part of the room: an engine lends it a [`Flight`] and all statements are the engine's. Decides nothing
//! about when to flush, and never retries.

use std::future::Future;
use std::ops::Range;
use std::time::Duration;

use super::classify::{Class, commit_error, judge, sql_error};
use super::lease::within;
use super::{Applied, Fence, RowChange, SqlError};
use crate::model::Incarnation;

/// Rows really changed by one part of a flush.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// Rows really inserted.
    pub inserted: u64,
    /// Rows really deleted.
    pub deleted: u64,
}

/// A row on its way to the dead letters.
pub(super) struct Dead<'a> {
    /// The row.
    pub row: &'a RowChange,
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

    /// Stores rows, which are sorted by target and actor, and their counts; all of them or an error.
    fn store(&mut self, rows: &[&RowChange]) -> impl Future<Output = Result<Effect, sqlx::Error>> + Send;

    /// What in the tables themselves, read again, makes every row fail.
    fn misfit(&mut self) -> impl Future<Output = Result<Option<String>, sqlx::Error>> + Send;

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
    rows: &[RowChange],
    now_ms: u64,
) -> Result<Applied, SqlError> {
    let result = transact(flight, limit, kind, fences, rows, now_ms).await;
    if matches!(result, Err(SqlError::Fenced | SqlError::Transient(_) | SqlError::Permanent(_))) {
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
    rows: &[RowChange],
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
                let fence = fences.iter().find(|fence| fence.from.partition == row.partition);
                Dead { row, incarnation: fence.map(|fence| fence.from.incarnation), reason }
            })
            .collect();
        within(limit, flight.bury(kind, &dead, now_ms)).await.map_err(sql_error)?;
    }
    within(limit, flight.command(F::COMMIT)).await.map_err(commit_error)?;
    applied.statements = flight.statements();
    Ok(applied)
}

/// Stores all rows but those that can never be stored, which it finds by halving whatever failed: one bad row among
/// n costs about 2·log2(n) parts.
async fn bisect<F: Flight>(flight: &mut F, limit: Duration, rows: &[RowChange]) -> Result<Applied, SqlError> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    // Neighbours in the index are written together, and all flushers lock in the same order.
    order.sort_by(|a, b| (&rows[*a].target, &rows[*a].actor).cmp(&(&rows[*b].target, &rows[*b].actor)));
    let sorted: Vec<&RowChange> = order.iter().map(|index| &rows[*index]).collect();
    let mut applied = Applied::default();
    let mut todo: Vec<Range<usize>> = Vec::new();
    if !rows.is_empty() {
        todo.push(0..rows.len());
    }
    while let Some(part) = todo.pop() {
        within(limit, flight.command(F::MARK)).await.map_err(sql_error)?;
        let error = match within(limit, flight.store(&sorted[part.clone()])).await {
            Ok(effect) => {
                applied.inserted += effect.inserted;
                applied.deleted += effect.deleted;
                if !todo.is_empty() {
                    within(limit, flight.command(F::UNMARK)).await.map_err(sql_error)?;
                }
                continue;
            }
            Err(error) => error,
        };
        let failure = judge(&error);
        if failure.class != Class::Row {
            return Err(failure.into());
        }
        within(limit, flight.command(F::UNDO)).await.map_err(sql_error)?;
        within(limit, flight.command(F::UNMARK)).await.map_err(sql_error)?;
        if part.len() == rows.len()
            && let Some(problem) = within(limit, flight.misfit()).await.map_err(sql_error)?
        {
            return Err(SqlError::Permanent(format!("{problem} ({})", failure.reason)));
        }
        if part.len() == 1 {
            applied.dead.push((order[part.start], failure.reason));
        } else {
            let middle = part.start + part.len() / 2;
            todo.push(middle..part.end);
            todo.push(part.start..middle);
        }
    }
    applied.dead.sort_unstable_by_key(|(index, _)| *index);
    Ok(applied)
}
