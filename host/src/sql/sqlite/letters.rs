//! Dead letters: written in the flush, listed, stored again, dropped.

use serde_json::{Value, json};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::engine::Sqlite;
use super::{SqliteSql, statements};
use crate::config::KindTable;
use crate::model::{Id, Partition};
use crate::sql::classify::sql_error;
use crate::sql::engine::Backend as _;
use crate::sql::exec::flush::{Dead, FlushTransaction};
use crate::sql::lease::leased;
use crate::sql::letters::{CREATE, action, actor, body, newest, no_letter, replayed, still_dead};
use crate::sql::plans::PlanOf;
use crate::sql::rows::{signed, unsigned};
use crate::sql::{DeadLetter, SqlError};

impl SqliteSql {
    /// See [`crate::sql::Sql::dead_letters`].
    pub(super) async fn letters(
        &self,
        kind: Option<&str>,
        after: i64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, SqlError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = leased!(self.lease().await?, |connection| {
            sqlx::query(statements::DEAD_LETTERS).bind(kind).bind(after).bind(limit).fetch_all(connection)
        })?;
        rows.iter().map(dead_letter).collect::<Result<_, _>>().map_err(sql_error)
    }

    /// See [`crate::sql::Sql::rejections`].
    pub(super) async fn newest_letters(&self, kind: &str, ids: &[Id]) -> Result<Vec<Option<DeadLetter>>, SqlError> {
        let targets: Vec<String> = ids.iter().map(Id::to_string).collect();
        let list = json!(targets).to_string();
        let rows = leased!(self.lease().await?, |connection| {
            sqlx::query(statements::NEWEST_LETTERS).bind(kind).bind(CREATE).bind(list).fetch_all(connection)
        })?;
        let letters = rows.iter().map(dead_letter).collect::<Result<_, _>>().map_err(sql_error)?;
        Ok(newest(&targets, letters))
    }

    /// See [`crate::sql::Sql::dead_letter_counts`].
    pub(super) async fn letter_counts(&self) -> Result<Vec<(String, u64)>, SqlError> {
        let rows =
            leased!(self.lease().await?, |connection| sqlx::query(statements::DEAD_COUNTS).fetch_all(connection))?;
        let counts = rows.iter().map(|row| Ok((row.try_get(0)?, unsigned(row.try_get(1)?))));
        counts.collect::<Result<_, sqlx::Error>>().map_err(sql_error)
    }

    /// See [`crate::sql::Sql::replay_dead_letter`].
    pub(super) async fn replay(&self, table: &KindTable, letter: &DeadLetter) -> Result<(), SqlError> {
        let row = replayed(table, letter)?;
        let plan = PlanOf::of(self, table).await?;
        let _writer = self.writer.lock().await;
        let result = leased!(self.lease().await?, |connection| async {
            sqlx::raw_sql(statements::BEGIN).execute(&mut *connection).await?;
            let query = sqlx::query(statements::DEAD_DROP).bind(json!([letter.id]).to_string());
            if query.execute(&mut *connection).await?.rows_affected() == 0 {
                return Err(no_letter(letter.id));
            }
            let mut transaction: FlushTransaction<'_, Sqlite> =
                FlushTransaction::new(&mut *connection, self.dialect(), &plan, table, self.flush_texts());
            if let Some((_, reason)) = transaction.store(&[&row]).await?.dead.pop() {
                return Err(still_dead(reason));
            }
            sqlx::raw_sql(statements::COMMIT).execute(&mut *connection).await.map(drop)
        });
        self.plans.invalidated_by(table, result)
    }

    /// See [`crate::sql::Sql::drop_dead_letters`].
    pub(super) async fn drop_letters(&self, ids: &[i64]) -> Result<u64, SqlError> {
        let _writer = self.writer.lock().await;
        let list = json!(ids).to_string();
        let done = leased!(self.lease().await?, |connection| {
            sqlx::query(statements::DEAD_DROP).bind(list).execute(connection)
        })?;
        Ok(done.rows_affected())
    }
}

impl FlushTransaction<'_, Sqlite> {
    /// Writes dead letters.
    pub(super) async fn write_letters(
        &mut self,
        kind: &str,
        dead: &[Dead<'_>],
        now_ms: u64,
    ) -> Result<(), sqlx::Error> {
        self.statements += 1;
        let rows = dead.iter().map(|Dead { row, incarnation, reason }| {
            let life = incarnation.map(|life| life.to_string()).unwrap_or_default();
            json!([
                row.partition(),
                row.target().to_string(),
                actor(row),
                action(row),
                signed(row.at_ms()),
                life,
                signed(row.position()),
                row.digest().to_string(),
                reason,
                body(row),
            ])
        });
        let rows = Value::from(rows.collect::<Vec<Value>>()).to_string();
        let query = sqlx::query(statements::BURY).bind(kind).bind(rows).bind(signed(now_ms));
        query.execute(&mut *self.connection).await.map(drop)
    }
}

fn dead_letter(row: &SqliteRow) -> Result<DeadLetter, sqlx::Error> {
    Ok(DeadLetter {
        id: row.try_get(0)?,
        kind: row.try_get(1)?,
        partition: Partition::try_from(row.try_get::<i64, _>(2)?).unwrap_or_default(),
        target: row.try_get(3)?,
        actor: row.try_get(4)?,
        action: row.try_get(5)?,
        at_ms: unsigned(row.try_get(6)?),
        incarnation: row.try_get(7)?,
        position: unsigned(row.try_get(8)?),
        digest: row.try_get(9)?,
        reason: row.try_get(10)?,
        dead_at_ms: unsigned(row.try_get(11)?),
        body: row.try_get(12)?,
    })
}
