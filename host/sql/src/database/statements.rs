//! The role of a database that runs the operator's own statements.

use async_trait::async_trait;

use super::Database;
use crate::classify::sql_error;
use crate::driver::{Driver, Prepared};
use crate::engine::Backend as _;
use crate::granted::{column_names, finding};
use crate::lease::within;
use crate::{Finding, RowSets, SqlError, StatementError, Statements};
use weir_core::config::StatementConfig;
use weir_core::model::SqlValue;

impl<D: Driver> Database<D> {
    /// The statement, prepared; or why the database does not take it.
    async fn prepare(&self, statement: &StatementConfig) -> Result<Result<Prepared<D>, sqlx::Error>, SqlError> {
        let mut lease = self.lease().await?;
        let prepared = within(self.limit, D::prepare(lease.connection(), statement)).await;
        if prepared.is_ok() {
            lease.give_back();
        }
        Ok(prepared)
    }
}

#[async_trait]
impl<D: Driver> Statements for Database<D> {
    async fn run_statement(
        &self,
        statement: &StatementConfig,
        parameters: &[Vec<SqlValue>],
    ) -> Result<RowSets, StatementError> {
        if parameters.is_empty() {
            return Ok(RowSets::new());
        }
        let work = async {
            let _turn = if statement.write { self.write_turn().await } else { None };
            let mut lease = D::lease_for(self, statement).await?;
            let found = D::run(self, lease.connection(), statement, parameters).await?;
            lease.give_back();
            Ok(found)
        };
        self.granted_permits.run(statement, work).await
    }

    async fn check_statement(&self, statement: &StatementConfig) -> Result<Option<Finding>, SqlError> {
        finding(statement, self.prepare(statement).await?, D::unreadable)
    }

    async fn statement_columns(&self, statement: &StatementConfig) -> Result<Vec<String>, SqlError> {
        Ok(column_names(&self.prepare(statement).await?.map_err(sql_error)?))
    }
}
