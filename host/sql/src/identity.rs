//! Which database this is: its id in `weir_meta`, and the check that it has stayed the same.
//!
//! Knows no engine. A pool connects anew at any time, and the name that it connects to may lead to another
//! database by then. So a claim of a partition checks in the same transaction that the database is still the one that
//! the journal belongs to. A flush needs no look of its own: its fence expects rows that only a claim makes.

use std::sync::{PoisonError, RwLock};

use weir_core::model::{DatabaseId, JournalId, KnownJournal};

/// The name of the id in `weir_meta`.
pub(super) const NAME: &str = "database";

/// The database that is expected, once it is known.
#[derive(Default)]
pub(super) struct Pin(RwLock<Option<DatabaseId>>);

impl Pin {
    /// From now on it must be this one.
    pub(super) fn set(&self, id: DatabaseId) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(id);
    }

    /// The one that is expected.
    pub(super) fn get(&self) -> Option<DatabaseId> {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses another database than `expected`; `found` is what it says of itself.
pub(super) fn check(expected: DatabaseId, found: Result<Option<String>, sqlx::Error>) -> Result<(), sqlx::Error> {
    let found = match found {
        Err(error) if is_table_missing(&error) => None,
        found => found?,
    };
    if found.as_deref().and_then(|text| text.parse().ok()) == Some(expected.0) {
        return Ok(());
    }
    Err(sqlx::Error::InvalidArgument(format!(
        "the database at sql.url is not the one that the journal belongs to (that is {expected}, this one is {}); nothing was \
         flushed and the changes wait: lead sql.url back to it. If the journal shall go to this database, stop all hosts and \
         run `weir store adopt`",
        found.as_deref().unwrap_or("one without an id of weir's")
    )))
}

/// Whether there is no such table: SQLSTATE of PostgreSQL and of MariaDB; SQLite has only its dialect.
fn is_table_missing(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        matches!(error.code().as_deref(), Some("42P01" | "42S02")) || error.message().contains("no such table")
    })
}

/// The id that a row holds.
pub(super) fn parsed(text: &str) -> Result<DatabaseId, sqlx::Error> {
    let wrong = || sqlx::Error::InvalidArgument(format!("weir_meta.{NAME} is {text:?}, which is not an id"));
    text.parse().map(DatabaseId).map_err(|_| wrong())
}

/// One row of `weir_journal`.
pub(super) fn journal(
    kind: String,
    journal: &str,
    place: String,
    is_closed: bool,
) -> Result<KnownJournal, sqlx::Error> {
    let wrong = || sqlx::Error::InvalidArgument(format!("weir_journal.journal is {journal:?}, which is not an id"));
    let journal = journal.parse().map(JournalId).map_err(|_| wrong())?;
    Ok(KnownJournal { kind, journal, place, is_closed })
}

/// A new id, as text.
pub(super) fn fresh() -> String {
    uuid::Uuid::new_v4().hyphenated().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_is_refused_with_the_ways_out() {
        let id = parsed(&fresh()).unwrap();
        check(id, Ok(Some(id.to_string()))).unwrap();
        for found in [None, Some("x".to_owned()), Some(fresh())] {
            let message = check(id, Ok(found)).unwrap_err().to_string();
            assert!(message.contains(&id.to_string()) && message.contains("weir store adopt"), "{message}");
        }
        assert!(parsed("x").is_err());
    }
}
