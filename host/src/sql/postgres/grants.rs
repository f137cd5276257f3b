//! The rights that the configured tables need, as statements.

use sqlx::Row as _;

use super::PostgresSql;
use super::statements::grants::{self, Who};
use super::statements::path;
use crate::config::KindTable;
use crate::sql::classify::sql_error;
use crate::sql::grants::needed;
use crate::sql::lease::leased;
use crate::sql::{Sql as _, SqlError};

impl PostgresSql {
    /// See [`crate::sql::Sql::grants`].
    pub(super) async fn needed_grants(&self, tables: &[KindTable], reads: &[String]) -> Result<Vec<String>, SqlError> {
        let mut parents = Vec::new();
        for table in tables {
            parents.extend(self.limits(table).await?.parents);
        }
        let needed = needed(tables.iter(), &parents, reads);
        let row = leased!(self.lease().await?, |connection| sqlx::query(grants::WHO).fetch_one(connection))?;
        let text = |index: usize| row.try_get::<String, _>(index).map_err(sql_error);
        let who =
            Who { user: text(0)?, database: text(1)?, schema: text(2)?, has_own: row.try_get(3).map_err(sql_error)? };
        let mut sequences = Vec::new();
        for (table, _) in needed.iter().filter(|(_, rights)| rights.inserts) {
            let query = sqlx::query_scalar::<_, String>(grants::SEQUENCES).bind(path(table));
            sequences.extend(leased!(self.lease().await?, |connection| query.fetch_all(connection))?);
        }
        Ok(grants::grants(&who, &needed, &sequences))
    }
}
