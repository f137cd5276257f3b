//! What only the self-check asks of the catalogue, and within which time it asks of rows.

/// A query that only reads, within so many milliseconds.
pub(in crate::mysql) fn bounded(maria: bool, timeout_ms: u64, query: &str) -> String {
    if maria {
        let seconds = format!("{}.{:03}", timeout_ms / 1_000, timeout_ms % 1_000);
        return format!("SET STATEMENT max_statement_time = {seconds} FOR {query}");
    }
    match query.strip_prefix("SELECT ") {
        Some(rest) => format!("SELECT /*+ MAX_EXECUTION_TIME({timeout_ms}) */ {rest}"),
        None => query.to_owned(),
    }
}

/// By what a table is partitioned: ? schema or NULL, ? name; expressions with column names in them.
pub(in crate::mysql) const PARTITIONED_BY: &str =
    "SELECT DISTINCT CAST(CONCAT(COALESCE(partition_expression, ''), ' ', COALESCE(subpartition_expression, '')) AS CHAR)
    FROM information_schema.partitions
    WHERE table_schema = COALESCE(?, DATABASE()) AND table_name = ? AND partition_name IS NOT NULL";

/// Triggers that run when rows come or go: ? schema or NULL, ? name; name and definition.
pub(in crate::mysql) const TRIGGERS: &str =
    "SELECT CAST(trigger_name AS CHAR), CAST(action_statement AS CHAR) FROM information_schema.triggers
    WHERE event_object_schema = COALESCE(?, DATABASE()) AND event_object_table = ?
    AND event_manipulation IN ('INSERT', 'DELETE') ORDER BY trigger_name";

/// Columns in foreign keys, on either side: ? schema or NULL, ? name, twice; name of the key, and column.
pub(in crate::mysql) const FOREIGN_KEYS: &str =
    "SELECT CAST(constraint_name AS CHAR), CAST(column_name AS CHAR) FROM information_schema.key_column_usage
    WHERE table_schema = COALESCE(?, DATABASE()) AND table_name = ? AND referenced_table_name IS NOT NULL
    UNION SELECT CAST(constraint_name AS CHAR), CAST(referenced_column_name AS CHAR)
    FROM information_schema.key_column_usage
    WHERE referenced_table_schema = COALESCE(?, DATABASE()) AND referenced_table_name = ?";

/// What stands behind the type of a column in its definition.
pub(in crate::mysql) struct Definition<'d> {
    /// MariaDB, which names defaults as expressions.
    pub maria: bool,
    /// NOT NULL.
    pub not_null: bool,
    /// The default as the catalogue names it, if there is one.
    pub default: Option<&'d str>,
    /// Further properties, as the catalogue names them.
    pub extra: &'d str,
    /// Its comment.
    pub comment: &'d str,
}

impl Definition<'_> {
    /// As it stands in a definition, with a space before it.
    pub fn text(&self) -> String {
        let mut text = if self.not_null { " NOT NULL" } else { " NULL" }.to_owned();
        let extra = self.extra.to_ascii_lowercase();
        if let Some(default) = self.default.filter(|default| !default.eq_ignore_ascii_case("NULL")) {
            let is_time = default.to_ascii_uppercase().starts_with("CURRENT_TIMESTAMP");
            text += &match (self.maria || is_time || default.starts_with("b'"), extra.contains("default_generated")) {
                (true, _) => format!(" DEFAULT {default}"),
                (false, true) => format!(" DEFAULT ({default})"),
                (false, false) => format!(" DEFAULT {}", quoted(default)),
            };
        }
        if let Some(at) = extra.find("on update") {
            text += &format!(" {}", &extra[at..]);
        }
        if extra.contains("auto_increment") {
            text += " AUTO_INCREMENT";
        }
        if !self.comment.is_empty() {
            text += &format!(" COMMENT {}", quoted(self.comment));
        }
        text
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
