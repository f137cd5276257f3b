//! The write path's role: see [`State`].

use async_trait::async_trait;

use super::super::RedisStore;
use crate::{
    Commit, CountBatch, CountResult, CreateBatch, CreateResult, Hydrated, Hydration, MemberRead, Members,
    PendingDocument, ReadResult, SettingsBatch, SettingsResult, State, StoreError, ToggleBatch, ToggleResult,
};
use weir_core::model::{Id, Member, Partition};

#[async_trait]
impl State for RedisStore {
    async fn toggle(&self, kind: &str, batch: ToggleBatch) -> Result<Commit<ToggleResult>, StoreError> {
        self.apply_toggles(kind, &batch).await
    }

    async fn count(&self, kind: &str, batch: CountBatch) -> Result<Commit<CountResult>, StoreError> {
        self.apply_counts(kind, &batch).await
    }

    async fn create(&self, kind: &str, batch: CreateBatch) -> Result<Commit<CreateResult>, StoreError> {
        self.apply_creates(kind, &batch).await
    }

    async fn documents(&self, kind: &str, ids: &[(Partition, Id)]) -> Result<Vec<Option<PendingDocument>>, StoreError> {
        let ids: Vec<(Partition, String)> = ids.iter().map(|(partition, id)| (*partition, id.to_string())).collect();
        self.waiting_documents(kind, &ids).await
    }

    async fn documents_of(&self, kind: &str, actor: &Id, limit: usize) -> Result<Vec<PendingDocument>, StoreError> {
        self.waiting_documents_of(kind, actor, limit).await
    }

    async fn put_settings(&self, kind: &str, batch: SettingsBatch) -> Result<Commit<SettingsResult>, StoreError> {
        self.apply_settings(kind, &batch).await
    }

    async fn settings(&self, kind: &str, _now_ms: u64, members: &[Id]) -> Vec<Result<MemberRead, StoreError>> {
        self.read_settings(kind, members).await
    }

    async fn read(&self, kind: &str, _now_ms: u64, pairs: &[(Id, Option<Id>)]) -> Result<Vec<ReadResult>, StoreError> {
        self.read_pairs(kind, pairs).await
    }

    async fn members(
        &self,
        kind: &str,
        _now_ms: u64,
        target: &Id,
        before: Option<&Member>,
        limit: usize,
    ) -> Result<Members, StoreError> {
        self.members_of(kind, target, before, limit).await
    }

    async fn hydrate(&self, kind: &str, hydrations: Vec<Hydration>) -> Result<Vec<Hydrated>, StoreError> {
        if self.link.is_cluster() {
            let calls = hydrations.iter().map(|hydration| self.hydrate_one(kind, hydration));
            return futures_util::future::try_join_all(calls).await;
        }
        // One after the other, so that a server does something else in between.
        let mut results = Vec::with_capacity(hydrations.len());
        for hydration in &hydrations {
            results.push(self.hydrate_one(kind, hydration).await?);
        }
        Ok(results)
    }

    async fn wipe_state(&self, kind: &str) -> Result<(), StoreError> {
        let all: Vec<Partition> = (0..self.partitions).collect();
        let call = |partitions: Vec<Partition>| async move { self.wipe_call(kind, &partitions).await };
        self.in_calls(&all, |partition| *partition, call).await.map(|_| ())
    }

    async fn explain(
        &self,
        kind: &str,
        _now_ms: u64,
        (partition, target): (Partition, &Id),
        actor: Option<&Id>,
    ) -> Result<serde_json::Value, StoreError> {
        self.explain_target(kind, (partition, target), actor).await
    }
}
