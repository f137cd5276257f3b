//! What differs between engines: their connections, dialects and catalogues, the statements of each capability, and a few
//! facts about locks and numbers.
//!
//! An [`Engine`] is a type without values; its `impl` lies in the engine's own folder. A [`Backend`] is an open database of
//! an engine. The executors (`exec`) are written once over both. Holds no SQL text.

use std::future::Future;

use sqlx::SqlStr;

use super::exec::checkpoints::CheckpointStatements;
use super::exec::counters::{self, CounterStatements};
use super::exec::documents::{self, DocumentStatements};
use super::exec::preferences::{self, PreferenceStatements};
use super::exec::toggles::{self, TogglePlan, ToggleStatements};
use super::introspection::look::Ask;
use super::introspection::{Dialect, Introspection};
use super::lease::Lease;
use super::limits::Parent;
use super::own::OwnStatements;
use super::plans::PlanCache;
use super::wire::{Batch, Fixed, Wire};
use super::{Finding, SqlError};
use weir_core::config::{CounterTable, IngestTable, KindTable, PreferenceTable, ToggleTable};

/// The statements of an engine, as its connections take them.
pub(super) type StatementOf<E> = <<E as Engine>::Connection as Wire>::Statement;
/// A connection of an engine.
pub(super) type ConnectionOf<E> = <E as Engine>::Connection;
/// The dialect of an engine.
pub(super) type DialectOf<E> = <E as Engine>::Dialect;
/// The rows of an engine.
pub(super) type RowOf<E> = <<E as Engine>::Connection as Wire>::Row;

/// How many are loaded with one connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct LoadSizes {
    /// Targets of a toggle, with their members.
    pub targets: usize,
    /// Pairs of a toggle.
    pub pairs: usize,
    /// Counters, and members with their preferences.
    pub rows: usize,
}

/// How a flush begins, and how it waits for locks.
#[derive(Debug, Clone)]
pub(super) struct FlushTexts {
    /// Begins the transaction, with its time limit for locks.
    pub begin: Fixed,
    /// Lets statements wait for locks as long as from the beginning. `None` where rows are not locked.
    pub wait: Option<Fixed>,
    /// Lets statements wait as briefly as the engine can. `None` where rows are not locked.
    pub probe: Option<Fixed>,
    /// Whether locking reads may use NOWAIT.
    pub has_no_wait: bool,
}

/// What a table is to its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The pairs of a toggle.
    Pairs,
    /// The events of a counter.
    Events,
    /// Any other.
    Other,
}

/// The statements of an engine, of tables and of how values lie in their columns.
pub(super) struct Statements<S: 'static> {
    /// Of weir's own tables but those of checkpoints.
    pub own: fn() -> &'static OwnStatements<S>,
    /// Which rows are there that a foreign key leads to: ids; the same.
    pub parents: fn(&Parent) -> S,
    /// The foreign keys of one column of a table: schema or NULL, name; the column, the other table, and its column, which is
    /// NULL where it is that table's primary key.
    pub foreign_keys: fn(&str) -> (S, Batch<'_>),
    /// Of weir's own tables of checkpoints.
    pub checkpoints: fn() -> &'static CheckpointStatements<S>,
    /// Of a toggle.
    pub toggle: fn(&ToggleTable, &toggles::Forms) -> ToggleStatements<S>,
    /// Of a counter.
    pub counter: fn(&CounterTable, &counters::Forms) -> CounterStatements<S>,
    /// Of documents.
    pub ingest: fn(&IngestTable, &documents::Forms) -> DocumentStatements<S>,
    /// Of preferences.
    pub preference: fn(&PreferenceTable, &preferences::Forms) -> PreferenceStatements<S>,
}

/// A kind of database.
pub(super) trait Engine: Catalogue + Send + Sync + 'static {
    /// The driver's type.
    type Database: sqlx::Database<Connection = Self::Connection>;
    /// A connection.
    type Connection: Wire + sqlx::Connection<Database = Self::Database>;
    /// How statements for operators are worded, and what is peculiar about values.
    type Dialect: Dialect + Copy + Send + Sync;

    /// How many are loaded with one connection.
    const LOAD: LoadSizes;
    /// Whether texts may hold the character NUL.
    const STORES_NUL: bool = true;
    /// Whether dead letters go in statements of bounded sizes.
    const SPLITS_DEAD_LETTERS: bool = false;
    /// The number of the first row, where a statement numbers them.
    const FIRST_ROW: i64;
    /// Added to the time before which a page begins, where an index finds it: more than the column may have cut off.
    const PAGE_STEP_MS: u64;

    /// Its statements.
    const STATEMENTS: Statements<StatementOf<Self>>;

    /// The statements on weir's own tables but those of checkpoints.
    fn own() -> &'static OwnStatements<StatementOf<Self>> {
        (Self::STATEMENTS.own)()
    }

    /// Whether the bulk delete of a toggle cannot use its unique key.
    fn unused_key(
        connection: &mut Self::Connection,
        plan: &TogglePlan<Self>,
        pairs: &Introspection,
    ) -> impl Future<Output = Result<Option<Finding>, sqlx::Error>> + Send;

    /// What numbers rows and is to blame for what a row failed with, if anything is.
    fn blamed_number(
        _connection: &mut Self::Connection,
        _table: &KindTable,
        _reason: &str,
    ) -> impl Future<Output = Result<Option<String>, sqlx::Error>> + Send {
        std::future::ready(Ok(None))
    }

    /// An error as the engine means it.
    fn understood(
        _connection: &mut Self::Connection,
        _table: &KindTable,
        error: sqlx::Error,
    ) -> impl Future<Output = sqlx::Error> + Send {
        std::future::ready(error)
    }
}

/// What an engine's catalogue says of tables.
pub(super) trait Catalogue: Sized {
    /// Reads a table from the catalogue, with a finding for each of `rights` that is missing; `None` where there is none of
    /// this name.
    fn read_facts(
        connection: &mut ConnectionOf<Self>,
        dialect: DialectOf<Self>,
        table: &str,
        rights: &[&str],
    ) -> impl Future<Output = Result<Option<Introspection>, sqlx::Error>> + Send
    where
        Self: Engine;

    /// Reads what only the self-check needs of a table.
    fn read_surroundings(
        connection: &mut ConnectionOf<Self>,
        dialect: DialectOf<Self>,
        table: &str,
        role: Role,
        facts: Option<&mut Introspection>,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send
    where
        Self: Engine;

    /// Reads what only tables of documents need.
    fn read_of_documents(
        connection: &mut ConnectionOf<Self>,
        dialect: DialectOf<Self>,
        table: &str,
        facts: &mut Introspection,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send
    where
        Self: Engine;

    /// Whether a table has triggers that may discard a row, where statements do not say so.
    fn may_skip(
        _connection: &mut ConnectionOf<Self>,
        _table: &str,
    ) -> impl Future<Output = Result<bool, sqlx::Error>> + Send
    where
        Self: Engine,
    {
        std::future::ready(Ok(true))
    }
}

/// A database on which executors run.
pub(super) trait Backend: Ask {
    /// Its kind.
    type Engine: Engine;

    /// Takes a connection.
    fn lease(&self) -> impl Future<Output = Result<Lease<<Self::Engine as Engine>::Database>, SqlError>> + Send;

    /// Its dialect. Needs a connection to have been there.
    fn dialect(&self) -> <Self::Engine as Engine>::Dialect;

    /// What is prepared for tables.
    fn plans(&self) -> &PlanCache<Self::Engine>;

    /// Begins a transaction that writes.
    fn begin(&self) -> SqlStr;

    /// How a flush begins, and waits for locks.
    fn flush_texts(&self) -> FlushTexts;

    /// What an operator says to know.
    fn acknowledged(&self) -> &[String];
}

/// What a check of a table found.
pub(super) type Findings = Result<Vec<Finding>, SqlError>;
