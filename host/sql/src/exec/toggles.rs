//! Toggles: the plan of their tables, and what is loaded of them.

use std::collections::HashMap;
use std::slice;
use std::sync::Arc;

use serde_json::Value;

use super::documents::PageWithin;
use crate::engine::{Backend, Catalogue as _, Engine, Findings, Role, StatementOf};
use crate::explain::explanation;
pub(crate) use crate::introspection::toggle::Forms;
use crate::introspection::toggle::{check, forms};
use crate::introspection::{Introspection, Known as Acknowledged, look};
use crate::lease::leased;
use crate::plans::Plan;
use crate::rows::{Known, Load, check_types, page_end, signed, unsigned};
use crate::wire::{Batch, Parameter, Record, Statement as _, Wire, order_text};
use crate::{SqlError, TargetRow};
use weir_core::config::ToggleTable;
use weir_core::model::{Id, Member};

/// The statements of one kind.
#[derive(Debug)]
pub(crate) struct ToggleStatements<S> {
    /// Of a flush.
    pub write: WriteStatements<S>,
    /// Locks rows of targets in order: targets. `None` where no count is kept, or a writer is alone.
    pub lock_counts: Option<S>,
    /// Adds to counts: targets, deltas. `None` where no count is kept.
    pub counts: Option<S>,
    /// Which targets exist, and their counts: targets. `None` where there is no table of targets.
    pub known: Option<S>,
    /// Members of targets.
    pub members: MemberStatement<S>,
    /// Numbers of members up to a bound: targets, bound; the target's number if there may be several, and how many.
    pub sizes: S,
    /// Exact numbers of members: as `sizes`, without a bound.
    pub totals: S,
    /// Pairs: targets, actors; of those that are there number and time, or target, actor and time.
    pub pairs: S,
    /// A page of members: target, time and text of the last one before, limit; actor, time.
    pub page: S,
    /// Of the same page, where times are in an order that an index has.
    pub within: Option<PageWithin<S>>,
    /// The plan of the bulk delete.
    pub delete_plan: S,
}

/// How pairs are written.
#[derive(Debug)]
pub(crate) enum WriteStatements<S> {
    /// What was changed is returned.
    Returning {
        /// Deletes pairs: targets, actors; the targets of those that were there. With `says_skipping` also how many, and
        /// whether there are triggers that may discard a row.
        delete: S,
        /// Inserts pairs: targets, actors, times if there is a column; as `delete`. Pairs that are there are passed over
        /// before the engine takes a number of its own for them.
        insert: S,
        /// Whether the statements say how many, and whether there are such triggers.
        says_skipping: bool,
    },
    /// What is there is read under lock first.
    Looking {
        /// As `pairs`, locked.
        look: S,
        /// Deletes pairs: targets, actors.
        delete: S,
        /// Inserts pairs: targets, actors, times if there is a column.
        insert: S,
    },
}

/// How the members of several targets are read.
#[derive(Debug)]
pub(crate) enum MemberStatement<S> {
    /// Of each target up to a bound: targets, bound; the target's number, actor, time.
    Bounded(S),
    /// All of them, where `sizes` has found few: targets; target, actor, time.
    All(S),
}

/// What is prepared for one kind.
pub(crate) type TogglePlan<E> = Plan<ToggleTable, Forms, ToggleStatements<StatementOf<E>>>;

/// The table of the pairs, and that of the targets.
#[derive(Debug)]
struct Tables {
    pairs: Option<Introspection>,
    targets: Option<Introspection>,
}

async fn read_tables<E: Engine>(
    connection: &mut E::Connection,
    dialect: E::Dialect,
    table: &ToggleTable,
) -> Result<Tables, sqlx::Error> {
    let pairs = E::read_facts(connection, dialect, &table.name, &["SELECT", "INSERT", "DELETE"]).await?;
    let targets = match &table.targets {
        None => None,
        Some(targets) => {
            let rights: &[&str] = if targets.count_column.is_some() { &["SELECT", "UPDATE"] } else { &["SELECT"] };
            E::read_facts(connection, dialect, &targets.name, rights).await?
        }
    };
    Ok(Tables { pairs, targets })
}

/// What is prepared for the tables, prepared now if need be.
pub(crate) async fn plan<B: Backend>(backend: &B, table: &ToggleTable) -> Result<Arc<TogglePlan<B::Engine>>, SqlError> {
    if let Some(plan) = backend.plans().toggles.get(table) {
        return Ok(plan);
    }
    let lease = backend.lease().await?;
    let dialect = backend.dialect();
    let tables = leased!(lease, |connection| read_tables::<B::Engine>(connection, dialect, table))?;
    let forms = forms(&dialect, table, tables.pairs.as_ref(), tables.targets.as_ref())?;
    let statements = (B::Engine::STATEMENTS.toggle)(table, &forms);
    Ok(backend.plans().toggles.put(table, Plan { table: table.clone(), forms, statements }))
}

/// See [`crate::SchemaCheck::check_table`].
pub(crate) async fn check_tables<B: Backend>(backend: &B, table: &ToggleTable) -> Findings {
    backend.plans().toggles.forget(table);
    let lease = backend.lease().await?;
    let dialect = backend.dialect();
    let mut tables = leased!(lease, |connection| async {
        let mut tables = read_tables::<B::Engine>(connection, dialect, table).await?;
        B::Engine::read_surroundings(connection, dialect, &table.name, Role::Pairs, tables.pairs.as_mut()).await?;
        if let Some(given) = &table.targets {
            B::Engine::read_surroundings(connection, dialect, &given.name, Role::Other, tables.targets.as_mut())
                .await?;
        }
        Ok(tables)
    })?;
    look::toggle(backend, &dialect, table, &mut tables.pairs, &mut tables.targets).await?;
    let known = Acknowledged::Listed(backend.acknowledged());
    let mut findings = check(&dialect, table, tables.pairs.as_ref(), tables.targets.as_ref(), known);
    if let (true, Some(pairs)) = (findings.iter().all(|finding| finding.warning), &tables.pairs) {
        let plan = plan(backend, table).await?;
        let lease = backend.lease().await?;
        findings.extend(leased!(lease, |connection| B::Engine::unused_key(connection, &plan, pairs))?);
    }
    Ok(findings)
}

/// See [`crate::Loader::load_targets`].
pub(crate) async fn load_targets<B: Backend>(
    backend: &B,
    table: &ToggleTable,
    targets: &[Id],
    huge_rows_min: u64,
) -> Result<Vec<TargetRow>, SqlError> {
    check_types(&table.name, (table.target_type, table.actor_type), targets, [])?;
    let plan = plan(backend, table).await?;
    let mut loaded = Vec::with_capacity(targets.len());
    for part in targets.chunks(B::Engine::LOAD.targets) {
        let lease = backend.lease().await?;
        let rows = leased!(lease, |connection| read_targets::<B::Engine>(connection, &plan, part, huge_rows_min));
        loaded.extend(backend.plans().toggles.invalidated_by(table, rows)?);
    }
    Ok(loaded)
}

/// See [`crate::Loader::load_pairs`].
pub(crate) async fn load_pairs<B: Backend>(
    backend: &B,
    table: &ToggleTable,
    pairs: &[(Id, Id)],
) -> Result<Vec<Option<u64>>, SqlError> {
    let types = (table.target_type, table.actor_type);
    check_types(&table.name, types, pairs.iter().map(|(target, _)| target), pairs.iter().map(|(_, actor)| actor))?;
    let plan = plan(backend, table).await?;
    let mut found = Vec::with_capacity(pairs.len());
    for part in pairs.chunks(B::Engine::LOAD.pairs) {
        let wanted: Vec<(&Id, &Id)> = part.iter().map(|(target, actor)| (target, actor)).collect();
        let there = leased!(backend.lease().await?, |connection| {
            read_pairs::<B::Engine>(connection, &plan, &plan.statements.pairs, &wanted)
        });
        found.extend(backend.plans().toggles.invalidated_by(table, there)?);
    }
    Ok(found)
}

/// See [`crate::Loader::load_members`].
pub(crate) async fn load_members<B: Backend>(
    backend: &B,
    table: &ToggleTable,
    target: &Id,
    before: Option<&Member>,
    limit: usize,
) -> Result<Vec<Member>, SqlError> {
    let types = (table.target_type, table.actor_type);
    check_types(&table.name, types, [target], before.map(|member| &member.actor))?;
    let plan = plan(backend, table).await?;
    let lease = backend.lease().await?;
    let members = leased!(lease, |connection| read_page::<B::Engine>(connection, &plan, target, before, limit));
    backend.plans().toggles.invalidated_by(table, members)
}

/// See [`crate::Loader::explain`].
pub(crate) async fn explain<B: Backend>(
    backend: &B,
    table: &ToggleTable,
    target: &Id,
    actor: Option<&Id>,
) -> Result<Value, SqlError> {
    let pair: Vec<(Id, Id)> = actor.iter().map(|actor| (target.clone(), (*actor).clone())).collect();
    let at = load_pairs(backend, table, &pair).await?;
    let plan = plan(backend, table).await?;
    let (known, sizes) = leased!(backend.lease().await?, |connection| async {
        let known = read_known::<B::Engine>(connection, &plan, slice::from_ref(target)).await?;
        let sizes = read_sizes::<B::Engine>(connection, &plan, slice::from_ref(target), table.huge_rows_min).await?;
        Ok((known, sizes))
    })?;
    let size = sizes.first().copied().unwrap_or(0);
    Ok(explanation(at.first().copied().flatten(), target, known.as_ref(), size, table))
}

/// States of some targets, in order.
async fn read_targets<E: Engine>(
    connection: &mut E::Connection,
    plan: &TogglePlan<E>,
    targets: &[Id],
    huge_rows_min: u64,
) -> Result<Vec<TargetRow>, sqlx::Error> {
    let known = read_known::<E>(connection, plan, targets).await?;
    let mut load = Load { known, ..Load::default() };
    let look = load.to_look_at(targets, huge_rows_min);
    match &plan.statements.members {
        MemberStatement::Bounded(statement) => {
            for part in statement.parts(&look) {
                let batch = Batch::new().ids(plan.forms.target, part).integer(bound(huge_rows_min));
                for row in &connection.fetch(statement, &batch).await? {
                    if let Some(target) = part.get(number::<E, _>(row)?) {
                        let member = (row.id(1, plan.forms.actor)?, unsigned(row.integer(2)?));
                        load.take(target.clone(), member, huge_rows_min);
                    }
                }
            }
        }
        MemberStatement::All(statement) => {
            let sizes = read_sizes::<E>(connection, plan, &look, huge_rows_min).await?;
            let mut small = Vec::new();
            for (target, size) in look.into_iter().zip(sizes) {
                if size > huge_rows_min {
                    load.too_many.insert(target);
                } else if size > 0 {
                    small.push(target);
                }
            }
            for part in statement.parts(&small) {
                for row in &connection.fetch(statement, &Batch::new().ids(plan.forms.target, part)).await? {
                    let member = (row.id(1, plan.forms.actor)?, unsigned(row.integer(2)?));
                    load.take(row.id(0, plan.forms.target)?, member, huge_rows_min);
                }
            }
        }
    }
    let (uncounted, statement) = (load.to_count(), &plan.statements.totals);
    for part in statement.parts(&uncounted) {
        for row in &connection.fetch(statement, &Batch::new().ids(plan.forms.target, part)).await? {
            let (index, count) = numbered::<E, _>(row)?;
            if let Some(target) = part.get(index) {
                load.totals.insert(target.clone(), count);
            }
        }
    }
    Ok(load.states(targets, huge_rows_min))
}

/// What the table of the targets says; `None` where there is no such table.
pub(super) async fn read_known<E: Engine>(
    connection: &mut E::Connection,
    plan: &TogglePlan<E>,
    targets: &[Id],
) -> Result<Option<Known>, sqlx::Error> {
    let (Some(key), Some(statement)) = (plan.forms.key, &plan.statements.known) else { return Ok(None) };
    let mut known = Known::with_capacity(targets.len());
    for part in statement.parts(targets) {
        for row in &connection.fetch(statement, &Batch::new().ids(key, part)).await? {
            known.insert(row.id(0, key)?, row.optional_integer(1)?);
        }
    }
    Ok(Some(known))
}

/// Numbers of members, in order, counted up to one more than `huge_rows_min`.
async fn read_sizes<E: Engine>(
    connection: &mut E::Connection,
    plan: &TogglePlan<E>,
    targets: &[Id],
    huge_rows_min: u64,
) -> Result<Vec<u64>, sqlx::Error> {
    let statement = &plan.statements.sizes;
    let mut sizes = vec![0; targets.len()];
    if !targets.is_empty() {
        let batch = Batch::new().ids(plan.forms.target, targets).integer(bound(huge_rows_min));
        for row in &connection.fetch(statement, &batch).await? {
            let (index, size) = numbered::<E, _>(row)?;
            if let Some(slot) = sizes.get_mut(index) {
                *slot = size;
            }
        }
    }
    Ok(sizes)
}

/// Times of the pairs that are there, in order. Compared exactly, whatever the collation.
pub(super) async fn read_pairs<E: Engine>(
    connection: &mut E::Connection,
    plan: &TogglePlan<E>,
    statement: &StatementOf<E>,
    pairs: &[(&Id, &Id)],
) -> Result<Vec<Option<u64>>, sqlx::Error> {
    let (target, actor) = (plan.forms.target, plan.forms.actor);
    let batch = Batch::new().ids(target, pairs.iter().map(|(target, _)| *target));
    let batch = batch.ids(actor, pairs.iter().map(|(_, actor)| *actor));
    let (mut found, mut named) = (vec![None; pairs.len()], HashMap::new());
    for row in &connection.fetch(statement, &batch).await? {
        if row.width() > 2 {
            named.insert((row.id(0, target)?, row.id(1, actor)?), unsigned(row.integer(2)?));
        } else if let Some(slot) = found.get_mut(number::<E, _>(row)?) {
            *slot = Some(unsigned(row.integer(1)?));
        }
    }
    if !named.is_empty() {
        for (slot, (target, actor)) in found.iter_mut().zip(pairs) {
            *slot = named.get(&((*target).clone(), (*actor).clone())).copied();
        }
    }
    Ok(found)
}

/// A page of members, newest first. Where an index can tell how far back the page reaches, only so much is read.
async fn read_page<E: Engine>(
    connection: &mut E::Connection,
    plan: &TogglePlan<E>,
    target: &Id,
    before: Option<&Member>,
    limit: usize,
) -> Result<Vec<Member>, sqlx::Error> {
    let forms = plan.forms;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let last = before.map(|member| order_text(forms.actor, &member.actor));
    let batch = Batch::new().id(forms.target, target);
    let batch = batch.optional_integer(before.map(|member| signed(member.since_ms)));
    let (mut statement, mut page) = (&plan.statements.page, batch.optional_text(last).integer(limit));
    if let (Some(within), Some(created), true) = (&plan.statements.within, forms.created, limit > 0) {
        let end_ms = page_end(before.map(|member| member.since_ms));
        let start = Batch::new().id(forms.target, target).with(Parameter::Time(created, signed(end_ms)));
        if let Some(row) = connection.fetch(&within.start, &start.integer(limit - 1)).await?.first() {
            let end = Parameter::Time(created, signed(end_ms.saturating_add(E::PAGE_STEP_MS)));
            page = page.with(Parameter::Time(created, row.integer(0)?)).with(end);
            statement = &within.page;
        }
    }
    let rows = connection.fetch(statement, &page).await?;
    rows.iter().map(|row| Ok(Member { actor: row.id(0, forms.actor)?, since_ms: unsigned(row.integer(1)?) })).collect()
}

/// One more than what is not huge.
fn bound(huge_rows_min: u64) -> i64 {
    signed(huge_rows_min.saturating_add(1))
}

/// The index that the first column says.
fn number<E: Engine, R: Record>(row: &R) -> Result<usize, sqlx::Error> {
    Ok(usize::try_from(row.integer(0)? - E::FIRST_ROW).unwrap_or(usize::MAX))
}

/// An index and a number; alone a number is that of the only target.
fn numbered<E: Engine, R: Record>(row: &R) -> Result<(usize, u64), sqlx::Error> {
    if row.width() == 1 {
        return Ok((0, unsigned(row.integer(0)?)));
    }
    Ok((number::<E, _>(row)?, unsigned(row.integer(1)?)))
}
