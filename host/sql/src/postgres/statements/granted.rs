//! Statements of the operator: prepared by name, run once for each row of parameters, all in one message.
//!
//! The text of the operator is never cut or filled in: a server-side prepared statement takes the values, and these are the
//! only literals that are written here.

use weir_core::config::ParameterType;
use weir_core::model::SqlValue;

/// Begins, for a statement which has so many milliseconds for each of its runs. Reads see one snapshot. `limits` are what one
/// that writes needs besides.
pub(in crate::postgres) fn begin(write: bool, timeout_ms: u64, limits: &[String]) -> Vec<String> {
    let mode = if write { "READ COMMITTED READ WRITE" } else { "REPEATABLE READ READ ONLY" };
    let timeout_ms = timeout_ms.min(i32::MAX.unsigned_abs().into());
    let limits = limits.iter().filter(|_| write).cloned();
    let begin = [format!("BEGIN ISOLATION LEVEL {mode}"), format!("SET LOCAL statement_timeout = {timeout_ms}")];
    begin.into_iter().chain(limits).collect()
}

/// Prepares `sql`. What it ends with (a comment, a semicolon) ends there.
pub(in crate::postgres) fn prepare(sql: &str, parameters: &[ParameterType]) -> String {
    let name = |parameter: &ParameterType| match parameter {
        ParameterType::Integer => "int8",
        ParameterType::Real => "float8",
        ParameterType::Text => "text",
    };
    let types: Vec<&str> = parameters.iter().map(name).collect();
    format!("PREPARE weir_granted{} AS {sql}\n", listed(&types.join(", ")))
}

/// Runs it. A text must not hold a NUL character, which no text of PostgreSQL does.
pub(in crate::postgres) fn execute(values: &[SqlValue]) -> String {
    let values: Vec<String> = values.iter().map(literal).collect();
    format!("EXECUTE weir_granted{}", listed(&values.join(", ")))
}

/// Forgets it.
pub(in crate::postgres) const DEALLOCATE: &str = "DEALLOCATE weir_granted";

fn listed(items: &str) -> String {
    if items.is_empty() { String::new() } else { format!(" ({items})") }
}

/// A literal of no type: it takes that of its parameter.
fn literal(value: &SqlValue) -> String {
    match value {
        SqlValue::Null => "NULL".into(),
        SqlValue::Integer(value) => format!("'{value}'"),
        SqlValue::Real(value) if value.is_nan() => "'NaN'".into(),
        SqlValue::Real(value) if value.is_infinite() => format!("'{}Infinity'", if *value < 0.0 { "-" } else { "" }),
        SqlValue::Real(value) => format!("'{value:e}'"),
        // With E the meaning does not depend on a setting of the session.
        SqlValue::Text(text) => format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_literals_that_cannot_be_left() {
        let text = |text: &str| literal(&SqlValue::Text(text.into()));
        assert_eq!(text("it's"), "E'it''s'");
        assert_eq!(text("\\'; DROP TABLE x; --"), "E'\\\\''; DROP TABLE x; --'");
        assert_eq!(
            execute(&[SqlValue::Integer(i64::MIN), SqlValue::Null]),
            "EXECUTE weir_granted ('-9223372036854775808', NULL)"
        );
        assert_eq!(
            execute(&[SqlValue::Real(f64::NEG_INFINITY), SqlValue::Real(1e300)]),
            "EXECUTE weir_granted ('-Infinity', '1e300')"
        );
        assert_eq!(execute(&[]), "EXECUTE weir_granted");
        assert_eq!(prepare("SELECT 1 -- one", &[]), "PREPARE weir_granted AS SELECT 1 -- one\n");
    }
}
