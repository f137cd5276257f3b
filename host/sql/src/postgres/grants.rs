//! The rights that the configured tables need, as statements.

use std::collections::BTreeMap;

use sqlx::Row as _;

use super::PostgresSql;
use super::statements::grants::{self, Who};
use super::statements::path;
use crate::SqlError;
use crate::classify::sql_error;
use crate::engine::Backend as _;
use crate::grants::Rights;
use crate::lease::leased;

/// See [`crate::driver::Driver::grants`].
pub(super) async fn statements(
    database: &PostgresSql,
    needed: &BTreeMap<String, Rights>,
) -> Result<Vec<String>, SqlError> {
    let row = leased!(database.lease().await?, |connection| sqlx::query(grants::WHO).fetch_one(connection))?;
    let text = |index: usize| row.try_get::<String, _>(index).map_err(sql_error);
    let who = Who { user: text(0)?, database: text(1)?, schema: text(2)?, has_own: row.try_get(3).map_err(sql_error)? };
    let mut sequences = Vec::new();
    for (table, _) in needed.iter().filter(|(_, rights)| rights.inserts) {
        let query = sqlx::query_scalar::<_, String>(grants::SEQUENCES).bind(path(table));
        sequences.extend(leased!(database.lease().await?, |connection| query.fetch_all(connection))?);
    }
    Ok(grants::grants(&who, needed, &sequences))
}
