//! Settings of members: the plan of their tables, how they are read and stored.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::SqliteSql;
use super::catalogue::read_facts;
use super::read::{json_id, json_ids, read_id};
use super::statements::settings::Statements;
use super::statements::words::SqliteWords;
use super::write::SqliteFlight;
use crate::config::PreferenceTable;
use crate::model::{Id, Setting, SettingRef, SettingType, Settings};
use crate::sql::effect::settings_left;
use crate::sql::facts::preference::{Forms, check, forms, misfit};
use crate::sql::facts::{Facts, Known, changed, look};
use crate::sql::flight::Effect;
use crate::sql::lease::leased;
use crate::sql::rows::{check_types, settings};
use crate::sql::settings::{Changed, MEMBERS_PER_LOAD, changes, from_column, in_order, packed};
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
    connection: &mut SqliteConnection,
    table: &PreferenceTable,
) -> Result<(Option<Facts>, Option<Facts>), sqlx::Error> {
    let own = read_facts(connection, &table.name).await?;
    let members = match &table.members {
        None => None,
        Some(members) => read_facts(connection, &members.name).await?,
    };
    Ok((own, members))
}

impl SqliteSql {
    /// What is prepared for the tables, prepared now if need be.
    pub(super) async fn settings_plan(&self, table: &PreferenceTable) -> Result<Arc<Plan>, SqlError> {
        if let Some(plan) = self.preferences.get(table) {
            return Ok(plan);
        }
        let (own, members) = leased!(self.lease().await?, |connection| read_tables(connection, table))?;
        let forms = forms(&SqliteWords, table, own.as_ref(), members.as_ref())?;
        let statements = Statements::new(table, &forms);
        Ok(self.preferences.put(table, Plan { table: table.clone(), forms, statements }))
    }

    /// See [`crate::sql::Sql::check_table`].
    pub(super) async fn check_settings(&self, table: &PreferenceTable) -> Result<Vec<Finding>, SqlError> {
        self.preferences.forget(table);
        let (mut own, mut members) = leased!(self.lease().await?, |connection| read_tables(connection, table))?;
        look::preference(self, &SqliteWords, table, &mut own, &mut members).await?;
        let known = Known::Listed(&self.settings.acknowledged);
        Ok(check(&SqliteWords, table, own.as_ref(), members.as_ref(), known))
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
    connection: &mut SqliteConnection,
    plan: &Plan,
    members: &[Id],
) -> Result<Vec<Option<Settings>>, sqlx::Error> {
    let there = match plan.forms.key {
        None => None,
        Some(key) => {
            let query = sqlx::query(AssertSqlSafe(Arc::clone(&plan.statements.members)));
            let rows = query.bind(json_ids(members, key)).fetch_all(&mut *connection).await?;
            Some(rows.iter().map(|row| read_id(row, 0, key)).collect::<Result<HashSet<Id>, _>>()?)
        }
    };
    let found = read_rows(connection, plan, members).await?;
    Ok(in_order(members, &found, there.as_ref()))
}

/// What the rows of members hold, of those that have one.
async fn read_rows<'i>(
    connection: &mut SqliteConnection,
    plan: &Plan,
    members: impl IntoIterator<Item = &'i Id>,
) -> Result<HashMap<Id, Settings>, sqlx::Error> {
    let query = sqlx::query(AssertSqlSafe(Arc::clone(&plan.statements.settings)));
    let rows = query.bind(json_ids(members, plan.forms.member)).fetch_all(&mut *connection).await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in &rows {
        let fields = plan.table.fields.iter().enumerate();
        let values = fields.map(|(index, field)| read_setting(row, index + 1, field.field_type));
        let values = values.collect::<Result<Vec<_>, sqlx::Error>>()?;
        found.insert(read_id(row, 0, plan.forms.member)?, packed(&plan.table, &values));
    }
    Ok(found)
}

fn read_setting(row: &SqliteRow, index: usize, setting_type: SettingType) -> Result<Option<Setting>, sqlx::Error> {
    Ok(match setting_type {
        SettingType::Text => from_column(setting_type, None, row.try_get_unchecked(index)?),
        _ => from_column(setting_type, row.try_get_unchecked(index)?, None),
    })
}

fn json(value: SettingRef<'_>) -> Value {
    match value {
        SettingRef::Bool(value) => u8::from(value).into(),
        SettingRef::Int(value) => value.into(),
        SettingRef::Text(text) => text.into(),
    }
}

impl SqliteFlight<'_> {
    /// Changes what is set of those that have a row, and makes rows of those that have none. In this order an AUTOINCREMENT of
    /// the table gives a number to new rows only.
    pub(super) async fn store_settings(&mut self, plan: &Plan, rows: &[&Row]) -> Result<Effect, sqlx::Error> {
        let (changes, mut dead) = changes(&plan.table, &settings(rows));
        if changes.is_empty() {
            return Ok(Effect { dead, ..Effect::default() });
        }
        let all = changes.len() as u64;
        let values = |change: &Changed<'_>| change.values.iter().map(|value| value.map_or(Value::Null, json)).collect();
        let mut updated = self.change_settings(plan, &plan.statements.update, &changes, values).await?;
        let mut inserted = 0;
        if updated < all {
            let filled = |change: &Changed<'_>| change.filled(&plan.table).into_iter().map(json).collect();
            inserted = self.change_settings(plan, &plan.statements.insert, &changes, filled).await?;
            if updated + inserted < all {
                // This engine has one writer at a time: something discards what is written.
                let met = self.change_settings(plan, &plan.statements.update, &changes, values).await?;
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

    /// Runs one of both statements; the rows that it met. `values`: of a change.
    async fn change_settings(
        &mut self,
        plan: &Plan,
        text: &Arc<str>,
        changes: &[Changed<'_>],
        values: impl Fn(&Changed<'_>) -> Vec<Value>,
    ) -> Result<u64, sqlx::Error> {
        self.statements += 1;
        let member = |change: &Changed<'_>| vec![json_id(change.member, plan.forms.member)];
        let rows: Vec<Value> =
            changes.iter().map(|change| Value::from([member(change), values(change)].concat())).collect();
        let query = sqlx::query(AssertSqlSafe(Arc::clone(text))).bind(Value::from(rows).to_string());
        Ok(query.execute(&mut *self.connection).await?.rows_affected())
    }

    /// What makes every insert fail, or what is prepared wrong.
    pub(super) async fn settings_misfit(&mut self, plan: &Plan) -> Result<Option<String>, sqlx::Error> {
        let (own, members) = read_tables(self.connection, &plan.table).await?;
        let changed = changed(&plan.forms, forms(&SqliteWords, &plan.table, own.as_ref(), members.as_ref()));
        Ok(changed.or_else(|| misfit(&SqliteWords, &plan.table, own.as_ref())))
    }
}
