//! The statements that weir suggests to an operator, and the queries of the self-check.

use super::{path, quote};
use crate::finding::{Advice, Remedy};
use crate::introspection::{Column, Counted, Dialect, Holds, Introspection, Trigger, Wanted};
use weir_core::model::IdType;

/// Targets of one batch of the statement that fills counts.
const FILL_TARGETS: usize = 10_000;

/// Dialect of PostgreSQL.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PostgresDialect;

impl Dialect for PostgresDialect {
    const UUID_TEXT: bool = false;
    const NUL: bool = false;

    fn loses_zone(&self, holds: Holds) -> bool {
        matches!(holds, Holds::Plain(_))
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
        let statement = format!("CREATE UNIQUE INDEX ON {} ({})", path(table), list(columns));
        Remedy::run(Advice::AddUniqueKey, [statement])
    }

    fn add_index(&self, table: &str, columns: &[&str]) -> Remedy {
        Remedy::run(Advice::AddIndex, [format!("CREATE INDEX ON {} ({})", path(table), list(columns))])
    }

    fn add(&self, table: &str, column: &str, wanted: Wanted) -> String {
        add(table, column, type_for(wanted))
    }

    fn add_time(&self, table: &str, column: &str) -> Remedy {
        Remedy::run(Advice::AddTime, [add(table, column, "timestamptz")])
    }

    fn fill_counts(&self, counted: &Counted<'_>) -> Remedy {
        let (table, count, key) = (path(counted.table), quote(counted.count), quote(counted.key));
        let number = |target: &str| number(counted, &format!("{target}.{key}"));
        let change = format!("UPDATE {table} AS f SET {count} = {}", number("f"));
        // The lock blocks adding and removing rows between the count and the commit.
        let whole =
            |update: String| format!("BEGIN; LOCK TABLE {} IN SHARE MODE; {update}; COMMIT", path(counted.rows));
        let all = format!("{change} WHERE f.{count} IS DISTINCT FROM {}", number("f"));
        let some = format!(
            "{change} WHERE f.{key} IN (SELECT g.{key} FROM {table} AS g WHERE g.{count} IS DISTINCT FROM {} LIMIT \
             {FILL_TARGETS})",
            number("g")
        );
        Remedy { in_batches: vec![whole(some)], ..Remedy::run(Advice::FillCounts, [whole(all)]) }
    }

    fn compare_counts(&self, counted: &Counted<'_>) -> Remedy {
        let (table, count, key) = (path(counted.table), quote(counted.count), quote(counted.key));
        let rows = number(counted, &format!("f.{key}"));
        Remedy::run(
            Advice::CompareCounts,
            [format!("SELECT f.{key}, f.{count}, {rows} FROM {table} AS f WHERE f.{count} IS DISTINCT FROM {rows}")],
        )
    }

    fn widen_integer(&self, table: &str, facts: &Introspection, column: &Column) -> Remedy {
        if facts.partitioned_by.contains(&column.name) {
            return Remedy::text(format!(
                "{table} is partitioned by {}, whose type cannot be changed: create {table} anew with bigint, and copy",
                column.name
            ));
        }
        let mut statements = vec![retype(table, &column.name, "bigint")];
        // A sequence keeps the range of the column that it was made for.
        if let Some(rest) = column.default.as_deref().and_then(|default| default.strip_prefix("nextval('"))
            && let Some((sequence, _)) = rest.split_once("'::regclass")
        {
            statements.push(format!("ALTER SEQUENCE {sequence} AS bigint"));
        }
        let text = "it rewrites the table, and nobody reads or writes it meanwhile:";
        Remedy::run(Advice::WidenInteger, statements).saying(text)
    }

    fn widen_text(&self, table: &str, _facts: &Introspection, column: &Column) -> Remedy {
        Remedy::run(Advice::WidenText, [retype(table, &column.name, "text")])
    }

    fn make_boolean(&self, _table: &str, _facts: &Introspection, _column: &Column) -> Remedy {
        Remedy::text("leave the column out in weir.toml, or give it another type")
    }

    fn default_time(&self, table: &str, column: &Column) -> Option<Remedy> {
        let statement = format!("ALTER TABLE {} ALTER COLUMN {} SET DEFAULT now()", path(table), quote(&column.name));
        Some(Remedy::run(Advice::DefaultTime, [statement]))
    }

    fn let_null(&self, table: &str, facts: &Introspection, column: &Column) -> Remedy {
        if facts.unique.iter().any(|key| key.columns.contains(&column.name)) {
            return Remedy::text(format!("take {} out of its unique keys, and let NULL be there", column.name));
        }
        let statement = format!("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL", path(table), quote(&column.name));
        Remedy::run(Advice::LetNull, [statement])
            .saying("write actor = \"required\" in weir.toml; or let NULL be there:")
    }

    fn drop_trigger(&self, table: &str, trigger: &Trigger) -> Remedy {
        let what = if trigger.is_rule { "RULE" } else { "TRIGGER" };
        let on = trigger.on.clone().unwrap_or_else(|| path(table));
        Remedy::run(Advice::DropTrigger, [format!("DROP {what} {} ON {on}", quote(&trigger.name))])
    }

    fn duplicates(&self, table: &str, columns: &[&str], limit: Option<usize>) -> String {
        let shown: Vec<String> = columns.iter().map(|column| format!("{}::text", quote(column))).collect();
        let limit = limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
        format!(
            "SELECT {}, count(*)::text FROM {} GROUP BY {} HAVING count(*) > 1{limit}",
            shown.join(", "),
            path(table),
            list(columns)
        )
    }

    fn largest(&self, table: &str, column: &str) -> String {
        format!("SELECT max({})::text FROM {}", quote(column), path(table))
    }

    fn sample(&self, counted: &Counted<'_>, targets: usize, rows_max: i128) -> String {
        let (table, rows, target) = (path(counted.table), path(counted.rows), quote(counted.target));
        let (key, count) = (quote(counted.key), quote(counted.count));
        let number = format!(
            "(SELECT count(*) FROM (SELECT 1 FROM {rows} AS l WHERE l.{target} = s.k LIMIT {}) AS m)",
            rows_max + 1
        );
        format!(
            "SELECT s.k::text, s.c::text, {number}::text FROM (
                (SELECT {key} AS k, COALESCE({count}, 0) AS c FROM {table} ORDER BY {key} LIMIT {targets}) UNION
                (SELECT {key}, COALESCE({count}, 0) FROM {table} ORDER BY {key} DESC LIMIT {targets}) UNION
                (SELECT f.{key}, COALESCE(f.{count}, 0) FROM {table} AS f JOIN
                    (SELECT DISTINCT x.{target} AS t FROM (SELECT {target} FROM {rows} LIMIT {targets}) AS x) AS d
                    ON d.t = f.{key})) AS s ORDER BY s.k"
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

fn retype(table: &str, column: &str, wanted: &str) -> String {
    format!("ALTER TABLE {} ALTER COLUMN {} TYPE {wanted}", path(table), quote(column))
}

impl PostgresDialect {
    /// Makes a column compare by bytes.
    pub fn collate(table: &str, column: &str, declared: &str) -> Remedy {
        Remedy::run(Advice::Collate, [retype(table, column, &format!("{declared} COLLATE \"C\""))])
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
    pub fn grant(right: &str, table: &str, user: &str) -> Remedy {
        let statement = format!("GRANT {right} ON {} TO {}", path(table), quote(user));
        Remedy::run(Advice::Grant, [statement]).saying("as the owner of the table:")
    }

    /// Turns a setting of the server on.
    pub fn set_on(name: &str) -> Remedy {
        let statements = [format!("ALTER SYSTEM SET {name} = on"), "SELECT pg_reload_conf()".to_owned()];
        Remedy::run(Advice::SetServer, statements)
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
