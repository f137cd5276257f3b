//! The statement in the engine's syntax, the values of its parameters, and the cache key that they form.

use std::fmt::Write;

use weir_core::config::{ConfigError, ParameterType, ReadConfig, StatementConfig};
use weir_core::model::SqlValue;
use weir_sql::place_parameters;

/// Longest text of a parameter, in bytes.
const TEXT_BYTES_MAX: usize = 1_024;
/// Usual length of a key, in bytes.
const KEY_BYTES: usize = 96;

/// The statement with the engine's placeholders, and for each of them the index of its parameter among the sorted names.
///
/// # Errors
/// The parameters and the placeholders do not match.
pub fn prepare(config: &ReadConfig, engine: &str) -> Result<(StatementConfig, Vec<usize>), ConfigError> {
    let names: Vec<&str> = config.parameters.keys().map(String::as_str).collect();
    let types: Vec<ParameterType> = config.parameters.values().copied().collect();
    let (sql, order) = place_parameters(engine, &config.sql, &names)
        .map_err(|reason| ConfigError::Value { field: format!("read {:?}.sql", config.name), reason })?;
    let statement = StatementConfig {
        name: config.name.clone(),
        sql,
        parameters: order.iter().filter_map(|place| types.get(*place).copied()).collect(),
        write: false,
        rows_max: config.rows_max,
        timeout_ms: config.timeout_ms,
    };
    Ok((statement, order))
}

/// The value of a text; `None` where it is not of the type.
pub fn value(text: &str, wanted: ParameterType) -> Option<SqlValue> {
    match wanted {
        ParameterType::Integer if text.starts_with('+') => None,
        ParameterType::Integer => text.parse().ok().map(SqlValue::Integer),
        ParameterType::Real => text.parse().ok().filter(|number: &f64| number.is_finite()).map(SqlValue::Real),
        ParameterType::Text => {
            let fits = text.len() <= TEXT_BYTES_MAX && !text.contains('\0');
            fits.then(|| SqlValue::Text(text.to_owned()))
        }
    }
}

/// The key of an answer: `read:concert-dates?concert=1`.
pub(super) fn key(config: &ReadConfig, values: &[SqlValue]) -> String {
    let mut key = String::with_capacity(KEY_BYTES);
    push_key(&mut key, config, values);
    key
}

/// Appends that key.
pub(super) fn push_key(key: &mut String, config: &ReadConfig, values: &[SqlValue]) {
    key.push_str("read:");
    key.push_str(&config.name);
    for (index, (name, value)) in config.parameters.keys().zip(values).enumerate() {
        key.push(if index == 0 { '?' } else { '&' });
        key.push_str(name);
        // Writing into a `String` cannot fail.
        let _ = match value {
            SqlValue::Null => Ok(()),
            SqlValue::Integer(number) => write!(key, "={number}"),
            SqlValue::Real(number) => write!(key, "={number:?}"),
            SqlValue::Text(text) => write!(key, "={text:?}"),
        };
    }
}

/// The form of its keys, with types in place of values: `read:concert-dates?concert=<integer>`.
pub(super) fn key_form(config: &ReadConfig) -> String {
    let mut form = format!("read:{}", config.name);
    for (index, (name, wanted)) in config.parameters.iter().enumerate() {
        let mark = if index == 0 { '?' } else { '&' };
        let value = match wanted {
            ParameterType::Integer => "<integer>",
            ParameterType::Real => "<real>",
            ParameterType::Text => "\"<text>\"",
        };
        // Writing into a `String` cannot fail.
        let _ = write!(form, "{mark}{name}={value}");
    }
    form
}

/// Whether an answer of this read can have this key: every parameter, in the order of their names, as [`key`] writes it.
pub(super) fn is_key(config: &ReadConfig, text: &str) -> bool {
    let Some(mut rest) = text.strip_prefix("read:").and_then(|rest| rest.strip_prefix(&*config.name)) else {
        return false;
    };
    for (index, (name, wanted)) in config.parameters.iter().enumerate() {
        let mark = if index == 0 { '?' } else { '&' };
        let after = rest.strip_prefix(mark).and_then(|rest| rest.strip_prefix(&**name)?.strip_prefix('='));
        let Some(after) = after else { return false };
        let length = match wanted {
            ParameterType::Text => quoted_length(after),
            _ => Some(after.find('&').unwrap_or(after.len())),
        };
        let Some((value, after)) = length.and_then(|length| after.split_at_checked(length)) else { return false };
        let canonical = match wanted {
            ParameterType::Integer => value.parse::<i64>().is_ok_and(|number| number.to_string() == value),
            ParameterType::Real => value.parse::<f64>().is_ok_and(|number| format!("{number:?}") == value),
            ParameterType::Text => true,
        };
        if !canonical {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

/// The length of a quoted text, with its quotes; `None` where a quote is missing.
fn quoted_length(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('"')?;
    let mut escaped = false;
    let end = inside.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    Some(end? + 2)
}

/// Whether keys of this read can start with this prefix.
pub(super) fn is_key_prefix(config: &ReadConfig, prefix: &str) -> bool {
    let mut begin = format!("read:{}", config.name);
    if let Some(name) = config.parameters.keys().next() {
        // Writing into a `String` cannot fail.
        let _ = write!(begin, "?{name}=");
        return begin.starts_with(prefix) || prefix.starts_with(&begin);
    }
    begin.starts_with(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_of_their_types() {
        assert_eq!(value("-5", ParameterType::Integer), Some(SqlValue::Integer(-5)));
        assert_eq!(value("0.5", ParameterType::Real), Some(SqlValue::Real(0.5)));
        assert_eq!(value("a b", ParameterType::Text), Some(SqlValue::Text("a b".into())));
        for (text, wanted) in [
            ("+5", ParameterType::Integer),
            ("5.0", ParameterType::Integer),
            ("", ParameterType::Integer),
            ("inf", ParameterType::Real),
            ("NaN", ParameterType::Real),
            ("a\0b", ParameterType::Text),
        ] {
            assert_eq!(value(text, wanted), None, "{text:?}");
        }
    }

    #[test]
    fn keys_are_told_apart() {
        let config = ReadConfig {
            parameters: [("a".into(), ParameterType::Text), ("b".into(), ParameterType::Text)].into(),
            ..toml::from_str("name = \"r\"\nsql = \"x\"\nclass = \"seconds\"").unwrap()
        };
        let text = |text: &str| SqlValue::Text(text.into());
        assert_eq!(key(&config, &[text("x"), text("y")]), "read:r?a=\"x\"&b=\"y\"");
        assert_ne!(key(&config, &[text("x\"&b=\"y"), text("")]), key(&config, &[text("x"), text("y\"&b=\"")]));
    }

    #[test]
    fn what_is_a_key_is_known_by_its_form() {
        let config = ReadConfig {
            parameters: [
                ("a".into(), ParameterType::Text),
                ("b".into(), ParameterType::Integer),
                ("c".into(), ParameterType::Real),
            ]
            .into(),
            ..toml::from_str("name = \"r\"\nsql = \"x\"\nclass = \"seconds\"").unwrap()
        };
        let values = |text: &str| [SqlValue::Text(text.into()), SqlValue::Integer(-5), SqlValue::Real(0.5)];
        for text in ["x", "", "a\"&b=1\\", "\\"] {
            let key = key(&config, &values(text));
            assert!(is_key(&config, &key) && is_key_prefix(&config, &key), "{key}");
        }
        assert_eq!(key_form(&config), "read:r?a=\"<text>\"&b=<integer>&c=<real>");
        for other in [
            "read:r",
            "read:r?a=x&b=1&c=0.5",
            "read:r?a=\"x\"&b=1",
            "read:r?a=\"x\"&b=+1&c=0.5",
            "read:s?a=\"x\"&b=1&c=0.5",
            "read:r?a=\"x\"&b=1&c=0.5&d=1",
            "r?a=\"x\"&b=1&c=0.5",
            "read:r?b=1&a=\"x\"&c=0.5",
            "read:r?a=\"x",
        ] {
            assert!(!is_key(&config, other), "{other}");
        }
        for (prefix, fits) in
            [("read:", true), ("read:r?a=\"x", true), ("read:r?b", false), ("r", true), ("seat", false)]
        {
            assert_eq!(is_key_prefix(&config, prefix), fits, "{prefix}");
        }
    }
}
