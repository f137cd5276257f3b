//! The role of a database that keeps what could never be stored: listed, stored again, dropped.

use async_trait::async_trait;
use sqlx::SqlStr;

use super::Database;
use crate::classify::sql_error;
use crate::dead_letters::{CREATE, newest, no_letter, replayed, still_dead};
use crate::driver::Driver;
use crate::engine::Backend as _;
use crate::exec::checkpoints;
use crate::exec::flush::{COMMIT, FlushTransaction};
use crate::lease::leased;
use crate::plans::PlanOf;
use crate::rows::unsigned;
use crate::wire::{Batch, Record, Statement as _, Wire as _};
use crate::{DeadLetter, DeadLetters, Sink as _, SqlError};
use weir_core::config::KindTable;
use weir_core::model::{Id, Partition};

#[async_trait]
impl<D: Driver> DeadLetters for Database<D> {
    async fn dead_letters(&self, kind: Option<&str>, after: i64, limit: usize) -> Result<Vec<DeadLetter>, SqlError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let batch = Batch::new().optional_text(kind).integer(after).integer(limit);
        let rows = leased!(self.lease().await?, |connection| connection.fetch(&Self::own().dead_letters, &batch))?;
        rows.iter().map(dead_letter).collect::<Result<_, _>>().map_err(sql_error)
    }

    async fn dead_letter_counts(&self) -> Result<Vec<(String, u64)>, SqlError> {
        let batch = Batch::new();
        let rows = leased!(self.lease().await?, |connection| connection.fetch(&Self::own().dead_counts, &batch))?;
        rows.iter().map(|row| Ok((row.text(0)?, row.count(1)?))).collect::<Result<_, _>>().map_err(sql_error)
    }

    async fn replay_dead_letter(&self, table: &KindTable, letter: &DeadLetter) -> Result<(), SqlError> {
        let row = replayed(table, letter)?;
        let plan = PlanOf::of(self, table).await?;
        let _turn = self.write_turn().await;
        let lease = self.lease().await?;
        let (dialect, texts) = (self.dialect(), self.flush_texts());
        let result = leased!(lease, |connection| async {
            connection.command(self.begin()).await?;
            if self.locks_rows() {
                checkpoints::lock::<D::Engine>(connection, &letter.kind, &[letter.partition]).await?;
            }
            if connection.execute(&Self::own().dead_drop, &Batch::new().integers([letter.id])).await? == 0 {
                return Err(no_letter(letter.id));
            }
            let mut transaction = FlushTransaction::new(&mut *connection, dialect, &plan, table, texts);
            if let Some((_, reason)) = transaction.store(&[&row]).await?.dead.pop() {
                return Err(still_dead(reason));
            }
            connection.command(SqlStr::from_static(COMMIT)).await
        });
        self.plans.invalidated_by(table, result)
    }

    async fn drop_dead_letters(&self, ids: &[i64]) -> Result<u64, SqlError> {
        let _turn = self.write_turn().await;
        let (delete, mut dropped) = (&Self::own().dead_drop, 0);
        for part in delete.parts(ids) {
            let batch = Batch::new().integers(part.iter().copied());
            dropped += leased!(self.lease().await?, |connection| connection.execute(delete, &batch))?;
        }
        Ok(dropped)
    }

    async fn rename_dead_letters(&self, from: &str, to: &str) -> Result<u64, SqlError> {
        let _turn = self.write_turn().await;
        let batch = Batch::new().text(from).text(to);
        leased!(self.lease().await?, |connection| connection.execute(&Self::own().dead_rename, &batch))
    }
}

impl<D: Driver> Database<D> {
    /// See [`crate::Loader::rejections`].
    pub(super) async fn newest_dead_letters(
        &self,
        kind: &str,
        ids: &[Id],
    ) -> Result<Vec<Option<DeadLetter>>, SqlError> {
        let targets: Vec<String> = ids.iter().map(Id::to_string).collect();
        let (statement, mut letters) = (&Self::own().dead_newest, Vec::new());
        for part in statement.parts(&targets) {
            let batch = Batch::new().text(kind).text(CREATE).texts(part.iter().map(String::as_str));
            for row in &leased!(self.lease().await?, |connection| connection.fetch(statement, &batch))? {
                letters.push(dead_letter(row).map_err(sql_error)?);
            }
        }
        Ok(newest(&targets, letters))
    }
}

fn dead_letter<R: Record>(row: &R) -> Result<DeadLetter, sqlx::Error> {
    Ok(DeadLetter {
        id: row.integer(0)?,
        kind: row.text(1)?,
        partition: Partition::try_from(row.integer(2)?).unwrap_or_default(),
        target: row.text(3)?,
        actor: row.text(4)?,
        action: row.text(5)?,
        at_ms: unsigned(row.integer(6)?),
        incarnation: row.text(7)?,
        position: unsigned(row.integer(8)?),
        digest: row.text(9)?,
        reason: row.text(10)?,
        dead_at_ms: unsigned(row.integer(11)?),
        body: row.optional_text(12)?,
    })
}
