//! Counters: the plan of their tables, their counts, and how sums and events are stored.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::Row as _;
use sqlx::mysql::MySqlConnection;

use super::catalogue::{read_facts, read_surroundings};
use super::read::{bind_id, bind_ids, bind_optional_id, bind_time, kept, padded, pieces, read_id};
use super::statements::counters::Statements;
use super::statements::words::MysqlWords;
use super::write::MysqlFlight;
use super::{CHUNK, MysqlSql};
use crate::config::CounterTable;
use crate::model::Id;
use crate::sql::classify::sql_error;
use crate::sql::effect::{Asked, all_met};
use crate::sql::facts::counter::{Forms, check, forms, misfit};
use crate::sql::facts::{Facts, Known, changed, look};
use crate::sql::flight::Effect;
use crate::sql::lease::leased;
use crate::sql::rows::{check_types, counts, events, signed, sums};
use crate::sql::{Finding, Row, SqlError};

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
    connection: &mut MySqlConnection,
    words: MysqlWords,
    table: &CounterTable,
) -> Result<(Option<Facts>, Option<Facts>), sqlx::Error> {
    let counted = read_facts(connection, words, &table.name).await?;
    let events = match &table.events {
        None => None,
        Some(events) => read_facts(connection, words, &events.name).await?,
    };
    Ok((counted, events))
}

impl MysqlSql {
    async fn read_counter(&self, table: &CounterTable) -> Result<(Option<Facts>, Option<Facts>), SqlError> {
        let lease = self.lease().await?;
        let words = self.words();
        leased!(lease, |connection| read_tables(connection, words, table))
    }

    /// What is prepared for the tables, prepared now if need be.
    pub(super) async fn counter_plan(&self, table: &CounterTable) -> Result<Arc<Plan>, SqlError> {
        if let Some(plan) = self.counters.get(table) {
            return Ok(plan);
        }
        let (counted, events) = self.read_counter(table).await?;
        let forms = forms(&self.words(), table, counted.as_ref(), events.as_ref())?;
        let statements = Statements::new(table, forms);
        Ok(self.counters.put(table, Plan { table: table.clone(), forms, statements }))
    }

    /// See [`crate::sql::Sql::check_table`].
    pub(super) async fn check_counter(&self, table: &CounterTable) -> Result<Vec<Finding>, SqlError> {
        self.counters.forget(table);
        let lease = self.lease().await?;
        let words = self.words();
        let (mut counted, mut events) = leased!(lease, |connection| async {
            let (mut counted, mut events) = read_tables(connection, words, table).await?;
            read_surroundings(connection, words, &table.name, counted.as_mut()).await?;
            if let Some(given) = &table.events {
                read_surroundings(connection, words, &given.name, events.as_mut()).await?;
            }
            Ok((counted, events))
        })?;
        look::counter(self, &words, table, &mut counted, &mut events).await?;
        let known = Known::Listed(&self.settings.acknowledged);
        Ok(check(&words, table, counted.as_ref(), events.as_ref(), known))
    }

    /// See [`crate::sql::Sql::load_counts`].
    pub(super) async fn counts(&self, table: &CounterTable, targets: &[Id]) -> Result<Vec<Option<u64>>, SqlError> {
        check_types(&table.name, (table.target_type, table.actor_type), targets, [])?;
        let plan = self.counter_plan(table).await?;
        let mut found: HashMap<Id, u64> = HashMap::with_capacity(targets.len());
        for part in targets.chunks(CHUNK) {
            let list = padded(part);
            let query = bind_ids(kept(plan.statements.counts(list.len())), plan.forms.key, list);
            let rows = leased!(self.lease().await?, |connection| query.fetch_all(connection));
            for row in &self.counters.heed(table, rows)? {
                let id = read_id(row, 0, plan.forms.key).map_err(sql_error)?;
                found.insert(id, row.try_get_unchecked(1).map_err(sql_error)?);
            }
        }
        Ok(targets.iter().map(|target| found.get(target).copied()).collect())
    }
}

impl MysqlFlight<'_> {
    /// Adds the sums to those targets that are still there.
    pub(super) async fn add_counts(&mut self, plan: &Plan, rows: &[&Row]) -> Result<Effect, sqlx::Error> {
        let rows = counts(rows);
        let key = plan.forms.key;
        let targets: Vec<&Id> = rows.iter().map(|row| &row.target).collect();
        let mut there: HashSet<Id> = HashSet::with_capacity(targets.len());
        for part in targets.chunks(CHUNK) {
            let list = padded(part);
            self.statements += 1;
            let query = bind_ids(kept(self.locking(plan.statements.lock(list.len()))), key, list.copied());
            for row in &query.fetch_all(&mut *self.connection).await? {
                there.insert(read_id(row, 0, key)?);
            }
        }
        let (sums, dead) = sums(&rows, &there);
        for part in sums.chunks(CHUNK) {
            let list = padded(part);
            self.statements += 1;
            let mut query = kept(plan.statements.add(list.len()));
            for (target, by) in list.clone() {
                query = bind_id(query, key, target).bind(*by);
            }
            let query = bind_ids(query, key, list.map(|(target, _)| *target));
            let met = query.execute(&mut *self.connection).await?.rows_affected();
            all_met(Asked::Update, &plan.table.name, met, part.len())?;
        }
        Ok(Effect { updated: sums.len() as u64, dead, ..Effect::default() })
    }

    /// Inserts events.
    pub(super) async fn insert_events(&mut self, plan: &Plan, rows: &[&Row]) -> Result<Effect, sqlx::Error> {
        let (Some(forms), Some(table)) = (plan.forms.events, &plan.table.events) else { return Ok(Effect::default()) };
        let rows = events(rows);
        for part in pieces(&rows, CHUNK) {
            let Some(text) = plan.statements.events(part.len()) else { return Ok(Effect::default()) };
            self.statements += 1;
            let mut query = kept(text);
            for row in part {
                query = bind_id(query, forms.target, &row.target);
                query = bind_optional_id(query, forms.actor, row.actor.as_ref());
                if let Some(form) = forms.created {
                    query = bind_time(query, form, row.origin.at_ms);
                }
                if table.by_column.is_some() {
                    query = query.bind(signed(row.by));
                }
            }
            let met = query.execute(&mut *self.connection).await?.rows_affected();
            all_met(Asked::Insert, &table.name, met, part.len())?;
        }
        Ok(Effect { inserted: rows.len() as u64, ..Effect::default() })
    }

    /// What makes every insert of an event fail, or what is prepared wrong.
    pub(super) async fn counter_misfit(&mut self, plan: &Plan, row: &Row) -> Result<Option<String>, sqlx::Error> {
        let (counted, events) = read_tables(self.connection, self.words, &plan.table).await?;
        let changed = changed(&plan.forms, forms(&self.words, &plan.table, counted.as_ref(), events.as_ref()));
        Ok(changed.or_else(|| match (&plan.table.events, row) {
            (Some(table), Row::Event(_)) => misfit(&self.words, table, events.as_ref()),
            _ => None,
        }))
    }
}
