//! Statements of documents.
//!
//! A batch is one JSON parameter, read by `json_to_recordset` with the types of the columns themselves: their own input
//! functions read the values, and refuse what they do not take.

use super::{from_millis, millis, path, point, quote, sql_type};
use crate::documents::{Sheet, SlotForm};
use crate::exec::documents::{DocumentStatements, Forms, PageWithin};
use crate::introspection::TimeForm;
use crate::values::ValueForm;
use crate::wire::Fixed;
use weir_core::config::IngestTable;

/// The statements of one kind. Inserts: $1 `[{"0": …, "1": …}, …]`, keys being the places of the sheet's columns. Fields are
/// read as JSON text.
pub(in crate::postgres) fn statements(table: &IngestTable, forms: &Forms) -> DocumentStatements<Fixed> {
    let (name, id, k) = (path(&table.name), quote(&table.id_column), sql_type(forms.id));
    let actor = match (&table.actor_column, forms.actor) {
        (Some(column), Some(form)) => format!("l.{}::{}", quote(column), sql_type(form)),
        _ => "NULL::text".into(),
    };
    let ms = millis(table.created_at_column.as_ref(), forms.created);
    let (page, within) = page_statements(table, forms);
    DocumentStatements {
        insert: insert(&forms.own).into(),
        insert_children: forms.children.iter().map(|sheet| insert(sheet).into()).collect(),
        documents: format!(
            "SELECT l.{id}::{k}, {actor}, {ms}{} FROM {name} AS l WHERE l.{id} = ANY ($1::{k}[])",
            shown(&forms.own)
        )
        .into(),
        children: forms.children.iter().map(|sheet| children(sheet).into()).collect(),
        page,
        within,
    }
}

fn insert(sheet: &Sheet) -> String {
    let (mut columns, mut values, mut types) = (Vec::new(), Vec::new(), Vec::new());
    for (place, slot) in sheet.slots.iter().enumerate() {
        let value = format!("d.\"{place}\"");
        let (sql_type, value) = match (slot.form, &slot.default) {
            (SlotForm::Id(form), _) => (sql_type(form), value),
            (SlotForm::Time(TimeForm::Iso), _) => ("text", value),
            (SlotForm::Time(form), _) => ("int8", from_millis(form, &value)),
            (SlotForm::Position, _) => ("int8", value),
            (SlotForm::Value(_), None) => (&*slot.declared, value),
            (SlotForm::Value(_), Some(default)) => (&*slot.declared, format!("COALESCE({value}, {default})")),
        };
        columns.push(quote(&slot.name));
        values.push(value);
        types.push(format!("\"{place}\" {sql_type}"));
    }
    format!(
        "INSERT INTO {} ({}) SELECT {} FROM json_to_recordset($1::json) AS d ({})",
        path(&sheet.table),
        columns.join(", "),
        values.join(", "),
        types.join(", ")
    )
}

/// The fields as JSON text, each with a comma before it.
fn shown(sheet: &Sheet) -> String {
    sheet.fields().map(|(slot, _)| format!(", to_jsonb(l.{})::text", quote(&slot.name))).collect()
}

fn children(sheet: &Sheet) -> String {
    let Some(parent) = sheet.slots.first() else { return String::new() };
    let SlotForm::Id(form) = parent.form else { return String::new() };
    let (name, column, k) = (path(&sheet.table), quote(&parent.name), sql_type(form));
    let order = sheet.order.iter().map(|name| {
        // Types of this engine's own may have no order.
        let has_order = |form: ValueForm| !matches!(form, ValueForm::Json | ValueForm::Native);
        let unordered = sheet.fields().any(|(slot, form)| slot.name == *name && !has_order(form));
        if unordered { format!(", to_jsonb(l.{})", quote(name)) } else { format!(", l.{}", quote(name)) }
    });
    format!(
        "SELECT l.{column}::{k}{} FROM {name} AS l WHERE l.{column} = ANY ($1::{k}[]) ORDER BY l.{column}{}",
        shown(sheet),
        order.collect::<String>()
    )
}

/// The page: $1 one actor, $2 and $3 time and one id of the last one before, $4 limit; within $5 and $6. Its start: $1 one
/// actor, $2 time of the last one before, $3 limit less one.
fn page_statements(table: &IngestTable, forms: &Forms) -> (Option<Fixed>, Option<PageWithin<Fixed>>) {
    let (Some(actor), Some(actor_form)) = (&table.actor_column, forms.actor) else { return (None, None) };
    let (name, id, actor) = (path(&table.name), quote(&table.id_column), quote(actor));
    let (k, a) = (sql_type(forms.id), sql_type(actor_form));
    let ms = millis(table.created_at_column.as_ref(), forms.created);
    let created = table.created_at_column.as_ref().map(|column| quote(column)).unwrap_or_default();
    let page = |within: String| -> Fixed {
        format!(
            "SELECT p.i, p.m FROM (SELECT l.{id}::{k} AS i, {ms} AS m FROM {name} AS l
             WHERE l.{actor} = ($1::{a}[])[1]{within}) AS p
             WHERE $2::int8 IS NULL OR (p.m, p.i) < ($2::int8, ($3::{k}[])[1])
             ORDER BY p.m DESC, p.i DESC LIMIT $4"
        )
        .into()
    };
    let Some(point) = point(forms.created) else { return (Some(page(String::new())), None) };
    let page_start = format!(
        "SELECT {ms} FROM {name} AS l WHERE l.{actor} = ($1::{a}[])[1] AND l.{created} < {}
         ORDER BY l.{created} DESC OFFSET $3 LIMIT 1",
        point("$2")
    );
    let within = format!(" AND l.{created} >= {} AND l.{created} < {}", point("$5"), point("$6"));
    (Some(page(String::new())), Some(PageWithin { start: page_start.into(), page: page(within) }))
}
