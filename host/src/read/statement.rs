//! The statement as the engine wants it, the values of its parameters, and the key that they make.

use std::fmt::Write;

use crate::config::{ConfigError, ParameterType, ReadConfig, StatementConfig};
use crate::model::SqlValue;
use crate::sql::place_parameters;

/// Longest text that is given as a parameter, in bytes.
const TEXT_BYTES_MAX: usize = 1_024;

/// The statement with the engine's placeholders, and for each of them the place of its parameter among the sorted names.
///
/// # Errors
/// Names that do not agree.
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

/// The value that a text stands for; `None` where it is not of the type.
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
    let mut key = format!("read:{}", config.name);
    for (index, (name, value)) in config.parameters.keys().zip(values).enumerate() {
        let mark = if index == 0 { '?' } else { '&' };
        // Writing into a `String` cannot fail.
        let _ = match value {
            SqlValue::Null => write!(key, "{mark}{name}"),
            SqlValue::Integer(number) => write!(key, "{mark}{name}={number}"),
            SqlValue::Real(number) => write!(key, "{mark}{name}={number:?}"),
            SqlValue::Text(text) => write!(key, "{mark}{name}={text:?}"),
        };
    }
    key
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
}
