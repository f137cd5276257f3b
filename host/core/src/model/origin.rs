//! Where a change comes from: what journal entries and SQL rows say of it alike.

use super::{Digest, Partition, Position};

/// The journal entry of a change. All changes of an entry have the same origin; a row that sums up several changes has that of
/// the newest. The dead letter of a row names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// The partition of the target.
    pub partition: Partition,
    /// The place of the entry in the journal of that partition.
    pub position: Position,
    /// The policy module that accepted it.
    pub digest: Digest,
    /// When it was accepted, in Unix milliseconds, by the host's clock: the value of a created-at column.
    pub at_ms: u64,
}
