//! Preferences of members: the plan of their tables, how they are read and stored.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::flush::{Effect, FlushTransaction};
use crate::effect::{WriteOperation, all_met, settings_left};
use crate::engine::{Backend, Catalogue as _, Engine, Findings, Role, RowOf, StatementOf};
pub(crate) use crate::introspection::preference::Forms;
use crate::introspection::preference::{check, forms, mismatch};
use crate::introspection::{Introspection, Known, changed, look};
use crate::lease::leased;
use crate::plans::Plan;
use crate::preferences::{Changed, changes, from_column, in_order, packed};
use crate::rows::{check_types, settings};
use crate::wire::{Batch, Parameter, Record, Statement as _, Wire};
use crate::{Row, SqlError};
use weir_core::config::PreferenceTable;
use weir_core::model::{Id, Setting, SettingType, Settings};

/// The statements of one kind.
#[derive(Debug)]
pub(crate) struct PreferenceStatements<S> {
    /// Preferences: members; member, then fields: numbers, or text.
    pub settings: S,
    /// Which members exist: members. `None` where every one does.
    pub members: Option<S>,
    /// Inserts rows of members that have none: members, then the values of each field.
    pub insert: S,
    /// Changes fields: as `insert`, NULL where nothing changes.
    pub update: S,
    /// Locks rows of members in order: members; those that have one. `None` where `insert` passes over those by itself.
    pub lock: Option<S>,
}

/// What is prepared for one kind.
pub(crate) type PreferencePlan<E> = Plan<PreferenceTable, Forms, PreferenceStatements<StatementOf<E>>>;

/// The table of the preferences, and that of the members.
#[derive(Debug)]
struct Tables {
    own: Option<Introspection>,
    members: Option<Introspection>,
}

async fn read_tables<E: Engine>(
    connection: &mut E::Connection,
    dialect: E::Dialect,
    table: &PreferenceTable,
) -> Result<Tables, sqlx::Error> {
    let own = E::read_facts(connection, dialect, &table.name, &["SELECT", "INSERT", "UPDATE"]).await?;
    let members = match &table.members {
        None => None,
        Some(members) => E::read_facts(connection, dialect, &members.name, &["SELECT"]).await?,
    };
    Ok(Tables { own, members })
}

/// What is prepared for the tables, prepared now if need be.
pub(crate) async fn plan<B: Backend>(
    backend: &B,
    table: &PreferenceTable,
) -> Result<Arc<PreferencePlan<B::Engine>>, SqlError> {
    if let Some(plan) = backend.plans().preferences.get(table) {
        return Ok(plan);
    }
    let lease = backend.lease().await?;
    let dialect = backend.dialect();
    let tables = leased!(lease, |connection| read_tables::<B::Engine>(connection, dialect, table))?;
    let forms = forms(&dialect, table, tables.own.as_ref(), tables.members.as_ref())?;
    let statements = (B::Engine::STATEMENTS.preference)(table, &forms);
    Ok(backend.plans().preferences.put(table, Plan { table: table.clone(), forms, statements }))
}

/// See [`crate::SchemaCheck::check_table`].
pub(crate) async fn check_tables<B: Backend>(backend: &B, table: &PreferenceTable) -> Findings {
    backend.plans().preferences.forget(table);
    let lease = backend.lease().await?;
    let dialect = backend.dialect();
    let mut tables = leased!(lease, |connection| async {
        let mut tables = read_tables::<B::Engine>(connection, dialect, table).await?;
        B::Engine::read_surroundings(connection, dialect, &table.name, Role::Other, tables.own.as_mut()).await?;
        if let Some(given) = &table.members {
            B::Engine::read_surroundings(connection, dialect, &given.name, Role::Other, tables.members.as_mut())
                .await?;
        }
        Ok(tables)
    })?;
    look::preference(backend, &dialect, table, &mut tables.own, &mut tables.members).await?;
    let known = Known::Listed(backend.acknowledged());
    Ok(check(&dialect, table, tables.own.as_ref(), tables.members.as_ref(), known))
}

/// See [`crate::Loader::load_settings`].
pub(crate) async fn load_settings<B: Backend>(
    backend: &B,
    table: &PreferenceTable,
    members: &[Id],
) -> Result<Vec<Option<Settings>>, SqlError> {
    check_types(&table.name, (table.member_type, table.member_type), members, [])?;
    let plan = plan(backend, table).await?;
    let mut loaded = Vec::with_capacity(members.len());
    for part in members.chunks(B::Engine::LOAD.rows) {
        let read = leased!(backend.lease().await?, |connection| read_preferences::<B::Engine>(connection, &plan, part));
        loaded.extend(backend.plans().preferences.invalidated_by(table, read)?);
    }
    Ok(loaded)
}

async fn read_preferences<E: Engine>(
    connection: &mut E::Connection,
    plan: &PreferencePlan<E>,
    members: &[Id],
) -> Result<Vec<Option<Settings>>, sqlx::Error> {
    let there = match (plan.forms.key, &plan.statements.members) {
        (Some(key), Some(statement)) => {
            let rows = connection.fetch(statement, &Batch::new().ids(key, members)).await?;
            Some(rows.iter().map(|row| row.id(0, key)).collect::<Result<HashSet<Id>, _>>()?)
        }
        _ => None,
    };
    let found = read_rows::<E>(connection, plan, members).await?;
    Ok(in_order(members, &found, there.as_ref()))
}

/// What the rows of members hold, of those that have one.
async fn read_rows<'i, E: Engine>(
    connection: &mut E::Connection,
    plan: &PreferencePlan<E>,
    members: impl IntoIterator<Item = &'i Id>,
) -> Result<HashMap<Id, Settings>, sqlx::Error> {
    let batch = Batch::new().ids(plan.forms.member, members);
    let rows = connection.fetch(&plan.statements.settings, &batch).await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in &rows {
        let fields = plan.table.fields.iter().enumerate();
        let values = fields.map(|(index, field)| read_setting(row, index + 1, field.field_type));
        let values = values.collect::<Result<Vec<_>, sqlx::Error>>()?;
        found.insert(row.id(0, plan.forms.member)?, packed(&plan.table, &values));
    }
    Ok(found)
}

fn read_setting<R: Record>(row: &R, index: usize, setting_type: SettingType) -> Result<Option<Setting>, sqlx::Error> {
    Ok(match setting_type {
        SettingType::Text => from_column(setting_type, None, row.optional_text(index)?),
        _ => from_column(setting_type, row.optional_integer(index)?, None),
    })
}

impl<E: Engine> FlushTransaction<'_, E> {
    /// Stores what members have set.
    pub(super) async fn store_preferences(
        &mut self,
        plan: &PreferencePlan<E>,
        rows: &[&Row],
    ) -> Result<Effect, sqlx::Error> {
        let (changes, dead) = changes(&plan.table, &settings(rows));
        let effect = Effect { dead, ..Effect::default() };
        match &plan.statements.lock {
            _ if changes.is_empty() => Ok(effect),
            Some(lock) => self.store_locked(plan, lock, &changes, effect).await,
            None => self.store_passing(plan, &changes, effect).await,
        }
    }

    /// Changes what is set of those that have a row, and makes rows of those that have none. In this order the engine gives
    /// a number of its own to new rows only.
    async fn store_passing(
        &mut self,
        plan: &PreferencePlan<E>,
        changes: &[Changed<'_>],
        mut effect: Effect,
    ) -> Result<Effect, sqlx::Error> {
        let all = changes.len() as u64;
        effect.updated = self.update_members(plan, changes).await?;
        if effect.updated < all {
            effect.inserted = self.insert_members(plan, changes).await?;
            if effect.updated + effect.inserted < all {
                // Others have made rows meanwhile, or something discards what is written.
                let met = self.update_members(plan, changes).await?;
                if met < all {
                    self.statements += 1;
                    let members = changes.iter().map(|change| change.member);
                    let found = read_rows::<E>(self.connection, plan, members).await?;
                    effect.dead.extend(settings_left(&plan.table, changes, met, &found)?);
                }
                effect.updated = met.saturating_sub(effect.inserted);
            }
        }
        Ok(effect)
    }

    /// Makes rows of members that have none, and changes what is set of the others. Which these are is read under lock
    /// first: an upsert of such an engine takes a conflict in *any* unique key for the row's own, and says nothing. Should
    /// another session have made one of the rows meanwhile, the unique key says so, and the search for the bad row finds it
    /// there.
    async fn store_locked(
        &mut self,
        plan: &PreferencePlan<E>,
        lock: &StatementOf<E>,
        changes: &[Changed<'_>],
        mut effect: Effect,
    ) -> Result<Effect, sqlx::Error> {
        let (insert, update) = (&plan.statements.insert, &plan.statements.update);
        for part in lock.parts(changes) {
            let there = self.lock_members(plan, lock, part).await?;
            let (known, new): (Vec<_>, Vec<_>) = part.iter().partition(|change| there.contains(change.member));
            for piece in insert.parts(&new) {
                let met = self.insert_members(plan, piece.iter().copied()).await?;
                all_met(WriteOperation::Insert, &plan.table.name, met, piece.len())?;
            }
            for piece in update.parts(&known) {
                let met = self.update_members(plan, piece.iter().copied()).await?;
                all_met(WriteOperation::Update, &plan.table.name, met, piece.len())?;
            }
            effect.inserted += new.len() as u64;
            effect.updated += known.len() as u64;
        }
        Ok(effect)
    }

    /// Locks the rows of members, and says who has one. Compared exactly, as pairs of toggles are.
    async fn lock_members(
        &mut self,
        plan: &PreferencePlan<E>,
        lock: &StatementOf<E>,
        part: &[Changed<'_>],
    ) -> Result<HashSet<Id>, sqlx::Error> {
        let member = plan.forms.member;
        let batch = self.locking(Batch::new().ids(member, part.iter().map(|change| change.member)));
        let rows: Vec<RowOf<E>> = self.fetch(lock, &batch).await?;
        rows.iter().map(|row| row.id(0, member)).collect()
    }

    /// How many rows it met.
    async fn update_members<'c, 'v: 'c>(
        &mut self,
        plan: &PreferencePlan<E>,
        changes: impl IntoIterator<Item = &'c Changed<'v>>,
    ) -> Result<u64, sqlx::Error> {
        let changes: Vec<&Changed<'_>> = changes.into_iter().collect();
        let mut batch = Batch::new().ids(plan.forms.member, changes.iter().map(|change| change.member));
        for (field, form) in plan.forms.fields.iter().enumerate() {
            let values = changes.iter().map(|change| change.values[field]).collect();
            batch = batch.with(Parameter::Settings(*form, values));
        }
        self.execute(&plan.statements.update, &batch).await
    }

    /// How many rows it made, with the values that are set, and the defaults of the others.
    async fn insert_members<'c, 'v: 'c>(
        &mut self,
        plan: &PreferencePlan<E>,
        changes: impl IntoIterator<Item = &'c Changed<'v>>,
    ) -> Result<u64, sqlx::Error> {
        let changes: Vec<&Changed<'_>> = changes.into_iter().collect();
        let mut batch = Batch::new().ids(plan.forms.member, changes.iter().map(|change| change.member));
        let filled: Vec<_> = changes.iter().map(|change| change.filled(&plan.table)).collect();
        for (field, form) in plan.forms.fields.iter().enumerate() {
            let values = filled.iter().map(|values| Some(values[field])).collect();
            batch = batch.with(Parameter::Settings(*form, values));
        }
        self.execute(&plan.statements.insert, &batch).await
    }

    /// What makes every insert fail, or what is prepared wrong.
    pub(super) async fn preference_mismatch(
        &mut self,
        plan: &PreferencePlan<E>,
    ) -> Result<Option<String>, sqlx::Error> {
        let tables = read_tables::<E>(self.connection, self.dialect, &plan.table).await?;
        let (own, members) = (tables.own.as_ref(), tables.members.as_ref());
        let changed = changed(&plan.forms, forms(&self.dialect, &plan.table, own, members));
        Ok(changed.or_else(|| mismatch(&self.dialect, &plan.table, own)))
    }
}
