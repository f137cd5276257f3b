//! What the journal and SQL's checkpoint are about: lives, places, what waits.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{CountChange, DocumentChange, Id, Partition, Position, SettingsChange, ToggleChange};

/// One accepted change of a kind. All changes of one kind are of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Of a toggle.
    Toggle(ToggleChange),
    /// Of a counter.
    Count(CountChange),
    /// A create.
    Document(DocumentChange),
    /// Of a member's settings.
    Settings(SettingsChange),
}

impl Change {
    /// The target that it changes; of a create, the document's id.
    pub fn target(&self) -> &Id {
        match self {
            Self::Toggle(change) => &change.target,
            Self::Count(change) => &change.target,
            Self::Document(change) => &change.id,
            Self::Settings(change) => &change.member,
        }
    }

    /// [`Change::target`], taken out of it.
    pub fn into_target(self) -> Id {
        match self {
            Self::Toggle(change) => change.target,
            Self::Count(change) => change.target,
            Self::Document(change) => change.id,
            Self::Settings(change) => change.member,
        }
    }

    /// Who made it, where that is kept.
    pub fn actor(&self) -> Option<&Id> {
        match self {
            Self::Toggle(change) => Some(&change.actor),
            Self::Count(change) => change.actor.as_ref(),
            Self::Document(change) => Some(&change.actor),
            Self::Settings(_) => None,
        }
    }

    /// What it stands for: of a counter its increments, of everything else one change.
    pub fn amount(&self) -> u64 {
        if let Self::Count(change) = self { change.by } else { 1 }
    }
}

/// SHA-256 of a policy component; names the module that accepted an entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Names one life of the journal of a (kind, partition): a UUIDv7, so that a later life compares greater.
/// A journal that was recreated or rewound gets a new one, which fences everything read from the old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Incarnation(pub Uuid);

impl Incarnation {
    /// A new life, greater than every one made before by this clock.
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }

    /// A new life that is greater than `other` even if the clock went back.
    pub fn after(other: Self) -> Self {
        let fresh = Self::fresh();
        if fresh > other { fresh } else { Self(Uuid::from_u128(other.0.as_u128().wrapping_add(1))) }
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.hyphenated())
    }
}

/// Names a database: random, made at weir's first start on it, and recorded in `weir_meta`. A dump takes it along. A journal
/// belongs to one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DatabaseId(pub Uuid);

/// Names a journal as a whole: an embedded directory, or a namespace of a Redis, from its beginning until it is wiped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct JournalId(pub Uuid);

impl fmt::Display for DatabaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.hyphenated())
    }
}

impl fmt::Display for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.hyphenated())
    }
}

/// The journal that a kind of this database was written to last: one row of `weir_journal`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownJournal {
    /// The kind.
    pub kind: String,
    /// The journal.
    pub journal: JournalId,
    /// Where it lies: the type of the store, and its directory, or address and namespace.
    pub place: String,
    /// Its host stopped with nothing left in it, or an operator has given it up.
    pub is_closed: bool,
}

/// How far SQL has got with the journal of one (kind, partition). One row of `weir_checkpoint`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The partition.
    pub partition: Partition,
    /// The life of the journal that `position` belongs to.
    pub incarnation: Incarnation,
    /// Raised by each new owner; an owner with a lower one commits nothing.
    pub epoch: i64,
    /// The last entry whose effect is committed.
    pub position: Position,
}

/// What waits in the journal of a kind (or of one partition).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Backlog {
    /// Changes not yet committed to SQL.
    pub entries: u64,
    /// Targets that these change, as far as the store knows them.
    pub targets: u64,
    /// Their size in the journal, in bytes.
    pub bytes: u64,
    /// When the oldest was accepted, in Unix milliseconds; `None` when empty or unknown.
    pub oldest_at_ms: Option<u64>,
}

impl Backlog {
    /// Age of the oldest change, in milliseconds; 0 when empty.
    pub fn oldest_age_ms(&self, now_ms: u64) -> u64 {
        self.oldest_at_ms.map_or(0, |at| now_ms.saturating_sub(at))
    }

    /// Adds what waits in another partition.
    pub fn merge(&mut self, other: &Self) {
        self.entries += other.entries;
        self.targets += other.targets;
        self.bytes += other.bytes;
        self.oldest_at_ms = match (self.oldest_at_ms, other.oldest_at_ms) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_incarnation_is_greater() {
        let far_future = Incarnation(Uuid::from_u128(u128::MAX - 5));
        assert!(Incarnation::after(far_future) > far_future);
        let first = Incarnation::fresh();
        assert!(Incarnation::after(first) > first);
    }
}
