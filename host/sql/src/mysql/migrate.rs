//! Creates weir's own tables, and brings them up to date.

use sqlx::mysql::MySqlConnection;

use super::catalogue::number;
use super::statements;
use crate::rows::{SCHEMA, SCHEMA_CREATED};

/// Creates weir's tables, and brings them up to [`SCHEMA`], under a lock that is freed with the connection at the latest;
/// the recorded schema. Nothing but the table of names and values is touched unless `is_older` knows it.
pub(super) async fn migrate(
    connection: &mut MySqlConnection,
    lock_timeout_s: i64,
    is_older: impl Fn(&str) -> Option<bool> + Send,
) -> Result<String, sqlx::Error> {
    let locked = sqlx::query(statements::MIGRATE_LOCK).bind(lock_timeout_s).fetch_one(&mut *connection).await?;
    if number(&locked, 0)? != 1 {
        return Err(sqlx::Error::PoolTimedOut);
    }
    sqlx::raw_sql(statements::CREATE_META).execute(&mut *connection).await?;
    let schema = SCHEMA_CREATED.to_string();
    sqlx::query(statements::META_RECORD).bind("schema").bind(schema).execute(&mut *connection).await?;
    let recorded: String = sqlx::query_scalar(statements::META_READ).bind("schema").fetch_one(&mut *connection).await?;
    if let Some(is_older) = is_older(&recorded) {
        for text in statements::CREATE {
            sqlx::raw_sql(*text).execute(&mut *connection).await?;
        }
        // This engine commits after each: the number is set last, and what is there already is left out.
        if number(&sqlx::query(statements::HAS_BODY).fetch_one(&mut *connection).await?, 0)? == 0 {
            sqlx::raw_sql(statements::UPGRADE).execute(&mut *connection).await?;
        }
        if is_older {
            sqlx::raw_sql(statements::UPGRADE_HOLES).execute(&mut *connection).await?;
            let schema = SCHEMA.to_string();
            sqlx::query(statements::META_SET).bind(schema).bind("schema").execute(&mut *connection).await?;
        }
    }
    sqlx::raw_sql(statements::MIGRATE_UNLOCK).execute(&mut *connection).await?;
    Ok(recorded)
}
