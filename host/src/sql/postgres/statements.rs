//! All SQL text of PostgreSQL (12 or later).
//!
//! A batch is a few array parameters, read by `unnest`: one statement text for any batch size. Identifiers come from
//! the checked configuration and are quoted; values are bound.

use std::sync::Arc;

use crate::config::{SqlConfig, ToggleTable};
use crate::model::IdType;
use crate::sql::facts::{Column, Forms, IdForm, TimeForm, Words};

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

/// Time to wait for a lock: no longer than a silent owner may keep it, and within the statement's own limit.
pub(super) fn lock_ms(settings: &SqlConfig) -> u64 {
    settings.idle_transaction_timeout_ms.min(settings.statement_timeout_ms / 2).max(1)
}

/// One creation of weir's tables at a time; the number is arbitrary, and weir's.
pub(super) const MIGRATE_LOCK: &str = "SELECT pg_advisory_xact_lock(7595464623318)";
/// weir's own tables.
pub(super) const CREATE: &str = "
    CREATE TABLE IF NOT EXISTS weir_meta (name text PRIMARY KEY, value text NOT NULL);
    CREATE TABLE IF NOT EXISTS weir_checkpoint (
        kind text NOT NULL, \"partition\" integer NOT NULL, incarnation uuid NOT NULL, epoch bigint NOT NULL,
        \"position\" bigint NOT NULL, PRIMARY KEY (kind, \"partition\")) WITH (fillfactor = 50);
    CREATE TABLE IF NOT EXISTS weir_dead_letter (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text NOT NULL, \"partition\" integer NOT NULL,
        target text NOT NULL, actor text NOT NULL, action text NOT NULL, at_ms bigint NOT NULL,
        incarnation text NOT NULL, \"position\" bigint NOT NULL, digest text NOT NULL, reason text NOT NULL,
        dead_at_ms bigint NOT NULL)";
/// Records a value when there is none: $1 name, $2 value.
pub(super) const META_RECORD: &str = "INSERT INTO weir_meta (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
/// Reads a value: $1 name.
pub(super) const META_READ: &str = "SELECT value FROM weir_meta WHERE name = $1";

/// Begins for writing; deferred constraints are checked statement by statement, so that a bad row can be found.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET CONSTRAINTS ALL IMMEDIATE";
/// Ends well.
pub(super) const COMMIT: &str = "COMMIT";
/// Ends without effect.
pub(super) const ROLLBACK: &str = "ROLLBACK";

/// Begins for a statement of the operator, which has so many milliseconds for each of its runs. Reads see one snapshot.
pub(super) fn granted_begin(write: bool, timeout_ms: u64) -> String {
    let mode = if write { "READ COMMITTED READ WRITE" } else { "REPEATABLE READ READ ONLY" };
    let timeout_ms = timeout_ms.min(i32::MAX.unsigned_abs().into());
    format!("BEGIN ISOLATION LEVEL {mode}; SET LOCAL statement_timeout = {timeout_ms}")
}

/// Locks checkpoints in order: $1 kind, $2 partitions.
pub(super) const LOCK: &str = "SELECT \"partition\"::int8, incarnation::text, epoch, \"position\" FROM weir_checkpoint
    WHERE kind = $1 AND \"partition\" = ANY ($2::int4[]) ORDER BY \"partition\" FOR UPDATE";
/// Moves checkpoints: $1 kind, $2 partitions, $3 incarnations, $4 epochs, $5 from, $6 to.
pub(super) const FENCE: &str = "UPDATE weir_checkpoint AS c SET \"position\" = f.reached
    FROM unnest($2::int4[], $3::uuid[], $4::int8[], $5::int8[], $6::int8[]) AS f (part, life, age, was, reached)
    WHERE c.kind = $1 AND c.\"partition\" = f.part AND c.incarnation = f.life AND c.epoch = f.age
        AND c.\"position\" = f.was";
/// Checkpoints: $1 kind, $2 partitions.
pub(super) const CHECKPOINTS: &str = "SELECT \"partition\"::int8, incarnation::text, epoch, \"position\"
    FROM weir_checkpoint WHERE kind = $1 AND \"partition\" = ANY ($2::int4[])";
/// Creates rows: $1 kind, $2 partitions in order, $3 incarnations.
pub(super) const CLAIM_CREATE: &str =
    "INSERT INTO weir_checkpoint (kind, \"partition\", incarnation, epoch, \"position\")
    SELECT $1, f.part, f.life, 0, 0 FROM unnest($2::int4[], $3::uuid[]) AS f (part, life) ON CONFLICT DO NOTHING";
/// Sets rows: $1 kind, $2 partitions, $3 incarnations, $4 epochs, $5 positions.
pub(super) const CLAIM_SET: &str =
    "UPDATE weir_checkpoint AS c SET incarnation = f.life, epoch = f.age, \"position\" = f.reached
    FROM unnest($2::int4[], $3::uuid[], $4::int8[], $5::int8[]) AS f (part, life, age, reached)
    WHERE c.kind = $1 AND c.\"partition\" = f.part";

/// Writes dead letters: $1 kind, $2 to $10 columns, $11 now.
pub(super) const BURY: &str = "INSERT INTO weir_dead_letter
    (kind, \"partition\", target, actor, action, at_ms, incarnation, \"position\", digest, reason, dead_at_ms)
    SELECT $1, d.*, $11 FROM unnest($2::int4[], $3::text[], $4::text[], $5::text[], $6::int8[], $7::text[], $8::int8[],
        $9::text[], $10::text[]) AS d";
/// Reads dead letters: $1 kind or NULL, $2 after, $3 limit.
pub(super) const DEAD_LETTERS: &str = "SELECT id, kind, \"partition\"::int8, target, actor, action, at_ms, incarnation,
    \"position\", digest, reason, dead_at_ms FROM weir_dead_letter
    WHERE ($1::text IS NULL OR kind = $1) AND id > $2 ORDER BY id LIMIT $3";
/// Dead letters per kind.
pub(super) const DEAD_COUNTS: &str = "SELECT kind, count(*) FROM weir_dead_letter GROUP BY kind ORDER BY kind";
/// Drops dead letters: $1 ids.
pub(super) const DEAD_DROP: &str = "DELETE FROM weir_dead_letter WHERE id = ANY ($1::int8[])";
/// Whether it answers.
pub(super) const PING: &str = "SELECT 1";

/// A table: $1 its path. Its number, whether it is a table at all, and what the user may do with it.
pub(super) const TABLE: &str = "SELECT c.oid::int8, c.relkind IN ('r', 'p'),
    has_table_privilege(c.oid, 'SELECT'), has_table_privilege(c.oid, 'INSERT'), has_table_privilege(c.oid, 'DELETE'),
    has_any_column_privilege(c.oid, 'UPDATE')
    FROM pg_catalog.pg_class AS c WHERE c.oid = to_regclass($1)";
/// Columns: $1 the table's number.
pub(super) const COLUMNS: &str = "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod),
    COALESCE(b.typname, t.typname)::text, a.atttypmod, a.attnotnull,
    a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '' OR t.typdefault IS NOT NULL,
    COALESCE(o.collisdeterministic, true), o.collname::text
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_type AS b ON b.oid = NULLIF(t.typbasetype, 0)
    LEFT JOIN pg_catalog.pg_collation AS o ON o.oid = a.attcollation
    WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
/// Columns of the unique keys that cover every row and hold at once: $1 the table's number.
pub(super) const UNIQUE: &str = "SELECT i.relname::text, a.attname::text
    FROM pg_catalog.pg_index AS x JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
    CROSS JOIN LATERAL generate_series(0, x.indnkeyatts - 1) AS n
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[n]
    WHERE x.indrelid = $1::oid AND x.indisunique AND x.indisvalid AND x.indimmediate AND x.indpred IS NULL
        AND x.indexprs IS NULL ORDER BY x.indexrelid, n";
/// Makes the planner show whether an index can be used at all, whatever the size of the tables now.
pub(super) const PLAN_BEGIN: &str = "BEGIN; SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off;
    SET LOCAL enable_mergejoin = off";
/// Settings that matter.
pub(super) const SETTINGS: &str = "SELECT current_setting('server_version_num')::int8, current_setting('fsync'),
    current_setting('full_page_writes'), current_setting('synchronous_commit'), current_setting('server_encoding'),
    current_setting('transaction_read_only'),
    (SELECT setting::int8 FROM pg_catalog.pg_settings WHERE name = 'statement_timeout'),
    (SELECT setting::int8 FROM pg_catalog.pg_settings WHERE name = 'idle_in_transaction_session_timeout')";

/// The statements of one kind.
#[derive(Debug)]
pub(super) struct Statements {
    /// Deletes pairs: $1 targets, $2 actors; the targets of those that were there, and how many.
    pub delete: Arc<str>,
    /// Inserts pairs: $1 targets, $2 actors, $3 times if there is a column; as `delete`.
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
    /// The plan of `delete`.
    pub delete_plan: Arc<str>,
}

impl Statements {
    /// Words them.
    pub fn new(table: &ToggleTable, forms: Forms) -> Self {
        let (name, target, actor) = (path(&table.name), quote(&table.target_column), quote(&table.actor_column));
        let (t, a) = (sql_type(forms.target), sql_type(forms.actor));
        let ms = millis(table, forms);
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
             SELECT t::{t}, count(*) FROM gone GROUP BY 1"
        );
        let (lock_counts, counts, known) = target_statements(table, forms);
        let (page, page_within, page_start) = page_statements(table, forms);
        Self {
            insert: format!(
                "WITH come AS (INSERT INTO {name} ({target}, {actor}{column})
                 SELECT u.t, u.a{time} FROM unnest($1::{t}[], $2::{a}[]{times}) AS {alias}
                 ON CONFLICT ({target}, {actor}) DO NOTHING RETURNING {target} AS t)
                 SELECT t::{t}, count(*) FROM come GROUP BY 1"
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
            delete_plan: format!("EXPLAIN {delete}").into(),
            delete: delete.into(),
        }
    }
}

/// `page`, `page_within` and `page_start`.
fn page_statements(table: &ToggleTable, forms: Forms) -> (Arc<str>, Arc<str>, Arc<str>) {
    let (name, target, actor) = (path(&table.name), quote(&table.target_column), quote(&table.actor_column));
    let (t, a) = (sql_type(forms.target), sql_type(forms.actor));
    let ms = millis(table, forms);
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

/// The created-at column of `l` as Unix milliseconds, 0 where it says nothing.
fn millis(table: &ToggleTable, forms: Forms) -> String {
    let Some(column) = table.created_at_column.as_ref().map(|column| format!("l.{}", quote(column))) else {
        return "0::int8".into();
    };
    let epoch =
        |time: &str| format!("round((extract(epoch FROM date_trunc('milliseconds', {time})) * 1000)::numeric)::int8");
    match forms.created {
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

/// Words of PostgreSQL.
pub(super) struct PostgresWords;

impl Words for PostgresWords {
    const UUID_TEXT: bool = false;

    fn create_pairs(&self, table: &ToggleTable) -> String {
        let created = table.created_at_column.as_ref().map(|c| format!("{} timestamptz NOT NULL, ", quote(c)));
        format!(
            "CREATE TABLE {} ({target} {} NOT NULL, {actor} {} NOT NULL, {}PRIMARY KEY ({target}, {actor}))",
            path(&table.name),
            type_for(table.target_type),
            type_for(table.actor_type),
            created.unwrap_or_default(),
            target = quote(&table.target_column),
            actor = quote(&table.actor_column),
        )
    }

    fn create_targets(&self, table: &ToggleTable) -> String {
        let Some(targets) = &table.targets else { return String::new() };
        let count = targets.count_column.as_ref().map(|c| format!(", {} bigint NOT NULL DEFAULT 0", quote(c)));
        format!(
            "CREATE TABLE {} ({} {} PRIMARY KEY{})",
            path(&targets.name),
            quote(&targets.key_column),
            type_for(table.target_type),
            count.unwrap_or_default()
        )
    }

    fn add_unique(&self, table: &str, columns: &[&str]) -> String {
        let list = columns.iter().map(|c| quote(c)).collect::<Vec<_>>().join(", ");
        format!("CREATE UNIQUE INDEX ON {} ({list})", path(table))
    }

    fn add_time(&self, table: &str, column: &str) -> String {
        format!("ALTER TABLE {} ADD COLUMN {} timestamptz NOT NULL DEFAULT now()", path(table), quote(column))
    }

    fn add_count(&self, table: &str, column: &str) -> String {
        format!("ALTER TABLE {} ADD COLUMN {} bigint NOT NULL DEFAULT 0", path(table), quote(column))
    }

    fn retype(&self, table: &str, column: &str, id_type: IdType) -> String {
        let (column, wanted) = (quote(column), type_for(id_type));
        format!("ALTER TABLE {} ALTER COLUMN {column} TYPE {wanted} USING {column}::{wanted}", path(table))
    }

    fn add_default(&self, table: &str, column: &Column) -> String {
        format!("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL", path(table), quote(&column.name))
    }
}

impl PostgresWords {
    /// Makes a column compare by bytes.
    pub fn collate(table: &str, column: &str, declared: &str) -> String {
        format!("ALTER TABLE {} ALTER COLUMN {} TYPE {declared} COLLATE \"C\"", path(table), quote(column))
    }

    /// Grants a right.
    pub fn grant(right: &str, table: &str) -> String {
        format!("GRANT {right} ON {} TO CURRENT_USER (as the owner)", path(table))
    }
}

fn type_for(id_type: IdType) -> &'static str {
    match id_type {
        IdType::Integer => "bigint",
        IdType::Uuid => "uuid",
        IdType::Text => "text",
    }
}
