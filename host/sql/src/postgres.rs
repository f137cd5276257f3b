//! PostgreSQL.
//!
//! Runs the statements of `statements.rs`; holds no SQL text of its own. Time limits are the server's, set on every
//! connection: a statement, a wait for a lock, a transaction left idle by an owner that was stopped.

mod access;
mod catalogue;
mod check;
mod connect;
mod engine;
mod errors;
mod granted;
mod grants;
mod migrate;
mod numbers;
mod pooler;
mod statements;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::SqlStr;

use self::engine::Postgres;
pub(super) use self::errors::judge;
use self::migrate::{migrate, upgrade};
use self::statements::dialect::PostgresDialect;
use super::SqlError;
use super::classify::sql_error;
use super::database::Database;
use super::driver::{Driver, Sqlx};
use super::engine::{Backend as _, FlushTexts};
use super::grants::Rights;
use super::health::Health;
use super::lease::Lease;
use super::rows::is_older;
use super::server::Server;
use super::wire::{Fixed, Wire as _};
use weir_core::config::{Pooler, SqlConfig};

/// The oldest version that has all that is used, as PostgreSQL numbers them.
const VERSION_MIN: i64 = 120_000;
/// Time to wait for a lock while those are looked for that are locked, in milliseconds.
const LOCK_PROBE_MS: u64 = 20;

/// How PostgreSQL is reached.
pub(super) struct PostgresDriver {
    server: Server<Self>,
    /// Begins a transaction that writes.
    begin: Fixed,
    /// What bounds a statement of the operator that writes, where a session cannot.
    limits: Vec<String>,
}

/// A PostgreSQL database.
pub(super) type PostgresSql = Database<PostgresDriver>;

/// Prepares to connect to `postgres://…`; does not need the server yet.
pub(super) async fn open(settings: &SqlConfig) -> Result<PostgresSql, SqlError> {
    // What a pooler hands on to the next transaction is another session.
    let (session, begin, limits) = match settings.pooler {
        Pooler::None => (statements::session(settings), statements::begin(""), Vec::new()),
        Pooler::Transaction => {
            let begin = statements::begin(&statements::local(settings));
            (String::new(), begin, statements::local_limits(settings))
        }
    };
    let (server, pool) = Server::open(settings, Arc::from(session)).await?;
    Ok(Database::new(settings, pool, PostgresDriver { server, begin: begin.into(), limits }))
}

impl Driver for PostgresDriver {
    const NAME: &'static str = "postgres";

    type Engine = Postgres;

    fn health(&self) -> Option<&Health> {
        Some(self.server.health())
    }

    fn settle(&self) {
        self.server.settle();
    }

    async fn lease(database: &PostgresSql) -> Result<Lease<Sqlx<Self>>, SqlError> {
        database.driver.server.lease(&database.pool, database.limit).await
    }

    fn dialect(&self) -> PostgresDialect {
        PostgresDialect
    }

    fn begin(&self) -> SqlStr {
        self.begin.text()
    }

    fn flush_texts(&self, settings: &SqlConfig) -> FlushTexts {
        let lock_ms = settings.lock_timeout_ms;
        FlushTexts {
            begin: statements::flush_begin(self.begin.text().as_str(), lock_ms).into(),
            wait: Some(statements::lock_limit(lock_ms).into()),
            probe: Some(statements::lock_limit(LOCK_PROBE_MS).into()),
            has_no_wait: false,
        }
    }

    fn lock_timeout(settings: &SqlConfig) -> Duration {
        Duration::from_millis(settings.lock_timeout_ms)
    }

    fn lock_holders(&self) -> Option<Fixed> {
        Some(Fixed::of(statements::LOCK_HOLDERS))
    }

    async fn migrate(database: &PostgresSql) -> Result<(), SqlError> {
        let mut lease = database.lease().await?;
        let begin = database.driver.begin.text();
        let recorded = migrate(lease.connection(), begin.as_str()).await.map_err(sql_error)?;
        let is_older = is_older(&recorded)?;
        upgrade(lease.connection(), is_older).await.map_err(sql_error)?;
        lease.connection().command(SqlStr::from_static(statements::COMMIT)).await.map_err(sql_error)?;
        lease.give_back();
        Ok(())
    }

    async fn grants(database: &PostgresSql, needed: &BTreeMap<String, Rights>) -> Result<Vec<String>, SqlError> {
        grants::statements(database, needed).await
    }
}
