//! Settings of members: the plan of their tables, how they are read and stored.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::Row as _;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::catalogue::{read_facts, read_surroundings};
use super::read::{bind_id, bind_ids, kept, padded, pieces, read_id};
use super::statements::settings::Statements;
use super::statements::words::MysqlWords;
use super::write::MysqlFlight;
use super::{CHUNK, MysqlSql};
use crate::config::PreferenceTable;
use crate::model::{Id, Setting, SettingType, Settings};
use crate::sql::effect::{Asked, all_met};
use crate::sql::facts::preference::{Forms, check, forms, misfit};
use crate::sql::facts::{Facts, Known, changed, look};
use crate::sql::flight::Effect;
use crate::sql::lease::leased;
use crate::sql::rows::{check_types, settings};
use crate::sql::settings::{Changed, as_text, changes, from_column, in_order, packed};
use crate::sql::{Finding, Row, SqlError};

/// Placeholders of one statement; the protocol has room for twice as many.
const PLACEHOLDERS_MAX: usize = 32_768;

/// What is prepared per kind.
pub(super) struct Plan {
    /// Its tables.
    pub table: PreferenceTable,
    /// The forms of their columns.
    pub forms: Forms,
    /// Its statements.
    pub statements: Statements,
}

impl Plan {
    /// Members of one write: a power of two.
    fn members_per_write(&self) -> usize {
        let fit = PLACEHOLDERS_MAX / (2 * self.table.fields.len() + 1);
        CHUNK.min(1 << fit.max(1).ilog2())
    }
}

/// The table of the settings, and that of the members.
async fn read_tables(
    connection: &mut MySqlConnection,
    words: MysqlWords,
    table: &PreferenceTable,
) -> Result<(Option<Facts>, Option<Facts>), sqlx::Error> {
    let own = read_facts(connection, words, &table.name).await?;
    let members = match &table.members {
        None => None,
        Some(members) => read_facts(connection, words, &members.name).await?,
    };
    Ok((own, members))
}

impl MysqlSql {
    async fn read_preference(&self, table: &PreferenceTable) -> Result<(Option<Facts>, Option<Facts>), SqlError> {
        let lease = self.lease().await?;
        let words = self.words();
        leased!(lease, |connection| read_tables(connection, words, table))
    }

    /// What is prepared for the tables, prepared now if need be.
    pub(super) async fn settings_plan(&self, table: &PreferenceTable) -> Result<Arc<Plan>, SqlError> {
        if let Some(plan) = self.preferences.get(table) {
            return Ok(plan);
        }
        let (own, members) = self.read_preference(table).await?;
        let forms = forms(&self.words(), table, own.as_ref(), members.as_ref())?;
        let statements = Statements::new(table, &forms);
        Ok(self.preferences.put(table, Plan { table: table.clone(), forms, statements }))
    }

    /// See [`crate::sql::Sql::check_table`].
    pub(super) async fn check_settings(&self, table: &PreferenceTable) -> Result<Vec<Finding>, SqlError> {
        self.preferences.forget(table);
        let lease = self.lease().await?;
        let words = self.words();
        let (mut own, mut members) = leased!(lease, |connection| async {
            let (mut own, mut members) = read_tables(connection, words, table).await?;
            read_surroundings(connection, words, &table.name, own.as_mut()).await?;
            if let Some(given) = &table.members {
                read_surroundings(connection, words, &given.name, members.as_mut()).await?;
            }
            Ok((own, members))
        })?;
        look::preference(self, &words, table, &mut own, &mut members).await?;
        let known = Known::Listed(&self.settings.acknowledged);
        Ok(check(&words, table, own.as_ref(), members.as_ref(), known))
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
        for part in members.chunks(CHUNK) {
            let read = leased!(self.lease().await?, |connection| read_settings(connection, &plan, part));
            loaded.extend(self.preferences.heed(table, read)?);
        }
        Ok(loaded)
    }
}

async fn read_settings(
    connection: &mut MySqlConnection,
    plan: &Plan,
    members: &[Id],
) -> Result<Vec<Option<Settings>>, sqlx::Error> {
    let list = padded(members);
    let there = match (plan.forms.key, plan.statements.members(list.len())) {
        (Some(key), Some(text)) => {
            let rows = bind_ids(kept(text), key, list.clone()).fetch_all(&mut *connection).await?;
            Some(rows.iter().map(|row| read_id(row, 0, key)).collect::<Result<HashSet<Id>, _>>()?)
        }
        _ => None,
    };
    let query = bind_ids(kept(plan.statements.settings(list.len())), plan.forms.member, list);
    let rows = query.fetch_all(&mut *connection).await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in &rows {
        let fields = plan.table.fields.iter().enumerate();
        let values = fields.map(|(index, field)| read_setting(row, index + 1, field.field_type));
        let values = values.collect::<Result<Vec<_>, sqlx::Error>>()?;
        found.insert(read_id(row, 0, plan.forms.member)?, packed(&plan.table, &values));
    }
    Ok(in_order(members, &found, there.as_ref()))
}

fn read_setting(row: &MySqlRow, index: usize, setting_type: SettingType) -> Result<Option<Setting>, sqlx::Error> {
    Ok(match setting_type {
        SettingType::Text => from_column(setting_type, None, row.try_get_unchecked(index)?),
        _ => from_column(setting_type, row.try_get_unchecked(index)?, None),
    })
}

impl MysqlFlight<'_> {
    /// Makes rows of members that have none, and changes what is set of the others. Which these are is read under lock
    /// first: an upsert of this engine takes a conflict in *any* unique key for the row's own, and says nothing.
    pub(super) async fn store_settings(&mut self, plan: &Plan, rows: &[&Row]) -> Result<Effect, sqlx::Error> {
        let (changes, dead) = changes(&plan.table, &settings(rows));
        let most = plan.members_per_write();
        let mut effect = Effect { dead, ..Effect::default() };
        for part in changes.chunks(most) {
            let there = self.lock_settings(plan, part).await?;
            let (known, new): (Vec<_>, Vec<_>) = part.iter().partition(|change| there.contains(change.member));
            for piece in pieces(&new, most) {
                self.insert_settings(plan, piece).await?;
            }
            if !known.is_empty() {
                self.update_settings(plan, &known).await?;
            }
            effect.inserted += new.len() as u64;
            effect.updated += known.len() as u64;
        }
        Ok(effect)
    }

    /// Locks the rows of members, and says who has one. Compared exactly, as pairs of toggles are.
    async fn lock_settings(&mut self, plan: &Plan, part: &[Changed<'_>]) -> Result<HashSet<Id>, sqlx::Error> {
        self.statements += 1;
        let list = padded(part);
        let query = kept(self.locking(plan.statements.lock(list.len())));
        let query = bind_ids(query, plan.forms.member, list.map(|change| change.member));
        let rows = query.fetch_all(&mut *self.connection).await?;
        rows.iter().map(|row| read_id(row, 0, plan.forms.member)).collect()
    }

    /// A plain INSERT: the values that are set, and the defaults of the others. Should another session have made one of the
    /// rows meanwhile, the unique key says so, and the search for the bad row finds it there.
    async fn insert_settings(&mut self, plan: &Plan, part: &[&Changed<'_>]) -> Result<(), sqlx::Error> {
        self.statements += 1;
        let mut query = kept(plan.statements.insert(part.len()));
        for change in part {
            query = bind_id(query, plan.forms.member, change.member);
            for (value, form) in change.filled(&plan.table).into_iter().zip(&plan.forms.fields) {
                query = query.bind(as_text(*form, value));
            }
        }
        let met = query.execute(&mut *self.connection).await?.rows_affected();
        all_met(Asked::Insert, &plan.table.name, met, part.len())
    }

    async fn update_settings(&mut self, plan: &Plan, part: &[&Changed<'_>]) -> Result<(), sqlx::Error> {
        self.statements += 1;
        let list = padded(part);
        let mut query = kept(plan.statements.update(list.len()));
        for (field, form) in plan.forms.fields.iter().enumerate() {
            for change in list.clone() {
                query = bind_id(query, plan.forms.member, change.member);
                query = query.bind(change.values[field].map(|value| as_text(*form, value)));
            }
        }
        query = bind_ids(query, plan.forms.member, list.map(|change| change.member));
        let met = query.execute(&mut *self.connection).await?.rows_affected();
        all_met(Asked::Update, &plan.table.name, met, part.len())
    }

    /// What makes every insert fail, or what is prepared wrong.
    pub(super) async fn settings_misfit(&mut self, plan: &Plan) -> Result<Option<String>, sqlx::Error> {
        let (own, members) = read_tables(self.connection, self.words, &plan.table).await?;
        let changed = changed(&plan.forms, forms(&self.words, &plan.table, own.as_ref(), members.as_ref()));
        Ok(changed.or_else(|| misfit(&self.words, &plan.table, own.as_ref())))
    }
}
