//! SQLite: the embedded default. WAL, `synchronous=FULL`, one writer at a time.
//!
//! Runs the statements of `statements.rs`; holds no SQL text of its own. There is no server to keep time limits: a
//! writer waits for the write lock up to the acquire timeout, and a stopped process keeps it (one host only).

mod catalogue;
mod granted;
mod read;
mod statements;
mod write;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Row, Sqlite, SqlitePool};
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::catalogue::read_both;
use self::read::{dead_letter, indexed, json_id, load, page, read_checkpoints, read_id, read_known, read_sizes};
use self::statements::{SqliteWords, Statements};
use self::write::{SqliteFlight, claim, migrate};
use super::classify::{Class, judge, sql_error};
use super::facts::{Forms, Plans, check, forms, refuse, warn};
use super::flight::{Flight, fly};
use super::granted::{Seats, finding};
use super::lease::{Lease, leased, within};
use super::rows::{check_schema, check_types, explanation, in_order, no_letter, other_partitions, replayed, unsigned};
use super::{Applied, DeadLetter, Fence, Finding, RowChange, RowSets, Sql, SqlError, StatementError, TargetRow};
use crate::config::{SqlConfig, StatementConfig, ToggleTable};
use crate::model::{Checkpoint, Id, Incarnation, Member, Partition, SqlValue};

/// Targets whose members are loaded by one statement.
const TARGETS_PER_LOAD: usize = 256;

/// Rows that the engine may be ahead of their reader.
const ROWS_BUFFERED: usize = 1_024;

/// What is prepared per kind.
struct Plan {
    forms: Forms,
    statements: Statements,
}

/// A SQLite database file.
pub struct SqliteSql {
    pool: SqlitePool,
    /// Connections that cannot write, for statements of the operator that may not.
    readers: SqlitePool,
    seats: Seats,
    /// SQLite has one write lock; waiting for it here is fair, and does not keep a thread.
    writer: Mutex<()>,
    plans: Plans<Plan>,
    acquire_timeout: Duration,
    limit: Duration,
}

impl SqliteSql {
    /// Opens `sqlite://path`; the file and its directory are created when missing.
    pub async fn open(settings: &SqlConfig) -> Result<Self, SqlError> {
        let acquire_timeout = Duration::from_millis(settings.acquire_timeout_ms);
        let options = settings
            .url
            .parse::<SqliteConnectOptions>()
            .map_err(sql_error)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(acquire_timeout)
            .row_buffer_size(ROWS_BUFFERED)
            .disable_statement_logging();
        if let Some(directory) = options.get_filename().parent().filter(|path| !path.as_os_str().is_empty()) {
            std::fs::create_dir_all(directory)
                .map_err(|error| SqlError::Transient(format!("{}: {error}", directory.display())))?;
        }
        let pooled = || {
            SqlitePoolOptions::new()
                .max_connections(settings.connections_max)
                .acquire_timeout(acquire_timeout)
                .idle_timeout(None)
                .max_lifetime(None)
        };
        let reading = settings.url.parse::<SqliteConnectOptions>().map_err(sql_error)?.read_only(true);
        let reading = reading.busy_timeout(acquire_timeout).row_buffer_size(ROWS_BUFFERED).disable_statement_logging();
        let (pool, readers) = (pooled().connect_lazy_with(options), pooled().connect_lazy_with(reading));
        let limit = Duration::from_millis(settings.statement_timeout_ms.saturating_mul(2));
        let seats = Seats::new(settings.connections_max);
        Ok(Self { pool, readers, seats, writer: Mutex::new(()), plans: Plans::new(), acquire_timeout, limit })
    }

    async fn lease(&self) -> Result<Lease<Sqlite>, SqlError> {
        let deadline = Instant::now() + self.acquire_timeout;
        loop {
            match Lease::take(&self.pool, self.limit).await {
                // The change to WAL at the very first connections cannot wait for its lock by itself.
                Err(error @ sqlx::Error::Database(_)) if Instant::now() < deadline => {
                    if judge(&error).class != Class::Transient {
                        return Err(sql_error(error));
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                other => return other.map_err(sql_error),
            }
        }
    }

    async fn plan(&self, table: &ToggleTable) -> Result<Arc<Plan>, SqlError> {
        if let Some(plan) = self.plans.get(table) {
            return Ok(plan);
        }
        let (pairs, targets) = leased!(self.lease().await?, |connection| read_both(connection, table))?;
        let forms = forms(&SqliteWords, table, pairs.as_ref(), targets.as_ref())?;
        Ok(self.plans.put(table, Plan { forms, statements: Statements::new(table, forms) }))
    }

    /// Forgets what was prepared when a failure may come from a changed schema.
    fn heed<T>(&self, table: &ToggleTable, result: Result<T, SqlError>) -> Result<T, SqlError> {
        if matches!(result, Err(SqlError::Permanent(_))) {
            self.plans.forget(table);
        }
        result
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
        check_schema(&recorded)?;
        sqlx::raw_sql(statements::COMMIT).execute(lease.connection()).await.map_err(sql_error)?;
        lease.give_back();
        Ok(())
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
        let row = leased!(self.lease().await?, |connection| sqlx::query(statements::SETTINGS).fetch_one(connection))?;
        let text = |index: usize| row.try_get_unchecked::<String, _>(index).unwrap_or_default();
        let mut findings = Vec::new();
        if text(0) != "wal" {
            findings.push(warn(
                format!("journal_mode is {}, readers and the flusher will block each other", text(0)),
                "keep the database in a file on a local disk",
            ));
        }
        if !matches!(text(1).as_str(), "2" | "3") {
            findings.push(refuse(
                format!("synchronous is {}, a power failure could undo commits", text(1)),
                "PRAGMA synchronous = FULL".into(),
            ));
        }
        if text(2) != "1" {
            findings.push(warn("foreign keys are not enforced", "PRAGMA foreign_keys = ON"));
        }
        Ok(findings)
    }

    async fn check_toggle(&self, table: &ToggleTable) -> Result<Vec<Finding>, SqlError> {
        self.plans.forget(table);
        let (pairs, targets) = leased!(self.lease().await?, |connection| read_both(connection, table))?;
        let mut findings = check(&SqliteWords, table, pairs.as_ref(), targets.as_ref());
        if findings.iter().all(|finding| finding.warning) {
            let plan = self.plan(table).await?;
            let steps = leased!(self.lease().await?, |connection| async {
                let query = sqlx::query(AssertSqlSafe(plan.statements.delete_plan())).bind("[]");
                query.fetch_all(connection).await
            })?;
            let name = table.name.rsplit('.').next().unwrap_or(&table.name);
            let searched = steps.iter().any(|step| {
                step.try_get_unchecked::<String, _>(3)
                    .is_ok_and(|detail| detail.starts_with(&format!("SEARCH {name} ")))
            });
            if !searched {
                findings.push(refuse(
                    format!("the bulk delete from {} does not use its unique key, it scans the table", table.name),
                    "run ANALYZE, and compare the column types with the id types in weir.toml".into(),
                ));
            }
        }
        Ok(findings)
    }

    async fn checkpoints(&self, kind: &str, partitions: &[Partition]) -> Result<Vec<Option<Checkpoint>>, SqlError> {
        let rows = leased!(self.lease().await?, |connection| read_checkpoints(connection, kind, partitions))?;
        Ok(partitions.iter().map(|partition| rows.get(partition).copied()).collect())
    }

    async fn claim(
        &self,
        kind: &str,
        partitions: &[(Partition, Incarnation)],
        take_over: bool,
    ) -> Result<Vec<Checkpoint>, SqlError> {
        let _writer = self.writer.lock().await;
        let rows = leased!(self.lease().await?, |connection| claim(connection, kind, partitions, take_over))?;
        in_order(partitions, &rows)
    }

    async fn apply_toggles(
        &self,
        kind: &str,
        table: &ToggleTable,
        fences: &[Fence],
        rows: &[RowChange],
        now_ms: u64,
    ) -> Result<Applied, SqlError> {
        check_types(table, rows.iter().map(|row| &row.target), rows.iter().map(|row| &row.actor))?;
        let plan = self.plan(table).await?;
        let _writer = self.writer.lock().await;
        let mut lease = self.lease().await?;
        let mut flight = SqliteFlight { connection: lease.connection(), table, plan: &plan, statements: 0 };
        let result = fly(&mut flight, self.limit, kind, fences, rows, now_ms).await;
        if result.is_ok() {
            lease.give_back();
        }
        self.heed(table, result)
    }

    async fn load_targets(
        &self,
        table: &ToggleTable,
        targets: &[Id],
        huge_rows_min: u64,
    ) -> Result<Vec<TargetRow>, SqlError> {
        check_types(table, targets, [])?;
        let plan = self.plan(table).await?;
        let mut loaded = Vec::with_capacity(targets.len());
        let mut lease = self.lease().await?;
        for part in targets.chunks(TARGETS_PER_LOAD) {
            let rows = load(lease.connection(), table, &plan, part, huge_rows_min).await.map_err(sql_error);
            loaded.extend(self.heed(table, rows)?);
        }
        lease.give_back();
        Ok(loaded)
    }

    async fn load_pairs(&self, table: &ToggleTable, pairs: &[(Id, Id)]) -> Result<Vec<Option<u64>>, SqlError> {
        check_types(table, pairs.iter().map(|(target, _)| target), pairs.iter().map(|(_, actor)| actor))?;
        let plan = self.plan(table).await?;
        let forms = plan.forms;
        let list: Vec<Value> =
            pairs.iter().map(|(t, a)| json!([json_id(t, forms.target), json_id(a, forms.actor)])).collect();
        let rows = leased!(self.lease().await?, |connection| {
            sqlx::query(AssertSqlSafe(plan.statements.pairs.clone()))
                .bind(Value::from(list).to_string())
                .fetch_all(connection)
        });
        let mut found = vec![None; pairs.len()];
        for row in self.heed(table, rows)? {
            let (index, at) = indexed(&row).map_err(sql_error)?;
            if let Some(slot) = found.get_mut(index) {
                *slot = Some(at);
            }
        }
        Ok(found)
    }

    async fn load_members(
        &self,
        table: &ToggleTable,
        target: &Id,
        before: Option<&Member>,
        limit: usize,
    ) -> Result<Vec<Member>, SqlError> {
        check_types(table, [target], before.map(|member| &member.actor))?;
        let plan = self.plan(table).await?;
        let forms = plan.forms;
        let rows = leased!(self.lease().await?, |connection| page(connection, &plan, target, before, limit));
        let rows = self.heed(table, rows)?;
        let members = rows.iter().map(|row| {
            Ok(Member { actor: read_id(row, 0, forms.actor)?, since_ms: unsigned(row.try_get_unchecked(1)?) })
        });
        members.collect::<Result<_, sqlx::Error>>().map_err(sql_error)
    }

    async fn explain(&self, table: &ToggleTable, target: &Id, actor: &Id) -> Result<Value, SqlError> {
        let at = self.load_pairs(table, &[(target.clone(), actor.clone())]).await?;
        let plan = self.plan(table).await?;
        let (known, size) = leased!(self.lease().await?, |connection| async {
            let list = std::slice::from_ref(target);
            let known = read_known(connection, &plan, list).await?;
            let sizes = read_sizes(connection, &plan, list, table.huge_rows_min).await?;
            Ok((known, sizes.first().copied().unwrap_or(0)))
        })?;
        Ok(explanation(at.first().copied().flatten(), target, known.as_ref(), size, table))
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
            let mut lease =
                if statement.write { self.lease().await? } else { Lease::take(&self.readers, self.limit).await? };
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

    async fn dead_letters(&self, kind: Option<&str>, after: i64, limit: usize) -> Result<Vec<DeadLetter>, SqlError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = leased!(self.lease().await?, |connection| {
            sqlx::query(statements::DEAD_LETTERS).bind(kind).bind(after).bind(limit).fetch_all(connection)
        })?;
        rows.iter().map(dead_letter).collect::<Result<_, _>>().map_err(sql_error)
    }

    async fn dead_letter_counts(&self) -> Result<Vec<(String, u64)>, SqlError> {
        let rows =
            leased!(self.lease().await?, |connection| sqlx::query(statements::DEAD_COUNTS).fetch_all(connection))?;
        let counts = rows.iter().map(|row| Ok((row.try_get(0)?, unsigned(row.try_get(1)?))));
        counts.collect::<Result<_, sqlx::Error>>().map_err(sql_error)
    }

    async fn replay_dead_letter(&self, table: &ToggleTable, letter: &DeadLetter) -> Result<(), SqlError> {
        let change = replayed(table, letter)?;
        let plan = self.plan(table).await?;
        let _writer = self.writer.lock().await;
        let result = leased!(self.lease().await?, |connection| async {
            sqlx::raw_sql(statements::BEGIN).execute(&mut *connection).await?;
            let ids = json!([letter.id]).to_string();
            let gone = sqlx::query(statements::DEAD_DROP).bind(ids).execute(&mut *connection).await?.rows_affected();
            if gone == 0 {
                return Err(no_letter(letter.id));
            }
            let mut flight = SqliteFlight { connection: &mut *connection, table, plan: &plan, statements: 0 };
            flight.store(&[&change]).await?;
            sqlx::raw_sql(statements::COMMIT).execute(&mut *connection).await.map(drop)
        });
        self.heed(table, result)
    }

    async fn drop_dead_letters(&self, ids: &[i64]) -> Result<u64, SqlError> {
        let _writer = self.writer.lock().await;
        let list = json!(ids).to_string();
        let done = leased!(self.lease().await?, |connection| {
            sqlx::query(statements::DEAD_DROP).bind(list).execute(connection)
        })?;
        Ok(done.rows_affected())
    }

    async fn ping(&self) -> Result<(), SqlError> {
        leased!(self.lease().await?, |connection| sqlx::query(statements::PING).execute(connection)).map(drop)
    }

    async fn close(&self) {
        self.readers.close().await;
        self.pool.close().await;
    }
}
