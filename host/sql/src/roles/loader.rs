//! What the capabilities read of their own tables.
//!
//! Holds the role and its types; the engines implement it.

use async_trait::async_trait;

use super::DeadLetter;
use crate::SqlError;
use weir_core::config::{CounterTable, IngestTable, KindTable, PreferenceTable, ToggleTable};
use weir_core::model::{Id, Member, Settings};

/// What SQL says of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRow {
    /// The target.
    pub target: Id,
    /// Its state.
    pub state: TargetState,
}

/// State of a target in SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetState {
    /// No such target.
    Missing,
    /// All members and when they were added (Unix milliseconds; 0 where there is no created-at column).
    Whole(Vec<(Id, u64)>),
    /// More members than the kind's `huge_rows_min`: only the count.
    Huge(u64),
}

/// A document as it lies in SQL.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredDocument {
    /// Its id.
    pub id: Id,
    /// Its fields, as far as they have columns; arrays from the tables of what is nested. NULLs are left out, and arrays
    /// without rows. The field with the id is not among them.
    pub body: serde_json::Map<String, serde_json::Value>,
    /// Who created it, where there is an actor column.
    pub actor: Option<Id>,
    /// When, in Unix milliseconds, where there is a created-at column.
    pub at_ms: Option<u64>,
}

/// Reads the state of kinds in bulk.
#[async_trait]
pub trait Loader: Send + Sync {
    /// State of each target, in order, in bounded queries: at most `huge_rows_min` members of one target are loaded.
    /// MUST be called after [`super::Sink::checkpoints`] returned (law of hydration).
    async fn load_targets(
        &self,
        table: &ToggleTable,
        targets: &[Id],
        huge_rows_min: u64,
    ) -> Result<Vec<TargetRow>, SqlError>;

    /// When each pair was added (Unix milliseconds, 0 when unknown), `None` where it is absent; in order.
    async fn load_pairs(&self, table: &ToggleTable, pairs: &[(Id, Id)]) -> Result<Vec<Option<u64>>, SqlError>;

    /// Members of a target, newest first (ties by actor text descending), strictly older than `before`.
    async fn load_members(
        &self,
        table: &ToggleTable,
        target: &Id,
        before: Option<&Member>,
        limit: usize,
    ) -> Result<Vec<Member>, SqlError>;

    /// The count of each target, in order (NULL is 0); `None` where there is no such target. MUST be called after
    /// [`super::Sink::checkpoints`] returned (law of hydration).
    async fn load_counts(&self, table: &CounterTable, targets: &[Id]) -> Result<Vec<Option<u64>>, SqlError>;

    /// The settings of each member, in order, as far as it has a row and no NULL in it; `None` where there is no such member.
    /// MUST be called after [`super::Sink::checkpoints`] returned (law of hydration).
    async fn load_settings(&self, table: &PreferenceTable, members: &[Id]) -> Result<Vec<Option<Settings>>, SqlError>;

    /// The documents with these ids, in order; `None` where there is none. Numbers that are no 64-bit integers come back as
    /// doubles.
    async fn load_documents(&self, table: &IngestTable, ids: &[Id]) -> Result<Vec<Option<StoredDocument>>, SqlError>;

    /// The documents of one actor in descending order of (created-at, id), or of the id where there is no created-at
    /// column; strictly after `before`, at most `limit`. Empty where there is no actor column.
    async fn documents_of(
        &self,
        table: &IngestTable,
        actor: &Id,
        before: Option<&StoredDocument>,
        limit: usize,
    ) -> Result<Vec<StoredDocument>, SqlError>;

    /// The dead letters of documents, by their ids, in order; `None` where there is none.
    async fn rejections(&self, kind: &str, ids: &[Id]) -> Result<Vec<Option<DeadLetter>>, SqlError>;

    /// What SQL holds, in dialect, for `weir explain`. Of a toggle an object with `row` (null when absent), `count` and `rows`
    /// (the number of rows of the target, null when huge); of a counter `count`; of creates `document`; of a member `settings`.
    async fn explain(&self, table: &KindTable, target: &Id, actor: Option<&Id>) -> Result<serde_json::Value, SqlError>;
}
