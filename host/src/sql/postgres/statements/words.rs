//! The statements that an operator is told to run.

use super::{path, quote};
use crate::model::IdType;
use crate::sql::facts::{Column, Holds, Wanted, Words};

/// Words of PostgreSQL.
pub(in crate::sql::postgres) struct PostgresWords;

impl Words for PostgresWords {
    const UUID_TEXT: bool = false;
    const NUL: bool = false;

    fn loses_zone(&self, holds: Holds) -> bool {
        matches!(holds, Holds::Plain(_))
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
        format!("CREATE UNIQUE INDEX ON {} ({})", path(table), list(columns))
    }

    fn add_index(&self, table: &str, columns: &[&str]) -> String {
        format!("CREATE INDEX ON {} ({})", path(table), list(columns))
    }

    fn add(&self, table: &str, column: &str, wanted: Wanted) -> String {
        let wanted = match wanted {
            Wanted::Time => "timestamptz NOT NULL DEFAULT now()",
            other => type_for(other),
        };
        format!("ALTER TABLE {} ADD COLUMN {} {wanted}", path(table), quote(column))
    }

    fn retype(&self, table: &str, column: &str, id_type: IdType) -> String {
        let (column, wanted) = (quote(column), type_for(Wanted::IdOrNull(id_type)));
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

    /// Makes room for more numbers of a column and its sequence, which is named as SQL takes it.
    pub fn widen_number(table: &str, column: &str, sequence: &str) -> String {
        let (table, column) = (path(table), quote(column));
        format!(
            "ALTER TABLE {table} ALTER COLUMN {column} TYPE bigint; ALTER SEQUENCE {sequence} AS bigint NO MAXVALUE"
        )
    }

    /// Moves a sequence behind the numbers that are taken.
    pub fn advance_number(table: &str, column: &str, sequence: &str) -> String {
        let sequence = sequence.replace('\'', "''");
        format!("SELECT setval('{sequence}', (SELECT max({}) FROM {}))", quote(column), path(table))
    }

    /// Grants a right.
    pub fn grant(right: &str, table: &str) -> String {
        format!("GRANT {right} ON {} TO CURRENT_USER (as the owner)", path(table))
    }
}

fn list(columns: &[&str]) -> String {
    columns.iter().map(|column| quote(column)).collect::<Vec<_>>().join(", ")
}

fn type_for(wanted: Wanted) -> &'static str {
    match wanted {
        Wanted::Id(IdType::Integer) => "bigint NOT NULL",
        Wanted::Id(IdType::Uuid) => "uuid NOT NULL",
        Wanted::Id(IdType::Text) => "text NOT NULL",
        Wanted::IdOrNull(IdType::Integer) => "bigint",
        Wanted::IdOrNull(IdType::Uuid) => "uuid",
        Wanted::IdOrNull(IdType::Text) | Wanted::Field => "text",
        Wanted::Time => "timestamptz NOT NULL",
        Wanted::Count => "bigint NOT NULL DEFAULT 0",
    }
}
