//! SQLite: the embedded default. WAL, `synchronous=FULL`, one writer at a time.
//!
//! Runs the statements of `statements.rs`; holds no SQL text of its own. There is no server to keep time limits: a
//! writer waits for the write lock up to the acquire timeout, and a stopped process keeps it (one host only). There are no
//! locks of rows: whoever keeps the write lock stops every flush, so nothing is ever set aside.

mod catalogue;
mod check;
mod engine;
mod granted;
mod holes;
mod identity;
mod letters;
mod limits;
mod look;
mod migrate;
mod numbers;
mod statements;
mod wire;

use std::slice;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Sqlite, SqlitePool};
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::migrate::{migrate, upgrade};
use super::classify::{Class, judge, sql_error};
use super::engine::Backend as _;
use super::exec::checkpoints::{self, Claim};
use super::exec::flush::{self, Flush, FlushTransaction};
use super::exec::{counters, documents, preferences, toggles};
use super::explain::{explained_count, explained_document, explained_settings};
use super::granted::{Seats, column_names, finding};
use super::identity::Pin;
use super::lease::{Lease, leased, within};
use super::plans::{PlanCache, PlanOf};
use super::rows::{check_rows, in_order, is_older, other_partitions};
use super::{
    Applied, Around, DeadLetter, Fence, Finding, JournalHole, Limits, Parent, Passed, Row, RowSets, Sql, SqlError,
    StatementError, StoredDocument, TargetRow,
};
use crate::config::{CounterTable, IngestTable, KindTable, PreferenceTable, SqlConfig, StatementConfig, ToggleTable};
use crate::model::{
    Aside, Checkpoint, DatabaseId, Id, Incarnation, KnownJournal, Member, Partition, Settings, SqlValue,
};

/// Rows that the engine may be ahead of their reader.
const ROWS_BUFFERED: usize = 1_024;

/// A SQLite database file.
pub struct SqliteSql {
    pool: SqlitePool,
    /// Connections that cannot write, for statements of the operator that may not.
    readers: SqlitePool,
    seats: Seats,
    /// SQLite has one write lock; waiting for it here is fair, and does not keep a thread.
    writer: Mutex<()>,
    plans: PlanCache<engine::Sqlite>,
    pin: Pin,
    settings: SqlConfig,
    acquire_timeout: Duration,
    limit: Duration,
    /// Only looked at.
    is_look: bool,
    /// The files, where they are a copy. Last: they go when nobody has them open any more.
    _copy: Option<look::Copied>,
}

impl SqliteSql {
    /// Opens `sqlite://path`; the file and its directory are created when missing.
    pub async fn open(settings: &SqlConfig) -> Result<Self, SqlError> {
        let given = settings.url.parse::<SqliteConnectOptions>().map_err(sql_error)?;
        let options = given
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true);
        if let Some(directory) = options.get_filename().parent().filter(|path| !path.as_os_str().is_empty()) {
            std::fs::create_dir_all(directory)
                .map_err(|error| SqlError::Transient(format!("{}: {error}", directory.display())))?;
        }
        Ok(Self::of(settings, options, given.read_only(true), None))
    }

    /// Opens what is there for reading only, and changes nothing on disk; an empty database in memory where there is no file.
    pub async fn open_to_look(settings: &SqlConfig) -> Result<Self, SqlError> {
        let given = settings.url.parse::<SqliteConnectOptions>().map_err(sql_error)?;
        let (options, copy) = look::options(given)?;
        let mut looked = Self::of(settings, options.clone(), options, copy);
        looked.is_look = true;
        Ok(looked)
    }

    fn of(
        settings: &SqlConfig,
        writing: SqliteConnectOptions,
        reading: SqliteConnectOptions,
        copy: Option<look::Copied>,
    ) -> Self {
        let acquire_timeout = Duration::from_millis(settings.acquire_timeout_ms);
        let pool = |options: SqliteConnectOptions| {
            let options = options.busy_timeout(acquire_timeout).row_buffer_size(ROWS_BUFFERED);
            SqlitePoolOptions::new()
                .max_connections(settings.connections_max)
                .acquire_timeout(acquire_timeout)
                .idle_timeout(None)
                .max_lifetime(None)
                .connect_lazy_with(options.disable_statement_logging())
        };
        Self {
            pool: pool(writing),
            readers: pool(reading),
            seats: Seats::new(settings.connections_max),
            writer: Mutex::new(()),
            plans: PlanCache::default(),
            pin: Pin::default(),
            settings: settings.clone(),
            acquire_timeout,
            limit: Duration::from_millis(settings.statement_timeout_ms.saturating_mul(2)),
            is_look: false,
            _copy: copy,
        }
    }

    async fn lease(&self) -> Result<Lease<Sqlite>, SqlError> {
        let deadline = Instant::now() + self.acquire_timeout;
        loop {
            match Lease::take(&self.pool, self.limit, None).await {
                // The change to WAL at the very first connections cannot wait for its lock by itself.
                Err(error @ sqlx::Error::Database(_)) if Instant::now() < deadline => {
                    if !matches!(judge(&error).class, Class::Transient | Class::Locked) {
                        return Err(sql_error(error));
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                other => return other.map_err(sql_error),
            }
        }
    }
}

#[async_trait]
impl Sql for SqliteSql {
    fn engine(&self) -> &'static str {
        "sqlite"
    }

    async fn migrate(&self) -> Result<(), SqlError> {
        let _writer = self.writer.lock().await;
        let mut lease = self.lease().await?;
        let recorded = migrate(lease.connection()).await.map_err(sql_error)?;
        let is_older = is_older(&recorded)?;
        upgrade(lease.connection(), is_older).await.map_err(sql_error)?;
        sqlx::raw_sql(statements::COMMIT).execute(lease.connection()).await.map_err(sql_error)?;
        lease.give_back();
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
        let _writer = self.writer.lock().await;
        leased!(self.lease().await?, |connection| async {
            sqlx::raw_sql(AssertSqlSafe(script)).execute(connection).await.map(drop)
        })
    }

    async fn check_partitions(&self, partitions: Partition) -> Result<Option<Partition>, SqlError> {
        let _writer = self.writer.lock().await;
        let recorded: String = leased!(self.lease().await?, |connection| async {
            let text = partitions.to_string();
            sqlx::query(statements::META_RECORD).bind("partitions").bind(text).execute(&mut *connection).await?;
            sqlx::query_scalar(statements::META_READ).bind("partitions").fetch_one(&mut *connection).await
        })?;
        other_partitions(&recorded, partitions)
    }

    async fn check_server(&self) -> Result<Vec<Finding>, SqlError> {
        // All of it is set by whoever opens the file to write.
        if self.is_look {
            return Ok(Vec::new());
        }
        self.check_settings_of_file().await
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
        let rows = leased!(self.lease().await?, |connection| checkpoints::read::<engine::Sqlite>(
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
        let _writer = self.writer.lock().await;
        let claim = Claim { database: self.pin.get(), kind, wanted: partitions, take_over };
        let rows = leased!(self.lease().await?, |connection| checkpoints::claim::<engine::Sqlite>(
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
        let _writer = self.writer.lock().await;
        let mut lease = self.lease().await?;
        let mut transaction: FlushTransaction<'_, engine::Sqlite> =
            FlushTransaction::new(lease.connection(), self.dialect(), &plan, table, self.flush_texts());
        let result = flush::run(&mut transaction, self.limit, &flush).await;
        if result.is_ok() {
            lease.give_back();
        }
        self.plans.invalidated_by(table, result)
    }

    async fn asides(&self, kind: &str) -> Result<Vec<Aside>, SqlError> {
        leased!(self.lease().await?, |connection| checkpoints::read_asides::<engine::Sqlite>(connection, kind))
    }

    fn locks_rows(&self) -> bool {
        false
    }

    fn lock_timeout(&self) -> Duration {
        self.acquire_timeout
    }

    async fn lock_holders(&self) -> Result<Vec<String>, SqlError> {
        Ok(vec!["another process: this file has one writer at a time, and does not say who (fuser, lsof)".into()])
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
            let _writer = if statement.write { Some(self.writer.lock().await) } else { None };
            let mut lease = if statement.write {
                self.lease().await?
            } else {
                Lease::take(&self.readers, self.limit, None).await?
            };
            let found = granted::run(lease.connection(), statement, parameters).await?;
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
        finding(statement, prepared, |_| None)
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

    async fn ping(&self) -> Result<(), SqlError> {
        leased!(self.lease().await?, |connection| sqlx::query(statements::PING).execute(connection)).map(drop)
    }

    async fn close(&self) {
        self.readers.close().await;
        self.pool.close().await;
    }
}
