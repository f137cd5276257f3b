//! Documents as rows of tables, and back: which column gets what, and what is nested in them.
//!
//! Knows no engine. Pure.
//!
//! A field that is missing or null becomes NULL; in a column that is NOT NULL and has a default, the default. What comes
//! back leaves NULLs out, and arrays that have no rows.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::introspection::{IdForm, TimeForm};
use super::rows::{Unstorable, parts_of};
use super::values::{Given, ValueForm, give};
use super::{DocumentRow, StoredDocument};
use weir_core::config::{ChildTable, IngestTable};
use weir_core::model::{Id, Violation};

/// Bytes of documents that one statement inserts. A statement is text for some engines, and a packet for others.
pub(super) const BYTES_PER_INSERT: usize = 2 << 20;
/// Documents that one statement inserts.
const ROWS_PER_INSERT: usize = 10_000;
/// Documents that are read by one statement.
pub(super) const DOCUMENTS_PER_LOAD: usize = 256;

/// What a column gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotForm {
    /// An id.
    Id(IdForm),
    /// When the document was accepted.
    Time(TimeForm),
    /// The place in the array, from 1.
    Position,
    /// A field.
    Value(ValueForm),
}

/// A column that weir fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    /// Its name.
    pub name: String,
    /// Its type, as the catalogue words it.
    pub declared: String,
    /// What it gets.
    pub form: SlotForm,
    /// What it gets where there is no value, as an expression.
    pub default: Option<String>,
}

/// The columns of a table, in the order in which rows are made of values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sheet {
    /// The table.
    pub table: String,
    /// The document's id first; of the documents themselves then the actor and the time, of what is nested in them the
    /// position, where there are such columns; then the fields.
    pub slots: Vec<Slot>,
    /// Columns by which what is nested in a document is ordered.
    pub order: Vec<String>,
}

impl Sheet {
    /// The columns with fields.
    pub fn fields(&self) -> impl Iterator<Item = (&Slot, ValueForm)> {
        self.slots.iter().filter_map(|slot| match slot.form {
            SlotForm::Value(form) => Some((slot, form)),
            _ => None,
        })
    }
}

/// The forms of a kind's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Forms {
    /// Of the id.
    pub id: IdForm,
    /// Of the actor column.
    pub actor: Option<IdForm>,
    /// Of the created-at column.
    pub created: Option<TimeForm>,
    /// The table of the documents.
    pub own: Sheet,
    /// The tables of what is nested, in the order of the configuration's.
    pub children: Vec<Sheet>,
}

/// Rows for the table of the documents, and for each table of what is nested in them.
#[derive(Debug, Default)]
pub(super) struct Filled {
    /// One for each document.
    pub own: Vec<Vec<Given>>,
    /// Those of each table.
    pub children: Vec<Vec<Vec<Given>>>,
}

/// Makes rows of documents. Reports each document that cannot become a row by its index, with the reason.
pub(super) fn fill(
    table: &IngestTable,
    forms: &Forms,
    documents: &[&DocumentRow],
    nul: bool,
) -> (Filled, Vec<Unstorable>) {
    let mut filled = Filled { own: Vec::with_capacity(documents.len()), children: Vec::new() };
    filled.children.resize_with(forms.children.len(), Vec::new);
    let mut dead = Vec::new();
    for (index, document) in documents.iter().enumerate() {
        match fill_one(table, forms, document, nul) {
            Ok((own, children)) => {
                filled.own.push(own);
                filled.children.iter_mut().zip(children).for_each(|(all, rows)| all.extend(rows));
            }
            Err(reason) => dead.push((index, reason)),
        }
    }
    (filled, dead)
}

/// Its own row, and those of each table of what is nested in it.
type Rows = (Vec<Given>, Vec<Vec<Vec<Given>>>);

fn fill_one(table: &IngestTable, forms: &Forms, document: &DocumentRow, nul: bool) -> Result<Rows, String> {
    let mut fields = match serde_json::from_str(&document.body) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return Err("the document is no JSON object".into()),
        Err(error) => return Err(format!("the document is not JSON: {error}")),
    };
    let mut own = vec![given_id(forms.id, &document.id)];
    own.extend(forms.actor.map(|form| given_id(form, &document.actor)));
    own.extend(forms.created.map(|_| Given::Time(document.origin.at_ms)));
    push_fields(&mut own, &forms.own, table.columns.keys(), &mut fields, nul)?;
    let mut children = Vec::with_capacity(forms.children.len());
    for (child, sheet) in table.children.iter().zip(&forms.children) {
        let elements = match fields.remove(&child.field) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(elements)) => elements,
            Some(_) => return Err(format!("{}: is no array", child.field)),
        };
        let row = |(index, element)| {
            let row = child_row(child, sheet, &document.id, (index, element), nul);
            row.map_err(|reason| format!("{}/{index}/{reason}", child.field))
        };
        children.push(elements.into_iter().enumerate().map(row).collect::<Result<Vec<_>, String>>()?);
    }
    // The field with the id has its column, but no place among the fields.
    match fields.iter().find(|(_, value)| !is_id(value, &document.id)) {
        Some((unknown, _)) => Err(format!("{unknown}: has no column")),
        None => Ok((own, children)),
    }
}

fn is_id(value: &Value, id: &Id) -> bool {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Id::parse(id.id_type(), &text).as_ref() == Ok(id)
}

fn child_row(
    child: &ChildTable,
    sheet: &Sheet,
    parent: &Id,
    (index, element): (usize, Value),
    nul: bool,
) -> Result<Vec<Given>, String> {
    let mut row = Vec::with_capacity(sheet.slots.len());
    for slot in &sheet.slots {
        match slot.form {
            SlotForm::Id(form) => row.push(given_id(form, parent)),
            SlotForm::Position => row.push(Given::Integer(i64::try_from(index + 1).unwrap_or(i64::MAX))),
            _ => break,
        }
    }
    if child.value_column.is_some() {
        let mut fields = Map::new();
        fields.insert(String::new(), element);
        push_fields(&mut row, sheet, [&String::new()], &mut fields, nul)?;
        return Ok(row);
    }
    let Value::Object(mut fields) = element else { return Err(": is no JSON object".into()) };
    push_fields(&mut row, sheet, child.columns.keys(), &mut fields, nul)?;
    match fields.keys().next() {
        Some(unknown) => Err(format!("{unknown}: has no column")),
        None => Ok(row),
    }
}

/// Takes the named fields out, in the order of the sheet's.
fn push_fields<'n>(
    row: &mut Vec<Given>,
    sheet: &Sheet,
    names: impl IntoIterator<Item = &'n String>,
    fields: &mut Map<String, Value>,
    nul: bool,
) -> Result<(), String> {
    for ((slot, form), name) in sheet.fields().zip(names) {
        let value = fields.remove(name).unwrap_or_default();
        row.push(give(form, &slot.declared, value, nul).map_err(|reason| format!("{name}: {reason}"))?);
    }
    Ok(())
}

/// What of a document its columns cannot hold, at most `most`. A field that is not configured is none of this.
pub(super) fn violations(
    table: &IngestTable,
    forms: &Forms,
    document: &Value,
    nul: bool,
    most: usize,
) -> Vec<Violation> {
    let Some(fields) = document.as_object() else { return Vec::new() };
    let mut found = Vec::new();
    unfit_values(&forms.own, table.columns.keys(), |name| fields.get(name), (nul, most), "", &mut found);
    for (child, sheet) in table.children.iter().zip(&forms.children) {
        let Some(Value::Array(elements)) = fields.get(&child.field) else { continue };
        for (index, element) in elements.iter().enumerate() {
            let path = format!("/{}/{index}", escaped(&child.field));
            match (&child.value_column, element) {
                (Some(_), element) => {
                    unfit_values(sheet, [&String::new()], |_| Some(element), (nul, most), &path, &mut found);
                }
                (None, Value::Object(fields)) => {
                    let field = |name: &str| fields.get(name);
                    unfit_values(sheet, child.columns.keys(), field, (nul, most), &path, &mut found);
                }
                // Wrong shape: another check reports that.
                (None, _) => {}
            }
        }
    }
    found
}

/// Which of the named fields do not fit into the columns of a sheet. An element that is a value has the empty name.
fn unfit_values<'n, 'v>(
    sheet: &Sheet,
    names: impl IntoIterator<Item = &'n String>,
    field: impl Fn(&str) -> Option<&'v Value>,
    (nul, most): (bool, usize),
    path: &str,
    found: &mut Vec<Violation>,
) {
    for ((slot, form), name) in sheet.fields().zip(names) {
        let Some(value) = field(name).filter(|_| found.len() < most) else { continue };
        let reason = match (form, value) {
            // The usual case, without a copy.
            (ValueForm::Text(None), Value::String(_)) if nul => continue,
            (ValueForm::Text(Some(room)), Value::String(text)) if text.len() as u64 <= room && nul => continue,
            _ => give(form, &slot.declared, value.clone(), nul),
        };
        if let Err(reason) = reason {
            let path = if name.is_empty() { path.to_owned() } else { format!("{path}/{}", escaped(name)) };
            let message = format!("{reason} (column {}.{})", sheet.table, slot.name);
            found.push(Violation { path, message });
        }
    }
}

/// A name in a JSON Pointer (RFC 6901).
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// An id as a value.
pub(super) fn given_id(form: IdForm, id: &Id) -> Given {
    match (form, id) {
        (_, Id::Int(value)) => Given::Integer(*value),
        (IdForm::UuidBytes, Id::Uuid(value)) => Given::Uuid(*value),
        (_, other) => Given::Text(other.to_string()),
    }
}

/// Documents in parts, each for one statement and its companions.
pub(super) fn parts<'r, 'd>(documents: &'r [&'d DocumentRow]) -> Vec<&'r [&'d DocumentRow]> {
    parts_of(documents, ROWS_PER_INSERT, BYTES_PER_INSERT, |document| document.body.len())
}

/// What was read of one document: its id, its actor, its time, its fields in order.
pub(super) type OwnRead = (Id, Option<Id>, Option<u64>, Vec<Value>);
/// What was read of one element: the document's id, and its fields in order.
pub(super) type ChildRead = (Id, Vec<Value>);

/// Puts together what was read: `children` in the order of the configuration's, their elements in theirs. In the order
/// of `ids`.
pub(super) fn assemble(
    table: &IngestTable,
    ids: &[Id],
    own: Vec<OwnRead>,
    children: Vec<Vec<ChildRead>>,
) -> Vec<Option<StoredDocument>> {
    let mut found: HashMap<Id, StoredDocument> = HashMap::with_capacity(own.len());
    for (id, actor, at_ms, values) in own {
        let body = named(table.columns.keys(), values);
        found.insert(id.clone(), StoredDocument { id, body, actor, at_ms });
    }
    for (child, rows) in table.children.iter().zip(children) {
        for (parent, mut values) in rows {
            let element = match child.value_column {
                Some(_) => values.pop().unwrap_or_default(),
                None => Value::Object(named(child.columns.keys(), values)),
            };
            let Some(document) = found.get_mut(&parent) else { continue };
            let elements = document.body.entry(child.field.clone()).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(elements) = elements {
                elements.push(element);
            }
        }
    }
    ids.iter().map(|id| found.get(id).cloned()).collect()
}

fn named<'n>(names: impl Iterator<Item = &'n String>, values: Vec<Value>) -> Map<String, Value> {
    let fields = names.cloned().zip(values);
    fields.filter(|(_, value)| !value.is_null()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use weir_core::config::IngestConfig;
    use weir_core::model::Origin;

    fn slot(name: &str, form: SlotForm) -> Slot {
        Slot { name: name.into(), declared: "text".into(), form, default: None }
    }

    fn forms() -> Forms {
        let text = SlotForm::Value(ValueForm::Text(None));
        let integer = SlotForm::Value(ValueForm::Integer(0, 1_000));
        let (id, actor) = (IdForm::Text, IdForm::Integer);
        let own = vec![
            slot("id", SlotForm::Id(id)),
            slot("user_id", SlotForm::Id(actor)),
            slot("created_at", SlotForm::Time(TimeForm::Millis)),
            slot("description", text),
            slot("title", text),
        ];
        let child = vec![
            slot("playlist_id", SlotForm::Id(id)),
            slot("position", SlotForm::Position),
            slot("seconds", integer),
            slot("title", text),
        ];
        let sheet = |table: &str, slots| Sheet { table: table.into(), slots, order: Vec::new() };
        let created = Some(TimeForm::Millis);
        Forms { id, actor: Some(actor), created, own: sheet("playlist", own), children: vec![sheet("track", child)] }
    }

    fn row(id: &str, body: &Value) -> DocumentRow {
        DocumentRow {
            origin: Origin { at_ms: 5, ..Origin::default() },
            id: Id::Text(id.into()),
            actor: Id::Int(7),
            body: Arc::from(body.to_string()),
        }
    }

    #[test]
    fn a_document_becomes_rows_in_the_order_of_the_columns() {
        let table = IngestConfig::demo().table;
        let good =
            row("a", &json!({"slug": "a", "title": "t", "tracks": [{"title": "x"}, {"title": "y", "seconds": 9}]}));
        let bad = row("b", &json!({"title": "t", "tracks": [{"title": "x", "seconds": "many"}]}));
        let unknown = row("c", &json!({"title": "t", "colour": 1}));
        let (filled, dead) = fill(&table, &forms(), &[&good, &bad, &unknown], true);
        let text = |text: &str| Given::Text(text.into());
        assert_eq!(filled.own, [vec![text("a"), Given::Integer(7), Given::Time(5), Given::Null, text("t")]]);
        let tracks = [
            vec![text("a"), Given::Integer(1), Given::Null, text("x")],
            vec![text("a"), Given::Integer(2), Given::Integer(9), text("y")],
        ];
        assert_eq!(filled.children, [tracks]);
        let reasons: Vec<&str> = dead.iter().map(|(_, reason)| reason.as_str()).collect();
        assert_eq!(dead.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2]);
        assert!(
            reasons[0].starts_with("tracks/0/seconds: is \"many\"") && reasons[1].starts_with("colour: "),
            "{reasons:?}"
        );
    }

    #[test]
    fn what_does_not_fit_is_named_by_path_and_column() {
        let table = IngestConfig::demo().table;
        let mut forms = forms();
        forms.own.slots[4].form = SlotForm::Value(ValueForm::Text(Some(3)));
        let tracks = json!([{"title": "x"}, {"title": "y", "seconds": 1_001}]);
        let of = |document: &Value| {
            let found = violations(&table, &forms, document, true, 10);
            found.into_iter().map(|violation| (violation.path, violation.message)).collect::<Vec<_>>()
        };
        assert_eq!(of(&json!({"title": "äöü", "tracks": [{"title": "x", "seconds": 9}], "colour": 1})), []);
        let found = of(&json!({"title": "long", "tracks": tracks}));
        let expected = [
            ("/title".to_owned(), "is longer than 3 characters (column playlist.title)".to_owned()),
            (
                "/tracks/1/seconds".to_owned(),
                "is 1001, which a column of type text does not take (column track.seconds)".to_owned(),
            ),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn documents_come_back_in_order_without_what_is_not_there() {
        let table = IngestConfig::demo().table;
        let id = |id: &str| Id::Text(id.into());
        let own = vec![
            (id("b"), None, Some(5), vec![Value::Null, json!("t")]),
            (id("a"), Some(Id::Int(1)), None, vec![json!("d"), json!("u")]),
        ];
        let tracks = vec![(id("a"), vec![json!(1), json!("x")]), (id("a"), vec![Value::Null, json!("y")])];
        let found = assemble(&table, &[id("a"), id("c"), id("b")], own, vec![tracks]);
        let body = |index: usize| json!(found[index].as_ref().unwrap().body);
        assert_eq!(
            body(0),
            json!({"description": "d", "title": "u", "tracks": [{"seconds": 1, "title": "x"}, {"title": "y"}]})
        );
        assert_eq!((found[1].is_none(), body(2)), (true, json!({"title": "t"})));
    }

    #[test]
    fn parts_are_bounded_by_bytes() {
        let large = row("a", &json!({ "title": "x".repeat(BYTES_PER_INSERT / 2) }));
        let small = row("b", &json!({}));
        let rows = [&small, &large, &large, &small, &large];
        let sizes: Vec<usize> = parts(&rows).iter().map(|part| part.len()).collect();
        assert_eq!(sizes, [2, 2, 1]);
        assert!(parts(&[]).is_empty());
    }
}
