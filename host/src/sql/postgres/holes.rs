//! Holes of journals: recorded in the step that leaves them behind, listed, acknowledged.

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::{PostgresSql, statements};
use crate::model::Checkpoint;
use crate::sql::SqlError;
use crate::sql::classify::sql_error;
use crate::sql::holes::{HoleColumns, JournalHole, Passed};
use crate::sql::lease::leased;
use crate::sql::rows::signed;

impl PostgresSql {
    /// See [`crate::sql::Sql::pass_hole`].
    pub(super) async fn record_hole(
        &self,
        kind: &str,
        passed: Passed<'_>,
        now_ms: u64,
    ) -> Result<Checkpoint, SqlError> {
        let (row, hole) = (passed.row(), passed.hole);
        let is_moved = leased!(self.lease().await?, |connection| async {
            sqlx::raw_sql(AssertSqlSafe(&*self.begin)).execute(&mut *connection).await?;
            let moved = sqlx::query(statements::HOLE_PASS)
                .bind(kind)
                .bind(i32::from(row.partition))
                .bind(passed.from.incarnation.0)
                .bind(passed.from.epoch)
                .bind(signed(passed.from.position))
                .bind(row.incarnation.0)
                .bind(row.epoch)
                .bind(signed(row.position));
            if moved.execute(&mut *connection).await?.rows_affected() != 1 {
                sqlx::raw_sql(statements::ROLLBACK).execute(&mut *connection).await?;
                return Ok(false);
            }
            sqlx::query(statements::HOLE_RECORD)
                .bind(kind)
                .bind(i32::from(row.partition))
                .bind(passed.from.incarnation.to_string())
                .bind(signed(hole.after))
                .bind(signed(hole.last))
                .bind(hole.next.map(signed))
                .bind(signed(hole.changes))
                .bind(hole.amount.map(signed))
                .bind(i32::from(hole.is_exact))
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
            sqlx::query(statements::HOLES).bind(kind).bind(i32::from(is_open)).bind(limit).fetch_all(connection)
        })?;
        rows.iter().map(hole).collect::<Result<_, _>>().map_err(sql_error)
    }

    /// See [`crate::sql::Sql::acknowledge_holes`].
    pub(super) async fn acknowledge(&self, kind: &str, now_ms: u64) -> Result<u64, SqlError> {
        let done = leased!(self.lease().await?, |connection| {
            sqlx::query(statements::HOLES_ACKNOWLEDGE).bind(kind).bind(signed(now_ms)).execute(connection)
        })?;
        Ok(done.rows_affected())
    }
}

fn hole(row: &PgRow) -> Result<JournalHole, sqlx::Error> {
    let columns = HoleColumns {
        id: row.try_get(0)?,
        kind: row.try_get(1)?,
        partition: row.try_get(2)?,
        incarnation: row.try_get(3)?,
        after: row.try_get(4)?,
        last: row.try_get(5)?,
        next: row.try_get(6)?,
        changes: row.try_get(7)?,
        amount: row.try_get(8)?,
        is_exact: row.try_get(9)?,
        targets: row.try_get(10)?,
        found_at_ms: row.try_get(11)?,
        acknowledged_at_ms: row.try_get(12)?,
    };
    Ok(columns.into())
}
