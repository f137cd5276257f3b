//! Dead letters: written in the flush, listed, stored again, dropped.

use sqlx::mysql::{MySqlArguments, MySqlRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, MySql, Row as _};

use super::catalogue::{number, text};
use super::engine::Mysql;
use super::{CHUNK, MysqlSql, statements};
use crate::config::KindTable;
use crate::model::{Id, Partition};
use crate::sql::classify::sql_error;
use crate::sql::documents::BYTES_PER_INSERT;
use crate::sql::engine::Backend as _;
use crate::sql::exec::checkpoints;
use crate::sql::exec::flush::{Dead, FlushTransaction};
use crate::sql::lease::leased;
use crate::sql::letters::{CREATE, action, actor, body, newest, no_letter, replayed, still_dead};
use crate::sql::plans::PlanOf;
use crate::sql::rows::{parts_of, signed, unsigned};
use crate::sql::{DeadLetter, Row, SqlError};

impl MysqlSql {
    /// See [`crate::sql::Sql::dead_letters`].
    pub(super) async fn letters(
        &self,
        kind: Option<&str>,
        after: i64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, SqlError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let query = sqlx::query(statements::DEAD_LETTERS).bind(kind).bind(kind).bind(after).bind(limit);
        let rows = leased!(self.lease().await?, |connection| query.fetch_all(connection))?;
        rows.iter().map(dead_letter).collect::<Result<_, _>>().map_err(sql_error)
    }

    /// See [`crate::sql::Sql::rejections`].
    pub(super) async fn newest_letters(&self, kind: &str, ids: &[Id]) -> Result<Vec<Option<DeadLetter>>, SqlError> {
        let targets: Vec<String> = ids.iter().map(Id::to_string).collect();
        let mut letters = Vec::new();
        for part in targets.chunks(CHUNK) {
            let list = padded(part);
            let query = kept(statements::newest_letters(list.len())).bind(kind).bind(CREATE);
            let query = list.fold(query, |query, target| query.bind(target.clone()));
            for row in &leased!(self.lease().await?, |connection| query.fetch_all(connection))? {
                letters.push(dead_letter(row).map_err(sql_error)?);
            }
        }
        Ok(newest(&targets, letters))
    }

    /// See [`crate::sql::Sql::dead_letter_counts`].
    pub(super) async fn letter_counts(&self) -> Result<Vec<(String, u64)>, SqlError> {
        let rows =
            leased!(self.lease().await?, |connection| sqlx::query(statements::DEAD_COUNTS).fetch_all(connection))?;
        let counts = rows.iter().map(|row| Ok((text(row, 0)?, unsigned(number(row, 1)?))));
        counts.collect::<Result<_, sqlx::Error>>().map_err(sql_error)
    }

    /// See [`crate::sql::Sql::replay_dead_letter`].
    pub(super) async fn replay(&self, table: &KindTable, letter: &DeadLetter) -> Result<(), SqlError> {
        let row = replayed(table, letter)?;
        let plan = PlanOf::of(self, table).await?;
        let lease = self.lease().await?;
        let result = leased!(lease, |connection| async {
            sqlx::raw_sql(statements::BEGIN).execute(&mut *connection).await?;
            checkpoints::lock::<Mysql>(connection, &letter.kind, &[letter.partition]).await?;
            let query = kept(statements::dead_drop(1)).bind(letter.id);
            if query.execute(&mut *connection).await?.rows_affected() == 0 {
                return Err(no_letter(letter.id));
            }
            let mut transaction: FlushTransaction<'_, Mysql> =
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
        let mut dropped = 0;
        for part in ids.chunks(CHUNK) {
            let list = padded(part);
            let query = list.clone().fold(kept(statements::dead_drop(list.len())), |query, id| query.bind(*id));
            dropped += leased!(self.lease().await?, |connection| query.execute(connection))?.rows_affected();
        }
        Ok(dropped)
    }
}

impl FlushTransaction<'_, Mysql> {
    /// Writes dead letters.
    pub(super) async fn write_letters(
        &mut self,
        kind: &str,
        dead: &[Dead<'_>],
        now_ms: u64,
    ) -> Result<(), sqlx::Error> {
        // One document may be as large as many other rows.
        let bytes = |dead: &Dead<'_>| if let Row::Document(document) = dead.row { document.body.len() } else { 0 };
        for part in parts_of(dead, CHUNK, BYTES_PER_INSERT, bytes) {
            for piece in pieces(part, CHUNK) {
                self.statements += 1;
                let mut query = kept(statements::bury(piece.len()));
                for Dead { row, incarnation, reason } in piece {
                    query = query
                        .bind(kind)
                        .bind(i64::from(row.partition()))
                        .bind(row.target().to_string())
                        .bind(actor(row))
                        .bind(action(row))
                        .bind(signed(row.at_ms()))
                        .bind(incarnation.map(|life| life.to_string()).unwrap_or_default())
                        .bind(signed(row.position()))
                        .bind(row.digest().to_string())
                        .bind(*reason)
                        .bind(signed(now_ms))
                        .bind(body(row));
                }
                query.execute(&mut *self.connection).await?;
            }
        }
        Ok(())
    }
}

fn dead_letter(row: &MySqlRow) -> Result<DeadLetter, sqlx::Error> {
    Ok(DeadLetter {
        id: number(row, 0)?,
        kind: text(row, 1)?,
        partition: Partition::try_from(number(row, 2)?).unwrap_or_default(),
        target: text(row, 3)?,
        actor: text(row, 4)?,
        action: text(row, 5)?,
        at_ms: unsigned(number(row, 6)?),
        incarnation: text(row, 7)?,
        position: unsigned(number(row, 8)?),
        digest: text(row, 9)?,
        reason: text(row, 10)?,
        dead_at_ms: unsigned(number(row, 11)?),
        body: row.try_get_unchecked(12)?,
    })
}

/// A statement that stays prepared.
fn kept(text: String) -> Query<'static, MySql, MySqlArguments> {
    sqlx::query(AssertSqlSafe(text))
}

/// The rows, and the last one again until their number is a power of two: for lists in which repeating is harmless.
fn padded<T>(rows: &[T]) -> impl ExactSizeIterator<Item = &T> + Clone {
    let (count, last) = (rows.len().next_power_of_two(), rows.len().saturating_sub(1));
    (0..if rows.is_empty() { 0 } else { count }).map(move |index| &rows[index.min(last)])
}

/// The rows in parts whose sizes are powers of two, `most` at most.
fn pieces<T>(mut rows: &[T], most: usize) -> Vec<&[T]> {
    let mut parts = Vec::new();
    while !rows.is_empty() {
        let (part, rest) = rows.split_at((1 << rows.len().ilog2()).min(most));
        parts.push(part);
        rows = rest;
    }
    parts
}
