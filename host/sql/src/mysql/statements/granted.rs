//! Statements of the operator: prepared by name, run once for each row of parameters, all in one message.
//!
//! The text of the operator is never cut or filled in: a server-side prepared statement takes the values from variables of
//! the session, and texts are written in hexadecimal, which means the same under every `sql_mode`.

use std::fmt::Write as _;

use super::{BEGIN, COMMIT, statement_limit};
use weir_core::config::SqlConfig;
use weir_core::model::SqlValue;

/// Begins, for a statement which has so many milliseconds for each of its runs (MySQL: of those that read). Reads see one
/// snapshot. The session, too, is made read-only: a statement that changes a schema would end the transaction, and then run.
pub(in crate::mysql) fn begin(write: bool, timeout_ms: u64, maria: bool) -> Vec<String> {
    let limit = statement_limit(timeout_ms, maria);
    if write {
        let lock_seconds = timeout_ms.div_ceil(1_000).max(1);
        return vec![format!("SET SESSION {limit}, innodb_lock_wait_timeout = {lock_seconds}"), BEGIN.into()];
    }
    vec![
        format!("SET SESSION {limit}"),
        "SET SESSION TRANSACTION READ ONLY".into(),
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ".into(),
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY".into(),
    ]
}

/// Commits, and gives the session back what it had.
pub(in crate::mysql) fn end(settings: &SqlConfig, maria: bool) -> [String; 3] {
    let limit = statement_limit(settings.statement_timeout_ms, maria);
    [COMMIT.into(), "SET SESSION TRANSACTION READ WRITE".into(), format!("SET SESSION {limit}")]
}

/// Prepares `sql`.
pub(in crate::mysql) fn prepare(sql: &str) -> [String; 2] {
    [format!("SET @weir_granted = {}", text(sql)), "PREPARE weir_granted FROM @weir_granted".into()]
}

/// Gives the next run its values; `None` where it takes none.
pub(in crate::mysql) fn assign(values: &[SqlValue]) -> Option<String> {
    let set = |(index, value): (usize, &SqlValue)| format!("@weir_{index} = {}", literal(value));
    let sets: Vec<String> = values.iter().enumerate().map(set).collect();
    (!sets.is_empty()).then(|| format!("SET {}", sets.join(", ")))
}

/// Runs it with so many values.
pub(in crate::mysql) fn execute(values: usize) -> String {
    let names: Vec<String> = (0..values).map(|index| format!("@weir_{index}")).collect();
    let using = if names.is_empty() { String::new() } else { format!(" USING {}", names.join(", ")) };
    format!("EXECUTE weir_granted{using}")
}

/// Forgets it.
pub(in crate::mysql) const DEALLOCATE: &str = "DEALLOCATE PREPARE weir_granted";

/// A number that is none, or has no end, must have been refused.
fn literal(value: &SqlValue) -> String {
    match value {
        SqlValue::Null => "NULL".into(),
        SqlValue::Integer(value) => value.to_string(),
        // With an exponent it is a DOUBLE, without a DECIMAL.
        SqlValue::Real(value) => format!("{value:e}"),
        SqlValue::Text(value) => text(value),
    }
}

fn text(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() * 2 + 12);
    literal.push_str("_utf8mb4 X'");
    for byte in text.bytes() {
        let _ = write!(literal, "{byte:02X}");
    }
    literal.push('\'');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_literals_that_cannot_be_left() {
        let values = [SqlValue::Text("it's é".into()), SqlValue::Integer(-1), SqlValue::Real(0.5), SqlValue::Null];
        let set = "SET @weir_0 = _utf8mb4 X'6974277320C3A9', @weir_1 = -1, @weir_2 = 5e-1, @weir_3 = NULL";
        assert_eq!(assign(&values).as_deref(), Some(set));
        assert_eq!(assign(&[]), None);
        assert_eq!(
            (execute(0), execute(2)),
            ("EXECUTE weir_granted".into(), "EXECUTE weir_granted USING @weir_0, @weir_1".into())
        );
        assert_eq!(text(""), "_utf8mb4 X''");
    }
}
