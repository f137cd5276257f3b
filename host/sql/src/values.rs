//! JSON values and the columns that they go to: what a column takes, in which form, and what comes back from it.
//!
//! Knows no engine. Pure. An engine that would cut, round or reinterpret a value is not asked: what does
//! not fit is refused here, and a value that is handed on means the same in the column as it did in the document.
//!
//! Integers are exact to 64 bits (signed, or unsigned where the column is), other numbers are doubles. A column for
//! integers takes 5.0 and "5", too; one for booleans takes 0 and 1; one for text takes everything, objects and arrays as
//! JSON. Columns of types that are not known here take what the engine takes.

use serde_json::{Number, Value};
use uuid::Uuid;

use super::introspection::{Column, Dialect, Holds};
use super::rows::{civil, days_of};

/// Greatest whole number up to which a double distinguishes all whole numbers.
const DOUBLE_WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// How JSON values lie in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueForm {
    /// Integers from the one to the other.
    Integer(i128, i128),
    /// True and false; 0 and 1 where the engine has nothing better.
    Boolean,
    /// Exact numbers.
    Decimal,
    /// Doubles.
    Real,
    /// Text of so many characters at most.
    Text(Option<u64>),
    /// JSON.
    Json,
    /// UUIDs as their bytes.
    UuidBytes,
    /// Days, `2024-05-01`.
    Date,
    /// Date and time of day without a zone, taken as UTC.
    Moment,
    /// Dialect that the engine also numbers.
    Choice,
    /// Whatever the engine makes of it.
    Native,
}

/// A value on its way into a column.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Given {
    /// Nothing.
    Null,
    /// An integer.
    Integer(i64),
    /// An integer above the signed range.
    Unsigned(u64),
    /// A double.
    Real(f64),
    /// True or false.
    Boolean(bool),
    /// Text.
    Text(String),
    /// A UUID for a column of bytes.
    Uuid(Uuid),
    /// JSON.
    Json(Value),
    /// Unix milliseconds.
    Time(u64),
}

/// The form of JSON values in `column`, if it can hold any.
pub(super) fn value_form<D: Dialect>(dialect: &D, column: &Column) -> Option<ValueForm> {
    let declared = column.declared.to_ascii_lowercase();
    Some(match column.holds {
        Holds::Integer(_) if declared.starts_with("tinyint(1)") => ValueForm::Boolean,
        Holds::Integer(bytes) => {
            let bits = u32::from(bytes) * 8;
            if column.unsigned {
                ValueForm::Integer(0, (1 << bits) - 1)
            } else {
                ValueForm::Integer(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
            }
        }
        Holds::Boolean | Holds::Bits(1) => ValueForm::Boolean,
        Holds::Decimal => ValueForm::Decimal,
        Holds::Real => ValueForm::Real,
        Holds::Text(room) => ValueForm::Text(room),
        Holds::Fixed(room) => ValueForm::Text(Some(room)),
        Holds::Json => ValueForm::Json,
        Holds::Bytes16 => ValueForm::UuidBytes,
        Holds::Bytes | Holds::Bits(_) => return None,
        Holds::Date => ValueForm::Date,
        Holds::Choice => ValueForm::Choice,
        Holds::Zoned(_) | Holds::Plain(_) if dialect.loses_zone(column.holds) => ValueForm::Moment,
        Holds::Zoned(_) | Holds::Plain(_) | Holds::Uuid | Holds::Other => ValueForm::Native,
    })
}

/// The value for a column of this form and declared type; `nul` is whether text may hold NUL.
///
/// # Errors
/// Why it can never be stored there.
pub(super) fn give(form: ValueForm, declared: &str, value: Value, nul: bool) -> Result<Given, String> {
    if !nul && has_nul(&value) {
        return Err("holds the character NUL, which this database cannot store".into());
    }
    let wrong = |what: &str| Err(format!("is {what}, which a column of type {declared} does not take"));
    match (form, value) {
        (_, Value::Null) => Ok(Given::Null),
        (ValueForm::Json, value) => Ok(Given::Json(value)),
        (ValueForm::Text(room), value) => given_text(room, value),
        (ValueForm::Integer(least, most), value) => match whole(&value) {
            Some(number) if (least..=most).contains(&number) => Ok(integer(number)),
            Some(number) => wrong(&number.to_string()),
            None => wrong(&shown(&value)),
        },
        (ValueForm::Boolean, Value::String(text)) if text == "true" || text == "false" => {
            Ok(Given::Boolean(text == "true"))
        }
        (ValueForm::Boolean, value @ Value::Number(_)) => match whole(&value) {
            Some(number @ (0 | 1)) => Ok(Given::Boolean(number == 1)),
            // MySQL's booleans are small integers, and are used as such.
            Some(number @ -128..=127) if declared.starts_with("tinyint") => Ok(integer(number)),
            _ => wrong(&shown(&value)),
        },
        (ValueForm::Boolean | ValueForm::Native, Value::Bool(value)) => Ok(Given::Boolean(value)),
        (ValueForm::Decimal | ValueForm::Real | ValueForm::Native, Value::Number(number)) => Ok(given_number(&number)),
        (ValueForm::Decimal | ValueForm::Real, Value::String(text)) if is_number(&text) => Ok(Given::Text(text)),
        (ValueForm::UuidBytes, Value::String(text)) => match Uuid::try_parse(&text) {
            Ok(uuid) => Ok(Given::Uuid(uuid)),
            Err(_) => wrong(&shown(&text.into())),
        },
        (ValueForm::Date, Value::String(text)) if is_day(&text) => Ok(Given::Text(text)),
        (ValueForm::Moment, Value::String(text)) => Ok(Given::Text(in_utc(&text).unwrap_or(text))),
        (ValueForm::Choice, Value::String(text)) if !is_number(&text) || declared.contains(&format!("'{text}'")) => {
            Ok(Given::Text(text))
        }
        (ValueForm::Native, Value::String(text)) => Ok(Given::Text(text)),
        (ValueForm::Native, value) => Ok(Given::Json(value)),
        (_, value) => wrong(&shown(&value)),
    }
}

/// What lies in a column of this form, as the engine shows it as text.
pub(super) fn taken(form: ValueForm, text: String) -> Value {
    let number = |text: &str| -> Option<Value> {
        let whole = text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from)).ok();
        whole.or_else(|| text.parse().ok().and_then(Number::from_f64).map(Value::Number))
    };
    let read = match form {
        ValueForm::Boolean if text == "0" || text == "1" => Some(Value::Bool(text == "1")),
        ValueForm::Integer(..) | ValueForm::Boolean | ValueForm::Decimal | ValueForm::Real => number(&text),
        ValueForm::Json => serde_json::from_str(&text).ok(),
        ValueForm::UuidBytes => Uuid::try_parse(&text).ok().map(|uuid| uuid.to_string().into()),
        ValueForm::Moment => Some(from_utc(&text).into()),
        _ => None,
    };
    read.unwrap_or(Value::String(text))
}

/// `2024-05-01 12:34:56.789`, which is meant in UTC, says so; other texts stay.
pub(super) fn from_utc(text: &str) -> String {
    match (text.get(..10), text.get(10..11), text.get(11..)) {
        (Some(day), Some(" " | "T"), Some(time)) if time.ends_with(|c: char| c.is_ascii_digit()) => {
            format!("{day}T{time}Z")
        }
        _ => text.to_owned(),
    }
}

fn given_text(room: Option<u64>, value: Value) -> Result<Given, String> {
    let text = match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    match room {
        // Engines cut spaces at the end without a word.
        Some(room) if text.chars().count() as u64 > room => Err(format!("is longer than {room} characters")),
        _ => Ok(Given::Text(text)),
    }
}

fn given_number(number: &Number) -> Given {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(value), ..) => Given::Integer(value),
        (None, Some(value), _) => Given::Unsigned(value),
        (None, None, value) => Given::Real(value.unwrap_or_default()),
    }
}

fn integer(number: i128) -> Given {
    match i64::try_from(number) {
        Ok(value) => Given::Integer(value),
        Err(_) => Given::Unsigned(u64::try_from(number).unwrap_or_default()),
    }
}

/// A whole number, written as one, as a double or as text.
fn whole(value: &Value) -> Option<i128> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => {
            let double = || {
                let value = number.as_f64().filter(|value| value.fract() == 0.0 && value.abs() <= DOUBLE_WHOLE_MAX)?;
                #[allow(
                    clippy::cast_possible_truncation,
                    reason = "a double of this size is a whole number of 54 bits"
                )]
                let whole = value as i64;
                Some(whole.into())
            };
            number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from)).or_else(double)
        }
        _ => None,
    }
}

fn is_number(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    text.bytes().all(plain) && text.parse::<f64>().is_ok_and(f64::is_finite)
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(elements) => elements.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

/// A value for the eyes of people, cut short.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Year, month and day of `2024-05-01`, if there is such a day.
fn day(text: &str) -> Option<(i64, i64, i64)> {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| -> Option<i64> {
        let part = text.get(from..to)?;
        if part.bytes().all(|byte| byte.is_ascii_digit()) { part.parse().ok() } else { None }
    };
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let found = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (year, month, day) = found;
    ((1..=12).contains(&month) && civil(days_of(year, month, day)) == found).then_some(found)
}

fn is_day(text: &str) -> bool {
    day(text).is_some()
}

/// RFC 3339 as date and time of day in UTC, without the zone. `None` for what has no zone, or is something else.
fn in_utc(text: &str) -> Option<String> {
    let (year, month, day) = day(text.get(..10)?)?;
    let rest = text.get(10..)?.strip_prefix(['T', 't', ' '])?;
    let two = |text: &str| -> Option<i64> {
        if text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
    };
    let clock = |text: &str| -> Option<(i64, i64)> {
        let (hour, minute) = (two(text.get(..2)?)?, two(text.get(3..5)?)?);
        (text.len() >= 5 && text.as_bytes()[2] == b':' && hour < 24 && minute < 60).then_some((hour, minute))
    };
    let (hour, minute) = clock(rest.get(..5)?)?;
    let second = two(rest.get(5..8)?.strip_prefix(':')?).filter(|second| *second < 60)?;
    let after = rest.get(8..)?;
    let digits = after.strip_prefix('.').map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count() + 1);
    let (fraction, zone) = after.split_at(digits);
    if fraction.len() == 1 {
        return None;
    }
    let ahead = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), ..] => {
            let (hours, minutes) = clock(zone.get(1..)?).filter(|_| zone.len() == 6)?;
            if *sign == b'-' { -(hours * 60 + minutes) } else { hours * 60 + minutes }
        }
        _ => return None,
    };
    let minutes = days_of(year, month, day) * 1_440 + hour * 60 + minute - ahead;
    let (year, month, day) = civil(minutes.div_euclid(1_440));
    let minute = minutes.rem_euclid(1_440);
    Some(format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{second:02}{fraction}", minute / 60, minute % 60))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const INT4: ValueForm = ValueForm::Integer(-2_147_483_648, 2_147_483_647);

    fn given(form: ValueForm, value: Value) -> Result<Given, String> {
        give(form, "enum('a','3')", value, false)
    }

    #[test]
    fn what_fits_is_handed_on_as_it_was() {
        assert_eq!(given(INT4, json!(5)), Ok(Given::Integer(5)));
        assert_eq!(given(INT4, json!(5.0)), Ok(Given::Integer(5)));
        assert_eq!(given(INT4, json!("-7")), Ok(Given::Integer(-7)));
        let wide = ValueForm::Integer(0, u64::MAX.into());
        assert_eq!(given(wide, json!(u64::MAX)), Ok(Given::Unsigned(u64::MAX)));
        assert_eq!(
            given(ValueForm::Decimal, json!("12345678901234567890.5")),
            Ok(Given::Text("12345678901234567890.5".into()))
        );
        assert_eq!(given(ValueForm::Real, json!(1.5)), Ok(Given::Real(1.5)));
        assert_eq!(given(ValueForm::Text(Some(3)), json!("äöü")), Ok(Given::Text("äöü".into())));
        assert_eq!(given(ValueForm::Text(None), json!({"a": [1]})), Ok(Given::Text("{\"a\":[1]}".into())));
        assert_eq!(given(ValueForm::Text(None), json!(true)), Ok(Given::Text("true".into())));
        assert_eq!(given(ValueForm::Boolean, json!(1)), Ok(Given::Boolean(true)));
        assert_eq!(given(ValueForm::Choice, json!("3")), Ok(Given::Text("3".into())));
        assert_eq!(given(ValueForm::Date, json!("2024-02-29")), Ok(Given::Text("2024-02-29".into())));
        assert_eq!(given(INT4, Value::Null), Ok(Given::Null));
    }

    #[test]
    fn what_an_engine_would_bend_is_refused() {
        for (form, value) in [
            (INT4, json!(1.5)),
            (INT4, json!("abc")),
            (INT4, json!(2_147_483_648_u64)),
            (INT4, json!(1e300)),
            (INT4, json!(true)),
            (ValueForm::Text(Some(3)), json!("abc ")),
            (ValueForm::Text(None), json!("a\0b")),
            (ValueForm::Json, json!({"a": ["\0"]})),
            (ValueForm::Boolean, json!(2)),
            (ValueForm::Boolean, json!("yes")),
            (ValueForm::Decimal, json!("1,5")),
            (ValueForm::Real, json!("NaN")),
            (ValueForm::Choice, json!("2")),
            (ValueForm::Choice, json!(1)),
            (ValueForm::Date, json!("2024-02-30")),
            (ValueForm::Date, json!("2024-05-01T00:00:00Z")),
            (ValueForm::Moment, json!(5)),
            (ValueForm::UuidBytes, json!("x")),
        ] {
            assert!(given(form, value.clone()).is_err(), "{form:?} {value}");
        }
        assert!(give(ValueForm::Text(None), "text", json!("a\0b"), true).is_ok());
    }

    #[test]
    fn a_zone_is_not_lost() {
        let utc = |text: &str| in_utc(text);
        assert_eq!(utc("2024-05-01T12:34:56.789Z").as_deref(), Some("2024-05-01 12:34:56.789"));
        assert_eq!(utc("2024-01-01T00:30:00+02:00").as_deref(), Some("2023-12-31 22:30:00"));
        assert_eq!(utc("2024-12-31 23:30:00-01:30").as_deref(), Some("2025-01-01 01:00:00"));
        for other in ["2024-05-01 12:34:56", "2024-05-01", "2024-02-30T00:00:00Z", "x", "2024-05-01T25:00:00Z", "é"] {
            assert_eq!(utc(other), None, "{other}");
        }
        assert_eq!(from_utc("2024-05-01 12:34:56.789"), "2024-05-01T12:34:56.789Z");
        assert_eq!(from_utc("infinity"), "infinity");
    }

    #[test]
    fn what_lies_in_a_column_has_its_json_type() {
        assert_eq!(taken(INT4, "5".into()), json!(5));
        assert_eq!(taken(ValueForm::Integer(0, u64::MAX.into()), u64::MAX.to_string()), json!(u64::MAX));
        assert_eq!(taken(ValueForm::Decimal, "1.50".into()), json!(1.5));
        assert_eq!(taken(ValueForm::Boolean, "0".into()), json!(false));
        assert_eq!(taken(ValueForm::Boolean, "7".into()), json!(7));
        assert_eq!(taken(ValueForm::Json, "{\"a\":1}".into()), json!({"a": 1}));
        assert_eq!(taken(ValueForm::Text(None), "{\"a\":1}".into()), json!("{\"a\":1}"));
        assert_eq!(
            taken(ValueForm::UuidBytes, "0192f0c123457abc8def0123456789ab".into()),
            json!("0192f0c1-2345-7abc-8def-0123456789ab")
        );
    }
}
