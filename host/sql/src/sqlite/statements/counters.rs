//! Statements of a counter.

use super::{given, path, quote};
use crate::exec::counters::{CounterStatements, Forms};
use crate::wire::Fixed;
use weir_core::config::CounterTable;

/// The statements of one kind: ?1 `[target, …]`, `[[target, sum], …]`, `[[target, actor, time, number], …]`. This engine makes a
/// float of a sum that leaves 64 bits: such a count is left as it is.
pub(in crate::sqlite) fn statements(table: &CounterTable, forms: &Forms) -> CounterStatements<Fixed> {
    let (name, key, count) = (path(&table.name), quote(&table.key_column), quote(&table.count_column));
    let (one_key, given_key) = (given(forms.key, "j.value"), given(forms.key, "value ->> 0"));
    CounterStatements {
        lock: None,
        add: format!(
            "UPDATE OR ABORT {name} AS f SET {count} = COALESCE(f.{count}, 0) + d.weir_change
                 FROM (SELECT {given_key} AS weir_id, value ->> 1 AS weir_change FROM json_each(?1)) AS d
                 WHERE f.{key} = d.weir_id AND typeof(COALESCE(f.{count}, 0)) = 'integer'
                 AND typeof(COALESCE(f.{count}, 0) + d.weir_change) = 'integer' RETURNING {key}"
        )
        .into(),
        counts: format!(
            "SELECT {key}, COALESCE({count}, 0) FROM {name} WHERE {key} IN (SELECT {one_key} FROM json_each(?1) AS j)"
        )
        .into(),
        events: events(table, forms).map(Fixed::from),
    }
}

fn events(table: &CounterTable, forms: &Forms) -> Option<String> {
    let (events, forms) = (table.events.as_ref()?, forms.events?);
    let mut columns = vec![quote(&events.target_column), quote(&events.actor_column)];
    let mut values = vec![given(forms.target, "j.value ->> 0"), given(forms.actor, "j.value ->> 1")];
    for column in [&events.created_at_column, &events.by_column].into_iter().flatten() {
        values.push(format!("j.value ->> {}", values.len()));
        columns.push(quote(column));
    }
    let (name, columns, values) = (path(&events.name), columns.join(", "), values.join(", "));
    Some(format!("INSERT OR ABORT INTO {name} ({columns}) SELECT {values} FROM json_each(?1) AS j"))
}
