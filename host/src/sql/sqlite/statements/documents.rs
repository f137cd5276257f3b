//! Statements of documents.

use std::sync::Arc;

use super::{given, millis, path, quote};
use crate::config::IngestTable;
use crate::sql::documents::{Forms, Sheet, Slot, SlotForm};
use crate::sql::facts::{IdForm, TimeForm};
use crate::sql::values::ValueForm;

/// The statements of one kind.
#[derive(Debug)]
pub(in crate::sql::sqlite) struct Statements {
    /// Inserts documents: ?1 `[[…], …]` in the order of the sheet's columns.
    pub insert: Arc<str>,
    /// Inserts what is nested in them, table by table: ?1 as `insert`.
    pub insert_children: Vec<Arc<str>>,
    /// Documents: ?1 `[id, …]`; id, actor, time, then fields.
    pub documents: Arc<str>,
    /// What is nested in them, table by table, in order: ?1 `[id, …]`; id of the document, then fields.
    pub children: Vec<Arc<str>>,
    /// A page of an actor's documents: ?1 actor, ?2 and ?3 time and id of the last one before, ?4 limit; id, time. Empty
    /// where there is no actor column.
    pub page: Arc<str>,
    /// As `page`, of those not older than ?5 and older than ?6: an index on actor and time can find them.
    pub page_within: Arc<str>,
    /// How old the page's last document is at most: ?1 actor, ?2 time of the last one before, ?3 limit less one. Empty where
    /// times are not in an order that an index has.
    pub page_start: Arc<str>,
}

impl Statements {
    /// Words them.
    pub fn new(table: &IngestTable, forms: &Forms) -> Self {
        let (name, id, one_id) = (path(&table.name), quote(&table.id_column), given(forms.id, "j.value"));
        let actor = table.actor_column.as_ref().map_or_else(|| "NULL".to_owned(), |column| quote(column));
        let ms = millis(table.created_at_column.as_ref(), forms.created);
        let (page, page_within, page_start) = page_statements(table, forms);
        Self {
            insert: insert(&forms.own).into(),
            insert_children: forms.children.iter().map(|sheet| insert(sheet).into()).collect(),
            documents: format!(
                "SELECT {id}, {actor}, {ms}{} FROM {name} WHERE {id} IN (SELECT {one_id} FROM json_each(?1) AS j)",
                shown(&forms.own)
            )
            .into(),
            children: forms.children.iter().map(|sheet| children(sheet).into()).collect(),
            page,
            page_within,
            page_start,
        }
    }
}

fn insert(sheet: &Sheet) -> String {
    let columns: Vec<String> = sheet.slots.iter().map(|slot| quote(&slot.name)).collect();
    let value = |(place, slot): (usize, &Slot)| {
        let value = format!("j.value ->> {place}");
        let value = match slot.form {
            SlotForm::Id(form) => given(form, &value),
            SlotForm::Value(ValueForm::UuidBytes) => given(IdForm::UuidBytes, &value),
            _ => value,
        };
        match &slot.default {
            Some(default) => format!("COALESCE({value}, {default})"),
            None => value,
        }
    };
    let values: Vec<String> = sheet.slots.iter().enumerate().map(value).collect();
    let (name, columns, values) = (path(&sheet.table), columns.join(", "), values.join(", "));
    format!("INSERT OR ABORT INTO {name} ({columns}) SELECT {values} FROM json_each(?1) AS j")
}

/// The fields, each with a comma before it.
fn shown(sheet: &Sheet) -> String {
    sheet.fields().map(|(slot, _)| format!(", {}", quote(&slot.name))).collect()
}

fn children(sheet: &Sheet) -> String {
    let Some(parent) = sheet.slots.first() else { return String::new() };
    let SlotForm::Id(form) = parent.form else { return String::new() };
    let (name, column, one_id) = (path(&sheet.table), quote(&parent.name), given(form, "j.value"));
    let order: String = sheet.order.iter().map(|name| format!(", {}", quote(name))).collect();
    format!(
        "SELECT {column}{} FROM {name} WHERE {column} IN (SELECT {one_id} FROM json_each(?1) AS j)
         ORDER BY {column}{order}",
        shown(sheet)
    )
}

/// `page`, `page_within` and `page_start`.
fn page_statements(table: &IngestTable, forms: &Forms) -> (Arc<str>, Arc<str>, Arc<str>) {
    let (Some(actor), Some(actor_form)) = (&table.actor_column, forms.actor) else {
        return ("".into(), "".into(), "".into());
    };
    let (name, id, actor) = (path(&table.name), quote(&table.id_column), quote(actor));
    let (one_actor, last_id) = (given(actor_form, "?1"), given(forms.id, "?3"));
    let ms = millis(table.created_at_column.as_ref(), forms.created);
    let page = |within: &str| -> Arc<str> {
        format!(
            "SELECT i, m FROM (SELECT {id} AS i, {ms} AS m FROM {name} WHERE {actor} = {one_actor}{within})
             WHERE ?2 IS NULL OR (m, i) < (?2, {last_id}) ORDER BY m DESC, i DESC LIMIT ?4"
        )
        .into()
    };
    match (&table.created_at_column, forms.created) {
        (Some(created), Some(TimeForm::Millis)) => {
            let time = quote(created);
            let page_start = format!(
                "SELECT {time} FROM {name} WHERE {actor} = {one_actor} AND {time} < ?2 ORDER BY {time} DESC
                 LIMIT 1 OFFSET ?3"
            );
            (page(""), page(&format!(" AND {time} >= ?5 AND {time} < ?6")), page_start.into())
        }
        _ => (page(""), "".into(), "".into()),
    }
}
