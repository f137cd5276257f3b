//! Statements of members' settings.

use super::{given, path, quote};
use crate::exec::preferences::{Forms, PreferenceStatements};
use crate::wire::Fixed;
use weir_core::config::PreferenceTable;

/// The statements of one kind: ?1 `[member, …]`, `[[member, field, …], …]`. Who has a row is passed over before the next number of
/// an AUTOINCREMENT is taken.
pub(in crate::sqlite) fn statements(table: &PreferenceTable, forms: &Forms) -> PreferenceStatements<Fixed> {
    let (name, member) = (path(&table.name), quote(&table.member_column));
    let columns: Vec<String> = table.fields.iter().map(|field| quote(&field.column)).collect();
    let one_member = given(forms.member, "j.value");
    let list = |one: &dyn Fn(usize, &String) -> String| {
        let all: Vec<String> = columns.iter().enumerate().map(|(index, column)| one(index + 1, column)).collect();
        all.join(", ")
    };
    let (into, values) = (columns.join(", "), list(&|place, _| format!("j.value ->> {place}")));
    let set = list(&|place, column| format!("{column} = COALESCE(d.weir_{place}, f.{column})"));
    let read = list(&|place, _| format!("value ->> {place} AS weir_{place}"));
    let members = table.members.as_ref().zip(forms.key).map(|(members, form)| {
        let (name, key, one) = (path(&members.name), quote(&members.key_column), given(form, "j.value"));
        format!("SELECT {key} FROM {name} WHERE {key} IN (SELECT {one} FROM json_each(?1) AS j)")
    });
    PreferenceStatements {
        lock: None,
        insert: format!(
            "INSERT OR ABORT INTO {name} ({member}, {into}) SELECT {0}, {values} FROM json_each(?1) AS j
                 WHERE NOT EXISTS (SELECT 1 FROM {name} AS f WHERE f.{member} = {0}) ON CONFLICT ({member}) DO NOTHING",
            given(forms.member, "j.value ->> 0")
        )
        .into(),
        update: format!(
            "UPDATE OR ABORT {name} AS f SET {set} FROM (SELECT {} AS weir_id, {read} FROM json_each(?1)) AS d
                 WHERE f.{member} = d.weir_id",
            given(forms.member, "value ->> 0")
        )
        .into(),
        settings: format!(
            "SELECT {member}, {into} FROM {name} WHERE {member} IN (SELECT {one_member} FROM json_each(?1) AS j)"
        )
        .into(),
        members: members.map(Fixed::from),
    }
}
