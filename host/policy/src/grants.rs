//! What stands behind the imports `redis` and `sql`: traits, so that the policy engine imports neither store nor sql.
//!
//! `app` gives the implementations. Bounds of a call (keys, rows, lengths) are checked before it gets there.

use std::sync::Arc;

use async_trait::async_trait;

use weir_core::model::{KeyEntry, KeyIncrement, SqlValue};

/// Why nothing came of a granted call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// A mistake of the module or of the configuration.
    #[error("{0}")]
    Invalid(String),
    /// The store or SQL does not answer. What was asked for may have been done.
    #[error("{0}")]
    Unavailable(String),
}

/// Keys of modules in the store. `module` is the module's name: part of every key's prefix.
#[async_trait]
pub trait GuestKeys: Send + Sync {
    /// The values, in order.
    async fn get(&self, module: &str, keys: Vec<String>) -> Result<Vec<Option<Vec<u8>>>, GrantError>;
    /// Keeps all entries.
    async fn set(&self, module: &str, entries: Vec<KeyEntry>) -> Result<(), GrantError>;
    /// Adds to counters; what they hold afterwards, in order.
    async fn increment(&self, module: &str, increments: Vec<KeyIncrement>) -> Result<Vec<i64>, GrantError>;
}

/// Rows that the runs of a statement found: for each row of parameters, its rows.
pub type RowSets = Vec<Vec<Vec<SqlValue>>>;

/// The operator's statements.
#[async_trait]
pub trait GuestStatements: Send + Sync {
    /// Runs `statement` once for each row of parameters, within the statement's own time limit. With `write` false one
    /// that may write is refused.
    async fn run(&self, statement: &str, parameters: Vec<Vec<SqlValue>>, write: bool) -> Result<RowSets, GrantError>;
}

/// Everything that can be granted.
#[derive(Clone)]
pub struct Capabilities {
    /// Behind `redis`.
    pub keys: Arc<dyn GuestKeys>,
    /// Behind `sql`.
    pub statements: Arc<dyn GuestStatements>,
}
