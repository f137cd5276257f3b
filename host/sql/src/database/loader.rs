//! The role of a database from which kinds are read.

use std::slice;

use async_trait::async_trait;
use serde_json::Value;

use super::Database;
use crate::driver::Driver;
use crate::exec::{counters, documents, preferences, toggles};
use crate::explain::{explained_count, explained_document, explained_settings};
use crate::{DeadLetter, Loader, SqlError, StoredDocument, TargetRow};
use weir_core::config::{CounterTable, IngestTable, KindTable, PreferenceTable, ToggleTable};
use weir_core::model::{Id, Member, Settings};

#[async_trait]
impl<D: Driver> Loader for Database<D> {
    async fn load_targets(
        &self,
        table: &ToggleTable,
        targets: &[Id],
        huge_rows_min: u64,
    ) -> Result<Vec<TargetRow>, SqlError> {
        toggles::load_targets(self, table, targets, huge_rows_min).await
    }

    async fn load_pairs(&self, table: &ToggleTable, pairs: &[(Id, Id)]) -> Result<Vec<Option<u64>>, SqlError> {
        toggles::load_pairs(self, table, pairs).await
    }

    async fn load_members(
        &self,
        table: &ToggleTable,
        target: &Id,
        before: Option<&Member>,
        limit: usize,
    ) -> Result<Vec<Member>, SqlError> {
        toggles::load_members(self, table, target, before, limit).await
    }

    async fn load_counts(&self, table: &CounterTable, targets: &[Id]) -> Result<Vec<Option<u64>>, SqlError> {
        counters::load_counts(self, table, targets).await
    }

    async fn load_settings(&self, table: &PreferenceTable, members: &[Id]) -> Result<Vec<Option<Settings>>, SqlError> {
        preferences::load_settings(self, table, members).await
    }

    async fn load_documents(&self, table: &IngestTable, ids: &[Id]) -> Result<Vec<Option<StoredDocument>>, SqlError> {
        documents::load_documents(self, table, ids).await
    }

    async fn documents_of(
        &self,
        table: &IngestTable,
        actor: &Id,
        before: Option<&StoredDocument>,
        limit: usize,
    ) -> Result<Vec<StoredDocument>, SqlError> {
        documents::documents_of(self, table, actor, before, limit).await
    }

    async fn rejections(&self, kind: &str, ids: &[Id]) -> Result<Vec<Option<DeadLetter>>, SqlError> {
        self.newest_dead_letters(kind, ids).await
    }

    async fn explain(&self, table: &KindTable, target: &Id, actor: Option<&Id>) -> Result<Value, SqlError> {
        let one = slice::from_ref(target);
        match table {
            KindTable::Toggle(table) => toggles::explain(self, table, target, actor).await,
            KindTable::Counter(table) => Ok(explained_count(&self.load_counts(table, one).await?)),
            KindTable::Ingest(table) => Ok(explained_document(&self.load_documents(table, one).await?)),
            KindTable::Preference(table) => Ok(explained_settings(&self.load_settings(table, one).await?)),
        }
    }
}
