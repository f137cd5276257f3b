//! Sequences that number rows: whether one of them is to blame for what a row failed with.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::statements::dialect::PostgresDialect;
use super::statements::{self, path};
use crate::numbers::{Numbering, grown};
use weir_core::config::KindTable;

/// The sequence that is to blame, if a row failed with `reason` for the number that it got.
pub(super) async fn blamed_sequence(
    connection: &mut PgConnection,
    table: &KindTable,
    reason: &str,
) -> Result<Option<String>, sqlx::Error> {
    let (is_range, is_taken) = (reason.starts_with("22003"), reason.starts_with("23505"));
    if !is_range && !is_taken {
        return Ok(None);
    }
    for grown in grown(table) {
        let table = grown.table;
        for row in sqlx::query(statements::NUMBERED).bind(path(table)).fetch_all(&mut *connection).await? {
            let column: String = row.try_get(0)?;
            let last = row.try_get::<Option<i64>, _>(2)?.filter(|_| grown.is_numbered(&column));
            let Some(last) = last else { continue };
            let numbering = Numbering {
                table: table.to_owned(),
                column,
                source: row.try_get(1)?,
                last: last.into(),
                step: row.try_get::<i64, _>(3)?.into(),
                most: row.try_get::<i64, _>(4)?.into(),
            };
            if is_range && numbering.is_used_up() {
                let Numbering { column, source, .. } = &numbering;
                return Ok(Some(numbering.used_up(&PostgresDialect::widen_number(table, column, source))));
            }
            if is_taken && numbering.is_named_taken(reason) {
                let Numbering { column, source, .. } = &numbering;
                return Ok(Some(numbering.taken(&PostgresDialect::advance_number(table, column, source))));
            }
        }
    }
    Ok(None)
}
