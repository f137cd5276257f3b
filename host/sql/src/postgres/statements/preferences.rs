//! Statements of members' settings.

use super::{path, quote, sql_type};
use crate::exec::preferences::{Forms, PreferenceStatements};
use crate::introspection::preference::FieldForm;
use crate::wire::Fixed;
use weir_core::config::PreferenceTable;

/// The statements of one kind: $1 members, then the values of each field as text. Who has a row is passed over before a number
/// is taken from a sequence for it; `ON CONFLICT` alone would take one first.
pub(in crate::postgres) fn statements(table: &PreferenceTable, forms: &Forms) -> PreferenceStatements<Fixed> {
    let (name, member, k) = (path(&table.name), quote(&table.member_column), sql_type(forms.member));
    let columns: Vec<String> = table.fields.iter().map(|field| quote(&field.column)).collect();
    let list = |one: &dyn Fn(usize, &str, FieldForm) -> String| {
        let fields = columns.iter().zip(&forms.fields).enumerate();
        let all: Vec<String> = fields.map(|(index, (column, form))| one(index + 1, column, *form)).collect();
        all.join(", ")
    };
    let arrays = list(&|place, _, _| format!("${}::text[]", place + 1));
    let names = list(&|place, _, _| format!("v{place}"));
    let values = list(&|place, _, form| format!("u.v{place}::{}", cast(form)));
    let set = list(&|place, column, form| format!("{column} = COALESCE(u.v{place}::{}, f.{column})", cast(form)));
    let read = list(&|_, column, form| match form {
        FieldForm::Boolean => format!("f.{column}::int4::int8"),
        FieldForm::Integer => format!("f.{column}::int8"),
        FieldForm::Text => format!("f.{column}::text"),
    });
    let members = table.members.as_ref().zip(forms.key).map(|(members, form)| {
        let (name, key, k) = (path(&members.name), quote(&members.key_column), sql_type(form));
        format!("SELECT m.{key}::{k} FROM {name} AS m WHERE m.{key} = ANY ($1::{k}[])")
    });
    let from = format!("unnest($1::{k}[], {arrays}) AS u (m, {names})");
    PreferenceStatements {
        lock: None,
        insert: format!(
            "INSERT INTO {name} ({member}, {}) SELECT u.m, {values} FROM {from}
                 WHERE NOT EXISTS (SELECT 1 FROM {name} AS f WHERE f.{member} = u.m) ON CONFLICT ({member}) DO NOTHING",
            columns.join(", ")
        )
        .into(),
        update: format!("UPDATE {name} AS f SET {set} FROM {from} WHERE f.{member} = u.m").into(),
        settings: format!("SELECT f.{member}::{k}, {read} FROM {name} AS f WHERE f.{member} = ANY ($1::{k}[])").into(),
        members: members.map(Fixed::from),
    }
}

/// What text becomes on its way into a column: the engine refuses what then does not fit.
fn cast(form: FieldForm) -> &'static str {
    match form {
        FieldForm::Boolean => "bool",
        FieldForm::Integer => "int8",
        FieldForm::Text => "text",
    }
}
