//! The statements that weir suggests to an operator, and the queries of the self-check.

use super::{path, quote, shown};
use crate::finding::{Advice, Remedy};
use crate::introspection::{Column, Counted, Dialect, Holds, Introspection, Trigger, Wanted};
use weir_core::model::IdType;

/// Targets of one batch of the statement that fills counts.
const FILL_TARGETS: usize = 10_000;

/// Dialect of MariaDB, or of MySQL.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MysqlDialect {
    /// MariaDB.
    pub maria: bool,
}

impl Dialect for MysqlDialect {
    const UUID_TEXT: bool = true;
    const NUL: bool = true;

    fn loses_zone(&self, holds: Holds) -> bool {
        matches!(holds, Holds::Zoned(_) | Holds::Plain(_))
    }

    fn create(&self, table: &str, columns: &[(&str, Wanted)], key: &[&str]) -> Remedy {
        let column = |(name, wanted): &(&str, Wanted)| format!("{} {}", quote(name), self.type_for(*wanted));
        let mut parts: Vec<String> = columns.iter().map(column).collect();
        if !key.is_empty() {
            parts.push(format!("PRIMARY KEY ({})", names(key)));
        }
        let statement = format!("CREATE TABLE {} ({}) ENGINE = InnoDB", path(table), parts.join(", "));
        Remedy::run(Advice::CreateTable, [statement])
    }

    fn add_unique(&self, table: &str, facts: &Introspection, columns: &[&str]) -> Remedy {
        // Of a TEXT only a prefix can be in a key.
        let texts =
            columns.iter().filter_map(|name| facts.column(name)).filter(|column| column.declared.ends_with("text"));
        let widened = texts.map(|column| modify(table, column, &self.text_type(), &column.rest));
        let mut statements: Vec<String> = widened.collect();
        statements.push(format!("ALTER TABLE {} ADD UNIQUE KEY ({})", path(table), names(columns)));
        Remedy::run(Advice::AddUniqueKey, statements)
    }

    fn add_index(&self, table: &str, columns: &[&str]) -> Remedy {
        Remedy::run(Advice::AddIndex, [format!("ALTER TABLE {} ADD KEY ({})", path(table), names(columns))])
    }

    fn add(&self, table: &str, column: &str, wanted: Wanted) -> String {
        add(table, column, &self.type_for(wanted))
    }

    fn add_time(&self, table: &str, column: &str) -> Remedy {
        Remedy::run(Advice::AddTime, [add(table, column, "DATETIME(3)")])
    }

    fn fill_counts(&self, counted: &Counted<'_>) -> Remedy {
        let (table, count, key) = (path(counted.table), quote(counted.count), quote(counted.key));
        let number = number(counted, &format!("f.{key}"));
        // At this isolation, what is counted is locked until the commit.
        let isolation = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ".to_owned();
        let all = format!("UPDATE {table} AS f SET f.{count} = {number} WHERE NOT (f.{count} <=> {number})");
        let some = format!("{all} ORDER BY f.{key} LIMIT {FILL_TARGETS}");
        Remedy { in_batches: vec![some], ..Remedy::run(Advice::FillCounts, [isolation, all]) }
    }

    fn compare_counts(&self, counted: &Counted<'_>) -> Remedy {
        let (table, count, key) = (path(counted.table), quote(counted.count), quote(counted.key));
        let rows = number(counted, &format!("f.{key}"));
        Remedy::run(
            Advice::CompareCounts,
            [format!("SELECT f.{key}, f.{count}, {rows} FROM {table} AS f WHERE NOT (f.{count} <=> {rows})")],
        )
    }

    fn widen_integer(&self, table: &str, facts: &Introspection, column: &Column) -> Remedy {
        let wanted = if column.unsigned { "BIGINT UNSIGNED" } else { "BIGINT" };
        self.change(Advice::WidenInteger, table, facts, column, wanted)
    }

    fn widen_text(&self, table: &str, facts: &Introspection, column: &Column) -> Remedy {
        self.change(Advice::WidenText, table, facts, column, &self.text_type())
    }

    fn make_boolean(&self, table: &str, facts: &Introspection, column: &Column) -> Remedy {
        if column.holds != Holds::Bits(1) {
            return Remedy::text("leave the column out in weir.toml, or give it another type");
        }
        self.change(Advice::MakeBoolean, table, facts, column, "TINYINT(1)")
    }

    fn default_time(&self, table: &str, column: &Column) -> Option<Remedy> {
        let (Holds::Zoned(digits) | Holds::Plain(digits)) = column.holds else { return None };
        let statement = format!(
            "ALTER TABLE {} ALTER COLUMN {} SET DEFAULT (CURRENT_TIMESTAMP({digits}))",
            path(table),
            quote(&column.name)
        );
        Some(Remedy::run(Advice::DefaultTime, [statement]))
    }

    fn let_null(&self, table: &str, facts: &Introspection, column: &Column) -> Remedy {
        if facts.unique.iter().any(|key| key.columns.contains(&column.name)) {
            return Remedy::text(format!("take {} out of its unique keys, and let NULL be there", column.name));
        }
        let rest = column.rest.replacen("NOT NULL", "NULL", 1);
        let wanted = format!("{}{}", column.declared, column.collated);
        Remedy::run(Advice::LetNull, [modify(table, column, &wanted, &rest)])
            .saying("write actor = \"required\" in weir.toml; or let NULL be there:")
    }

    fn drop_trigger(&self, table: &str, trigger: &Trigger) -> Remedy {
        // A trigger is in the schema of its table.
        let schema = table.split_once('.').map(|(schema, _)| format!("{}.", quote(schema))).unwrap_or_default();
        Remedy::run(Advice::DropTrigger, [format!("DROP TRIGGER {schema}{}", quote(&trigger.name))])
    }

    fn duplicates(&self, table: &str, columns: &[&str], limit: Option<usize>) -> String {
        let shown: Vec<String> = columns.iter().map(|column| format!("CAST({} AS CHAR)", quote(column))).collect();
        let limit = limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
        format!(
            "SELECT {}, CAST(COUNT(*) AS CHAR) FROM {} GROUP BY {} HAVING COUNT(*) > 1{limit}",
            shown.join(", "),
            path(table),
            names(columns)
        )
    }

    fn largest(&self, table: &str, column: &str) -> String {
        format!("SELECT CAST(MAX({}) AS CHAR) FROM {}", quote(column), path(table))
    }

    // What is counted cannot be bounded: a derived table of this engine does not know the row that it is asked for.
    fn sample(&self, counted: &Counted<'_>, targets: usize, _rows_max: i128) -> String {
        let (table, rows, target) = (path(counted.table), path(counted.rows), quote(counted.target));
        let (key, count) = (quote(counted.key), quote(counted.count));
        let number = format!("(SELECT COUNT(*) FROM {rows} AS l WHERE l.{target} = s.k)");
        format!(
            "SELECT {}, CAST(s.c AS CHAR), CAST({number} AS CHAR) FROM (
                (SELECT {key} AS k, COALESCE({count}, 0) AS c FROM {table} ORDER BY {key} LIMIT {targets}) UNION
                (SELECT {key}, COALESCE({count}, 0) FROM {table} ORDER BY {key} DESC LIMIT {targets}) UNION
                (SELECT f.{key}, COALESCE(f.{count}, 0) FROM {table} AS f JOIN
                    (SELECT DISTINCT x.{target} AS t FROM (SELECT {target} FROM {rows} LIMIT {targets}) AS x) AS d
                    ON d.t = f.{key})) AS s ORDER BY s.k",
            shown(counted.form, "s.k")
        )
    }
}

/// What the rows of a target come to.
fn number(counted: &Counted<'_>, target: &str) -> String {
    let what = match counted.by {
        None => "COUNT(*)".to_owned(),
        Some(by) => format!("COALESCE(SUM(l.{}), 0)", quote(by)),
    };
    format!("(SELECT {what} FROM {} AS l WHERE l.{} = {target})", path(counted.rows), quote(counted.target))
}

fn add(table: &str, column: &str, wanted: &str) -> String {
    format!("ALTER TABLE {} ADD COLUMN {} {wanted}", path(table), quote(column))
}

fn modify(table: &str, column: &Column, wanted: &str, rest: &str) -> String {
    format!("ALTER TABLE {} MODIFY COLUMN {} {wanted}{rest}", path(table), quote(&column.name))
}

impl MysqlDialect {
    /// Gives a column another type; what else its definition says is repeated, or it would be lost.
    fn change(self, advice: Advice, table: &str, facts: &Introspection, column: &Column, wanted: &str) -> Remedy {
        let keys: Vec<&str> =
            facts.foreign_keys.iter().filter(|(_, of)| *of == column.name).map(|(name, _)| name.as_str()).collect();
        if !keys.is_empty() {
            return Remedy::text(format!(
                "{table}.{} is in the foreign key {}, whose columns this engine does not change: drop it, make {wanted} of both \
                 columns, and add it again",
                column.name,
                keys.join(", ")
            ));
        }
        Remedy::run(advice, [modify(table, column, wanted, &column.rest)])
    }

    /// Makes a column compare by bytes.
    pub fn collate(self, table: &str, facts: &Introspection, column: &Column) -> Remedy {
        self.change(Advice::Collate, table, facts, column, &format!("{} {}", column.declared, self.collation()))
    }

    /// Makes room for more numbers.
    pub fn widen_number(table: &str, column: &str) -> String {
        format!("ALTER TABLE {} MODIFY COLUMN {} BIGINT NOT NULL AUTO_INCREMENT", path(table), quote(column))
    }

    /// Makes a table transactional.
    pub fn engine(table: &str) -> Remedy {
        Remedy::run(Advice::ChangeEngine, [format!("ALTER TABLE {} ENGINE = InnoDB", path(table))])
    }

    /// Sets a variable of the server.
    pub fn set_global(name: &str, value: &str) -> Remedy {
        Remedy::run(Advice::SetServer, [format!("SET GLOBAL {name} = {value}")])
            .saying("write it into the server's configuration, too, or it is forgotten at the next start:")
    }

    fn text_type(self) -> String {
        format!("VARCHAR(191) {}", self.collation())
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
            IdType::Text => self.text_type(),
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
pub(in crate::mysql) fn default(maria: bool, column: &str, extra: &str, text: &str) -> String {
    if !maria && extra.contains("DEFAULT_GENERATED") {
        format!("({text})")
    } else {
        format!("DEFAULT({})", quote(column))
    }
}

fn names(columns: &[&str]) -> String {
    columns.iter().map(|column| quote(column)).collect::<Vec<_>>().join(", ")
}
