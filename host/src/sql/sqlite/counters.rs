//! Counters: the plan of their tables, their counts, and how sums and events are stored.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::SqliteSql;
use super::catalogue::{read_facts, read_surroundings};
use super::read::{json_id, json_ids, json_time, read_id};
use super::statements::counters::Statements;
use super::statements::words::SqliteWords;
use super::write::SqliteFlight;
use crate::config::CounterTable;
use crate::model::Id;
use crate::sql::effect::{Asked, all_met, discarded};
use crate::sql::facts::counter::{Forms, check, forms, misfit};
use crate::sql::facts::{Facts, Known, changed, look};
use crate::sql::flight::Effect;
use crate::sql::lease::leased;
use crate::sql::letters::TARGET_GONE;
use crate::sql::rows::{check_types, counts, events, signed, unsigned};
use crate::sql::{CountRow, Finding, Row, SqlError};

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
    connection: &mut SqliteConnection,
    table: &CounterTable,
) -> Result<(Option<Facts>, Option<Facts>), sqlx::Error> {
    let counted = read_facts(connection, &table.name).await?;
    let events = match &table.events {
        None => None,
        Some(events) => read_facts(connection, &events.name).await?,
    };
    Ok((counted, events))
}

impl SqliteSql {
    async fn read_counter(&self, table: &CounterTable) -> Result<(Option<Facts>, Option<Facts>), SqlError> {
        leased!(self.lease().await?, |connection| read_tables(connection, table))
    }

    /// What is prepared for the tables, prepared now if need be.
    pub(super) async fn counter_plan(&self, table: &CounterTable) -> Result<Arc<Plan>, SqlError> {
        if let Some(plan) = self.counters.get(table) {
            return Ok(plan);
        }
        let (counted, events) = self.read_counter(table).await?;
        let forms = forms(&SqliteWords, table, counted.as_ref(), events.as_ref())?;
        let statements = Statements::new(table, forms);
        Ok(self.counters.put(table, Plan { table: table.clone(), forms, statements }))
    }

    /// See [`crate::sql::Sql::check_table`].
    pub(super) async fn check_counter(&self, table: &CounterTable) -> Result<Vec<Finding>, SqlError> {
        self.counters.forget(table);
        let (mut counted, mut events) = leased!(self.lease().await?, |connection| async {
            let (counted, mut events) = read_tables(connection, table).await?;
            if let Some(given) = &table.events {
                read_surroundings(connection, &given.name, events.as_mut()).await?;
            }
            Ok((counted, events))
        })?;
        look::counter(self, &SqliteWords, table, &mut counted, &mut events).await?;
        let known = Known::Listed(&self.settings.acknowledged);
        Ok(check(&SqliteWords, table, counted.as_ref(), events.as_ref(), known))
    }

    /// See [`crate::sql::Sql::load_counts`].
    pub(super) async fn counts(&self, table: &CounterTable, targets: &[Id]) -> Result<Vec<Option<u64>>, SqlError> {
        check_types(&table.name, (table.target_type, table.actor_type), targets, [])?;
        let plan = self.counter_plan(table).await?;
        let mut found: HashMap<Id, u64> = HashMap::with_capacity(targets.len());
        for part in targets.chunks(TARGETS_PER_LOAD) {
            let rows = leased!(self.lease().await?, |connection| read_counts(connection, &plan, part.iter()));
            found.extend(self.counters.heed(table, rows)?);
        }
        Ok(targets.iter().map(|target| found.get(target).copied()).collect())
    }
}

async fn read_counts(
    connection: &mut SqliteConnection,
    plan: &Plan,
    targets: impl Iterator<Item = &Id>,
) -> Result<HashMap<Id, u64>, sqlx::Error> {
    let query = sqlx::query(AssertSqlSafe(Arc::clone(&plan.statements.counts)));
    let rows = query.bind(json_ids(targets, plan.forms.key)).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((read_id(row, 0, plan.forms.key)?, unsigned(row.try_get_unchecked(1)?)))).collect()
}

impl SqliteFlight<'_> {
    /// Adds the sums to those targets that are there. Who holds the write lock need not lock them.
    pub(super) async fn add_counts(&mut self, plan: &Plan, rows: &[&Row]) -> Result<Effect, sqlx::Error> {
        let rows = counts(rows);
        let key = plan.forms.key;
        let fits = |row: &&&CountRow| i64::try_from(row.by).is_ok();
        let list: Vec<Value> = rows.iter().filter(fits).map(|row| json!([json_id(&row.target, key), row.by])).collect();
        self.statements += 1;
        let query = sqlx::query(AssertSqlSafe(Arc::clone(&plan.statements.add))).bind(Value::from(list).to_string());
        let changed = query.fetch_all(&mut *self.connection).await?;
        let updated: HashSet<Id> = changed.iter().map(|row| read_id(row, 0, key)).collect::<Result<_, _>>()?;
        let mut dead = Vec::new();
        if updated.len() < rows.len() {
            let left = rows.iter().map(|row| &row.target).filter(|target| !updated.contains(*target));
            self.statements += 1;
            let there = read_counts(self.connection, plan, left).await?;
            for (index, row) in rows.iter().enumerate().filter(|(_, row)| !updated.contains(&row.target)) {
                let reason = match there.get(&row.target) {
                    None => TARGET_GONE.to_owned(),
                    Some(count) if count.checked_add(row.by).is_none_or(|sum| i64::try_from(sum).is_err()) => {
                        format!("adding {} would leave the range of 64 bits", row.by)
                    }
                    Some(_) => {
                        format!("the count is no integer, or {}", discarded(Asked::Update, &plan.table.name))
                    }
                };
                dead.push((index, reason));
            }
        }
        Ok(Effect { updated: updated.len() as u64, dead, ..Effect::default() })
    }

    /// Inserts events.
    pub(super) async fn insert_events(&mut self, plan: &Plan, rows: &[&Row]) -> Result<Effect, sqlx::Error> {
        let (Some(forms), Some(table)) = (plan.forms.events, &plan.table.events) else { return Ok(Effect::default()) };
        let rows = events(rows);
        let list = rows.iter().map(|row| {
            let actor = row.actor.as_ref().map_or(Value::Null, |actor| json_id(actor, forms.actor));
            let mut values = vec![json_id(&row.target, forms.target), actor];
            values.extend(forms.created.map(|form| json_time(row.origin.at_ms, form)));
            values.extend(table.by_column.as_ref().map(|_| Value::from(signed(row.by))));
            Value::from(values)
        });
        let list = Value::from(list.collect::<Vec<Value>>()).to_string();
        self.statements += 1;
        let query = sqlx::query(AssertSqlSafe(Arc::clone(&plan.statements.events))).bind(list);
        let met = query.execute(&mut *self.connection).await?.rows_affected();
        all_met(Asked::Insert, &table.name, met, rows.len())?;
        Ok(Effect { inserted: rows.len() as u64, ..Effect::default() })
    }

    /// What makes every insert of an event fail, or what is prepared wrong.
    pub(super) async fn counter_misfit(&mut self, plan: &Plan, row: &Row) -> Result<Option<String>, sqlx::Error> {
        let (counted, events) = read_tables(self.connection, &plan.table).await?;
        let changed = changed(&plan.forms, forms(&SqliteWords, &plan.table, counted.as_ref(), events.as_ref()));
        Ok(changed.or_else(|| match (&plan.table.events, row) {
            (Some(table), Row::Event(_)) => misfit(&SqliteWords, table, events.as_ref()),
            _ => None,
        }))
    }
}
