//! What of a journal SQL holds beyond its checkpoint, while some targets wait for a lock.

use std::collections::BTreeSet;

use super::{Checkpoint, Id, Incarnation, Partition, Position};

/// Targets of one partition that wait for a lock, and how far everything else has got. One row of `weir_aside`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// The partition.
    pub partition: Partition,
    /// The life of the journal.
    pub incarnation: Incarnation,
    /// Where the checkpoint stands. The journal is trimmed no further.
    pub position: Position,
    /// The entries above `position` and up to here are stored, but for the changes of `targets`.
    pub ahead: Position,
    /// Canonical texts of the targets that wait.
    pub targets: BTreeSet<String>,
}

impl Aside {
    /// Whether this target waits.
    pub fn holds(&self, target: &Id) -> bool {
        self.targets.contains(&target.to_string())
    }

    /// Whether it speaks of the journal as the checkpoint knows it. What was said of another is over.
    pub fn is_of(&self, checkpoint: &Checkpoint) -> bool {
        self.partition == checkpoint.partition
            && self.incarnation == checkpoint.incarnation
            && self.position == checkpoint.position
    }
}
