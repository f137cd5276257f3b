//! Documents: the plan of their tables, how they are inserted with what is nested in them, and how they are read.

use std::sync::Arc;

use serde_json::{Map, Value};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::PostgresSql;
use super::catalogue::{read_facts, read_leading, read_surroundings};
use super::read::{bind_ids, read_id, read_optional_id};
use super::statements::documents::Statements;
use super::statements::words::PostgresWords;
use super::write::PostgresFlight;
use crate::config::IngestTable;
use crate::model::Id;
use crate::sql::documents::{ChildRead, DOCUMENTS_PER_LOAD, Forms, OwnRead, Sheet, SlotForm, assemble, fill, parts};
use crate::sql::effect::{Asked, all_met};
use crate::sql::facts::ingest::{check, forms, misfit};
use crate::sql::facts::{Facts, Known, TimeForm, Words, changed, look};
use crate::sql::flight::Effect;
use crate::sql::lease::leased;
use crate::sql::rows::{check_types, cut_down, documents, page_end, signed, time_text, unsigned};
use crate::sql::values::{Given, ValueForm, from_utc};
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
    connection: &mut PgConnection,
    table: &IngestTable,
) -> Result<(Option<Facts>, Vec<Option<Facts>>), sqlx::Error> {
    let mut tables = Vec::with_capacity(1 + table.children.len());
    for name in [&table.name].into_iter().chain(table.children.iter().map(|child| &child.name)) {
        let mut facts = read_facts(connection, name, &["SELECT", "INSERT"]).await?;
        if let Some(facts) = &mut facts {
            facts.leading = read_leading(connection, name).await?;
        }
        tables.push(facts);
    }
    let children = tables.split_off(1);
    Ok((tables.pop().flatten(), children))
}

impl PostgresSql {
    /// What is prepared for the tables, prepared now if need be.
    pub(super) async fn document_plan(&self, table: &IngestTable) -> Result<Arc<Plan>, SqlError> {
        if let Some(plan) = self.ingests.get(table) {
            return Ok(plan);
        }
        let (own, children) = leased!(self.lease().await?, |connection| read_tables(connection, table))?;
        let forms = forms(&PostgresWords, table, own.as_ref(), &children)?;
        let statements = Statements::new(table, &forms);
        Ok(self.ingests.put(table, Plan { table: table.clone(), forms, statements }))
    }

    /// See [`crate::sql::Sql::check_table`].
    pub(super) async fn check_documents(&self, table: &IngestTable) -> Result<Vec<Finding>, SqlError> {
        self.ingests.forget(table);
        let (mut own, mut children) = leased!(self.lease().await?, |connection| async {
            let (mut own, mut children) = read_tables(connection, table).await?;
            read_surroundings(connection, &table.name, own.as_mut()).await?;
            for (child, facts) in table.children.iter().zip(&mut children) {
                read_surroundings(connection, &child.name, facts.as_mut()).await?;
            }
            Ok((own, children))
        })?;
        look::ingest(self, &PostgresWords, table, &mut own, &mut children).await?;
        let known = Known::Listed(&self.settings.acknowledged);
        Ok(check(&PostgresWords, table, own.as_ref(), &children, known))
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

impl PostgresFlight<'_> {
    /// Inserts documents with all that is nested in them.
    pub(super) async fn insert_documents(&mut self, plan: &Plan, rows: &[&Row]) -> Result<Effect, sqlx::Error> {
        let rows = documents(rows);
        let mut effect = Effect::default();
        let mut start = 0;
        for part in parts(&rows) {
            let (filled, dead) = fill(&plan.table, &plan.forms, part, PostgresWords::NUL);
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
        let list: Vec<Value> = rows.into_iter().map(|row| Value::Object(record(sheet, row))).collect();
        let query = sqlx::query(AssertSqlSafe(Arc::clone(text))).bind(Value::from(list).to_string());
        let met = query.execute(&mut *self.connection).await?.rows_affected();
        all_met(Asked::Insert, &sheet.table, met, given)
    }

    /// What makes every insert fail, or what is prepared wrong.
    pub(super) async fn documents_misfit(&mut self, plan: &Plan) -> Result<Option<String>, sqlx::Error> {
        let (own, children) = read_tables(self.connection, &plan.table).await?;
        let changed = changed(&plan.forms, forms(&PostgresWords, &plan.table, own.as_ref(), &children));
        Ok(changed.or_else(|| misfit(&PostgresWords, &plan.table, own.as_ref(), &children)))
    }
}

/// A row, keyed by the places of the sheet's columns. NULLs are left out.
fn record(sheet: &Sheet, row: Vec<Given>) -> Map<String, Value> {
    let value = |given, form| match (given, form) {
        (Given::Null, _) => None,
        (Given::Integer(value), _) => Some(value.into()),
        (Given::Unsigned(value), _) => Some(value.into()),
        (Given::Real(value), _) => Some(value.into()),
        (Given::Boolean(value), _) => Some(value.into()),
        (Given::Text(text), _) => Some(text.into()),
        (Given::Uuid(uuid), _) => Some(uuid.to_string().into()),
        (Given::Json(value), _) => Some(value),
        (Given::Time(at_ms), SlotForm::Time(TimeForm::Iso)) => Some(time_text(at_ms, true).into()),
        (Given::Time(at_ms), SlotForm::Time(TimeForm::Zoned(digits) | TimeForm::Plain(digits))) => {
            Some(signed(cut_down(at_ms, digits)).into())
        }
        (Given::Time(at_ms), _) => Some(signed(at_ms).into()),
    };
    let cells = row.into_iter().zip(&sheet.slots).enumerate();
    cells.filter_map(|(place, (given, slot))| Some((place.to_string(), value(given, slot.form)?))).collect()
}

async fn read_documents(
    connection: &mut PgConnection,
    plan: &Plan,
    ids: &[Id],
) -> Result<Vec<Option<StoredDocument>>, sqlx::Error> {
    let forms = &plan.forms;
    let query = sqlx::query(AssertSqlSafe(plan.statements.documents.clone()));
    let rows = bind_ids(query, forms.id, ids).fetch_all(&mut *connection).await?;
    let own = rows.iter().map(|row| -> Result<OwnRead, sqlx::Error> {
        let actor = match forms.actor {
            None => None,
            Some(form) => read_optional_id(row, 1, form)?,
        };
        let at_ms = forms.created.map(|_| row.try_get(2).map(unsigned)).transpose()?;
        Ok((read_id(row, 0, forms.id)?, actor, at_ms, read_fields(row, &forms.own, 3)?))
    });
    let own: Vec<OwnRead> = own.collect::<Result<_, _>>()?;
    let mut children = Vec::with_capacity(forms.children.len());
    for (text, sheet) in plan.statements.children.iter().zip(&forms.children) {
        let Some(SlotForm::Id(form)) = sheet.slots.first().map(|slot| slot.form) else { continue };
        let query = sqlx::query(AssertSqlSafe(Arc::clone(text)));
        let rows = bind_ids(query, form, ids).fetch_all(&mut *connection).await?;
        let read = |row: &PgRow| Ok((read_id(row, 0, form)?, read_fields(row, sheet, 1)?));
        children.push(rows.iter().map(read).collect::<Result<Vec<ChildRead>, sqlx::Error>>()?);
    }
    Ok(assemble(&plan.table, ids, own, children))
}

/// The fields, which begin at the column `from`.
fn read_fields(row: &PgRow, sheet: &Sheet, from: usize) -> Result<Vec<Value>, sqlx::Error> {
    let read = |(index, (_, form))| {
        let Some(text) = row.try_get::<Option<String>, _>(from + index)? else { return Ok(Value::Null) };
        let value = serde_json::from_str(&text).map_err(|error| sqlx::Error::Decode(error.into()))?;
        Ok(match (form, value) {
            (ValueForm::Moment, Value::String(text)) => from_utc(&text).into(),
            (_, value) => value,
        })
    };
    sheet.fields().enumerate().map(read).collect()
}

/// Ids of a page, newest first. Where an index can tell how far back the page reaches, only so much is read.
async fn page(
    connection: &mut PgConnection,
    plan: &Plan,
    actor: &Id,
    before: Option<&StoredDocument>,
    limit: usize,
) -> Result<Vec<Id>, sqlx::Error> {
    let Some(form) = plan.forms.actor else { return Ok(Vec::new()) };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let since_ms = before.map(|document| document.at_ms.unwrap_or(0));
    let end_ms = page_end(since_ms);
    let one_actor = |text: &Arc<str>| bind_ids(sqlx::query(AssertSqlSafe(Arc::clone(text))), form, [actor]);
    let mut start: Option<i64> = None;
    if !plan.statements.page_start.is_empty() {
        let query = one_actor(&plan.statements.page_start).bind(signed(end_ms)).bind(limit - 1);
        let row = query.fetch_optional(&mut *connection).await?;
        start = row.map(|row| row.try_get(0)).transpose()?;
    }
    let text = if start.is_some() { &plan.statements.page_within } else { &plan.statements.page };
    let query = one_actor(text).bind(since_ms.map(signed));
    let mut query = bind_ids(query, plan.forms.id, before.map(|document| &document.id)).bind(limit);
    if let Some(start) = start {
        query = query.bind(start).bind(signed(end_ms.saturating_add(1)));
    }
    let rows = query.fetch_all(&mut *connection).await?;
    rows.iter().map(|row| read_id(row, 0, plan.forms.id)).collect()
}
