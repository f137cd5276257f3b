//! The role of the start and of `weir store`: which database the journal in a store belongs to, and what the store holds.
//!
//! Called by `app::custody` when a host starts, by `app::holdings` and by the command line.
//!
//! It promises that a journal never moves to another database unless an operator says so, and that taking an inventory changes
//! nothing.

use async_trait::async_trait;

use super::StoreError;
use weir_core::journal::Head;
use weir_core::model::{Backlog, DatabaseId, JournalId, Partition};

/// The contents of a store, as recorded in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The location as text: the type of the store, and its directory, or address and namespace.
    pub place: String,
    /// The journal; `None` before the first write.
    pub journal: Option<JournalId>,
    /// The database that the journal belongs to; `None` until one of its hosts has reached SQL.
    pub database: Option<DatabaseId>,
    /// The recorded number of partitions.
    pub partitions: Option<Partition>,
    /// The kinds that were ever written.
    pub kinds: Vec<KindInventory>,
    /// Kinds written by a version of weir that recorded no database: their owner must be proved first.
    pub earlier: Vec<KindInventory>,
}

/// What a store holds of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindInventory {
    /// The kind.
    pub kind: String,
    /// The heads of its partitions, where they exist.
    pub heads: Vec<Head>,
    /// A host holds the lease of its flusher now.
    pub is_flushed: bool,
    /// For a kind of an earlier version: it was proved to be this database's, and is being taken over.
    pub is_taken: bool,
}

impl Inventory {
    /// All kinds, of any version.
    pub fn all(&self) -> impl Iterator<Item = &KindInventory> {
        self.kinds.iter().chain(&self.earlier)
    }
}

impl KindInventory {
    /// The changes that SQL does not have.
    pub fn backlog(&self) -> Backlog {
        let mut sum = Backlog::default();
        self.heads.iter().for_each(|head| sum.merge(&head.backlog));
        sum
    }

    /// The number of changes that SQL does not have.
    pub fn waiting(&self) -> u64 {
        self.backlog().entries
    }

    /// The partitions that have a head.
    pub fn partitions(&self) -> Vec<Partition> {
        self.heads.iter().map(|head| head.partition).collect()
    }
}

/// What a store learns when its database is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The database that the journal belongs to from now on, unless it belongs to another one.
    pub database: DatabaseId,
    /// The configured kinds.
    pub kinds: Vec<String>,
    /// The configured waiting rooms.
    pub rooms: Vec<String>,
    /// The kinds of an earlier version that were proved to be this database's.
    pub take: Vec<String>,
    /// Whether these are all kinds that an earlier version left, so that data without a kind is this database's, too.
    pub takes_all: bool,
    /// An operator decided: the journal belongs to this database, whatever was recorded before.
    pub is_forced: bool,
}

/// Why a journal is refused, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignJournal {
    /// Whose journal it is.
    pub problem: String,
    /// The ways out.
    pub remedy: String,
}

impl ForeignJournal {
    /// The journal at `place` belongs to `owner`, and `sql.url` names another database, which may have no id of weir's yet.
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

impl From<ForeignJournal> for StoreError {
    fn from(foreign: ForeignJournal) -> Self {
        Self::Misconfigured(format!("{}: {}", foreign.problem, foreign.remedy))
    }
}

/// What a start and an operator need of a store: its inventory, its owner, and deletion.
#[async_trait]
pub trait Ownership: Send + Sync {
    /// What is recorded of the journal, and what it holds of each kind. Changes nothing.
    async fn inventory(&self) -> Result<Inventory, StoreError>;

    /// Binds the journal to a database: takes over what an earlier version left, then records the database. From then on the
    /// store refuses every call while its journal belongs to another database.
    ///
    /// # Errors
    /// `Misconfigured` where the journal belongs to another database, with the ways out.
    async fn bind(&self, binding: &Binding) -> Result<(), StoreError>;

    /// Deletes everything of a kind: waiting changes and known state. For operators; no host may serve the kind meanwhile. May
    /// be repeated.
    async fn drop_kind(&self, kind: &str) -> Result<(), StoreError>;

    /// Deletes everything, and the record of the owner. As [`Ownership::drop_kind`].
    async fn drop_all(&self) -> Result<(), StoreError>;
}
