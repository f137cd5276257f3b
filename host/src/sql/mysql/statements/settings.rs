//! Statements of members' settings.

use super::{list, path, quote, shown};
use crate::config::PreferenceTable;
use crate::sql::facts::preference::{FieldForm, Forms};

/// The statements of one kind.
#[derive(Debug)]
pub(in crate::sql::mysql) struct Statements {
    name: String,
    member: String,
    shown_member: String,
    columns: Vec<String>,
    shown_columns: String,
    /// Table, key, and the key as it is read.
    members: Option<(String, String, String)>,
}

impl Statements {
    /// Words the parts that do not depend on the size of a batch.
    pub fn new(table: &PreferenceTable, forms: &Forms) -> Self {
        let member = quote(&table.member_column);
        let columns: Vec<String> = table.fields.iter().map(|field| quote(&field.column)).collect();
        let shown_columns: Vec<String> = columns
            .iter()
            .zip(&forms.fields)
            .map(|(column, form)| match form {
                FieldForm::Text => format!("CONVERT({column} USING utf8mb4)"),
                FieldForm::Boolean | FieldForm::Integer => format!("CAST({column} AS SIGNED)"),
            })
            .collect();
        let members = table.members.as_ref().zip(forms.key).map(|(members, form)| {
            let key = quote(&members.key_column);
            (path(&members.name), key.clone(), shown(form, &key))
        });
        Self {
            name: path(&table.name),
            shown_member: shown(forms.member, &member),
            member,
            columns,
            shown_columns: shown_columns.join(", "),
            members,
        }
    }

    /// Locks rows of members in order, and says which are there: `count` × ? member.
    pub fn lock(&self, count: usize) -> String {
        let Self { name, member, shown_member, .. } = self;
        let members = list("?", count);
        format!("SELECT {shown_member} FROM {name} WHERE {member} IN ({members}) ORDER BY {member} FOR UPDATE")
    }

    /// Inserts rows of members that have none: `count` × (? member, ? fields).
    pub fn insert(&self, count: usize) -> String {
        let Self { name, member, columns, .. } = self;
        let row = format!("({})", list("?", columns.len() + 1));
        format!("INSERT INTO {name} ({member}, {}) VALUES {}", columns.join(", "), list(&row, count))
    }

    /// Changes fields: for each field `count` × (? member, ? value, NULL where nothing changes), then `count` × ? member.
    pub fn update(&self, count: usize) -> String {
        let Self { name, member, columns, .. } = self;
        let when = " WHEN ? THEN ?".repeat(count);
        let set: Vec<String> =
            columns.iter().map(|column| format!("{column} = COALESCE(CASE {member}{when} END, {column})")).collect();
        format!("UPDATE {name} SET {} WHERE {member} IN ({})", set.join(", "), list("?", count))
    }

    /// Settings: `count` × ? member; member, then fields: numbers, or text.
    pub fn settings(&self, count: usize) -> String {
        let Self { name, member, shown_member, shown_columns, .. } = self;
        format!("SELECT {shown_member}, {shown_columns} FROM {name} WHERE {member} IN ({})", list("?", count))
    }

    /// Which members exist: `count` × ? member. `None` where every one does.
    pub fn members(&self, count: usize) -> Option<String> {
        let (name, key, shown_key) = self.members.as_ref()?;
        Some(format!("SELECT {shown_key} FROM {name} WHERE {key} IN ({})", list("?", count)))
    }
}
