//! All SQL text of MariaDB (10.3 or later) and MySQL (8.0 or later): weir's own tables and the catalogue here, each
//! capability's beside.
//!
//! Neither has what both need for arrays, so a batch is a list of placeholders in chunks. There is no `RETURNING` on
//! both either, and the affected rows of this driver count rows found, not changed: what is there is read under lock
//! first. Never `INSERT IGNORE` (it swallows errors). Identifiers come from the checked configuration and are quoted.

pub(super) mod check;
pub(super) mod checkpoints;
pub(super) mod counters;
pub(super) mod dialect;
pub(super) mod documents;
pub(super) mod granted;
pub(super) mod grants;
pub(super) mod own;
pub(super) mod preferences;
pub(super) mod toggles;

use super::wire::Template;
use crate::introspection::{IdForm, TimeForm};
use crate::limits::Parent;
use crate::wire::Batch;
use weir_core::config::SqlConfig;

/// Distinguishes MariaDB from MySQL.
pub(super) const VERSION: &str = "SELECT VERSION()";

/// Settings of every connection: read committed (no gap locks), errors instead of truncation, the server's time
/// limits. MySQL can limit only reads, and has no limit for idle transactions but that of idle connections.
pub(super) fn session(settings: &SqlConfig, maria: bool) -> String {
    let seconds = |ms: u64| ms.div_ceil(1_000).max(1);
    let idle = seconds(settings.idle_transaction_timeout_ms);
    let statement = statement_limit(settings.statement_timeout_ms, maria);
    let limits = if maria {
        format!("{statement}, idle_transaction_timeout = {idle}, in_predicate_conversion_threshold = 0")
    } else {
        format!("{statement}, wait_timeout = {idle}")
    };
    format!(
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;
         SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'), innodb_lock_wait_timeout = {}, {limits}",
        seconds(settings.idle_transaction_timeout_ms.min(settings.statement_timeout_ms / 2)),
    )
}

/// The setting that limits a statement's time.
fn statement_limit(timeout_ms: u64, maria: bool) -> String {
    if !maria {
        return format!("max_execution_time = {}", timeout_ms.min(u32::MAX.into()));
    }
    #[allow(clippy::cast_precision_loss, reason = "a time limit needs no more precision than a float has")]
    let seconds = timeout_ms as f64 / 1_000.0;
    format!("max_statement_time = {seconds}")
}

/// One creation of weir's tables at a time: ? seconds.
/// The name of a lock has 64 characters at most, that of a database too; where two are shortened to the same, one waits.
pub(super) const MIGRATE_LOCK: &str =
    "SELECT CAST(GET_LOCK(CONCAT('weir ', CRC32(DATABASE()), ' ', LEFT(DATABASE(), 40)), ?) AS SIGNED)";
/// Ends it.
pub(super) const MIGRATE_UNLOCK: &str =
    "DO RELEASE_LOCK(CONCAT('weir ', CRC32(DATABASE()), ' ', LEFT(DATABASE(), 40)))";
/// Table of names and values.
pub(super) const CREATE_META: &str = "CREATE TABLE IF NOT EXISTS weir_meta (
    name VARCHAR(64) NOT NULL PRIMARY KEY, value VARCHAR(255) NOT NULL)
    ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
/// weir's other tables, as of schema 1, and that of schema 3.
pub(super) const CREATE: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS weir_checkpoint (
        kind VARCHAR(64) NOT NULL, `partition` INT NOT NULL, incarnation CHAR(36) NOT NULL, epoch BIGINT NOT NULL,
        `position` BIGINT NOT NULL, PRIMARY KEY (kind, `partition`))
        ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS weir_dead_letter (
        id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, kind VARCHAR(64) NOT NULL, `partition` INT NOT NULL,
        target VARCHAR(191) NOT NULL, actor VARCHAR(191) NOT NULL, action VARCHAR(16) NOT NULL, at_ms BIGINT NOT NULL,
        incarnation VARCHAR(36) NOT NULL, `position` BIGINT NOT NULL, digest CHAR(64) NOT NULL, reason TEXT NOT NULL,
        dead_at_ms BIGINT NOT NULL) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS weir_journal (
        kind VARCHAR(64) NOT NULL PRIMARY KEY, journal CHAR(36) NOT NULL, place TEXT NOT NULL, is_closed BIGINT NOT NULL)
        ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS weir_aside (
        kind VARCHAR(64) NOT NULL, `partition` INT NOT NULL, incarnation CHAR(36) NOT NULL, `position` BIGINT NOT NULL,
        ahead BIGINT NOT NULL, targets MEDIUMTEXT NOT NULL, PRIMARY KEY (kind, `partition`))
        ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
];
/// Whether the table of dead letters is as since schema 2.
pub(super) const HAS_BODY: &str = "SELECT CAST(COUNT(*) AS SIGNED) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'weir_dead_letter' AND column_name = 'body'";
/// Schema 1 becomes schema 2.
pub(super) const UPGRADE: &str = "ALTER TABLE weir_dead_letter ADD COLUMN body LONGTEXT NULL,
    ADD KEY weir_dead_letter_target (kind, target)";
/// Schema 2 becomes schema 3.
pub(super) const UPGRADE_HOLES: &str = "CREATE TABLE IF NOT EXISTS weir_journal_hole (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, kind VARCHAR(64) NOT NULL, `partition` INT NOT NULL,
    incarnation VARCHAR(36) NOT NULL, after_position BIGINT NOT NULL, last_position BIGINT NOT NULL,
    next_position BIGINT NULL, changes BIGINT NOT NULL, amount BIGINT NULL, is_exact INT NOT NULL, targets TEXT NOT NULL,
    found_at_ms BIGINT NOT NULL, acknowledged_at_ms BIGINT NULL)
    ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
/// Records a value when there is none: ? name, ? value.
pub(super) const META_RECORD: &str =
    "INSERT INTO weir_meta (name, value) VALUES (?, ?) ON DUPLICATE KEY UPDATE name = name";
/// Sets a value: ? value, ? name.
pub(super) const META_SET: &str = "UPDATE weir_meta SET value = ? WHERE name = ?";
/// Reads a value: ? name.
pub(super) const META_READ: &str = "SELECT value FROM weir_meta WHERE name = ?";

/// Fails where the server takes no writes, and changes nothing.
pub(super) const WRITE_NOTHING: &str = "UPDATE weir_meta SET value = value WHERE name = ''";

/// Whether the server takes no writes, as it words it.
pub(super) const IS_READ_ONLY: &str =
    "SELECT CAST(@@global.read_only AS CHAR), CAST(@@global.innodb_read_only AS CHAR)";

/// Whether a table of weir's is there: ? its name.
pub(super) const HAS_TABLE: &str = "SELECT CAST(COUNT(*) AS SIGNED) FROM information_schema.tables
    WHERE table_schema = DATABASE() AND table_name = ?";
/// Where the journals of the kinds are.
pub(super) const JOURNALS: &str = "SELECT kind, journal, place, is_closed FROM weir_journal ORDER BY kind";
/// Notes where the journal of a kind is: ? kind, twice ? journal, ? place, ? whether it is closed.
pub(super) const JOURNAL_SET: &str = "INSERT INTO weir_journal (kind, journal, place, is_closed) VALUES (?, ?, ?, ?)
    ON DUPLICATE KEY UPDATE journal = ?, place = ?, is_closed = ?";
/// Gives dead letters to another kind: ? to, ? from.
pub(super) const DEAD_RENAME: &str = "UPDATE weir_dead_letter SET kind = ? WHERE kind = ?";

/// Begins for writing. Does not ask for READ WRITE: weir does not overrule a server that is set to take no writes.
pub(super) const BEGIN: &str = "START TRANSACTION";
/// Begins a flush, which waits so long for a lock.
pub(super) fn flush_begin(lock_s: u64) -> String {
    format!("{}; {BEGIN}", lock_limit(lock_s))
}

/// From here on the session waits so long for a lock.
pub(super) fn lock_limit(lock_s: u64) -> String {
    format!("SET SESSION innodb_lock_wait_timeout = {lock_s}")
}

/// Makes a read that locks fail where it would wait.
pub(super) const NOWAIT: &str = " NOWAIT";
/// Ends well.
pub(super) const COMMIT: &str = "COMMIT";

/// The sessions that hold locks for which sessions of this user wait, in dialect. Needs the right PROCESS.
pub(super) fn lock_holders(maria: bool) -> &'static str {
    if maria {
        "SELECT DISTINCT CONCAT('session ', b.trx_mysql_thread_id, COALESCE(CONCAT(' of user ', p.user, ' from ', p.host), ''),
            ', in its transaction since ', b.trx_started, ', holds ', COALESCE(MAX(l.lock_table), '?'), ' ',
            COALESCE(MAX(l.lock_data), ''), ', now: ', COALESCE(b.trx_query, p.info, p.command, '?'))
         FROM information_schema.innodb_lock_waits AS w
         JOIN information_schema.innodb_trx AS b ON b.trx_id = w.blocking_trx_id
         JOIN information_schema.innodb_trx AS r ON r.trx_id = w.requesting_trx_id
         JOIN information_schema.processlist AS m ON m.id = r.trx_mysql_thread_id
         LEFT JOIN information_schema.processlist AS p ON p.id = b.trx_mysql_thread_id
         LEFT JOIN information_schema.innodb_locks AS l ON l.lock_id = w.requested_lock_id
         WHERE m.user = SUBSTRING_INDEX(USER(), '@', 1)
         GROUP BY b.trx_mysql_thread_id, p.user, p.host, b.trx_started, b.trx_query, p.info, p.command LIMIT 8"
    } else {
        "SELECT DISTINCT CONCAT('session ', w.blocking_pid, COALESCE(CONCAT(' of user ', p.user, ' from ', p.host), ''),
            ', in its transaction since ', w.blocking_trx_started, ', holds ', w.locked_table, ', now: ',
            COALESCE(w.blocking_query, p.info, p.command, '?'))
         FROM sys.innodb_lock_waits AS w
         JOIN information_schema.processlist AS m ON m.id = w.waiting_pid
         LEFT JOIN information_schema.processlist AS p ON p.id = w.blocking_pid
         WHERE m.user = SUBSTRING_INDEX(USER(), '@', 1) LIMIT 8"
    }
}

/// Reads dead letters: ? kind or NULL, ? the same, ? after, ? limit.
pub(super) const DEAD_LETTERS: &str = "SELECT id, kind, CAST(`partition` AS SIGNED), target, actor, action, at_ms,
    incarnation, `position`, digest, reason, dead_at_ms, body FROM weir_dead_letter
    WHERE (? IS NULL OR kind = ?) AND id > ? ORDER BY id LIMIT ?";

/// Dead letters per kind.
pub(super) const DEAD_COUNTS: &str = "SELECT kind, COUNT(*) FROM weir_dead_letter GROUP BY kind ORDER BY kind";

/// Moves a checkpoint behind a hole: ? incarnation, ? epoch, ? to; ? kind, ? partition, ? incarnation, ? epoch, ? from.
pub(super) const HOLE_PASS: &str = "UPDATE weir_checkpoint SET incarnation = ?, epoch = ?, `position` = ?
    WHERE kind = ? AND `partition` = ? AND incarnation = ? AND epoch = ? AND `position` = ?";
/// Records a hole: its 11 columns.
pub(super) const HOLE_RECORD: &str = "INSERT INTO weir_journal_hole (kind, `partition`, incarnation, after_position,
    last_position, next_position, changes, amount, is_exact, targets, found_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
/// Holes, newest first: ? kind or NULL, ? kind, ? whether only unacknowledged ones, ? limit.
pub(super) const HOLES: &str = "SELECT id, kind, CAST(`partition` AS SIGNED), incarnation, after_position, last_position,
    next_position, changes, amount, CAST(is_exact AS SIGNED), targets, found_at_ms, acknowledged_at_ms FROM weir_journal_hole
    WHERE (? IS NULL OR kind = ?) AND (? = 0 OR acknowledged_at_ms IS NULL) ORDER BY id DESC LIMIT ?";
/// Acknowledges the holes of a kind: ? now, ? kind.
pub(super) const HOLES_ACKNOWLEDGE: &str = "UPDATE weir_journal_hole SET acknowledged_at_ms = ?
    WHERE kind = ? AND acknowledged_at_ms IS NULL";

/// Whether it answers.
pub(super) const PING: &str = "SELECT 1";

/// A table: ? schema or NULL, ? name. Its engine and type.
pub(super) const TABLE: &str = "SELECT CAST(COALESCE(engine, '') AS CHAR), CAST(table_type AS CHAR)
    FROM information_schema.tables WHERE table_schema = COALESCE(?, DATABASE()) AND table_name = ?";
/// Columns: ? schema or NULL, ? name.
pub(super) const COLUMNS: &str = "SELECT CAST(column_name AS CHAR), CAST(column_type AS CHAR),
    LOWER(CAST(data_type AS CHAR)), CAST(COALESCE(character_maximum_length, 0) AS SIGNED),
    CAST(COALESCE(datetime_precision, 0) AS SIGNED), CAST(is_nullable = 'NO' AS SIGNED),
    CAST(column_default IS NOT NULL OR extra LIKE '%auto_increment%' OR extra LIKE '%GENERATED%' AS SIGNED),
    CAST(COALESCE(collation_name, '') AS CHAR), CAST(extra AS CHAR), CAST(COALESCE(column_default, '') AS CHAR),
    CAST(column_default IS NOT NULL AS SIGNED), CAST(column_comment AS CHAR)
    FROM information_schema.columns WHERE table_schema = COALESCE(?, DATABASE()) AND table_name = ?
    ORDER BY ordinal_position";
/// Foreign keys of one column: ? schema or NULL, ? name; the column, the other table, its column. None where a
/// trigger may make what they lead to.
pub(super) const FOREIGN: &str = "SELECT CAST(MIN(column_name) AS CHAR),
    CAST(CONCAT(MIN(referenced_table_schema), '.', MIN(referenced_table_name)) AS CHAR),
    CAST(MIN(referenced_column_name) AS CHAR) FROM information_schema.key_column_usage AS k
    WHERE table_schema = COALESCE(?, DATABASE()) AND table_name = ? AND referenced_table_name IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM information_schema.triggers AS t WHERE t.event_object_schema = k.table_schema
            AND t.event_object_table = k.table_name AND t.action_timing = 'BEFORE' AND t.event_manipulation = 'INSERT')
    GROUP BY constraint_name HAVING COUNT(*) = 1 ORDER BY constraint_name";
/// The foreign keys of one column of a table, and what they are asked with.
pub(super) fn foreign_keys(table: &str) -> (Template, Batch<'_>) {
    let (schema, name) = table.split_once('.').map_or((None, table), |(schema, name)| (Some(schema), name));
    (Template::whole().once(FOREIGN, [0, 1]), Batch::new().optional_text(schema).text(name))
}
/// Which rows that a foreign key leads to are there: ids.
pub(super) fn parents(parent: &Parent) -> Template {
    let (name, key) = (path(&parent.table), quote(&parent.key));
    let start = format!("SELECT {} FROM {name} WHERE {key} IN (", shown(parent.form, &key));
    Template::padded(usize::MAX).text(start).list().text(")")
}
/// The column that AUTO_INCREMENT numbers: ? schema or NULL, ? name; its name and type.
pub(super) const NUMBERED: &str = "SELECT CAST(column_name AS CHAR), CAST(column_type AS CHAR)
    FROM information_schema.columns WHERE table_schema = COALESCE(?, DATABASE()) AND table_name = ?
    AND extra LIKE '%auto_increment%'";
/// The greatest value of a column, as text.
pub(super) fn greatest(table: &str, column: &str) -> String {
    format!("SELECT CAST(MAX({}) AS CHAR) FROM {}", quote(column), path(table))
}
/// Columns of the unique keys: ? schema or NULL, ? name. A prefix or an expression is no column.
pub(super) const UNIQUE: &str = "SELECT CAST(index_name AS CHAR),
    CAST(CASE WHEN sub_part IS NULL THEN COALESCE(column_name, '') ELSE '' END AS CHAR)
    FROM information_schema.statistics WHERE table_schema = COALESCE(?, DATABASE()) AND table_name = ?
    AND non_unique = 0 ORDER BY index_name, seq_in_index";

/// Columns with which indexes begin: ? schema or NULL, ? name.
pub(super) const LEADING: &str = "SELECT DISTINCT CAST(column_name AS CHAR) FROM information_schema.statistics
    WHERE table_schema = COALESCE(?, DATABASE()) AND table_name = ? AND seq_in_index = 1 AND sub_part IS NULL
    AND column_name IS NOT NULL";
/// Columns that MariaDB calls text, and that were declared as JSON: ? schema or NULL, ? name.
pub(super) const JSON_COLUMNS: &str = "SELECT CAST(constraint_name AS CHAR) FROM information_schema.check_constraints
    WHERE constraint_schema = COALESCE(?, DATABASE()) AND table_name = ?
    AND check_clause = CONCAT('json_valid(`', constraint_name, '`)')";

/// Settings that matter, as text.
pub(super) fn settings(maria: bool) -> String {
    let (isolation, limits, by_super) = if maria {
        ("@@tx_isolation", "CAST(@@max_statement_time AS CHAR), CAST(@@idle_transaction_timeout AS CHAR)", "'0'")
    } else {
        (
            "@@transaction_isolation",
            "CAST(@@max_execution_time AS CHAR), CAST(@@wait_timeout AS CHAR)",
            "CAST(@@super_read_only AS CHAR)",
        )
    };
    format!(
        "SELECT CAST(@@innodb_flush_log_at_trx_commit AS CHAR), CAST({isolation} AS CHAR), CAST(@@sql_mode AS CHAR),
         CAST(@@read_only AS CHAR), CAST(@@log_bin AS CHAR), CAST(@@binlog_format AS CHAR), {limits},
         {by_super}, CAST(@@innodb_read_only AS CHAR)"
    )
}

fn list(one: &str, count: usize) -> String {
    let mut text = format!("{one}, ").repeat(count);
    text.truncate(text.len().saturating_sub(2));
    text
}

/// An id as it is read: integers as such, all others as text.
fn shown(form: IdForm, column: &str) -> String {
    match form {
        IdForm::Integer => format!("CAST({column} AS SIGNED)"),
        IdForm::UuidBytes => format!("LOWER(HEX({column}))"),
        IdForm::Uuid | IdForm::UuidText => format!("LOWER(CAST({column} AS CHAR(36)))"),
        IdForm::Text => format!("CONVERT({column} USING utf8mb4)"),
    }
}

/// An id as it is ordered: integers as such, all others as bytes, because text of this engine is equal whatever spaces
/// trail it.
fn ordered(form: IdForm, column: &str) -> String {
    match form {
        IdForm::Integer => shown(form, column),
        _ => format!("CAST({} AS BINARY)", shown(form, column)),
    }
}

/// The created-at column as Unix milliseconds, 0 where it says nothing.
fn millis(column: Option<&String>, form: Option<TimeForm>) -> String {
    let Some(column) = column.map(|column| quote(column)) else { return "CAST(0 AS SIGNED)".into() };
    let since =
        |time: &str| format!("CAST(COALESCE(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {time}) DIV 1000, 0) AS SIGNED)");
    match form {
        Some(TimeForm::Millis) => format!("CAST(COALESCE({column}, 0) AS SIGNED)"),
        Some(TimeForm::Iso) => since(&format!("CAST(LEFT({column}, 23) AS DATETIME(3))")),
        _ => since(&column),
    }
}

fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn path(name: &str) -> String {
    name.split('.').map(quote).collect::<Vec<_>>().join(".")
}
