//! Statements of a toggle.

use super::{may_skip, millis, path, point, quote, sql_type};
use crate::exec::documents::PageWithin;
use crate::exec::toggles::{Forms, MemberStatement, ToggleStatements, WriteStatements};
use crate::introspection::TimeForm;
use crate::wire::Fixed;
use weir_core::config::ToggleTable;

/// The statements of one kind: $1 targets, $2 actors, $3 times if there is a column; $2 bound; $2 deltas. Targets are numbered
/// from 1.
pub(in crate::postgres) fn statements(table: &ToggleTable, forms: &Forms) -> ToggleStatements<Fixed> {
    let (name, target, actor) = (path(&table.name), quote(&table.target_column), quote(&table.actor_column));
    let (t, a) = (sql_type(forms.target), sql_type(forms.actor));
    let ms = millis(table.created_at_column.as_ref(), forms.created);
    let (column, times, time) = match (&table.created_at_column, forms.created) {
        (Some(column), Some(TimeForm::Iso)) => (format!(", {}", quote(column)), ", $3::text[]", ", u.c"),
        (Some(column), Some(TimeForm::Millis)) => (format!(", {}", quote(column)), ", $3::int8[]", ", u.c"),
        (Some(column), Some(TimeForm::Zoned(_))) => {
            (format!(", {}", quote(column)), ", $3::int8[]", ", timestamptz 'epoch' + u.c * interval '1 millisecond'")
        }
        (Some(column), _) => {
            (format!(", {}", quote(column)), ", $3::int8[]", ", timestamp 'epoch' + u.c * interval '1 millisecond'")
        }
        (None, _) => (String::new(), "", ""),
    };
    let alias = if times.is_empty() { "u (t, a)" } else { "u (t, a, c)" };
    let delete = format!(
        "WITH gone AS (DELETE FROM {name} AS l USING unnest($1::{t}[], $2::{a}[]) AS u (t, a)
             WHERE l.{target} = u.t AND l.{actor} = u.a RETURNING l.{target} AS t)
             SELECT t::{t}, count(*), {} FROM gone GROUP BY 1",
        may_skip(&name, "DELETE")
    );
    let (lock_counts, counts, known) = target_statements(table, forms);
    let (page, within) = page_statements(table, forms);
    let insert = format!(
        "WITH come AS (INSERT INTO {name} ({target}, {actor}{column})
                 SELECT u.t, u.a{time} FROM unnest($1::{t}[], $2::{a}[]{times}) AS {alias}
                 WHERE NOT EXISTS (SELECT 1 FROM {name} AS l WHERE l.{target} = u.t AND l.{actor} = u.a)
                 ON CONFLICT ({target}, {actor}) DO NOTHING RETURNING {target} AS t)
                 SELECT t::{t}, count(*), {} FROM come GROUP BY 1",
        may_skip(&name, "INSERT")
    );
    ToggleStatements {
        lock_counts,
        counts,
        known,
        members: MemberStatement::Bounded(
            format!(
                "SELECT u.o, m.a, m.ms FROM unnest($1::{t}[]) WITH ORDINALITY AS u (t, o) CROSS JOIN LATERAL
                 (SELECT l.{actor}::{a} AS a, {ms} AS ms FROM {name} AS l WHERE l.{target} = u.t LIMIT $2) AS m"
            )
            .into(),
        ),
        sizes: format!(
            "SELECT count(*) FROM (SELECT 1 FROM {name} AS l WHERE l.{target} = ($1::{t}[])[1] LIMIT $2) AS m"
        )
        .into(),
        totals: format!(
            "SELECT u.o, (SELECT count(*) FROM {name} AS l WHERE l.{target} = u.t)
                 FROM unnest($1::{t}[]) WITH ORDINALITY AS u (t, o)"
        )
        .into(),
        pairs: format!(
            "SELECT u.o, {ms} FROM unnest($1::{t}[], $2::{a}[]) WITH ORDINALITY AS u (t, a, o)
                 JOIN {name} AS l ON l.{target} = u.t AND l.{actor} = u.a"
        )
        .into(),
        page,
        within,
        delete_plan: format!("EXPLAIN (FORMAT JSON) {delete}").into(),
        write: WriteStatements::Returning { delete: delete.into(), insert: insert.into(), says_skipping: true },
    }
}

/// The page: $1 one target, $2 and $3 time and text of the last one before, $4 limit; within $5 and $6. Its start: $1 one
/// target, $2 time of the last one before, $3 limit less one.
fn page_statements(table: &ToggleTable, forms: &Forms) -> (Fixed, Option<PageWithin<Fixed>>) {
    let (name, target, actor) = (path(&table.name), quote(&table.target_column), quote(&table.actor_column));
    let (t, a) = (sql_type(forms.target), sql_type(forms.actor));
    let ms = millis(table.created_at_column.as_ref(), forms.created);
    let created = table.created_at_column.as_ref().map(|column| quote(column)).unwrap_or_default();
    let page = |within: String| -> Fixed {
        format!(
            "SELECT p.a, p.m FROM (SELECT l.{actor}::{a} AS a, {ms} AS m, l.{actor}::text COLLATE \"C\" AS x
             FROM {name} AS l WHERE l.{target} = ($1::{t}[])[1]{within}) AS p
             WHERE $2::int8 IS NULL OR (p.m, p.x) < ($2::int8, $3::text COLLATE \"C\")
             ORDER BY p.m DESC, p.x DESC LIMIT $4"
        )
        .into()
    };
    let Some(point) = point(forms.created) else { return (page(String::new()), None) };
    let page_start = format!(
        "SELECT {ms} FROM {name} AS l WHERE l.{target} = ($1::{t}[])[1] AND l.{created} < {}
             ORDER BY l.{created} DESC OFFSET $3 LIMIT 1",
        point("$2")
    );
    let within = format!(" AND l.{created} >= {} AND l.{created} < {}", point("$5"), point("$6"));
    (page(String::new()), Some(PageWithin { start: page_start.into(), page: page(within) }))
}

/// `lock_counts`, `counts` and `known`.
fn target_statements(table: &ToggleTable, forms: &Forms) -> (Option<Fixed>, Option<Fixed>, Option<Fixed>) {
    let (Some(targets), Some(form)) = (&table.targets, forms.key) else { return (None, None, None) };
    let (name, key, k) = (path(&targets.name), quote(&targets.key_column), sql_type(form));
    let count = targets.count_column.as_ref().map(|column| quote(column));
    let lock = count.as_ref().map(|_| {
        format!("SELECT 1 FROM {name} AS f WHERE f.{key} = ANY ($1::{k}[]) ORDER BY f.{key} FOR NO KEY UPDATE OF f")
            .into()
    });
    let counts = count.as_ref().map(|count| {
        format!(
            "UPDATE {name} AS f SET {count} = GREATEST(COALESCE(f.{count}, 0) + d.change, 0)
                 FROM unnest($1::{k}[], $2::int8[]) AS d (id, change) WHERE f.{key} = d.id"
        )
        .into()
    });
    let shown = count.map_or_else(|| "NULL::int8".to_owned(), |count| format!("COALESCE(f.{count}, 0)::int8"));
    let known = format!("SELECT f.{key}::{k}, {shown} FROM {name} AS f WHERE f.{key} = ANY ($1::{k}[])");
    (lock, counts, Some(known.into()))
}
