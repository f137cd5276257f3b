//! SQLite: the embedded default. WAL, `synchronous=FULL`, one writer at a time.
//!
//! Runs the statements of `statements.rs`; holds no SQL text of its own. There is no server to keep time limits: a
//! writer waits for the write lock up to the acquire timeout, and a stopped process keeps it (one host only). There are no
//! locks of rows: a process that keeps the write lock stops every flush, so nothing is ever set aside.

mod access;
mod catalogue;
mod check;
mod connect;
mod engine;
mod errors;
mod granted;
mod look;
mod migrate;
mod numbers;
mod statements;
mod wire;

use std::time::Duration;

use sqlx::{SqlStr, SqlitePool};
use tokio::sync::Mutex;

pub(super) use self::connect::{open, open_to_look};
use self::engine::Sqlite;
pub(super) use self::errors::judge;
use self::migrate::{migrate, upgrade};
use self::statements::dialect::SqliteDialect;
use super::SqlError;
use super::classify::sql_error;
use super::database::Database;
use super::driver::{Driver, Sqlx};
use super::engine::{Backend as _, FlushTexts};
use super::granted::Stop;
use super::lease::Lease;
use super::rows::is_older;
use super::wire::{Fixed, Wire as _};
use weir_core::config::{SqlConfig, StatementConfig};

/// How a file of SQLite is reached.
pub(super) struct SqliteDriver {
    /// Connections that cannot write, for statements of the operator that may not.
    readers: SqlitePool,
    /// SQLite has one write lock; waiting for it here is fair, and does not keep a thread.
    writer: Mutex<()>,
    /// Only looked at.
    is_look: bool,
    /// The files, where they are a copy. Last: they are deleted after all connections are closed.
    _copy: Option<look::Copied>,
}

/// A SQLite database file.
pub(super) type SqliteSql = Database<SqliteDriver>;

impl Driver for SqliteDriver {
    const NAME: &'static str = "sqlite";
    const LOCK_HOLDER: Option<&'static str> =
        Some("another process: this file has one writer at a time, and does not say who (fuser, lsof)");
    const HAS_USERS: bool = false;

    type Engine = Sqlite;

    fn writer(&self) -> Option<&Mutex<()>> {
        Some(&self.writer)
    }

    async fn lease(database: &SqliteSql) -> Result<Lease<Sqlx<Self>>, SqlError> {
        connect::lease(database).await
    }

    async fn lease_for(database: &SqliteSql, statement: &StatementConfig) -> Result<Lease<Sqlx<Self>>, Stop> {
        if statement.write {
            return Ok(database.lease().await?);
        }
        Ok(Lease::take(&database.driver.readers, database.limit, None).await?)
    }

    async fn close(&self) {
        self.readers.close().await;
    }

    fn dialect(&self) -> SqliteDialect {
        SqliteDialect
    }

    fn begin(&self) -> SqlStr {
        SqlStr::from_static(statements::BEGIN)
    }

    fn flush_texts(&self, _settings: &SqlConfig) -> FlushTexts {
        FlushTexts { begin: Fixed::of(statements::BEGIN), wait: None, probe: None, has_no_wait: false }
    }

    fn lock_timeout(settings: &SqlConfig) -> Duration {
        connect::acquire_timeout(settings)
    }

    async fn migrate(database: &SqliteSql) -> Result<(), SqlError> {
        let mut lease = database.lease().await?;
        let recorded = migrate(lease.connection()).await.map_err(sql_error)?;
        let is_older = is_older(&recorded)?;
        upgrade(lease.connection(), is_older).await.map_err(sql_error)?;
        lease.connection().command(SqlStr::from_static(statements::COMMIT)).await.map_err(sql_error)?;
        lease.give_back();
        Ok(())
    }
}
