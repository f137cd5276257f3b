//! The rights that the configured tables need, as statements.

use std::collections::BTreeMap;

use super::MysqlSql;
use super::catalogue::text;
use super::statements::grants;
use crate::SqlError;
use crate::classify::sql_error;
use crate::engine::Backend as _;
use crate::grants::Rights;
use crate::lease::leased;

/// See [`crate::driver::Driver::grants`].
pub(super) async fn statements(
    database: &MysqlSql,
    needed: &BTreeMap<String, Rights>,
) -> Result<Vec<String>, SqlError> {
    let row = leased!(database.lease().await?, |connection| sqlx::raw_sql(grants::WHO).fetch_one(connection))?;
    let (user, database) = (text(&row, 0).map_err(sql_error)?, text(&row, 1).map_err(sql_error)?);
    Ok(grants::grants(&user, &database, needed))
}
