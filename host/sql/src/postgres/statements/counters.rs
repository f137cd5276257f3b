//! Statements of a counter.

use super::{from_millis, path, quote, sql_type};
use crate::exec::counters::{CounterStatements, Forms};
use crate::introspection::TimeForm;
use crate::wire::Fixed;
use weir_core::config::CounterTable;

/// The statements of one kind: $1 targets, $2 sums; of events $1 targets, $2 actors, then times and numbers.
pub(in crate::postgres) fn statements(table: &CounterTable, forms: &Forms) -> CounterStatements<Fixed> {
    let (name, key, count) = (path(&table.name), quote(&table.key_column), quote(&table.count_column));
    let k = sql_type(forms.key);
    CounterStatements {
        lock: Some(
            format!(
                "SELECT f.{key}::{k} FROM {name} AS f WHERE f.{key} = ANY ($1::{k}[]) ORDER BY f.{key}
                 FOR NO KEY UPDATE OF f"
            )
            .into(),
        ),
        add: format!(
            "UPDATE {name} AS f SET {count} = COALESCE(f.{count}, 0) + d.change
                 FROM unnest($1::{k}[], $2::int8[]) AS d (id, change) WHERE f.{key} = d.id"
        )
        .into(),
        counts: format!(
            "SELECT f.{key}::{k}, COALESCE(f.{count}, 0)::int8 FROM {name} AS f WHERE f.{key} = ANY ($1::{k}[])"
        )
        .into(),
        events: events(table, forms).map(Fixed::from),
    }
}

fn events(table: &CounterTable, forms: &Forms) -> Option<String> {
    let (events, forms) = (table.events.as_ref()?, forms.events?);
    let mut columns = vec![quote(&events.target_column), quote(&events.actor_column)];
    let mut given = vec![format!("$1::{}[]", sql_type(forms.target)), format!("$2::{}[]", sql_type(forms.actor))];
    let (mut names, mut values) = (vec!["t", "a"], vec!["u.t".to_owned(), "u.a".to_owned()]);
    if let (Some(column), Some(form)) = (&events.created_at_column, forms.created) {
        let of = if form == TimeForm::Iso { "text" } else { "int8" };
        given.push(format!("${}::{of}[]", given.len() + 1));
        columns.push(quote(column));
        names.push("c");
        values.push(from_millis(form, "u.c"));
    }
    if let Some(column) = &events.by_column {
        given.push(format!("${}::int8[]", given.len() + 1));
        columns.push(quote(column));
        names.push("n");
        values.push("u.n".to_owned());
    }
    Some(format!(
        "INSERT INTO {} ({}) SELECT {} FROM unnest({}) AS u ({})",
        path(&events.name),
        columns.join(", "),
        values.join(", "),
        given.join(", "),
        names.join(", ")
    ))
}
