//! Statements of documents.

use super::{list, millis, ordered, path, quote, shown};
use crate::config::IngestTable;
use crate::sql::documents::{Forms, Sheet, Slot, SlotForm};
use crate::sql::facts::IdForm;
use crate::sql::values::ValueForm;

/// The statements of one kind.
#[derive(Debug)]
pub(in crate::sql::mysql) struct Statements {
    /// Of the table of the documents.
    pub own: SheetStatements,
    /// Of the tables of what is nested in them.
    pub children: Vec<SheetStatements>,
    page: Option<Page>,
}

/// The statements of one table.
#[derive(Debug)]
pub(in crate::sql::mysql) struct SheetStatements {
    insert: String,
    row: String,
    select: String,
    order: String,
}

#[derive(Debug)]
struct Page {
    name: String,
    shown_id: String,
    ordered_id: String,
    /// The last id of the page before, to be compared with `ordered_id`.
    last_id: &'static str,
    actor: String,
    ms: String,
    created: Option<String>,
}

impl Statements {
    /// Words the parts that do not depend on the size of a batch.
    pub fn new(table: &IngestTable, forms: &Forms) -> Self {
        let (name, id) = (path(&table.name), quote(&table.id_column));
        let ms = millis(table.created_at_column.as_ref(), forms.created);
        let actor = match (&table.actor_column, forms.actor) {
            (Some(column), Some(form)) => shown(form, &quote(column)),
            _ => "NULL".to_owned(),
        };
        let own_select =
            format!("SELECT {}, {actor}, {ms}{} FROM {name} WHERE {id}", shown(forms.id, &id), fields(&forms.own));
        let page = table.actor_column.as_ref().map(|actor| Page {
            name,
            shown_id: shown(forms.id, &id),
            ordered_id: ordered(forms.id, &id),
            last_id: if forms.id == IdForm::Integer { "?" } else { "CAST(? AS BINARY)" },
            actor: quote(actor),
            ms,
            created: table.created_at_column.as_ref().map(|column| quote(column)),
        });
        Self {
            own: SheetStatements { select: own_select, ..sheet_statements(&forms.own) },
            children: forms.children.iter().map(sheet_statements).collect(),
            page,
        }
    }

    /// A page of an actor's documents: ? actor, three times ? time of the last one before, ? its id, ? limit; id, time.
    /// With `within`, after ? actor: ? oldest, ? newer than all; an index on actor and time can find them. `None` where
    /// there is no actor column.
    pub fn page(&self, within: bool) -> Option<String> {
        let Page { name, shown_id, ordered_id, last_id, actor, ms, created } = self.page.as_ref()?;
        let within = match created {
            Some(created) if within => format!(" AND {created} >= ? AND {created} < ?"),
            _ => String::new(),
        };
        Some(format!(
            "SELECT i, m FROM (SELECT {shown_id} AS i, {ms} AS m, {ordered_id} AS x FROM {name}
             WHERE {actor} = ?{within}) AS p
             WHERE ? IS NULL OR m < ? OR (m = ? AND x < {last_id}) ORDER BY m DESC, x DESC LIMIT ?"
        ))
    }

    /// How old a page's last document is at most: ? actor, ? time of the last one before, ? limit less one. `None` where
    /// there are no actors or no times.
    pub fn page_start(&self) -> Option<String> {
        let Page { name, actor, ms, created: Some(created), .. } = self.page.as_ref()? else { return None };
        Some(format!(
            "SELECT {ms} FROM {name} WHERE {actor} = ? AND {created} < ? ORDER BY {created} DESC LIMIT 1 OFFSET ?"
        ))
    }
}

impl SheetStatements {
    /// Inserts `count` rows, each with the values of the sheet's columns.
    pub fn insert(&self, count: usize) -> String {
        format!("{} {}", self.insert, list(&self.row, count))
    }

    /// Rows of `count` documents: `count` × ? id. Of the table of the documents: id, actor, time, fields; of the others:
    /// id of the document, fields, in order. Fields are text.
    pub fn select(&self, count: usize) -> String {
        format!("{} IN ({}){}", self.select, list("?", count), self.order)
    }
}

fn sheet_statements(sheet: &Sheet) -> SheetStatements {
    let columns: Vec<String> = sheet.slots.iter().map(|slot| quote(&slot.name)).collect();
    let value = |default: &Option<String>| match default {
        Some(default) => format!("COALESCE(?, {default})"),
        None => "?".to_owned(),
    };
    let values: Vec<String> = sheet.slots.iter().map(|slot| value(&slot.default)).collect();
    let (parent, shown_parent) = match sheet.slots.first().map(|slot| (quote(&slot.name), slot.form)) {
        Some((name, SlotForm::Id(form))) => (name.clone(), shown(form, &name)),
        _ => (String::new(), String::new()),
    };
    let order: String = sheet.order.iter().map(|name| format!(", {}", quote(name))).collect();
    let name = path(&sheet.table);
    SheetStatements {
        insert: format!("INSERT INTO {name} ({}) VALUES", columns.join(", ")),
        row: format!("({})", values.join(", ")),
        select: format!("SELECT {shown_parent}{} FROM {name} WHERE {parent}", fields(sheet)),
        order: if order.is_empty() { order } else { format!(" ORDER BY {parent}{order}") },
    }
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
