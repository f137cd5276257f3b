//! Which database this is, and where the journals of its kinds are.

use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::catalogue::{number, text};
use super::{MysqlSql, statements};
use crate::model::{DatabaseId, KnownJournal};
use crate::sql::classify::sql_error;
use crate::sql::lease::leased;
use crate::sql::{SqlError, identity};

impl MysqlSql {
    async fn has_table(&self, name: &str) -> Result<bool, SqlError> {
        let found = leased!(self.lease().await?, |connection| {
            sqlx::query(statements::HAS_TABLE).bind(name).fetch_one(connection)
        })?;
        Ok(number(&found, 0).map_err(sql_error)? > 0)
    }

    /// See [`crate::sql::Sql::database_id`].
    pub(super) async fn read_id(&self) -> Result<Option<DatabaseId>, SqlError> {
        if !self.has_table("weir_meta").await? {
            return Ok(None);
        }
        let text: Option<String> = leased!(self.lease().await?, |connection| {
            sqlx::query_scalar(statements::META_READ).bind(identity::NAME).fetch_optional(connection)
        })?;
        text.map(|text| identity::parsed(&text)).transpose().map_err(sql_error)
    }

    /// See [`crate::sql::Sql::identify`].
    pub(super) async fn make_id(&self) -> Result<DatabaseId, SqlError> {
        let text: String = leased!(self.lease().await?, |connection| async {
            let record = sqlx::query(statements::META_RECORD).bind(identity::NAME).bind(identity::fresh());
            record.execute(&mut *connection).await?;
            sqlx::query_scalar(statements::META_READ).bind(identity::NAME).fetch_one(&mut *connection).await
        })?;
        identity::parsed(&text).map_err(sql_error)
    }

    /// See [`crate::sql::Sql::journals`].
    pub(super) async fn read_journals(&self) -> Result<Vec<KnownJournal>, SqlError> {
        if !self.has_table("weir_journal").await? {
            return Ok(Vec::new());
        }
        let rows = leased!(self.lease().await?, |connection| sqlx::query(statements::JOURNALS).fetch_all(connection))?;
        let journal =
            |row: &MySqlRow| identity::journal(text(row, 0)?, &text(row, 1)?, text(row, 2)?, number(row, 3)? != 0);
        rows.iter().map(journal).collect::<Result<_, _>>().map_err(sql_error)
    }

    /// See [`crate::sql::Sql::note_journals`].
    pub(super) async fn write_journals(&self, journals: &[KnownJournal]) -> Result<(), SqlError> {
        leased!(self.lease().await?, |connection| async {
            for known in journals {
                let mut set = sqlx::query(statements::JOURNAL_SET).bind(&known.kind);
                for _ in 0..2 {
                    set = set.bind(known.journal.to_string()).bind(&known.place).bind(known.is_closed);
                }
                set.execute(&mut *connection).await?;
            }
            Ok::<(), sqlx::Error>(())
        })
    }

    /// See [`crate::sql::Sql::rename_dead_letters`].
    pub(super) async fn rename_letters(&self, from: &str, to: &str) -> Result<u64, SqlError> {
        let done = leased!(self.lease().await?, |connection| {
            sqlx::query(statements::DEAD_RENAME).bind(to).bind(from).execute(connection)
        })?;
        Ok(done.rows_affected())
    }
}

/// Refuses the database of this connection where it is not the one that is expected.
pub(super) async fn check_id(
    connection: &mut MySqlConnection,
    expected: Option<DatabaseId>,
) -> Result<(), sqlx::Error> {
    let Some(expected) = expected else { return Ok(()) };
    let read = sqlx::query_scalar(statements::META_READ).bind(identity::NAME);
    let found: Result<Option<String>, sqlx::Error> = read.fetch_optional(&mut *connection).await;
    identity::check(expected, found)
}
