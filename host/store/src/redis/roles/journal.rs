//! The flusher's role: see [`Journal`].

use async_trait::async_trait;
use redis::{Cmd, Value};

use super::super::link::Nature;
use super::super::reply::{Reply, unexpected};
use super::super::{RedisStore, TIME_MS_MAX, life};
use crate::{Journal, JournalRead, StoreError};
use weir_core::journal::{Head, Hole, Mark};
use weir_core::model::{Id, Incarnation, Partition, Position};

#[async_trait]
impl Journal for RedisStore {
    fn partitions(&self) -> Partition {
        self.partitions
    }

    fn step_of(&self, partition: Partition) -> Partition {
        if self.link.is_cluster() { partition } else { 0 }
    }

    async fn heads(&self, kind: &str, partitions: &[Partition]) -> Result<Vec<Head>, StoreError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let call = |partitions: Vec<Partition>| async move { self.heads_call(kind, &partitions).await };
        let heads = self.in_calls(partitions, |partition| *partition, call).await?;
        self.after_heads(kind, &heads).await?;
        Ok(heads)
    }

    async fn read_journal(
        &self,
        kind: &str,
        partition: Partition,
        incarnation: Incarnation,
        position: Position,
        changes_max: usize,
    ) -> Result<JournalRead, StoreError> {
        if let Some(read) = self.journal(kind, partition, (incarnation, position, changes_max)).await? {
            return Ok(read);
        }
        let heads = self.heads(kind, &[partition]).await?;
        heads.first().map_or_else(|| Err(unexpected("a head")), |head| Ok(JournalRead::OtherIncarnation(*head)))
    }

    async fn trim_to(
        &self,
        kind: &str,
        partition: Partition,
        incarnation: Incarnation,
        upto: Mark,
        touched: &[Id],
        invalid: &[Id],
    ) -> Result<(), StoreError> {
        self.head_call(Nature::Writes, &self.link.scripts.trim, kind, partition, |command| {
            command.arg(incarnation.to_string()).arg(upto.position).arg(self.state_ttl_ms).arg(self.huge_pairs_max);
            let number = |number: Option<u64>| number.map_or("-1".to_owned(), |number| number.to_string());
            command.arg(touched.len()).arg(number(upto.changes)).arg(number(upto.amount));
            for target in touched.iter().chain(invalid) {
                command.arg(target.to_string());
            }
        })
        .await
        .map(|_| ())
    }

    async fn lost_targets(
        &self,
        kind: &str,
        partition: Partition,
        hole: &Hole,
        targets_max: usize,
    ) -> Result<Vec<String>, StoreError> {
        self.lost_targets_of(kind, partition, hole, targets_max).await
    }

    async fn forget_lost(&self, kind: &str, partitions: &[Partition]) -> Result<(), StoreError> {
        self.forget_lost_of(kind, partitions).await
    }

    async fn reset(&self, kind: &str, partition: Partition, than: Incarnation) -> Result<Head, StoreError> {
        let value = self
            .head_call(Nature::Writes, &self.link.scripts.reset, kind, partition, |command| {
                command.arg(than.to_string()).arg(Incarnation::after(than).to_string()).arg(life());
            })
            .await?;
        let head = Reply::of(Value::Array(vec![value]))?.head(partition)?;
        self.after_heads(kind, &[head]).await?;
        Ok(head)
    }

    async fn lease(&self, kind: &str, owner: &str, ttl_ms: u64) -> Result<bool, StoreError> {
        let arguments = |command: &mut Cmd| {
            command.arg(owner).arg(ttl_ms.clamp(1, TIME_MS_MAX));
        };
        let value =
            self.link.run(&self.link.scripts.lease, Nature::Writes, &[self.keys.flusher(kind)], arguments).await?;
        Ok(value == Value::Int(1))
    }

    async fn release(&self, kind: &str, owner: &str) -> Result<(), StoreError> {
        let arguments = |command: &mut Cmd| {
            command.arg(owner).arg(0);
        };
        self.link.run(&self.link.scripts.lease, Nature::Writes, &[self.keys.flusher(kind)], arguments).await.map(|_| ())
    }

    async fn check_binding(&self) -> Result<(), StoreError> {
        self.link.check_record(None).await
    }
}
