//! Counters: the plan of their tables, their counts, and how sums and events are stored.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::flush::{Effect, FlushTransaction};
use crate::dead_letters::TARGET_GONE;
use crate::effect::{WriteOperation, all_met, discarded};
use crate::engine::{Backend, Catalogue as _, Engine, Findings, Role, StatementOf};
pub(crate) use crate::introspection::counter::Forms;
use crate::introspection::counter::{check, forms, mismatch};
use crate::introspection::{Introspection, Known, changed, look};
use crate::lease::leased;
use crate::plans::Plan;
use crate::rows::{check_types, counts, events, signed, sums};
use crate::wire::{Batch, Parameter, Record as _, Statement as _, Wire};
use crate::{CountRow, Row, SqlError};
use weir_core::config::CounterTable;
use weir_core::model::Id;

/// The statements of one kind.
#[derive(Debug)]
pub(crate) struct CounterStatements<S> {
    /// Locks rows of targets in order: targets; those that are there. `None` where a writer is alone, and `add` says what
    /// it met.
    pub lock: Option<S>,
    /// Adds to counts: targets, sums.
    pub add: S,
    /// Counts: targets; target and count.
    pub counts: S,
    /// Inserts events: targets, actors, then times and numbers, if there are columns. `None` where none are kept.
    pub events: Option<S>,
}

/// What is prepared for one kind.
pub(crate) type CounterPlan<E> = Plan<CounterTable, Forms, CounterStatements<StatementOf<E>>>;

/// The table of the counts, and that of the events.
#[derive(Debug)]
struct Tables {
    counted: Option<Introspection>,
    events: Option<Introspection>,
}

async fn read_tables<E: Engine>(
    connection: &mut E::Connection,
    dialect: E::Dialect,
    table: &CounterTable,
) -> Result<Tables, sqlx::Error> {
    let counted = E::read_facts(connection, dialect, &table.name, &["SELECT", "UPDATE"]).await?;
    let events = match &table.events {
        None => None,
        Some(events) => E::read_facts(connection, dialect, &events.name, &["INSERT"]).await?,
    };
    Ok(Tables { counted, events })
}

/// What is prepared for the tables, prepared now if need be.
pub(crate) async fn plan<B: Backend>(
    backend: &B,
    table: &CounterTable,
) -> Result<Arc<CounterPlan<B::Engine>>, SqlError> {
    if let Some(plan) = backend.plans().counters.get(table) {
        return Ok(plan);
    }
    let lease = backend.lease().await?;
    let dialect = backend.dialect();
    let tables = leased!(lease, |connection| read_tables::<B::Engine>(connection, dialect, table))?;
    let forms = forms(&dialect, table, tables.counted.as_ref(), tables.events.as_ref())?;
    let statements = (B::Engine::STATEMENTS.counter)(table, &forms);
    Ok(backend.plans().counters.put(table, Plan { table: table.clone(), forms, statements }))
}

/// See [`crate::SchemaCheck::check_table`].
pub(crate) async fn check_tables<B: Backend>(backend: &B, table: &CounterTable) -> Findings {
    backend.plans().counters.forget(table);
    let lease = backend.lease().await?;
    let dialect = backend.dialect();
    let mut tables = leased!(lease, |connection| async {
        let mut tables = read_tables::<B::Engine>(connection, dialect, table).await?;
        B::Engine::read_surroundings(connection, dialect, &table.name, Role::Other, tables.counted.as_mut()).await?;
        if let Some(given) = &table.events {
            B::Engine::read_surroundings(connection, dialect, &given.name, Role::Events, tables.events.as_mut())
                .await?;
        }
        Ok(tables)
    })?;
    look::counter(backend, &dialect, table, &mut tables.counted, &mut tables.events).await?;
    let known = Known::Listed(backend.acknowledged());
    Ok(check(&dialect, table, tables.counted.as_ref(), tables.events.as_ref(), known))
}

/// See [`crate::Loader::load_counts`].
pub(crate) async fn load_counts<B: Backend>(
    backend: &B,
    table: &CounterTable,
    targets: &[Id],
) -> Result<Vec<Option<u64>>, SqlError> {
    check_types(&table.name, (table.target_type, table.actor_type), targets, [])?;
    let plan = plan(backend, table).await?;
    let mut found: HashMap<Id, u64> = HashMap::with_capacity(targets.len());
    for part in targets.chunks(B::Engine::LOAD.rows) {
        let counts = leased!(backend.lease().await?, |connection| read_counts::<B::Engine>(connection, &plan, part));
        found.extend(backend.plans().counters.invalidated_by(table, counts)?);
    }
    Ok(targets.iter().map(|target| found.get(target).copied()).collect())
}

async fn read_counts<'i, E: Engine>(
    connection: &mut E::Connection,
    plan: &CounterPlan<E>,
    targets: impl IntoIterator<Item = &'i Id>,
) -> Result<HashMap<Id, u64>, sqlx::Error> {
    let batch = Batch::new().ids(plan.forms.key, targets);
    let rows = connection.fetch(&plan.statements.counts, &batch).await?;
    rows.iter().map(|row| Ok((row.id(0, plan.forms.key)?, row.count(1)?))).collect()
}

impl<E: Engine> FlushTransaction<'_, E> {
    /// Adds the sums to those targets that are still there.
    pub(super) async fn add_counts(&mut self, plan: &CounterPlan<E>, rows: &[&Row]) -> Result<Effect, sqlx::Error> {
        let rows = counts(rows);
        let Some(lock) = &plan.statements.lock else { return self.add_alone(plan, &rows).await };
        let key = plan.forms.key;
        let mut there: HashSet<Id> = HashSet::with_capacity(rows.len());
        for part in lock.parts(&rows) {
            let batch = self.locking(Batch::new().ids(key, part.iter().map(|row| &row.target)));
            for row in &self.fetch(lock, &batch).await? {
                there.insert(row.id(0, key)?);
            }
        }
        let (sums, dead) = sums(&rows, &there);
        let add = &plan.statements.add;
        for part in add.parts(&sums) {
            let batch = Batch::new().ids(key, part.iter().map(|(target, _)| *target));
            let met = self.execute(add, &batch.integers(part.iter().map(|(_, by)| *by))).await?;
            all_met(WriteOperation::Update, &plan.table.name, met, part.len())?;
        }
        Ok(Effect { updated: sums.len() as u64, dead, ..Effect::default() })
    }

    /// Adds the sums to those targets that are there. Who holds the write lock need not lock them.
    async fn add_alone(&mut self, plan: &CounterPlan<E>, rows: &[&CountRow]) -> Result<Effect, sqlx::Error> {
        let key = plan.forms.key;
        let sums: Vec<(&Id, i64)> =
            rows.iter().filter_map(|row| Some((&row.target, i64::try_from(row.by).ok()?))).collect();
        let batch = Batch::new().ids(key, sums.iter().map(|(target, _)| *target));
        let changed = self.fetch(&plan.statements.add, &batch.integers(sums.iter().map(|(_, by)| *by))).await?;
        let updated: HashSet<Id> = changed.iter().map(|row| row.id(0, key)).collect::<Result<_, _>>()?;
        let mut dead = Vec::new();
        if updated.len() < rows.len() {
            let left = rows.iter().map(|row| &row.target).filter(|target| !updated.contains(*target));
            self.statements += 1;
            let there = read_counts::<E>(self.connection, plan, left).await?;
            for (index, row) in rows.iter().enumerate().filter(|(_, row)| !updated.contains(&row.target)) {
                let reason = match there.get(&row.target) {
                    None => TARGET_GONE.to_owned(),
                    Some(count) if count.checked_add(row.by).is_none_or(|sum| i64::try_from(sum).is_err()) => {
                        format!("adding {} would leave the range of 64 bits", row.by)
                    }
                    Some(_) => {
                        format!("the count is no integer, or {}", discarded(WriteOperation::Update, &plan.table.name))
                    }
                };
                dead.push((index, reason));
            }
        }
        Ok(Effect { updated: updated.len() as u64, dead, ..Effect::default() })
    }

    /// Inserts events.
    pub(super) async fn insert_events(&mut self, plan: &CounterPlan<E>, rows: &[&Row]) -> Result<Effect, sqlx::Error> {
        let (Some(forms), Some(table)) = (plan.forms.events, &plan.table.events) else { return Ok(Effect::default()) };
        let Some(insert) = &plan.statements.events else { return Ok(Effect::default()) };
        let rows = events(rows);
        for part in insert.parts(&rows) {
            let actors = part.iter().map(|row| row.actor.as_ref()).collect();
            let mut batch = Batch::new().ids(forms.target, part.iter().map(|row| &row.target));
            batch = batch.with(Parameter::OptionalIds(forms.actor, actors));
            if let Some(form) = forms.created {
                batch = batch.times(form, part.iter().map(|row| row.origin.at_ms));
            }
            if table.by_column.is_some() {
                batch = batch.integers(part.iter().map(|row| signed(row.by)));
            }
            let met = self.execute(insert, &batch).await?;
            all_met(WriteOperation::Insert, &table.name, met, part.len())?;
        }
        Ok(Effect { inserted: rows.len() as u64, ..Effect::default() })
    }

    /// What makes every insert of an event fail, or what is prepared wrong.
    pub(super) async fn counter_mismatch(
        &mut self,
        plan: &CounterPlan<E>,
        row: &Row,
    ) -> Result<Option<String>, sqlx::Error> {
        let tables = read_tables::<E>(self.connection, self.dialect, &plan.table).await?;
        let (counted, events) = (tables.counted.as_ref(), tables.events.as_ref());
        let changed = changed(&plan.forms, forms(&self.dialect, &plan.table, counted, events));
        Ok(changed.or_else(|| match (&plan.table.events, row) {
            (Some(table), Row::Event(_)) => mismatch(&self.dialect, table, events),
            _ => None,
        }))
    }
}
