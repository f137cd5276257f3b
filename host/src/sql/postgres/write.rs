//! What the flusher sends: one flush transaction, claims, migrations.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::Plan;
use super::catalogue::read_facts;
use super::read::{bind_ids, bind_times, read_checkpoints, read_id};
use super::statements::{self, PostgresWords};
use crate::config::ToggleTable;
use crate::model::{Checkpoint, Incarnation, Partition};
use crate::sql::facts::misfit;
use crate::sql::flight::{Dead, Effect, Flight};
use crate::sql::rows::{Deltas, SCHEMA, action_text, claimed, signed, split, unsigned};
use crate::sql::{Fence, RowChange};

/// One flush transaction.
pub(super) struct PostgresFlight<'a> {
    /// Its connection.
    pub connection: &'a mut PgConnection,
    /// The kind's tables.
    pub table: &'a ToggleTable,
    /// What is prepared for them.
    pub plan: &'a Plan,
    /// Statements sent.
    pub statements: u64,
}

impl Flight for PostgresFlight<'_> {
    const BEGIN: &'static str = statements::BEGIN;

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

    async fn store(&mut self, rows: &[&RowChange]) -> Result<Effect, sqlx::Error> {
        let (removes, adds) = split(rows);
        let mut deltas = Deltas::default();
        let mut effect = Effect::default();
        let plan = self.plan;
        if !removes.is_empty() {
            effect.deleted = self.change(&plan.statements.delete, &removes, -1, &mut deltas).await?;
        }
        if !adds.is_empty() {
            effect.inserted = self.change(&plan.statements.insert, &adds, 1, &mut deltas).await?;
        }
        let (targets, changes) = deltas.changed();
        if let (Some(key), false, false) = (plan.forms.key, plan.statements.counts.is_empty(), targets.is_empty()) {
            if targets.len() > 1 {
                self.statements += 1;
                let lock = sqlx::query(AssertSqlSafe(plan.statements.lock_counts.clone()));
                bind_ids(lock, key, targets.iter().copied()).execute(&mut *self.connection).await?;
            }
            self.statements += 1;
            let query = bind_ids(sqlx::query(AssertSqlSafe(plan.statements.counts.clone())), key, targets);
            query.bind(changes).execute(&mut *self.connection).await?;
        }
        Ok(effect)
    }

    async fn misfit(&mut self) -> Result<Option<String>, sqlx::Error> {
        let pairs = read_facts(self.connection, &self.table.name, &[]).await?;
        Ok(misfit(&PostgresWords, self.table, pairs.as_ref()))
    }

    async fn bury(&mut self, kind: &str, dead: &[Dead<'_>], now_ms: u64) -> Result<(), sqlx::Error> {
        self.statements += 1;
        let life = |dead: &Dead<'_>| dead.incarnation.map(|life| life.to_string()).unwrap_or_default();
        let query = sqlx::query(statements::BURY)
            .bind(kind)
            .bind(dead.iter().map(|dead| i32::from(dead.row.partition)).collect::<Vec<i32>>())
            .bind(dead.iter().map(|dead| dead.row.target.to_string()).collect::<Vec<String>>())
            .bind(dead.iter().map(|dead| dead.row.actor.to_string()).collect::<Vec<String>>())
            .bind(dead.iter().map(|dead| action_text(dead.row.action)).collect::<Vec<&str>>())
            .bind(dead.iter().map(|dead| signed(dead.row.at_ms)).collect::<Vec<i64>>())
            .bind(dead.iter().map(life).collect::<Vec<String>>())
            .bind(dead.iter().map(|dead| signed(dead.row.position)).collect::<Vec<i64>>())
            .bind(dead.iter().map(|dead| dead.row.digest.to_string()).collect::<Vec<String>>())
            .bind(dead.iter().map(|dead| dead.reason).collect::<Vec<&str>>())
            .bind(signed(now_ms));
        query.execute(&mut *self.connection).await.map(drop)
    }

    fn statements(&self) -> u64 {
        self.statements
    }
}

impl PostgresFlight<'_> {
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
        let mut query = sqlx::query(AssertSqlSafe(Arc::clone(text)));
        query = bind_ids(query, forms.target, rows.iter().map(|row| &row.target));
        query = bind_ids(query, forms.actor, rows.iter().map(|row| &row.actor));
        if let (Some(form), true) = (forms.created, by > 0) {
            query = bind_times(query, form, rows.iter().map(|row| row.at_ms));
        }
        let mut changed = 0;
        for row in &query.fetch_all(&mut *self.connection).await? {
            let count: i64 = row.try_get(1)?;
            deltas.add(read_id(row, 0, forms.target)?, by * count);
            changed += unsigned(count);
        }
        Ok(changed)
    }
}

/// Within a transaction that it leaves open; the recorded schema.
pub(super) async fn migrate(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    sqlx::raw_sql(statements::BEGIN).execute(&mut *connection).await?;
    sqlx::raw_sql(statements::MIGRATE_LOCK).execute(&mut *connection).await?;
    sqlx::raw_sql(statements::CREATE).execute(&mut *connection).await?;
    let schema = SCHEMA.to_string();
    sqlx::query(statements::META_RECORD).bind("schema").bind(schema).execute(&mut *connection).await?;
    sqlx::query_scalar(statements::META_READ).bind("schema").fetch_one(&mut *connection).await
}

/// In a transaction of its own; the rows afterwards.
pub(super) async fn claim(
    connection: &mut PgConnection,
    kind: &str,
    wanted: &[(Partition, Incarnation)],
    take_over: bool,
) -> Result<HashMap<Partition, Checkpoint>, sqlx::Error> {
    let mut ordered = wanted.to_vec();
    ordered.sort_unstable();
    sqlx::raw_sql(statements::BEGIN).execute(&mut *connection).await?;
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
