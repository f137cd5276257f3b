//! The rights that the configured tables need, as statements.

use super::MysqlSql;
use super::catalogue::text;
use super::statements::grants;
use crate::config::KindTable;
use crate::sql::classify::sql_error;
use crate::sql::grants::needed;
use crate::sql::lease::leased;
use crate::sql::{Sql as _, SqlError};

impl MysqlSql {
    /// See [`crate::sql::Sql::grants`].
    pub(super) async fn needed_grants(&self, tables: &[KindTable], reads: &[String]) -> Result<Vec<String>, SqlError> {
        let mut parents = Vec::new();
        for table in tables {
            parents.extend(self.limits(table).await?.parents);
        }
        let row = leased!(self.lease().await?, |connection| sqlx::raw_sql(grants::WHO).fetch_one(connection))?;
        let (user, database) = (text(&row, 0).map_err(sql_error)?, text(&row, 1).map_err(sql_error)?);
        Ok(grants::grants(&user, &database, &needed(tables.iter(), &parents, reads)))
    }
}
