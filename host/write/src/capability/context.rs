//! What requests, batches, hydration and flush of one kind share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics::{counter, histogram};
use tokio::time::Instant;

use super::Fit;
use weir_core::clock::Clock;
use weir_core::config::{BatchConfig, JournalConfig};
use weir_core::error::Refusal;
use weir_core::journal::JournalWatch;
use weir_core::model::{Id, Partition, partition_of};
use weir_core::telemetry;
use weir_policy::Rules;
use weir_sql::{Sql, SqlError};
use weir_store::{ReadResult, Store, StoreError};

/// What a kind is made of, whatever it does.
#[derive(Clone)]
pub struct KindParts {
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

/// The parts of a kind, and whether they answer now. Made anew at each start: it holds no state of the kind.
pub struct KindContext {
    /// What it is made of.
    pub parts: KindParts,
    store_failing: AtomicBool,
    sql_failing: AtomicBool,
}

impl KindContext {
    /// Of `parts`.
    pub fn new(parts: KindParts) -> Self {
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

    /// What the store knows of targets, or of pairs where there is an actor; index-aligned.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn read(&self, pairs: &[(Id, Option<Id>)]) -> Result<Vec<ReadResult>, Refusal> {
        let parts = &self.parts;
        let started = std::time::Instant::now();
        let results = parts.store.read(&parts.kind, parts.clock.steady_ms(), pairs).await;
        histogram!(telemetry::STORE_CALL_SECONDS, "operation" => "read").record(started.elapsed().as_secs_f64());
        self.store_answer(results)
    }

    /// Counts what was read from SQL because the store did not know it.
    pub fn count_hydrated(&self, what: &'static str, items: usize) {
        let kind = self.kind().to_owned();
        counter!(telemetry::HYDRATED_TOTAL, "kind" => kind, "what" => what).increment(items as u64);
    }

    /// The answer of a store call that changes nothing.
    ///
    /// # Errors
    /// When there is none.
    pub fn store_answer<T>(&self, answer: Result<T, StoreError>) -> Result<T, Refusal> {
        let answer = answer.map_err(|error| self.store_refusal(&error))?;
        self.store_served();
        Ok(answer)
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
        // The load first: while all is well no thread writes to the shared flag.
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
