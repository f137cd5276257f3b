//! What a failure of SQL means: is it this row, this moment, this connection, or the schema?
//!
//! Engine-free part of the room: imports sqlx's errors, and what they mean of TLS, sends nothing. A code that is not in the tables is the
//! schema's, never a row's: only what is known to be one row's fault may become a dead letter.

use sqlx::mysql::MySqlDatabaseError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use sqlx::sqlite::SqliteError;

use super::SqlError;
use crate::tls::TlsFailure;

/// PostgreSQL: no lock in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// How the driver says that it was to send a password without TLS.
const NO_RSA: &str = "RSA auth backend disabled";
/// What to do about it.
const WANTS_TLS: &str = "MySQL wants the user's password (caching_sha2_password), which is not sent over plain TCP: use TLS \
    or a socket (tls = \"required\" in [sql], or ?socket=PATH in its url)";
/// What a pooler says of a setting with which a session begins and that it does not know.
const NO_PARAMETER: &str = "unsupported startup parameter";
/// What to do about it.
const BEHIND_POOLER: &str = "a pooler is in between; write pooler = \"transaction\" in [sql] if it pools transactions, and \
    otherwise let it ignore this parameter (ignore_startup_parameters of PgBouncer)";
/// Longest reason that is kept, in characters.
const REASON_CHARS_MAX: usize = 1_000;

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// A row of the statement can never be stored.
    Row,
    /// It would pass at another time.
    Transient,
    /// As `Transient`: the server takes no writes, from anybody.
    ReadOnly,
    /// Another session has locked a row, or the file.
    Locked,
    /// As `Transient`, and the connection is gone: a commit may or may not have happened.
    Lost,
    /// Schema, grants or configuration.
    Permanent,
}

/// A failure, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// Whose fault it is.
    pub class: Class,
    /// What the database said, with its code.
    pub reason: String,
}

impl From<Failure> for SqlError {
    fn from(failure: Failure) -> Self {
        match failure.class {
            Class::Transient | Class::Locked | Class::Lost => Self::Transient(failure.reason),
            Class::ReadOnly => Self::ReadOnly(failure.reason),
            Class::Row | Class::Permanent => Self::Permanent(failure.reason),
        }
    }
}

/// Judges an error of any of the three engines.
pub(super) fn judge(error: &sqlx::Error) -> Failure {
    let class = match error {
        sqlx::Error::Database(database) => {
            if let Some(postgres) = database.try_downcast_ref::<PgDatabaseError>() {
                postgres_class(postgres)
            } else if let Some(mysql) = database.try_downcast_ref::<MySqlDatabaseError>() {
                mysql_class(mysql.number(), mysql.message())
            } else if database.try_downcast_ref::<SqliteError>().is_some() {
                sqlite_class(database.code().and_then(|code| code.parse().ok()).unwrap_or(1))
            } else {
                Class::Permanent
            }
        }
        sqlx::Error::AnyDriverError(error) if error.is::<Unstored>() => Class::Row,
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => Class::Lost,
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::BeginFailed => Class::Transient,
        _ => Class::Permanent,
    };
    Failure { class, reason: reason(error) }
}

/// What a statement left undone without an error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unstored(String);

/// An error of a row that a statement left out without one: the search for the row begins.
pub(super) fn unstored(reason: String) -> sqlx::Error {
    sqlx::Error::AnyDriverError(Box::new(Unstored(reason)))
}

/// As the room's own error, outside of a flush.
pub(super) fn sql_error(error: sqlx::Error) -> SqlError {
    judge(&error).into()
}

/// A failure of `COMMIT`: whatever does not surely mean "rolled back" is an unknown outcome.
pub(super) fn commit_error(error: sqlx::Error) -> SqlError {
    let failure = judge(&error);
    match failure.class {
        Class::Lost => SqlError::OutcomeUnknown(failure.reason),
        _ => failure.into(),
    }
}

/// Whether the server is there and has no connection left.
pub(super) fn is_full(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(database) = error else { return false };
    if let Some(postgres) = database.try_downcast_ref::<PgDatabaseError>() {
        postgres.code() == "53300"
    } else if let Some(mysql) = database.try_downcast_ref::<MySqlDatabaseError>() {
        matches!(mysql.number(), 1040 | 1203 | 1226)
    } else {
        false
    }
}

/// Whether a read-only transaction was asked to write.
pub(super) fn wrote_in_read_only(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(database) = error else { return false };
    if let Some(postgres) = database.try_downcast_ref::<PgDatabaseError>() {
        postgres.code() == "25006"
    } else if let Some(mysql) = database.try_downcast_ref::<MySqlDatabaseError>() {
        mysql.number() == 1792
    } else {
        let code: i32 = database.code().and_then(|code| code.parse().ok()).unwrap_or(0);
        database.try_downcast_ref::<SqliteError>().is_some() && code & 0xff == 8
    }
}

/// A reason with the server's address; where it is named already nothing is added.
pub(super) fn placed(reason: &str, address: &str) -> String {
    if reason.contains(address) {
        reason.to_owned()
    } else if TlsFailure::is_told(reason) || [WANTS_TLS, BEHIND_POOLER].iter().any(|told| reason.ends_with(told)) {
        // What to do stands at its end.
        format!("{address}: {reason}")
    } else {
        format!("{reason} at {address}")
    }
}

fn reason(error: &sqlx::Error) -> String {
    if !matches!(error, sqlx::Error::Database(_))
        && let Some(failure) = TlsFailure::of(error)
    {
        return kept(&failure.told("sql"));
    }
    let text = match error {
        sqlx::Error::PoolTimedOut => "no connection in time".to_owned(),
        // What the driver puts before it says nothing.
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            "connection refused".to_owned()
        }
        sqlx::Error::Io(error) => error.to_string(),
        // The server has not this user's password in its cache, and the driver encrypts with TLS only.
        sqlx::Error::Configuration(error) if error.to_string().starts_with(NO_RSA) => WANTS_TLS.to_owned(),
        sqlx::Error::Database(database) if database.message().contains(NO_PARAMETER) => {
            format!("{}: {BEHIND_POOLER}", database.message())
        }
        sqlx::Error::Database(database) => match database.try_downcast_ref::<PgDatabaseError>() {
            Some(postgres) => {
                let detail = postgres.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
                // "while updating tuple (0,4) in relation "feed"": nothing else names the table.
                let place = postgres.r#where().filter(|_| postgres.code() == LOCK_NOT_AVAILABLE);
                let place = place.and_then(|place| place.lines().next()).map(|place| format!(", {place}"));
                format!("{}: {}{detail}{}", postgres.code(), postgres.message(), place.unwrap_or_default())
            }
            None => database.to_string(),
        },
        sqlx::Error::AnyDriverError(error) => error.to_string(),
        other => other.to_string(),
    };
    kept(&text)
}

/// A reason as it is kept: cut short, and fit for every engine.
pub(super) fn kept(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').take(REASON_CHARS_MAX).collect()
}

fn postgres_class(error: &PgDatabaseError) -> Class {
    if matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic) {
        return match error.code().get(..2) {
            // Wrong password, no such database: nothing was lost, and patience does not help.
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
        "25006" => Class::ReadOnly,
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

fn mysql_class(number: u16, message: &str) -> Class {
    match number {
        // A transaction that is read-only by itself: nobody here asks for one and writes in it. InnoDB that is.
        1792 | 1836 | 1874 => Class::ReadOnly,
        // Of many options that forbid a statement, the one that is meant.
        1290 if message.contains("read-only") || message.contains("read_only") => Class::ReadOnly,
        // NULL, range, truncation, wrong value, length (of the row, too), CHECK (MySQL, MariaDB), other unique key,
        // foreign keys, SIGNAL of a trigger, no partition for the value, text that is no JSON, or has a name or depth that JSON
        // of MySQL has not, what an index on an expression cannot hold.
        1048 | 1062 | 1118 | 1169 | 1216 | 1217 | 1264 | 1265 | 1292 | 1366 | 1367 | 1406 | 1411 | 1451 | 1452
        | 1525 | 1526 | 1586 | 1644 | 1690 | 1748 | 1761 | 1762 | 3140 | 3141 | 3150 | 3151 | 3157 | 3158 | 3751
        | 3752 | 3819 | 3903 | 3904 | 3907 | 4025 => Class::Row,
        // Lock wait, and no lock at once.
        1205 | 3572 => Class::Locked,
        // Deadlock, too many connections, memory, disk, table full, engine error, an option, interrupted,
        // time limits, definition changed, statements exhausted or to be prepared again, failed at commit, rolled back by a
        // group of servers, or it is not ready.
        1015 | 1020 | 1021 | 1028 | 1030 | 1037 | 1038 | 1040 | 1041 | 1114 | 1129 | 1135 | 1180 | 1203 | 1206
        | 1213 | 1226 | 1243 | 1290 | 1317 | 1412 | 1461 | 1615 | 1637 | 1969 | 3024 | 3100 | 3101 | 3168 => {
            Class::Transient
        }
        // Shutdown, aborted or killed connections, network errors, too long idle.
        1053 | 1077 | 1079 | 1080 | 1152 | 1153 | 1158 | 1159 | 1160 | 1161 | 1184 | 1927 | 2006 | 2013 | 3169
        | 4031 => Class::Lost,
        _ => Class::Permanent,
    }
}

fn sqlite_class(extended: i32) -> Class {
    match extended & 0xff {
        // TOOBIG, CONSTRAINT, MISMATCH.
        18..=20 => Class::Row,
        // BUSY, LOCKED.
        5 | 6 => Class::Locked,
        // NOMEM, READONLY, INTERRUPT, FULL, CANTOPEN, PROTOCOL, SCHEMA.
        7..=9 | 13..=15 | 17 => Class::Transient,
        // IOERR: a commit that met it may be there after all.
        10 => Class::Lost,
        _ => Class::Permanent,
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

    #[test]
    fn mysql_numbers_are_judged() {
        let row_class = |number| mysql_class(number, "");
        for number in [1048, 1062, 1118, 1264, 1406, 1452, 3140, 3819, 4025] {
            assert_eq!(row_class(number), Class::Row, "{number}");
        }
        let read_only = "The MariaDB server is running with the --read-only option so it cannot execute this statement";
        for (number, message) in [(1290, read_only), (1792, ""), (1836, "")] {
            assert_eq!(mysql_class(number, message), Class::ReadOnly, "{number}");
        }
        let mysql_class = |number| mysql_class(number, "The server is running with the --skip-grant-tables option");
        assert_eq!((mysql_class(1205), mysql_class(3572)), (Class::Locked, Class::Locked));
        for number in [1213, 1040, 1290, 1114, 1969] {
            assert_eq!(mysql_class(number), Class::Transient, "{number}");
        }
        for number in [1146, 1054, 1142, 1364, 1136, 1064, 1044, 1467, 167, 9999] {
            assert_eq!(mysql_class(number), Class::Permanent, "{number}");
        }
        assert_eq!(mysql_class(1927), Class::Lost);
    }

    #[test]
    fn a_password_that_would_go_in_the_clear_is_told() {
        let driver =
            "RSA auth backend disabled; enable feature `mysql-rsa` (or `rsa` if using sqlx-mysql directly) or use TLS.";
        let failure = judge(&sqlx::Error::Configuration(driver.into()));
        assert_eq!(failure.class, Class::Permanent);
        assert!(failure.reason.contains("use TLS or a socket"), "{failure:?}");
        assert!(placed(&failure.reason, "db:3306").starts_with("db:3306: MySQL wants"), "what to do stands at the end");
        assert_eq!(judge(&sqlx::Error::Configuration("x".into())).reason, "error with configuration: x");
    }

    #[test]
    fn sqlite_codes_are_judged_by_their_primary_code() {
        for code in [19, 275, 787, 1299, 1555, 1811, 2067, 3091, 18, 20] {
            assert_eq!(sqlite_class(code), Class::Row, "{code}");
        }
        for code in [5, 261, 517, 6] {
            assert_eq!(sqlite_class(code), Class::Locked, "{code}");
        }
        for code in [13, 8, 1032, 14] {
            assert_eq!(sqlite_class(code), Class::Transient, "{code}");
        }
        assert_eq!(sqlite_class(10 | (3 << 8)), Class::Lost);
        for code in [1, 11, 26, 3, 23] {
            assert_eq!(sqlite_class(code), Class::Permanent, "{code}");
        }
    }

    #[test]
    fn what_was_left_undone_is_a_rows_fault() {
        let failure = judge(&unstored("why".into()));
        assert_eq!(failure, Failure { class: Class::Row, reason: "why".into() });
        let other = sqlx::Error::AnyDriverError("something else".into());
        assert_eq!(judge(&other).class, Class::Permanent);
    }

    #[test]
    fn a_lost_connection_at_commit_is_an_unknown_outcome() {
        let lost = || sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert!(matches!(commit_error(lost()), SqlError::OutcomeUnknown(_)));
        assert!(matches!(sql_error(lost()), SqlError::Transient(_)));
    }
}
