//! What the flusher sends: one flush transaction, claims, migrations.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnection;

use super::catalogue::read_facts;
use super::identity::check_id;
use super::read::read_checkpoints;
use super::statements::words::SqliteWords;
use super::{counters, documents, settings, statements, toggles};
use crate::config::KindTable;
use crate::model::{Aside, Checkpoint, DatabaseId, Incarnation, Partition};
use crate::sql::aside::targets_text;
use crate::sql::facts::toggle;
use crate::sql::flight::{Dead, Effect, Flight};
use crate::sql::rows::{SCHEMA, SCHEMA_CREATED, claimed, signed};
use crate::sql::{Fence, Row};

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
pub(super) struct SqliteFlight<'a> {
    /// Its connection.
    pub connection: &'a mut SqliteConnection,
    /// What is prepared for the kind's tables.
    pub plan: &'a PlanOf,
    /// The kind's tables.
    pub table: &'a KindTable,
    /// Statements sent.
    pub statements: u64,
}

impl Flight for SqliteFlight<'_> {
    async fn begin(&mut self) -> Result<(), sqlx::Error> {
        self.command(statements::BEGIN).await
    }

    async fn probe(&mut self, _is_probing: bool) -> Result<(), sqlx::Error> {
        Ok(())
    }

    async fn command(&mut self, text: &'static str) -> Result<(), sqlx::Error> {
        self.statements += 1;
        sqlx::raw_sql(text).execute(&mut *self.connection).await.map(drop)
    }

    async fn fence(&mut self, kind: &str, fences: &[Fence]) -> Result<u64, sqlx::Error> {
        self.statements += 1;
        let rows: Vec<Value> = fences
            .iter()
            .map(|Fence { from, to }| {
                let life = from.incarnation.to_string();
                json!([from.partition, life, from.epoch, signed(from.position), signed(*to)])
            })
            .collect();
        let moved = sqlx::query(statements::FENCE).bind(kind).bind(Value::from(rows).to_string());
        Ok(moved.execute(&mut *self.connection).await?.rows_affected())
    }

    async fn store(&mut self, rows: &[&Row]) -> Result<Effect, sqlx::Error> {
        let stored = match self.plan {
            PlanOf::Toggle(plan) => self.store_toggles(plan, rows).await,
            PlanOf::Counter(plan) if matches!(rows, [Row::Event(_), ..]) => self.insert_events(plan, rows).await,
            PlanOf::Counter(plan) => self.add_counts(plan, rows).await,
            PlanOf::Ingest(plan) => self.insert_documents(plan, rows).await,
            PlanOf::Preference(plan) => self.store_settings(plan, rows).await,
        };
        match stored {
            Ok(effect) => Ok(effect),
            Err(error) => Err(self.understood(error).await),
        }
    }

    async fn misfit(&mut self, row: &Row, _reason: &str) -> Result<Option<String>, sqlx::Error> {
        match self.plan {
            PlanOf::Toggle(plan) => {
                let pairs = read_facts(self.connection, &plan.table.name).await?;
                Ok(toggle::misfit(&SqliteWords, &plan.table, pairs.as_ref()))
            }
            PlanOf::Counter(plan) => self.counter_misfit(plan, row).await,
            PlanOf::Ingest(plan) => self.documents_misfit(plan).await,
            PlanOf::Preference(plan) => self.settings_misfit(plan).await,
        }
    }

    async fn bury(&mut self, kind: &str, dead: &[Dead<'_>], now_ms: u64) -> Result<(), sqlx::Error> {
        self.write_letters(kind, dead, now_ms).await
    }

    async fn set_aside(&mut self, kind: &str, asides: &[Aside]) -> Result<(), sqlx::Error> {
        for aside in asides {
            self.statements += 2;
            let partition = i64::from(aside.partition);
            let place = sqlx::query(statements::PLACE).bind(kind).bind(partition).bind(signed(aside.position));
            place.execute(&mut *self.connection).await?;
            let drop = sqlx::query(statements::ASIDE_DROP).bind(kind).bind(partition);
            drop.execute(&mut *self.connection).await?;
            if !aside.targets.is_empty() {
                self.statements += 1;
                let query = sqlx::query(statements::ASIDE_SET).bind(kind).bind(partition);
                let query = query.bind(aside.incarnation.to_string()).bind(signed(aside.position));
                let query = query.bind(signed(aside.ahead)).bind(targets_text(aside));
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
pub(super) async fn migrate(connection: &mut SqliteConnection) -> Result<String, sqlx::Error> {
    sqlx::raw_sql(statements::BEGIN).execute(&mut *connection).await?;
    sqlx::raw_sql(statements::CREATE_META).execute(&mut *connection).await?;
    for text in statements::CREATE {
        sqlx::raw_sql(*text).execute(&mut *connection).await?;
    }
    let schema = SCHEMA_CREATED.to_string();
    sqlx::query(statements::META_RECORD).bind("schema").bind(schema).execute(&mut *connection).await?;
    sqlx::query_scalar(statements::META_READ).bind("schema").fetch_one(&mut *connection).await
}

/// Goes on with that transaction: brings the tables up to [`SCHEMA`].
pub(super) async fn upgrade(connection: &mut SqliteConnection, is_older: bool) -> Result<(), sqlx::Error> {
    let has_body: i64 = sqlx::query_scalar(statements::HAS_BODY).fetch_one(&mut *connection).await?;
    if has_body == 0 {
        for text in statements::UPGRADE {
            sqlx::raw_sql(*text).execute(&mut *connection).await?;
        }
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
    connection: &mut SqliteConnection,
    database: Option<DatabaseId>,
    kind: &str,
    wanted: &[(Partition, Incarnation)],
    take_over: bool,
) -> Result<HashMap<Partition, Checkpoint>, sqlx::Error> {
    sqlx::raw_sql(statements::BEGIN).execute(&mut *connection).await?;
    check_id(connection, database).await?;
    let create: Vec<Value> = wanted.iter().map(|(partition, life)| json!([partition, life.to_string()])).collect();
    let create = Value::from(create).to_string();
    sqlx::query(statements::CLAIM_CREATE).bind(kind).bind(create).execute(&mut *connection).await?;
    let partitions: Vec<Partition> = wanted.iter().map(|(partition, _)| *partition).collect();
    let mut rows = read_checkpoints(connection, kind, &partitions).await?;
    let mut set: Vec<Value> = Vec::new();
    for (partition, life) in wanted {
        if let Some(row) = rows.get_mut(partition)
            && let Some(changed) = claimed(row, *life, take_over)
        {
            set.push(json!([partition, changed.incarnation.to_string(), changed.epoch, signed(changed.position)]));
            *row = changed;
        }
    }
    if !set.is_empty() {
        let set = Value::from(set).to_string();
        sqlx::query(statements::CLAIM_SET).bind(kind).bind(set).execute(&mut *connection).await?;
    }
    sqlx::raw_sql(statements::COMMIT).execute(&mut *connection).await?;
    Ok(rows)
}
