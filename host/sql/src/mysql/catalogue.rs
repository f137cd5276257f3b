//! What the catalogue says.

use sqlx::Row;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::engine::Mysql;
use super::statements;
use super::statements::check::{self, Definition};
use super::statements::dialect::{MysqlDialect, default};
use crate::engine::{Catalogue, Role};
use crate::finding::{Finding, Problem, Remedy, refuse, warn};
use crate::introspection::{Column, Holds, Introspection, Trigger, UniqueKey, is_constant};

impl Catalogue for Mysql {
    async fn read_facts(
        connection: &mut MySqlConnection,
        dialect: MysqlDialect,
        table: &str,
        _rights: &[&str],
    ) -> Result<Option<Introspection>, sqlx::Error> {
        let (schema, name) = table.split_once('.').map_or((None, table), |(schema, name)| (Some(schema), name));
        let query = sqlx::query(statements::TABLE).bind(schema).bind(name);
        let Some(row) = query.fetch_optional(&mut *connection).await? else { return Ok(None) };
        let mut facts = Introspection::default();
        let (engine, table_type) = (text(&row, 0)?, text(&row, 1)?);
        if table_type != "BASE TABLE" {
            let remedy = Remedy::text("name the table behind it in weir.toml");
            facts.findings.push(refuse(Problem::NotATable, format!("{table} is not a table"), remedy));
        } else if !engine.eq_ignore_ascii_case("InnoDB") {
            let problem = format!("{table} has engine {engine}, which cannot take part in a transaction");
            facts.findings.push(refuse(Problem::NotTransactional, problem, MysqlDialect::engine(table)));
        }
        for row in sqlx::query(statements::COLUMNS).bind(schema).bind(name).fetch_all(&mut *connection).await? {
            let (column, declared, not_null) = (text(&row, 0)?, text(&row, 1)?, number(&row, 5)? != 0);
            let collation = text(&row, 7)?;
            let (extra, default_text) = (text(&row, 8)?, text(&row, 9)?);
            let (is_preset, comment) = (number(&row, 10)? != 0, text(&row, 11)?);
            // A missing number is a new one.
            let has_default = not_null && is_preset && !extra.contains("auto_increment");
            let definition = Definition {
                maria: dialect.maria,
                not_null,
                default: is_preset.then_some(default_text.as_str()),
                extra: &extra,
                comment: &comment,
            };
            facts.columns.push(Column {
                holds: holds(&text(&row, 2)?, &declared, number(&row, 3)?, number(&row, 4)?),
                unsigned: declared.contains("unsigned"),
                must_be_given: not_null && number(&row, 6)? == 0,
                preset: !extra.contains("DEFAULT_GENERATED") && is_preset && is_constant_here(dialect, &default_text),
                default: has_default.then(|| default(dialect.maria, &column, &extra, &default_text)),
                generated: extra.contains(" GENERATED"),
                rest: definition.text(),
                collated: if collation.is_empty() { String::new() } else { format!(" COLLATE {collation}") },
                collation: None,
                name: column,
                declared,
            });
            if let Some(column) = facts.columns.last() {
                let finding = loose(dialect, table, &facts, column, &collation);
                facts.columns.last_mut().into_iter().for_each(|column| column.collation = finding.clone());
            }
        }
        for row in sqlx::query(statements::UNIQUE).bind(schema).bind(name).fetch_all(&mut *connection).await? {
            let (key, column) = (text(&row, 0)?, text(&row, 1)?);
            match facts.unique.last_mut().filter(|last| last.name == key) {
                Some(last) => last.columns.push(column),
                None => facts.unique.push(UniqueKey { name: key, columns: vec![column] }),
            }
        }
        Ok(Some(facts))
    }

    /// What the self-check asks besides: how a table is partitioned, what runs when rows come or go, foreign keys.
    async fn read_surroundings(
        connection: &mut MySqlConnection,
        dialect: MysqlDialect,
        table: &str,
        _role: Role,
        facts: Option<&mut Introspection>,
    ) -> Result<(), sqlx::Error> {
        let Some(facts) = facts else { return Ok(()) };
        let (schema, name) = table.split_once('.').map_or((None, table), |(schema, name)| (Some(schema), name));
        for row in sqlx::query(check::PARTITIONED_BY).bind(schema).bind(name).fetch_all(&mut *connection).await? {
            let expression = text(&row, 0)?;
            let dialect = expression.split(|c: char| !c.is_alphanumeric() && c != '_');
            let columns = dialect.filter(|word| facts.column(word).is_some()).map(str::to_owned).collect::<Vec<_>>();
            facts.partitioned_by.extend(columns);
        }
        for row in sqlx::query(check::TRIGGERS).bind(schema).bind(name).fetch_all(&mut *connection).await? {
            facts.triggers.push(Trigger { name: text(&row, 0)?, text: text(&row, 1)?, on: None, is_rule: false });
        }
        let query = sqlx::query(check::FOREIGN_KEYS).bind(schema).bind(name).bind(schema).bind(name);
        for row in query.fetch_all(connection).await? {
            facts.foreign_keys.push((text(&row, 0)?, text(&row, 1)?));
        }
        // What mends a collation depends on the foreign keys.
        for index in 0..facts.columns.len() {
            let column = &facts.columns[index];
            let mended =
                column.collation.clone().map(|old| match (old.warning, dialect.collate(table, facts, column)) {
                    (true, remedy) => warn(old.name, old.problem, remedy),
                    (false, remedy) => refuse(old.name, old.problem, remedy),
                });
            facts.columns[index].collation = mended;
        }
        Ok(())
    }

    async fn read_of_documents(
        connection: &mut MySqlConnection,
        dialect: MysqlDialect,
        table: &str,
        facts: &mut Introspection,
    ) -> Result<(), sqlx::Error> {
        facts.leading = read_leading(connection, table).await?;
        let json = read_json_columns(connection, dialect, table).await?;
        for column in facts.columns.iter_mut().filter(|column| json.contains(&column.name)) {
            column.holds = Holds::Json;
        }
        Ok(())
    }
}

/// Why the comparisons of a column are not those of bytes.
fn loose(
    dialect: MysqlDialect,
    table: &str,
    facts: &Introspection,
    column: &Column,
    collation: &str,
) -> Option<Finding> {
    if collation.is_empty() || is_exact(collation) {
        return None;
    }
    let (name, remedy) = (&column.name, dialect.collate(table, facts, column));
    if collation.ends_with("_bin") {
        let problem =
            format!("{table}.{name} is compared by {collation}: ids that differ in trailing spaces are equal");
        return Some(warn(Problem::TrailingSpaces, problem, remedy));
    }
    let problem = format!("{table}.{name} is compared by {collation}, under which different ids are equal");
    Some(refuse(Problem::Collation, problem, remedy))
}

/// Whether a default is the same for all rows. MySQL names constants without quotes; where it is NULL, so is the row.
fn is_constant_here(dialect: MysqlDialect, default: &str) -> bool {
    !dialect.maria || is_constant(default)
}

/// Whether a collation distinguishes all different texts, including trailing spaces.
fn is_exact(collation: &str) -> bool {
    collation.ends_with("_bin") && (collation.contains("_nopad_") || collation.contains("_0900_"))
}

/// The columns with which the indexes of a table begin.
async fn read_leading(connection: &mut MySqlConnection, table: &str) -> Result<Vec<String>, sqlx::Error> {
    read_names(connection, statements::LEADING, table).await
}

/// The columns that were declared as JSON, where the engine calls them text.
async fn read_json_columns(
    connection: &mut MySqlConnection,
    dialect: MysqlDialect,
    table: &str,
) -> Result<Vec<String>, sqlx::Error> {
    if dialect.maria { read_names(connection, statements::JSON_COLUMNS, table).await } else { Ok(Vec::new()) }
}

async fn read_names(
    connection: &mut MySqlConnection,
    query: &'static str,
    table: &str,
) -> Result<Vec<String>, sqlx::Error> {
    let (schema, name) = table.split_once('.').map_or((None, table), |(schema, name)| (Some(schema), name));
    let rows = sqlx::query(query).bind(schema).bind(name).fetch_all(connection).await?;
    rows.iter().map(|row| text(row, 0)).collect()
}

fn holds(data_type: &str, declared: &str, length: i64, digits: i64) -> Holds {
    let length = u64::try_from(length).unwrap_or(0);
    let digits = u8::try_from(digits).unwrap_or(0);
    match data_type {
        "tinyint" => Holds::Integer(1),
        "smallint" => Holds::Integer(2),
        "mediumint" => Holds::Integer(3),
        "int" => Holds::Integer(4),
        "bigint" => Holds::Integer(8),
        "bit" => Holds::Bits(declared.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(u64::MAX)),
        "decimal" => Holds::Decimal,
        "float" | "double" => Holds::Real,
        "uuid" => Holds::Uuid,
        "binary" | "varbinary" if length == 16 => Holds::Bytes16,
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Holds::Bytes,
        "char" => Holds::Fixed(length),
        "json" => Holds::Json,
        "date" => Holds::Date,
        "enum" | "set" => Holds::Choice,
        "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => Holds::Text(Some(length)),
        "timestamp" => Holds::Zoned(digits),
        "datetime" => Holds::Plain(digits),
        _ => Holds::Other,
    }
}

/// A text, whatever type the server gave it.
pub(super) fn text(row: &MySqlRow, index: usize) -> Result<String, sqlx::Error> {
    row.try_get_unchecked(index)
}

/// A number, whatever type the server gave it.
pub(super) fn number(row: &MySqlRow, index: usize) -> Result<i64, sqlx::Error> {
    row.try_get_unchecked(index)
}
