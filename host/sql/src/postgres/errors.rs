//! What PostgreSQL means by its errors.

use sqlx::error::DatabaseError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::classify::{Class, Judged, NO_PARAMETER};

/// No lock in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";
const TOO_MANY_CONNECTIONS: &str = "53300";
const READ_ONLY_TRANSACTION: &str = "25006";

/// Judges what is an error of PostgreSQL's.
pub(crate) fn judge(error: &dyn DatabaseError) -> Option<Judged> {
    let error = error.try_downcast_ref::<PgDatabaseError>()?;
    Some(Judged {
        class: class(error),
        is_full: error.code() == TOO_MANY_CONNECTIONS,
        wrote_in_read_only: error.code() == READ_ONLY_TRANSACTION,
        text: text(error),
    })
}

fn text(error: &PgDatabaseError) -> String {
    let detail = error.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
    // "while updating tuple (0,4) in relation "feed"": nothing else names the table.
    let place = error.r#where().filter(|_| error.code() == LOCK_NOT_AVAILABLE);
    let place = place.and_then(|place| place.lines().next()).map(|place| format!(", {place}"));
    format!("{}: {}{detail}{}", error.code(), error.message(), place.unwrap_or_default())
}

fn class(error: &PgDatabaseError) -> Class {
    if matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic) {
        return match error.code().get(..2) {
            // Wrong password, no such database: nothing was lost, and waiting does not help.
            Some("28" | "3D" | "42") => Class::Permanent,
            _ if error.message().contains(NO_PARAMETER) => Class::Permanent,
            _ => Class::Lost,
        };
    }
    let code = error.code();
    if code == "0A000" && error.message().contains("cached plan") {
        return Class::Transient;
    }
    sqlstate_class(code)
}

fn sqlstate_class(code: &str) -> Class {
    match code {
        // A trigger that raises, an index row that is too large: of this row.
        "P0001" | "54000" => Class::Row,
        READ_ONLY_TRANSACTION => Class::ReadOnly,
        LOCK_NOT_AVAILABLE => Class::Locked,
        // Prepared statement gone behind a pooler, object in use, statement timeout.
        "26000" | "55006" | "57014" | "57P03" => Class::Transient,
        "25P03" | "40003" => Class::Lost,
        // A sequence that has no number left gives none to any row.
        "XX001" | "XX002" | "2200H" => Class::Permanent,
        _ => match code.get(..2) {
            Some("22" | "23" | "44") => Class::Row,
            Some("40" | "53" | "58" | "XX") => Class::Transient,
            Some("08" | "57") => Class::Lost,
            _ => Class::Permanent,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_a_rows_fault_is_a_rows_fault() {
        for code in ["23505", "23503", "23514", "23502", "22001", "22003", "P0001", "44000"] {
            assert_eq!(sqlstate_class(code), Class::Row, "{code}");
        }
        assert_eq!(sqlstate_class("55P03"), Class::Locked);
        for code in ["40P01", "40001", "53100", "53300", "57014"] {
            assert_eq!(sqlstate_class(code), Class::Transient, "{code}");
        }
        assert_eq!(sqlstate_class("25006"), Class::ReadOnly);
        for code in ["57P01", "57P02", "08006", "08003", "25P03"] {
            assert_eq!(sqlstate_class(code), Class::Lost, "{code}");
        }
        for code in ["42P01", "42703", "42501", "42P10", "42804", "0A000", "3F000", "2200H", "", "?"] {
            assert_eq!(sqlstate_class(code), Class::Permanent, "{code}");
        }
    }
}
