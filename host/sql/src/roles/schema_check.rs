//! What compares the configuration with the tables and the server.
//!
//! Holds the role; the engines implement it.

use async_trait::async_trait;

use crate::{Finding, Limits, Parent, SqlError};
use weir_core::config::KindTable;
use weir_core::model::Id;

/// Checks tables, rights and the server.
#[async_trait]
pub trait SchemaCheck: Send + Sync {
    /// Server settings that endanger a promise (SQLite `synchronous`, `synchronous_commit=off`,
    /// `innodb_flush_log_at_trx_commit`, isolation, time limits that cannot be set).
    async fn check_server(&self) -> Result<Vec<Finding>, SqlError>;

    /// The rights that these tables and weir's own need, as statements; `reads` are tables that are only read. None where an
    /// engine has no users.
    async fn grants(&self, tables: &[KindTable], reads: &[String]) -> Result<Vec<String>, SqlError>;

    /// Tables, columns and their types and ranges, rights, text collations, unique keys, columns that must be given and are
    /// not, columns and triggers that say that rows are not what weir takes them for; of a toggle the plan of the bulk delete,
    /// and whether counts are the numbers of rows; keys of the tables of what is nested in documents. Changes nothing, and
    /// asks of rows only what takes `sql.check_timeout_ms` a query. See [`Finding`].
    async fn check_table(&self, table: &KindTable) -> Result<Vec<Finding>, SqlError>;

    /// What the columns that get a kind's rows can hold, and in which tables rows must be there first, as the catalogue says now.
    async fn limits(&self, table: &KindTable) -> Result<Limits, SqlError>;

    /// Whether the rows that foreign keys lead to are there, in order. One statement.
    async fn existing(&self, parent: &Parent, ids: &[Id]) -> Result<Vec<bool>, SqlError>;
}
