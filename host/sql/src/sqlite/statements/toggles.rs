//! Statements of a toggle.

use super::{given, millis, path, quote};
use crate::exec::documents::PageWithin;
use crate::exec::toggles::{Forms, MemberStatement, ToggleStatements, WriteStatements};
use crate::introspection::{IdForm, TimeForm};
use crate::wire::Fixed;
use weir_core::config::ToggleTable;

/// The statements of one kind: ?1 `[target, …]`, `[[target, actor], …]`, `[[target, actor, time], …]`, `[[target, delta], …]`; ?2
/// bound. Pairs that are there are passed over before the next number of an AUTOINCREMENT is taken. Targets are numbered from 0.
pub(in crate::sqlite) fn statements(table: &ToggleTable, forms: &Forms) -> ToggleStatements<Fixed> {
    let (name, target, actor) = (path(&table.name), quote(&table.target_column), quote(&table.actor_column));
    let (given_target, given_actor) = (given(forms.target, "j.value ->> 0"), given(forms.actor, "j.value ->> 1"));
    let one_target = given(forms.target, "j.value");
    let ms = millis(table.created_at_column.as_ref(), forms.created);
    let (into, times) = match &table.created_at_column {
        Some(column) => (format!("({target}, {actor}, {})", quote(column)), ", j.value ->> 2"),
        None => (format!("({target}, {actor})"), ""),
    };
    let (counts, known) = target_statements(table, forms);
    let (page, within) = page_statements(table, forms);
    let delete = format!(
        "DELETE FROM {name} WHERE ({target}, {actor}) IN (SELECT {given_target}, {given_actor}
                 FROM json_each(?1) AS j) RETURNING {target}"
    );
    let insert = format!(
        "INSERT OR ABORT INTO {name} {into} SELECT {given_target}, {given_actor}{times} FROM json_each(?1) AS j
                 WHERE NOT EXISTS (SELECT 1 FROM {name} AS l WHERE l.{target} = {given_target}
                 AND l.{actor} = {given_actor}) ON CONFLICT ({target}, {actor}) DO NOTHING RETURNING {target}"
    );
    ToggleStatements {
        lock_counts: None,
        counts,
        known,
        sizes: format!(
            "SELECT j.key, (SELECT count(*) FROM (SELECT 1 FROM {name} AS l WHERE l.{target} = {one_target}
                 LIMIT ?2)) FROM json_each(?1) AS j"
        )
        .into(),
        members: MemberStatement::All(
            format!(
                "SELECT {target}, {actor}, {ms} FROM {name} WHERE {target} IN (SELECT {one_target}
                 FROM json_each(?1) AS j)"
            )
            .into(),
        ),
        totals: format!(
            "SELECT j.key, (SELECT count(*) FROM {name} AS l WHERE l.{target} = {one_target})
                 FROM json_each(?1) AS j"
        )
        .into(),
        pairs: format!(
            "SELECT j.key, {ms} FROM json_each(?1) AS j CROSS JOIN {name} AS l
                 ON l.{target} = {given_target} AND l.{actor} = {given_actor}"
        )
        .into(),
        page,
        within,
        delete_plan: format!("EXPLAIN QUERY PLAN {delete}").into(),
        write: WriteStatements::Returning { delete: delete.into(), insert: insert.into(), says_skipping: false },
    }
}

/// The page: ?1 target, ?2 and ?3 time and text of the last one before, ?4 limit; within ?5 and ?6. Its start: ?1 target, ?2 time
/// of the last one before, ?3 limit less one.
fn page_statements(table: &ToggleTable, forms: &Forms) -> (Fixed, Option<PageWithin<Fixed>>) {
    let (name, target, actor) = (path(&table.name), quote(&table.target_column), quote(&table.actor_column));
    let ms = millis(table.created_at_column.as_ref(), forms.created);
    let actor_text = match forms.actor {
        IdForm::UuidBytes => format!("lower(hex({actor}))"),
        _ => format!("CAST({actor} AS TEXT)"),
    };
    let page_target = given(forms.target, "?1");
    let page = |within: &str| -> Fixed {
        format!(
            "SELECT a, m FROM (SELECT {actor} AS a, {ms} AS m, {actor_text} AS x FROM {name}
             WHERE {target} = {page_target}{within}) WHERE ?2 IS NULL OR (m, x) < (?2, ?3)
             ORDER BY m DESC, x DESC LIMIT ?4"
        )
        .into()
    };
    let time = table.created_at_column.as_ref().map(|column| quote(column)).unwrap_or_default();
    let within = (forms.created == Some(TimeForm::Millis)).then(|| {
        let start = format!(
            "SELECT {time} FROM {name} WHERE {target} = {page_target} AND {time} < ?2 ORDER BY {time} DESC
             LIMIT 1 OFFSET ?3"
        );
        PageWithin { start: start.into(), page: page(&format!(" AND {time} >= ?5 AND {time} < ?6")) }
    });
    (page(""), within)
}

/// `counts` and `known`.
fn target_statements(table: &ToggleTable, forms: &Forms) -> (Option<Fixed>, Option<Fixed>) {
    let (Some(targets), Some(key_form)) = (&table.targets, forms.key) else { return (None, None) };
    let (name, key) = (path(&targets.name), quote(&targets.key_column));
    let count = targets.count_column.as_ref().map(|column| quote(column));
    let counts = count.as_ref().map(|count| {
        let given_key = given(key_form, "value ->> 0");
        format!(
            "UPDATE OR ABORT {name} AS f SET {count} = max(COALESCE({count}, 0) + d.change, 0)
             FROM (SELECT {given_key} AS id, value ->> 1 AS change FROM json_each(?1)) AS d WHERE f.{key} = d.id"
        )
        .into()
    });
    let shown = count.map_or_else(|| "NULL".to_owned(), |count| format!("COALESCE({count}, 0)"));
    let one_key = given(key_form, "j.value");
    let known = format!("SELECT {key}, {shown} FROM {name} WHERE {key} IN (SELECT {one_key} FROM json_each(?1) AS j)");
    (counts, Some(known.into()))
}
