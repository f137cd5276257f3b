//! MariaDB and MySQL.
//!
//! Runs the statements of `statements.rs`; holds no SQL text of its own. Read committed, strict; time limits are the
//! server's, set on every connection. What was really changed is known from reading it under lock first.

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
mod statements;
mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::SqlStr;

use self::connect::Session;
use self::engine::Mysql;
pub(super) use self::errors::judge;
use self::migrate::migrate;
use self::statements::dialect::MysqlDialect;
use self::wire::Template;
use super::SqlError;
use super::database::Database;
use super::driver::{Driver, Sqlx};
use super::engine::{Backend as _, FlushTexts};
use super::grants::Rights;
use super::health::Health;
use super::lease::{Lease, leased};
use super::rows::{is_older, signed};
use super::server::Server;
use weir_core::config::SqlConfig;

/// Rows of one statement, a power of two. Beyond, the planner's memory for ranges is the limit; nothing gets faster.
const CHUNK: usize = 1_024;
/// Prepared statements that a connection keeps: some ten kinds of statements in eleven sizes, for several kinds.
const STATEMENTS_KEPT: usize = 1_000;

/// How MariaDB or MySQL is reached.
pub(super) struct MysqlDriver {
    server: Server<Self>,
    /// Known since the first connection.
    maria: Arc<OnceLock<bool>>,
    /// The server's version, known since then.
    version: Arc<OnceLock<String>>,
}

/// A MariaDB or MySQL database.
pub(super) type MysqlSql = Database<MysqlDriver>;

/// Prepares to connect to `mysql://…` or `mariadb://…`; does not need the server yet.
pub(super) async fn open(settings: &SqlConfig) -> Result<MysqlSql, SqlError> {
    let session = Session { settings: Arc::new(settings.clone()), maria: Arc::default(), version: Arc::default() };
    let (server, pool) = Server::open(settings, session.clone()).await?;
    let Session { maria, version, .. } = session;
    Ok(Database::new(settings, pool, MysqlDriver { server, maria, version }))
}

impl MysqlDriver {
    /// Needs a connection to have been there.
    fn is_maria(&self) -> bool {
        self.maria.get().copied().unwrap_or(true)
    }

    /// Whether locking reads may refuse to wait: MariaDB 10.3, MySQL 8.
    fn takes_nowait(&self) -> bool {
        let major = self.version.get().and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        self.is_maria() || major.is_some_and(|major| major >= 8)
    }
}

impl Driver for MysqlDriver {
    const NAME: &'static str = "mysql";

    type Engine = Mysql;

    fn health(&self) -> Option<&Health> {
        Some(self.server.health())
    }

    fn settle(&self) {
        self.server.settle();
    }

    async fn lease(database: &MysqlSql) -> Result<Lease<Sqlx<Self>>, SqlError> {
        database.driver.server.lease(&database.pool, database.limit).await
    }

    fn dialect(&self) -> MysqlDialect {
        MysqlDialect { maria: self.is_maria() }
    }

    fn begin(&self) -> SqlStr {
        SqlStr::from_static(statements::BEGIN)
    }

    fn flush_texts(&self, settings: &SqlConfig) -> FlushTexts {
        let lock_s = settings.lock_timeout_ms.div_ceil(1_000);
        // MySQL has no less than a second.
        let least = if self.is_maria() { 0 } else { 1 };
        FlushTexts {
            begin: statements::flush_begin(lock_s).into(),
            wait: Some(statements::lock_limit(lock_s).into()),
            probe: Some(statements::lock_limit(least).into()),
            has_no_wait: self.takes_nowait(),
        }
    }

    fn lock_timeout(settings: &SqlConfig) -> Duration {
        Duration::from_secs(settings.lock_timeout_ms.div_ceil(1_000))
    }

    fn lock_holders(&self) -> Option<Template> {
        Some(Template::whole().text(statements::lock_holders(self.is_maria())))
    }

    async fn migrate(database: &MysqlSql) -> Result<(), SqlError> {
        let backoff_s = signed(database.settings.statement_timeout_ms.div_ceil(2_000));
        let recorded = leased!(database.lease().await?, |connection| {
            migrate(connection, backoff_s, |recorded| is_older(recorded).ok())
        })?;
        is_older(&recorded).map(drop)
    }

    async fn grants(database: &MysqlSql, needed: &BTreeMap<String, Rights>) -> Result<Vec<String>, SqlError> {
        grants::statements(database, needed).await
    }
}
