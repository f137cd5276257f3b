//! Holes of journals, as SQL records them: what all engines share.

use serde::Serialize;

use super::rows::unsigned;
use weir_core::journal::Hole;
use weir_core::model::{Checkpoint, Incarnation, Partition, Position};

/// A hole in a journal that the flusher has left behind: what was lost, where, and whether somebody has taken note of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JournalHole {
    /// Its number.
    pub id: i64,
    /// The kind.
    pub kind: String,
    /// The partition of its journal.
    pub partition: Partition,
    /// The life of the journal that it ended.
    pub incarnation: String,
    /// Up to here SQL has everything.
    pub after: Position,
    /// The last entry that was lost.
    pub last: Position,
    /// The entry that followed; `None` where the end was lost.
    pub next: Option<Position>,
    /// Changes that were lost: accepted, and not in SQL.
    pub changes: u64,
    /// What these amounted to: of a counter the sum of the increments, else as many. `None` where it was not counted.
    pub amount: Option<u64>,
    /// Whether that is their number; otherwise there were at most so many.
    pub is_exact: bool,
    /// Targets that are known to have lost changes; there may be more.
    pub targets: Vec<String>,
    /// When it was found, in Unix milliseconds.
    pub found_at_ms: u64,
    /// When an operator took note of it, in Unix milliseconds.
    pub acknowledged_at_ms: Option<u64>,
}

impl JournalHole {
    /// How much was lost: of a counter increments, where that is known; else changes.
    pub fn lost(&self) -> u64 {
        self.amount.unwrap_or(self.changes)
    }
}

/// In one line, without its kind.
impl std::fmt::Display for JournalHole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bound = if self.is_exact { "" } else { "at most " };
        write!(f, "partition {}, {bound}{} after {} up to {}", self.partition, self.lost(), self.after, self.last)?;
        match self.next {
            Some(next) => write!(f, ", next {next}"),
            None => write!(f, ", the end"),
        }
    }
}

/// What a flusher leaves behind.
#[derive(Debug, Clone, Copy)]
pub struct Passed<'a> {
    /// The checkpoint before it: what the row must hold now.
    pub from: &'a Checkpoint,
    /// The life that the row holds afterwards.
    pub life: Incarnation,
    /// The hole.
    pub hole: &'a Hole,
    /// Targets that are known to have lost changes.
    pub targets: &'a [String],
}

impl Passed<'_> {
    /// The checkpoint row afterwards: behind the hole, and in a life in which no other host flushes.
    pub(super) fn row(&self) -> Checkpoint {
        let Checkpoint { partition, epoch, .. } = *self.from;
        Checkpoint { partition, incarnation: self.life, epoch: epoch + 1, position: self.hole.end() }
    }

    /// The targets, as they are recorded.
    pub(super) fn targets_text(&self) -> String {
        serde_json::to_string(self.targets).unwrap_or_default()
    }
}

/// The columns of a recorded hole, in the order of the statements.
pub(super) struct HoleColumns {
    pub id: i64,
    pub kind: String,
    pub partition: i64,
    pub incarnation: String,
    pub after: i64,
    pub last: i64,
    pub next: Option<i64>,
    pub changes: i64,
    pub amount: Option<i64>,
    pub is_exact: i64,
    pub targets: String,
    pub found_at_ms: i64,
    pub acknowledged_at_ms: Option<i64>,
}

impl From<HoleColumns> for JournalHole {
    fn from(row: HoleColumns) -> Self {
        Self {
            id: row.id,
            kind: row.kind,
            partition: Partition::try_from(row.partition).unwrap_or_default(),
            incarnation: row.incarnation,
            after: unsigned(row.after),
            last: unsigned(row.last),
            next: row.next.map(unsigned),
            changes: unsigned(row.changes),
            amount: row.amount.map(unsigned),
            is_exact: row.is_exact != 0,
            targets: serde_json::from_str(&row.targets).unwrap_or_default(),
            found_at_ms: unsigned(row.found_at_ms),
            acknowledged_at_ms: row.acknowledged_at_ms.map(unsigned),
        }
    }
}
