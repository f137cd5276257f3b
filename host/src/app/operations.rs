//! What operators may ask and do, with a running host (through its listener) or without (from the command line).

use std::sync::Arc;

use serde_json::{Value, json};

use super::AppError;
use crate::clock::Clock;
use crate::config::{Config, ToggleConfig};
use crate::model::{Id, partition_of};
use crate::sql::{DeadLetter, Sql, SqlError};
use crate::store::{Store, StoreError};

/// Why an operator's wish was not done. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The wish makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// It was tried and cannot be done as things are.
    #[error("{0}")]
    Refused(String),
    /// Store or SQL does not answer.
    #[error("{0}")]
    Unavailable(String),
}

impl From<SqlError> for OperatorError {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Permanent(reason) => Self::Refused(reason),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<StoreError> for OperatorError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Looks into store and SQL for an operator, and mends.
#[derive(Clone)]
pub struct Operator {
    config: Arc<Config>,
    store: Arc<dyn Store>,
    sql: Arc<dyn Sql>,
    clock: Clock,
}

impl Operator {
    /// On what a running host has open.
    pub fn new(config: Arc<Config>, store: Arc<dyn Store>, sql: Arc<dyn Sql>, clock: Clock) -> Self {
        Self { config, store, sql, clock }
    }

    /// Opens store and SQL itself: for the command line when no host runs.
    ///
    /// # Errors
    /// See [`AppError`]; an embedded store that a host has open says so.
    pub async fn open(config: Config) -> Result<Self, AppError> {
        let store = crate::store::open(&config.store).await?;
        let sql = crate::sql::open(&config.sql).await?;
        Ok(Self::new(Arc::new(config), store, sql, Clock::Real))
    }

    /// Everything known of one pair; see [`explain`](fn@crate::toggle::explain).
    ///
    /// # Errors
    /// Unknown kind, or an id of the wrong type.
    pub async fn explain(&self, kind: &str, target: &str, actor: &str) -> Result<Value, OperatorError> {
        let toggle = self.toggle(kind)?;
        let id = |name, id_type, text| {
            Id::parse(id_type, text).map_err(|error| OperatorError::Invalid(format!("{name} {text:?}: {error}")))
        };
        let target = id("target", toggle.table.target_type, target)?;
        let actor = id("actor", toggle.table.actor_type, actor)?;
        let now_ms = self.clock.now_ms();
        Ok(crate::toggle::explain(toggle, &*self.store, &*self.sql, now_ms, &target, &actor).await)
    }

    /// A page of dead letters above the number `after`, as `{"dead_letters":[…]}`.
    ///
    /// # Errors
    /// When SQL does not answer.
    pub async fn dead_letters(&self, kind: Option<&str>, after: i64, limit: usize) -> Result<Value, OperatorError> {
        Ok(json!({ "dead_letters": self.sql.dead_letters(kind, after, limit).await? }))
    }

    /// Stores a letter again, and makes the store read its target anew.
    ///
    /// # Errors
    /// [`OperatorError::Refused`] with the database's reason when it still cannot be stored.
    pub async fn replay_dead_letter(&self, id: i64) -> Result<(), OperatorError> {
        let letter = self.letter(id).await?;
        let toggle = self.toggle(&letter.kind)?;
        self.sql.replay_dead_letter(&toggle.table, &letter).await?;
        self.forget(toggle, &letter).await
    }

    /// Drops a letter.
    ///
    /// # Errors
    /// [`OperatorError::NotFound`] when there is none with that number.
    pub async fn drop_dead_letter(&self, id: i64) -> Result<(), OperatorError> {
        match self.sql.drop_dead_letters(&[id]).await? {
            0 => Err(OperatorError::NotFound(format!("there is no dead letter {id}"))),
            _ => Ok(()),
        }
    }

    async fn letter(&self, id: i64) -> Result<DeadLetter, OperatorError> {
        let page = self.sql.dead_letters(None, id - 1, 1).await?;
        page.into_iter()
            .find(|letter| letter.id == id)
            .ok_or_else(|| OperatorError::NotFound(format!("there is no dead letter {id}")))
    }

    /// The store's state of the letter's target is older than SQL now: it becomes cold as soon as it is clean.
    async fn forget(&self, toggle: &ToggleConfig, letter: &DeadLetter) -> Result<(), OperatorError> {
        let Ok(target) = Id::parse(toggle.table.target_type, &letter.target) else { return Ok(()) };
        let partition = partition_of(&target, self.store.partitions());
        for head in self.store.heads(&letter.kind, &[partition]).await? {
            let invalid = [target.clone()];
            self.store.trim(&letter.kind, partition, head.incarnation, head.flushed, &[], &invalid).await?;
        }
        Ok(())
    }

    fn toggle(&self, kind: &str) -> Result<&ToggleConfig, OperatorError> {
        let known = || self.config.toggles.iter().map(|toggle| toggle.kind.as_str()).collect::<Vec<_>>().join(", ");
        self.config
            .toggles
            .iter()
            .find(|toggle| toggle.kind == kind)
            .ok_or_else(|| OperatorError::NotFound(format!("there is no kind {kind:?}; configured: {}", known())))
    }
}
