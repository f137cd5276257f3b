//! What runs the operator's own statements.
//!
//! Holds the role and its types; the engines implement it.

use async_trait::async_trait;

use crate::{Finding, SqlError};
use weir_core::config::StatementConfig;
use weir_core::model::SqlValue;

/// Rows that the runs of one of the operator's statements found: for each row of parameters, its rows.
pub type RowSets = Vec<Vec<Vec<SqlValue>>>;

/// Why a statement of the operator found nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// A mistake of the statement, of its configuration, or of what it was given: its syntax, types, a constraint, a
    /// write where none is allowed. Nothing was done.
    #[error("{0}")]
    Invalid(String),
    /// It finds more than one call may find. Nothing was done.
    #[error("statement {statement}: it finds more than {limit} = {max} in one call")]
    TooLarge {
        /// Its name.
        statement: String,
        /// The limit's name.
        limit: &'static str,
        /// Its value.
        max: usize,
    },
    /// SQL does not answer within the statement's time. What a writing statement was asked for may have been done.
    #[error("{0}")]
    Unavailable(String),
}

/// Runs and checks the operator's own statements.
#[async_trait]
pub trait Statements: Send + Sync {
    /// Runs one of the operator's own statements once for each row of `parameters`, in order, in one transaction, which is
    /// read-only (and of one snapshot) unless the statement may write. The result has the same length and order. All
    /// of it, waiting for a connection included, takes at most the statement's `timeout_ms` and finds at most its
    /// `rows_max` rows. Integers and booleans become integers; floats, reals; texts, UUIDs, decimals, dates and times,
    /// texts; NULL, nulls; other types are refused by name. Dropping the call closes its connection.
    async fn run_statement(
        &self,
        statement: &StatementConfig,
        parameters: &[Vec<SqlValue>],
    ) -> Result<RowSets, StatementError>;

    /// Whether the database can prepare one of the operator's own statements, its placeholders are as many as its
    /// parameters, and its columns are of types that can be read (as far as the engine can say beforehand).
    async fn check_statement(&self, statement: &StatementConfig) -> Result<Option<Finding>, SqlError>;

    /// The names of the columns that one of the operator's own statements finds, in order.
    async fn statement_columns(&self, statement: &StatementConfig) -> Result<Vec<String>, SqlError>;
}
