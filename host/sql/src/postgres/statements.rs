//! All SQL text of PostgreSQL (12 or later): weir's own tables and the catalogue here, each capability's beside.
//!
//! A batch is a few array parameters, read by `unnest`, or one of JSON: one statement text for any batch size.
//! Identifiers come from the checked configuration and are quoted; values are bound.

pub(super) mod check;
pub(super) mod checkpoints;
pub(super) mod counters;
pub(super) mod dialect;
pub(super) mod documents;
pub(super) mod granted;
pub(super) mod grants;
pub(super) mod preferences;
pub(super) mod toggles;

use crate::introspection::{IdForm, TimeForm};
use crate::limits::Parent;
use crate::wire::{Batch, Fixed};
use weir_core::config::SqlConfig;

/// Settings of every connection: the server's time limits, UTC, no chatter; a commit is on disk when it is answered.
pub(super) fn session(settings: &SqlConfig) -> String {
    let statement = settings.statement_timeout_ms;
    let idle = settings.idle_transaction_timeout_ms;
    format!(
        "SET statement_timeout = {statement}; SET lock_timeout = {lock};
         SET idle_in_transaction_session_timeout = {idle}; SET TimeZone = 'UTC'; SET client_min_messages = warning;
         SET jit = off;
         SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
        lock = lock_ms(settings),
    )
}

/// The same for each transaction that writes, behind a pooler: what a session sets there is lost, or another's.
pub(super) fn local(settings: &SqlConfig) -> String {
    format!(
        "; {limits}; SET LOCAL statement_timeout = {statement};
         SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'",
        limits = local_limits(settings).join("; "),
        statement = settings.statement_timeout_ms,
    )
}

/// What bounds a transaction that writes besides the time of its statements, behind a pooler; statements that find nothing.
pub(super) fn local_limits(settings: &SqlConfig) -> Vec<String> {
    vec![
        format!("SET LOCAL lock_timeout = {}", lock_ms(settings)),
        format!("SET LOCAL idle_in_transaction_session_timeout = {}", settings.idle_transaction_timeout_ms),
        "SET LOCAL jit = off".into(),
    ]
}

/// Time to wait for a lock: no longer than a silent owner may keep it, and within the statement's own limit.
pub(super) fn lock_ms(settings: &SqlConfig) -> u64 {
    settings.idle_transaction_timeout_ms.min(settings.statement_timeout_ms / 2).max(1)
}

/// One creation of weir's tables at a time; the number is arbitrary, and weir's.
pub(super) const MIGRATE_LOCK: &str = "SELECT pg_advisory_xact_lock(7595464623318)";
/// weir's own tables, as of schema 1, and that of schema 3.
pub(super) const CREATE: &str = "
    CREATE TABLE IF NOT EXISTS weir_meta (name text PRIMARY KEY, value text NOT NULL);
    CREATE TABLE IF NOT EXISTS weir_checkpoint (
        kind text NOT NULL, \"partition\" integer NOT NULL, incarnation uuid NOT NULL, epoch bigint NOT NULL,
        \"position\" bigint NOT NULL, PRIMARY KEY (kind, \"partition\")) WITH (fillfactor = 50);
    CREATE TABLE IF NOT EXISTS weir_dead_letter (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text NOT NULL, \"partition\" integer NOT NULL,
        target text NOT NULL, actor text NOT NULL, action text NOT NULL, at_ms bigint NOT NULL,
        incarnation text NOT NULL, \"position\" bigint NOT NULL, digest text NOT NULL, reason text NOT NULL,
        dead_at_ms bigint NOT NULL);
    CREATE TABLE IF NOT EXISTS weir_journal (
        kind text PRIMARY KEY, journal uuid NOT NULL, place text NOT NULL, is_closed boolean NOT NULL);
    CREATE TABLE IF NOT EXISTS weir_aside (
        kind text NOT NULL, \"partition\" integer NOT NULL, incarnation uuid NOT NULL, \"position\" bigint NOT NULL,
        ahead bigint NOT NULL, targets text NOT NULL, PRIMARY KEY (kind, \"partition\"))";
/// Whether the table of dead letters is as since schema 2.
pub(super) const HAS_BODY: &str = "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_attribute
    WHERE attrelid = to_regclass('weir_dead_letter') AND attname = 'body' AND NOT attisdropped)";
/// Schema 1 becomes schema 2.
pub(super) const UPGRADE: &str = "ALTER TABLE weir_dead_letter ADD COLUMN body text;
    CREATE INDEX IF NOT EXISTS weir_dead_letter_target ON weir_dead_letter (kind, target)";
/// Schema 2 becomes schema 3.
pub(super) const UPGRADE_HOLES: &str = "CREATE TABLE IF NOT EXISTS weir_journal_hole (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text NOT NULL, \"partition\" integer NOT NULL,
    incarnation text NOT NULL, after_position bigint NOT NULL, last_position bigint NOT NULL, next_position bigint,
    changes bigint NOT NULL, amount bigint, is_exact integer NOT NULL, targets text NOT NULL, found_at_ms bigint NOT NULL,
    acknowledged_at_ms bigint)";
/// Records a value when there is none: $1 name, $2 value.
pub(super) const META_RECORD: &str = "INSERT INTO weir_meta (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
/// Sets a value: $1 name, $2 value.
pub(super) const META_SET: &str = "UPDATE weir_meta SET value = $2 WHERE name = $1";
/// Reads a value: $1 name.
pub(super) const META_READ: &str = "SELECT value FROM weir_meta WHERE name = $1";

/// Fails where the server takes no writes, and changes nothing.
pub(super) const WRITE_NOTHING: &str = "UPDATE weir_meta SET value = value WHERE name = ''";

/// Whether the server is a standby, and whether transactions are read-only there.
pub(super) const IS_READ_ONLY: &str = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";

/// Whether a table of weir's is there: $1 its name.
pub(super) const HAS_TABLE: &str = "SELECT to_regclass($1) IS NOT NULL";
/// Where the journals of the kinds are.
pub(super) const JOURNALS: &str = "SELECT kind, journal::text, place, is_closed FROM weir_journal ORDER BY kind";
/// Notes where the journal of a kind is: $1 kind, $2 journal, $3 place, $4 whether it is closed.
pub(super) const JOURNAL_SET: &str = "INSERT INTO weir_journal (kind, journal, place, is_closed) VALUES ($1, $2, $3, $4)
    ON CONFLICT (kind) DO UPDATE SET journal = excluded.journal, place = excluded.place, is_closed = excluded.is_closed";
/// Gives dead letters to another kind: $1 from, $2 to.
pub(super) const DEAD_RENAME: &str = "UPDATE weir_dead_letter SET kind = $2 WHERE kind = $1";

/// Begins for writing; deferred constraints are checked statement by statement, so that a bad row can be found. Does not
/// ask for READ WRITE: weir does not overrule a server that is set to take no writes.
pub(super) fn begin(local: &str) -> String {
    format!("BEGIN ISOLATION LEVEL READ COMMITTED; SET CONSTRAINTS ALL IMMEDIATE{local}")
}
/// Begins a flush, which waits so long for a lock.
pub(super) fn flush_begin(begin: &str, lock_ms: u64) -> String {
    format!("{begin}; {}", lock_limit(lock_ms))
}

/// From here on the transaction waits so long for a lock.
pub(super) fn lock_limit(lock_ms: u64) -> String {
    format!("SET LOCAL lock_timeout = {lock_ms}")
}
/// Ends well.
pub(super) const COMMIT: &str = "COMMIT";
/// Ends without effect.
pub(super) const ROLLBACK: &str = "ROLLBACK";

/// The sessions that hold locks for which sessions of this user wait, in dialect. Only members of
/// `pg_read_all_stats` see what others do.
pub(super) const LOCK_HOLDERS: &str = "SELECT DISTINCT concat('session ', h.pid, ' of user ', COALESCE(h.usename, '?'),
        COALESCE(', application ' || NULLIF(h.application_name, ''), ''), COALESCE(', from ' || host(h.client_addr), ''),
        CASE WHEN h.state IS NULL THEN ' (GRANT pg_read_all_stats TO this user, and what it does is told)'
             ELSE concat(', ', h.state, ', in its transaction for ',
                  round(extract(epoch FROM clock_timestamp() - h.xact_start)), ' s, last: ', left(h.query, 200)) END)
    FROM pg_catalog.pg_stat_activity AS w CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS b (pid)
    JOIN pg_catalog.pg_stat_activity AS h ON h.pid = b.pid
    WHERE w.datname = current_database() AND w.usename = current_user AND w.application_name = 'weir'
        AND w.wait_event_type = 'Lock' LIMIT 8";

/// Writes dead letters: $1 kind, $2 to $11 columns, $12 now.
pub(super) const INSERT_DEAD_LETTER: &str = "INSERT INTO weir_dead_letter
    (kind, \"partition\", target, actor, action, at_ms, incarnation, \"position\", digest, reason, body, dead_at_ms)
    SELECT $1, d.*, $12 FROM unnest($2::int4[], $3::text[], $4::text[], $5::text[], $6::int8[], $7::text[], $8::int8[],
        $9::text[], $10::text[], $11::text[]) AS d";
/// Reads dead letters: $1 kind or NULL, $2 after, $3 limit.
pub(super) const DEAD_LETTERS: &str = "SELECT id, kind, \"partition\"::int8, target, actor, action, at_ms, incarnation,
    \"position\", digest, reason, dead_at_ms, body FROM weir_dead_letter
    WHERE ($1::text IS NULL OR kind = $1) AND id > $2 ORDER BY id LIMIT $3";
/// The newest dead letter of each target: $1 kind, $2 action, $3 targets.
pub(super) const NEWEST_LETTERS: &str =
    "SELECT DISTINCT ON (target) id, kind, \"partition\"::int8, target, actor, action, at_ms, incarnation,
    \"position\", digest, reason, dead_at_ms, body FROM weir_dead_letter
    WHERE kind = $1 AND action = $2 AND target = ANY ($3::text[]) ORDER BY target, id DESC";
/// Dead letters per kind.
pub(super) const DEAD_COUNTS: &str = "SELECT kind, count(*) FROM weir_dead_letter GROUP BY kind ORDER BY kind";
/// Drops dead letters: $1 ids.
pub(super) const DEAD_DROP: &str = "DELETE FROM weir_dead_letter WHERE id = ANY ($1::int8[])";
/// Moves a checkpoint behind a hole: $1 kind, $2 partition, $3 incarnation, $4 epoch, $5 from; $6 incarnation, $7 epoch,
/// $8 to.
pub(super) const HOLE_PASS: &str = "UPDATE weir_checkpoint SET incarnation = $6, epoch = $7, \"position\" = $8
    WHERE kind = $1 AND \"partition\" = $2 AND incarnation = $3 AND epoch = $4 AND \"position\" = $5";
/// Records a hole: $1 to $11 columns.
pub(super) const HOLE_RECORD: &str = "INSERT INTO weir_journal_hole (kind, \"partition\", incarnation, after_position,
    last_position, next_position, changes, amount, is_exact, targets, found_at_ms)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
/// Holes, newest first: $1 kind or NULL, $2 whether only unacknowledged ones, $3 limit.
pub(super) const HOLES: &str = "SELECT id, kind, \"partition\"::int8, incarnation, after_position, last_position,
    next_position, changes, amount, is_exact::int8, targets, found_at_ms, acknowledged_at_ms FROM weir_journal_hole
    WHERE ($1::text IS NULL OR kind = $1) AND ($2 = 0 OR acknowledged_at_ms IS NULL) ORDER BY id DESC LIMIT $3";
/// Acknowledges the holes of a kind: $1 kind, $2 now.
pub(super) const HOLES_ACKNOWLEDGE: &str = "UPDATE weir_journal_hole SET acknowledged_at_ms = $2
    WHERE kind = $1 AND acknowledged_at_ms IS NULL";
/// Whether it answers.
pub(super) const PING: &str = "SELECT 1";

/// A table: $1 its path. Its number, whether it is a table at all, and what the user may do with it.
pub(super) const TABLE: &str = "SELECT c.oid::int8, c.relkind IN ('r', 'p'),
    has_table_privilege(c.oid, 'SELECT'), has_table_privilege(c.oid, 'INSERT'), has_table_privilege(c.oid, 'DELETE'),
    has_any_column_privilege(c.oid, 'UPDATE'), current_user::text
    FROM pg_catalog.pg_class AS c WHERE c.oid = to_regclass($1)";
/// Columns: $1 the table's number.
pub(super) const COLUMNS: &str = "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod),
    COALESCE(b.typname, t.typname)::text, a.atttypmod, a.attnotnull,
    a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '' OR t.typdefault IS NOT NULL,
    COALESCE(o.collisdeterministic, true), o.collname::text, a.attgenerated <> '' OR a.attidentity = 'a',
    CASE WHEN a.attnotnull AND a.attgenerated = '' THEN COALESCE(pg_get_expr(d.adbin, d.adrelid), t.typdefault) END,
    COALESCE(pg_get_expr(d.adbin, d.adrelid), t.typdefault, '')
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_type AS b ON b.oid = NULLIF(t.typbasetype, 0)
    LEFT JOIN pg_catalog.pg_collation AS o ON o.oid = a.attcollation
    LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
/// Columns with which indexes that cover every row begin: $1 the table's number.
pub(super) const LEADING: &str = "SELECT DISTINCT a.attname::text
    FROM pg_catalog.pg_index AS x
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
    WHERE x.indrelid = $1::oid AND x.indisvalid AND x.indpred IS NULL";
/// Columns of the unique keys that cover every row and hold at once: $1 the table's number.
pub(super) const UNIQUE: &str = "SELECT i.relname::text, a.attname::text
    FROM pg_catalog.pg_index AS x JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
    CROSS JOIN LATERAL generate_series(0, x.indnkeyatts - 1) AS n
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[n]
    WHERE x.indrelid = $1::oid AND x.indisunique AND x.indisvalid AND x.indimmediate AND x.indpred IS NULL
        AND x.indexprs IS NULL ORDER BY x.indexrelid, n";
/// Triggers and rules that may discard a row: $1 the table's number; name, and the statements that they concern.
pub(super) const SKIPPING: &str = "SELECT g.tgname::text, concat_ws(' ', CASE WHEN g.tgtype & 4 <> 0 THEN 'INSERT' END,
        CASE WHEN g.tgtype & 8 <> 0 THEN 'DELETE' END, CASE WHEN g.tgtype & 16 <> 0 THEN 'UPDATE' END)
    FROM pg_catalog.pg_trigger AS g WHERE g.tgrelid = $1::oid AND NOT g.tgisinternal AND g.tgenabled IN ('O', 'A')
        AND g.tgtype & 3 = 3
    UNION SELECT g.tgname::text, concat_ws(' ', CASE WHEN g.tgtype & 4 <> 0 THEN 'INSERT' END,
        CASE WHEN g.tgtype & 8 <> 0 THEN 'DELETE' END, CASE WHEN g.tgtype & 16 <> 0 THEN 'UPDATE' END)
    FROM pg_catalog.pg_trigger AS g JOIN pg_partition_tree($1::oid::regclass) AS p ON p.relid = g.tgrelid
    WHERE NOT g.tgisinternal AND g.tgenabled IN ('O', 'A') AND g.tgtype & 3 = 3
    UNION SELECT r.rulename::text, CASE r.ev_type WHEN '2' THEN 'UPDATE' WHEN '3' THEN 'INSERT' ELSE 'DELETE' END
    FROM pg_catalog.pg_rewrite AS r
    WHERE r.ev_class = $1::oid AND r.ev_type IN ('2', '3', '4') AND r.is_instead AND r.ev_enabled IN ('O', 'A')
    ORDER BY 1";
/// Unique keys that do not cover every row or are no lists of columns, and exclusions: $1 the table's number; their
/// definitions.
pub(super) const ODD_KEYS: &str = "SELECT pg_get_indexdef(x.indexrelid) FROM pg_catalog.pg_index AS x
    WHERE x.indrelid = $1::oid AND x.indisvalid AND (x.indisexclusion
        OR x.indisunique AND (x.indpred IS NOT NULL OR x.indexprs IS NOT NULL OR NOT x.indimmediate))
    ORDER BY x.indexrelid";
/// Foreign keys of one column: $1 the table's path; the column, the other table, its column. Not those that are not enforced,
/// whose rows may be hidden, or whose table has a trigger that may make them first.
pub(super) const FOREIGN: &str = "SELECT a.attname::text, n.nspname || '.' || o.relname, k.attname::text
    FROM pg_catalog.pg_constraint AS c
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
    JOIN pg_catalog.pg_attribute AS k ON k.attrelid = c.confrelid AND k.attnum = c.confkey[1]
    JOIN pg_catalog.pg_class AS o ON o.oid = c.confrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = o.relnamespace
    WHERE c.conrelid = to_regclass($1) AND c.contype = 'f' AND cardinality(c.conkey) = 1
        AND has_table_privilege(o.oid, 'SELECT') AND NOT o.relrowsecurity
        AND COALESCE(to_jsonb(c) ->> 'conenforced', 'true') = 'true'
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS g WHERE g.tgrelid = c.conrelid AND NOT g.tgisinternal
            AND g.tgenabled <> 'D' AND g.tgtype & 6 = 6) ORDER BY c.conname";
/// The foreign keys of one column of a table, and what they are asked with.
pub(super) fn foreign_keys(table: &str) -> (Fixed, Batch<'_>) {
    (Fixed::of(FOREIGN), Batch::new().text(path(table)))
}
/// Which rows that a foreign key leads to are there: $1 ids.
pub(super) fn parents(parent: &Parent) -> String {
    let (name, key, k) = (path(&parent.table), quote(&parent.key), sql_type(parent.form));
    format!("SELECT p.{key}::{k} FROM {name} AS p WHERE p.{key} = ANY ($1::{k}[])")
}
/// Sequences that number a table's rows: $1 its path; column, sequence, the last number (NULL where none was given, or where it
/// must not be read), step, and the greatest that both can hold. One that begins anew is never used up.
pub(super) const NUMBERED: &str = "SELECT a.attname::text, s.seqrelid::regclass::text,
        CASE WHEN has_sequence_privilege(s.seqrelid, 'USAGE, SELECT') THEN pg_sequence_last_value(s.seqrelid) END,
        CASE WHEN s.seqcycle THEN 0 ELSE s.seqincrement END,
        LEAST(s.seqmax, CASE a.atttypid WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647
            ELSE 9223372036854775807 END)::int8
    FROM (SELECT d.objid AS sequence, d.refobjid AS owner, d.refobjsubid::int AS number FROM pg_catalog.pg_depend AS d
            WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
                AND d.refobjid = to_regclass($1)
          UNION SELECT d.refobjid, f.adrelid, f.adnum::int FROM pg_catalog.pg_attrdef AS f
            JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
                AND d.refclassid = 'pg_class'::regclass WHERE f.adrelid = to_regclass($1)) AS n
    JOIN pg_catalog.pg_sequence AS s ON s.seqrelid = n.sequence
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = n.owner AND a.attnum = n.number ORDER BY a.attnum";
/// Whether a table, or a partition of it, has triggers that may discard a row of `event`. An expression; the table by its
/// quoted name.
fn may_skip(name: &str, event: &str) -> String {
    let (table, bit) = (name.replace('\'', "''"), if event == "DELETE" { 8 } else { 4 });
    format!(
        "EXISTS (SELECT 1 FROM pg_catalog.pg_trigger AS g WHERE g.tgrelid IN (SELECT '{table}'::regclass::oid
         UNION ALL SELECT p.relid::oid FROM pg_partition_tree('{table}'::regclass) AS p)
         AND NOT g.tgisinternal AND g.tgenabled IN ('O', 'A') AND g.tgtype & 3 = 3 AND g.tgtype & {bit} <> 0)"
    )
}
/// Makes the planner show whether an index can be used at all, whatever the size of the tables now.
pub(super) const PLAN_BEGIN: &str = "BEGIN; SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off;
    SET LOCAL enable_mergejoin = off";
/// The process that serves the session now.
pub(super) const PROCESS: &str = "SELECT pg_catalog.pg_backend_pid()::text";
/// Names under which this very statement is prepared in the session: $1 its text.
pub(super) const PREPARED: &str = "SELECT name::text FROM pg_catalog.pg_prepared_statements WHERE statement = $1";
/// Settings that matter.
pub(super) const SETTINGS: &str = "SELECT current_setting('server_version_num')::int8, current_setting('fsync'),
    current_setting('full_page_writes'), current_setting('synchronous_commit'), current_setting('server_encoding'),
    current_setting('transaction_read_only'),
    (SELECT setting::int8 FROM pg_catalog.pg_settings WHERE name = 'statement_timeout'),
    (SELECT setting::int8 FROM pg_catalog.pg_settings WHERE name = 'idle_in_transaction_session_timeout')";

/// The created-at column of `l` as Unix milliseconds, 0 where it says nothing.
fn millis(column: Option<&String>, form: Option<TimeForm>) -> String {
    let Some(column) = column.map(|column| format!("l.{}", quote(column))) else { return "0::int8".into() };
    let epoch =
        |time: &str| format!("round((extract(epoch FROM date_trunc('milliseconds', {time})) * 1000)::numeric)::int8");
    match form {
        Some(TimeForm::Millis) => format!("COALESCE({column}, 0)"),
        Some(TimeForm::Iso) => format!(
            "CASE WHEN {column} ~ '^\\d{{4}}-(0[1-9]|1[0-2])-([0-2]\\d|3[01])[T ]([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d'
             THEN {} ELSE 0 END",
            epoch(&format!("{column}::timestamptz"))
        ),
        _ => format!("CASE WHEN isfinite({column}) THEN {} ELSE 0 END", epoch(&column)),
    }
}

/// How a parameter of Unix milliseconds is compared with a time; `None` for text, which has no certain order.
fn point(form: Option<TimeForm>) -> Option<impl Fn(&str) -> String> {
    let (start, unit) = match form? {
        TimeForm::Millis => ("", ""),
        TimeForm::Zoned(_) => ("timestamptz 'epoch' + ", " * interval '1 millisecond'"),
        TimeForm::Plain(_) => ("timestamp 'epoch' + ", " * interval '1 millisecond'"),
        TimeForm::Iso => return None,
    };
    Some(move |parameter: &str| format!("{start}{parameter}::int8{unit}"))
}

/// A time as a column of this form takes it, from Unix milliseconds (or from text).
fn from_millis(form: TimeForm, value: &str) -> String {
    match form {
        TimeForm::Iso | TimeForm::Millis => value.to_owned(),
        TimeForm::Zoned(_) => format!("timestamptz 'epoch' + {value} * interval '1 millisecond'"),
        TimeForm::Plain(_) => format!("timestamp 'epoch' + {value} * interval '1 millisecond'"),
    }
}

fn sql_type(form: IdForm) -> &'static str {
    match form {
        IdForm::Integer => "int8",
        IdForm::Uuid | IdForm::UuidBytes => "uuid",
        IdForm::Text | IdForm::UuidText => "text",
    }
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's name, quoted.
pub(super) fn path(name: &str) -> String {
    name.split('.').map(quote).collect::<Vec<_>>().join(".")
}
