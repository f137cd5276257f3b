//! Settings of members: the plan of their tables, how they are read and stored.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::PostgresSql;
use super::catalogue::{read_facts, read_surroundings};
use super::read::{bind_ids, read_id};
use super::statements::settings::Statements;
use super::statements::words::PostgresWords;
use super::write::PostgresFlight;
use crate::config::PreferenceTable;
use crate::model::{Id, Setting, SettingRef, SettingType, Settings};
use crate::sql::effect::settings_left;
use crate::sql::facts::preference::{Forms, check, forms, misfit};
use crate::sql::facts::{Facts, Known, changed, look};
use crate::sql::flight::Effect;
use crate::sql::lease::leased;
use crate::sql::rows::{check_types, settings};
use crate::sql::settings::{Changed, MEMBERS_PER_LOAD, as_text, changes, from_column, in_order, packed};
use crate::sql::{Finding, Row, SqlError};

/// What is prepared per kind.
pub(super) struct Plan {
    /// Its tables.
    pub table: PreferenceTable,
    /// The forms of their columns.
    pub forms: Forms,
    /// Its statements.
    pub statements: Statements,
}

/// The table of the settings, and that of the members.
async fn read_tables(
    connection: &mut PgConnection,
    table: &PreferenceTable,
) -> Result<(Option<Facts>, Option<Facts>), sqlx::Error> {
    let own = read_facts(connection, &table.name, &["SELECT", "INSERT", "UPDATE"]).await?;
    let members = match &table.members {
        None => None,
        Some(members) => read_facts(connection, &members.name, &["SELECT"]).await?,
    };
    Ok((own, members))
}

impl PostgresSql {
    /// What is prepared for the tables, prepared now if need be.
    pub(super) async fn settings_plan(&self, table: &PreferenceTable) -> Result<Arc<Plan>, SqlError> {
        if let Some(plan) = self.preferences.get(table) {
            return Ok(plan);
        }
        let (own, members) = leased!(self.lease().await?, |connection| read_tables(connection, table))?;
        let forms = forms(&PostgresWords, table, own.as_ref(), members.as_ref())?;
        let statements = Statements::new(table, &forms);
        Ok(self.preferences.put(table, Plan { table: table.clone(), forms, statements }))
    }

    /// See [`crate::sql::Sql::check_table`].
    pub(super) async fn check_settings(&self, table: &PreferenceTable) -> Result<Vec<Finding>, SqlError> {
        self.preferences.forget(table);
        let (mut own, mut members) = leased!(self.lease().await?, |connection| async {
            let (mut own, mut members) = read_tables(connection, table).await?;
            read_surroundings(connection, &table.name, own.as_mut()).await?;
            if let Some(given) = &table.members {
                read_surroundings(connection, &given.name, members.as_mut()).await?;
            }
            Ok((own, members))
        })?;
        look::preference(self, &PostgresWords, table, &mut own, &mut members).await?;
        let known = Known::Listed(&self.settings.acknowledged);
        Ok(check(&PostgresWords, table, own.as_ref(), members.as_ref(), known))
    }

    /// See [`crate::sql::Sql::load_settings`].
    pub(super) async fn settings(
        &self,
        table: &PreferenceTable,
        members: &[Id],
    ) -> Result<Vec<Option<Settings>>, SqlError> {
        check_types(&table.name, (table.member_type, table.member_type), members, [])?;
        let plan = self.settings_plan(table).await?;
        let mut loaded = Vec::with_capacity(members.len());
        for part in members.chunks(MEMBERS_PER_LOAD) {
            let read = leased!(self.lease().await?, |connection| read_settings(connection, &plan, part));
            loaded.extend(self.preferences.heed(table, read)?);
        }
        Ok(loaded)
    }
}

async fn read_settings(
    connection: &mut PgConnection,
    plan: &Plan,
    members: &[Id],
) -> Result<Vec<Option<Settings>>, sqlx::Error> {
    let there = match plan.forms.key {
        None => None,
        Some(key) => {
            let query = sqlx::query(AssertSqlSafe(Arc::clone(&plan.statements.members)));
            let rows = bind_ids(query, key, members).fetch_all(&mut *connection).await?;
            Some(rows.iter().map(|row| read_id(row, 0, key)).collect::<Result<HashSet<Id>, _>>()?)
        }
    };
    let found = read_rows(connection, plan, members).await?;
    Ok(in_order(members, &found, there.as_ref()))
}

/// What the rows of members hold, of those that have one.
async fn read_rows<'i>(
    connection: &mut PgConnection,
    plan: &Plan,
    members: impl IntoIterator<Item = &'i Id>,
) -> Result<HashMap<Id, Settings>, sqlx::Error> {
    let query = sqlx::query(AssertSqlSafe(Arc::clone(&plan.statements.settings)));
    let rows = bind_ids(query, plan.forms.member, members).fetch_all(&mut *connection).await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in &rows {
        let fields = plan.table.fields.iter().enumerate();
        let values = fields.map(|(index, field)| read_setting(row, index + 1, field.field_type));
        let values = values.collect::<Result<Vec<_>, sqlx::Error>>()?;
        found.insert(read_id(row, 0, plan.forms.member)?, packed(&plan.table, &values));
    }
    Ok(found)
}

fn read_setting(row: &PgRow, index: usize, setting_type: SettingType) -> Result<Option<Setting>, sqlx::Error> {
    Ok(match setting_type {
        SettingType::Text => from_column(setting_type, None, row.try_get(index)?),
        _ => from_column(setting_type, row.try_get(index)?, None),
    })
}

impl PostgresFlight<'_> {
    /// Changes what is set of those that have a row, and makes rows of those that have none. In this order a sequence of the
    /// table gives a number to new rows only.
    pub(super) async fn store_settings(&mut self, plan: &Plan, rows: &[&Row]) -> Result<Effect, sqlx::Error> {
        let (changes, mut dead) = changes(&plan.table, &settings(rows));
        if changes.is_empty() {
            return Ok(Effect { dead, ..Effect::default() });
        }
        let all = changes.len() as u64;
        let mut updated = self.update_settings(plan, &changes).await?;
        let mut inserted = 0;
        if updated < all {
            inserted = self.insert_settings(plan, &changes).await?;
            if updated + inserted < all {
                // Others have made rows meanwhile, or something discards what is written.
                let met = self.update_settings(plan, &changes).await?;
                if met < all {
                    self.statements += 1;
                    let found = read_rows(self.connection, plan, changes.iter().map(|change| change.member)).await?;
                    dead.extend(settings_left(&plan.table, &changes, met, &found)?);
                }
                updated = met.saturating_sub(inserted);
            }
        }
        Ok(Effect { inserted, updated, dead, ..Effect::default() })
    }

    /// How many rows it met.
    async fn update_settings(&mut self, plan: &Plan, changes: &[Changed<'_>]) -> Result<u64, sqlx::Error> {
        self.change_settings(plan, &plan.statements.update, changes, |row, field| changes[row].values[field]).await
    }

    /// How many rows it made.
    async fn insert_settings(&mut self, plan: &Plan, changes: &[Changed<'_>]) -> Result<u64, sqlx::Error> {
        let filled: Vec<Vec<SettingRef<'_>>> = changes.iter().map(|change| change.filled(&plan.table)).collect();
        self.change_settings(plan, &plan.statements.insert, changes, |row, field| Some(filled[row][field])).await
    }

    /// Runs one of both statements; the rows that it met. `value`: of a row, of a field.
    async fn change_settings<'v>(
        &mut self,
        plan: &Plan,
        text: &Arc<str>,
        changes: &[Changed<'_>],
        value: impl Fn(usize, usize) -> Option<SettingRef<'v>>,
    ) -> Result<u64, sqlx::Error> {
        self.statements += 1;
        let query = sqlx::query(AssertSqlSafe(Arc::clone(text)));
        let mut query = bind_ids(query, plan.forms.member, changes.iter().map(|change| change.member));
        for (field, form) in plan.forms.fields.iter().enumerate() {
            let of_row = |row: usize| value(row, field).map(|value| as_text(*form, value));
            query = query.bind((0..changes.len()).map(of_row).collect::<Vec<Option<String>>>());
        }
        Ok(query.execute(&mut *self.connection).await?.rows_affected())
    }

    /// What makes every insert fail, or what is prepared wrong.
    pub(super) async fn settings_misfit(&mut self, plan: &Plan) -> Result<Option<String>, sqlx::Error> {
        let (own, members) = read_tables(self.connection, &plan.table).await?;
        let changed = changed(&plan.forms, forms(&PostgresWords, &plan.table, own.as_ref(), members.as_ref()));
        Ok(changed.or_else(|| misfit(&PostgresWords, &plan.table, own.as_ref())))
    }
}
