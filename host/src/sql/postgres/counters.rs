//! Counters: the plan of their tables, their counts, and how sums and events are stored.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::PostgresSql;
use super::catalogue::{read_facts, read_surroundings};
use super::read::{bind_ids, bind_optional_ids, bind_times, read_id};
use super::statements::counters::Statements;
use super::statements::words::PostgresWords;
use super::write::PostgresFlight;
use crate::config::CounterTable;
use crate::model::Id;
use crate::sql::classify::sql_error;
use crate::sql::effect::{Asked, all_met};
use crate::sql::facts::counter::{Forms, check, forms, misfit};
use crate::sql::facts::{Facts, Known, changed, look};
use crate::sql::flight::Effect;
use crate::sql::lease::leased;
use crate::sql::rows::{check_types, counts, events, signed, sums, unsigned};
use crate::sql::{Finding, Row, SqlError};

/// Counters that are loaded by one statement.
const TARGETS_PER_LOAD: usize = 10_000;

/// What is prepared per kind.
pub(super) struct Plan {
    /// Its tables.
    pub table: CounterTable,
    /// The forms of their columns.
    pub forms: Forms,
    /// Its statements.
    pub statements: Statements,
}

/// The table of the counts, and that of the events.
async fn read_tables(
    connection: &mut PgConnection,
    table: &CounterTable,
) -> Result<(Option<Facts>, Option<Facts>), sqlx::Error> {
    let counted = read_facts(connection, &table.name, &["SELECT", "UPDATE"]).await?;
    let events = match &table.events {
        None => None,
        Some(events) => read_facts(connection, &events.name, &["INSERT"]).await?,
    };
    Ok((counted, events))
}

impl PostgresSql {
    async fn read_counter(&self, table: &CounterTable) -> Result<(Option<Facts>, Option<Facts>), SqlError> {
        leased!(self.lease().await?, |connection| read_tables(connection, table))
    }

    /// What is prepared for the tables, prepared now if need be.
    pub(super) async fn counter_plan(&self, table: &CounterTable) -> Result<Arc<Plan>, SqlError> {
        if let Some(plan) = self.counters.get(table) {
            return Ok(plan);
        }
        let (counted, events) = self.read_counter(table).await?;
        let forms = forms(&PostgresWords, table, counted.as_ref(), events.as_ref())?;
        let statements = Statements::new(table, forms);
        Ok(self.counters.put(table, Plan { table: table.clone(), forms, statements }))
    }

    /// See [`crate::sql::Sql::check_table`].
    pub(super) async fn check_counter(&self, table: &CounterTable) -> Result<Vec<Finding>, SqlError> {
        self.counters.forget(table);
        let (mut counted, mut events) = leased!(self.lease().await?, |connection| async {
            let (mut counted, mut events) = read_tables(connection, table).await?;
            read_surroundings(connection, &table.name, counted.as_mut()).await?;
            if let Some(given) = &table.events {
                read_surroundings(connection, &given.name, events.as_mut()).await?;
            }
            Ok((counted, events))
        })?;
        look::counter(self, &PostgresWords, table, &mut counted, &mut events).await?;
        let known = Known::Listed(&self.settings.acknowledged);
        Ok(check(&PostgresWords, table, counted.as_ref(), events.as_ref(), known))
    }

    /// See [`crate::sql::Sql::load_counts`].
    pub(super) async fn counts(&self, table: &CounterTable, targets: &[Id]) -> Result<Vec<Option<u64>>, SqlError> {
        check_types(&table.name, (table.target_type, table.actor_type), targets, [])?;
        let plan = self.counter_plan(table).await?;
        let mut found: HashMap<Id, u64> = HashMap::with_capacity(targets.len());
        for part in targets.chunks(TARGETS_PER_LOAD) {
            let query = sqlx::query(AssertSqlSafe(plan.statements.counts.clone()));
            let query = bind_ids(query, plan.forms.key, part);
            let rows = leased!(self.lease().await?, |connection| query.fetch_all(connection));
            for row in &self.counters.heed(table, rows)? {
                let id = read_id(row, 0, plan.forms.key).map_err(sql_error)?;
                found.insert(id, unsigned(row.try_get(1).map_err(sql_error)?));
            }
        }
        Ok(targets.iter().map(|target| found.get(target).copied()).collect())
    }
}

impl PostgresFlight<'_> {
    /// Adds the sums to those targets that are still there.
    pub(super) async fn add_counts(&mut self, plan: &Plan, rows: &[&Row]) -> Result<Effect, sqlx::Error> {
        let rows = counts(rows);
        self.statements += 1;
        let lock = sqlx::query(AssertSqlSafe(plan.statements.lock.clone()));
        let lock = bind_ids(lock, plan.forms.key, rows.iter().map(|row| &row.target));
        let locked = lock.fetch_all(&mut *self.connection).await?;
        let there = locked.iter().map(|row| read_id(row, 0, plan.forms.key)).collect::<Result<_, _>>()?;
        let (sums, dead) = sums(&rows, &there);
        if !sums.is_empty() {
            self.statements += 1;
            let add = sqlx::query(AssertSqlSafe(plan.statements.add.clone()));
            let add = bind_ids(add, plan.forms.key, sums.iter().map(|(target, _)| *target));
            let changes: Vec<i64> = sums.iter().map(|(_, by)| *by).collect();
            let met = add.bind(changes).execute(&mut *self.connection).await?.rows_affected();
            all_met(Asked::Update, &plan.table.name, met, sums.len())?;
        }
        Ok(Effect { updated: sums.len() as u64, dead, ..Effect::default() })
    }

    /// Inserts events.
    pub(super) async fn insert_events(&mut self, plan: &Plan, rows: &[&Row]) -> Result<Effect, sqlx::Error> {
        let (Some(forms), Some(table)) = (plan.forms.events, &plan.table.events) else { return Ok(Effect::default()) };
        let rows = events(rows);
        self.statements += 1;
        let mut query = sqlx::query(AssertSqlSafe(plan.statements.events.clone()));
        query = bind_ids(query, forms.target, rows.iter().map(|row| &row.target));
        query = bind_optional_ids(query, forms.actor, rows.iter().map(|row| row.actor.as_ref()));
        if let Some(form) = forms.created {
            query = bind_times(query, form, rows.iter().map(|row| row.origin.at_ms));
        }
        if table.by_column.is_some() {
            query = query.bind(rows.iter().map(|row| signed(row.by)).collect::<Vec<i64>>());
        }
        let met = query.execute(&mut *self.connection).await?.rows_affected();
        all_met(Asked::Insert, &table.name, met, rows.len())?;
        Ok(Effect { inserted: rows.len() as u64, ..Effect::default() })
    }

    /// What makes every insert of an event fail, or what is prepared wrong.
    pub(super) async fn counter_misfit(&mut self, plan: &Plan, row: &Row) -> Result<Option<String>, sqlx::Error> {
        let (counted, events) = read_tables(self.connection, &plan.table).await?;
        let changed = changed(&plan.forms, forms(&PostgresWords, &plan.table, counted.as_ref(), events.as_ref()));
        Ok(changed.or_else(|| match (&plan.table.events, row) {
            (Some(table), Row::Event(_)) => misfit(&PostgresWords, table, events.as_ref()),
            _ => None,
        }))
    }
}
