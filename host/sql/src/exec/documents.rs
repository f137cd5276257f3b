//! Documents: the plan of their tables, how they are inserted with what is nested in them, and how they are read.

use std::sync::Arc;

use serde_json::Value;

use super::flush::{Effect, FlushTransaction};
pub(crate) use crate::documents::Forms;
use crate::documents::{ChildRead, DOCUMENTS_PER_LOAD, OwnRead, Sheet, SlotForm, assemble, fill, parts};
use crate::effect::{WriteOperation, all_met};
use crate::engine::{Backend, Catalogue as _, Engine, Findings, Role, StatementOf};
use crate::introspection::ingest::{check, forms, mismatch};
use crate::introspection::{Dialect as _, Introspection, Known, changed, look};
use crate::lease::leased;
use crate::plans::Plan;
use crate::rows::{check_types, documents, page_end, signed, unsigned};
use crate::values::Given;
use crate::wire::{Batch, Parameter, Record, Statement as _, Wire};
use crate::{Row, SqlError, StoredDocument};
use weir_core::config::IngestTable;
use weir_core::model::Id;

/// The statements of one kind.
#[derive(Debug)]
pub(crate) struct DocumentStatements<S> {
    /// Inserts documents: rows of the sheet.
    pub insert: S,
    /// Inserts what is nested in them, table by table: rows of the sheet.
    pub insert_children: Vec<S>,
    /// Documents: ids; id, actor, time, then fields.
    pub documents: S,
    /// What is nested in them, table by table, in order: ids; id of the document, then fields.
    pub children: Vec<S>,
    /// A page of an actor's documents: the actor, time and id of the last one before, limit; id, time. `None` where there
    /// is no actor column.
    pub page: Option<S>,
    /// Of the same page, where times are in an order that an index has.
    pub within: Option<PageWithin<S>>,
}

/// The statements of a page of which only so much is read as an index says it needs.
#[derive(Debug)]
pub(crate) struct PageWithin<S> {
    /// How old the page's last one is at most: whose page, time of the last one before, limit less one.
    pub start: S,
    /// As the page, of those not older than the fifth parameter and older than the sixth.
    pub page: S,
}

/// What is prepared for one kind.
pub(crate) type DocumentPlan<E> = Plan<IngestTable, Forms, DocumentStatements<StatementOf<E>>>;

/// The table of the documents, and those of what is nested in them.
#[derive(Debug)]
struct Tables {
    own: Option<Introspection>,
    children: Vec<Option<Introspection>>,
}

async fn read_tables<E: Engine>(
    connection: &mut E::Connection,
    dialect: E::Dialect,
    table: &IngestTable,
) -> Result<Tables, sqlx::Error> {
    let mut tables = Vec::with_capacity(1 + table.children.len());
    for name in [&table.name].into_iter().chain(table.children.iter().map(|child| &child.name)) {
        let mut facts = E::read_facts(connection, dialect, name, &["SELECT", "INSERT"]).await?;
        if let Some(facts) = &mut facts {
            E::read_of_documents(connection, dialect, name, facts).await?;
        }
        tables.push(facts);
    }
    let children = tables.split_off(1);
    Ok(Tables { own: tables.pop().flatten(), children })
}

/// What is prepared for the tables, prepared now if need be.
pub(crate) async fn plan<B: Backend>(
    backend: &B,
    table: &IngestTable,
) -> Result<Arc<DocumentPlan<B::Engine>>, SqlError> {
    if let Some(plan) = backend.plans().documents.get(table) {
        return Ok(plan);
    }
    let lease = backend.lease().await?;
    let dialect = backend.dialect();
    let tables = leased!(lease, |connection| read_tables::<B::Engine>(connection, dialect, table))?;
    let forms = forms(&dialect, table, tables.own.as_ref(), &tables.children)?;
    let statements = (B::Engine::STATEMENTS.ingest)(table, &forms);
    Ok(backend.plans().documents.put(table, Plan { table: table.clone(), forms, statements }))
}

/// See [`crate::SchemaCheck::check_table`].
pub(crate) async fn check_tables<B: Backend>(backend: &B, table: &IngestTable) -> Findings {
    backend.plans().documents.forget(table);
    let lease = backend.lease().await?;
    let dialect = backend.dialect();
    let mut tables = leased!(lease, |connection| async {
        let mut tables = read_tables::<B::Engine>(connection, dialect, table).await?;
        B::Engine::read_surroundings(connection, dialect, &table.name, Role::Other, tables.own.as_mut()).await?;
        for (child, facts) in table.children.iter().zip(&mut tables.children) {
            B::Engine::read_surroundings(connection, dialect, &child.name, Role::Other, facts.as_mut()).await?;
        }
        Ok(tables)
    })?;
    look::ingest(backend, &dialect, table, &mut tables.own, &mut tables.children).await?;
    let known = Known::Listed(backend.acknowledged());
    Ok(check(&dialect, table, tables.own.as_ref(), &tables.children, known))
}

/// See [`crate::Loader::load_documents`].
pub(crate) async fn load_documents<B: Backend>(
    backend: &B,
    table: &IngestTable,
    ids: &[Id],
) -> Result<Vec<Option<StoredDocument>>, SqlError> {
    check_types(&table.name, (table.id_type, table.actor_type), ids, [])?;
    let plan = plan(backend, table).await?;
    let mut found = Vec::with_capacity(ids.len());
    for part in ids.chunks(DOCUMENTS_PER_LOAD) {
        let read = leased!(backend.lease().await?, |connection| read_documents::<B::Engine>(connection, &plan, part));
        found.extend(backend.plans().documents.invalidated_by(table, read)?);
    }
    Ok(found)
}

/// See [`crate::Loader::documents_of`].
pub(crate) async fn documents_of<B: Backend>(
    backend: &B,
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
    let plan = plan(backend, table).await?;
    let lease = backend.lease().await?;
    let ids = leased!(lease, |connection| read_page::<B::Engine>(connection, &plan, actor, before, limit));
    let ids = backend.plans().documents.invalidated_by(table, ids)?;
    Ok(load_documents(backend, table, &ids).await?.into_iter().flatten().collect())
}

async fn read_documents<E: Engine>(
    connection: &mut E::Connection,
    plan: &DocumentPlan<E>,
    ids: &[Id],
) -> Result<Vec<Option<StoredDocument>>, sqlx::Error> {
    let forms = &plan.forms;
    let rows = connection.fetch(&plan.statements.documents, &Batch::new().ids(forms.id, ids)).await?;
    let own: Vec<OwnRead> = rows.iter().map(|row| read_own(row, forms)).collect::<Result<_, _>>()?;
    let mut children = Vec::with_capacity(forms.children.len());
    for (statement, sheet) in plan.statements.children.iter().zip(&forms.children) {
        let Some(SlotForm::Id(form)) = sheet.slots.first().map(|slot| slot.form) else { continue };
        let rows = connection.fetch(statement, &Batch::new().ids(form, ids)).await?;
        let read = rows.iter().map(|row| Ok((row.id(0, form)?, read_fields(row, sheet, 1)?)));
        children.push(read.collect::<Result<Vec<ChildRead>, sqlx::Error>>()?);
    }
    Ok(assemble(&plan.table, ids, own, children))
}

fn read_own<R: Record>(row: &R, forms: &Forms) -> Result<OwnRead, sqlx::Error> {
    let actor = match forms.actor {
        None => None,
        Some(form) => row.optional_id(1, form)?,
    };
    let at_ms = forms.created.map(|_| row.integer(2).map(unsigned)).transpose()?;
    Ok((row.id(0, forms.id)?, actor, at_ms, read_fields(row, &forms.own, 3)?))
}

/// The fields, which begin at the column `from`.
fn read_fields<R: Record>(row: &R, sheet: &Sheet, from: usize) -> Result<Vec<Value>, sqlx::Error> {
    sheet.fields().enumerate().map(|(index, (_, form))| row.field(from + index, form)).collect()
}

/// Ids of a page, newest first. Where an index can tell how far back the page reaches, only so much is read.
async fn read_page<E: Engine>(
    connection: &mut E::Connection,
    plan: &DocumentPlan<E>,
    actor: &Id,
    before: Option<&StoredDocument>,
    limit: usize,
) -> Result<Vec<Id>, sqlx::Error> {
    let (Some(form), Some(whole)) = (plan.forms.actor, &plan.statements.page) else { return Ok(Vec::new()) };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let since_ms = before.map(|document| document.at_ms.unwrap_or(0));
    let last = Parameter::LastId(plan.forms.id, before.map(|document| &document.id));
    let batch = Batch::new().id(form, actor).optional_integer(since_ms.map(signed));
    let batch = batch.with(last).integer(limit);
    let (mut statement, mut page) = (whole, batch);
    if let (Some(within), Some(created)) = (&plan.statements.within, plan.forms.created) {
        let end_ms = page_end(since_ms);
        let start = Batch::new().id(form, actor).with(Parameter::Time(created, signed(end_ms))).integer(limit - 1);
        if let Some(row) = connection.fetch(&within.start, &start).await?.first() {
            let end = Parameter::Time(created, signed(end_ms.saturating_add(E::PAGE_STEP_MS)));
            page = page.with(Parameter::Time(created, row.integer(0)?)).with(end);
            statement = &within.page;
        }
    }
    let rows = connection.fetch(statement, &page).await?;
    rows.iter().map(|row| row.id(0, plan.forms.id)).collect()
}

impl<E: Engine> FlushTransaction<'_, E> {
    /// Inserts documents with all that is nested in them.
    pub(super) async fn insert_documents(
        &mut self,
        plan: &DocumentPlan<E>,
        rows: &[&Row],
    ) -> Result<Effect, sqlx::Error> {
        let rows = documents(rows);
        let mut effect = Effect::default();
        let mut start = 0;
        for part in parts(&rows) {
            let (filled, dead) = fill(&plan.table, &plan.forms, part, E::Dialect::NUL);
            effect.inserted += filled.own.len() as u64;
            effect.dead.extend(dead.into_iter().map(|(index, reason)| (start + index, reason)));
            start += part.len();
            self.insert_sheet(&plan.statements.insert, &plan.forms.own, &filled.own).await?;
            let sheets = plan.statements.insert_children.iter().zip(&plan.forms.children);
            for ((statement, sheet), rows) in sheets.zip(&filled.children) {
                self.insert_sheet(statement, sheet, rows).await?;
            }
        }
        Ok(effect)
    }

    async fn insert_sheet(
        &mut self,
        statement: &StatementOf<E>,
        sheet: &Sheet,
        rows: &[Vec<Given>],
    ) -> Result<(), sqlx::Error> {
        for part in statement.parts(rows) {
            let met = self.execute(statement, &Batch::new().with(Parameter::Records(sheet, part))).await?;
            all_met(WriteOperation::Insert, &sheet.table, met, part.len())?;
        }
        Ok(())
    }

    /// What makes every insert fail, or what is prepared wrong.
    pub(super) async fn document_mismatch(&mut self, plan: &DocumentPlan<E>) -> Result<Option<String>, sqlx::Error> {
        let tables = read_tables::<E>(self.connection, self.dialect, &plan.table).await?;
        let own = tables.own.as_ref();
        let changed = changed(&plan.forms, forms(&self.dialect, &plan.table, own, &tables.children));
        Ok(changed.or_else(|| mismatch(&self.dialect, &plan.table, own, &tables.children)))
    }
}
