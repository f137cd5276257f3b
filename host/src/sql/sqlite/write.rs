//! What the flusher sends: one flush transaction, claims, migrations.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;

use super::Plan;
use super::catalogue::read_facts;
use super::read::{json_id, json_time, read_checkpoints, read_id};
use super::statements::{self, SqliteWords};
use crate::config::ToggleTable;
use crate::model::{Checkpoint, Incarnation, Partition};
use crate::sql::facts::misfit;
use crate::sql::flight::{Dead, Effect, Flight};
use crate::sql::rows::{Deltas, SCHEMA, action_text, claimed, signed, split};
use crate::sql::{Fence, RowChange};

/// One flush transaction.
pub(super) struct SqliteFlight<'a> {
    /// Its connection.
    pub connection: &'a mut SqliteConnection,
    /// The kind's tables.
    pub table: &'a ToggleTable,
    /// What is prepared for them.
    pub plan: &'a Plan,
    /// Statements sent.
    pub statements: u64,
}

impl Flight for SqliteFlight<'_> {
    const BEGIN: &'static str = statements::BEGIN;

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

    async fn store(&mut self, rows: &[&RowChange]) -> Result<Effect, sqlx::Error> {
        let (removes, adds) = split(rows);
        let mut deltas = Deltas::default();
        let mut effect = Effect::default();
        if !removes.is_empty() {
            effect.deleted = self.change(&self.plan.statements.delete.clone(), &removes, -1, &mut deltas).await?;
        }
        if !adds.is_empty() {
            effect.inserted = self.change(&self.plan.statements.insert.clone(), &adds, 1, &mut deltas).await?;
        }
        let (targets, changes) = deltas.changed();
        if let (Some(key), false, false) =
            (self.plan.forms.key, self.plan.statements.counts.is_empty(), targets.is_empty())
        {
            self.statements += 1;
            let list: Vec<Value> = targets.iter().zip(changes).map(|(id, by)| json!([json_id(id, key), by])).collect();
            sqlx::query(AssertSqlSafe(self.plan.statements.counts.clone()))
                .bind(Value::from(list).to_string())
                .execute(&mut *self.connection)
                .await?;
        }
        Ok(effect)
    }

    async fn misfit(&mut self) -> Result<Option<String>, sqlx::Error> {
        let pairs = read_facts(self.connection, &self.table.name).await?;
        Ok(misfit(&SqliteWords, self.table, pairs.as_ref()))
    }

    async fn bury(&mut self, kind: &str, dead: &[Dead<'_>], now_ms: u64) -> Result<(), sqlx::Error> {
        self.statements += 1;
        let rows: Vec<Value> = dead
            .iter()
            .map(|Dead { row, incarnation, reason }| {
                let life = incarnation.map(|life| life.to_string()).unwrap_or_default();
                json!([
                    row.partition,
                    row.target.to_string(),
                    row.actor.to_string(),
                    action_text(row.action),
                    signed(row.at_ms),
                    life,
                    signed(row.position),
                    row.digest.to_string(),
                    reason
                ])
            })
            .collect();
        let query = sqlx::query(statements::BURY).bind(kind).bind(Value::from(rows).to_string()).bind(signed(now_ms));
        query.execute(&mut *self.connection).await.map(drop)
    }

    fn statements(&self) -> u64 {
        self.statements
    }
}

impl SqliteFlight<'_> {
    /// Deletes or inserts, adding `by` to the delta of each row that it really changed; how many that were.
    async fn change(
        &mut self,
        text: &Arc<str>,
        rows: &[&RowChange],
        by: i64,
        deltas: &mut Deltas,
    ) -> Result<u64, sqlx::Error> {
        self.statements += 1;
        let forms = self.plan.forms;
        let list: Vec<Value> = rows
            .iter()
            .map(|row| {
                let (target, actor) = (json_id(&row.target, forms.target), json_id(&row.actor, forms.actor));
                match forms.created {
                    None => json!([target, actor]),
                    Some(form) => json!([target, actor, json_time(row.at_ms, form)]),
                }
            })
            .collect();
        let query = sqlx::query(AssertSqlSafe(Arc::clone(text))).bind(Value::from(list).to_string());
        let changed = query.fetch_all(&mut *self.connection).await?;
        for row in &changed {
            deltas.add(read_id(row, 0, forms.target)?, by);
        }
        Ok(changed.len() as u64)
    }
}

/// Within an open transaction; the recorded schema.
pub(super) async fn migrate(connection: &mut SqliteConnection) -> Result<String, sqlx::Error> {
    sqlx::raw_sql(statements::BEGIN).execute(&mut *connection).await?;
    sqlx::raw_sql(statements::CREATE_META).execute(&mut *connection).await?;
    for text in statements::CREATE {
        sqlx::raw_sql(*text).execute(&mut *connection).await?;
    }
    let schema = SCHEMA.to_string();
    sqlx::query(statements::META_RECORD).bind("schema").bind(schema).execute(&mut *connection).await?;
    sqlx::query_scalar(statements::META_READ).bind("schema").fetch_one(&mut *connection).await
}

/// In a transaction of its own; the rows afterwards.
pub(super) async fn claim(
    connection: &mut SqliteConnection,
    kind: &str,
    wanted: &[(Partition, Incarnation)],
    take_over: bool,
) -> Result<HashMap<Partition, Checkpoint>, sqlx::Error> {
    sqlx::raw_sql(statements::BEGIN).execute(&mut *connection).await?;
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
