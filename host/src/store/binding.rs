//! Whose the journal in a store is, and what it holds: what a start compares with its database and its configuration.

use super::StoreError;
use crate::journal::Head;
use crate::model::{Backlog, DatabaseId, JournalId, Partition};

/// What a store holds, as it is recorded in it. Looking changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Where it lies, in words: the type of the store, and its directory, or address and namespace.
    pub place: String,
    /// The journal; `None` where nothing was ever written.
    pub journal: Option<JournalId>,
    /// The database that it belongs to; `None` as long as no host of it has reached SQL.
    pub database: Option<DatabaseId>,
    /// The number of partitions that it has.
    pub partitions: Option<Partition>,
    /// The kinds that were ever written.
    pub kinds: Vec<HeldKind>,
    /// What a version of weir wrote that knew no databases: whose it is must be shown first.
    pub earlier: Vec<HeldKind>,
}

/// What a store holds of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldKind {
    /// The kind.
    pub kind: String,
    /// The heads of its partitions, as far as there are some.
    pub heads: Vec<Head>,
    /// A host holds the lease of its flusher now.
    pub is_flushed: bool,
    /// Of an earlier version: it was shown before to be this database's, and is on its way.
    pub is_taken: bool,
}

impl Holdings {
    /// All kinds, whatever version wrote them.
    pub fn all(&self) -> impl Iterator<Item = &HeldKind> {
        self.kinds.iter().chain(&self.earlier)
    }
}

impl HeldKind {
    /// What SQL does not have.
    pub fn backlog(&self) -> Backlog {
        let mut sum = Backlog::default();
        self.heads.iter().for_each(|head| sum.merge(&head.backlog));
        sum
    }

    /// How many changes SQL does not have.
    pub fn waiting(&self) -> u64 {
        self.backlog().entries
    }

    /// The partitions that have a head.
    pub fn partitions(&self) -> Vec<Partition> {
        self.heads.iter().map(|head| head.partition).collect()
    }
}

/// What a store is told when its database is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The database that its journal belongs to from now on, unless it belongs to another.
    pub database: DatabaseId,
    /// The kinds that are configured.
    pub kinds: Vec<String>,
    /// The waiting rooms that are configured.
    pub rooms: Vec<String>,
    /// The kinds of an earlier version that were shown to be this database's.
    pub take: Vec<String>,
    /// Whether these are all that an earlier version has left, so that what names no kind is this database's, too.
    pub takes_all: bool,
    /// An operator says so: the journal belongs to this database, whoever had it before.
    pub is_forced: bool,
}

/// Why a journal is refused, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// Whose it is.
    pub problem: String,
    /// The ways out.
    pub remedy: String,
}

impl Stranger {
    /// The journal at `place` belongs to `owner`, and `sql.url` leads to another database, which may be none of weir's so far.
    pub fn new(place: &str, owner: DatabaseId, ours: Option<DatabaseId>) -> Self {
        let ours = ours.map_or_else(|| "one that has no id of weir's".to_owned(), |ours| ours.to_string());
        Self {
            problem: format!(
                "the journal in this store ({place}) belongs to another database: to {owner}, and sql.url leads to {ours}. \
                 Nothing of it may be flushed here"
            ),
            remedy: "correct sql.url; or, where two applications share a Redis, write a name of its own into store.namespace \
                     (of an embedded store: another store.path). If that database is gone and what waits shall go to this one, \
                     stop all hosts and run `weir store adopt`; to give up what waits, `weir store drop --all`"
                .to_owned(),
        }
    }
}

impl From<Stranger> for StoreError {
    fn from(stranger: Stranger) -> Self {
        Self::Misconfigured(format!("{}: {}", stranger.problem, stranger.remedy))
    }
}
