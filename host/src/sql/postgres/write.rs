//! What the flusher sends: one flush transaction, claims, migrations.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::catalogue::read_facts;
use super::identity::check_id;
use super::read::read_checkpoints;
use super::statements::words::PostgresWords;
use super::{counters, documents, settings, statements, toggles};
use crate::config::KindTable;
use crate::model::{Aside, Checkpoint, DatabaseId, Incarnation, Partition};
use crate::sql::aside::targets_text;
use crate::sql::facts::toggle;
use crate::sql::flight::{Dead, Effect, Flight};
use crate::sql::rows::{SCHEMA, SCHEMA_CREATED, claimed, signed};
use crate::sql::{Fence, Row};

/// Time to wait for a lock while those are looked for that are locked, in milliseconds.
const LOCK_PROBE_MS: u64 = 20;

/// What is prepared for the tables of a kind.
pub(super) enum PlanOf {
    /// Of a toggle.
    Toggle(Arc<toggles::Plan>),
    /// Of a counter.
    Counter(Arc<counters::Plan>),
    /// Of creates.
    Ingest(Arc<documents::Plan>),
    /// Of members' settings.
    Preference(Arc<settings::Plan>),
}

/// One flush transaction.
pub(super) struct PostgresFlight<'a> {
    /// Its connection.
    pub connection: &'a mut PgConnection,
    /// What is prepared for the kind's tables.
    pub plan: &'a PlanOf,
    /// Begins a transaction that writes.
    pub begin: &'a str,
    /// The kind's tables.
    pub table: &'a KindTable,
    /// Time to wait for a lock, in milliseconds.
    pub lock_ms: u64,
    /// Statements sent.
    pub statements: u64,
}

impl Flight for PostgresFlight<'_> {
    async fn begin(&mut self) -> Result<(), sqlx::Error> {
        self.statements += 1;
        let text = AssertSqlSafe(statements::flush_begin(self.begin, self.lock_ms));
        sqlx::raw_sql(text).execute(&mut *self.connection).await.map(drop)
    }

    async fn probe(&mut self, is_probing: bool) -> Result<(), sqlx::Error> {
        self.statements += 1;
        let text = AssertSqlSafe(statements::lock_limit(if is_probing { LOCK_PROBE_MS } else { self.lock_ms }));
        sqlx::raw_sql(text).execute(&mut *self.connection).await.map(drop)
    }

    async fn command(&mut self, text: &'static str) -> Result<(), sqlx::Error> {
        self.statements += 1;
        sqlx::raw_sql(text).execute(&mut *self.connection).await.map(drop)
    }

    async fn fence(&mut self, kind: &str, fences: &[Fence]) -> Result<u64, sqlx::Error> {
        let parts: Vec<i32> = fences.iter().map(|fence| i32::from(fence.from.partition)).collect();
        if parts.len() > 1 {
            // A joined UPDATE locks in the order of its plan; two flushers must lock in the same order.
            self.statements += 1;
            sqlx::query(statements::LOCK).bind(kind).bind(&parts).execute(&mut *self.connection).await?;
        }
        self.statements += 1;
        let query = sqlx::query(statements::FENCE)
            .bind(kind)
            .bind(parts)
            .bind(fences.iter().map(|fence| fence.from.incarnation.0).collect::<Vec<Uuid>>())
            .bind(fences.iter().map(|fence| fence.from.epoch).collect::<Vec<i64>>())
            .bind(fences.iter().map(|fence| signed(fence.from.position)).collect::<Vec<i64>>())
            .bind(fences.iter().map(|fence| signed(fence.to)).collect::<Vec<i64>>());
        Ok(query.execute(&mut *self.connection).await?.rows_affected())
    }

    async fn store(&mut self, rows: &[&Row]) -> Result<Effect, sqlx::Error> {
        match self.plan {
            PlanOf::Toggle(plan) => self.store_toggles(plan, rows).await,
            PlanOf::Counter(plan) if matches!(rows, [Row::Event(_), ..]) => self.insert_events(plan, rows).await,
            PlanOf::Counter(plan) => self.add_counts(plan, rows).await,
            PlanOf::Ingest(plan) => self.insert_documents(plan, rows).await,
            PlanOf::Preference(plan) => self.store_settings(plan, rows).await,
        }
    }

    async fn misfit(&mut self, row: &Row, reason: &str) -> Result<Option<String>, sqlx::Error> {
        let found = match self.plan {
            PlanOf::Toggle(plan) => {
                let pairs = read_facts(self.connection, &plan.table.name, &[]).await?;
                toggle::misfit(&PostgresWords, &plan.table, pairs.as_ref())
            }
            PlanOf::Counter(plan) => self.counter_misfit(plan, row).await?,
            PlanOf::Ingest(plan) => self.documents_misfit(plan).await?,
            PlanOf::Preference(plan) => self.settings_misfit(plan).await?,
        };
        match found {
            Some(problem) => Ok(Some(problem)),
            None => self.blamed_sequence(reason).await,
        }
    }

    async fn bury(&mut self, kind: &str, dead: &[Dead<'_>], now_ms: u64) -> Result<(), sqlx::Error> {
        self.write_letters(kind, dead, now_ms).await
    }

    async fn set_aside(&mut self, kind: &str, asides: &[Aside]) -> Result<(), sqlx::Error> {
        for aside in asides {
            self.statements += 2;
            let partition = i32::from(aside.partition);
            let place = sqlx::query(statements::PLACE).bind(kind).bind(partition).bind(signed(aside.position));
            place.execute(&mut *self.connection).await?;
            let drop = sqlx::query(statements::ASIDE_DROP).bind(kind).bind(partition);
            drop.execute(&mut *self.connection).await?;
            if !aside.targets.is_empty() {
                self.statements += 1;
                let query = sqlx::query(statements::ASIDE_SET).bind(kind).bind(partition).bind(aside.incarnation.0);
                let query = query.bind(signed(aside.position)).bind(signed(aside.ahead)).bind(targets_text(aside));
                query.execute(&mut *self.connection).await?;
            }
        }
        Ok(())
    }

    fn statements(&self) -> u64 {
        self.statements
    }
}

/// Begins a transaction, in which weir's tables are created where they are missing; the recorded schema.
pub(super) async fn migrate(connection: &mut PgConnection, begin: &str) -> Result<String, sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut *connection).await?;
    sqlx::raw_sql(statements::MIGRATE_LOCK).execute(&mut *connection).await?;
    sqlx::raw_sql(statements::CREATE).execute(&mut *connection).await?;
    let schema = SCHEMA_CREATED.to_string();
    sqlx::query(statements::META_RECORD).bind("schema").bind(schema).execute(&mut *connection).await?;
    sqlx::query_scalar(statements::META_READ).bind("schema").fetch_one(&mut *connection).await
}

/// Goes on with that transaction: brings the tables up to [`SCHEMA`]. What they have already is not touched, which would
/// wait for those who write.
pub(super) async fn upgrade(connection: &mut PgConnection, is_older: bool) -> Result<(), sqlx::Error> {
    let has_body: bool = sqlx::query_scalar(statements::HAS_BODY).fetch_one(&mut *connection).await?;
    if !has_body {
        sqlx::raw_sql(statements::UPGRADE).execute(&mut *connection).await?;
    }
    if is_older {
        sqlx::raw_sql(statements::UPGRADE_HOLES).execute(&mut *connection).await?;
        let schema = SCHEMA.to_string();
        sqlx::query(statements::META_SET).bind("schema").bind(schema).execute(&mut *connection).await?;
    }
    Ok(())
}

/// In a transaction of its own, which is refused in another database than `database`; the rows afterwards.
pub(super) async fn claim(
    connection: &mut PgConnection,
    begin: &str,
    database: Option<DatabaseId>,
    kind: &str,
    wanted: &[(Partition, Incarnation)],
    take_over: bool,
) -> Result<HashMap<Partition, Checkpoint>, sqlx::Error> {
    let mut ordered = wanted.to_vec();
    ordered.sort_unstable();
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut *connection).await?;
    check_id(connection, database).await?;
    sqlx::query(statements::CLAIM_CREATE)
        .bind(kind)
        .bind(ordered.iter().map(|(partition, _)| i32::from(*partition)).collect::<Vec<i32>>())
        .bind(ordered.iter().map(|(_, life)| life.0).collect::<Vec<Uuid>>())
        .execute(&mut *connection)
        .await?;
    let partitions: Vec<Partition> = ordered.iter().map(|(partition, _)| *partition).collect();
    let mut rows = read_checkpoints(connection, statements::LOCK, kind, &partitions).await?;
    let mut set: Vec<Checkpoint> = Vec::new();
    for (partition, life) in ordered {
        if let Some(row) = rows.get_mut(&partition)
            && let Some(changed) = claimed(row, life, take_over)
        {
            *row = changed;
            set.push(changed);
        }
    }
    if !set.is_empty() {
        sqlx::query(statements::CLAIM_SET)
            .bind(kind)
            .bind(set.iter().map(|row| i32::from(row.partition)).collect::<Vec<i32>>())
            .bind(set.iter().map(|row| row.incarnation.0).collect::<Vec<Uuid>>())
            .bind(set.iter().map(|row| row.epoch).collect::<Vec<i64>>())
            .bind(set.iter().map(|row| signed(row.position)).collect::<Vec<i64>>())
            .execute(&mut *connection)
            .await?;
    }
    sqlx::raw_sql(statements::COMMIT).execute(&mut *connection).await?;
    Ok(rows)
}
