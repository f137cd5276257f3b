//! The role of a database into which rows are flushed.

use std::time::Duration;

use async_trait::async_trait;

use super::Database;
use crate::classify::sql_error;
use crate::driver::Driver;
use crate::engine::Backend as _;
use crate::exec::checkpoints::{self, Claim};
use crate::exec::flush::{self, Flush, FlushTransaction};
use crate::lease::leased;
use crate::plans::PlanOf;
use crate::rows::{check_rows, in_order};
use crate::wire::{Batch, Record as _, Wire as _};
use crate::{Applied, Around, Fence, JournalHole, Passed, Row, Sink, SqlError};
use weir_core::config::KindTable;
use weir_core::model::{Aside, Checkpoint, Incarnation, Partition};

#[async_trait]
impl<D: Driver> Sink for Database<D> {
    async fn checkpoints(&self, kind: &str, partitions: &[Partition]) -> Result<Vec<Option<Checkpoint>>, SqlError> {
        let rows =
            leased!(self.lease().await?, |connection| checkpoints::read::<D::Engine>(connection, kind, partitions))?;
        Ok(partitions.iter().map(|partition| rows.get(partition).copied()).collect())
    }

    async fn claim(
        &self,
        kind: &str,
        partitions: &[(Partition, Incarnation)],
        take_over: bool,
    ) -> Result<Vec<Checkpoint>, SqlError> {
        let _turn = self.write_turn().await;
        let claim = Claim { database: self.pin.get(), kind, wanted: partitions, take_over };
        let begin = self.begin();
        let rows =
            leased!(self.lease().await?, |connection| checkpoints::claim::<D::Engine>(connection, begin, claim))?;
        in_order(partitions, &rows)
    }

    async fn apply_around(
        &self,
        kind: &str,
        table: &KindTable,
        fences: &[Fence],
        rows: &[Row],
        around: &Around,
        now_ms: u64,
    ) -> Result<Applied, SqlError> {
        check_rows(table, rows)?;
        let flush = Flush { kind, fences, rows, around, now_ms };
        let plan = PlanOf::of(self, table).await?;
        let _turn = self.write_turn().await;
        let mut lease = self.lease().await?;
        let (dialect, texts) = (self.dialect(), self.flush_texts());
        let mut transaction = FlushTransaction::new(lease.connection(), dialect, &plan, table, texts);
        let running = flush::run(&mut transaction, self.limit, &flush);
        let result = match self.driver.health() {
            Some(health) => health.unless_moved(running).await,
            None => running.await,
        };
        if result.is_ok() {
            lease.give_back();
        }
        if let Some(health) = self.driver.health() {
            health.note_result(&result);
        }
        self.plans.invalidated_by(table, result)
    }

    async fn asides(&self, kind: &str) -> Result<Vec<Aside>, SqlError> {
        leased!(self.lease().await?, |connection| checkpoints::read_asides::<D::Engine>(connection, kind))
    }

    fn locks_rows(&self) -> bool {
        D::LOCK_HOLDER.is_none()
    }

    fn lock_timeout(&self) -> Duration {
        D::lock_timeout(&self.settings)
    }

    async fn lock_holders(&self) -> Result<Vec<String>, SqlError> {
        if let Some(holder) = D::LOCK_HOLDER {
            return Ok(vec![holder.to_owned()]);
        }
        let lease = self.lease().await?;
        let Some(statement) = self.driver.lock_holders() else { return Ok(Vec::new()) };
        let batch = Batch::new();
        let rows = leased!(lease, |connection| connection.fetch(&statement, &batch))?;
        rows.iter().map(|row| row.text(0)).collect::<Result<_, _>>().map_err(sql_error)
    }

    async fn pass_hole(&self, kind: &str, passed: Passed<'_>, now_ms: u64) -> Result<Checkpoint, SqlError> {
        let _turn = self.write_turn().await;
        self.record_hole(kind, passed, now_ms).await
    }

    async fn journal_holes(
        &self,
        kind: Option<&str>,
        is_open: bool,
        limit: usize,
    ) -> Result<Vec<JournalHole>, SqlError> {
        self.holes(kind, is_open, limit).await
    }

    async fn acknowledge_holes(&self, kind: &str, now_ms: u64) -> Result<u64, SqlError> {
        let _turn = self.write_turn().await;
        self.acknowledge(kind, now_ms).await
    }
}
