//! What the catalogue says.

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::engine::Sqlite;
use super::statements;
use super::statements::dialect::SqliteDialect;
use crate::engine::{Catalogue, Role};
use crate::finding::{Problem, Remedy, refuse};
use crate::introspection::{Column, Holds, Introspection, Skipping, Trigger, UniqueKey, is_constant};

impl Catalogue for Sqlite {
    async fn read_facts(
        connection: &mut SqliteConnection,
        _dialect: SqliteDialect,
        table: &str,
        _rights: &[&str],
    ) -> Result<Option<Introspection>, sqlx::Error> {
        let (schema, name) = table.split_once('.').unwrap_or(("main", table));
        let columns = sqlx::query(statements::COLUMNS).bind(name).bind(schema).fetch_all(&mut *connection).await?;
        if columns.is_empty() {
            return Ok(None);
        }
        let keys = sqlx::query(statements::UNIQUE).bind(name).bind(schema).fetch_all(&mut *connection).await?;
        let deferred: i64 = sqlx::query_scalar(statements::DEFERRED).bind(name).fetch_one(&mut *connection).await?;
        let is_table: i64 =
            sqlx::query_scalar(statements::IS_TABLE).bind(name).bind(schema).fetch_one(&mut *connection).await?;
        let mut facts = Introspection::default();
        if is_table == 0 {
            let remedy = Remedy::text("name the table behind it in weir.toml");
            facts.findings.push(refuse(Problem::NotATable, format!("{table} is not a table"), remedy));
        }
        let mut primary: Vec<(i64, String)> = Vec::new();
        for row in &columns {
            let (name, declared): (String, String) = (row.try_get_unchecked(0)?, row.try_get_unchecked(1)?);
            let number = |index: usize| row.try_get_unchecked::<i64, _>(index);
            let (not_null, key, hidden) = (number(2)? != 0, number(4)?, number(5)?);
            let default: Option<String> = row.try_get_unchecked(3)?;
            if key > 0 {
                primary.push((key, name.clone()));
            }
            // SQLite fills the alias of the row id by itself.
            let alias = key == 1 && declared.eq_ignore_ascii_case("INTEGER");
            facts.columns.push(Column {
                holds: holds(&declared),
                name,
                declared,
                unsigned: false,
                must_be_given: not_null && default.is_none() && hidden == 0 && !alias,
                preset: default.as_deref().is_some_and(is_constant),
                default: default.filter(|_| not_null).map(|text| expression(&text)),
                // 2 and 3 are generated columns.
                generated: hidden > 1,
                collation: None,
                rest: String::new(),
                collated: String::new(),
            });
        }
        primary.sort_unstable();
        if !primary.is_empty() {
            let columns = primary.into_iter().map(|(_, column)| column).collect();
            facts.unique.push(UniqueKey { name: "PRIMARY KEY".into(), columns });
        }
        read_keys(&mut facts, table, &keys)?;
        facts.odd_keys =
            sqlx::query_scalar(statements::ODD_KEYS).bind(name).bind(schema).fetch_all(&mut *connection).await?;
        facts.skipping = read_skipping(connection, table).await?;
        if deferred > 0 {
            facts.findings.push(refuse(
                Problem::DeferredForeignKey,
                format!(
                    "{table} has a foreign key that is INITIALLY DEFERRED: one bad row would fail the whole commit"
                ),
                Remedy::text(format!("create {table} anew with immediate foreign keys, and copy")),
            ));
        }
        Ok(Some(facts))
    }

    /// What the self-check asks besides: what runs when rows come or go.
    async fn read_surroundings(
        connection: &mut SqliteConnection,
        _dialect: SqliteDialect,
        table: &str,
        role: Role,
        facts: Option<&mut Introspection>,
    ) -> Result<(), sqlx::Error> {
        if role == Role::Other {
            return Ok(());
        }
        let Some(facts) = facts else { return Ok(()) };
        let name = table.split_once('.').map_or(table, |(_, name)| name);
        for row in sqlx::query(statements::TRIGGERS).bind(name).fetch_all(connection).await? {
            let (name, text) = (row.try_get_unchecked(0)?, row.try_get_unchecked(1)?);
            facts.triggers.push(Trigger { name, text, on: None, is_rule: false });
        }
        Ok(())
    }

    async fn read_of_documents(
        connection: &mut SqliteConnection,
        _dialect: SqliteDialect,
        table: &str,
        facts: &mut Introspection,
    ) -> Result<(), sqlx::Error> {
        facts.leading = read_leading(connection, table).await?;
        Ok(())
    }

    async fn may_skip(connection: &mut SqliteConnection, table: &str) -> Result<bool, sqlx::Error> {
        Ok(!read_skipping(connection, table).await?.is_empty())
    }
}

/// The triggers of a table that may discard a row.
async fn read_skipping(connection: &mut SqliteConnection, table: &str) -> Result<Vec<Skipping>, sqlx::Error> {
    let name = table.split_once('.').map_or(table, |(_, name)| name);
    let rows = sqlx::query(statements::SKIPPING).bind(name).fetch_all(connection).await?;
    rows.iter().map(|row| Ok(Skipping { name: row.try_get_unchecked(0)?, on: row.try_get_unchecked(1)? })).collect()
}

/// The columns with which the indexes of a table begin.
async fn read_leading(connection: &mut SqliteConnection, table: &str) -> Result<Vec<String>, sqlx::Error> {
    let (schema, name) = table.split_once('.').unwrap_or(("main", table));
    sqlx::query_scalar(statements::LEADING).bind(name).bind(schema).fetch_all(connection).await
}

/// A default as an expression: where it stands, a bare word is a text.
fn expression(default: &str) -> String {
    let is_word = default.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && default.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let is_value = ["CURRENT_TIMESTAMP", "CURRENT_TIME", "CURRENT_DATE", "TRUE", "FALSE", "NULL"]
        .iter()
        .any(|word| word.eq_ignore_ascii_case(default));
    if is_word && !is_value { format!("'{default}'") } else { format!("({default})") }
}

fn holds(declared: &str) -> Holds {
    let declared = declared.to_ascii_uppercase();
    let has = |part: &str| declared.contains(part);
    if has("INT") {
        Holds::Integer(8)
    } else if has("CHAR") || has("CLOB") || has("TEXT") || has("UUID") {
        Holds::Text(None)
    } else if has("BLOB") || has("BINARY") {
        Holds::Bytes16
    } else if has("DATETIME") || has("TIMESTAMP") {
        Holds::Plain(3)
    } else if has("BOOL") {
        Holds::Boolean
    } else if has("JSON") {
        Holds::Json
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        Holds::Real
    } else if has("NUMERIC") || has("DECIMAL") {
        Holds::Decimal
    } else {
        Holds::Other
    }
}

/// The unique keys of a table, and columns that are compared by something else than their bytes.
fn read_keys(facts: &mut Introspection, table: &str, keys: &[SqliteRow]) -> Result<(), sqlx::Error> {
    for row in keys {
        let (key, column, collation): (String, Option<String>, String) =
            (row.try_get_unchecked(0)?, row.try_get_unchecked(1)?, row.try_get_unchecked(2)?);
        // Without a name it is an expression, and the key does not match any list of columns.
        let column = column.unwrap_or_default();
        if collation != "BINARY"
            && let Some(known) = facts.columns.iter_mut().find(|known| known.name == column)
        {
            known.collation = Some(refuse(
                Problem::Collation,
                format!("{table}.{column} is compared by {collation}, under which different ids are equal"),
                Remedy::text(format!("create {table} anew with {column} COLLATE BINARY, and copy")),
            ));
        }
        // The primary key is known by its columns.
        if row.try_get_unchecked::<i64, _>(3)? != 0 {
            continue;
        }
        match facts.unique.last_mut().filter(|last| last.name == key) {
            Some(last) => last.columns.push(column),
            None => facts.unique.push(UniqueKey { name: key, columns: vec![column] }),
        }
    }
    Ok(())
}
