//! AUTOINCREMENT: whether it is to blame where this engine says that the disk is full.

use sqlx::sqlite::SqliteConnection;

use super::statements;
use crate::numbers::{Numbering, grown};
use weir_core::config::KindTable;

/// `SQLITE_FULL`.
const FULL: i32 = 13;

/// The error as it is meant: of a table whose numbers are used up this engine says "database or disk is full".
pub(super) async fn understood(
    connection: &mut SqliteConnection,
    table: &KindTable,
    error: sqlx::Error,
) -> sqlx::Error {
    let code = error.as_database_error().and_then(|database| database.code()?.parse::<i32>().ok());
    if code.is_none_or(|code| code & 0xff != FULL) {
        return error;
    }
    for grown in grown(table) {
        let table = grown.table;
        let name = table.split_once('.').map_or(table, |(_, name)| name);
        // Without any table of that kind there is nothing to ask.
        let last = sqlx::query_scalar::<_, i64>(statements::NUMBERED).bind(name);
        let Ok(Some(last)) = last.fetch_optional(&mut *connection).await else { continue };
        let numbering = Numbering {
            table: table.to_owned(),
            column: "rowid".into(),
            source: "AUTOINCREMENT".into(),
            last: last.into(),
            step: 1,
            most: i64::MAX.into(),
        };
        if numbering.is_used_up() {
            let renumber = statements::renumber(name);
            let remedy = format!("give the row with the greatest number a smaller one, then {renumber}");
            // This error belongs to no row.
            return sqlx::Error::AnyDriverError(numbering.used_up(&remedy).into());
        }
    }
    error
}
