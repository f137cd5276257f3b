//! What a flush is given to write, one row for each change that survived.
//!
//! Plain data. Knows no engine, and decides nothing.

use std::sync::Arc;

use crate::model::{Action, Digest, Id, Partition, Position, Settings};

/// One row to write: the last action of a (target, actor) pair. A pair occurs at most once in a flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// The partition of the target.
    pub partition: Partition,
    /// What is liked.
    pub target: Id,
    /// Who likes it.
    pub actor: Id,
    /// Insert or delete.
    pub action: Action,
    /// When it was accepted, in Unix milliseconds: the value of the created-at column.
    pub at_ms: u64,
    /// The journal entry that it comes from, for the dead letter.
    pub position: Position,
    /// The module that accepted it, for the dead letter.
    pub digest: Digest,
}

/// What is added to one counter: the sum of a flush. A target occurs at most once in a flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountRow {
    /// The partition of the target.
    pub partition: Partition,
    /// What is counted.
    pub target: Id,
    /// What is added, 1 or more.
    pub by: u64,
    /// When the newest part of it was accepted, in Unix milliseconds.
    pub at_ms: u64,
    /// The newest journal entry that it comes from, for the dead letter.
    pub position: Position,
    /// The module that accepted that, for the dead letter.
    pub digest: Digest,
}

/// One hit, for the table of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// The partition of the target.
    pub partition: Partition,
    /// What is counted.
    pub target: Id,
    /// Who was counted.
    pub actor: Option<Id>,
    /// What it added.
    pub by: u64,
    /// When it was accepted, in Unix milliseconds.
    pub at_ms: u64,
    /// The journal entry that it comes from, for the dead letter.
    pub position: Position,
    /// The module that accepted it, for the dead letter.
    pub digest: Digest,
}

/// One document to insert. An id occurs at most once in a flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentRow {
    /// Its partition.
    pub partition: Partition,
    /// Its id.
    pub id: Id,
    /// Who created it.
    pub actor: Id,
    /// A JSON object, as text.
    pub body: Arc<str>,
    /// When it was accepted, in Unix milliseconds.
    pub at_ms: u64,
    /// The journal entry that it comes from, for the dead letter.
    pub position: Position,
    /// The module that accepted it, for the dead letter.
    pub digest: Digest,
}

/// What changes of one member's settings: the last value of each field. A member occurs at most once in a flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsRow {
    /// The partition of the member.
    pub partition: Partition,
    /// Whose settings.
    pub member: Id,
    /// The fields that change, and what they hold afterwards.
    pub settings: Settings,
    /// When the newest part of it was accepted, in Unix milliseconds.
    pub at_ms: u64,
    /// The newest journal entry that it comes from, for the dead letter.
    pub position: Position,
    /// The module that accepted that, for the dead letter.
    pub digest: Digest,
}

/// One row of a flush. A flush of a toggle has toggles, one of a counter counts and events, one of creates documents, one of
/// preferences settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// Of a toggle.
    Toggle(RowChange),
    /// Of a counter.
    Count(CountRow),
    /// Of a counter's table of events.
    Event(EventRow),
    /// Of creates.
    Document(DocumentRow),
    /// Of members' settings.
    Settings(SettingsRow),
}

impl Row {
    /// The partition of its target.
    pub fn partition(&self) -> Partition {
        match self {
            Self::Toggle(row) => row.partition,
            Self::Count(row) => row.partition,
            Self::Event(row) => row.partition,
            Self::Document(row) => row.partition,
            Self::Settings(row) => row.partition,
        }
    }

    /// Its target; of a document its id.
    pub fn target(&self) -> &Id {
        match self {
            Self::Toggle(row) => &row.target,
            Self::Count(row) => &row.target,
            Self::Event(row) => &row.target,
            Self::Document(row) => &row.id,
            Self::Settings(row) => &row.member,
        }
    }

    /// Its actor, where there is one.
    pub fn actor(&self) -> Option<&Id> {
        match self {
            Self::Toggle(row) => Some(&row.actor),
            Self::Count(_) | Self::Settings(_) => None,
            Self::Event(row) => row.actor.as_ref(),
            Self::Document(row) => Some(&row.actor),
        }
    }

    /// When it was accepted, in Unix milliseconds.
    pub fn at_ms(&self) -> u64 {
        match self {
            Self::Toggle(row) => row.at_ms,
            Self::Count(row) => row.at_ms,
            Self::Event(row) => row.at_ms,
            Self::Document(row) => row.at_ms,
            Self::Settings(row) => row.at_ms,
        }
    }

    /// The journal entry that it comes from.
    pub fn position(&self) -> Position {
        match self {
            Self::Toggle(row) => row.position,
            Self::Count(row) => row.position,
            Self::Event(row) => row.position,
            Self::Document(row) => row.position,
            Self::Settings(row) => row.position,
        }
    }

    /// The module that accepted it.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Toggle(row) => row.digest,
            Self::Count(row) => row.digest,
            Self::Event(row) => row.digest,
            Self::Document(row) => row.digest,
            Self::Settings(row) => row.digest,
        }
    }
}
