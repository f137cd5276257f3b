//! Statements of a counter.

use super::{list, path, quote, shown};
use crate::config::CounterTable;
use crate::sql::facts::counter::Forms;

/// The statements of one kind.
#[derive(Debug)]
pub(in crate::sql::mysql) struct Statements {
    name: String,
    key: String,
    shown_key: String,
    count: String,
    events: Option<Events>,
}

#[derive(Debug)]
struct Events {
    name: String,
    columns: Vec<String>,
}

impl Statements {
    /// Words the parts that do not depend on the size of a batch.
    pub fn new(table: &CounterTable, forms: Forms) -> Self {
        let events = table.events.as_ref().map(|events| {
            let others = [&events.created_at_column, &events.by_column].into_iter().flatten();
            let columns = [&events.target_column, &events.actor_column].into_iter().chain(others);
            Events { name: path(&events.name), columns: columns.map(|column| quote(column)).collect() }
        });
        let key = quote(&table.key_column);
        Self {
            name: path(&table.name),
            shown_key: shown(forms.key, &key),
            key,
            count: quote(&table.count_column),
            events,
        }
    }

    /// Locks rows of targets in order, and says which are there: `count` × ? target.
    pub fn lock(&self, count: usize) -> String {
        let Self { name, key, shown_key, .. } = self;
        format!("SELECT {shown_key} FROM {name} WHERE {key} IN ({}) ORDER BY {key} FOR UPDATE", list("?", count))
    }

    /// Adds to counts: `count` × (? target, ? sum), then `count` × ? target.
    pub fn add(&self, count: usize) -> String {
        let Self { name, key, count: column, .. } = self;
        format!(
            "UPDATE {name} SET {column} = COALESCE({column}, 0) + CASE {key}{} ELSE 0 END WHERE {key} IN ({})",
            " WHEN ? THEN CAST(? AS SIGNED)".repeat(count),
            list("?", count)
        )
    }

    /// Counts: `count` × ? target.
    pub fn counts(&self, count: usize) -> String {
        let Self { name, key, shown_key, count: column, .. } = self;
        format!(
            "SELECT {shown_key}, CAST(GREATEST(COALESCE({column}, 0), 0) AS UNSIGNED) FROM {name} WHERE {key} IN ({})",
            list("?", count)
        )
    }

    /// Inserts events: `count` × (? target, ? actor[, ? time][, ? number]). `None` where none are kept.
    pub fn events(&self, count: usize) -> Option<String> {
        let Events { name, columns } = self.events.as_ref()?;
        let row = format!("({})", list("?", columns.len()));
        Some(format!("INSERT INTO {name} ({}) VALUES {}", columns.join(", "), list(&row, count)))
    }
}
