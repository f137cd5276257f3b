//! MariaDB and MySQL.
//!
//! Runs the statements of `statements.rs`; holds no SQL text of its own. Read committed, strict; time limits are the
//! server's, set on every connection. What was really changed is known from reading it under lock first.

mod catalogue;
mod granted;
mod read;
mod statements;
mod write;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, MySql, MySqlPool, Row};

use self::catalogue::{number, read_both, text};
use self::read::{dead_letter, kept, load, padded, page, read_checkpoints, read_id, read_known, read_pairs, read_size};
use self::statements::{MysqlWords, Statements};
use self::write::{MysqlFlight, claim, migrate};
use super::classify::sql_error;
use super::facts::{Facts, Forms, Plans, check, forms, refuse, warn};
use super::flight::{Flight, fly};
use super::granted::{Seats, finding};
use super::lease::{Lease, leased, within};
use super::rows::{
    check_schema, check_types, explanation, in_order, no_letter, other_partitions, replayed, signed, unsigned,
};
use super::{Applied, DeadLetter, Fence, Finding, RowChange, RowSets, Sql, SqlError, StatementError, TargetRow};
use crate::config::{SqlConfig, StatementConfig, ToggleTable};
use crate::model::{Checkpoint, Id, Incarnation, Member, Partition, SqlValue};

/// Rows of one statement, a power of two. Beyond, the planner's memory for ranges is the limit; nothing gets faster.
const CHUNK: usize = 1_024;
/// Prepared statements that a connection keeps: some ten kinds of statements in eleven sizes, for several kinds.
const STATEMENTS_KEPT: usize = 1_000;
/// Targets that are loaded with one connection.
const TARGETS_PER_LOAD: usize = 1_024;

/// What is prepared per kind.
struct Plan {
    forms: Forms,
    statements: Statements,
}

/// A MariaDB or MySQL database.
pub struct MysqlSql {
    pool: MySqlPool,
    plans: Plans<Plan>,
    seats: Seats,
    settings: SqlConfig,
    limit: Duration,
    /// Known since the first connection.
    maria: Arc<OnceLock<bool>>,
}

impl MysqlSql {
    /// Prepares to connect to `mysql://…` or `mariadb://…`; does not need the server yet.
    pub async fn open(settings: &SqlConfig) -> Result<Self, SqlError> {
        let options = settings.url.parse::<MySqlConnectOptions>().map_err(sql_error)?;
        let options = options.statement_cache_capacity(STATEMENTS_KEPT).disable_statement_logging();
        let maria: Arc<OnceLock<bool>> = Arc::default();
        let (known, limits) = (Arc::clone(&maria), settings.clone());
        let pool = MySqlPoolOptions::new()
            .max_connections(settings.connections_max)
            .acquire_timeout(Duration::from_millis(settings.acquire_timeout_ms))
            .after_connect(move |connection, _| {
                let (known, limits) = (Arc::clone(&known), limits.clone());
                Box::pin(async move {
                    let version: String = sqlx::query_scalar(statements::VERSION).fetch_one(&mut *connection).await?;
                    let maria = *known.get_or_init(|| version.contains("MariaDB"));
                    let session = AssertSqlSafe(statements::session(&limits, maria));
                    sqlx::raw_sql(session).execute(&mut *connection).await.map(drop)
                })
            })
            .connect_lazy_with(options);
        let limit = Duration::from_millis(settings.statement_timeout_ms.saturating_mul(2));
        Ok(Self {
            pool,
            plans: Plans::new(),
            seats: Seats::new(settings.connections_max),
            settings: settings.clone(),
            limit,
            maria,
        })
    }

    async fn lease(&self) -> Result<Lease<MySql>, SqlError> {
        Lease::take(&self.pool, self.limit).await.map_err(sql_error)
    }

    /// Needs a connection to have been there.
    fn words(&self) -> MysqlWords {
        MysqlWords { maria: self.maria.get().copied().unwrap_or(true) }
    }

    async fn read_both(&self, table: &ToggleTable) -> Result<(Option<Facts>, Option<Facts>), SqlError> {
        let lease = self.lease().await?;
        let words = self.words();
        leased!(lease, |connection| read_both(connection, words, table))
    }

    async fn plan(&self, table: &ToggleTable) -> Result<Arc<Plan>, SqlError> {
        if let Some(plan) = self.plans.get(table) {
            return Ok(plan);
        }
        let (pairs, targets) = self.read_both(table).await?;
        let forms = forms(&self.words(), table, pairs.as_ref(), targets.as_ref())?;
        Ok(self.plans.put(table, Plan { forms, statements: Statements::new(table, forms) }))
    }

    /// Forgets what was prepared when a failure may come from a changed schema.
    fn heed<T>(&self, table: &ToggleTable, result: Result<T, SqlError>) -> Result<T, SqlError> {
        if matches!(result, Err(SqlError::Permanent(_))) {
            self.plans.forget(table);
        }
        result
    }

    /// Whether the bulk delete can use the unique key. Which key it does use on a small table says nothing.
    async fn check_plan(&self, table: &ToggleTable, pairs: &Facts) -> Result<Option<Finding>, SqlError> {
        let plan = self.plan(table).await?;
        let steps = leased!(self.lease().await?, |connection| {
            sqlx::raw_sql(AssertSqlSafe(plan.statements.delete_plan())).fetch_all(connection)
        })?;
        let possible = |name: &str| {
            steps.iter().any(|step| {
                let keys: Option<String> = step.try_get_unchecked("possible_keys").unwrap_or_default();
                keys.is_some_and(|keys| keys.split(',').any(|key| key == name))
            })
        };
        let key = pairs.unique_on(&[&table.target_column, &table.actor_column]);
        Ok((!key.is_some_and(|key| possible(&key.name))).then(|| {
            refuse(
                format!("the bulk delete from {} cannot use its unique key", table.name),
                "compare the column types with the id types in weir.toml".into(),
            )
        }))
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
            migrate(connection, patience_s, |recorded| check_schema(recorded).is_ok())
        })?;
        check_schema(&recorded)
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
        let lease = self.lease().await?;
        let maria = self.words().maria;
        let row = leased!(lease, |connection| {
            sqlx::raw_sql(AssertSqlSafe(statements::settings(maria))).fetch_one(connection)
        })?;
        let setting = |index: usize| text(&row, index).unwrap_or_default();
        let mut findings = Vec::new();
        match setting(0).as_str() {
            "1" => {}
            "0" => findings.push(refuse(
                "innodb_flush_log_at_trx_commit is 0: a crash of the server undoes commits".into(),
                "SET GLOBAL innodb_flush_log_at_trx_commit = 1".into(),
            )),
            other => findings.push(warn(
                format!("innodb_flush_log_at_trx_commit is {other}: a power failure undoes commits"),
                "SET GLOBAL innodb_flush_log_at_trx_commit = 1",
            )),
        }
        if setting(1) != "READ-COMMITTED" {
            let problem = format!("the isolation level is {} and cannot be set: flushers will deadlock", setting(1));
            findings.push(refuse(problem, "let sessions keep their settings (a proxy in the way?)".into()));
        }
        if !setting(2).contains("STRICT_ALL_TABLES") {
            let problem = "sql_mode is not strict and cannot be set: values would be cut silently".into();
            findings.push(refuse(problem, "let sessions keep their settings (a proxy in the way?)".into()));
        }
        if setting(3) != "0" {
            findings.push(warn("the server takes no writes now", "connect to the primary"));
        }
        if setting(4) == "1" && setting(5) == "STATEMENT" {
            let problem = "binlog_format is STATEMENT, which refuses writes at read committed".into();
            findings.push(refuse(problem, "SET GLOBAL binlog_format = 'ROW'".into()));
        }
        let idle = self.settings.idle_transaction_timeout_ms.div_ceil(1_000).max(1).to_string();
        if setting(7) != idle {
            let problem = format!(
                "idle transactions are ended after {} s, not {idle}: a stopped flusher could block others",
                setting(7)
            );
            findings.push(refuse(problem, "let sessions keep their settings (a proxy in the way?)".into()));
        }
        Ok(findings)
    }

    async fn check_toggle(&self, table: &ToggleTable) -> Result<Vec<Finding>, SqlError> {
        self.plans.forget(table);
        let (pairs, targets) = self.read_both(table).await?;
        let mut findings = check(&self.words(), table, pairs.as_ref(), targets.as_ref());
        if let (true, Some(pairs)) = (findings.iter().all(|finding| finding.warning), &pairs) {
            findings.extend(self.check_plan(table, pairs).await?);
        }
        Ok(findings)
    }

    async fn checkpoints(&self, kind: &str, partitions: &[Partition]) -> Result<Vec<Option<Checkpoint>>, SqlError> {
        let rows = leased!(self.lease().await?, |connection| read_checkpoints(connection, kind, partitions, false))?;
        Ok(partitions.iter().map(|partition| rows.get(partition).copied()).collect())
    }

    async fn claim(
        &self,
        kind: &str,
        partitions: &[(Partition, Incarnation)],
        take_over: bool,
    ) -> Result<Vec<Checkpoint>, SqlError> {
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
        let mut lease = self.lease().await?;
        let words = self.words();
        let mut flight = MysqlFlight { connection: lease.connection(), words, table, plan: &plan, statements: 0 };
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
        for part in targets.chunks(TARGETS_PER_LOAD) {
            let rows = leased!(self.lease().await?, |connection| load(connection, &plan, part, huge_rows_min));
            loaded.extend(self.heed(table, rows)?);
        }
        Ok(loaded)
    }

    async fn load_pairs(&self, table: &ToggleTable, pairs: &[(Id, Id)]) -> Result<Vec<Option<u64>>, SqlError> {
        check_types(table, pairs.iter().map(|(target, _)| target), pairs.iter().map(|(_, actor)| actor))?;
        let plan = self.plan(table).await?;
        let mut found = Vec::with_capacity(pairs.len());
        for part in pairs.chunks(CHUNK) {
            let wanted: Vec<(&Id, &Id)> = part.iter().map(|(target, actor)| (target, actor)).collect();
            let there = leased!(self.lease().await?, |connection| read_pairs(connection, &plan, &wanted, false));
            let there = self.heed(table, there)?;
            found.extend(part.iter().map(|pair| there.get(pair).copied()));
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
        let rows = leased!(self.lease().await?, |connection| page(connection, &plan, target, before, limit));
        let rows = self.heed(table, rows)?;
        let members = rows
            .iter()
            .map(|row| Ok(Member { actor: read_id(row, 0, plan.forms.actor)?, since_ms: unsigned(number(row, 1)?) }));
        members.collect::<Result<_, sqlx::Error>>().map_err(sql_error)
    }

    async fn explain(&self, table: &ToggleTable, target: &Id, actor: &Id) -> Result<Value, SqlError> {
        let at = self.load_pairs(table, &[(target.clone(), actor.clone())]).await?;
        let plan = self.plan(table).await?;
        let (known, size) = leased!(self.lease().await?, |connection| async {
            let known = read_known(connection, &plan, std::slice::from_ref(target)).await?;
            Ok((known, read_size(connection, &plan, target, table.huge_rows_min).await?))
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

    async fn dead_letters(&self, kind: Option<&str>, after: i64, limit: usize) -> Result<Vec<DeadLetter>, SqlError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let query = sqlx::query(statements::DEAD_LETTERS).bind(kind).bind(kind).bind(after).bind(limit);
        let rows = leased!(self.lease().await?, |connection| query.fetch_all(connection))?;
        rows.iter().map(dead_letter).collect::<Result<_, _>>().map_err(sql_error)
    }

    async fn dead_letter_counts(&self) -> Result<Vec<(String, u64)>, SqlError> {
        let rows =
            leased!(self.lease().await?, |connection| sqlx::query(statements::DEAD_COUNTS).fetch_all(connection))?;
        let counts = rows.iter().map(|row| Ok((text(row, 0)?, unsigned(number(row, 1)?))));
        counts.collect::<Result<_, sqlx::Error>>().map_err(sql_error)
    }

    async fn replay_dead_letter(&self, table: &ToggleTable, letter: &DeadLetter) -> Result<(), SqlError> {
        let change = replayed(table, letter)?;
        let plan = self.plan(table).await?;
        let lease = self.lease().await?;
        let words = self.words();
        let result = leased!(lease, |connection| async {
            sqlx::raw_sql(statements::BEGIN).execute(&mut *connection).await?;
            read_checkpoints(connection, &letter.kind, &[letter.partition], true).await?;
            let query = kept(statements::dead_drop(1)).bind(letter.id);
            if query.execute(&mut *connection).await?.rows_affected() == 0 {
                return Err(no_letter(letter.id));
            }
            let mut flight = MysqlFlight { connection: &mut *connection, words, table, plan: &plan, statements: 0 };
            flight.store(&[&change]).await?;
            sqlx::raw_sql(statements::COMMIT).execute(&mut *connection).await.map(drop)
        });
        self.heed(table, result)
    }

    async fn drop_dead_letters(&self, ids: &[i64]) -> Result<u64, SqlError> {
        let mut dropped = 0;
        for part in ids.chunks(CHUNK) {
            let list = padded(part);
            let query = list.clone().fold(kept(statements::dead_drop(list.len())), |query, id| query.bind(*id));
            dropped += leased!(self.lease().await?, |connection| query.execute(connection))?.rows_affected();
        }
        Ok(dropped)
    }

    async fn ping(&self) -> Result<(), SqlError> {
        leased!(self.lease().await?, |connection| sqlx::query(statements::PING).execute(connection)).map(drop)
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}
