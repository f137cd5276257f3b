//! Statements of documents.

use super::{given, millis, path, quote};
use crate::documents::{Sheet, Slot, SlotForm};
use crate::exec::documents::{DocumentStatements, Forms, PageWithin};
use crate::introspection::{IdForm, TimeForm};
use crate::values::ValueForm;
use crate::wire::Fixed;
use weir_core::config::IngestTable;

/// The statements of one kind. Inserts: ?1 `[[…], …]` in the order of the sheet's columns; reads: ?1 `[id, …]`.
pub(in crate::sqlite) fn statements(table: &IngestTable, forms: &Forms) -> DocumentStatements<Fixed> {
    let (name, id, one_id) = (path(&table.name), quote(&table.id_column), given(forms.id, "j.value"));
    let actor = table.actor_column.as_ref().map_or_else(|| "NULL".to_owned(), |column| quote(column));
    let ms = millis(table.created_at_column.as_ref(), forms.created);
    let (page, within) = page_statements(table, forms);
    DocumentStatements {
        insert: insert(&forms.own).into(),
        insert_children: forms.children.iter().map(|sheet| insert(sheet).into()).collect(),
        documents: format!(
            "SELECT {id}, {actor}, {ms}{} FROM {name} WHERE {id} IN (SELECT {one_id} FROM json_each(?1) AS j)",
            shown(&forms.own)
        )
        .into(),
        children: forms.children.iter().map(|sheet| children(sheet).into()).collect(),
        page,
        within,
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

/// The page: ?1 actor, ?2 and ?3 time and id of the last one before, ?4 limit; within ?5 and ?6. Its start: ?1 actor, ?2 time of
/// the last one before, ?3 limit less one.
fn page_statements(table: &IngestTable, forms: &Forms) -> (Option<Fixed>, Option<PageWithin<Fixed>>) {
    let (Some(actor), Some(actor_form)) = (&table.actor_column, forms.actor) else { return (None, None) };
    let (name, id, actor) = (path(&table.name), quote(&table.id_column), quote(actor));
    let (one_actor, last_id) = (given(actor_form, "?1"), given(forms.id, "?3"));
    let ms = millis(table.created_at_column.as_ref(), forms.created);
    let page = |within: &str| -> Fixed {
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
            let within = page(&format!(" AND {time} >= ?5 AND {time} < ?6"));
            (Some(page("")), Some(PageWithin { start: page_start.into(), page: within }))
        }
        _ => (Some(page("")), None),
    }
}
