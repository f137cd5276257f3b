//! The rows that could never be stored: listed, stored again, dropped.
//!
//! Holds the role and its types; the engines implement it.

use async_trait::async_trait;
use serde::Serialize;

use crate::SqlError;
use weir_core::config::KindTable;
use weir_core::model::Partition;

/// A row that could never be stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// Its number.
    pub id: i64,
    /// The kind.
    pub kind: String,
    /// The target's partition.
    pub partition: Partition,
    /// Canonical text of the target.
    pub target: String,
    /// Canonical text of the actor; empty where there is none.
    pub actor: String,
    /// `add` or `remove` of a toggle, `count` or `event` of a counter, `create` of a document, `set` of a
    /// member's settings.
    pub action: String,
    /// What else is needed to store it: the document, the settings, or `{"by":n}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// When it was accepted, in Unix milliseconds.
    pub at_ms: u64,
    /// The journal's life.
    pub incarnation: String,
    /// The journal entry.
    pub position: u64,
    /// Hexadecimal digest of the module that accepted it.
    pub digest: String,
    /// What the database said.
    pub reason: String,
    /// When it was moved here, in Unix milliseconds.
    pub dead_at_ms: u64,
}

/// Keeps the rows that could never be stored.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Dead letters of a kind (or of all), oldest first, with an id above `after`.
    async fn dead_letters(&self, kind: Option<&str>, after: i64, limit: usize) -> Result<Vec<DeadLetter>, SqlError>;

    /// How many dead letters there are, per kind.
    async fn dead_letter_counts(&self) -> Result<Vec<(String, u64)>, SqlError>;

    /// Tries to store a dead letter again in one transaction that holds its partition's checkpoint row: on success
    /// the row and the count are written and the letter is gone. `Permanent` with the reason when it still fails.
    async fn replay_dead_letter(&self, table: &KindTable, letter: &DeadLetter) -> Result<(), SqlError>;

    /// Drops dead letters by id; how many there were.
    async fn drop_dead_letters(&self, ids: &[i64]) -> Result<u64, SqlError>;

    /// Gives the dead letters of a kind to another; how many there were.
    async fn rename_dead_letters(&self, from: &str, to: &str) -> Result<u64, SqlError>;
}
