//! One database of any engine: its pool, what is prepared for tables, and the roles that it plays.
//!
//! Each role is in a file of its own. How the database is reached is the [`Driver`]'s, what is sent the engine's. Holds no SQL
//! text.

mod dead_letters;
mod holes;
mod identity;
mod loader;
mod schema_check;
mod sink;
mod statements;

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Pool, SqlSafeStr as _, SqlStr};
use tokio::sync::MutexGuard;

use super::driver::{Connection, DialectIn, Driver, Sqlx};
use super::engine::{Backend, Engine, FlushTexts, StatementOf};
use super::granted::GrantedPermits;
use super::identity::Pin;
use super::lease::{Lease, leased};
use super::own::OwnStatements;
use super::plans::PlanCache;
use super::rows::other_partitions;
use super::wire::{Batch, Wire as _};
use super::{Sql, SqlError, Standing};
use weir_core::config::SqlConfig;
use weir_core::model::{DatabaseId, KnownJournal, Partition};

/// One database.
pub(super) struct Database<D: Driver> {
    /// Its connections.
    pub pool: Pool<Sqlx<D>>,
    /// What is prepared for tables.
    pub plans: PlanCache<D::Engine>,
    /// The database that is expected.
    pub pin: Pin,
    /// Bounds the statements of the operator that run at once.
    pub granted_permits: GrantedPermits,
    /// The configuration.
    pub settings: SqlConfig,
    /// The longest time that one step may go without an answer.
    pub limit: Duration,
    /// How it is reached. Last: the driver's resources are dropped after all connections.
    pub driver: D,
}

impl<D: Driver> Database<D> {
    /// Over the connections of `pool`.
    pub fn new(settings: &SqlConfig, pool: Pool<Sqlx<D>>, driver: D) -> Self {
        Self {
            pool,
            plans: PlanCache::default(),
            pin: Pin::default(),
            granted_permits: GrantedPermits::new(settings.connections_max),
            settings: settings.clone(),
            limit: Duration::from_millis(settings.statement_timeout_ms.saturating_mul(2)),
            driver,
        }
    }

    /// Waits until this task may write, where the engine has one writer at a time.
    async fn write_turn(&self) -> Option<MutexGuard<'_, ()>> {
        match self.driver.writer() {
            Some(writer) => Some(writer.lock().await),
            None => None,
        }
    }

    /// The statements on weir's own tables.
    fn own() -> &'static OwnStatements<StatementOf<D::Engine>> {
        D::Engine::own()
    }
}

impl<D: Driver> Backend for Database<D> {
    type Engine = D::Engine;

    async fn lease(&self) -> Result<Lease<Sqlx<D>>, SqlError> {
        D::lease(self).await
    }

    fn dialect(&self) -> DialectIn<D> {
        self.driver.dialect()
    }

    fn plans(&self) -> &PlanCache<D::Engine> {
        &self.plans
    }

    fn begin(&self) -> SqlStr {
        self.driver.begin()
    }

    fn flush_texts(&self) -> FlushTexts {
        self.driver.flush_texts(&self.settings)
    }

    fn acknowledged(&self) -> &[String] {
        &self.settings.acknowledged
    }
}

#[async_trait]
impl<D: Driver> Sql for Database<D> {
    fn engine(&self) -> &'static str {
        D::NAME
    }

    async fn migrate(&self) -> Result<(), SqlError> {
        let _turn = self.write_turn().await;
        D::migrate(self).await?;
        self.driver.settle();
        Ok(())
    }

    async fn execute_script(&self, script: &str) -> Result<(), SqlError> {
        let _turn = self.write_turn().await;
        let script = AssertSqlSafe(script.to_owned()).into_sql_str();
        leased!(self.lease().await?, |connection| connection.command(script))
    }

    async fn check_partitions(&self, partitions: Partition) -> Result<Option<Partition>, SqlError> {
        let _turn = self.write_turn().await;
        let recorded = self.recorded("partitions", &partitions.to_string()).await?;
        other_partitions(&recorded, partitions)
    }

    async fn database_id(&self) -> Result<Option<DatabaseId>, SqlError> {
        self.read_id().await
    }

    async fn identify(&self) -> Result<DatabaseId, SqlError> {
        let _turn = self.write_turn().await;
        self.make_id().await
    }

    fn pin(&self, id: DatabaseId) {
        self.pin.set(id);
    }

    async fn journals(&self) -> Result<Vec<KnownJournal>, SqlError> {
        self.read_journals().await
    }

    async fn note_journals(&self, journals: &[KnownJournal]) -> Result<(), SqlError> {
        let _turn = self.write_turn().await;
        self.write_journals(journals).await
    }

    fn standing(&self) -> Standing {
        self.driver.health().map_or(Standing::Serves, |health| health.standing())
    }

    async fn ping(&self) -> Result<(), SqlError> {
        let batch = Batch::new();
        leased!(self.lease().await?, |connection| connection.execute(&Self::own().ping, &batch)).map(drop)
    }

    async fn close(&self) {
        self.pool.close().await;
        self.driver.close().await;
    }
}
