//! The write path's role: see [`State`].

use async_trait::async_trait;
use serde_json::json;

use super::super::hydrate::{self, Prepared};
use super::super::read::Reader;
use super::super::{EmbeddedStore, change, count, create, read, settings, toggle};
use crate::page::page;
use crate::{
    Commit, CountBatch, CountResult, CreateBatch, CreateResult, Hydrated, Hydration, MemberRead, Members,
    PendingDocument, ReadResult, SettingsBatch, SettingsResult, State, StoreError, ToggleBatch, ToggleResult, explain,
};
use weir_core::model::{Id, Member, Partition, partition_of};

#[async_trait]
impl State for EmbeddedStore {
    fn lays_tails(&self) -> bool {
        true
    }

    async fn toggle(&self, kind: &str, batch: ToggleBatch) -> Result<Commit<ToggleResult>, StoreError> {
        self.saw(batch.now_ms);
        let (kind, terms) = (kind.to_owned(), (self.partitions, self.idempotency_ttl_ms));
        self.write(move |transaction, state, limits| toggle::toggle(transaction, state, limits, terms, &kind, &batch))
            .await
    }

    async fn count(&self, kind: &str, batch: CountBatch) -> Result<Commit<CountResult>, StoreError> {
        self.saw(batch.now_ms);
        let (kind, terms) = (kind.to_owned(), (self.partitions, self.idempotency_ttl_ms));
        self.write(move |transaction, state, limits| count::count(transaction, state, limits, terms, &kind, &batch))
            .await
    }

    async fn create(&self, kind: &str, batch: CreateBatch) -> Result<Commit<CreateResult>, StoreError> {
        self.saw(batch.now_ms);
        let (kind, terms) = (kind.to_owned(), (self.partitions, self.idempotency_ttl_ms));
        self.write(move |transaction, state, _| create::create(transaction, state, terms, &kind, &batch)).await
    }

    async fn documents(&self, kind: &str, ids: &[(Partition, Id)]) -> Result<Vec<Option<PendingDocument>>, StoreError> {
        let seen = read::places(&self.state(), kind, ids);
        let places = self.once_written(seen).await?;
        if places.iter().all(Option::is_none) {
            return Ok(vec![None; places.len()]);
        }
        let kind = kind.to_owned();
        self.snapshot(move |reader| reader.documents(&kind, places)).await
    }

    async fn documents_of(&self, kind: &str, actor: &Id, limit: usize) -> Result<Vec<PendingDocument>, StoreError> {
        let seen = read::places_of(&self.state(), (kind, self.partitions), actor, limit);
        let (kind, places) = (kind.to_owned(), self.once_written(seen).await?);
        let found = self.snapshot(move |reader| reader.documents(&kind, read::newest(places, limit))).await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn put_settings(&self, kind: &str, batch: SettingsBatch) -> Result<Commit<SettingsResult>, StoreError> {
        self.saw(batch.now_ms);
        let (kind, terms) = (kind.to_owned(), (self.partitions, self.idempotency_ttl_ms));
        self.write(move |transaction, state, _| settings::put(transaction, state, terms, &kind, &batch)).await
    }

    async fn settings(&self, kind: &str, now_ms: u64, members: &[Id]) -> Vec<Result<MemberRead, StoreError>> {
        let seen = read::settings(&self.state(), (kind, self.partitions), now_ms, members);
        match self.once_written(seen).await {
            Ok(found) => found.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); members.len()],
        }
    }

    async fn read(&self, kind: &str, now_ms: u64, pairs: &[(Id, Option<Id>)]) -> Result<Vec<ReadResult>, StoreError> {
        let seen = read::pairs(&self.state(), (kind, self.partitions), now_ms, pairs);
        self.once_written(seen).await
    }

    async fn members(
        &self,
        kind: &str,
        now_ms: u64,
        target: &Id,
        before: Option<&Member>,
        limit: usize,
    ) -> Result<Members, StoreError> {
        let seen = read::members(&self.state(), (kind, partition_of(target, self.partitions)), now_ms, target);
        match self.once_written(seen).await? {
            Members::Whole(all) => {
                let page = page(all, before, limit).await;
                page.map(Members::Whole).ok_or_else(|| StoreError::Unavailable("the host is stopping".into()))
            }
            other => Ok(other),
        }
    }

    async fn hydrate(&self, kind: &str, hydrations: Vec<Hydration>) -> Result<Vec<Hydrated>, StoreError> {
        if let Some(first) = hydrations.first() {
            self.saw(first.now_ms);
        }
        let (kind, terms) = (kind.to_owned(), self.terms);
        let prepare =
            move || hydrations.into_iter().map(|hydration| Prepared::new(hydration, &terms)).collect::<Vec<_>>();
        let prepared = tokio::task::spawn_blocking(prepare).await;
        let prepared = prepared.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        self.write(move |transaction, state, _| {
            prepared.into_iter().map(|hydration| hydrate::hydrate(transaction, state, &kind, hydration)).collect()
        })
        .await
    }

    async fn wipe_state(&self, kind: &str) -> Result<(), StoreError> {
        let (kind, partitions) = (kind.to_owned(), self.partitions);
        self.write(move |transaction, state, _| change::wipe_state(transaction, state, &kind, partitions)).await
    }

    async fn explain(
        &self,
        kind: &str,
        now_ms: u64,
        (partition, target): (Partition, &Id),
        actor: Option<&Id>,
    ) -> Result<serde_json::Value, StoreError> {
        let (owned, pair) = (kind.to_owned(), (target.clone(), actor.cloned()));
        let read = move |reader: &Reader<'_>| reader.explain((&owned, partition), &pair.0, pair.1.as_ref());
        let found = self.snapshot(read).await?;
        let flushed = found.as_ref().map_or(0, |(head, _)| head.flushed);
        let state = read::explain(&self.state(), (kind, partition), now_ms, (target, actor), flushed);
        let (head, journal) = found.map(|(head, journal)| (explain::head(&head), journal)).unzip();
        Ok(json!({ "partition": partition, "state": state, "head": head, "journal": journal.unwrap_or_default() }))
    }
}
