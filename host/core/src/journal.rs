//! The journal: the only thing that the foreground half (requests) and the background half (flush) share.
//!
//! Uses `clock`, `config` and `model`. It owns the *format* of an entry, the chain of entries, the meaning of a head, and the
//! watch over the heads through which the two halves of one host hear of each other. The store appends entries,
//! atomically with the state that they change, and reads them back; nothing else writes them.

pub mod chain;
pub mod entry;
pub mod watch;

pub use chain::{Hole, Link, Mark};
pub use entry::{Entry, EntryError};
pub use watch::JournalWatch;

use crate::model::{Backlog, Incarnation, Partition, Position};

/// The head of the journal of one (kind, partition).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The partition.
    pub partition: Partition,
    /// The life of its journal.
    pub incarnation: Incarnation,
    /// The newest entry; 0 when none was ever appended.
    pub last: Position,
    /// The trim point: everything up to here is known to be committed.
    pub flushed: Position,
    /// Below this position the state cannot speak for itself.
    pub floor: Position,
    /// What waits above `flushed`.
    pub backlog: Backlog,
}
