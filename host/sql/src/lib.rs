//! SQL: the truth. Checkpoints, bulk writes, bulk loads, dead letters, self-checks; the user's own tables.
//!
//! Uses `weir-core` alone: knows neither a policy nor a store. Every statement of an engine lives in that engine's
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
//! - An error identifies a server that takes no writes; weir never overrules it: no transaction asks for READ WRITE
//!   where the server says otherwise. Code that finds a server read-only or away reports it to `health`.
//! - Idle-in-transaction time is limited by the server, so that a flusher that was stopped in mid-flush loses its
//!   locks to the one that took over.

#![cfg_attr(
    not(all(feature = "sqlite", feature = "postgres", feature = "mysql")),
    allow(dead_code, unused_imports, unused_macros, reason = "some parts serve one engine alone")
)]

mod aside;
mod classify;
mod database;
mod dead_letters;
mod documents;
mod driver;
mod effect;
mod engine;
mod exec;
mod explain;
mod finding;
mod granted;
mod grants;
mod health;
mod holes;
mod hosts;
mod identity;
mod introspection;
mod lease;
mod limits;
#[cfg(feature = "mysql")]
mod mysql;
mod numbers;
mod own;
mod placeholders;
mod plans;
#[cfg(feature = "postgres")]
mod postgres;
mod preferences;
mod roles;
mod row;
mod rows;
mod server;
#[cfg(feature = "sqlite")]
mod sqlite;
mod values;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;

pub use aside::Around;
pub use finding::{Advice, Finding, Problem};
pub use holes::{JournalHole, Passed};
pub use limits::{Limits, Parent, ParentOf, Unfit};
pub use placeholders::place_parameters;
pub use roles::{
    Applied, DeadLetter, DeadLetters, Fence, Loader, RowSets, SchemaCheck, Sink, StatementError, Statements,
    StoredDocument, TargetRow, TargetState,
};
pub use row::{CountRow, DocumentRow, EventRow, Row, RowChange, SettingsRow};
use weir_core::config::SqlConfig;
use weir_core::model::{DatabaseId, KnownJournal, Partition};

/// Why SQL did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// Another owner moved the checkpoint; nothing was committed. Read it again.
    #[error("another flusher owns the partition; nothing was committed")]
    Fenced,
    /// Worth repeating later: away, overloaded, deadlock, statement timeout, read-only, disk full.
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
    /// The same, naming the server: a cause without an address is no help. Adds nothing if the server is named already.
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

/// One database. All methods take `&self` and may be called concurrently.
#[async_trait]
pub trait Sql: Sink + Loader + Statements + DeadLetters + SchemaCheck {
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

    /// From now on [`Sink::claim`] is refused by every other database that `sql.url` may lead to.
    fn pin(&self, id: DatabaseId);

    /// Where the journals of this database's kinds are, as far as it was noted.
    async fn journals(&self) -> Result<Vec<KnownJournal>, SqlError>;

    /// Notes where the journals of kinds are.
    async fn note_journals(&self, journals: &[KnownJournal]) -> Result<(), SqlError>;

    /// What is known of it, without asking.
    fn standing(&self) -> Standing;

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
        #[cfg(feature = "sqlite")]
        Some("sqlite") => Ok(Arc::new(sqlite::open_to_look(settings).await?)),
        _ => open(settings).await,
    }
}

/// Opens the database that `url` names: `sqlite://path` (created when missing), `postgres://…`, `mysql://…`
/// (MariaDB too). Does not fail when the server is away; the first use does.
///
/// # Errors
/// A URL that cannot be used, or of an engine that was left out of this build.
pub async fn open(settings: &SqlConfig) -> Result<Arc<dyn Sql>, SqlError> {
    match settings.url.split(':').next() {
        #[cfg(feature = "sqlite")]
        Some("sqlite") => Ok(Arc::new(sqlite::open(settings).await?)),
        #[cfg(feature = "postgres")]
        Some("postgres" | "postgresql") => Ok(Arc::new(postgres::open(settings).await?)),
        #[cfg(feature = "mysql")]
        Some("mysql" | "mariadb") => Ok(Arc::new(mysql::open(settings).await?)),
        scheme => Err(SqlError::Permanent(no_engine(scheme.unwrap_or_default()))),
    }
}

/// Schemes of all engines that there are.
const SCHEMES: [&str; 5] = ["sqlite", "postgres", "postgresql", "mysql", "mariadb"];

fn no_engine(scheme: &str) -> String {
    if SCHEMES.contains(&scheme) {
        format!("this build of weir has no engine for {scheme}: it was left out when weir was built")
    } else {
        format!("sql.url must begin with sqlite:, postgres: or mysql:, not {scheme:?}")
    }
}
