//! All SQL text of MariaDB (10.3 or later) and MySQL (5.7 or later).
//!
//! Neither has what both need for arrays, so a batch is a list of placeholders in chunks. There is no `RETURNING` on
//! both either, and the affected rows of this driver count rows found, not changed: what is there is read under lock
//! first. Never `INSERT IGNORE` (it swallows errors). Identifiers come from the checked configuration and are quoted.

use std::sync::Arc;

use crate::config::{SqlConfig, ToggleTable};
use crate::model::IdType;
use crate::sql::facts::{Column, Forms, IdForm, TimeForm, Words};

/// Tells MariaDB from MySQL.
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

/// Begins for a statement of the operator, which has so many milliseconds for each of its runs (MySQL: of those that
/// read). Reads see one snapshot. The session, too, is made read-only: a statement that changes a schema would end the
/// transaction, and then run.
pub(super) fn granted_begin(write: bool, timeout_ms: u64, maria: bool) -> String {
    let limit = statement_limit(timeout_ms, maria);
    if write {
        return format!("SET SESSION {limit}; {BEGIN}");
    }
    format!(
        "SET SESSION {limit}; SET SESSION TRANSACTION READ ONLY; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
         START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
    )
}

/// Commits, and gives the session back what it had.
pub(super) fn granted_end(settings: &SqlConfig, maria: bool) -> String {
    let limit = statement_limit(settings.statement_timeout_ms, maria);
    format!("{COMMIT}; SET SESSION TRANSACTION READ WRITE; SET SESSION {limit}")
}

/// One creation of weir's tables at a time: ? seconds.
pub(super) const MIGRATE_LOCK: &str = "SELECT CAST(GET_LOCK(CONCAT('weir ', MD5(DATABASE())), ?) AS SIGNED)";
/// Ends it.
pub(super) const MIGRATE_UNLOCK: &str = "DO RELEASE_LOCK(CONCAT('weir ', MD5(DATABASE())))";
/// Table of names and values.
pub(super) const CREATE_META: &str = "CREATE TABLE IF NOT EXISTS weir_meta (
    name VARCHAR(64) NOT NULL PRIMARY KEY, value VARCHAR(255) NOT NULL)
    ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
/// weir's other tables.
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
];
/// Records a value when there is none: ? name, ? value.
pub(super) const META_RECORD: &str =
    "INSERT INTO weir_meta (name, value) VALUES (?, ?) ON DUPLICATE KEY UPDATE name = VALUES(name)";
/// Reads a value: ? name.
pub(super) const META_READ: &str = "SELECT value FROM weir_meta WHERE name = ?";

/// Begins for writing.
pub(super) const BEGIN: &str = "START TRANSACTION READ WRITE";
/// Ends well.
pub(super) const COMMIT: &str = "COMMIT";

/// Moves `count` checkpoints: per row ? partition ? to; ? kind; per row ? partition; per row ? partition
/// ? incarnation ? epoch ? from.
pub(super) fn fence(count: usize) -> String {
    format!(
        "UPDATE weir_checkpoint SET `position` = CASE `partition`{} ELSE `position` END
         WHERE kind = ? AND `partition` IN ({}) AND (`partition`, incarnation, epoch, `position`) IN ({})
         ORDER BY `partition`",
        " WHEN ? THEN ?".repeat(count),
        list("?", count),
        list("(?, ?, ?, ?)", count)
    )
}

/// Checkpoints: ? kind, `count` partitions; locked in order when `lock`.
pub(super) fn checkpoints(count: usize, lock: bool) -> String {
    format!(
        "SELECT CAST(`partition` AS SIGNED), incarnation, epoch, `position` FROM weir_checkpoint
         WHERE kind = ? AND `partition` IN ({}) ORDER BY `partition`{}",
        list("?", count),
        if lock { " FOR UPDATE" } else { "" }
    )
}

/// Creates `count` rows: per row ? kind ? partition ? incarnation.
pub(super) fn claim_create(count: usize) -> String {
    format!(
        "INSERT INTO weir_checkpoint (kind, `partition`, incarnation, epoch, `position`) VALUES {}
         ON DUPLICATE KEY UPDATE kind = VALUES(kind)",
        list("(?, ?, ?, 0, 0)", count)
    )
}

/// Sets a row: ? incarnation, ? epoch, ? position, ? kind, ? partition.
pub(super) const CLAIM_SET: &str =
    "UPDATE weir_checkpoint SET incarnation = ?, epoch = ?, `position` = ? WHERE kind = ? AND `partition` = ?";

/// Writes `count` dead letters, with 11 values each.
pub(super) fn bury(count: usize) -> String {
    format!(
        "INSERT INTO weir_dead_letter
         (kind, `partition`, target, actor, action, at_ms, incarnation, `position`, digest, reason, dead_at_ms)
         VALUES {}",
        list("(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", count)
    )
}

/// Reads dead letters: ? kind or NULL, ? the same, ? after, ? limit.
pub(super) const DEAD_LETTERS: &str = "SELECT id, kind, CAST(`partition` AS SIGNED), target, actor, action, at_ms,
    incarnation, `position`, digest, reason, dead_at_ms FROM weir_dead_letter
    WHERE (? IS NULL OR kind = ?) AND id > ? ORDER BY id LIMIT ?";
/// Dead letters per kind.
pub(super) const DEAD_COUNTS: &str = "SELECT kind, COUNT(*) FROM weir_dead_letter GROUP BY kind ORDER BY kind";

/// Drops `count` dead letters by id.
pub(super) fn dead_drop(count: usize) -> String {
    format!("DELETE FROM weir_dead_letter WHERE id IN ({})", list("?", count))
}

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
    CAST(COALESCE(collation_name, '') AS CHAR)
    FROM information_schema.columns WHERE table_schema = COALESCE(?, DATABASE()) AND table_name = ?
    ORDER BY ordinal_position";
/// Columns of the unique keys: ? schema or NULL, ? name. A prefix or an expression is no column.
pub(super) const UNIQUE: &str = "SELECT CAST(index_name AS CHAR),
    CAST(CASE WHEN sub_part IS NULL THEN COALESCE(column_name, '') ELSE '' END AS CHAR)
    FROM information_schema.statistics WHERE table_schema = COALESCE(?, DATABASE()) AND table_name = ?
    AND non_unique = 0 ORDER BY index_name, seq_in_index";

/// Settings that matter, as text.
pub(super) fn settings(maria: bool) -> String {
    let (isolation, limits) = if maria {
        ("@@tx_isolation", "CAST(@@max_statement_time AS CHAR), CAST(@@idle_transaction_timeout AS CHAR)")
    } else {
        ("@@transaction_isolation", "CAST(@@max_execution_time AS CHAR), CAST(@@wait_timeout AS CHAR)")
    };
    format!(
        "SELECT CAST(@@innodb_flush_log_at_trx_commit AS CHAR), CAST({isolation} AS CHAR), CAST(@@sql_mode AS CHAR),
         CAST(@@read_only AS CHAR), CAST(@@log_bin AS CHAR), CAST(@@binlog_format AS CHAR), {limits}"
    )
}

/// The statements of one kind.
#[derive(Debug)]
pub(super) struct Statements {
    name: String,
    target: String,
    actor: String,
    created: Option<String>,
    shown_target: String,
    shown_actor: String,
    actor_bytes: String,
    ms: String,
    sample: String,
    targets: Option<TargetNames>,
}

#[derive(Debug)]
struct TargetNames {
    name: String,
    key: String,
    shown_key: String,
    count: Option<String>,
}

impl Statements {
    /// Words the parts that do not depend on the size of a batch.
    pub fn new(table: &ToggleTable, forms: Forms) -> Self {
        let (target, actor) = (quote(&table.target_column), quote(&table.actor_column));
        let shown_actor = shown(forms.actor, &actor);
        let targets = table.targets.as_ref().zip(forms.key).map(|(targets, form)| TargetNames {
            name: path(&targets.name),
            shown_key: shown(form, &quote(&targets.key_column)),
            key: quote(&targets.key_column),
            count: targets.count_column.as_ref().map(|column| quote(column)),
        });
        Self {
            name: path(&table.name),
            created: table.created_at_column.as_ref().map(|column| quote(column)),
            shown_target: shown(forms.target, &target),
            // Bytes, because text of this engine is equal whatever spaces trail it.
            actor_bytes: format!("CAST({shown_actor} AS BINARY)"),
            shown_actor,
            ms: millis(table, forms),
            sample: format!("({0}, {1}), ({0}, {1})", sample(forms.target), sample(forms.actor)),
            target,
            actor,
            targets,
        }
    }

    /// Pairs, and their times: `count` × (? target, ? actor); locked when `lock`.
    pub fn pairs(&self, count: usize, lock: bool) -> String {
        format!(
            "SELECT {}, {}, {} FROM {} WHERE ({}, {}) IN ({}){}",
            self.shown_target,
            self.shown_actor,
            self.ms,
            self.name,
            self.target,
            self.actor,
            list("(?, ?)", count),
            if lock { " FOR UPDATE" } else { "" }
        )
    }

    /// Deletes pairs: `count` × (? target, ? actor).
    pub fn delete(&self, count: usize) -> String {
        format!("DELETE FROM {} WHERE ({}, {}) IN ({})", self.name, self.target, self.actor, list("(?, ?)", count))
    }

    /// Inserts pairs: `count` × (? target, ? actor[, ? time]).
    pub fn insert(&self, count: usize) -> String {
        let (column, row) = match &self.created {
            Some(created) => (format!(", {created}"), "(?, ?, ?)"),
            None => (String::new(), "(?, ?)"),
        };
        format!("INSERT INTO {} ({}, {}{column}) VALUES {}", self.name, self.target, self.actor, list(row, count))
    }

    /// Locks rows of targets in order: `count` × ? target. `None` where no count is kept.
    pub fn lock_counts(&self, count: usize) -> Option<String> {
        let TargetNames { name, key, count: Some(_), .. } = self.targets.as_ref()? else { return None };
        Some(format!("SELECT 1 FROM {name} WHERE {key} IN ({}) ORDER BY {key} FOR UPDATE", list("?", count)))
    }

    /// Adds to counts: `count` × (? target, ? delta), then `count` × ? target. `None` where no count is kept.
    pub fn counts(&self, count: usize) -> Option<String> {
        let TargetNames { name, key, count: Some(column), .. } = self.targets.as_ref()? else { return None };
        Some(format!(
            "UPDATE {name} SET {column} = GREATEST(CAST(COALESCE({column}, 0) AS SIGNED) + CASE {key}{} ELSE 0 END, 0)
             WHERE {key} IN ({})",
            " WHEN ? THEN CAST(? AS SIGNED)".repeat(count),
            list("?", count)
        ))
    }

    /// Which targets exist, and their counts: `count` × ? target. `None` where there is no table of targets.
    pub fn known(&self, count: usize) -> Option<String> {
        let TargetNames { name, key, shown_key, count: column } = self.targets.as_ref()?;
        let shown = match column {
            Some(column) => format!("CAST(COALESCE({column}, 0) AS SIGNED)"),
            None => "NULL".to_owned(),
        };
        Some(format!("SELECT {shown_key}, {shown} FROM {name} WHERE {key} IN ({})", list("?", count)))
    }

    /// Members of each of `count` targets, at most `bound` each: `count` × ? target; index, actor, time.
    pub fn members(&self, count: usize, bound: i64) -> String {
        let one = |index: usize| {
            format!(
                "(SELECT CAST({index} AS SIGNED), {}, {} FROM {} WHERE {} = ? LIMIT {bound})",
                self.shown_actor, self.ms, self.name, self.target
            )
        };
        (0..count).map(one).collect::<Vec<_>>().join(" UNION ALL ")
    }

    /// Number of members up to a bound: ? target, ? bound.
    pub fn size(&self) -> String {
        format!("SELECT COUNT(*) FROM (SELECT 1 FROM {} WHERE {} = ? LIMIT ?) AS m", self.name, self.target)
    }

    /// Exact number of members: ? target.
    pub fn total(&self) -> String {
        format!("SELECT COUNT(*) FROM {} WHERE {} = ?", self.name, self.target)
    }

    /// A page of members: ? target, three times ? time of the last one before, ? its text, ? limit. With `within`,
    /// after ? target: ? oldest, ? newer than all; an index on target and time can find them.
    pub fn page(&self, within: bool) -> String {
        let within = match &self.created {
            Some(created) if within => format!(" AND {created} >= ? AND {created} < ?"),
            _ => String::new(),
        };
        format!(
            "SELECT a, m FROM (SELECT {} AS a, {} AS m, {} AS x FROM {} WHERE {} = ?{within}) AS p
             WHERE ? IS NULL OR m < ? OR (m = ? AND x < CAST(? AS BINARY)) ORDER BY m DESC, x DESC LIMIT ?",
            self.shown_actor, self.ms, self.actor_bytes, self.name, self.target
        )
    }

    /// How old a page's last member is at most: ? target, ? time of the last one before, ? limit less one. `None`
    /// where there are no times.
    pub fn page_start(&self) -> Option<String> {
        let Self { ms, name, target, .. } = self;
        let created = self.created.as_ref()?;
        Some(format!(
            "SELECT {ms} FROM {name} WHERE {target} = ? AND {created} < ? ORDER BY {created} DESC LIMIT 1 OFFSET ?"
        ))
    }

    /// The plan of the bulk delete.
    pub fn delete_plan(&self) -> String {
        format!("EXPLAIN DELETE FROM {} WHERE ({}, {}) IN ({})", self.name, self.target, self.actor, self.sample)
    }
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

/// Any id, for a plan.
fn sample(form: IdForm) -> &'static str {
    match form {
        IdForm::Integer => "1",
        IdForm::UuidBytes => "x'00000000000000000000000000000000'",
        IdForm::Uuid | IdForm::UuidText => "'00000000-0000-0000-0000-000000000000'",
        IdForm::Text => "'a'",
    }
}

/// The created-at column as Unix milliseconds, 0 where it says nothing.
fn millis(table: &ToggleTable, forms: Forms) -> String {
    let Some(column) = table.created_at_column.as_ref().map(|column| quote(column)) else {
        return "CAST(0 AS SIGNED)".into();
    };
    let since =
        |time: &str| format!("CAST(COALESCE(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {time}) DIV 1000, 0) AS SIGNED)");
    match forms.created {
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

/// Words of MariaDB, or of MySQL.
#[derive(Debug, Clone, Copy)]
pub(super) struct MysqlWords {
    /// MariaDB.
    pub maria: bool,
}

impl Words for MysqlWords {
    const UUID_TEXT: bool = true;

    fn create_pairs(&self, table: &ToggleTable) -> String {
        let created = table.created_at_column.as_ref().map(|c| format!("{} DATETIME(3) NOT NULL, ", quote(c)));
        format!(
            "CREATE TABLE {} ({target} {} NOT NULL, {actor} {} NOT NULL, {}PRIMARY KEY ({target}, {actor}))
             ENGINE = InnoDB",
            path(&table.name),
            self.type_for(table.target_type),
            self.type_for(table.actor_type),
            created.unwrap_or_default(),
            target = quote(&table.target_column),
            actor = quote(&table.actor_column),
        )
    }

    fn create_targets(&self, table: &ToggleTable) -> String {
        let Some(targets) = &table.targets else { return String::new() };
        let count = targets.count_column.as_ref().map(|c| format!(", {} BIGINT NOT NULL DEFAULT 0", quote(c)));
        format!(
            "CREATE TABLE {} ({} {} NOT NULL PRIMARY KEY{}) ENGINE = InnoDB",
            path(&targets.name),
            quote(&targets.key_column),
            self.type_for(table.target_type),
            count.unwrap_or_default()
        )
    }

    fn add_unique(&self, table: &str, columns: &[&str]) -> String {
        let list = columns.iter().map(|c| quote(c)).collect::<Vec<_>>().join(", ");
        format!("ALTER TABLE {} ADD UNIQUE KEY ({list})", path(table))
    }

    fn add_time(&self, table: &str, column: &str) -> String {
        format!(
            "ALTER TABLE {} ADD COLUMN {} DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)",
            path(table),
            quote(column)
        )
    }

    fn add_count(&self, table: &str, column: &str) -> String {
        format!("ALTER TABLE {} ADD COLUMN {} BIGINT NOT NULL DEFAULT 0", path(table), quote(column))
    }

    fn retype(&self, table: &str, column: &str, id_type: IdType) -> String {
        format!("ALTER TABLE {} MODIFY COLUMN {} {} NOT NULL", path(table), quote(column), self.type_for(id_type))
    }

    fn add_default(&self, table: &str, column: &Column) -> String {
        format!("ALTER TABLE {} MODIFY COLUMN {} {} NULL", path(table), quote(&column.name), column.declared)
    }
}

impl MysqlWords {
    /// Makes a column compare by bytes.
    pub fn collate(self, table: &str, column: &str, declared: &str, not_null: bool) -> String {
        let null = if not_null { "NOT NULL" } else { "NULL" };
        let (table, column) = (path(table), quote(column));
        format!("ALTER TABLE {table} MODIFY COLUMN {column} {declared} {} {null}", self.collation())
    }

    /// Makes a table transactional.
    pub fn engine(table: &str) -> String {
        format!("ALTER TABLE {} ENGINE = InnoDB", path(table))
    }

    fn collation(self) -> &'static str {
        if self.maria {
            "CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"
        } else {
            "CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin"
        }
    }

    fn type_for(self, id_type: IdType) -> Arc<str> {
        match id_type {
            IdType::Integer => "BIGINT".into(),
            IdType::Uuid => "BINARY(16)".into(),
            IdType::Text => format!("VARCHAR(191) {}", self.collation()).into(),
        }
    }
}
