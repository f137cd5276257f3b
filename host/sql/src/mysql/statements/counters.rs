//! Statements of a counter.

use super::{path, quote, shown};
use crate::exec::counters::{CounterStatements, Forms};
use crate::mysql::CHUNK;
use crate::mysql::wire::Template;
use weir_core::config::CounterTable;

/// The statements of one kind.
pub(in crate::mysql) fn statements(table: &CounterTable, forms: &Forms) -> CounterStatements<Template> {
    let (name, key, column) = (path(&table.name), quote(&table.key_column), quote(&table.count_column));
    let shown_key = shown(forms.key, &key);
    CounterStatements {
        lock: Some(
            Template::padded(CHUNK)
                .text(format!("SELECT {shown_key} FROM {name} WHERE {key} IN ("))
                .list()
                .text(format!(") ORDER BY {key} FOR UPDATE"))
                .no_wait(super::NOWAIT),
        ),
        add: Template::padded(CHUNK)
            .text(format!("UPDATE {name} SET {column} = COALESCE({column}, 0) + CASE {key}"))
            .each(" WHEN ? THEN CAST(? AS SIGNED)", "", [0, 1])
            .text(format!(" ELSE 0 END WHERE {key} IN ("))
            .list()
            .text(")"),
        counts: Template::padded(CHUNK)
            .text(format!(
                "SELECT {shown_key}, CAST(GREATEST(COALESCE({column}, 0), 0) AS UNSIGNED) FROM {name} WHERE {key} IN ("
            ))
            .list()
            .text(")"),
        events: events(table),
    }
}

fn events(table: &CounterTable) -> Option<Template> {
    let events = table.events.as_ref()?;
    let others = [&events.created_at_column, &events.by_column].into_iter().flatten();
    let columns = [&events.target_column, &events.actor_column].into_iter().chain(others);
    let columns: Vec<String> = columns.map(|column| quote(column)).collect();
    let row = format!("({})", super::list("?", columns.len()));
    let insert = format!("INSERT INTO {} ({}) VALUES ", path(&events.name), columns.join(", "));
    Some(Template::exact(CHUNK).text(insert).each(row, ", ", (0..columns.len()).collect::<Vec<_>>()))
}
