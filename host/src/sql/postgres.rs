//! PostgreSQL.
//!
//! Runs the statements of `statements.rs`; holds no SQL text of its own. Time limits are the server's, set on every
//! connection: a statement, a wait for a lock, a transaction left idle by an owner that was stopped.

mod catalogue;
mod granted;
mod read;
mod statements;
mod write;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, PgPool, Postgres, Row};

use self::catalogue::read_both;
use self::read::{bind_ids, dead_letter, load, ordinal, page, read_checkpoints, read_id, read_known, read_size};
use self::statements::{PostgresWords, Statements};
use self::write::{PostgresFlight, claim, migrate};
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

/// Targets whose members are loaded by one statement.
const TARGETS_PER_LOAD: usize = 256;
/// Pairs that are looked up by one statement.
const PAIRS_PER_LOAD: usize = 10_000;
/// The oldest version that has all that is used, as PostgreSQL numbers them.
const VERSION_MIN: i64 = 120_000;

/// What is prepared per kind.
struct Plan {
    forms: Forms,
    statements: Statements,
}

/// A PostgreSQL database.
pub struct PostgresSql {
    pool: PgPool,
    plans: Plans<Plan>,
    seats: Seats,
    settings: SqlConfig,
    limit: Duration,
}

impl PostgresSql {
    /// Prepares to connect to `postgres://…`; does not need the server yet.
    pub async fn open(settings: &SqlConfig) -> Result<Self, SqlError> {
        let options = settings.url.parse::<PgConnectOptions>().map_err(sql_error)?;
        let options = options.application_name("weir").disable_statement_logging();
        let session: Arc<str> = statements::session(settings).into();
        let pool = PgPoolOptions::new()
            .max_connections(settings.connections_max)
            .acquire_timeout(Duration::from_millis(settings.acquire_timeout_ms))
            .after_connect(move |connection, _| {
                let session = Arc::clone(&session);
                Box::pin(async move { sqlx::raw_sql(AssertSqlSafe(session)).execute(connection).await.map(drop) })
            })
            .connect_lazy_with(options);
        let limit = Duration::from_millis(settings.statement_timeout_ms.saturating_mul(2));
        Ok(Self {
            pool,
            plans: Plans::new(),
            seats: Seats::new(settings.connections_max),
            settings: settings.clone(),
            limit,
        })
    }

    async fn lease(&self) -> Result<Lease<Postgres>, SqlError> {
        Lease::take(&self.pool, self.limit).await.map_err(sql_error)
    }

    async fn plan(&self, table: &ToggleTable) -> Result<Arc<Plan>, SqlError> {
        if let Some(plan) = self.plans.get(table) {
            return Ok(plan);
        }
        let (pairs, targets) = leased!(self.lease().await?, |connection| read_both(connection, table))?;
        let forms = forms(&PostgresWords, table, pairs.as_ref(), targets.as_ref())?;
        Ok(self.plans.put(table, Plan { forms, statements: Statements::new(table, forms) }))
    }

    /// Forgets what was prepared when a failure may come from a changed schema.
    fn heed<T>(&self, table: &ToggleTable, result: Result<T, SqlError>) -> Result<T, SqlError> {
        if matches!(result, Err(SqlError::Permanent(_))) {
            self.plans.forget(table);
        }
        result
    }

    /// Whether the bulk delete can use the unique key.
    async fn check_plan(&self, table: &ToggleTable, pairs: &Facts) -> Result<Option<Finding>, SqlError> {
        let plan = self.plan(table).await?;
        let steps = leased!(self.lease().await?, |connection| async {
            sqlx::raw_sql(statements::PLAN_BEGIN).execute(&mut *connection).await?;
            let query = sqlx::query(AssertSqlSafe(plan.statements.delete_plan.clone()));
            let query = bind_ids(bind_ids(query, plan.forms.target, []), plan.forms.actor, []);
            let steps = query.fetch_all(&mut *connection).await?;
            sqlx::raw_sql(statements::ROLLBACK).execute(&mut *connection).await?;
            Ok(steps)
        })?;
        let key = pairs.unique_on(&[&table.target_column, &table.actor_column]).map(|key| key.name.as_str());
        let text: Vec<String> = steps.iter().filter_map(|step| step.try_get(0).ok()).collect();
        let text = text.join("\n");
        Ok((!key.is_some_and(|key| text.contains(key))).then(|| {
            refuse(
                format!("the bulk delete from {} cannot use its unique key: {text}", table.name),
                "compare the column types with the id types in weir.toml".into(),
            )
        }))
    }
}

#[async_trait]
impl Sql for PostgresSql {
    fn engine(&self) -> &'static str {
        "postgres"
    }

    async fn migrate(&self) -> Result<(), SqlError> {
        let mut lease = self.lease().await?;
        let recorded = migrate(lease.connection()).await.map_err(sql_error)?;
        check_schema(&recorded)?;
        sqlx::raw_sql(statements::COMMIT).execute(lease.connection()).await.map_err(sql_error)?;
        lease.give_back();
        Ok(())
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
        let row = leased!(self.lease().await?, |connection| sqlx::query(statements::SETTINGS).fetch_one(connection))?;
        let number = |index: usize| row.try_get::<i64, _>(index).unwrap_or_default();
        let text = |index: usize| row.try_get::<String, _>(index).unwrap_or_default();
        let mut findings = Vec::new();
        if number(0) < VERSION_MIN {
            findings.push(refuse(format!("PostgreSQL {} is too old", number(0)), "run PostgreSQL 12 or later".into()));
        }
        for (index, name) in [(1, "fsync"), (2, "full_page_writes")] {
            if text(index) != "on" {
                let problem = format!("{name} is {}: a power failure may lose or damage what is stored", text(index));
                findings.push(warn(problem, format!("ALTER SYSTEM SET {name} = on")));
            }
        }
        if text(3) == "off" {
            let problem = "synchronous_commit is off and cannot be set: a crash could undo commits".into();
            findings.push(refuse(problem, "ALTER SYSTEM SET synchronous_commit = on".into()));
        }
        if text(4) != "UTF8" {
            let problem = format!("the database's encoding is {}: some text ids cannot be stored", text(4));
            findings.push(warn(problem, "use a database with ENCODING 'UTF8'"));
        }
        if text(5) == "on" {
            findings.push(warn("the server takes no writes now", "connect to the primary"));
        }
        let limits = [
            (6, "statement_timeout", self.settings.statement_timeout_ms),
            (7, "idle_in_transaction_session_timeout", self.settings.idle_transaction_timeout_ms),
        ];
        for (index, name, wanted) in limits {
            if number(index) != signed(wanted) {
                let problem =
                    format!("{name} is {}, not {wanted}: a stopped flusher could block others", number(index));
                findings.push(refuse(problem, "let sessions keep their settings (a pooler in the way?)".into()));
            }
        }
        Ok(findings)
    }

    async fn check_toggle(&self, table: &ToggleTable) -> Result<Vec<Finding>, SqlError> {
        self.plans.forget(table);
        let (pairs, targets) = leased!(self.lease().await?, |connection| read_both(connection, table))?;
        let mut findings = check(&PostgresWords, table, pairs.as_ref(), targets.as_ref());
        if let (true, Some(pairs)) = (findings.iter().all(|finding| finding.warning), &pairs) {
            findings.extend(self.check_plan(table, pairs).await?);
        }
        Ok(findings)
    }

    async fn checkpoints(&self, kind: &str, partitions: &[Partition]) -> Result<Vec<Option<Checkpoint>>, SqlError> {
        let rows = leased!(self.lease().await?, |connection| {
            read_checkpoints(connection, statements::CHECKPOINTS, kind, partitions)
        })?;
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
        let mut flight = PostgresFlight { connection: lease.connection(), table, plan: &plan, statements: 0 };
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
        for part in pairs.chunks(PAIRS_PER_LOAD) {
            let query = sqlx::query(AssertSqlSafe(plan.statements.pairs.clone()));
            let query = bind_ids(query, plan.forms.target, part.iter().map(|(target, _)| target));
            let query = bind_ids(query, plan.forms.actor, part.iter().map(|(_, actor)| actor));
            let rows = leased!(self.lease().await?, |connection| query.fetch_all(connection));
            let start = found.len();
            found.resize(start + part.len(), None);
            for row in &self.heed(table, rows)? {
                if let Some(slot) = found.get_mut(start + ordinal(row).map_err(sql_error)?) {
                    *slot = Some(unsigned(row.try_get(1).map_err(sql_error)?));
                }
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
        let rows = leased!(self.lease().await?, |connection| page(connection, &plan, target, before, limit));
        let rows = self.heed(table, rows)?;
        let members = rows
            .iter()
            .map(|row| Ok(Member { actor: read_id(row, 0, plan.forms.actor)?, since_ms: unsigned(row.try_get(1)?) }));
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
        finding(statement, prepared, granted::problem)
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
        let result = leased!(self.lease().await?, |connection| async {
            sqlx::raw_sql(statements::BEGIN).execute(&mut *connection).await?;
            read_checkpoints(connection, statements::LOCK, &letter.kind, &[letter.partition]).await?;
            let query = sqlx::query(statements::DEAD_DROP).bind(vec![letter.id]);
            if query.execute(&mut *connection).await?.rows_affected() == 0 {
                return Err(no_letter(letter.id));
            }
            let mut flight = PostgresFlight { connection: &mut *connection, table, plan: &plan, statements: 0 };
            flight.store(&[&change]).await?;
            sqlx::raw_sql(statements::COMMIT).execute(&mut *connection).await.map(drop)
        });
        self.heed(table, result)
    }

    async fn drop_dead_letters(&self, ids: &[i64]) -> Result<u64, SqlError> {
        let ids = ids.to_vec();
        let done = leased!(self.lease().await?, |connection| {
            sqlx::query(statements::DEAD_DROP).bind(ids).execute(connection)
        })?;
        Ok(done.rows_affected())
    }

    async fn ping(&self) -> Result<(), SqlError> {
        leased!(self.lease().await?, |connection| sqlx::query(statements::PING).execute(connection)).map(drop)
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}
