//! PostgreSQL.
//!
//! Runs the statements of `statements.rs`; holds no SQL text of its own. Time limits are the server's, set on every
//! connection: a statement, a wait for a lock, a transaction left idle by an owner that was stopped.

mod catalogue;
mod check;
mod connect;
mod engine;
mod granted;
mod grants;
mod holes;
mod identity;
mod letters;
mod limits;
mod migrate;
mod numbers;
mod pooler;
mod statements;
mod wire;

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, PgPool, Postgres, Row as _};

use self::migrate::{migrate, upgrade};
use super::classify::sql_error;
use super::engine::Backend as _;
use super::exec::checkpoints::{self, Claim};
use super::exec::flush::{self, Flush, FlushTransaction};
use super::exec::{counters, documents, preferences, toggles};
use super::explain::{explained_count, explained_document, explained_settings};
use super::granted::{Seats, column_names, finding};
use super::health::{Health, Known};
use super::hosts::Hosts;
use super::identity::Pin;
use super::lease::{Lease, UNTESTED_IDLE_MAX, leased, within};
use super::plans::{PlanCache, PlanOf};
use super::rows::{check_rows, in_order, is_older, other_partitions};
use super::{
    Applied, Around, DeadLetter, Fence, Finding, JournalHole, Limits, Parent, Passed, Row, RowSets, Sql, SqlError,
    Standing, StatementError, StoredDocument, TargetRow,
};
use crate::config::{
    CounterTable, IngestTable, KindTable, Pooler, PreferenceTable, SqlConfig, StatementConfig, ToggleTable,
};
use crate::model::{
    Aside, Checkpoint, DatabaseId, Id, Incarnation, KnownJournal, Member, Partition, Settings, SqlValue,
};

/// The oldest version that has all that is used, as PostgreSQL numbers them.
const VERSION_MIN: i64 = 120_000;

/// A PostgreSQL database.
pub struct PostgresSql {
    pool: PgPool,
    plans: PlanCache<engine::Postgres>,
    pin: Pin,
    seats: Seats,
    settings: SqlConfig,
    limit: Duration,
    health: Health,
    /// The servers that the URL names.
    hosts: Arc<Hosts<PgConnectOptions>>,
    /// Begins a transaction that writes.
    begin: Arc<str>,
    /// What bounds a statement of the operator that writes, where a session cannot.
    limits: Vec<String>,
}

impl PostgresSql {
    /// Prepares to connect to `postgres://…`; does not need the server yet.
    pub async fn open(settings: &SqlConfig) -> Result<Self, SqlError> {
        let hosts = Arc::new(connect::hosts(settings)?);
        // What a pooler hands on to the next transaction is another session.
        let (session, begin) = match settings.pooler {
            Pooler::None => (statements::session(settings), statements::begin("")),
            Pooler::Transaction => (String::new(), statements::begin(&statements::local(settings))),
        };
        let (session, begin): (Arc<str>, Arc<str>) = (session.into(), begin.into());
        let limits = match settings.pooler {
            Pooler::None => Vec::new(),
            Pooler::Transaction => statements::local_limits(settings),
        };
        let limit = Duration::from_millis(settings.statement_timeout_ms.saturating_mul(2));
        let patience = Duration::from_millis(settings.acquire_timeout_ms);
        let is_choice = hosts.are_several();
        if is_choice {
            // What it finds is met again by whoever connects.
            let _ = hosts.find(patience, connect::trying(is_choice), |_| ()).await;
        }
        let known = Known::new();
        let (shed, suspecting) = (Arc::clone(&known), Arc::clone(&known));
        let pool = PgPoolOptions::new()
            .max_connections(settings.connections_max)
            .acquire_timeout(patience)
            .after_connect(move |connection, _| {
                let (session, suspecting) = (Arc::clone(&session), Arc::clone(&suspecting));
                Box::pin(async move {
                    if !session.is_empty() {
                        sqlx::raw_sql(AssertSqlSafe(session)).execute(&mut *connection).await?;
                    }
                    if is_choice && let Some(reason) = connect::read_only(connection).await? {
                        suspecting.suspect();
                        return Err(sqlx::Error::AnyDriverError(reason.into()));
                    }
                    Ok(())
                })
            })
            .test_before_acquire(false)
            .before_acquire(move |connection, about| {
                let keeps = !shed.is_shed(about.age);
                Box::pin(async move {
                    if keeps && about.idle_for >= UNTESTED_IDLE_MAX {
                        connection.ping().await?;
                    }
                    Ok(keeps)
                })
            })
            .connect_lazy_with(hosts.options());
        let health = Health::start(Arc::clone(&known), connect::probing((&hosts, &pool, &known), patience));
        Ok(Self {
            pool,
            plans: PlanCache::default(),
            pin: Pin::default(),
            seats: Seats::new(settings.connections_max),
            settings: settings.clone(),
            limit,
            health,
            hosts,
            begin,
            limits,
        })
    }

    async fn lease(&self) -> Result<Lease<Postgres>, SqlError> {
        let leased = self.health.lease(&self.pool, self.limit).await;
        leased.map_err(|error| {
            Lease::refused(&self.pool, error, (&self.hosts.address(), self.settings.acquire_timeout_ms))
        })
    }
}

#[async_trait]
impl Sql for PostgresSql {
    fn engine(&self) -> &'static str {
        "postgres"
    }

    async fn migrate(&self) -> Result<(), SqlError> {
        let mut lease = self.lease().await?;
        let recorded = migrate(lease.connection(), &self.begin).await.map_err(sql_error)?;
        let is_older = is_older(&recorded)?;
        upgrade(lease.connection(), is_older).await.map_err(sql_error)?;
        sqlx::raw_sql(statements::COMMIT).execute(lease.connection()).await.map_err(sql_error)?;
        lease.give_back();
        self.hosts.settle();
        Ok(())
    }

    async fn database_id(&self) -> Result<Option<DatabaseId>, SqlError> {
        self.read_id().await
    }

    async fn identify(&self) -> Result<DatabaseId, SqlError> {
        self.make_id().await
    }

    fn pin(&self, id: DatabaseId) {
        self.pin.set(id);
    }

    async fn journals(&self) -> Result<Vec<KnownJournal>, SqlError> {
        self.read_journals().await
    }

    async fn note_journals(&self, journals: &[KnownJournal]) -> Result<(), SqlError> {
        self.write_journals(journals).await
    }

    async fn rename_dead_letters(&self, from: &str, to: &str) -> Result<u64, SqlError> {
        self.rename_letters(from, to).await
    }

    async fn execute_script(&self, script: &str) -> Result<(), SqlError> {
        leased!(self.lease().await?, |connection| async {
            sqlx::raw_sql(AssertSqlSafe(script)).execute(connection).await.map(drop)
        })
    }

    async fn check_partitions(&self, partitions: Partition) -> Result<Option<Partition>, SqlError> {
        let recorded: String = leased!(self.lease().await?, |connection| async {
            let text = partitions.to_string();
            sqlx::query(statements::META_RECORD).bind("partitions").bind(text).execute(&mut *connection).await?;
            sqlx::query_scalar(statements::META_READ).bind("partitions").fetch_one(&mut *connection).await
        })?;
        other_partitions(&recorded, partitions)
    }

    async fn check_server(&self) -> Result<Vec<Finding>, SqlError> {
        self.check_settings_of_server().await
    }

    async fn grants(&self, tables: &[KindTable], reads: &[String]) -> Result<Vec<String>, SqlError> {
        self.needed_grants(tables, reads).await
    }

    async fn check_table(&self, table: &KindTable) -> Result<Vec<Finding>, SqlError> {
        match table {
            KindTable::Toggle(table) => toggles::check_tables(self, table).await,
            KindTable::Counter(table) => counters::check_tables(self, table).await,
            KindTable::Ingest(table) => documents::check_tables(self, table).await,
            KindTable::Preference(table) => preferences::check_tables(self, table).await,
        }
    }

    async fn limits(&self, table: &KindTable) -> Result<Limits, SqlError> {
        self.read_limits(table).await
    }

    async fn existing(&self, parent: &Parent, ids: &[Id]) -> Result<Vec<bool>, SqlError> {
        self.existing_parents(parent, ids).await
    }

    async fn checkpoints(&self, kind: &str, partitions: &[Partition]) -> Result<Vec<Option<Checkpoint>>, SqlError> {
        let rows = leased!(self.lease().await?, |connection| checkpoints::read::<engine::Postgres>(
            connection, kind, partitions
        ))?;
        Ok(partitions.iter().map(|partition| rows.get(partition).copied()).collect())
    }

    async fn claim(
        &self,
        kind: &str,
        partitions: &[(Partition, Incarnation)],
        take_over: bool,
    ) -> Result<Vec<Checkpoint>, SqlError> {
        let claim = Claim { database: self.pin.get(), kind, wanted: partitions, take_over };
        let rows = leased!(self.lease().await?, |connection| checkpoints::claim::<engine::Postgres>(
            connection,
            self.begin(),
            claim
        ))?;
        in_order(partitions, &rows)
    }

    async fn apply_around(
        &self,
        kind: &str,
        table: &KindTable,
        fences: &[Fence],
        rows: &[Row],
        around: &Around,
        now_ms: u64,
    ) -> Result<Applied, SqlError> {
        check_rows(table, rows)?;
        let flush = Flush { kind, fences, rows, around, now_ms };
        let plan = PlanOf::of(self, table).await?;
        let mut lease = self.lease().await?;
        let mut transaction: FlushTransaction<'_, engine::Postgres> =
            FlushTransaction::new(lease.connection(), self.dialect(), &plan, table, self.flush_texts());
        let result = self.health.unless_moved(flush::run(&mut transaction, self.limit, &flush)).await;
        if result.is_ok() {
            lease.give_back();
        }
        self.health.heed_result(&result);
        self.plans.invalidated_by(table, result)
    }

    async fn asides(&self, kind: &str) -> Result<Vec<Aside>, SqlError> {
        leased!(self.lease().await?, |connection| checkpoints::read_asides::<engine::Postgres>(connection, kind))
    }

    fn lock_timeout(&self) -> Duration {
        Duration::from_millis(self.settings.lock_timeout_ms)
    }

    async fn lock_holders(&self) -> Result<Vec<String>, SqlError> {
        let rows =
            leased!(self.lease().await?, |connection| sqlx::query(statements::LOCK_HOLDERS).fetch_all(connection))?;
        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(sql_error)
    }

    async fn load_targets(
        &self,
        table: &ToggleTable,
        targets: &[Id],
        huge_rows_min: u64,
    ) -> Result<Vec<TargetRow>, SqlError> {
        toggles::load_targets(self, table, targets, huge_rows_min).await
    }

    async fn load_pairs(&self, table: &ToggleTable, pairs: &[(Id, Id)]) -> Result<Vec<Option<u64>>, SqlError> {
        toggles::load_pairs(self, table, pairs).await
    }

    async fn load_members(
        &self,
        table: &ToggleTable,
        target: &Id,
        before: Option<&Member>,
        limit: usize,
    ) -> Result<Vec<Member>, SqlError> {
        toggles::load_members(self, table, target, before, limit).await
    }

    async fn load_counts(&self, table: &CounterTable, targets: &[Id]) -> Result<Vec<Option<u64>>, SqlError> {
        counters::load_counts(self, table, targets).await
    }

    async fn load_settings(&self, table: &PreferenceTable, members: &[Id]) -> Result<Vec<Option<Settings>>, SqlError> {
        preferences::load_settings(self, table, members).await
    }

    async fn load_documents(&self, table: &IngestTable, ids: &[Id]) -> Result<Vec<Option<StoredDocument>>, SqlError> {
        documents::load_documents(self, table, ids).await
    }

    async fn documents_of(
        &self,
        table: &IngestTable,
        actor: &Id,
        before: Option<&StoredDocument>,
        limit: usize,
    ) -> Result<Vec<StoredDocument>, SqlError> {
        documents::documents_of(self, table, actor, before, limit).await
    }

    async fn rejections(&self, kind: &str, ids: &[Id]) -> Result<Vec<Option<DeadLetter>>, SqlError> {
        self.newest_letters(kind, ids).await
    }

    async fn explain(&self, table: &KindTable, target: &Id, actor: Option<&Id>) -> Result<Value, SqlError> {
        match table {
            KindTable::Toggle(table) => toggles::explain(self, table, target, actor).await,
            KindTable::Counter(table) => {
                Ok(explained_count(&counters::load_counts(self, table, slice::from_ref(target)).await?))
            }
            KindTable::Ingest(table) => {
                Ok(explained_document(&documents::load_documents(self, table, slice::from_ref(target)).await?))
            }
            KindTable::Preference(table) => {
                Ok(explained_settings(&preferences::load_settings(self, table, slice::from_ref(target)).await?))
            }
        }
    }

    async fn run_statement(
        &self,
        statement: &StatementConfig,
        parameters: &[Vec<SqlValue>],
    ) -> Result<RowSets, StatementError> {
        if parameters.is_empty() {
            return Ok(RowSets::new());
        }
        let work = async {
            let mut lease = self.lease().await?;
            let found = granted::run(lease.connection(), &self.limits, statement, parameters).await?;
            lease.give_back();
            Ok(found)
        };
        self.seats.run(statement, work).await
    }

    async fn check_statement(&self, statement: &StatementConfig) -> Result<Option<Finding>, SqlError> {
        let mut lease = self.lease().await?;
        let prepared = within(self.limit, granted::prepare(lease.connection(), statement)).await;
        if prepared.is_ok() {
            lease.give_back();
        }
        finding(statement, prepared, granted::problem)
    }

    async fn statement_columns(&self, statement: &StatementConfig) -> Result<Vec<String>, SqlError> {
        let mut lease = self.lease().await?;
        let prepared = within(self.limit, granted::prepare(lease.connection(), statement)).await.map_err(sql_error)?;
        lease.give_back();
        Ok(column_names(&prepared))
    }

    async fn dead_letters(&self, kind: Option<&str>, after: i64, limit: usize) -> Result<Vec<DeadLetter>, SqlError> {
        self.letters(kind, after, limit).await
    }

    async fn dead_letter_counts(&self) -> Result<Vec<(String, u64)>, SqlError> {
        self.letter_counts().await
    }

    async fn replay_dead_letter(&self, table: &KindTable, letter: &DeadLetter) -> Result<(), SqlError> {
        self.replay(table, letter).await
    }

    async fn drop_dead_letters(&self, ids: &[i64]) -> Result<u64, SqlError> {
        self.drop_letters(ids).await
    }

    async fn pass_hole(&self, kind: &str, passed: Passed<'_>, now_ms: u64) -> Result<Checkpoint, SqlError> {
        self.record_hole(kind, passed, now_ms).await
    }

    async fn journal_holes(
        &self,
        kind: Option<&str>,
        is_open: bool,
        limit: usize,
    ) -> Result<Vec<JournalHole>, SqlError> {
        self.holes(kind, is_open, limit).await
    }

    async fn acknowledge_holes(&self, kind: &str, now_ms: u64) -> Result<u64, SqlError> {
        self.acknowledge(kind, now_ms).await
    }

    fn standing(&self) -> Standing {
        self.health.standing()
    }

    async fn ping(&self) -> Result<(), SqlError> {
        leased!(self.lease().await?, |connection| sqlx::query(statements::PING).execute(connection)).map(drop)
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}
