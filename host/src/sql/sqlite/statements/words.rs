//! The statements that an operator is told to run.

use super::{path, quote};
use crate::model::IdType;
use crate::sql::facts::{Column, Holds, Wanted, Words};

/// Words of SQLite.
pub(in crate::sql::sqlite) struct SqliteWords;

impl Words for SqliteWords {
    const UUID_TEXT: bool = true;
    // `json_each` cuts text off there without a word.
    const NUL: bool = false;

    fn loses_zone(&self, _holds: Holds) -> bool {
        false
    }

    fn create(&self, table: &str, columns: &[(&str, Wanted)], key: &[&str]) -> String {
        let column = |(name, wanted): &(&str, Wanted)| format!("{} {}", quote(name), type_for(*wanted));
        let mut parts: Vec<String> = columns.iter().map(column).collect();
        if !key.is_empty() {
            parts.push(format!("PRIMARY KEY ({})", list(key)));
        }
        format!("CREATE TABLE {} ({})", path(table), parts.join(", "))
    }

    fn add_unique(&self, table: &str, columns: &[&str]) -> String {
        index("UNIQUE INDEX", "key", table, columns)
    }

    fn add_index(&self, table: &str, columns: &[&str]) -> String {
        index("INDEX", "index", table, columns)
    }

    fn add(&self, table: &str, column: &str, wanted: Wanted) -> String {
        let wanted = match wanted {
            Wanted::Time => "INTEGER NOT NULL DEFAULT 0",
            other => type_for(other),
        };
        format!("ALTER TABLE {} ADD COLUMN {} {wanted}", path(table), quote(column))
    }

    fn retype(&self, table: &str, column: &str, id_type: IdType) -> String {
        format!("create {} anew with {} {}", path(table), quote(column), type_for(Wanted::Id(id_type)))
    }

    fn add_default(&self, table: &str, column: &Column) -> String {
        format!("create {} anew with a DEFAULT for {}", path(table), quote(&column.name))
    }
}

fn index(what: &str, suffix: &str, table: &str, columns: &[&str]) -> String {
    let short = table.rsplit('.').next().unwrap_or(table);
    let schema = table.split_once('.').map(|(schema, _)| format!("{}.", quote(schema))).unwrap_or_default();
    let name = quote(&format!("{short}_{}_{suffix}", columns.join("_")));
    format!("CREATE {what} {schema}{name} ON {} ({})", quote(short), list(columns))
}

fn list(columns: &[&str]) -> String {
    columns.iter().map(|column| quote(column)).collect::<Vec<_>>().join(", ")
}

fn type_for(wanted: Wanted) -> &'static str {
    match wanted {
        Wanted::Id(IdType::Integer) | Wanted::Time => "INTEGER NOT NULL",
        Wanted::Id(IdType::Uuid | IdType::Text) => "TEXT NOT NULL",
        Wanted::IdOrNull(IdType::Integer) => "INTEGER",
        Wanted::IdOrNull(IdType::Uuid | IdType::Text) | Wanted::Field => "TEXT",
        Wanted::Count => "INTEGER NOT NULL DEFAULT 0",
    }
}
