//! Holes of journals: recorded in the step that leaves them behind, listed, acknowledged.

use sqlx::SqlStr;

use super::Database;
use crate::SqlError;
use crate::classify::sql_error;
use crate::driver::Driver;
use crate::engine::Backend as _;
use crate::exec::flush::{COMMIT, ROLLBACK};
use crate::holes::{HoleColumns, JournalHole, Passed};
use crate::lease::leased;
use crate::rows::signed;
use crate::wire::{Batch, Record, Wire as _};
use weir_core::model::Checkpoint;

impl<D: Driver> Database<D> {
    /// See [`crate::Sink::pass_hole`].
    pub(super) async fn record_hole(
        &self,
        kind: &str,
        passed: Passed<'_>,
        now_ms: u64,
    ) -> Result<Checkpoint, SqlError> {
        let (row, from) = (passed.row(), passed.from);
        let moved = Batch::new()
            .text(kind)
            .partition(row.partition)
            .uuid(from.incarnation.0)
            .integer(from.epoch)
            .integer(signed(from.position))
            .uuid(row.incarnation.0)
            .integer(row.epoch)
            .integer(signed(row.position));
        let recorded = record(kind, &passed, now_ms);
        let is_moved = leased!(self.lease().await?, |connection| async {
            connection.command(self.begin()).await?;
            let is_moved = connection.execute(&Self::own().hole_pass, &moved).await? == 1;
            if is_moved {
                connection.execute(&Self::own().hole_record, &recorded).await?;
            }
            connection.command(SqlStr::from_static(if is_moved { COMMIT } else { ROLLBACK })).await?;
            Ok(is_moved)
        })?;
        if is_moved { Ok(row) } else { Err(SqlError::Fenced) }
    }

    /// See [`crate::Sink::journal_holes`].
    pub(super) async fn holes(
        &self,
        kind: Option<&str>,
        is_open: bool,
        limit: usize,
    ) -> Result<Vec<JournalHole>, SqlError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let batch = Batch::new().optional_text(kind).integer(i64::from(is_open)).integer(limit);
        let rows = leased!(self.lease().await?, |connection| connection.fetch(&Self::own().holes, &batch))?;
        rows.iter().map(hole).collect::<Result<_, _>>().map_err(sql_error)
    }

    /// See [`crate::Sink::acknowledge_holes`].
    pub(super) async fn acknowledge(&self, kind: &str, now_ms: u64) -> Result<u64, SqlError> {
        let batch = Batch::new().text(kind).integer(signed(now_ms));
        leased!(self.lease().await?, |connection| connection.execute(&Self::own().holes_acknowledge, &batch))
    }
}

/// The columns of a hole that is recorded.
fn record<'a>(kind: &'a str, passed: &Passed<'a>, now_ms: u64) -> Batch<'a> {
    let hole = passed.hole;
    Batch::new()
        .text(kind)
        .partition(passed.from.partition)
        .text(passed.from.incarnation.to_string())
        .integer(signed(hole.after))
        .integer(signed(hole.last))
        .optional_integer(hole.next.map(signed))
        .integer(signed(hole.changes))
        .optional_integer(hole.amount.map(signed))
        .integer(i64::from(hole.is_exact))
        .text(passed.targets_text())
        .integer(signed(now_ms))
}

fn hole<R: Record>(row: &R) -> Result<JournalHole, sqlx::Error> {
    let columns = HoleColumns {
        id: row.integer(0)?,
        kind: row.text(1)?,
        partition: row.integer(2)?,
        incarnation: row.text(3)?,
        after: row.integer(4)?,
        last: row.integer(5)?,
        next: row.optional_integer(6)?,
        changes: row.integer(7)?,
        amount: row.optional_integer(8)?,
        is_exact: row.integer(9)?,
        targets: row.text(10)?,
        found_at_ms: row.integer(11)?,
        acknowledged_at_ms: row.optional_integer(12)?,
    };
    Ok(columns.into())
}
