//! Statements of a toggle.

use std::sync::Arc;

use super::{given, millis, path, quote};
use crate::config::ToggleTable;
use crate::sql::facts::toggle::Forms;
use crate::sql::facts::{IdForm, TimeForm};

/// The statements of one kind.
#[derive(Debug)]
pub(in crate::sql::sqlite) struct Statements {
    /// Deletes pairs: ?1 `[[target, actor], …]`; returns the targets of those that were there.
    pub delete: Arc<str>,
    /// Inserts pairs: ?1 `[[target, actor, time], …]`; returns the targets of those that were not there. Those that are there
    /// are passed over before the next number of an AUTOINCREMENT is taken.
    pub insert: Arc<str>,
    /// Adds to counts: ?1 `[[target, delta], …]`.
    pub counts: Arc<str>,
    /// Which targets exist, and their counts: ?1 `[target, …]`.
    pub known: Arc<str>,
    /// Members of each target up to a bound: ?1 `[target, …]`, ?2 bound; index and number.
    pub sizes: Arc<str>,
    /// Members: ?1 `[target, …]`.
    pub members: Arc<str>,
    /// Exact numbers of members: ?1 `[target, …]`.
    pub totals: Arc<str>,
    /// Pairs: ?1 `[[target, actor], …]`; index and time of those that are there.
    pub pairs: Arc<str>,
    /// A page of members: ?1 target, ?2 and ?3 time and text of the last one before, ?4 limit.
    pub page: Arc<str>,
    /// As `page`, of those not older than ?5 and older than ?6: an index on target and time can find them.
    pub page_within: Arc<str>,
    /// How old the page's last member is at most: ?1 target, ?2 time of the last one before, ?3 limit less one.
    /// Empty where times are not in an order that an index has.
    pub page_start: Arc<str>,
}

impl Statements {
    /// Words them.
    pub fn new(table: &ToggleTable, forms: Forms) -> Self {
        let (name, target, actor) = (path(&table.name), quote(&table.target_column), quote(&table.actor_column));
        let (given_target, given_actor) = (given(forms.target, "j.value ->> 0"), given(forms.actor, "j.value ->> 1"));
        let one_target = given(forms.target, "j.value");
        let ms = millis(table.created_at_column.as_ref(), forms.created);
        let (into, times) = match &table.created_at_column {
            Some(column) => (format!("({target}, {actor}, {})", quote(column)), ", j.value ->> 2"),
            None => (format!("({target}, {actor})"), ""),
        };
        let (counts, known) = target_statements(table, forms);
        let (page, page_within, page_start) = page_statements(table, forms);
        Self {
            delete: format!(
                "DELETE FROM {name} WHERE ({target}, {actor}) IN (SELECT {given_target}, {given_actor}
                 FROM json_each(?1) AS j) RETURNING {target}"
            )
            .into(),
            insert: format!(
                "INSERT OR ABORT INTO {name} {into} SELECT {given_target}, {given_actor}{times} FROM json_each(?1) AS j
                 WHERE NOT EXISTS (SELECT 1 FROM {name} AS l WHERE l.{target} = {given_target}
                 AND l.{actor} = {given_actor}) ON CONFLICT ({target}, {actor}) DO NOTHING RETURNING {target}"
            )
            .into(),
            counts,
            known,
            sizes: format!(
                "SELECT j.key, (SELECT count(*) FROM (SELECT 1 FROM {name} AS l WHERE l.{target} = {one_target}
                 LIMIT ?2)) FROM json_each(?1) AS j"
            )
            .into(),
            members: format!(
                "SELECT {target}, {actor}, {ms} FROM {name} WHERE {target} IN (SELECT {one_target}
                 FROM json_each(?1) AS j)"
            )
            .into(),
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
            page_within,
            page_start,
        }
    }

    /// The plan of the bulk delete: ?1 as in `delete`.
    pub fn delete_plan(&self) -> String {
        format!("EXPLAIN QUERY PLAN {}", self.delete)
    }
}

/// `page`, `page_within` and `page_start`.
fn page_statements(table: &ToggleTable, forms: Forms) -> (Arc<str>, Arc<str>, Arc<str>) {
    let (name, target, actor) = (path(&table.name), quote(&table.target_column), quote(&table.actor_column));
    let ms = millis(table.created_at_column.as_ref(), forms.created);
    let actor_text = match forms.actor {
        IdForm::UuidBytes => format!("lower(hex({actor}))"),
        _ => format!("CAST({actor} AS TEXT)"),
    };
    let page_target = given(forms.target, "?1");
    let page = |within: &str| -> Arc<str> {
        format!(
            "SELECT a, m FROM (SELECT {actor} AS a, {ms} AS m, {actor_text} AS x FROM {name}
             WHERE {target} = {page_target}{within}) WHERE ?2 IS NULL OR (m, x) < (?2, ?3)
             ORDER BY m DESC, x DESC LIMIT ?4"
        )
        .into()
    };
    let time = table.created_at_column.as_ref().map(|column| quote(column)).unwrap_or_default();
    let page_start = match forms.created {
        Some(TimeForm::Millis) => format!(
            "SELECT {time} FROM {name} WHERE {target} = {page_target} AND {time} < ?2 ORDER BY {time} DESC
             LIMIT 1 OFFSET ?3"
        ),
        _ => String::new(),
    };
    let within = match forms.created {
        Some(TimeForm::Millis) => format!(" AND {time} >= ?5 AND {time} < ?6"),
        _ => String::new(),
    };
    (page(""), page(&within), page_start.into())
}

fn target_statements(table: &ToggleTable, forms: Forms) -> (Arc<str>, Arc<str>) {
    let (Some(targets), Some(key_form)) = (&table.targets, forms.key) else { return ("".into(), "".into()) };
    let (name, key) = (path(&targets.name), quote(&targets.key_column));
    let count = targets.count_column.as_ref().map(|column| quote(column));
    let counts = count.as_ref().map_or_else(String::new, |count| {
        let given_key = given(key_form, "value ->> 0");
        format!(
            "UPDATE OR ABORT {name} AS f SET {count} = max(COALESCE({count}, 0) + d.change, 0)
             FROM (SELECT {given_key} AS id, value ->> 1 AS change FROM json_each(?1)) AS d WHERE f.{key} = d.id"
        )
    });
    let shown = count.map_or_else(|| "NULL".to_owned(), |count| format!("COALESCE({count}, 0)"));
    let one_key = given(key_form, "j.value");
    let known = format!("SELECT {key}, {shown} FROM {name} WHERE {key} IN (SELECT {one_key} FROM json_each(?1) AS j)");
    (counts.into(), known.into())
}
