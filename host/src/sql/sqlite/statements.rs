//! All SQL text of SQLite (3.35 or later; sqlx bundles its own).
//!
//! A batch is one JSON parameter, read by `json_each`: one statement text for any batch size. Identifiers come from
//! the checked configuration and are quoted; values are bound.

use std::sync::Arc;

use crate::config::ToggleTable;
use crate::model::IdType;
use crate::sql::facts::{Column, Forms, IdForm, TimeForm, Words};

/// weir's own tables.
pub(super) const CREATE: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS weir_checkpoint (
        kind TEXT NOT NULL, \"partition\" INTEGER NOT NULL, incarnation TEXT NOT NULL, epoch INTEGER NOT NULL,
        \"position\" INTEGER NOT NULL, PRIMARY KEY (kind, \"partition\")) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS weir_dead_letter (
        id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, \"partition\" INTEGER NOT NULL, target TEXT NOT NULL,
        actor TEXT NOT NULL, action TEXT NOT NULL, at_ms INTEGER NOT NULL, incarnation TEXT NOT NULL,
        \"position\" INTEGER NOT NULL, digest TEXT NOT NULL, reason TEXT NOT NULL, dead_at_ms INTEGER NOT NULL)",
];
/// Table of names and values.
pub(super) const CREATE_META: &str =
    "CREATE TABLE IF NOT EXISTS weir_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID";
/// Records a value when there is none: ?1 name, ?2 value.
pub(super) const META_RECORD: &str = "INSERT INTO weir_meta (name, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
/// Reads a value: ?1 name.
pub(super) const META_READ: &str = "SELECT value FROM weir_meta WHERE name = ?1";

/// Begins for writing: takes the one write lock at once.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";
/// Begins for reading: one snapshot from the first read on.
pub(super) const BEGIN_READ: &str = "BEGIN DEFERRED";
/// Ends well.
pub(super) const COMMIT: &str = "COMMIT";

/// Moves checkpoints: ?1 kind, ?2 `[[partition, incarnation, epoch, from, to], …]`.
pub(super) const FENCE: &str = "UPDATE weir_checkpoint SET \"position\" = f.reached
    FROM (SELECT value ->> 0 AS part, value ->> 1 AS life, value ->> 2 AS age, value ->> 3 AS was,
                 value ->> 4 AS reached FROM json_each(?2)) AS f
    WHERE kind = ?1 AND \"partition\" = f.part AND incarnation = f.life AND epoch = f.age AND \"position\" = f.was";
/// Checkpoints: ?1 kind, ?2 `[partition, …]`.
pub(super) const CHECKPOINTS: &str = "SELECT \"partition\", incarnation, epoch, \"position\" FROM weir_checkpoint
    WHERE kind = ?1 AND \"partition\" IN (SELECT value FROM json_each(?2))";
/// Creates rows: ?1 kind, ?2 `[[partition, incarnation], …]`.
pub(super) const CLAIM_CREATE: &str =
    "INSERT INTO weir_checkpoint (kind, \"partition\", incarnation, epoch, \"position\")
    SELECT ?1, value ->> 0, value ->> 1, 0, 0 FROM json_each(?2) WHERE true ON CONFLICT DO NOTHING";
/// Sets rows: ?1 kind, ?2 `[[partition, incarnation, epoch, position], …]`.
pub(super) const CLAIM_SET: &str =
    "UPDATE weir_checkpoint SET incarnation = f.life, epoch = f.age, \"position\" = f.reached
    FROM (SELECT value ->> 0 AS part, value ->> 1 AS life, value ->> 2 AS age, value ->> 3 AS reached
          FROM json_each(?2)) AS f
    WHERE kind = ?1 AND \"partition\" = f.part";

/// Writes dead letters: ?1 kind, ?2 rows, ?3 now.
pub(super) const BURY: &str = "INSERT INTO weir_dead_letter
    (kind, \"partition\", target, actor, action, at_ms, incarnation, \"position\", digest, reason, dead_at_ms)
    SELECT ?1, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
           value ->> 8, ?3 FROM json_each(?2)";
/// Reads dead letters: ?1 kind or NULL, ?2 after, ?3 limit.
pub(super) const DEAD_LETTERS: &str = "SELECT id, kind, \"partition\", target, actor, action, at_ms, incarnation,
    \"position\", digest, reason, dead_at_ms FROM weir_dead_letter
    WHERE (?1 IS NULL OR kind = ?1) AND id > ?2 ORDER BY id LIMIT ?3";
/// Dead letters per kind.
pub(super) const DEAD_COUNTS: &str = "SELECT kind, count(*) FROM weir_dead_letter GROUP BY kind ORDER BY kind";
/// Drops dead letters: ?1 `[id, …]`.
pub(super) const DEAD_DROP: &str = "DELETE FROM weir_dead_letter WHERE id IN (SELECT value FROM json_each(?1))";

/// Columns: ?1 table, ?2 schema.
pub(super) const COLUMNS: &str = "SELECT name, type, \"notnull\", dflt_value IS NOT NULL, pk, hidden
    FROM pragma_table_xinfo(?1, ?2) ORDER BY cid";
/// Columns of the unique keys that cover every row: ?1 table, ?2 schema.
pub(super) const UNIQUE: &str = "SELECT l.name, x.name, x.coll FROM pragma_index_list(?1, ?2) AS l
    JOIN pragma_index_xinfo(l.name, ?2) AS x WHERE l.\"unique\" AND NOT l.partial AND x.key ORDER BY l.seq, x.seqno";
/// Whether a table checks foreign keys at commit only: ?1 table.
pub(super) const DEFERRED: &str = "SELECT count(*) FROM sqlite_schema
    WHERE type = 'table' AND name = ?1 AND upper(sql) LIKE '%INITIALLY%DEFERRED%'";
/// Settings that matter.
pub(super) const SETTINGS: &str = "SELECT (SELECT journal_mode FROM pragma_journal_mode),
    (SELECT synchronous FROM pragma_synchronous), (SELECT foreign_keys FROM pragma_foreign_keys)";
/// Whether it answers.
pub(super) const PING: &str = "SELECT 1";

/// The statements of one kind.
#[derive(Debug)]
pub(super) struct Statements {
    /// Deletes pairs: ?1 `[[target, actor], …]`; returns the targets of those that were there.
    pub delete: Arc<str>,
    /// Inserts pairs: ?1 `[[target, actor, time], …]`; returns the targets of those that were not there.
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
        let ms = millis(table, forms);
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
                "INSERT INTO {name} {into} SELECT {given_target}, {given_actor}{times} FROM json_each(?1) AS j
                 WHERE true ON CONFLICT ({target}, {actor}) DO NOTHING RETURNING {target}"
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
    let ms = millis(table, forms);
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
            "UPDATE {name} AS f SET {count} = max(COALESCE({count}, 0) + d.change, 0)
             FROM (SELECT {given_key} AS id, value ->> 1 AS change FROM json_each(?1)) AS d WHERE f.{key} = d.id"
        )
    });
    let shown = count.map_or_else(|| "NULL".to_owned(), |count| format!("COALESCE({count}, 0)"));
    let one_key = given(key_form, "j.value");
    let known = format!("SELECT {key}, {shown} FROM {name} WHERE {key} IN (SELECT {one_key} FROM json_each(?1) AS j)");
    (counts.into(), known.into())
}

/// An id as it lies in its column, from its JSON value.
fn given(form: IdForm, value: &str) -> String {
    match form {
        IdForm::UuidBytes => format!("unhex({value})"),
        _ => value.to_owned(),
    }
}

/// The created-at column as Unix milliseconds, 0 where it says nothing.
fn millis(table: &ToggleTable, forms: Forms) -> String {
    let Some(column) = table.created_at_column.as_ref().map(|column| quote(column)) else { return "0".into() };
    match forms.created {
        Some(TimeForm::Millis) => format!("COALESCE({column}, 0)"),
        _ => format!("COALESCE(CAST(round(unixepoch({column}, 'subsec') * 1000) AS INTEGER), 0)"),
    }
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn path(name: &str) -> String {
    name.split('.').map(quote).collect::<Vec<_>>().join(".")
}

/// Words of SQLite.
pub(super) struct SqliteWords;

impl Words for SqliteWords {
    const UUID_TEXT: bool = true;

    fn create_pairs(&self, table: &ToggleTable) -> String {
        let created =
            table.created_at_column.as_ref().map(|c| format!("{} INTEGER NOT NULL, ", quote(c))).unwrap_or_default();
        format!(
            "CREATE TABLE {} ({target} {} NOT NULL, {actor} {} NOT NULL, {created}PRIMARY KEY ({target}, {actor}))",
            path(&table.name),
            type_for(table.target_type),
            type_for(table.actor_type),
            target = quote(&table.target_column),
            actor = quote(&table.actor_column),
        )
    }

    fn create_targets(&self, table: &ToggleTable) -> String {
        let Some(targets) = &table.targets else { return String::new() };
        let count = targets.count_column.as_ref().map(|c| format!(", {} INTEGER NOT NULL DEFAULT 0", quote(c)));
        format!(
            "CREATE TABLE {} ({} {} NOT NULL PRIMARY KEY{})",
            path(&targets.name),
            quote(&targets.key_column),
            type_for(table.target_type),
            count.unwrap_or_default()
        )
    }

    fn add_unique(&self, table: &str, columns: &[&str]) -> String {
        let list = columns.iter().map(|c| quote(c)).collect::<Vec<_>>().join(", ");
        let short = table.rsplit('.').next().unwrap_or(table);
        let schema = table.split_once('.').map(|(schema, _)| format!("{}.", quote(schema))).unwrap_or_default();
        let index = quote(&format!("{short}_{}_key", columns.join("_")));
        format!("CREATE UNIQUE INDEX {schema}{index} ON {} ({list})", quote(short))
    }

    fn add_time(&self, table: &str, column: &str) -> String {
        format!("ALTER TABLE {} ADD COLUMN {} INTEGER NOT NULL DEFAULT 0", path(table), quote(column))
    }

    fn add_count(&self, table: &str, column: &str) -> String {
        format!("ALTER TABLE {} ADD COLUMN {} INTEGER NOT NULL DEFAULT 0", path(table), quote(column))
    }

    fn retype(&self, table: &str, column: &str, id_type: IdType) -> String {
        format!("create {} anew with {} {} NOT NULL", path(table), quote(column), type_for(id_type))
    }

    fn add_default(&self, table: &str, column: &Column) -> String {
        format!("create {} anew with a DEFAULT for {}", path(table), quote(&column.name))
    }
}

fn type_for(id_type: IdType) -> &'static str {
    match id_type {
        IdType::Integer => "INTEGER",
        IdType::Uuid | IdType::Text => "TEXT",
    }
}
