//! Statements of documents.

use super::{millis, ordered, path, quote, shown};
use crate::documents::{Sheet, Slot, SlotForm};
use crate::exec::documents::{DocumentStatements, Forms, PageWithin};
use crate::introspection::{IdForm, TimeForm};
use crate::mysql::CHUNK;
use crate::mysql::wire::Template;
use crate::values::ValueForm;
use weir_core::config::IngestTable;

/// Parameters of one statement.
const PARAMETERS_MAX: usize = 65_535;

/// The statements of one kind. Fields are read as text.
pub(in crate::mysql) fn statements(table: &IngestTable, forms: &Forms) -> DocumentStatements<Template> {
    let (name, id) = (path(&table.name), quote(&table.id_column));
    let ms = millis(table.created_at_column.as_ref(), forms.created);
    let actor = match (&table.actor_column, forms.actor) {
        (Some(column), Some(form)) => shown(form, &quote(column)),
        _ => "NULL".to_owned(),
    };
    let select = format!("SELECT {}, {actor}, {ms}{} FROM {name} WHERE {id}", shown(forms.id, &id), fields(&forms.own));
    DocumentStatements {
        insert: insert(&forms.own),
        insert_children: forms.children.iter().map(insert).collect(),
        documents: Template::padded(CHUNK).text(format!("{select} IN (")).list().text(")"),
        children: forms.children.iter().map(children).collect(),
        page: page(table, forms, false),
        within: within(table, forms),
    }
}

/// A page of an actor's documents: ? actor, three times ? time of the last one before, ? its id, ? limit; id, time.
/// With `is_within`, after ? actor: ? oldest, ? newer than all; an index on actor and time can find them.
fn page(table: &IngestTable, forms: &Forms, is_within: bool) -> Option<Template> {
    let (name, id, actor) = (path(&table.name), quote(&table.id_column), quote(table.actor_column.as_ref()?));
    let (shown_id, ordered_id) = (shown(forms.id, &id), ordered(forms.id, &id));
    let ms = millis(table.created_at_column.as_ref(), forms.created);
    let last_id = if forms.id == IdForm::Integer { "?" } else { "CAST(? AS BINARY)" };
    let (within, places) = match &table.created_at_column {
        Some(created) if is_within => {
            let created = quote(created);
            (format!(" AND {created} >= ? AND {created} < ?"), vec![0, 4, 5, 1, 1, 1, 2, 3])
        }
        _ => (String::new(), vec![0, 1, 1, 1, 2, 3]),
    };
    let text = format!(
        "SELECT i, m FROM (SELECT {shown_id} AS i, {ms} AS m, {ordered_id} AS x FROM {name}
             WHERE {actor} = ?{within}) AS p
             WHERE ? IS NULL OR m < ? OR (m = ? AND x < {last_id}) ORDER BY m DESC, x DESC LIMIT ?"
    );
    Some(Template::whole().once(text, places))
}

/// Its start: ? actor, ? time of the last one before, ? limit less one. Times that are text have no certain order.
fn within(table: &IngestTable, forms: &Forms) -> Option<PageWithin<Template>> {
    forms.created.filter(|form| *form != TimeForm::Iso)?;
    let (name, actor) = (path(&table.name), quote(table.actor_column.as_ref()?));
    let (ms, created) =
        (millis(table.created_at_column.as_ref(), forms.created), quote(table.created_at_column.as_ref()?));
    let start =
        format!("SELECT {ms} FROM {name} WHERE {actor} = ? AND {created} < ? ORDER BY {created} DESC LIMIT 1 OFFSET ?");
    Some(PageWithin { start: Template::whole().once(start, [0, 1, 2]), page: page(table, forms, true)? })
}

/// Inserts rows with the values of the sheet's columns.
fn insert(sheet: &Sheet) -> Template {
    let columns: Vec<String> = sheet.slots.iter().map(|slot| quote(&slot.name)).collect();
    let value = |default: &Option<String>| match default {
        Some(default) => format!("COALESCE(?, {default})"),
        None => "?".to_owned(),
    };
    let values: Vec<String> = sheet.slots.iter().map(|slot| value(&slot.default)).collect();
    Template::exact(rows_max(columns.len()))
        .text(format!("INSERT INTO {} ({}) VALUES ", path(&sheet.table), columns.join(", ")))
        .each(format!("({})", values.join(", ")), ", ", [0])
}

/// What is nested in documents, in order: the id of the document, then fields.
fn children(sheet: &Sheet) -> Template {
    let (parent, shown_parent) = match sheet.slots.first().map(|slot| (quote(&slot.name), slot.form)) {
        Some((name, SlotForm::Id(form))) => (name.clone(), shown(form, &name)),
        _ => (String::new(), String::new()),
    };
    let order: String = sheet.order.iter().map(|name| format!(", {}", quote(name))).collect();
    let order = if order.is_empty() { order } else { format!(" ORDER BY {parent}{order}") };
    Template::padded(CHUNK)
        .text(format!("SELECT {shown_parent}{} FROM {} WHERE {parent} IN (", fields(sheet), path(&sheet.table)))
        .list()
        .text(format!("){order}"))
}

/// Rows of one statement, a power of two, each with so many parameters.
fn rows_max(columns: usize) -> usize {
    let most = (PARAMETERS_MAX / columns.max(1)).max(1);
    CHUNK.min(1 << most.ilog2())
}

/// The fields as text, each with a comma before it.
fn fields(sheet: &Sheet) -> String {
    let shown = |(slot, form): (&Slot, ValueForm)| {
        let column = quote(&slot.name);
        match form {
            ValueForm::UuidBytes => format!(", LOWER(HEX({column}))"),
            ValueForm::Text(_) => format!(", CONVERT({column} USING utf8mb4)"),
            // Also of bits, which would be shown as characters.
            ValueForm::Boolean => format!(", CAST(CAST({column} AS SIGNED) AS CHAR)"),
            _ => format!(", CAST({column} AS CHAR)"),
        }
    };
    sheet.fields().map(shown).collect()
}
