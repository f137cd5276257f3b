//! Statements of a counter.

use std::sync::Arc;

use super::{given, path, quote};
use crate::config::CounterTable;
use crate::sql::facts::counter::Forms;

/// The statements of one kind.
#[derive(Debug)]
pub(in crate::sql::sqlite) struct Statements {
    /// Adds to counts: ?1 `[[target, sum], …]`; returns the targets to which it added. This engine makes a float of a sum
    /// that leaves 64 bits: such a count is left as it is.
    pub add: Arc<str>,
    /// Counts: ?1 `[target, …]`.
    pub counts: Arc<str>,
    /// Inserts events: ?1 `[[target, actor, time, number], …]`, of the last two those that have a column. Empty where none
    /// are kept.
    pub events: Arc<str>,
}

impl Statements {
    /// Words them.
    pub fn new(table: &CounterTable, forms: Forms) -> Self {
        let (name, key, count) = (path(&table.name), quote(&table.key_column), quote(&table.count_column));
        let (one_key, given_key) = (given(forms.key, "j.value"), given(forms.key, "value ->> 0"));
        Self {
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
            events: events(table, forms).unwrap_or_default().into(),
        }
    }
}

fn events(table: &CounterTable, forms: Forms) -> Option<String> {
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
