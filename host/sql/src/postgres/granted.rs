//! Statements of the operator: how they are run, and how columns of PostgreSQL become values.
//!
//! Columns come as the database writes them; of what is run one by one in the binary form of their types. What is not known
//! here is refused by its name, never guessed.

use sqlx::postgres::{PgColumn, PgConnection, PgRow, PgTypeInfo, PgTypeKind};
use sqlx::{AssertSqlSafe, Column, Executor, Row, SqlSafeStr, Statement, Type, TypeInfo, ValueRef};
use uuid::Uuid;

use super::statements::{self, granted};
use super::{PostgresDriver, PostgresSql};
use crate::RowSets;
use crate::driver::OperatorStatements;
use crate::granted::{
    Script, Stop, clock_text, date_text, fits, is_plain, run_one_by_one, run_together, text, unreadable,
};
use weir_core::config::{ParameterType, StatementConfig};
use weir_core::model::SqlValue;

/// Days from 1970-01-01 to 2000-01-01, from which PostgreSQL counts.
const EPOCH_DAYS: i64 = 10_957;
/// Microseconds of a day.
const DAY_MICROS: i64 = 86_400_000_000;

/// What the driver calls a type that it has not asked the database for.
const UNKNOWN_TYPE: &str = "?";

impl OperatorStatements for PostgresDriver {
    /// Prepares the statement with the types of its parameters.
    async fn prepare(
        connection: &mut PgConnection,
        statement: &StatementConfig,
    ) -> Result<sqlx::postgres::PgStatement, sqlx::Error> {
        let types: Vec<PgTypeInfo> = statement
            .parameters
            .iter()
            .map(|parameter| match parameter {
                ParameterType::Integer => <i64 as Type<sqlx::Postgres>>::type_info(),
                ParameterType::Real => <f64 as Type<sqlx::Postgres>>::type_info(),
                ParameterType::Text => <String as Type<sqlx::Postgres>>::type_info(),
            })
            .collect();
        connection.prepare_with(AssertSqlSafe(text(statement)).into_sql_str(), &types).await
    }

    /// One that [`is_plain`] goes with all its runs in one message.
    async fn run(
        database: &PostgresSql,
        connection: &mut PgConnection,
        statement: &StatementConfig,
        parameters: &[Vec<SqlValue>],
    ) -> Result<RowSets, Stop> {
        let script = &Limits(&database.driver.limits);
        // Known to the connection from the second call on.
        let prepared = Self::prepare(connection, statement).await?;
        fits(statement, &prepared)?;
        if !is_plain(&statement.sql) {
            return run_one_by_one::<sqlx::Postgres, _>(connection, script, statement, &prepared, parameters, read)
                .await;
        }
        let forms: Vec<Option<Form>> = prepared.columns().iter().map(|column| form(column.type_info())).collect();
        let read = |row: &PgRow, index: usize| read_text(row, index, forms.get(index).copied().flatten());
        run_together::<sqlx::Postgres, _>(connection, script, statement, parameters, read).await
    }

    /// What of a column's type cannot be read.
    fn unreadable(column: &PgColumn) -> Option<String> {
        let info = column.type_info();
        form(info).is_none().then(|| unreadable(info.name()))
    }
}

/// What bounds a statement that writes, where a session cannot.
struct Limits<'a>(&'a [String]);

impl Script for Limits<'_> {
    const DEALLOCATE: &'static str = granted::DEALLOCATE;

    fn begin(&self, statement: &StatementConfig) -> Vec<String> {
        granted::begin(statement.write, statement.timeout_ms, self.0)
    }

    fn prepare(&self, statement: &StatementConfig) -> Vec<String> {
        vec![granted::prepare(&text(statement), &statement.parameters)]
    }

    fn execute(&self, values: &[SqlValue]) -> String {
        granted::execute(values)
    }

    fn end(&self) -> Vec<String> {
        vec![statements::COMMIT.into()]
    }

    fn cannot_be(&self, value: &SqlValue) -> Option<&'static str> {
        let has_nul = matches!(value, SqlValue::Text(text) if text.contains('\0'));
        has_nul.then_some("has a NUL character, which no text of PostgreSQL may")
    }
}

/// How a type lies in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Bool,
    Integer,
    Real,
    Text,
    Jsonb,
    Uuid,
    Numeric,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Void,
}

fn form(info: &PgTypeInfo) -> Option<Form> {
    Some(match info.name() {
        "BOOL" => Form::Bool,
        "INT2" | "INT4" | "INT8" | "OID" => Form::Integer,
        "FLOAT4" | "FLOAT8" => Form::Real,
        "TEXT" | "VARCHAR" | "CHAR" | "NAME" | "JSON" | "UNKNOWN" | "\"CHAR\"" => Form::Text,
        "JSONB" => Form::Jsonb,
        "UUID" => Form::Uuid,
        "NUMERIC" => Form::Numeric,
        "DATE" => Form::Date,
        "TIME" => Form::Time,
        "TIMESTAMP" => Form::Timestamp,
        "TIMESTAMPTZ" => Form::Timestamptz,
        "VOID" => Form::Void,
        name if name.eq_ignore_ascii_case("citext") => Form::Text,
        _ if matches!(info.kind(), PgTypeKind::Enum(_)) => Form::Text,
        _ => return None,
    })
}

fn read(row: &PgRow, index: usize) -> Result<SqlValue, String> {
    let raw = row.try_get_raw(index).map_err(|error| error.to_string())?;
    if raw.is_null() {
        return Ok(SqlValue::Null);
    }
    let info = raw.type_info();
    let form = form(&info).ok_or_else(|| unreadable(info.name()))?;
    let bytes = raw.as_bytes().map_err(|error| error.to_string())?;
    let unsigned = info.name() == "OID";
    value(form, unsigned, bytes).ok_or_else(|| format!("holds a {} that cannot be read", info.name()))
}

/// A column as PostgreSQL writes it. `prepared` is what its type was when the statement was prepared, for types that only
/// this database knows.
fn read_text(row: &PgRow, index: usize, prepared: Option<Form>) -> Result<SqlValue, String> {
    let raw = row.try_get_raw(index).map_err(|error| error.to_string())?;
    if raw.is_null() {
        return Ok(SqlValue::Null);
    }
    let info = raw.type_info();
    let form = if info.name() == UNKNOWN_TYPE { prepared } else { form(&info) };
    let form = form.ok_or_else(|| unreadable(info.name()))?;
    let text = raw.as_str().map_err(|error| error.to_string())?;
    text_value(form, info.name() == "FLOAT4", text)
        .ok_or_else(|| format!("holds a {} that cannot be read", info.name()))
}

fn text_value(form: Form, is_single: bool, text: &str) -> Option<SqlValue> {
    Some(match form {
        Form::Bool => SqlValue::Integer(i64::from(text == "t")),
        Form::Integer => SqlValue::Integer(text.parse().ok()?),
        // The nearest number of its own width, as the binary form has it.
        Form::Real if is_single => SqlValue::Real(text.parse::<f32>().ok()?.into()),
        Form::Real => SqlValue::Real(text.parse().ok()?),
        Form::Void => SqlValue::Null,
        Form::Text
        | Form::Jsonb
        | Form::Uuid
        | Form::Numeric
        | Form::Date
        | Form::Time
        | Form::Timestamp
        | Form::Timestamptz => SqlValue::Text(text.to_owned()),
    })
}

fn value(form: Form, unsigned: bool, bytes: &[u8]) -> Option<SqlValue> {
    Some(match form {
        Form::Bool => SqlValue::Integer(i64::from(*bytes.first()? != 0)),
        Form::Integer if unsigned => SqlValue::Integer(u32::from_be_bytes(bytes.try_into().ok()?).into()),
        Form::Integer => SqlValue::Integer(integer(bytes)?),
        Form::Real => SqlValue::Real(match bytes.len() {
            4 => f32::from_be_bytes(bytes.try_into().ok()?).into(),
            _ => f64::from_be_bytes(bytes.try_into().ok()?),
        }),
        Form::Text => SqlValue::Text(std::str::from_utf8(bytes).ok()?.to_owned()),
        Form::Jsonb => SqlValue::Text(std::str::from_utf8(bytes.strip_prefix(&[1])?).ok()?.to_owned()),
        Form::Uuid => SqlValue::Text(Uuid::from_slice(bytes).ok()?.to_string()),
        Form::Numeric => SqlValue::Text(numeric_text(bytes)?),
        Form::Date => SqlValue::Text(match integer(bytes)? {
            days if days == i64::from(i32::MAX) => "infinity".into(),
            days if days == i64::from(i32::MIN) => "-infinity".into(),
            days => date_text(days + EPOCH_DAYS),
        }),
        Form::Time => SqlValue::Text(clock_text(integer(bytes)?.try_into().ok()?)),
        Form::Timestamp => SqlValue::Text(moment_text(integer(bytes)?, "")),
        // The session's zone is UTC.
        Form::Timestamptz => SqlValue::Text(moment_text(integer(bytes)?, "+00")),
        Form::Void => SqlValue::Null,
    })
}

fn integer(bytes: &[u8]) -> Option<i64> {
    Some(match bytes.len() {
        2 => i16::from_be_bytes(bytes.try_into().ok()?).into(),
        4 => i32::from_be_bytes(bytes.try_into().ok()?).into(),
        _ => i64::from_be_bytes(bytes.try_into().ok()?),
    })
}

fn moment_text(micros: i64, zone: &str) -> String {
    match micros {
        i64::MAX => "infinity".into(),
        i64::MIN => "-infinity".into(),
        _ => {
            let date = date_text(micros.div_euclid(DAY_MICROS) + EPOCH_DAYS);
            let time = clock_text(micros.rem_euclid(DAY_MICROS).unsigned_abs());
            match date.strip_suffix(" BC") {
                Some(date) => format!("{date} {time}{zone} BC"),
                None => format!("{date} {time}{zone}"),
            }
        }
    }
}

/// `count weight sign scale digits…`, 16 bits each: digits to the base of 10,000, the first one times 10,000^weight.
fn numeric_text(bytes: &[u8]) -> Option<String> {
    let mut words = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let (count, weight, sign, scale) = (words.next()?, words.next()?.cast_signed(), words.next()?, words.next()?);
    let sign = match sign {
        0x0000 => "",
        0x4000 => "-",
        0xC000 => return Some("NaN".into()),
        0xD000 => return Some("Infinity".into()),
        0xF000 => return Some("-Infinity".into()),
        _ => return None,
    };
    let digits: Vec<u16> = words.collect();
    if digits.len() != usize::from(count) || digits.iter().any(|digit| *digit >= 10_000) {
        return None;
    }
    let digit = |place: i32| usize::try_from(place).ok().and_then(|place| digits.get(place)).copied().unwrap_or(0);
    let weight = i32::from(weight);
    let whole: String = (0..=weight).map(|place| format!("{:04}", digit(place))).collect();
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let scale = usize::from(scale);
    let groups = i32::try_from(scale.div_ceil(4)).ok()?;
    let mut fraction: String = (1..=groups).map(|place| format!("{:04}", digit(weight + place))).collect();
    fraction.truncate(scale);
    let point = if scale == 0 { "" } else { "." };
    Some(format!("{sign}{whole}{point}{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(weight: i16, sign: u16, scale: u16, digits: &[u16]) -> Option<String> {
        let count = u16::try_from(digits.len()).unwrap();
        let dialect = [count, weight.cast_unsigned(), sign, scale];
        let bytes: Vec<u8> = dialect.iter().chain(digits).flat_map(|word| word.to_be_bytes()).collect();
        numeric_text(&bytes)
    }

    #[test]
    fn decimals_are_written_as_postgres_writes_them() {
        assert_eq!(numeric(0, 0, 0, &[]).unwrap(), "0");
        assert_eq!(numeric(0, 0, 2, &[]).unwrap(), "0.00");
        assert_eq!(numeric(0, 0, 2, &[12, 3400]).unwrap(), "12.34");
        assert_eq!(numeric(-1, 0x4000, 4, &[5]).unwrap(), "-0.0005");
        assert_eq!(numeric(-2, 0, 8, &[1]).unwrap(), "0.00000001");
        assert_eq!(numeric(2, 0, 0, &[1]).unwrap(), "100000000");
        assert_eq!(numeric(1, 0x4000, 3, &[1, 2, 3450]).unwrap(), "-10002.345");
        assert_eq!(numeric(0, 0xC000, 0, &[]).unwrap(), "NaN");
        assert_eq!(numeric(0, 1, 0, &[]), None);
        assert_eq!(numeric_text(b"\0\x01\0\0\0\0\0\0"), None, "a digit is missing");
    }

    #[test]
    fn moments_are_written_as_postgres_writes_them() {
        assert_eq!(moment_text(0, "+00"), "2000-01-01 00:00:00+00");
        assert_eq!(moment_text(-1, ""), "1999-12-31 23:59:59.999999");
        assert_eq!(moment_text(i64::MAX, "+00"), "infinity");
        assert_eq!(moment_text(-730_120 * DAY_MICROS, ""), "0001-12-31 00:00:00 BC");
    }
}
