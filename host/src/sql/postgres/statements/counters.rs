//! Statements of a counter.

use std::sync::Arc;

use super::{from_millis, path, quote, sql_type};
use crate::config::CounterTable;
use crate::sql::facts::TimeForm;
use crate::sql::facts::counter::Forms;

/// The statements of one kind.
#[derive(Debug)]
pub(in crate::sql::postgres) struct Statements {
    /// Locks rows of targets in order: $1 targets; those that are there.
    pub lock: Arc<str>,
    /// Adds to counts: $1 targets, $2 sums.
    pub add: Arc<str>,
    /// Counts: $1 targets.
    pub counts: Arc<str>,
    /// Inserts events: $1 targets, $2 actors, then times and numbers, if there are columns. Empty where none are kept.
    pub events: Arc<str>,
}

impl Statements {
    /// Words them.
    pub fn new(table: &CounterTable, forms: Forms) -> Self {
        let (name, key, count) = (path(&table.name), quote(&table.key_column), quote(&table.count_column));
        let k = sql_type(forms.key);
        Self {
            lock: format!(
                "SELECT f.{key}::{k} FROM {name} AS f WHERE f.{key} = ANY ($1::{k}[]) ORDER BY f.{key}
                 FOR NO KEY UPDATE OF f"
            )
            .into(),
            add: format!(
                "UPDATE {name} AS f SET {count} = COALESCE(f.{count}, 0) + d.change
                 FROM unnest($1::{k}[], $2::int8[]) AS d (id, change) WHERE f.{key} = d.id"
            )
            .into(),
            counts: format!(
                "SELECT f.{key}::{k}, COALESCE(f.{count}, 0)::int8 FROM {name} AS f WHERE f.{key} = ANY ($1::{k}[])"
            )
            .into(),
            events: events(table, forms).unwrap_or_default().into(),
        }
    }
}

fn events(table: &CounterTable, forms: Forms) -> Option<String> {
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
