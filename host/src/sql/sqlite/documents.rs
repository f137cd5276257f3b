//! Documents: the plan of their tables, how they are inserted with what is nested in them, and how they are read.

use std::sync::Arc;

use serde_json::Value;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _, TypeInfo as _, ValueRef as _};
use uuid::Uuid;

use super::SqliteSql;
use super::catalogue::{read_facts, read_leading};
use super::read::{bind_id, json_ids, json_time, read_id, read_optional_id};
use super::statements::documents::Statements;
use super::statements::words::SqliteWords;
use super::write::SqliteFlight;
use crate::config::IngestTable;
use crate::model::Id;
use crate::sql::documents::{
    ChildRead, DOCUMENTS_PER_LOAD, Forms, OwnRead, Sheet, Slot, SlotForm, assemble, fill, parts,
};
use crate::sql::effect::{Asked, all_met};
use crate::sql::facts::ingest::{check, forms, misfit};
use crate::sql::facts::{Facts, Known, Words, changed, look};
use crate::sql::flight::Effect;
use crate::sql::lease::leased;
use crate::sql::rows::{check_types, documents, page_end, signed, unsigned};
use crate::sql::values::{Given, ValueForm, taken};
use crate::sql::{Finding, Row, SqlError, StoredDocument};

/// What is prepared per kind.
pub(super) struct Plan {
    /// Its tables.
    pub table: IngestTable,
    /// The forms of their columns.
    pub forms: Forms,
    /// Its statements.
    pub statements: Statements,
}

/// The table of the documents, and those of what is nested in them.
async fn read_tables(
    connection: &mut SqliteConnection,
    table: &IngestTable,
) -> Result<(Option<Facts>, Vec<Option<Facts>>), sqlx::Error> {
    let mut tables = Vec::with_capacity(1 + table.children.len());
    for name in [&table.name].into_iter().chain(table.children.iter().map(|child| &child.name)) {
        let mut facts = read_facts(connection, name).await?;
        if let Some(facts) = &mut facts {
            facts.leading = read_leading(connection, name).await?;
        }
        tables.push(facts);
    }
    let children = tables.split_off(1);
    Ok((tables.pop().flatten(), children))
}

impl SqliteSql {
    /// What is prepared for the tables, prepared now if need be.
    pub(super) async fn document_plan(&self, table: &IngestTable) -> Result<Arc<Plan>, SqlError> {
        if let Some(plan) = self.ingests.get(table) {
            return Ok(plan);
        }
        let (own, children) = leased!(self.lease().await?, |connection| read_tables(connection, table))?;
        let forms = forms(&SqliteWords, table, own.as_ref(), &children)?;
        let statements = Statements::new(table, &forms);
        Ok(self.ingests.put(table, Plan { table: table.clone(), forms, statements }))
    }

    /// See [`crate::sql::Sql::check_table`].
    pub(super) async fn check_documents(&self, table: &IngestTable) -> Result<Vec<Finding>, SqlError> {
        self.ingests.forget(table);
        let (mut own, mut children) = leased!(self.lease().await?, |connection| read_tables(connection, table))?;
        look::ingest(self, &SqliteWords, table, &mut own, &mut children).await?;
        let known = Known::Listed(&self.settings.acknowledged);
        Ok(check(&SqliteWords, table, own.as_ref(), &children, known))
    }

    /// See [`crate::sql::Sql::load_documents`].
    pub(super) async fn documents(
        &self,
        table: &IngestTable,
        ids: &[Id],
    ) -> Result<Vec<Option<StoredDocument>>, SqlError> {
        check_types(&table.name, (table.id_type, table.actor_type), ids, [])?;
        let plan = self.document_plan(table).await?;
        let mut found = Vec::with_capacity(ids.len());
        for part in ids.chunks(DOCUMENTS_PER_LOAD) {
            let read = leased!(self.lease().await?, |connection| read_documents(connection, &plan, part));
            found.extend(self.ingests.heed(table, read)?);
        }
        Ok(found)
    }

    /// See [`crate::sql::Sql::documents_of`].
    pub(super) async fn documents_page(
        &self,
        table: &IngestTable,
        actor: &Id,
        before: Option<&StoredDocument>,
        limit: usize,
    ) -> Result<Vec<StoredDocument>, SqlError> {
        let types = (table.id_type, table.actor_type);
        check_types(&table.name, types, before.map(|document| &document.id), [actor])?;
        if table.actor_column.is_none() || limit == 0 {
            return Ok(Vec::new());
        }
        let plan = self.document_plan(table).await?;
        let ids = leased!(self.lease().await?, |connection| page(connection, &plan, actor, before, limit));
        let ids = self.ingests.heed(table, ids)?;
        Ok(self.documents(table, &ids).await?.into_iter().flatten().collect())
    }
}

impl SqliteFlight<'_> {
    /// Inserts documents with all that is nested in them.
    pub(super) async fn insert_documents(&mut self, plan: &Plan, rows: &[&Row]) -> Result<Effect, sqlx::Error> {
        let rows = documents(rows);
        let mut effect = Effect::default();
        let mut start = 0;
        for part in parts(&rows) {
            let (filled, dead) = fill(&plan.table, &plan.forms, part, SqliteWords::NUL);
            effect.inserted += filled.own.len() as u64;
            effect.dead.extend(dead.into_iter().map(|(index, reason)| (start + index, reason)));
            start += part.len();
            self.insert_sheet(&plan.statements.insert, &plan.forms.own, filled.own).await?;
            let sheets = plan.statements.insert_children.iter().zip(&plan.forms.children);
            for ((text, sheet), rows) in sheets.zip(filled.children) {
                self.insert_sheet(text, sheet, rows).await?;
            }
        }
        Ok(effect)
    }

    async fn insert_sheet(&mut self, text: &Arc<str>, sheet: &Sheet, rows: Vec<Vec<Given>>) -> Result<(), sqlx::Error> {
        if rows.is_empty() {
            return Ok(());
        }
        self.statements += 1;
        let given = rows.len();
        let list: Vec<Value> = rows.into_iter().map(|row| record(sheet, row)).collect();
        let query = sqlx::query(AssertSqlSafe(Arc::clone(text))).bind(Value::from(list).to_string());
        let met = query.execute(&mut *self.connection).await?.rows_affected();
        all_met(Asked::Insert, &sheet.table, met, given)
    }

    /// What makes every insert fail, or what is prepared wrong.
    pub(super) async fn documents_misfit(&mut self, plan: &Plan) -> Result<Option<String>, sqlx::Error> {
        let (own, children) = read_tables(self.connection, &plan.table).await?;
        let changed = changed(&plan.forms, forms(&SqliteWords, &plan.table, own.as_ref(), &children));
        Ok(changed.or_else(|| misfit(&SqliteWords, &plan.table, own.as_ref(), &children)))
    }
}

/// A row as an array, in the order of the sheet's columns.
fn record(sheet: &Sheet, row: Vec<Given>) -> Value {
    let value = |(given, slot): (Given, &Slot)| match (given, slot.form) {
        (Given::Null, _) => Value::Null,
        (Given::Integer(value), _) => value.into(),
        (Given::Unsigned(value), _) => value.into(),
        (Given::Real(value), _) => value.into(),
        (Given::Boolean(value), _) => value.into(),
        (Given::Text(text), _) => text.into(),
        (Given::Uuid(uuid), _) => uuid.simple().to_string().into(),
        (Given::Json(value), _) => value.to_string().into(),
        (Given::Time(at_ms), SlotForm::Time(form)) => json_time(at_ms, form),
        (Given::Time(at_ms), _) => signed(at_ms).into(),
    };
    row.into_iter().zip(&sheet.slots).map(value).collect()
}

async fn read_documents(
    connection: &mut SqliteConnection,
    plan: &Plan,
    ids: &[Id],
) -> Result<Vec<Option<StoredDocument>>, sqlx::Error> {
    let forms = &plan.forms;
    let query = sqlx::query(AssertSqlSafe(plan.statements.documents.clone()));
    let rows = query.bind(json_ids(ids, forms.id)).fetch_all(&mut *connection).await?;
    let own = rows.iter().map(|row| -> Result<OwnRead, sqlx::Error> {
        let actor = match forms.actor {
            None => None,
            Some(form) => read_optional_id(row, 1, form)?,
        };
        let at_ms = forms.created.map(|_| row.try_get_unchecked(2).map(unsigned)).transpose()?;
        Ok((read_id(row, 0, forms.id)?, actor, at_ms, read_fields(row, &forms.own, 3)?))
    });
    let own: Vec<OwnRead> = own.collect::<Result<_, _>>()?;
    let mut children = Vec::with_capacity(forms.children.len());
    for (text, sheet) in plan.statements.children.iter().zip(&forms.children) {
        let Some(SlotForm::Id(form)) = sheet.slots.first().map(|slot| slot.form) else { continue };
        let query = sqlx::query(AssertSqlSafe(Arc::clone(text)));
        let rows = query.bind(json_ids(ids, form)).fetch_all(&mut *connection).await?;
        let read = |row: &SqliteRow| Ok((read_id(row, 0, form)?, read_fields(row, sheet, 1)?));
        children.push(rows.iter().map(read).collect::<Result<Vec<ChildRead>, sqlx::Error>>()?);
    }
    Ok(assemble(&plan.table, ids, own, children))
}

/// The fields, which begin at the column `from`. A value has a type of its own, whatever its column was declared as.
fn read_fields(row: &SqliteRow, sheet: &Sheet, from: usize) -> Result<Vec<Value>, sqlx::Error> {
    let read = |(index, (_, form)): (usize, (&Slot, ValueForm))| {
        let index = from + index;
        let raw = row.try_get_raw(index)?;
        if raw.is_null() {
            return Ok(Value::Null);
        }
        match (raw.type_info().name(), form) {
            ("INTEGER", ValueForm::Boolean) => Ok(taken(form, row.try_get_unchecked::<i64, _>(index)?.to_string())),
            ("INTEGER", _) => row.try_get_unchecked::<i64, _>(index).map(Value::from),
            ("REAL", _) => row.try_get_unchecked::<f64, _>(index).map(Value::from),
            ("BLOB", _) => {
                let bytes: Vec<u8> = row.try_get_unchecked(index)?;
                Ok(Uuid::from_slice(&bytes).map_or(Value::Null, |uuid| uuid.to_string().into()))
            }
            _ => Ok(taken(form, row.try_get_unchecked(index)?)),
        }
    };
    sheet.fields().enumerate().map(read).collect()
}

/// Ids of a page, newest first. Where an index can tell how far back the page reaches, only so much is read.
async fn page(
    connection: &mut SqliteConnection,
    plan: &Plan,
    actor: &Id,
    before: Option<&StoredDocument>,
    limit: usize,
) -> Result<Vec<Id>, sqlx::Error> {
    let Some(form) = plan.forms.actor else { return Ok(Vec::new()) };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let since_ms = before.map(|document| document.at_ms.unwrap_or(0));
    let end_ms = page_end(since_ms);
    let one_actor = |text: &Arc<str>| bind_id(sqlx::query(AssertSqlSafe(Arc::clone(text))), form, Some(actor));
    let mut start: Option<i64> = None;
    if !plan.statements.page_start.is_empty() {
        let query = one_actor(&plan.statements.page_start).bind(signed(end_ms)).bind(limit - 1);
        let row = query.fetch_optional(&mut *connection).await?;
        start = row.map(|row| row.try_get_unchecked(0)).transpose()?;
    }
    let text = if start.is_some() { &plan.statements.page_within } else { &plan.statements.page };
    let query = one_actor(text).bind(since_ms.map(signed));
    let mut query = bind_id(query, plan.forms.id, before.map(|document| &document.id)).bind(limit);
    if let Some(start) = start {
        query = query.bind(start).bind(signed(end_ms.saturating_add(1)));
    }
    let rows = query.fetch_all(&mut *connection).await?;
    rows.iter().map(|row| read_id(row, 0, plan.forms.id)).collect()
}
