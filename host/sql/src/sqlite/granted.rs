//! Statements of the operator: how they are run, and how columns of SQLite become values.
//!
//! A value has a type of its own, whatever its column was declared as. There is no server to keep time limits: the
//! engine asks every few thousand steps whether the time is over.

use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnection, SqliteRow, SqliteStatement};
use sqlx::{AssertSqlSafe, Executor, Row, SqlSafeStr, TypeInfo, ValueRef};

use super::statements;
use super::{SqliteDriver, SqliteSql};
use crate::RowSets;
use crate::driver::OperatorStatements;
use crate::granted::{Stop, fits, run_each, text, unreadable};
use weir_core::config::StatementConfig;
use weir_core::model::SqlValue;

/// Steps of the engine between two looks at the time: some tens of microseconds.
const STEPS_PER_LOOK: i32 = 4_000;

impl OperatorStatements for SqliteDriver {
    /// Prepares the statement.
    async fn prepare(
        connection: &mut SqliteConnection,
        statement: &StatementConfig,
    ) -> Result<SqliteStatement, sqlx::Error> {
        connection.prepare_with(AssertSqlSafe(text(statement)).into_sql_str(), &[]).await
    }

    /// Runs the statement once for each row of parameters, in one transaction. One that may not write is given a connection
    /// that cannot.
    async fn run(
        _database: &SqliteSql,
        connection: &mut SqliteConnection,
        statement: &StatementConfig,
        parameters: &[Vec<SqlValue>],
    ) -> Result<RowSets, Stop> {
        let deadline = Instant::now() + Duration::from_millis(statement.timeout_ms.min(u32::MAX.into()));
        connection.lock_handle().await?.set_progress_handler(STEPS_PER_LOOK, move || Instant::now() < deadline);
        let begin = if statement.write { statements::BEGIN } else { statements::BEGIN_READ };
        sqlx::raw_sql(begin).execute(&mut *connection).await?;
        let prepared = Self::prepare(connection, statement).await?;
        fits(statement, &prepared)?;
        let sets = run_each::<sqlx::Sqlite>(connection, statement, &prepared, parameters, read).await?;
        sqlx::raw_sql(statements::COMMIT).execute(&mut *connection).await?;
        connection.lock_handle().await?.remove_progress_handler();
        Ok(sets)
    }
}

fn read(row: &SqliteRow, index: usize) -> Result<SqlValue, String> {
    let raw = row.try_get_raw(index).map_err(|error| error.to_string())?;
    if raw.is_null() {
        return Ok(SqlValue::Null);
    }
    let value = match raw.type_info().name() {
        "INTEGER" => row.try_get_unchecked(index).map(SqlValue::Integer),
        "REAL" => row.try_get_unchecked(index).map(SqlValue::Real),
        "TEXT" => row.try_get_unchecked(index).map(SqlValue::Text),
        other => return Err(unreadable(other)),
    };
    value.map_err(|error| error.to_string())
}
