//! Documents: the plan of their tables, how they are inserted with what is nested in them, and how they are read.

use std::sync::Arc;

use serde_json::Value;
use sqlx::Row as _;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::catalogue::{number, read_facts, read_json_columns, read_leading, read_surroundings};
use super::read::{
    MysqlQuery, bind_id, bind_ids, bind_time, kept, order_text, padded, pieces, read_id, read_optional_id,
};
use super::statements::documents::{SheetStatements, Statements};
use super::statements::words::MysqlWords;
use super::write::MysqlFlight;
use super::{CHUNK, MysqlSql};
use crate::config::IngestTable;
use crate::model::Id;
use crate::sql::documents::{ChildRead, DOCUMENTS_PER_LOAD, Forms, OwnRead, Sheet, SlotForm, assemble, fill, parts};
use crate::sql::effect::{Asked, all_met};
use crate::sql::facts::ingest::{check, forms, misfit};
use crate::sql::facts::{Facts, Holds, Known, TimeForm, Words, changed, look};
use crate::sql::flight::Effect;
use crate::sql::lease::leased;
use crate::sql::rows::{check_types, documents, page_end, signed, unsigned};
use crate::sql::values::{Given, ValueForm, taken};
use crate::sql::{Finding, Row, SqlError, StoredDocument};

/// Parameters of one statement.
const PARAMETERS_MAX: usize = 65_535;

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
    connection: &mut MySqlConnection,
    words: MysqlWords,
    table: &IngestTable,
) -> Result<(Option<Facts>, Vec<Option<Facts>>), sqlx::Error> {
    let mut tables = Vec::with_capacity(1 + table.children.len());
    for name in [&table.name].into_iter().chain(table.children.iter().map(|child| &child.name)) {
        let mut facts = read_facts(connection, words, name).await?;
        if let Some(facts) = &mut facts {
            facts.leading = read_leading(connection, name).await?;
            let json = read_json_columns(connection, words, name).await?;
            for column in facts.columns.iter_mut().filter(|column| json.contains(&column.name)) {
                column.holds = Holds::Json;
            }
        }
        tables.push(facts);
    }
    let children = tables.split_off(1);
    Ok((tables.pop().flatten(), children))
}

impl MysqlSql {
    async fn read_document_tables(&self, table: &IngestTable) -> Result<(Option<Facts>, Vec<Option<Facts>>), SqlError> {
        let lease = self.lease().await?;
        let words = self.words();
        leased!(lease, |connection| read_tables(connection, words, table))
    }

    /// What is prepared for the tables, prepared now if need be.
    pub(super) async fn document_plan(&self, table: &IngestTable) -> Result<Arc<Plan>, SqlError> {
        if let Some(plan) = self.ingests.get(table) {
            return Ok(plan);
        }
        let (own, children) = self.read_document_tables(table).await?;
        let forms = forms(&self.words(), table, own.as_ref(), &children)?;
        let statements = Statements::new(table, &forms);
        Ok(self.ingests.put(table, Plan { table: table.clone(), forms, statements }))
    }

    /// See [`crate::sql::Sql::check_table`].
    pub(super) async fn check_documents(&self, table: &IngestTable) -> Result<Vec<Finding>, SqlError> {
        self.ingests.forget(table);
        let lease = self.lease().await?;
        let words = self.words();
        let (mut own, mut children) = leased!(lease, |connection| async {
            let (mut own, mut children) = read_tables(connection, words, table).await?;
            read_surroundings(connection, words, &table.name, own.as_mut()).await?;
            for (child, facts) in table.children.iter().zip(&mut children) {
                read_surroundings(connection, words, &child.name, facts.as_mut()).await?;
            }
            Ok((own, children))
        })?;
        look::ingest(self, &words, table, &mut own, &mut children).await?;
        let known = Known::Listed(&self.settings.acknowledged);
        Ok(check(&words, table, own.as_ref(), &children, known))
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

impl MysqlFlight<'_> {
    /// Inserts documents with all that is nested in them.
    pub(super) async fn insert_documents(&mut self, plan: &Plan, rows: &[&Row]) -> Result<Effect, sqlx::Error> {
        let rows = documents(rows);
        let mut effect = Effect::default();
        let mut start = 0;
        for part in parts(&rows) {
            let (filled, dead) = fill(&plan.table, &plan.forms, part, MysqlWords::NUL);
            effect.inserted += filled.own.len() as u64;
            effect.dead.extend(dead.into_iter().map(|(index, reason)| (start + index, reason)));
            start += part.len();
            self.insert_sheet(&plan.statements.own, &plan.forms.own, &filled.own).await?;
            let sheets = plan.statements.children.iter().zip(&plan.forms.children);
            for ((statements, sheet), rows) in sheets.zip(&filled.children) {
                self.insert_sheet(statements, sheet, rows).await?;
            }
        }
        Ok(effect)
    }

    async fn insert_sheet(
        &mut self,
        statements: &SheetStatements,
        sheet: &Sheet,
        rows: &[Vec<Given>],
    ) -> Result<(), sqlx::Error> {
        for part in pieces(rows, rows_max(sheet.slots.len())) {
            self.statements += 1;
            let mut query = kept(statements.insert(part.len()));
            for row in part {
                query = row.iter().zip(&sheet.slots).fold(query, |query, (given, slot)| bind(query, given, slot.form));
            }
            let met = query.execute(&mut *self.connection).await?.rows_affected();
            all_met(Asked::Insert, &sheet.table, met, part.len())?;
        }
        Ok(())
    }

    /// What makes every insert fail, or what is prepared wrong.
    pub(super) async fn documents_misfit(&mut self, plan: &Plan) -> Result<Option<String>, sqlx::Error> {
        let (own, children) = read_tables(self.connection, self.words, &plan.table).await?;
        let changed = changed(&plan.forms, forms(&self.words, &plan.table, own.as_ref(), &children));
        Ok(changed.or_else(|| misfit(&self.words, &plan.table, own.as_ref(), &children)))
    }
}

/// Rows of one statement, a power of two, each with so many parameters.
fn rows_max(columns: usize) -> usize {
    let most = (PARAMETERS_MAX / columns.max(1)).max(1);
    CHUNK.min(1 << most.ilog2())
}

fn bind<'q>(query: MysqlQuery<'q>, given: &Given, form: SlotForm) -> MysqlQuery<'q> {
    let is_native = form == SlotForm::Value(ValueForm::Native);
    match given {
        Given::Null => query.bind(None::<String>),
        // A type that takes no numbers says that it is the column's fault; of a text it is the text's.
        Given::Integer(value) if is_native => query.bind(value.to_string()),
        Given::Unsigned(value) if is_native => query.bind(value.to_string()),
        Given::Boolean(value) if is_native => query.bind(u8::from(*value).to_string()),
        Given::Integer(value) => query.bind(*value),
        Given::Unsigned(value) => query.bind(*value),
        // As text, which decimals take exactly.
        Given::Real(value) => query.bind(Value::from(*value).to_string()),
        Given::Boolean(value) => query.bind(i64::from(*value)),
        Given::Text(text) => query.bind(text.clone()),
        Given::Uuid(uuid) => query.bind(*uuid),
        Given::Json(value) => query.bind(value.to_string()),
        Given::Time(at_ms) => match form {
            SlotForm::Time(form) => bind_time(query, form, *at_ms),
            _ => query.bind(signed(*at_ms)),
        },
    }
}

async fn read_documents(
    connection: &mut MySqlConnection,
    plan: &Plan,
    ids: &[Id],
) -> Result<Vec<Option<StoredDocument>>, sqlx::Error> {
    let forms = &plan.forms;
    let list = padded(ids);
    let query = bind_ids(kept(plan.statements.own.select(list.len())), forms.id, list.clone());
    let rows = query.fetch_all(&mut *connection).await?;
    let own = rows.iter().map(|row| -> Result<OwnRead, sqlx::Error> {
        let actor = match forms.actor {
            None => None,
            Some(form) => read_optional_id(row, 1, form)?,
        };
        let at_ms = forms.created.map(|_| number(row, 2).map(unsigned)).transpose()?;
        Ok((read_id(row, 0, forms.id)?, actor, at_ms, read_fields(row, &forms.own, 3)?))
    });
    let own: Vec<OwnRead> = own.collect::<Result<_, _>>()?;
    let mut children = Vec::with_capacity(forms.children.len());
    for (statements, sheet) in plan.statements.children.iter().zip(&forms.children) {
        let Some(SlotForm::Id(form)) = sheet.slots.first().map(|slot| slot.form) else { continue };
        let query = bind_ids(kept(statements.select(list.len())), form, list.clone());
        let rows = query.fetch_all(&mut *connection).await?;
        let read = |row: &MySqlRow| Ok((read_id(row, 0, form)?, read_fields(row, sheet, 1)?));
        children.push(rows.iter().map(read).collect::<Result<Vec<ChildRead>, sqlx::Error>>()?);
    }
    Ok(assemble(&plan.table, ids, own, children))
}

/// The fields, which begin at the column `from`.
fn read_fields(row: &MySqlRow, sheet: &Sheet, from: usize) -> Result<Vec<Value>, sqlx::Error> {
    let read = |(index, (_, form))| {
        let text: Option<String> = row.try_get_unchecked(from + index)?;
        Ok(text.map_or(Value::Null, |text| taken(form, text)))
    };
    sheet.fields().enumerate().map(read).collect()
}

/// Ids of a page, newest first. Where an index can tell how far back the page reaches, only so much is read.
async fn page(
    connection: &mut MySqlConnection,
    plan: &Plan,
    actor: &Id,
    before: Option<&StoredDocument>,
    limit: usize,
) -> Result<Vec<Id>, sqlx::Error> {
    let Some(form) = plan.forms.actor else { return Ok(Vec::new()) };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let since_ms = before.map(|document| document.at_ms.unwrap_or(0));
    let end_ms = page_end(since_ms);
    // Text has no certain order.
    let created = plan.forms.created.filter(|form| *form != TimeForm::Iso);
    let mut within = None;
    if let (Some(created), Some(text)) = (created, plan.statements.page_start()) {
        let query = bind_time(bind_id(kept(text), form, actor), created, end_ms).bind(limit - 1);
        let row = query.fetch_optional(&mut *connection).await?;
        let start = row.map(|row| number(&row, 0)).transpose()?;
        within = start.map(|start| (created, unsigned(start)));
    }
    let Some(text) = plan.statements.page(within.is_some()) else { return Ok(Vec::new()) };
    let mut query = bind_id(kept(text), form, actor);
    if let Some((created, start)) = within {
        query = bind_time(query, created, start);
        // One second on where the column holds no less: a time that is cut down must stay above all that it means.
        query = bind_time(query, created, end_ms.saturating_add(1_000));
    }
    let since = since_ms.map(signed);
    let query = query.bind(since).bind(since).bind(since);
    let query = match before.map(|document| &document.id) {
        Some(Id::Int(id)) => query.bind(*id),
        last => query.bind(last.map(|id| order_text(plan.forms.id, id))),
    };
    let rows = query.bind(limit).fetch_all(&mut *connection).await?;
    rows.iter().map(|row| read_id(row, 0, plan.forms.id)).collect()
}
