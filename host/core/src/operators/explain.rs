//! Everything known of a target, or of one actor on it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{DeadLetter, IdValue, JournalHole};
use crate::model::{Partition, Position};

/// Everything known of a target, or of one actor on it, in the order of the way of a write.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Explanation {
    /// The kind.
    pub kind: String,
    /// The target; of a waiting room its queue.
    pub target: IdValue,
    /// The actor, where one was named.
    pub actor: Option<IdValue>,
    /// The target's partition; null for a waiting room, which has no journal.
    pub partition: Option<Partition>,
    /// Its state, the head of its journal and the entries that SQL does not have yet, or why the store does not say.
    pub store: Value,
    /// Its row, or why SQL does not say.
    pub sql: Value,
    /// How far SQL has got with the journal of its partition, or why SQL does not say.
    pub checkpoint: Part<Option<CheckpointMark>>,
    /// Its dead letters, or why SQL does not say.
    pub dead_letters: Part<Vec<DeadLetter>>,
    /// What the journal of its partition has lost, or why SQL does not say; absent for a waiting room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holes: Option<Part<Vec<JournalHole>>>,
    /// Of a waiting room: which requests show more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look_at: Option<Vec<String>>,
}

/// What is known, or a text that says why it is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Part<T> {
    /// It is known.
    Known(T),
    /// Why it is not.
    Unreachable(String),
}

impl<T: Default> Default for Part<T> {
    fn default() -> Self {
        Self::Known(T::default())
    }
}

impl<T, E: std::fmt::Display> From<Result<T, E>> for Part<T> {
    fn from(result: Result<T, E>) -> Self {
        result.map_or_else(|error| Self::Unreachable(error.to_string()), Self::Known)
    }
}

/// A row of `weir_checkpoint`, without its partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CheckpointMark {
    /// The journal's incarnation.
    pub incarnation: String,
    /// The owner's number.
    pub epoch: i64,
    /// The last committed entry.
    pub position: Position,
}
