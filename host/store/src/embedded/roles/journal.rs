//! The flusher's role: see [`Journal`].

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::super::EmbeddedStore;
use super::super::change::{self, Trim};
use super::super::read::Reader;
use crate::{Journal, JournalRead, StoreError};
use weir_core::journal::{Head, Hole, Mark};
use weir_core::model::{Id, Incarnation, Partition, Position};

#[async_trait]
impl Journal for EmbeddedStore {
    fn partitions(&self) -> Partition {
        self.partitions
    }

    async fn heads(&self, kind: &str, partitions: &[Partition]) -> Result<Vec<Head>, StoreError> {
        let (kind, partitions) = (kind.to_owned(), partitions.to_vec());
        let (kind, partitions, found) = self
            .snapshot(move |reader| {
                let found = reader.heads(&kind, &partitions)?;
                Ok((kind, partitions, found))
            })
            .await?;
        if let Some(heads) = found {
            return Ok(heads);
        }
        self.write(move |transaction, state, _| {
            let head = |&partition: &Partition| {
                let head = transaction.head_or_fresh(&kind, partition)?;
                Ok(head.public(partition, state.waiting(&kind, partition)))
            };
            partitions.iter().map(head).collect()
        })
        .await
    }

    async fn read_journal(
        &self,
        kind: &str,
        partition: Partition,
        incarnation: Incarnation,
        position: Position,
        changes_max: usize,
    ) -> Result<JournalRead, StoreError> {
        let owned = kind.to_owned();
        let read = move |reader: &Reader<'_>| reader.journal(&owned, partition, incarnation, position, changes_max);
        let has_tails = self.state().has_tails(kind, partition);
        if let Some(read) = self.snapshot(read).await? {
            if let JournalRead::Entries(entries) = &read
                && let Some(newest) = entries.last()
                && has_tails
            {
                let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
                state.note_read(kind, partition, newest.position);
            }
            return Ok(read);
        }
        let head = self.heads(kind, &[partition]).await?;
        head.first().map_or_else(
            || Err(StoreError::Unavailable("the head could not be made".into())),
            |head| Ok(JournalRead::OtherIncarnation(*head)),
        )
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
        let (kind, terms, now_ms) = (kind.to_owned(), self.terms, self.now_ms.load(Ordering::Relaxed));
        let trim = Trim { partition, incarnation, upto, touched: touched.to_vec(), invalid: invalid.to_vec() };
        self.write(move |transaction, state, _| change::trim(transaction, state, &terms, &kind, trim, now_ms)).await
    }

    async fn lost_targets(
        &self,
        kind: &str,
        partition: Partition,
        hole: &Hole,
        targets_max: usize,
    ) -> Result<Vec<String>, StoreError> {
        Ok(self.state().changed_between((kind, partition), (hole.after, hole.last), targets_max))
    }

    async fn reset(&self, kind: &str, partition: Partition, than: Incarnation) -> Result<Head, StoreError> {
        let kind = kind.to_owned();
        self.write(move |transaction, state, _| change::reset(transaction, state, &kind, partition, than)).await
    }

    async fn lease(&self, kind: &str, owner: &str, ttl_ms: u64) -> Result<bool, StoreError> {
        let now = Instant::now();
        let mut leases = self.lock(&self.leases);
        if leases.get(kind).is_some_and(|(holder, until)| holder != owner && now < *until) {
            return Ok(false);
        }
        leases.insert(kind.to_owned(), (owner.to_owned(), now + Duration::from_millis(ttl_ms)));
        Ok(true)
    }

    async fn release(&self, kind: &str, owner: &str) -> Result<(), StoreError> {
        let mut leases = self.lock(&self.leases);
        if leases.get(kind).is_some_and(|(holder, _)| holder == owner) {
            leases.remove(kind);
        }
        Ok(())
    }

    async fn check_binding(&self) -> Result<(), StoreError> {
        // The directory is locked: no other process can bind it to another database.
        Ok(())
    }
}
