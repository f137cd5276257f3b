//! The way from the journal to SQL: what waits, what could not be stored, what was lost.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Partition, Position};

/// What waits in the journals of all kinds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FlushReport {
    /// By kind.
    pub kinds: Vec<KindFlush>,
}

/// The flush of one kind. The dashboard shows every plain field as a column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct KindFlush {
    /// The kind.
    pub kind: String,
    /// Changes in the journal that SQL has not committed.
    pub backlog_entries: u64,
    /// Targets that these change.
    pub backlog_targets: u64,
    /// Their size, in bytes.
    pub backlog_bytes: u64,
    /// Age of the oldest, in milliseconds.
    pub oldest_age_ms: u64,
    /// Whether this host holds the lease.
    pub lease: bool,
    /// The adaptive batch, in changes.
    pub batch_changes: usize,
    /// Checkpoints that this host works from.
    pub checkpoints: Vec<CheckpointRow>,
    /// Why the last attempt failed; null after a success.
    pub last_error: Option<String>,
    /// Whether that needs an operator: schema, grants, damaged data.
    pub stuck: bool,
    /// Whether the host flushes by `flush.age_ms_max`, because the rules have planned no flush for so long.
    pub overdue: bool,
    /// Whether the flusher has ended, which it does only when the host stops.
    pub ended: bool,
    /// What waits because another session has locked rows; everything else goes on.
    pub set_aside: Vec<SetAside>,
    /// When the last flush was committed, in Unix milliseconds.
    pub flushed_at_ms: Option<u64>,
    /// Holes in its journal that nobody has acknowledged, as far as this host knows; number 0 where SQL has not recorded one yet.
    pub holes: Vec<JournalHole>,
    /// How many dead letters it has; null while SQL does not answer.
    pub dead_letters: Option<u64>,
}

/// One row of `weir_checkpoint`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CheckpointRow {
    /// The partition.
    pub partition: Partition,
    /// The journal's incarnation.
    pub incarnation: String,
    /// The owner's number.
    pub epoch: i64,
    /// The last committed entry.
    pub position: Position,
}

/// Targets of a partition that wait for a lock of another session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SetAside {
    /// The partition.
    pub partition: Partition,
    /// Where its checkpoint stands.
    pub position: Position,
    /// Up to here everything else is stored.
    pub ahead: Position,
    /// Targets that wait: some of them, when there are many.
    pub targets: Vec<String>,
    /// How many there are.
    pub targets_count: usize,
    /// Who held the locks when that was last asked.
    pub held_by: Vec<String>,
}

/// What a flush on demand has stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Flushed {
    /// By kind.
    pub kinds: Vec<KindFlushed>,
}

/// What a flush on demand has stored of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct KindFlushed {
    /// The kind.
    pub kind: String,
    /// Changes that went to SQL.
    pub flushed: u64,
}

/// A page of dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DeadLetters {
    /// Oldest first.
    pub dead_letters: Vec<DeadLetter>,
}

/// A row that could never be stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
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
    /// `add` or `remove` of a toggle, `count` or `event` of a counter, `create` of a document, `set` of a member's settings.
    pub action: String,
    /// What else is needed to store it: the document, the settings, or `{"by":n}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// When it was accepted, in Unix milliseconds.
    pub at_ms: u64,
    /// The journal's incarnation.
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

/// What journals have lost before it was in SQL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct JournalHoles {
    /// Newest first.
    pub holes: Vec<JournalHole>,
}

/// A hole in a journal that the flusher has left behind: what was lost, where, and whether an operator knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct JournalHole {
    /// Its number.
    pub id: i64,
    /// The kind.
    pub kind: String,
    /// The partition of its journal.
    pub partition: Partition,
    /// The incarnation of the journal that it ended.
    pub incarnation: String,
    /// Up to here SQL has everything.
    pub after: Position,
    /// The last entry that was lost.
    pub last: Position,
    /// The entry that followed; null where the end was lost.
    pub next: Option<Position>,
    /// Changes that were lost: accepted, and not in SQL.
    pub changes: u64,
    /// What these amounted to: of a counter the sum of the increments, else as many. Null where that is unknown.
    pub amount: Option<u64>,
    /// Whether that is their number; otherwise there were at most so many.
    pub is_exact: bool,
    /// Targets that are known to have lost changes; there may be more.
    pub targets: Vec<String>,
    /// When it was found, in Unix milliseconds.
    pub found_at_ms: u64,
    /// When an operator acknowledged it, in Unix milliseconds.
    pub acknowledged_at_ms: Option<u64>,
}

/// How many holes an operator has acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Acknowledged {
    /// So many.
    pub acknowledged: u64,
}
