//! What SQLite means by its codes.

use sqlx::error::DatabaseError;
use sqlx::sqlite::SqliteError;

use crate::classify::{Class, Judged};

/// What a write to a file that is open for reading only is answered.
const READ_ONLY: i32 = 8;

/// Judges what is an error of SQLite's.
pub(crate) fn judge(error: &dyn DatabaseError) -> Option<Judged> {
    error.try_downcast_ref::<SqliteError>()?;
    let code = error.code().and_then(|code| code.parse().ok());
    Some(Judged {
        class: class(code.unwrap_or(1)),
        is_full: false,
        wrote_in_read_only: code.unwrap_or(0) & 0xff == READ_ONLY,
        text: error.to_string(),
    })
}

fn class(extended: i32) -> Class {
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
    fn sqlite_codes_are_judged_by_their_primary_code() {
        for code in [19, 275, 787, 1299, 1555, 1811, 2067, 3091, 18, 20] {
            assert_eq!(class(code), Class::Row, "{code}");
        }
        for code in [5, 261, 517, 6] {
            assert_eq!(class(code), Class::Locked, "{code}");
        }
        for code in [13, 8, 1032, 14] {
            assert_eq!(class(code), Class::Transient, "{code}");
        }
        assert_eq!(class(10 | (3 << 8)), Class::Lost);
        for code in [1, 11, 26, 3, 23] {
            assert_eq!(class(code), Class::Permanent, "{code}");
        }
    }
}
