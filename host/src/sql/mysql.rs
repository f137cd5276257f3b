//! MariaDB and MySQL.
//!
//! Runs the statements of `statements.rs`; holds no SQL text of its own. Read committed, strict; time limits are the
//! server's, set on every connection. What was really changed is known from reading it under lock first.

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
mod statements;
mod wire;

use std::slice;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, MySql, MySqlPool};

use self::catalogue::text;
use self::migrate::migrate;
use self::statements::words::MysqlWords;
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
use super::rows::{check_rows, in_order, is_older, other_partitions, signed};
use super::{
    Applied, Around, DeadLetter, Fence, Finding, JournalHole, Limits, Parent, Passed, Row, RowSets, Sql, SqlError,
    Standing, StatementError, StoredDocument, TargetRow,
};
use crate::config::{CounterTable, IngestTable, KindTable, PreferenceTable, SqlConfig, StatementConfig, ToggleTable};
use crate::model::{
    Aside, Checkpoint, DatabaseId, Id, Incarnation, KnownJournal, Member, Partition, Settings, SqlValue,
};

/// Rows of one statement, a power of two. Beyond, the planner's memory for ranges is the limit; nothing gets faster.
const CHUNK: usize = 1_024;
/// Prepared statements that a connection keeps: some ten kinds of statements in eleven sizes, for several kinds.
const STATEMENTS_KEPT: usize = 1_000;
/// A MariaDB or MySQL database.
pub struct MysqlSql {
    pool: MySqlPool,
    plans: PlanCache<engine::Mysql>,
    pin: Pin,
    seats: Seats,
    settings: SqlConfig,
    limit: Duration,
    /// Known since the first connection.
    maria: Arc<OnceLock<bool>>,
    health: Health,
    /// The servers that the URL names.
    hosts: Arc<Hosts<MySqlConnectOptions>>,
    /// The server's version, known since then.
    version: Arc<OnceLock<String>>,
}

impl MysqlSql {
    /// Prepares to connect to `mysql://…` or `mariadb://…`; does not need the server yet.
    pub async fn open(settings: &SqlConfig) -> Result<Self, SqlError> {
        let hosts = Arc::new(connect::hosts(settings)?);
        let (maria, version): (Arc<OnceLock<bool>>, Arc<OnceLock<String>>) = (Arc::default(), Arc::default());
        let (server, told, limits) = (Arc::clone(&maria), Arc::clone(&version), settings.clone());
        let limit = Duration::from_millis(settings.statement_timeout_ms.saturating_mul(2));
        let patience = Duration::from_millis(settings.acquire_timeout_ms);
        let is_choice = hosts.are_several();
        if is_choice {
            // What it finds is met again by whoever connects.
            let _ = hosts.find(patience, connect::trying(is_choice), |_| ()).await;
        }
        let known = Known::new();
        let (shed, suspecting) = (Arc::clone(&known), Arc::clone(&known));
        let pool = MySqlPoolOptions::new()
            .max_connections(settings.connections_max)
            .acquire_timeout(patience)
            .after_connect(move |connection, _| {
                let (server, told, limits) = (Arc::clone(&server), Arc::clone(&told), limits.clone());
                let suspecting = Arc::clone(&suspecting);
                Box::pin(async move {
                    let version: String = sqlx::query_scalar(statements::VERSION).fetch_one(&mut *connection).await?;
                    let maria = *server.get_or_init(|| version.contains("MariaDB"));
                    let _ = told.set(version);
                    let session = AssertSqlSafe(statements::session(&limits, maria));
                    sqlx::raw_sql(session).execute(&mut *connection).await?;
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
            maria,
            health,
            hosts,
            version,
        })
    }

    async fn lease(&self) -> Result<Lease<MySql>, SqlError> {
        let leased = self.health.lease(&self.pool, self.limit).await;
        leased.map_err(|error| {
            Lease::refused(&self.pool, error, (&self.hosts.address(), self.settings.acquire_timeout_ms))
        })
    }

    /// Needs a connection to have been there.
    fn words(&self) -> MysqlWords {
        MysqlWords { maria: self.maria.get().copied().unwrap_or(true) }
    }

    /// Whether locking reads may refuse to wait: MariaDB 10.3, MySQL 8.
    fn takes_nowait(&self) -> bool {
        let major = self.version.get().and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        self.words().maria || major.is_some_and(|major| major >= 8)
    }
}

#[async_trait]
impl Sql for MysqlSql {
    fn engine(&self) -> &'static str {
        "mysql"
    }

    async fn migrate(&self) -> Result<(), SqlError> {
        let patience_s = signed(self.settings.statement_timeout_ms.div_ceil(2_000));
        let recorded = leased!(self.lease().await?, |connection| {
            migrate(connection, patience_s, |recorded| is_older(recorded).ok())
        })?;
        is_older(&recorded)?;
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
        let rows = leased!(self.lease().await?, |connection| checkpoints::read::<engine::Mysql>(
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
        let rows = leased!(self.lease().await?, |connection| checkpoints::claim::<engine::Mysql>(
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
        let mut transaction: FlushTransaction<'_, engine::Mysql> =
            FlushTransaction::new(lease.connection(), self.dialect(), &plan, table, self.flush_texts());
        let result = self.health.unless_moved(flush::run(&mut transaction, self.limit, &flush)).await;
        if result.is_ok() {
            lease.give_back();
        }
        self.health.heed_result(&result);
        self.plans.invalidated_by(table, result)
    }

    async fn asides(&self, kind: &str) -> Result<Vec<Aside>, SqlError> {
        leased!(self.lease().await?, |connection| checkpoints::read_asides::<engine::Mysql>(connection, kind))
    }

    fn lock_timeout(&self) -> Duration {
        Duration::from_secs(self.settings.lock_timeout_ms.div_ceil(1_000))
    }

    async fn lock_holders(&self) -> Result<Vec<String>, SqlError> {
        let lease = self.lease().await?;
        let query = statements::lock_holders(self.words().maria);
        let rows = leased!(lease, |connection| sqlx::query(query).fetch_all(connection))?;
        rows.iter().map(|row| text(row, 0)).collect::<Result<_, _>>().map_err(sql_error)
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
            let session = granted::Session { settings: &self.settings, maria: self.words().maria };
            let found = granted::run(lease.connection(), &session, statement, parameters).await?;
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
