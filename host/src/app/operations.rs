//! What operators may ask and do, with a running host (through its listener) or without (from the command line).
//!
//! - `running`: what the operators' listener of a running host asks and does.
//! - `checks`: whether it is ready, check by check.
//! - `answers`: how the host's own types become those of the operators' API.

mod answers;
mod checks;
mod running;

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::AppError;
use crate::admin::OperationsError;
use crate::capability::{Explained, dead_letter, explain};
use crate::clock::Clock;
use crate::config::{Config, KindTable, StoreType};
use crate::model::{Id, Partition, partition_of};
use crate::operators::{DeadLetters, Explanation, IdValue, Part};
use crate::policy::ControlError;
use crate::sql::{self, DeadLetter, Sql, SqlError};
use crate::store::{self, Store, StoreError};
pub use running::RunningHost;

/// Converts an SQL failure into the error that operators see.
pub(super) fn of_sql(error: SqlError) -> OperationsError {
    match error {
        SqlError::Permanent(reason) => OperationsError::Conflict(reason),
        other => OperationsError::Unavailable(other.to_string()),
    }
}

/// The same of policy modules.
fn of_policy(error: ControlError) -> OperationsError {
    match error {
        ControlError::Refused(refusal) => {
            OperationsError::Refused { code: refusal.code(), reason: refusal.to_string() }
        }
        ControlError::NotFound(reason) => OperationsError::NotFound(reason),
        ControlError::Invalid(reason) => OperationsError::Invalid(reason),
        ControlError::Conflict(reason) => OperationsError::Conflict(reason),
        error @ ControlError::Disk(_) => OperationsError::Unavailable(error.to_string()),
    }
}

/// The same of the store.
fn of_store(error: StoreError) -> OperationsError {
    OperationsError::Unavailable(error.to_string())
}

/// Looks into store and SQL for an operator, and mends.
pub struct Operator {
    config: Arc<Config>,
    /// Opened when it is first needed: a running host may hold it, and dead letters can be read without.
    store: OnceCell<Arc<dyn Store>>,
    /// Whether nothing may change on disk.
    is_look: bool,
    pub(super) sql: Arc<dyn Sql>,
    pub(super) clock: Clock,
}

/// Whether the embedded store was never opened where it should be.
fn has_no_store(config: &Config) -> bool {
    config.store.store_type == StoreType::Embedded && !config.store.path.exists()
}

fn nothing_there(config: &Config) -> String {
    format!(
        "there is nothing in {}: no host has run with it; name the running one (--admin ADDR) or its configuration (--config)",
        config.store.path.display()
    )
}

impl Operator {
    /// On what a running host has open.
    pub fn new(config: Arc<Config>, store: Arc<dyn Store>, sql: Arc<dyn Sql>, clock: Clock) -> Self {
        Self { config, store: OnceCell::new_with(Some(store)), is_look: false, sql, clock }
    }

    /// Opens SQL, and the store when it is needed: for the command line when no host answers.
    ///
    /// # Errors
    /// See [`AppError`].
    pub async fn open(config: Config) -> Result<Self, AppError> {
        Self::open_as(config, false).await
    }

    /// As [`Operator::open`], for what only asks: nothing changes on disk.
    ///
    /// # Errors
    /// See [`AppError`].
    pub async fn open_to_look(config: Config) -> Result<Self, AppError> {
        Self::open_as(config, true).await
    }

    async fn open_as(config: Config, is_look: bool) -> Result<Self, AppError> {
        let config = config.with_namespace();
        if has_no_store(&config) && config.sql.url.starts_with("sqlite:") {
            // SQLite would begin an empty database, in which nothing is found.
            return Err(AppError::System { what: "open the data".into(), reason: nothing_there(&config) });
        }
        let sql = if is_look { sql::open_to_look(&config.sql).await? } else { sql::open(&config.sql).await? };
        Ok(Self { config: Arc::new(config), store: OnceCell::new(), is_look, sql, clock: Clock::Real })
    }

    async fn store(&self) -> Result<&Arc<dyn Store>, OperationsError> {
        if has_no_store(&self.config) {
            return Err(OperationsError::Unavailable(nothing_there(&self.config)));
        }
        let open = || async {
            let config = &self.config.store;
            if self.is_look { store::open_copy(config).await } else { store::open(config).await }
        };
        self.store.get_or_try_init(open).await.map_err(|error| {
            OperationsError::Unavailable(format!("{error}; when a host is running, name it: --admin ADDR"))
        })
    }

    /// Everything known of a target, and of one actor on it; see [`explain`].
    ///
    /// # Errors
    /// Unknown kind, an id of the wrong type, or no actor where a toggle needs one.
    pub async fn explain(&self, kind: &str, target: &str, actor: Option<&str>) -> Result<Explanation, OperationsError> {
        let id = |name, id_type, text| {
            Id::parse(id_type, text).map_err(|error| OperationsError::Invalid(format!("{name} {text:?}: {error}")))
        };
        if let Some(room) = self.config.rooms.iter().find(|room| room.kind == kind) {
            let queue = id("queue", room.queue_type, target)?;
            let actor = actor.map(|text| id("actor", room.actor_type, text)).transpose()?;
            return self.explain_room(kind, &queue, actor.as_ref()).await;
        }
        let table = self.table(kind)?;
        let (target_type, actor_type) = table.id_types();
        let target = id("target", target_type, target)?;
        let actor = actor.map(|text| id("actor", actor_type, text)).transpose()?;
        if actor.is_none() && matches!(table, KindTable::Toggle(_)) {
            return Err(OperationsError::Invalid("a toggle is explained for one actor: name it, too".into()));
        }
        let (store, now_ms) = (self.store().await?, self.clock.steady_ms());
        let partition = self.partition(kind, &target, store.partitions());
        let explained = Explained { kind, table: &table, partition, target: &target, actor: actor.as_ref() };
        Ok(explain(explained, &**store, &*self.sql, now_ms).await)
    }

    /// A queue of a waiting room: it has no row, and nothing is written behind.
    async fn explain_room(&self, kind: &str, queue: &Id, actor: Option<&Id>) -> Result<Explanation, OperationsError> {
        let is_known = self.store().await?.room_queues(kind).await.map_err(of_store)?.contains(queue);
        let store = if is_known { "the queue is there" } else { "there is no such queue: nobody has joined" };
        Ok(Explanation {
            kind: kind.to_owned(),
            target: queue.into(),
            actor: actor.map(IdValue::from),
            partition: None,
            store: store.into(),
            sql: "none: a waiting room is in the store alone".into(),
            checkpoint: Part::Known(None),
            dead_letters: Part::Known(Vec::new()),
            holes: None,
            look_at: Some(vec![
                format!("GET /v1/rooms/{kind}/{queue}: who waits and is in, totals, draw"),
                format!(
                    "GET /v1/rooms/{kind}/{queue}/tokens/TOKEN: one person; a join by the same actor answers a token"
                ),
                format!("GET /admin/v1/rooms/{kind}/{queue}/arrivals: who takes part in the draw"),
            ]),
        })
    }

    /// A page of dead letters above the number `after`.
    ///
    /// # Errors
    /// When SQL does not answer.
    pub async fn dead_letters(
        &self,
        kind: Option<&str>,
        after: i64,
        limit: usize,
    ) -> Result<DeadLetters, OperationsError> {
        let letters = self.sql.dead_letters(kind, after, limit).await.map_err(of_sql)?;
        Ok(DeadLetters { dead_letters: letters.into_iter().map(dead_letter).collect() })
    }

    /// Stores a dead letter again, and makes the store load its target again.
    ///
    /// # Errors
    /// [`OperationsError::Conflict`] with the database's reason when it still cannot be stored.
    pub async fn replay_dead_letter(&self, id: i64) -> Result<(), OperationsError> {
        let letter = self.letter(id).await?;
        let table = self.table(&letter.kind)?;
        // Before SQL changes: without the store its state could not be made to follow.
        self.store().await?;
        self.sql.replay_dead_letter(&table, &letter).await.map_err(of_sql)?;
        self.forget(&table, &letter).await
    }

    /// Drops a dead letter.
    ///
    /// # Errors
    /// [`OperationsError::NotFound`] when there is none with that number.
    pub async fn drop_dead_letter(&self, id: i64) -> Result<(), OperationsError> {
        match self.sql.drop_dead_letters(&[id]).await.map_err(of_sql)? {
            0 => Err(OperationsError::NotFound(format!("there is no dead letter {id}"))),
            _ => Ok(()),
        }
    }

    async fn letter(&self, id: i64) -> Result<DeadLetter, OperationsError> {
        let page = self.sql.dead_letters(None, id - 1, 1).await.map_err(of_sql)?;
        page.into_iter()
            .find(|letter| letter.id == id)
            .ok_or_else(|| OperationsError::NotFound(format!("there is no dead letter {id}")))
    }

    /// The store's state of the letter's target is older than SQL now: it becomes cold as soon as it is clean.
    async fn forget(&self, table: &KindTable, letter: &DeadLetter) -> Result<(), OperationsError> {
        let Ok(target) = Id::parse(table.id_types().0, &letter.target) else { return Ok(()) };
        let store = self.store().await?;
        let partition = self.partition(&letter.kind, &target, store.partitions());
        for head in store.heads(&letter.kind, &[partition]).await.map_err(of_store)? {
            let invalid = [target.clone()];
            store
                .trim(&letter.kind, partition, head.incarnation, head.flushed, &[], &invalid)
                .await
                .map_err(of_store)?;
        }
        Ok(())
    }

    /// The partition of a target of this kind.
    fn partition(&self, kind: &str, target: &Id, partitions: Partition) -> Partition {
        let ingest = self.config.ingests.iter().find(|ingest| ingest.kind == kind);
        ingest.map_or_else(|| partition_of(target, partitions), |ingest| ingest.partition(target, partitions))
    }

    pub(super) fn table(&self, kind: &str) -> Result<KindTable, OperationsError> {
        let kinds = self.config.kinds();
        let known = kinds.iter().map(|(kind, _)| *kind).collect::<Vec<_>>().join(", ");
        let found = kinds.into_iter().find(|(name, _)| *name == kind);
        found
            .map(|(_, table)| table)
            .ok_or_else(|| OperationsError::NotFound(format!("there is no kind {kind:?}; configured: {known}")))
    }
}
