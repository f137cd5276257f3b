//! What the catalogue says.

use sqlx::Row;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::statements;
use super::statements::words::{MysqlWords, default};
use crate::config::ToggleTable;
use crate::sql::facts::{Column, Facts, Holds, UniqueKey, is_constant, refuse, warn};

/// The table of the pairs and that of the targets.
pub(super) async fn read_both(
    connection: &mut MySqlConnection,
    words: MysqlWords,
    table: &ToggleTable,
) -> Result<(Option<Facts>, Option<Facts>), sqlx::Error> {
    let pairs = read_facts(connection, words, &table.name).await?;
    let targets = match &table.targets {
        None => None,
        Some(targets) => read_facts(connection, words, &targets.name).await?,
    };
    Ok((pairs, targets))
}

/// One table; `None` when there is none of this name.
pub(super) async fn read_facts(
    connection: &mut MySqlConnection,
    words: MysqlWords,
    table: &str,
) -> Result<Option<Facts>, sqlx::Error> {
    let (schema, name) = table.split_once('.').map_or((None, table), |(schema, name)| (Some(schema), name));
    let query = sqlx::query(statements::TABLE).bind(schema).bind(name);
    let Some(row) = query.fetch_optional(&mut *connection).await? else { return Ok(None) };
    let mut facts = Facts::default();
    let (engine, table_type) = (text(&row, 0)?, text(&row, 1)?);
    if table_type != "BASE TABLE" {
        facts.findings.push(refuse(format!("{table} is not a table"), "name the table behind it in weir.toml".into()));
    } else if !engine.eq_ignore_ascii_case("InnoDB") {
        let problem = format!("{table} has engine {engine}, which cannot take part in a transaction");
        facts.findings.push(refuse(problem, MysqlWords::engine(table)));
    }
    for row in sqlx::query(statements::COLUMNS).bind(schema).bind(name).fetch_all(&mut *connection).await? {
        let (column, declared, not_null) = (text(&row, 0)?, text(&row, 1)?, number(&row, 5)? != 0);
        let collation = text(&row, 7)?;
        let remedy = words.collate(table, &column, &declared, not_null);
        let finding = if collation.is_empty() || is_exact(&collation) {
            None
        } else if collation.ends_with("_bin") {
            let problem =
                format!("{table}.{column} is compared by {collation}: ids that differ in trailing spaces are equal");
            Some(warn(problem, remedy))
        } else {
            let problem = format!("{table}.{column} is compared by {collation}, under which different ids are equal");
            Some(refuse(problem, remedy))
        };
        let (extra, default_text) = (text(&row, 8)?, text(&row, 9)?);
        // A missing number is a new one.
        let has_default = not_null && number(&row, 10)? != 0 && !extra.contains("auto_increment");
        facts.columns.push(Column {
            holds: holds(&text(&row, 2)?, &declared, number(&row, 3)?, number(&row, 4)?),
            unsigned: declared.contains("unsigned"),
            must_be_given: not_null && number(&row, 6)? == 0,
            preset: !extra.contains("DEFAULT_GENERATED") && number(&row, 10)? != 0 && is_preset(words, &default_text),
            default: has_default.then(|| default(words.maria, &column, &extra, &default_text)),
            generated: extra.contains(" GENERATED"),
            name: column,
            declared,
            collation: finding,
        });
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

/// Whether a default is the same for all rows. MySQL names constants without quotes; where it is NULL, so is the row.
fn is_preset(words: MysqlWords, default: &str) -> bool {
    !words.maria || is_constant(default)
}

/// Whether a collation tells all different texts apart, those with trailing spaces too.
fn is_exact(collation: &str) -> bool {
    collation.ends_with("_bin") && (collation.contains("_nopad_") || collation.contains("_0900_"))
}

/// The columns with which the indexes of a table begin.
pub(super) async fn read_leading(connection: &mut MySqlConnection, table: &str) -> Result<Vec<String>, sqlx::Error> {
    read_names(connection, statements::LEADING, table).await
}

/// The columns that were declared as JSON, where the engine calls them text.
pub(super) async fn read_json_columns(
    connection: &mut MySqlConnection,
    words: MysqlWords,
    table: &str,
) -> Result<Vec<String>, sqlx::Error> {
    if words.maria { read_names(connection, statements::JSON_COLUMNS, table).await } else { Ok(Vec::new()) }
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
        "bit" if declared == "bit(1)" => Holds::Boolean,
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
