//! Statements of preferences.

use super::{path, quote, shown};
use crate::exec::preferences::{Forms, PreferenceStatements};
use crate::introspection::preference::FieldForm;
use crate::mysql::CHUNK;
use crate::mysql::wire::Template;
use weir_core::config::PreferenceTable;

/// Placeholders of one statement; the protocol has room for twice as many.
const PLACEHOLDERS_MAX: usize = 32_768;

/// The statements of one kind.
pub(in crate::mysql) fn statements(table: &PreferenceTable, forms: &Forms) -> PreferenceStatements<Template> {
    let (name, member) = (path(&table.name), quote(&table.member_column));
    let columns: Vec<String> = table.fields.iter().map(|field| quote(&field.column)).collect();
    let shown_member = shown(forms.member, &member);
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
        let select = format!("SELECT {} FROM {} WHERE {key} IN (", shown(form, &key), path(&members.name));
        Template::padded(CHUNK).text(select).list().text(")")
    });
    let most = members_per_write(columns.len());
    let row = format!("({})", super::list("?", columns.len() + 1));
    PreferenceStatements {
        settings: Template::padded(CHUNK)
            .text(format!("SELECT {shown_member}, {} FROM {name} WHERE {member} IN (", shown_columns.join(", ")))
            .list()
            .text(")"),
        members,
        insert: Template::exact(most)
            .text(format!("INSERT INTO {name} ({member}, {}) VALUES ", columns.join(", ")))
            .each(row, ", ", (0..=columns.len()).collect::<Vec<_>>()),
        update: update(&name, &member, &columns, most),
        lock: Some(
            Template::padded(most)
                .text(format!("SELECT {shown_member} FROM {name} WHERE {member} IN ("))
                .list()
                .text(format!(") ORDER BY {member} FOR UPDATE"))
                .no_wait(super::NOWAIT),
        ),
    }
}

fn update(name: &str, member: &str, columns: &[String], most: usize) -> Template {
    let mut template = Template::padded(most).text(format!("UPDATE {name} SET "));
    for (index, column) in columns.iter().enumerate() {
        let between = if index > 0 { ", " } else { "" };
        template = template
            .text(format!("{between}{column} = COALESCE(CASE {member}"))
            .each(" WHEN ? THEN ?", "", [0, index + 1])
            .text(format!(" END, {column})"));
    }
    template.text(format!(" WHERE {member} IN (")).list().text(")")
}

/// Members of one write, each with so many fields: a power of two.
fn members_per_write(fields: usize) -> usize {
    let fit = PLACEHOLDERS_MAX / (2 * fields + 1);
    CHUNK.min(1 << fit.max(1).ilog2())
}
