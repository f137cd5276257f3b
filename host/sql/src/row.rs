//! What a flush is given to write, one row for each change that survived.
//!
//! Plain data. Knows no engine, and decides nothing.

use std::sync::Arc;

use weir_core::model::{Action, Digest, Id, Origin, Partition, Position, Settings};

/// One row to write: the last action of a (target, actor) pair. A pair occurs at most once in a flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// Where it comes from.
    pub origin: Origin,
    /// What is liked.
    pub target: Id,
    /// Who likes it.
    pub actor: Id,
    /// Insert or delete.
    pub action: Action,
}

/// What is added to one counter: the sum of a flush. A target occurs at most once in a flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountRow {
    /// Where it comes from.
    pub origin: Origin,
    /// What is counted.
    pub target: Id,
    /// What is added, 1 or more.
    pub by: u64,
}

/// One hit, for the table of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// Where it comes from.
    pub origin: Origin,
    /// What is counted.
    pub target: Id,
    /// Who was counted.
    pub actor: Option<Id>,
    /// What it added.
    pub by: u64,
}

/// One document to insert. An id occurs at most once in a flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentRow {
    /// Where it comes from.
    pub origin: Origin,
    /// Its id.
    pub id: Id,
    /// Who created it.
    pub actor: Id,
    /// A JSON object, as text.
    pub body: Arc<str>,
}

/// What changes of one member's settings: the last value of each field. A member occurs at most once in a flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsRow {
    /// Where it comes from.
    pub origin: Origin,
    /// Whose settings.
    pub member: Id,
    /// The fields that change, and what they hold afterwards.
    pub settings: Settings,
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
    /// Whether the store has a state of its target that this row changes. Of an event it has none.
    pub fn has_state(&self) -> bool {
        !matches!(self, Self::Event(_))
    }

    /// Where it comes from.
    pub fn origin(&self) -> &Origin {
        match self {
            Self::Toggle(row) => &row.origin,
            Self::Count(row) => &row.origin,
            Self::Event(row) => &row.origin,
            Self::Document(row) => &row.origin,
            Self::Settings(row) => &row.origin,
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

    /// The partition of its target.
    pub fn partition(&self) -> Partition {
        self.origin().partition
    }

    /// When it was accepted, in Unix milliseconds.
    pub fn at_ms(&self) -> u64 {
        self.origin().at_ms
    }

    /// The journal entry that it comes from.
    pub fn position(&self) -> Position {
        self.origin().position
    }

    /// The module that accepted it.
    pub fn digest(&self) -> Digest {
        self.origin().digest
    }
}
