//! Holes of journals: recorded in the step that leaves them behind, listed, acknowledged.

use sqlx::Row as _;
use sqlx::mysql::MySqlRow;

use super::catalogue::{number, text};
use super::{MysqlSql, statements};
use crate::model::Checkpoint;
use crate::sql::SqlError;
use crate::sql::classify::sql_error;
use crate::sql::holes::{HoleColumns, JournalHole, Passed};
use crate::sql::lease::leased;
use crate::sql::rows::signed;

impl MysqlSql {
    /// See [`crate::sql::Sql::pass_hole`].
    pub(super) async fn record_hole(
        &self,
        kind: &str,
        passed: Passed<'_>,
        now_ms: u64,
    ) -> Result<Checkpoint, SqlError> {
        let (row, hole) = (passed.row(), passed.hole);
        let is_moved = leased!(self.lease().await?, |connection| async {
            sqlx::raw_sql(statements::BEGIN).execute(&mut *connection).await?;
            let moved = sqlx::query(statements::HOLE_PASS)
                .bind(row.incarnation.to_string())
                .bind(row.epoch)
                .bind(signed(row.position))
                .bind(kind)
                .bind(i64::from(row.partition))
                .bind(passed.from.incarnation.to_string())
                .bind(passed.from.epoch)
                .bind(signed(passed.from.position));
            if moved.execute(&mut *connection).await?.rows_affected() != 1 {
                sqlx::raw_sql(statements::ROLLBACK).execute(&mut *connection).await?;
                return Ok(false);
            }
            sqlx::query(statements::HOLE_RECORD)
                .bind(kind)
                .bind(i64::from(row.partition))
                .bind(passed.from.incarnation.to_string())
                .bind(signed(hole.after))
                .bind(signed(hole.last))
                .bind(hole.next.map(signed))
                .bind(signed(hole.changes))
                .bind(hole.amount.map(signed))
                .bind(i64::from(hole.is_exact))
                .bind(passed.targets_text())
                .bind(signed(now_ms))
                .execute(&mut *connection)
                .await?;
            sqlx::raw_sql(statements::COMMIT).execute(&mut *connection).await.map(|_| true)
        })?;
        if is_moved { Ok(row) } else { Err(SqlError::Fenced) }
    }

    /// See [`crate::sql::Sql::journal_holes`].
    pub(super) async fn holes(
        &self,
        kind: Option<&str>,
        is_open: bool,
        limit: usize,
    ) -> Result<Vec<JournalHole>, SqlError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = leased!(self.lease().await?, |connection| {
            sqlx::query(statements::HOLES)
                .bind(kind)
                .bind(kind)
                .bind(i64::from(is_open))
                .bind(limit)
                .fetch_all(connection)
        })?;
        rows.iter().map(hole).collect::<Result<_, _>>().map_err(sql_error)
    }

    /// See [`crate::sql::Sql::acknowledge_holes`].
    pub(super) async fn acknowledge(&self, kind: &str, now_ms: u64) -> Result<u64, SqlError> {
        let done = leased!(self.lease().await?, |connection| {
            sqlx::query(statements::HOLES_ACKNOWLEDGE).bind(signed(now_ms)).bind(kind).execute(connection)
        })?;
        Ok(done.rows_affected())
    }
}

fn hole(row: &MySqlRow) -> Result<JournalHole, sqlx::Error> {
    let columns = HoleColumns {
        id: number(row, 0)?,
        kind: text(row, 1)?,
        partition: number(row, 2)?,
        incarnation: text(row, 3)?,
        after: number(row, 4)?,
        last: number(row, 5)?,
        next: row.try_get(6)?,
        changes: number(row, 7)?,
        amount: row.try_get(8)?,
        is_exact: number(row, 9)?,
        targets: text(row, 10)?,
        found_at_ms: number(row, 11)?,
        acknowledged_at_ms: row.try_get(12)?,
    };
    Ok(columns.into())
}
