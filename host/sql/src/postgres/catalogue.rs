//! What the catalogue says.

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::engine::Postgres;
use super::statements::dialect::PostgresDialect;
use super::statements::{self, check, path};
use crate::engine::{Catalogue, Role};
use crate::finding::{Problem, Remedy, refuse};
use crate::introspection::{Column, Holds, Introspection, Skipping, Trigger, UniqueKey, is_constant};

impl Catalogue for Postgres {
    async fn read_facts(
        connection: &mut PgConnection,
        _dialect: PostgresDialect,
        table: &str,
        rights: &[&str],
    ) -> Result<Option<Introspection>, sqlx::Error> {
        let Some(row) = sqlx::query(statements::TABLE).bind(path(table)).fetch_optional(&mut *connection).await? else {
            return Ok(None);
        };
        let number: i64 = row.try_get(0)?;
        let mut facts = Introspection::default();
        if !row.try_get::<bool, _>(1)? {
            let remedy = Remedy::text("name the table behind it in weir.toml");
            facts.findings.push(refuse(Problem::NotATable, format!("{table} is not a table"), remedy));
        }
        let user: String = row.try_get(6)?;
        for (index, right) in ["SELECT", "INSERT", "DELETE", "UPDATE"].into_iter().enumerate() {
            if rights.contains(&right) && !row.try_get::<bool, _>(index + 2)? {
                let remedy = PostgresDialect::grant(right, table, &user);
                let problem = format!("this user has no right to {right} on {table}");
                facts.findings.push(refuse(Problem::NoRight, problem, remedy));
            }
        }
        for row in sqlx::query(statements::COLUMNS).bind(number).fetch_all(&mut *connection).await? {
            let (name, declared): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let holds = holds(row.try_get(2)?, row.try_get(3)?);
            let must_be_given = row.try_get::<bool, _>(4)? && !row.try_get::<bool, _>(5)?;
            let collation = match row.try_get::<bool, _>(6)? {
                true => None,
                false => Some(refuse(
                    Problem::Collation,
                    format!(
                        "{table}.{name} is compared by {}, under which different ids are equal",
                        row.try_get::<Option<String>, _>(7)?.unwrap_or_default()
                    ),
                    PostgresDialect::collate(table, &name, &declared),
                )),
            };
            let (generated, default) = (row.try_get(8)?, row.try_get(9)?);
            let unsigned = false;
            let preset = is_constant(&row.try_get::<String, _>(10)?);
            facts.columns.push(Column {
                name,
                declared,
                holds,
                unsigned,
                must_be_given,
                default,
                preset,
                generated,
                collation,
                rest: String::new(),
                collated: String::new(),
            });
        }
        for row in sqlx::query(statements::UNIQUE).bind(number).fetch_all(&mut *connection).await? {
            let (key, column): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            match facts.unique.last_mut().filter(|last| last.name == key) {
                Some(last) => last.columns.push(column),
                None => facts.unique.push(UniqueKey { name: key, columns: vec![column] }),
            }
        }
        facts.odd_keys = sqlx::query_scalar(statements::ODD_KEYS).bind(number).fetch_all(&mut *connection).await?;
        for row in sqlx::query(statements::SKIPPING).bind(number).fetch_all(&mut *connection).await? {
            facts.skipping.push(Skipping { name: row.try_get(0)?, on: row.try_get(1)? });
        }
        Ok(Some(facts))
    }

    /// What the self-check asks besides: how a table is partitioned, and what runs when rows come or go.
    async fn read_surroundings(
        connection: &mut PgConnection,
        _dialect: PostgresDialect,
        table: &str,
        _role: Role,
        facts: Option<&mut Introspection>,
    ) -> Result<(), sqlx::Error> {
        let Some(facts) = facts else { return Ok(()) };
        let Some(row) = sqlx::query(statements::TABLE).bind(path(table)).fetch_optional(&mut *connection).await? else {
            return Ok(());
        };
        let number: i64 = row.try_get(0)?;
        facts.partitioned_by =
            sqlx::query_scalar(check::PARTITIONED_BY).bind(number).fetch_all(&mut *connection).await?;
        for row in sqlx::query(check::TRIGGERS).bind(number).fetch_all(connection).await? {
            let (name, text, on, is_rule) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
            facts.triggers.push(Trigger { name, text, on: Some(on), is_rule });
        }
        Ok(())
    }

    async fn read_of_documents(
        connection: &mut PgConnection,
        _dialect: PostgresDialect,
        table: &str,
        facts: &mut Introspection,
    ) -> Result<(), sqlx::Error> {
        facts.leading = read_leading(connection, table).await?;
        Ok(())
    }
}

/// The columns with which the indexes of a table begin.
async fn read_leading(connection: &mut PgConnection, table: &str) -> Result<Vec<String>, sqlx::Error> {
    let Some(row) = sqlx::query(statements::TABLE).bind(path(table)).fetch_optional(&mut *connection).await? else {
        return Ok(Vec::new());
    };
    let number: i64 = row.try_get(0)?;
    sqlx::query_scalar(statements::LEADING).bind(number).fetch_all(connection).await
}

fn holds(type_name: &str, modifier: i32) -> Holds {
    let digits = u8::try_from(modifier).unwrap_or(6);
    match type_name {
        "int2" => Holds::Integer(2),
        "int4" => Holds::Integer(4),
        "int8" => Holds::Integer(8),
        "bool" => Holds::Boolean,
        "numeric" => Holds::Decimal,
        "float4" | "float8" => Holds::Real,
        "uuid" => Holds::Uuid,
        "bytea" => Holds::Bytes,
        "text" => Holds::Text(None),
        // The modifier counts a header of four bytes that is long gone.
        "varchar" => Holds::Text(u64::try_from(modifier).ok().map(|length| length.saturating_sub(4))),
        "bpchar" if modifier > 4 => Holds::Fixed(u64::from(modifier.unsigned_abs()).saturating_sub(4)),
        "json" | "jsonb" => Holds::Json,
        "date" => Holds::Date,
        "timestamptz" => Holds::Zoned(digits),
        "timestamp" => Holds::Plain(digits),
        _ => Holds::Other,
    }
}
