//! Statements of a toggle.

use std::sync::Arc;

use super::{may_skip, millis, path, point, quote, sql_type};
use crate::config::ToggleTable;
use crate::sql::facts::TimeForm;
use crate::sql::facts::toggle::Forms;

/// The statements of one kind.
#[derive(Debug)]
pub(in crate::sql::postgres) struct Statements {
    /// Deletes pairs: $1 targets, $2 actors; the targets of those that were there, how many, and whether there are triggers
    /// that may discard a row.
    pub delete: Arc<str>,
    /// Inserts pairs: $1 targets, $2 actors, $3 times if there is a column; as `delete`. Pairs that are there are passed over
    /// before a number is taken from a sequence for them.
    pub insert: Arc<str>,
    /// Locks rows of targets in order: $1 targets. Empty where no count is kept.
    pub lock_counts: Arc<str>,
    /// Adds to counts: $1 targets, $2 deltas.
    pub counts: Arc<str>,
    /// Which targets exist, and their counts: $1 targets.
    pub known: Arc<str>,
    /// Members of each target up to a bound: $1 targets, $2 bound; index from 1, actor, time.
    pub members: Arc<str>,
    /// Number of members up to a bound: $1 one target, $2 bound.
    pub size: Arc<str>,
    /// Exact numbers of members: $1 targets; index from 1.
    pub totals: Arc<str>,
    /// Pairs: $1 targets, $2 actors; index from 1 and time of those that are there.
    pub pairs: Arc<str>,
    /// A page of members: $1 one target, $2 and $3 time and text of the last one before, $4 limit.
    pub page: Arc<str>,
    /// As `page`, of those not older than $5 and older than $6: an index on target and time can find them.
    pub page_within: Arc<str>,
    /// How old the page's last member is at most: $1 one target, $2 time of the last one before, $3 limit less one.
    /// Empty where times are not in an order that an index has.
    pub page_start: Arc<str>,
    /// The plan of `delete`, as JSON.
    pub delete_plan: Arc<str>,
}

impl Statements {
    /// Words them.
    pub fn new(table: &ToggleTable, forms: Forms) -> Self {
        let (name, target, actor) = (path(&table.name), quote(&table.target_column), quote(&table.actor_column));
        let (t, a) = (sql_type(forms.target), sql_type(forms.actor));
        let ms = millis(table.created_at_column.as_ref(), forms.created);
        let (column, times, time) = match (&table.created_at_column, forms.created) {
            (Some(column), Some(TimeForm::Iso)) => (format!(", {}", quote(column)), ", $3::text[]", ", u.c"),
            (Some(column), Some(TimeForm::Millis)) => (format!(", {}", quote(column)), ", $3::int8[]", ", u.c"),
            (Some(column), Some(TimeForm::Zoned(_))) => (
                format!(", {}", quote(column)),
                ", $3::int8[]",
                ", timestamptz 'epoch' + u.c * interval '1 millisecond'",
            ),
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
        let (page, page_within, page_start) = page_statements(table, forms);
        Self {
            insert: format!(
                "WITH come AS (INSERT INTO {name} ({target}, {actor}{column})
                 SELECT u.t, u.a{time} FROM unnest($1::{t}[], $2::{a}[]{times}) AS {alias}
                 WHERE NOT EXISTS (SELECT 1 FROM {name} AS l WHERE l.{target} = u.t AND l.{actor} = u.a)
                 ON CONFLICT ({target}, {actor}) DO NOTHING RETURNING {target} AS t)
                 SELECT t::{t}, count(*), {} FROM come GROUP BY 1",
                may_skip(&name, "INSERT")
            )
            .into(),
            lock_counts,
            counts,
            known,
            members: format!(
                "SELECT u.o, m.a, m.ms FROM unnest($1::{t}[]) WITH ORDINALITY AS u (t, o) CROSS JOIN LATERAL
                 (SELECT l.{actor}::{a} AS a, {ms} AS ms FROM {name} AS l WHERE l.{target} = u.t LIMIT $2) AS m"
            )
            .into(),
            size: format!(
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
            page_within,
            page_start,
            delete_plan: format!("EXPLAIN (FORMAT JSON) {delete}").into(),
            delete: delete.into(),
        }
    }
}

/// `page`, `page_within` and `page_start`.
fn page_statements(table: &ToggleTable, forms: Forms) -> (Arc<str>, Arc<str>, Arc<str>) {
    let (name, target, actor) = (path(&table.name), quote(&table.target_column), quote(&table.actor_column));
    let (t, a) = (sql_type(forms.target), sql_type(forms.actor));
    let ms = millis(table.created_at_column.as_ref(), forms.created);
    let created = table.created_at_column.as_ref().map(|column| quote(column)).unwrap_or_default();
    let page = |within: String| -> Arc<str> {
        format!(
            "SELECT p.a, p.m FROM (SELECT l.{actor}::{a} AS a, {ms} AS m, l.{actor}::text COLLATE \"C\" AS x
             FROM {name} AS l WHERE l.{target} = ($1::{t}[])[1]{within}) AS p
             WHERE $2::int8 IS NULL OR (p.m, p.x) < ($2::int8, $3::text COLLATE \"C\")
             ORDER BY p.m DESC, p.x DESC LIMIT $4"
        )
        .into()
    };
    let point = point(forms.created);
    let page_start = point.as_ref().map_or_else(String::new, |point| {
        format!(
            "SELECT {ms} FROM {name} AS l WHERE l.{target} = ($1::{t}[])[1] AND l.{created} < {}
             ORDER BY l.{created} DESC OFFSET $3 LIMIT 1",
            point("$2")
        )
    });
    let within = point.as_ref().map_or_else(String::new, |point| {
        format!(" AND l.{created} >= {} AND l.{created} < {}", point("$5"), point("$6"))
    });
    (page(String::new()), page(within), page_start.into())
}

fn target_statements(table: &ToggleTable, forms: Forms) -> (Arc<str>, Arc<str>, Arc<str>) {
    let (Some(targets), Some(form)) = (&table.targets, forms.key) else { return ("".into(), "".into(), "".into()) };
    let (name, key, k) = (path(&targets.name), quote(&targets.key_column), sql_type(form));
    let count = targets.count_column.as_ref().map(|column| quote(column));
    let (lock, counts) = match &count {
        None => (String::new(), String::new()),
        Some(count) => (
            format!(
                "SELECT 1 FROM {name} AS f WHERE f.{key} = ANY ($1::{k}[]) ORDER BY f.{key} FOR NO KEY UPDATE OF f"
            ),
            format!(
                "UPDATE {name} AS f SET {count} = GREATEST(COALESCE(f.{count}, 0) + d.change, 0)
                 FROM unnest($1::{k}[], $2::int8[]) AS d (id, change) WHERE f.{key} = d.id"
            ),
        ),
    };
    let shown = count.map_or_else(|| "NULL::int8".to_owned(), |count| format!("COALESCE(f.{count}, 0)::int8"));
    let known = format!("SELECT f.{key}::{k}, {shown} FROM {name} AS f WHERE f.{key} = ANY ($1::{k}[])");
    (lock.into(), counts.into(), known.into())
}
