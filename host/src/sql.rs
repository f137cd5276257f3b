//! SQL: the truth. Checkpoints, bulk writes, bulk loads, dead letters, self-checks; the user's own tables.
//!
//! Tier 2: imports tiers 0 and 1. Never imports policy or store. Every statement of an engine lives in that engine's
//! `statements`. Identifiers come from the configuration, are checked against the catalogue and quoted; values are bound.
//!
//! # Rules
//! - The fence is the first statement of a flush transaction, and a compare-and-set of (incarnation, epoch, position):
//!   fewer rows than partitions changed means another flusher owns one of them; nothing is committed.
//! - Count deltas come from rows really inserted and deleted.
//! - A connection that met an error, a time limit or a dropped future is closed, not returned to the pool (a dropped
//!   `begin()` of sqlx 0.9.0 leaves a pooled connection inside a transaction). Dropping a flush is therefore safe, but
//!   its outcome is unknown. Time limits are the server's (`statement_timeout`, `lock_timeout`, …); a limit of our own,
//!   twice as long, is for a server or a network that has gone silent.
//! - A server that takes no writes is told by its error, never overruled: no transaction asks for READ WRITE where the
//!   server says otherwise. Who finds it so, or finds it away, tells `health`.
//! - Idle-in-transaction time is limited by the server, so that a flusher that was stopped in mid-flush loses its
//!   locks to the one that took over.

mod access;
mod aside;
mod classify;
mod documents;
mod effect;
mod engine;
mod exec;
mod explain;
mod facts;
mod finding;
mod granted;
mod grants;
mod health;
mod holes;
mod hosts;
mod identity;
mod lease;
mod letters;
mod limits;
pub mod mysql;
mod numbers;
mod placeholders;
mod plans;
pub mod postgres;
mod preferences;
mod row;
mod rows;
pub mod sqlite;
mod values;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;

use crate::config::{CounterTable, IngestTable, KindTable, PreferenceTable, SqlConfig, StatementConfig, ToggleTable};
use crate::model::{
    Aside, Checkpoint, DatabaseId, Id, Incarnation, KnownJournal, Member, Partition, Position, Settings, SqlValue,
};
pub use aside::Around;
pub use finding::{Advice, Finding, Problem};
pub use holes::{JournalHole, Passed};
pub use limits::{Limits, Parent, ParentOf, Unfit};
pub use placeholders::place_parameters;
pub use row::{CountRow, DocumentRow, EventRow, Row, RowChange, SettingsRow};

/// Compare-and-set of one partition's checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// What the row must hold now.
    pub from: Checkpoint,
    /// Where it moves.
    pub to: Position,
}

/// What a committed flush did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows really inserted.
    pub inserted: u64,
    /// Rows really deleted.
    pub deleted: u64,
    /// Counters to which something was added.
    pub updated: u64,
    /// Rows moved to the dead letters in the same transaction: index into the rows, and the reason.
    pub dead: Vec<(usize, String)>,
    /// Statements sent, for the figures.
    pub statements: u64,
    /// Rows of targets that were found locked and set aside, one of each: index into the rows, and what the database said.
    pub waiting: Vec<(usize, String)>,
    /// What holds now of the partitions of which something was set aside, or had been: without targets where that is over.
    pub asides: Vec<Aside>,
}

/// Why SQL did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// Another owner moved the checkpoint; nothing was committed. Read it again.
    #[error("another flusher owns the partition; nothing was committed")]
    Fenced,
    /// Worth repeating with patience: away, overloaded, deadlock, statement timeout, read-only, disk full.
    #[error("SQL is not available now: {0}")]
    Transient(String),
    /// As `Transient`: the server takes no writes. It was put down, or somebody has set it so; connections to it are closed.
    #[error("SQL takes no writes: {0}")]
    ReadOnly(String),
    /// Worth repeating soon: SQL answers, but another session has locked what is to be written. Nothing was committed.
    #[error("another session has locked rows in SQL: {0}")]
    Locked(String),
    /// The connection was lost while committing: re-read the checkpoint to learn the outcome.
    #[error("SQL did not confirm the commit, the outcome is unknown: {0}")]
    OutcomeUnknown(String),
    /// Will fail again in the same way until somebody changes schema, grants or configuration.
    #[error("SQL refuses: {0}")]
    Permanent(String),
}

impl SqlError {
    /// The same, naming the server: a cause without an address helps nobody. Where it is named already nothing is added.
    #[must_use]
    pub fn at(self, address: &str) -> Self {
        let named = |reason: String| classify::placed(&reason, address);
        match self {
            Self::Transient(reason) => Self::Transient(named(reason)),
            Self::ReadOnly(reason) => Self::ReadOnly(named(reason)),
            Self::Permanent(reason) => Self::Permanent(named(reason)),
            other => other,
        }
    }
}

/// What is known of SQL without asking it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Standing {
    /// It serves, as far as is known.
    #[default]
    Serves,
    /// It answers, and takes no writes; why.
    ReadOnly(String),
    /// It does not answer; why. Every call fails at once until a probe finds it back.
    Away(String),
}

impl Standing {
    /// Why it does not serve.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Serves => None,
            Self::ReadOnly(reason) | Self::Away(reason) => Some(reason),
        }
    }
}

/// Rows that the runs of one of the operator's statements found: for each row of parameters, its rows.
pub type RowSets = Vec<Vec<Vec<SqlValue>>>;

/// Why a statement of the operator found nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// A mistake of the statement, of its configuration, or of what it was given: its syntax, types, a constraint, a
    /// write where none is allowed. Nothing was done.
    #[error("{0}")]
    Invalid(String),
    /// It finds more than one call may find. Nothing was done.
    #[error("statement {statement}: it finds more than {limit} = {max} in one call")]
    TooLarge {
        /// Its name.
        statement: String,
        /// The limit's name.
        limit: &'static str,
        /// Its value.
        max: usize,
    },
    /// SQL does not answer within the statement's time. What a writing statement was asked for may have been done.
    #[error("{0}")]
    Unavailable(String),
}

/// What SQL says of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRow {
    /// The target.
    pub target: Id,
    /// Its state.
    pub state: TargetState,
}

/// State of a target in SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetState {
    /// No such target.
    Missing,
    /// All members and when they were added (Unix milliseconds; 0 where there is no created-at column).
    Whole(Vec<(Id, u64)>),
    /// More members than the kind's `huge_rows_min`: only the count.
    Huge(u64),
}

/// A document as it lies in SQL.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredDocument {
    /// Its id.
    pub id: Id,
    /// Its fields, as far as they have columns; arrays from the tables of what is nested. NULLs are left out, and arrays
    /// without rows. The field with the id is not among them.
    pub body: serde_json::Map<String, serde_json::Value>,
    /// Who created it, where there is an actor column.
    pub actor: Option<Id>,
    /// When, in Unix milliseconds, where there is a created-at column.
    pub at_ms: Option<u64>,
}

/// A row that could never be stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
    /// `add` or `remove` of a toggle, `count` or `event` of a counter, `create` of a document, `set` of a
    /// member's settings.
    pub action: String,
    /// What else is needed to store it: the document, the settings, or `{"by":n}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// When it was accepted, in Unix milliseconds.
    pub at_ms: u64,
    /// The journal's life.
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

/// One database. All methods take `&self` and may be called concurrently.
#[async_trait]
pub trait Sql: Send + Sync {
    /// `sqlite`, `postgres` or `mysql`.
    fn engine(&self) -> &'static str;

    /// Creates or updates weir's own tables (`weir_meta`, `weir_checkpoint`, `weir_journal`, `weir_journal_hole`,
    /// `weir_dead_letter`). Repeatable, and
    /// safe when two hosts do it at once.
    async fn migrate(&self) -> Result<(), SqlError>;

    /// Runs statements of the demo schema or of a test, separated by `;` at line ends. Never used with outside input.
    async fn execute_script(&self, script: &str) -> Result<(), SqlError>;

    /// Compares the recorded number of partitions with `partitions`, recording it when there is none. `Ok(Some(p))`
    /// is the recorded other number.
    async fn check_partitions(&self, partitions: Partition) -> Result<Option<Partition>, SqlError>;

    /// Which database this is; `None` before [`Sql::identify`]. Changes nothing, and needs no table of weir's.
    async fn database_id(&self) -> Result<Option<DatabaseId>, SqlError>;

    /// Which database this is; from the first call on it has an id.
    async fn identify(&self) -> Result<DatabaseId, SqlError>;

    /// From now on [`Sql::claim`] is refused by every other database that `sql.url` may lead to.
    fn pin(&self, id: DatabaseId);

    /// Where the journals of this database's kinds are, as far as it was noted.
    async fn journals(&self) -> Result<Vec<KnownJournal>, SqlError>;

    /// Notes where the journals of kinds are.
    async fn note_journals(&self, journals: &[KnownJournal]) -> Result<(), SqlError>;

    /// Gives the dead letters of a kind to another; how many there were.
    async fn rename_dead_letters(&self, from: &str, to: &str) -> Result<u64, SqlError>;

    /// Server settings that endanger a promise (SQLite `synchronous`, `synchronous_commit=off`,
    /// `innodb_flush_log_at_trx_commit`, isolation, time limits that cannot be set).
    async fn check_server(&self) -> Result<Vec<Finding>, SqlError>;

    /// The rights that these tables and weir's own need, as statements; `reads` are tables that are only read. None where an
    /// engine has no users.
    async fn grants(&self, _tables: &[KindTable], _reads: &[String]) -> Result<Vec<String>, SqlError> {
        Ok(Vec::new())
    }

    /// Tables, columns and their types and ranges, rights, text collations, unique keys, columns that must be given and are
    /// not, columns and triggers that say that rows are not what weir takes them for; of a toggle the plan of the bulk delete,
    /// and whether counts are the numbers of rows; keys of the tables of what is nested in documents. Changes nothing, and
    /// asks of rows only what takes `sql.check_timeout_ms` a query. See [`Finding`].
    async fn check_table(&self, table: &KindTable) -> Result<Vec<Finding>, SqlError>;

    /// What the columns that get a kind's rows can hold, and in which tables rows must be there first, as the catalogue says now.
    async fn limits(&self, table: &KindTable) -> Result<Limits, SqlError>;

    /// Whether the rows that foreign keys lead to are there, in order. One statement.
    async fn existing(&self, parent: &Parent, ids: &[Id]) -> Result<Vec<bool>, SqlError>;

    /// The checkpoint rows of the given partitions, in order; `None` where there is none yet.
    async fn checkpoints(&self, kind: &str, partitions: &[Partition]) -> Result<Vec<Option<Checkpoint>>, SqlError>;

    /// In a transaction that is refused by another database than the one that was pinned (see [`Sql::pin`]):
    /// makes the row of each (partition, incarnation) hold at least that incarnation: creates it at position 0, or,
    /// when it holds a lesser one, sets the new incarnation, position 0 and epoch + 1 (which fences whoever flushes
    /// from the old one). With `take_over`, raises the epoch of a row that holds the same incarnation too. A row that
    /// holds a greater incarnation is left alone. Returns the rows afterwards, in order.
    async fn claim(
        &self,
        kind: &str,
        partitions: &[(Partition, Incarnation)],
        take_over: bool,
    ) -> Result<Vec<Checkpoint>, SqlError>;

    /// One transaction: fences (in partition order), then the rows in bulk. Of a toggle: delete, insert, and count deltas
    /// derived from the rows really changed. Of a counter: the sums are added (a target that is not there any more is a row
    /// that can never be stored), events inserted. Of creates: documents and what is nested in them are inserted. Of
    /// preferences: members without a row get one, then the fields that change are written. A row that
    /// can never be stored (constraint, type, length, range) is found by bisection under savepoints and moved alone to the
    /// dead letters within the same transaction; a document with all that is nested in it. A field that is missing or null
    /// becomes NULL, in a column that is NOT NULL and has a default the default. What an engine would cut, round to an
    /// integer or reinterpret is a value that can never be stored.
    async fn apply(
        &self,
        kind: &str,
        table: &KindTable,
        fences: &[Fence],
        rows: &[Row],
        now_ms: u64,
    ) -> Result<Applied, SqlError> {
        self.apply_around(kind, table, fences, rows, &Around::default(), now_ms).await
    }

    /// [`Sql::apply`] around targets that wait for a lock, whose rows are not among `rows`. The fences of their partitions
    /// say where the checkpoint was; where it goes is said by `around`.
    async fn apply_around(
        &self,
        kind: &str,
        table: &KindTable,
        fences: &[Fence],
        rows: &[Row],
        around: &Around,
        now_ms: u64,
    ) -> Result<Applied, SqlError>;

    /// What was set aside of a kind, as it was committed last.
    async fn asides(&self, kind: &str) -> Result<Vec<Aside>, SqlError>;

    /// Whether another session can lock single rows. Where not, nothing can be set aside.
    fn locks_rows(&self) -> bool {
        true
    }

    /// How long a flush waits for a lock.
    fn lock_timeout(&self) -> Duration;

    /// Which sessions hold the locks that sessions of this user wait for now, in words.
    async fn lock_holders(&self) -> Result<Vec<String>, SqlError>;

    /// State of each target, in order, in bounded queries: at most `huge_rows_min` members of one target are loaded.
    /// MUST be called after [`Sql::checkpoints`] returned (law of hydration).
    async fn load_targets(
        &self,
        table: &ToggleTable,
        targets: &[Id],
        huge_rows_min: u64,
    ) -> Result<Vec<TargetRow>, SqlError>;

    /// When each pair was added (Unix milliseconds, 0 when unknown), `None` where it is absent; in order.
    async fn load_pairs(&self, table: &ToggleTable, pairs: &[(Id, Id)]) -> Result<Vec<Option<u64>>, SqlError>;

    /// Members of a target, newest first (ties by actor text descending), strictly older than `before`.
    async fn load_members(
        &self,
        table: &ToggleTable,
        target: &Id,
        before: Option<&Member>,
        limit: usize,
    ) -> Result<Vec<Member>, SqlError>;

    /// The count of each target, in order (NULL is 0); `None` where there is no such target. MUST be called after
    /// [`Sql::checkpoints`] returned (law of hydration).
    async fn load_counts(&self, table: &CounterTable, targets: &[Id]) -> Result<Vec<Option<u64>>, SqlError>;

    /// The settings of each member, in order, as far as it has a row and no NULL in it; `None` where there is no such member.
    /// MUST be called after [`Sql::checkpoints`] returned (law of hydration).
    async fn load_settings(&self, table: &PreferenceTable, members: &[Id]) -> Result<Vec<Option<Settings>>, SqlError>;

    /// The documents with these ids, in order; `None` where there is none. Numbers that are no 64-bit integers come back as
    /// doubles.
    async fn load_documents(&self, table: &IngestTable, ids: &[Id]) -> Result<Vec<Option<StoredDocument>>, SqlError>;

    /// The documents of one actor in descending order of (created-at, id), or of the id where there is no created-at
    /// column; strictly after `before`, at most `limit`. Empty where there is no actor column.
    async fn documents_of(
        &self,
        table: &IngestTable,
        actor: &Id,
        before: Option<&StoredDocument>,
        limit: usize,
    ) -> Result<Vec<StoredDocument>, SqlError>;

    /// The dead letters of documents, by their ids, in order; `None` where there is none.
    async fn rejections(&self, kind: &str, ids: &[Id]) -> Result<Vec<Option<DeadLetter>>, SqlError>;

    /// What SQL holds, in words, for `weir explain`. Of a toggle an object with `row` (null when absent), `count` and `rows`
    /// (the number of rows of the target, null when huge); of a counter `count`; of creates `document`; of a member `settings`.
    async fn explain(&self, table: &KindTable, target: &Id, actor: Option<&Id>) -> Result<serde_json::Value, SqlError>;

    /// Runs one of the operator's own statements once for each row of `parameters`, in order, in one transaction, which is
    /// read-only (and of one snapshot) unless the statement may write. The result has the same length and order. All
    /// of it, waiting for a connection included, takes at most the statement's `timeout_ms` and finds at most its
    /// `rows_max` rows. Integers and booleans become integers; floats, reals; texts, UUIDs, decimals, dates and times,
    /// texts; NULL, nulls; other types are refused by name. Dropping the call closes its connection.
    async fn run_statement(
        &self,
        statement: &StatementConfig,
        parameters: &[Vec<SqlValue>],
    ) -> Result<RowSets, StatementError>;

    /// Whether the database can prepare one of the operator's own statements, its placeholders are as many as its
    /// parameters, and its columns are of types that can be read (as far as the engine tells beforehand).
    async fn check_statement(&self, statement: &StatementConfig) -> Result<Option<Finding>, SqlError>;

    /// The names of the columns that one of the operator's own statements finds, in order.
    async fn statement_columns(&self, statement: &StatementConfig) -> Result<Vec<String>, SqlError>;

    /// Dead letters of a kind (or of all), oldest first, with an id above `after`.
    async fn dead_letters(&self, kind: Option<&str>, after: i64, limit: usize) -> Result<Vec<DeadLetter>, SqlError>;

    /// How many dead letters there are, per kind.
    async fn dead_letter_counts(&self) -> Result<Vec<(String, u64)>, SqlError>;

    /// Tries to store a dead letter again in one transaction that holds its partition's checkpoint row: on success
    /// the row and the count are written and the letter is gone. `Permanent` with the reason when it still fails.
    async fn replay_dead_letter(&self, table: &KindTable, letter: &DeadLetter) -> Result<(), SqlError>;

    /// Drops dead letters by id; how many there were.
    async fn drop_dead_letters(&self, ids: &[i64]) -> Result<u64, SqlError>;

    /// Leaves a hole of a journal behind, in one transaction: compare-and-set of its checkpoint, which moves to the end of the
    /// hole and into another life, so that nobody goes on in the one before; and the record of what was lost. So what was lost
    /// is recorded once, and never applied later. Returns the row afterwards.
    ///
    /// # Errors
    /// [`SqlError::Fenced`] when the row is another; nothing was done.
    async fn pass_hole(&self, kind: &str, passed: Passed<'_>, now_ms: u64) -> Result<Checkpoint, SqlError>;

    /// The newest holes of a kind (or of all), newest first; with `is_open` only those that nobody has acknowledged.
    async fn journal_holes(
        &self,
        kind: Option<&str>,
        is_open: bool,
        limit: usize,
    ) -> Result<Vec<JournalHole>, SqlError>;

    /// Notes that an operator has seen the holes of a kind; how many were open.
    async fn acknowledge_holes(&self, kind: &str, now_ms: u64) -> Result<u64, SqlError>;
    /// What is known of it, without asking.
    fn standing(&self) -> Standing {
        Standing::Serves
    }

    /// Whether the database answers now.
    async fn ping(&self) -> Result<(), SqlError>;

    /// Closes the pool after what is in flight.
    async fn close(&self);
}

/// As [`open`], to look at: nothing changes on disk. A file of SQLite is opened for reading only; where there is none, an empty
/// database in memory takes its place.
///
/// # Errors
/// As [`open`].
pub async fn open_to_look(settings: &SqlConfig) -> Result<Arc<dyn Sql>, SqlError> {
    match settings.url.split(':').next() {
        Some("sqlite") => Ok(Arc::new(sqlite::SqliteSql::open_to_look(settings).await?)),
        _ => open(settings).await,
    }
}

/// Opens the database that `url` names: `sqlite://path` (created when missing), `postgres://…`, `mysql://…`
/// (MariaDB too). Does not fail when the server is away; the first use does.
pub async fn open(settings: &SqlConfig) -> Result<Arc<dyn Sql>, SqlError> {
    match settings.url.split(':').next() {
        Some("sqlite") => Ok(Arc::new(sqlite::SqliteSql::open(settings).await?)),
        Some("postgres" | "postgresql") => Ok(Arc::new(postgres::PostgresSql::open(settings).await?)),
        Some("mysql" | "mariadb") => Ok(Arc::new(mysql::MysqlSql::open(settings).await?)),
        scheme => Err(SqlError::Permanent(format!(
            "sql.url must begin with sqlite:, postgres: or mysql:, not {:?}",
            scheme.unwrap_or_default()
        ))),
    }
}
