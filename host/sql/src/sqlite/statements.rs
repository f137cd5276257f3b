//! All SQL text of SQLite (3.35 or later; sqlx bundles its own): weir's own tables and the catalogue here, each
//! capability's beside.
//!
//! A batch is one JSON parameter, read by `json_each`: one statement text for any batch size. Identifiers come from
//! the checked configuration and are quoted; values are bound. Into the user's tables always `OR ABORT`: a table of this
//! engine may declare that conflicts are ignored, or that the other row goes.

pub(super) mod checkpoints;
pub(super) mod counters;
pub(super) mod dialect;
pub(super) mod documents;
pub(super) mod preferences;
pub(super) mod toggles;

use crate::introspection::{IdForm, TimeForm};
use crate::limits::Parent;
use crate::wire::{Batch, Fixed};

/// weir's own tables, as of schema 1, and that of schema 3.
pub(super) const CREATE: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS weir_checkpoint (
        kind TEXT NOT NULL, \"partition\" INTEGER NOT NULL, incarnation TEXT NOT NULL, epoch INTEGER NOT NULL,
        \"position\" INTEGER NOT NULL, PRIMARY KEY (kind, \"partition\")) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS weir_dead_letter (
        id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, \"partition\" INTEGER NOT NULL, target TEXT NOT NULL,
        actor TEXT NOT NULL, action TEXT NOT NULL, at_ms INTEGER NOT NULL, incarnation TEXT NOT NULL,
        \"position\" INTEGER NOT NULL, digest TEXT NOT NULL, reason TEXT NOT NULL, dead_at_ms INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS weir_journal (
        kind TEXT PRIMARY KEY, journal TEXT NOT NULL, place TEXT NOT NULL, is_closed INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS weir_aside (
        kind TEXT NOT NULL, \"partition\" INTEGER NOT NULL, incarnation TEXT NOT NULL, \"position\" INTEGER NOT NULL,
        ahead INTEGER NOT NULL, targets TEXT NOT NULL, PRIMARY KEY (kind, \"partition\")) WITHOUT ROWID",
];
/// Whether the table of dead letters is as since schema 2.
pub(super) const HAS_BODY: &str = "SELECT count(*) FROM pragma_table_info('weir_dead_letter') WHERE name = 'body'";
/// Schema 1 becomes schema 2.
pub(super) const UPGRADE: &[&str] = &[
    "ALTER TABLE weir_dead_letter ADD COLUMN body TEXT",
    "CREATE INDEX IF NOT EXISTS weir_dead_letter_target ON weir_dead_letter (kind, target)",
];
/// Schema 2 becomes schema 3.
pub(super) const UPGRADE_HOLES: &str = "CREATE TABLE IF NOT EXISTS weir_journal_hole (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, \"partition\" INTEGER NOT NULL, incarnation TEXT NOT NULL,
    after_position INTEGER NOT NULL, last_position INTEGER NOT NULL, next_position INTEGER, changes INTEGER NOT NULL, amount INTEGER,
    is_exact INTEGER NOT NULL, targets TEXT NOT NULL, found_at_ms INTEGER NOT NULL, acknowledged_at_ms INTEGER)";
/// Table of names and values.
pub(super) const CREATE_META: &str =
    "CREATE TABLE IF NOT EXISTS weir_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID";
/// Records a value when there is none: ?1 name, ?2 value.
pub(super) const META_RECORD: &str = "INSERT INTO weir_meta (name, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
/// Sets a value: ?1 name, ?2 value.
pub(super) const META_SET: &str = "UPDATE weir_meta SET value = ?2 WHERE name = ?1";
/// Reads a value: ?1 name.
pub(super) const META_READ: &str = "SELECT value FROM weir_meta WHERE name = ?1";

/// Whether a table of weir's is there: ?1 its name.
pub(super) const HAS_TABLE: &str = "SELECT count(*) > 0 FROM sqlite_schema WHERE type = 'table' AND name = ?1";
/// Where the journals of the kinds are.
pub(super) const JOURNALS: &str = "SELECT kind, journal, place, is_closed FROM weir_journal ORDER BY kind";
/// Notes where the journal of a kind is: ?1 kind, ?2 journal, ?3 place, ?4 whether it is closed.
pub(super) const JOURNAL_SET: &str = "INSERT INTO weir_journal (kind, journal, place, is_closed) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (kind) DO UPDATE SET journal = excluded.journal, place = excluded.place, is_closed = excluded.is_closed";
/// Gives dead letters to another kind: ?1 from, ?2 to.
pub(super) const DEAD_RENAME: &str = "UPDATE weir_dead_letter SET kind = ?2 WHERE kind = ?1";

/// Begins for writing: takes the one write lock at once.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";
/// Begins for reading: one snapshot from the first read on.
pub(super) const BEGIN_READ: &str = "BEGIN DEFERRED";
/// Ends well.
pub(super) const COMMIT: &str = "COMMIT";

/// Writes dead letters: ?1 kind, ?2 rows, ?3 now.
pub(super) const INSERT_DEAD_LETTER: &str = "INSERT INTO weir_dead_letter
    (kind, \"partition\", target, actor, action, at_ms, incarnation, \"position\", digest, reason, body, dead_at_ms)
    SELECT ?1, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
           value ->> 8, value ->> 9, ?3 FROM json_each(?2)";
/// Reads dead letters: ?1 kind or NULL, ?2 after, ?3 limit.
pub(super) const DEAD_LETTERS: &str = "SELECT id, kind, \"partition\", target, actor, action, at_ms, incarnation,
    \"position\", digest, reason, dead_at_ms, body FROM weir_dead_letter
    WHERE (?1 IS NULL OR kind = ?1) AND id > ?2 ORDER BY id LIMIT ?3";
/// The newest dead letter of each target: ?1 kind, ?2 action, ?3 `[target, …]`.
pub(super) const NEWEST_LETTERS: &str = "SELECT id, kind, \"partition\", target, actor, action, at_ms, incarnation,
    \"position\", digest, reason, dead_at_ms, body FROM weir_dead_letter
    WHERE id IN (SELECT max(id) FROM weir_dead_letter WHERE kind = ?1 AND action = ?2
                 AND target IN (SELECT value FROM json_each(?3)) GROUP BY target)";
/// Dead letters per kind.
pub(super) const DEAD_COUNTS: &str = "SELECT kind, count(*) FROM weir_dead_letter GROUP BY kind ORDER BY kind";
/// Drops dead letters: ?1 `[id, …]`.
pub(super) const DEAD_DROP: &str = "DELETE FROM weir_dead_letter WHERE id IN (SELECT value FROM json_each(?1))";

/// Moves a checkpoint behind a hole: ?1 kind, ?2 partition, ?3 incarnation, ?4 epoch, ?5 from; ?6 incarnation, ?7 epoch,
/// ?8 to.
pub(super) const HOLE_PASS: &str = "UPDATE weir_checkpoint SET incarnation = ?6, epoch = ?7, \"position\" = ?8
    WHERE kind = ?1 AND \"partition\" = ?2 AND incarnation = ?3 AND epoch = ?4 AND \"position\" = ?5";
/// Records a hole: ?1 to ?11 columns.
pub(super) const HOLE_RECORD: &str = "INSERT INTO weir_journal_hole (kind, \"partition\", incarnation, after_position,
    last_position, next_position, changes, amount, is_exact, targets, found_at_ms)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
/// Holes, newest first: ?1 kind or NULL, ?2 whether only unacknowledged ones, ?3 limit.
pub(super) const HOLES: &str =
    "SELECT id, kind, \"partition\", incarnation, after_position, last_position, next_position,
    changes, amount, is_exact, targets, found_at_ms, acknowledged_at_ms FROM weir_journal_hole
    WHERE (?1 IS NULL OR kind = ?1) AND (?2 = 0 OR acknowledged_at_ms IS NULL) ORDER BY id DESC LIMIT ?3";
/// Acknowledges the holes of a kind: ?1 kind, ?2 now.
pub(super) const HOLES_ACKNOWLEDGE: &str = "UPDATE weir_journal_hole SET acknowledged_at_ms = ?2
    WHERE kind = ?1 AND acknowledged_at_ms IS NULL";

/// Columns: ?1 table, ?2 schema.
pub(super) const COLUMNS: &str = "SELECT name, type, \"notnull\", dflt_value, pk, hidden
    FROM pragma_table_xinfo(?1, ?2) ORDER BY cid";
/// Whether it is a table: ?1 its name, ?2 schema.
pub(super) const IS_TABLE: &str = "SELECT count(*) FROM pragma_table_list
    WHERE lower(name) = lower(?1) AND schema = ?2 AND type IN ('table', 'virtual', 'shadow')";
/// Columns of the unique keys that cover every row: ?1 table, ?2 schema.
pub(super) const UNIQUE: &str = "SELECT l.name, x.name, x.coll, l.origin = 'pk' FROM pragma_index_list(?1, ?2) AS l
    JOIN pragma_index_xinfo(l.name, ?2) AS x WHERE l.\"unique\" AND NOT l.partial AND x.key ORDER BY l.seq, x.seqno";
/// Columns with which indexes that cover every row begin: ?1 table, ?2 schema.
pub(super) const LEADING: &str = "SELECT x.name FROM pragma_index_list(?1, ?2) AS l
    JOIN pragma_index_xinfo(l.name, ?2) AS x WHERE NOT l.partial AND x.seqno = 0 AND x.name IS NOT NULL
    UNION SELECT name FROM pragma_table_xinfo(?1, ?2) WHERE pk = 1";
/// Whether a table checks foreign keys at commit only: ?1 table.
pub(super) const DEFERRED: &str = "SELECT count(*) FROM sqlite_schema
    WHERE type = 'table' AND name = ?1 AND upper(sql) LIKE '%INITIALLY%DEFERRED%'";
/// Partial unique keys: ?1 table, ?2 schema; their definitions.
pub(super) const ODD_KEYS: &str = "SELECT COALESCE(s.sql, l.name) FROM pragma_index_list(?1, ?2) AS l
    LEFT JOIN sqlite_schema AS s ON s.type = 'index' AND s.name = l.name
    WHERE l.\"unique\" AND l.partial ORDER BY l.seq";
/// Foreign keys of one column: ?1 table, ?2 schema; the column, the other table, its column or NULL. None where a
/// trigger may make what they lead to.
pub(super) const FOREIGN: &str = "SELECT min(\"from\"), min(\"table\"), min(\"to\")
    FROM pragma_foreign_key_list(?1, ?2) WHERE NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'trigger'
        AND lower(tbl_name) = lower(?1) AND upper(sql) LIKE '%BEFORE%INSERT%') GROUP BY id HAVING count(*) = 1 ORDER BY id";
/// The foreign keys of one column of a table, and what they are asked with.
pub(super) fn foreign_keys(table: &str) -> (Fixed, Batch<'_>) {
    let (schema, name) = table.split_once('.').unwrap_or(("main", table));
    (Fixed::of(FOREIGN), Batch::new().text(name).text(schema))
}
/// Which rows that a foreign key leads to are there: ?1 `[id, …]`.
pub(super) fn parents(parent: &Parent) -> String {
    let (name, key, one) = (path(&parent.table), quote(&parent.key), given(parent.form, "j.value"));
    format!("SELECT {key} FROM {name} WHERE {key} IN (SELECT {one} FROM json_each(?1) AS j)")
}
/// The number that AUTOINCREMENT gave last: ?1 table. There is no such table where nothing is numbered so.
pub(super) const NUMBERED: &str = "SELECT seq FROM sqlite_sequence WHERE name = ?1";
/// Lets numbers be given again from the greatest that is taken.
pub(super) fn renumber(name: &str) -> String {
    format!(
        "UPDATE sqlite_sequence SET seq = (SELECT COALESCE(max(rowid), 0) FROM {}) WHERE name = '{}'",
        quote(name),
        name.replace('\'', "''")
    )
}
/// Triggers that may discard a row: ?1 table; name, and what stands before their table.
pub(super) const SKIPPING: &str = "SELECT name, upper(substr(sql, 1, instr(upper(sql), ' ON '))) FROM sqlite_schema
    WHERE type = 'trigger' AND lower(tbl_name) = lower(?1) AND upper(sql) LIKE '%RAISE%(%IGNORE%)%' ORDER BY name";
/// Triggers that run when rows come or go: ?1 table; name and definition.
pub(super) const TRIGGERS: &str = "SELECT name, sql FROM sqlite_schema
    WHERE type = 'trigger' AND lower(tbl_name) = lower(?1)
        AND (upper(substr(sql, 1, instr(upper(sql), ' ON '))) LIKE '%INSERT%'
            OR upper(substr(sql, 1, instr(upper(sql), ' ON '))) LIKE '%DELETE%') ORDER BY name";
/// Settings that matter.
pub(super) const SETTINGS: &str = "SELECT (SELECT journal_mode FROM pragma_journal_mode),
    (SELECT synchronous FROM pragma_synchronous), (SELECT foreign_keys FROM pragma_foreign_keys)";
/// Whether it answers.
pub(super) const PING: &str = "SELECT 1";

/// An id as it lies in its column, from its JSON value.
fn given(form: IdForm, value: &str) -> String {
    match form {
        IdForm::UuidBytes => format!("unhex({value})"),
        _ => value.to_owned(),
    }
}

/// The created-at column as Unix milliseconds, 0 where it says nothing.
fn millis(column: Option<&String>, form: Option<TimeForm>) -> String {
    let Some(column) = column.map(|column| quote(column)) else { return "0".into() };
    match form {
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
