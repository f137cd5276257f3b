//! Statements of the operator: how they are run, and how columns of MariaDB and MySQL become values.
//!
//! Columns come as the database writes them; of what is run one by one in the binary form of their types, where decimals are
//! texts and times have a form of their own. What is not known here is refused by its name, never guessed.

use sqlx::mysql::{MySqlColumn, MySqlConnection, MySqlRow, MySqlStatement, MySqlTypeInfo};
use sqlx::{AssertSqlSafe, Column, Executor, MySql, Row, SqlSafeStr, Statement, Type, TypeInfo, ValueRef};

use super::statements::granted;
use super::{MysqlDriver, MysqlSql};
use crate::RowSets;
use crate::driver::OperatorStatements;
use crate::granted::{Script, Stop, clock_text, fits, is_plain, run_one_by_one, run_together, text, unreadable};
use weir_core::config::{SqlConfig, StatementConfig};
use weir_core::model::SqlValue;

/// What a session is like outside of the operator's statements.
struct Session<'a> {
    settings: &'a SqlConfig,
    maria: bool,
}

impl OperatorStatements for MysqlDriver {
    /// Prepares the statement.
    async fn prepare(
        connection: &mut MySqlConnection,
        statement: &StatementConfig,
    ) -> Result<MySqlStatement, sqlx::Error> {
        connection.prepare_with(AssertSqlSafe(text(statement)).into_sql_str(), &[]).await
    }

    /// One that [`is_plain`] goes with all its runs in one message.
    async fn run(
        database: &MysqlSql,
        connection: &mut MySqlConnection,
        statement: &StatementConfig,
        parameters: &[Vec<SqlValue>],
    ) -> Result<RowSets, Stop> {
        let session = &Session { settings: &database.settings, maria: database.driver.is_maria() };
        // Known to the connection from the second call on.
        let prepared = Self::prepare(connection, statement).await?;
        fits(statement, &prepared)?;
        // As text a FLOAT has six digits.
        let is_cut = |column: &MySqlColumn| column.type_info().name() == "FLOAT";
        if !is_plain(&statement.sql) || prepared.columns().iter().any(is_cut) {
            return run_one_by_one::<MySql, _>(connection, session, statement, &prepared, parameters, read).await;
        }
        run_together::<MySql, _>(connection, session, statement, parameters, read_text).await
    }

    /// What of a column's type cannot be read.
    fn unreadable(column: &MySqlColumn) -> Option<String> {
        let info = column.type_info();
        form(info).is_none().then(|| unreadable(info.name()))
    }
}

impl Script for Session<'_> {
    const DEALLOCATE: &'static str = granted::DEALLOCATE;

    fn begin(&self, statement: &StatementConfig) -> Vec<String> {
        granted::begin(statement.write, statement.timeout_ms, self.maria)
    }

    fn prepare(&self, statement: &StatementConfig) -> Vec<String> {
        granted::prepare(&text(statement)).into()
    }

    fn assign(&self, values: &[SqlValue]) -> Option<String> {
        granted::assign(values)
    }

    fn execute(&self, values: &[SqlValue]) -> String {
        granted::execute(values.len())
    }

    fn end(&self) -> Vec<String> {
        granted::end(self.settings, self.maria).into()
    }

    fn cannot_be(&self, value: &SqlValue) -> Option<&'static str> {
        let is_no_number = matches!(value, SqlValue::Real(number) if !number.is_finite());
        is_no_number.then_some("is infinite or not a number, which no number of MariaDB or MySQL is")
    }
}

/// How a type lies in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Signed,
    Unsigned,
    Real,
    Text,
    Date,
    Datetime,
    Time,
    Null,
}

fn form(info: &MySqlTypeInfo) -> Option<Form> {
    Some(match info.name() {
        "BOOLEAN" | "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" | "BIGINT" => Form::Signed,
        "FLOAT" | "DOUBLE" => Form::Real,
        "DECIMAL" | "JSON" | "ENUM" | "SET" => Form::Text,
        "DATE" => Form::Date,
        "DATETIME" | "TIMESTAMP" => Form::Datetime,
        "TIME" => Form::Time,
        "NULL" => Form::Null,
        name if name == "YEAR" || name.ends_with("UNSIGNED") => Form::Unsigned,
        // By its collation: texts that are compared by bytes have the name of a binary type.
        _ if <str as Type<MySql>>::compatible(info) => Form::Text,
        _ => return None,
    })
}

fn read(row: &MySqlRow, index: usize) -> Result<SqlValue, String> {
    let raw = row.try_get_raw(index).map_err(|error| error.to_string())?;
    // A date of zeros counts as NULL.
    if raw.is_null() {
        return Ok(SqlValue::Null);
    }
    let info = raw.type_info();
    let form = form(&info).ok_or_else(|| unreadable(info.name()))?;
    let bytes: &[u8] = row.try_get_unchecked(index).map_err(|error| error.to_string())?;
    value(form, bytes).ok_or_else(|| not_read(form, &info))
}

/// A column as the database writes it.
fn read_text(row: &MySqlRow, index: usize) -> Result<SqlValue, String> {
    let raw = row.try_get_raw(index).map_err(|error| error.to_string())?;
    if raw.is_null() {
        return Ok(SqlValue::Null);
    }
    let info = raw.type_info();
    let form = form(&info).ok_or_else(|| unreadable(info.name()))?;
    let bytes: &[u8] = row.try_get_unchecked(index).map_err(|error| error.to_string())?;
    let value = std::str::from_utf8(bytes).ok().and_then(|text| text_value(form, text));
    value.ok_or_else(|| not_read(form, &info))
}

fn not_read(form: Form, info: &MySqlTypeInfo) -> String {
    match form {
        Form::Unsigned => "holds a number beyond a signed 64-bit integer: cast it to text in the statement".into(),
        _ => format!("holds a {} that cannot be read", info.name()),
    }
}

fn text_value(form: Form, text: &str) -> Option<SqlValue> {
    Some(match form {
        Form::Signed | Form::Unsigned => SqlValue::Integer(text.parse().ok()?),
        Form::Real => SqlValue::Real(text.parse().ok()?),
        // A date of zeros counts as NULL, here too.
        Form::Date | Form::Datetime if text.starts_with("0000-00-00") => SqlValue::Null,
        // The fraction of a second is as long as the column declares.
        Form::Datetime | Form::Time if text.contains('.') => {
            SqlValue::Text(text.trim_end_matches('0').trim_end_matches('.').to_owned())
        }
        Form::Text | Form::Date | Form::Datetime | Form::Time => SqlValue::Text(text.to_owned()),
        Form::Null => SqlValue::Null,
    })
}

fn value(form: Form, bytes: &[u8]) -> Option<SqlValue> {
    Some(match form {
        Form::Signed => SqlValue::Integer(match bytes.len() {
            1 => i8::from_le_bytes(bytes.try_into().ok()?).into(),
            2 => i16::from_le_bytes(bytes.try_into().ok()?).into(),
            4 => i32::from_le_bytes(bytes.try_into().ok()?).into(),
            _ => i64::from_le_bytes(bytes.try_into().ok()?),
        }),
        Form::Unsigned => SqlValue::Integer(match bytes.len() {
            1 => u8::from_le_bytes(bytes.try_into().ok()?).into(),
            2 => u16::from_le_bytes(bytes.try_into().ok()?).into(),
            4 => u32::from_le_bytes(bytes.try_into().ok()?).into(),
            _ => i64::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()?,
        }),
        Form::Real => SqlValue::Real(match bytes.len() {
            4 => f32::from_le_bytes(bytes.try_into().ok()?).into(),
            _ => f64::from_le_bytes(bytes.try_into().ok()?),
        }),
        Form::Text => SqlValue::Text(std::str::from_utf8(bytes).ok()?.to_owned()),
        Form::Date => SqlValue::Text(date(bytes)?),
        Form::Datetime => {
            SqlValue::Text(format!("{} {}", date(bytes)?, clock_text(clock(bytes.get(5..).unwrap_or_default())?)))
        }
        Form::Time => SqlValue::Text(time(bytes)?),
        Form::Null => SqlValue::Null,
    })
}

/// `length u8 · year u16 · month u8 · day u8 …`.
fn date(bytes: &[u8]) -> Option<String> {
    let [_, low, high, month, day, ..] = bytes else { return None };
    Some(format!("{:04}-{month:02}-{day:02}", u16::from_le_bytes([*low, *high])))
}

/// Microseconds of `hour u8 · minute u8 · second u8 · microseconds u32`, of which the end, or all, is left out when it
/// is 0.
fn clock(bytes: &[u8]) -> Option<u64> {
    let [hour, minute, second, fraction @ ..] = bytes else { return bytes.is_empty().then_some(0) };
    let micros = if fraction.is_empty() { 0 } else { u32::from_le_bytes(fraction.try_into().ok()?) };
    let seconds = (u64::from(*hour) * 60 + u64::from(*minute)) * 60 + u64::from(*second);
    Some(seconds * 1_000_000 + u64::from(micros))
}

/// `length u8 · negative u8 · days u32 · hour …`, which may be more than a day.
fn time(bytes: &[u8]) -> Option<String> {
    let [_, negative, rest @ ..] = bytes else { return Some(clock_text(0)) };
    let (days, rest) = rest.split_first_chunk::<4>()?;
    let text = clock_text(u64::from(u32::from_le_bytes(*days)) * 86_400_000_000 + clock(rest)?);
    Some(if *negative == 1 { format!("-{text}") } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_their_own_form() {
        let text = |form, bytes: &[u8]| value(form, bytes);
        let is = |text: &str| Some(SqlValue::Text(text.into()));
        assert_eq!(text(Form::Date, &[4, 0xe8, 7, 2, 29]), is("2024-02-29"));
        assert_eq!(text(Form::Datetime, &[4, 0xe8, 7, 2, 29]), is("2024-02-29 00:00:00"));
        assert_eq!(text(Form::Datetime, &[7, 0xe8, 7, 2, 29, 1, 2, 3]), is("2024-02-29 01:02:03"));
        let micros = [11, 0xe8, 7, 2, 29, 1, 2, 3, 0x20, 0xa1, 7, 0];
        assert_eq!(text(Form::Datetime, &micros), is("2024-02-29 01:02:03.5"));
        assert_eq!(text(Form::Datetime, &micros[..10]), None, "cut off");
        assert_eq!(text(Form::Time, &[0]), is("00:00:00"));
        assert_eq!(text(Form::Time, &[8, 1, 1, 0, 0, 0, 2, 3, 4]), is("-26:03:04"));
        assert_eq!(text(Form::Time, &[8, 1, 1]), None);
    }

    #[test]
    fn what_is_written_is_read_alike() {
        let is = |text: &str| Some(SqlValue::Text(text.into()));
        assert_eq!(text_value(Form::Datetime, "2024-02-29 01:02:03.500"), is("2024-02-29 01:02:03.5"));
        assert_eq!(text_value(Form::Datetime, "2024-02-29 01:02:03.000"), is("2024-02-29 01:02:03"));
        assert_eq!(text_value(Form::Datetime, "2024-02-29 00:00:00"), is("2024-02-29 00:00:00"));
        assert_eq!(text_value(Form::Datetime, "0000-00-00 00:00:00"), Some(SqlValue::Null));
        assert_eq!(text_value(Form::Time, "-26:03:04.50"), is("-26:03:04.5"));
        assert_eq!(text_value(Form::Unsigned, "18446744073709551615"), None);
        assert_eq!(text_value(Form::Unsigned, "00042"), Some(SqlValue::Integer(42)));
        assert_eq!(text_value(Form::Real, "-1e300"), Some(SqlValue::Real(-1e300)));
        assert_eq!(text_value(Form::Text, "1.500"), is("1.500"));
    }

    #[test]
    fn numbers_beyond_a_signed_integer_are_refused() {
        assert_eq!(value(Form::Unsigned, &u64::MAX.to_le_bytes()), None);
        assert_eq!(value(Form::Unsigned, &(u64::MAX >> 1).to_le_bytes()), Some(SqlValue::Integer(i64::MAX)));
        assert_eq!(value(Form::Signed, &[0xff]), Some(SqlValue::Integer(-1)));
        assert_eq!(value(Form::Unsigned, &[0xff]), Some(SqlValue::Integer(255)));
    }
}
