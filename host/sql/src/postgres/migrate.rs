//! Creates weir's own tables, and brings them up to date.

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::statements;
use crate::rows::{SCHEMA, SCHEMA_CREATED};

/// Begins a transaction, in which weir's tables are created where they are missing; the recorded schema.
pub(super) async fn migrate(connection: &mut PgConnection, begin: &str) -> Result<String, sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut *connection).await?;
    sqlx::raw_sql(statements::MIGRATE_LOCK).execute(&mut *connection).await?;
    sqlx::raw_sql(statements::CREATE).execute(&mut *connection).await?;
    let schema = SCHEMA_CREATED.to_string();
    sqlx::query(statements::META_RECORD).bind("schema").bind(schema).execute(&mut *connection).await?;
    sqlx::query_scalar(statements::META_READ).bind("schema").fetch_one(&mut *connection).await
}

/// Goes on with that transaction: brings the tables up to [`SCHEMA`]. What they have already is not touched, which would
/// wait for those who write.
pub(super) async fn upgrade(connection: &mut PgConnection, is_older: bool) -> Result<(), sqlx::Error> {
    let has_body: bool = sqlx::query_scalar(statements::HAS_BODY).fetch_one(&mut *connection).await?;
    if !has_body {
        sqlx::raw_sql(statements::UPGRADE).execute(&mut *connection).await?;
    }
    if is_older {
        sqlx::raw_sql(statements::UPGRADE_HOLES).execute(&mut *connection).await?;
        let schema = SCHEMA.to_string();
        sqlx::query(statements::META_SET).bind("schema").bind(schema).execute(&mut *connection).await?;
    }
    Ok(())
}
