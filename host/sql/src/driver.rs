//! How the databases of an engine are reached: what holds their sessions, and what only a session does.
//!
//! What engines send and read is the [`Engine`]'s; everything else is done once, by [`Database`]. Holds no SQL text.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use sqlx::SqlStr;
use tokio::sync::Mutex;

use super::database::Database;
use super::engine::{Engine, FlushTexts, StatementOf};
use super::granted::Stop;
use super::grants::Rights;
use super::health::Health;
use super::lease::Lease;
use super::{Finding, RowSets, SqlError};
use weir_core::config::{SqlConfig, StatementConfig};
use weir_core::model::SqlValue;

/// The engine of a driver, as sqlx knows it.
pub(super) type Sqlx<D> = <<D as Driver>::Engine as Engine>::Database;
/// A connection of a driver.
pub(super) type Connection<D> = <<D as Driver>::Engine as Engine>::Connection;
/// The dialect of a driver's engine.
pub(super) type DialectIn<D> = <<D as Driver>::Engine as Engine>::Dialect;
/// A column of a statement that a driver has prepared.
pub(super) type Column<D> = <Sqlx<D> as sqlx::Database>::Column;
/// A statement that a driver has prepared.
pub(super) type Prepared<D> = <Sqlx<D> as sqlx::Database>::Statement;
/// Rows of texts, as the self-check reads them.
pub(super) type TextRows = Vec<Vec<Option<String>>>;

/// How the databases of one engine are reached.
pub(super) trait Driver: ServerCheck + OperatorStatements + Send + Sync + 'static {
    /// `sqlite`, `postgres` or `mysql`.
    const NAME: &'static str;
    /// Who can hold a lock, where other sessions cannot lock single rows and the engine cannot report the holder.
    const LOCK_HOLDER: Option<&'static str> = None;
    /// Whether the engine has users with rights.
    const HAS_USERS: bool = true;

    /// The engine.
    type Engine: Engine;

    /// What is known of the server; `None` where there is none.
    fn health(&self) -> Option<&Health> {
        None
    }

    /// The server has taken writes of weir's.
    fn settle(&self) {}

    /// The lock that a writer holds, where the engine has one writer at a time.
    fn writer(&self) -> Option<&Mutex<()>> {
        None
    }

    /// Takes a connection.
    fn lease(database: &Database<Self>) -> impl Future<Output = Result<Lease<Sqlx<Self>>, SqlError>> + Send;

    /// Takes a connection for a statement of the operator.
    fn lease_for(
        database: &Database<Self>,
        _statement: &StatementConfig,
    ) -> impl Future<Output = Result<Lease<Sqlx<Self>>, Stop>> + Send {
        async { Ok(Self::lease(database).await?) }
    }

    /// Closes what it has open besides the pool.
    fn close(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// The engine's dialect. Needs a connection to have been there.
    fn dialect(&self) -> DialectIn<Self>;

    /// Begins a transaction that writes.
    fn begin(&self) -> SqlStr;

    /// How a flush begins, and waits for locks. Needs a connection to have been there.
    fn flush_texts(&self, settings: &SqlConfig) -> FlushTexts;

    /// How long a flush waits for a lock.
    fn lock_timeout(settings: &SqlConfig) -> Duration;

    /// Says which sessions hold the locks that sessions of this user wait for now, where that can be asked. Needs a connection
    /// to have been there.
    fn lock_holders(&self) -> Option<StatementOf<Self::Engine>> {
        None
    }

    /// Creates weir's own tables, or brings them up to date.
    fn migrate(database: &Database<Self>) -> impl Future<Output = Result<(), SqlError>> + Send;

    /// The statements that grant these rights to this user.
    fn grants(
        _database: &Database<Self>,
        _needed: &BTreeMap<String, Rights>,
    ) -> impl Future<Output = Result<Vec<String>, SqlError>> + Send {
        std::future::ready(Ok(Vec::new()))
    }
}

/// What the self-check asks of a server.
pub(super) trait ServerCheck: Sized {
    /// What is wrong with the server's settings.
    fn check_server(database: &Database<Self>) -> impl Future<Output = Result<Vec<Finding>, SqlError>> + Send
    where
        Self: Driver;

    /// Runs a query that only reads, within the time limit of a check.
    fn ask(
        database: &Database<Self>,
        connection: &mut Connection<Self>,
        query: String,
    ) -> impl Future<Output = Result<TextRows, sqlx::Error>> + Send
    where
        Self: Driver;
}

/// How the operator's own statements are run.
pub(super) trait OperatorStatements: Sized {
    /// Prepares a statement.
    fn prepare(
        connection: &mut Connection<Self>,
        statement: &StatementConfig,
    ) -> impl Future<Output = Result<Prepared<Self>, sqlx::Error>> + Send
    where
        Self: Driver;

    /// Runs a statement once for each row of parameters, in one transaction.
    fn run(
        database: &Database<Self>,
        connection: &mut Connection<Self>,
        statement: &StatementConfig,
        parameters: &[Vec<SqlValue>],
    ) -> impl Future<Output = Result<RowSets, Stop>> + Send
    where
        Self: Driver;

    /// What of a column's type cannot be read, where the engine knows it beforehand.
    fn unreadable(_column: &Column<Self>) -> Option<String>
    where
        Self: Driver,
    {
        None
    }
}
