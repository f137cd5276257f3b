//! The statements that weir suggests to an operator, and the queries of the self-check.

use super::{path, quote};
use crate::finding::{Advice, Remedy};
use crate::introspection::{Column, Counted, Dialect, Holds, IdForm, Introspection, Trigger, Wanted};
use weir_core::model::IdType;

/// Targets of one batch of the statement that fills counts.
const FILL_TARGETS: usize = 10_000;

/// Dialect of SQLite.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SqliteDialect;

impl Dialect for SqliteDialect {
    const UUID_TEXT: bool = true;
    // `json_each` cuts text off there without a word.
    const NUL: bool = false;

    fn loses_zone(&self, _holds: Holds) -> bool {
        false
    }

    fn create(&self, table: &str, columns: &[(&str, Wanted)], key: &[&str]) -> Remedy {
        let column = |(name, wanted): &(&str, Wanted)| format!("{} {}", quote(name), type_for(*wanted));
        let mut parts: Vec<String> = columns.iter().map(column).collect();
        if !key.is_empty() {
            parts.push(format!("PRIMARY KEY ({})", list(key)));
        }
        Remedy::run(Advice::CreateTable, [format!("CREATE TABLE {} ({})", path(table), parts.join(", "))])
    }

    fn add_unique(&self, table: &str, _facts: &Introspection, columns: &[&str]) -> Remedy {
        Remedy::run(Advice::AddUniqueKey, [index("UNIQUE INDEX", "key", table, columns)])
    }

    fn add_index(&self, table: &str, columns: &[&str]) -> Remedy {
        Remedy::run(Advice::AddIndex, [index("INDEX", "index", table, columns)])
    }

    fn add(&self, table: &str, column: &str, wanted: Wanted) -> String {
        add(table, column, type_for(wanted))
    }

    fn add_time(&self, table: &str, column: &str) -> Remedy {
        Remedy::run(Advice::AddTime, [add(table, column, "INTEGER")])
    }

    fn fill_counts(&self, counted: &Counted<'_>) -> Remedy {
        let (table, count, key) = (path(counted.table), quote(counted.count), quote(counted.key));
        let number = |target: &str| number(counted, &format!("{target}.{key}"));
        let change = format!("UPDATE {table} AS f SET {count} = {}", number("f"));
        let all = format!("{change} WHERE f.{count} IS NOT {}", number("f"));
        let some = format!(
            "{change} WHERE f.{key} IN (SELECT g.{key} FROM {table} AS g WHERE g.{count} IS NOT {} LIMIT {FILL_TARGETS})",
            number("g")
        );
        Remedy { in_batches: vec![some], ..Remedy::run(Advice::FillCounts, [all]) }
    }

    fn compare_counts(&self, counted: &Counted<'_>) -> Remedy {
        let (table, count, key) = (path(counted.table), quote(counted.count), quote(counted.key));
        let rows = number(counted, &format!("f.{key}"));
        Remedy::run(
            Advice::CompareCounts,
            [format!("SELECT f.{key}, f.{count}, {rows} FROM {table} AS f WHERE f.{count} IS NOT {rows}")],
        )
    }

    fn widen_integer(&self, table: &str, _facts: &Introspection, column: &Column) -> Remedy {
        anew(table, column, type_for(Wanted::IdOrNull(IdType::Integer)))
    }

    fn widen_text(&self, table: &str, _facts: &Introspection, column: &Column) -> Remedy {
        anew(table, column, type_for(Wanted::IdOrNull(IdType::Text)))
    }

    fn make_boolean(&self, table: &str, _facts: &Introspection, column: &Column) -> Remedy {
        anew(table, column, "BOOLEAN")
    }

    fn default_time(&self, _table: &str, _column: &Column) -> Option<Remedy> {
        None
    }

    fn let_null(&self, table: &str, _facts: &Introspection, column: &Column) -> Remedy {
        Remedy::text(format!(
            "write actor = \"required\" in weir.toml; or create {table} anew with {} that may be NULL",
            column.name
        ))
    }

    fn drop_trigger(&self, _table: &str, trigger: &Trigger) -> Remedy {
        Remedy::run(Advice::DropTrigger, [format!("DROP TRIGGER {}", quote(&trigger.name))])
    }

    fn duplicates(&self, table: &str, columns: &[&str], limit: Option<usize>) -> String {
        let shown: Vec<String> = columns.iter().map(|column| format!("CAST({} AS TEXT)", quote(column))).collect();
        let limit = limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
        format!(
            "SELECT {}, CAST(count(*) AS TEXT) FROM {} GROUP BY {} HAVING count(*) > 1{limit}",
            shown.join(", "),
            path(table),
            list(columns)
        )
    }

    fn largest(&self, table: &str, column: &str) -> String {
        format!("SELECT CAST(max({}) AS TEXT) FROM {}", quote(column), path(table))
    }

    fn sample(&self, counted: &Counted<'_>, targets: usize, rows_max: i128) -> String {
        let (table, rows, target) = (path(counted.table), path(counted.rows), quote(counted.target));
        let (key, count) = (quote(counted.key), quote(counted.count));
        let shown = match counted.form {
            IdForm::UuidBytes => "lower(hex(s.k))",
            _ => "CAST(s.k AS TEXT)",
        };
        let number =
            format!("(SELECT count(*) FROM (SELECT 1 FROM {rows} AS l WHERE l.{target} = s.k LIMIT {}))", rows_max + 1);
        format!(
            "SELECT {shown}, CAST(s.c AS TEXT), CAST({number} AS TEXT) FROM (
                SELECT * FROM (SELECT {key} AS k, COALESCE({count}, 0) AS c FROM {table} ORDER BY {key} LIMIT {targets}) UNION
                SELECT * FROM (SELECT {key}, COALESCE({count}, 0) FROM {table} ORDER BY {key} DESC LIMIT {targets}) UNION
                SELECT f.{key}, COALESCE(f.{count}, 0) FROM
                    (SELECT DISTINCT x.{target} AS t FROM (SELECT {target} FROM {rows} LIMIT {targets}) AS x) AS d
                    CROSS JOIN {table} AS f ON d.t = f.{key}) AS s ORDER BY s.k"
        )
    }
}

/// What the rows of a target come to.
fn number(counted: &Counted<'_>, target: &str) -> String {
    let what = match counted.by {
        None => "count(*)".to_owned(),
        Some(by) => format!("COALESCE(sum(l.{}), 0)", quote(by)),
    };
    format!("(SELECT {what} FROM {} AS l WHERE l.{} = {target})", path(counted.rows), quote(counted.target))
}

fn add(table: &str, column: &str, wanted: &str) -> String {
    format!("ALTER TABLE {} ADD COLUMN {} {wanted}", path(table), quote(column))
}

/// This engine does not change columns.
fn anew(table: &str, column: &Column, wanted: &str) -> Remedy {
    Remedy::text(format!("create {table} anew with {} {wanted}, and copy", column.name))
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
