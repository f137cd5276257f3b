//! What a failure of SQL means: is it this row, this moment, this connection, or the schema?
//!
//! Asks the engines what their errors mean (`errors.rs` of each), and knows what the driver and TLS mean by theirs. Sends nothing. A code
//! that no engine lists is the schema's, never a row's: only what is known to be one row's fault may become a dead letter.

use sqlx::error::DatabaseError;

use super::SqlError;
use weir_core::tls::TlsFailure;

/// How the driver says that it was to send a password without TLS.
const NO_RSA: &str = "RSA auth backend disabled";
/// What to do about it.
const WANTS_TLS: &str = "MySQL wants the user's password (caching_sha2_password), which is not sent over plain TCP: use TLS \
    or a socket (tls = \"required\" in [sql], or ?socket=PATH in its url)";
/// What a pooler says of a setting with which a session begins and that it does not know.
pub(super) const NO_PARAMETER: &str = "unsupported startup parameter";
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

/// What an engine makes of an error of its own driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judged {
    /// Whose fault it is.
    pub class: Class,
    /// Whether the server is there and has no connection left.
    pub is_full: bool,
    /// Whether a read-only transaction was asked to write.
    pub wrote_in_read_only: bool,
    /// What the database said, with its code.
    pub text: String,
}

/// How each engine of this build judges its errors; none knows another's.
const ENGINES: &[fn(&dyn DatabaseError) -> Option<Judged>] = &[
    #[cfg(feature = "postgres")]
    super::postgres::judge,
    #[cfg(feature = "mysql")]
    super::mysql::judge,
    #[cfg(feature = "sqlite")]
    super::sqlite::judge,
];

/// What its engine says of it.
fn judged(error: &sqlx::Error) -> Option<Judged> {
    let sqlx::Error::Database(database) = error else { return None };
    ENGINES.iter().find_map(|judge| judge(database.as_ref()))
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

/// Judges an error of any engine.
pub(super) fn judge(error: &sqlx::Error) -> Failure {
    let class = match error {
        sqlx::Error::Database(_) => judged(error).map_or(Class::Permanent, |judged| judged.class),
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

/// As the crate's own error, outside of a flush.
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
    judged(error).is_some_and(|judged| judged.is_full)
}

/// Whether a read-only transaction was asked to write.
pub(super) fn wrote_in_read_only(error: &sqlx::Error) -> bool {
    judged(error).is_some_and(|judged| judged.wrote_in_read_only)
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
        sqlx::Error::Database(database) => judged(error).map_or_else(|| database.to_string(), |judged| judged.text),
        sqlx::Error::AnyDriverError(error) => error.to_string(),
        other => other.to_string(),
    };
    kept(&text)
}

/// A reason as it is kept: cut short, and fit for every engine.
pub(super) fn kept(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
