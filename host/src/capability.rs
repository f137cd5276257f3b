//! What all capabilities stand on: store, SQL, the journal's watch, and the ways in which these fail a request.
//!
//! Tier 3, below the other capabilities: imports tiers 0 to 2. Never imports a capability, flush or http. Holds no rule and
//! no state of a kind: [`Ground`] is made anew at each start.
//!
//! - `explain`: everything that is known of a target.
//! - `fit`: what SQL could never take is refused at the door.
//! - `hydrate`: what the store does not know is read from SQL, in bulk, under the law of hydration.
//! - `step`: idempotency keys; the store steps of a batch; each item is decided once.
//! - `receipt`: a place in the journal, and waiting until SQL has got there.

mod explain;
mod fit;
mod hydrate;
mod receipt;
mod step;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics::counter;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::{BatchConfig, JournalConfig};
use crate::error::Refusal;
use crate::journal::JournalWatch;
use crate::model::{Id, Partition, partition_of};
use crate::policy::Rules;
use crate::sql::{Sql, SqlError};
use crate::store::{Store, StoreError};
use crate::telemetry;

pub use explain::{Explained, dead_letter, explain, journal_hole};
pub use fit::Fit;
pub use hydrate::{Hydrator, Load, hydrate_all};
pub use receipt::Receipt;
pub use step::{Ruled, decided_apart, idempotency, in_steps, kept};

/// What a kind is made of, whatever it does.
#[derive(Clone)]
pub struct Parts {
    /// Its name.
    pub kind: String,
    /// Bounds of its batches.
    pub batch: BatchConfig,
    /// Bounds of its journal.
    pub journal: JournalConfig,
    /// Time within which hydration and waiting for SQL must be done, in milliseconds.
    pub deadline_ms: u64,
    /// The rules.
    pub policies: Arc<Rules>,
    /// Hot state and journal.
    pub store: Arc<dyn Store>,
    /// The truth.
    pub sql: Arc<dyn Sql>,
    /// What fits into its tables.
    pub fit: Arc<Fit>,
    /// Shared with the flusher of the kind.
    pub watch: Arc<JournalWatch>,
    /// The time.
    pub clock: Clock,
}

/// What requests, batches and hydration of one kind share.
pub struct Ground {
    /// What it is made of.
    pub parts: Parts,
    store_failing: AtomicBool,
    sql_failing: AtomicBool,
}

impl Ground {
    /// On `parts`.
    pub fn new(parts: Parts) -> Self {
        Self { parts, store_failing: AtomicBool::new(false), sql_failing: AtomicBool::new(false) }
    }

    /// The kind's name.
    pub fn kind(&self) -> &str {
        &self.parts.kind
    }

    /// The partition of a target.
    pub fn partition(&self, target: &Id) -> Partition {
        partition_of(target, self.parts.store.partitions())
    }

    /// The store step that operations on a target belong to: see [`Store::step_of`].
    pub fn step_of(&self, target: &Id) -> Partition {
        self.parts.store.step_of(self.partition(target))
    }

    /// When a request that begins now must be answered.
    pub fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.parts.deadline_ms)
    }

    /// Refuses a write while the journal is at one of its bounds.
    ///
    /// # Errors
    /// [`Refusal::JournalFull`].
    pub fn admit(&self) -> Result<(), Refusal> {
        if self.parts.watch.is_full(&self.parts.journal) {
            counter!(telemetry::SHED_TOTAL, "limit" => "journal.backlog").increment(1);
            return Err(Refusal::JournalFull);
        }
        Ok(())
    }

    /// The refusal for a failed store call that changed nothing. Logs when the store begins to fail, not for each
    /// request.
    pub fn store_refusal(&self, error: &StoreError) -> Refusal {
        if !self.store_failing.swap(true, Ordering::Relaxed) {
            tracing::error!(kind = self.parts.kind, %error, "the store does not serve requests");
        }
        Refusal::StoreUnavailable
    }

    /// The refusal for a failed store step, which may have been applied.
    pub fn step_refusal(&self, operation: &'static str, error: &StoreError) -> Refusal {
        counter!(telemetry::STORE_FAILURES_TOTAL, "operation" => operation, "cause" => error.cause()).increment(1);
        let refusal = self.store_refusal(error);
        if matches!(error, StoreError::OutcomeUnknown(_)) { Refusal::OutcomeUnknown } else { refusal }
    }

    /// The store has answered.
    pub fn store_served(&self) {
        if self.store_failing.load(Ordering::Relaxed) && self.store_failing.swap(false, Ordering::Relaxed) {
            tracing::info!(kind = self.parts.kind, "the store serves requests again");
        }
    }

    /// The refusal for what SQL did not answer.
    pub fn sql_refusal(&self, error: &SqlError) -> Refusal {
        if !self.sql_failing.swap(true, Ordering::Relaxed) {
            tracing::error!(kind = self.parts.kind, %error, "SQL does not answer for what the store does not know");
        }
        Refusal::SqlUnavailable
    }

    /// SQL has answered.
    pub fn sql_served(&self) {
        if self.sql_failing.load(Ordering::Relaxed) && self.sql_failing.swap(false, Ordering::Relaxed) {
            tracing::info!(kind = self.parts.kind, "SQL answers again for what the store does not know");
        }
    }
}
