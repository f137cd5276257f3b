//! The statements that an operator is told to run.

use super::{path, quote};
use crate::model::IdType;
use crate::sql::facts::{Column, Holds, Wanted, Words};

/// Words of MariaDB, or of MySQL.
#[derive(Debug, Clone, Copy)]
pub(in crate::sql::mysql) struct MysqlWords {
    /// MariaDB.
    pub maria: bool,
}

impl Words for MysqlWords {
    const UUID_TEXT: bool = true;
    const NUL: bool = true;

    fn loses_zone(&self, holds: Holds) -> bool {
        matches!(holds, Holds::Zoned(_) | Holds::Plain(_))
    }

    fn create(&self, table: &str, columns: &[(&str, Wanted)], key: &[&str]) -> String {
        let column = |(name, wanted): &(&str, Wanted)| format!("{} {}", quote(name), self.type_for(*wanted));
        let mut parts: Vec<String> = columns.iter().map(column).collect();
        if !key.is_empty() {
            parts.push(format!("PRIMARY KEY ({})", names(key)));
        }
        format!("CREATE TABLE {} ({}) ENGINE = InnoDB", path(table), parts.join(", "))
    }

    fn add_unique(&self, table: &str, columns: &[&str]) -> String {
        format!("ALTER TABLE {} ADD UNIQUE KEY ({})", path(table), names(columns))
    }

    fn add_index(&self, table: &str, columns: &[&str]) -> String {
        format!("ALTER TABLE {} ADD KEY ({})", path(table), names(columns))
    }

    fn add(&self, table: &str, column: &str, wanted: Wanted) -> String {
        let wanted = match wanted {
            Wanted::Time => "DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)".to_owned(),
            other => self.type_for(other),
        };
        format!("ALTER TABLE {} ADD COLUMN {} {wanted}", path(table), quote(column))
    }

    fn retype(&self, table: &str, column: &str, id_type: IdType) -> String {
        let wanted = self.type_for(Wanted::Id(id_type));
        format!("ALTER TABLE {} MODIFY COLUMN {} {wanted}", path(table), quote(column))
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

    /// Makes room for more numbers.
    pub fn widen_number(table: &str, column: &str) -> String {
        format!("ALTER TABLE {} MODIFY COLUMN {} BIGINT NOT NULL AUTO_INCREMENT", path(table), quote(column))
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

    fn type_for(self, wanted: Wanted) -> String {
        let id = |id_type| match id_type {
            IdType::Integer => "BIGINT".to_owned(),
            IdType::Uuid => "BINARY(16)".to_owned(),
            IdType::Text => format!("VARCHAR(191) {}", self.collation()),
        };
        match wanted {
            Wanted::Id(id_type) => format!("{} NOT NULL", id(id_type)),
            Wanted::IdOrNull(id_type) => id(id_type),
            Wanted::Time => "DATETIME(3) NOT NULL".to_owned(),
            Wanted::Count => "BIGINT NOT NULL DEFAULT 0".to_owned(),
            Wanted::Field => "TEXT CHARACTER SET utf8mb4".to_owned(),
        }
    }
}

/// The form of a default in a list of values: the text of the catalogue where it computes something, for which MySQL has
/// no other name.
pub(in crate::sql::mysql) fn default(maria: bool, column: &str, extra: &str, text: &str) -> String {
    if !maria && extra.contains("DEFAULT_GENERATED") {
        format!("({text})")
    } else {
        format!("DEFAULT({})", quote(column))
    }
}

fn names(columns: &[&str]) -> String {
    columns.iter().map(|column| quote(column)).collect::<Vec<_>>().join(", ")
}
