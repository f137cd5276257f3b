//! The toggle capability: like / unlike by one actor on one target.
//!
//! Tier 3: imports tiers 0 to 2 (policy, store, sql for hydration). Never imports flush or http. Holds no rule: the
//! policy decides, the store evaluates, this room moves data in batches between them.
//!
//! - `step`: one batch: one policy call, one store step.
//! - `hydrate`: what the store does not know is read from SQL, in bulk, under the law of hydration.
//! - `members`: who is on a target; for a huge one SQL with the store's newer knowledge laid over it.

mod explain;
mod hydrate;
mod members;
mod step;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics::{counter, histogram};
use tokio::time::Instant;

use crate::batcher::Batcher;
use crate::clock::Clock;
use crate::config::{BatchConfig, DurabilityLevel, JournalConfig, ToggleConfig};
use crate::error::Refusal;
use crate::journal::JournalWatch;
use crate::model::{Id, Incarnation, Member, PairState, Partition, Position, RateState, Verb, partition_of};
use crate::policy::Policies;
use crate::sql::{Sql, SqlError};
use crate::store::{ReadResult, Store, StoreError, ToggleResult};
use crate::telemetry;
pub use explain::explain;
use hydrate::{Hydrator, Want};
use step::{Evaluated, Step};

/// One request for a toggle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToggleRequest {
    /// What the caller asks for.
    pub verb: Verb,
    /// What is liked. Of the kind's target type.
    pub target: Id,
    /// Who likes it. Of the kind's actor type.
    pub actor: Id,
    /// The caller's `Idempotency-Key`, 1 to 255 bytes.
    pub idempotency_key: Option<String>,
}

/// The answer to a toggle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToggleReply {
    /// The pair and its count afterwards.
    pub state: PairState,
    /// Whether this request changed the pair.
    pub changed: bool,
    /// The level reached: `journaled` or `stored`.
    pub durability: &'static str,
    /// Where the answered state lies in the journal: ask [`ToggleKind::is_stored`] with it.
    pub receipt: Receipt,
    /// The rate limit afterwards, and the rule's limit as (burst, period in milliseconds).
    pub rate: Option<(RateState, crate::model::RateLimit)>,
    /// The outcome of an earlier request with the same `Idempotency-Key`, answered again.
    pub replayed: bool,
    /// When it was evaluated, in Unix milliseconds.
    pub at_ms: u64,
}

/// A place in the journal of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The target's partition.
    pub partition: Partition,
    /// The life of its journal: a place in an earlier one says nothing of this.
    pub incarnation: Incarnation,
    /// The entry; 0 when SQL already held it.
    pub position: Position,
}

/// `partition-position-incarnation`, as clients get it.
impl std::fmt::Display for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.partition, self.position, self.incarnation.0.simple())
    }
}

/// All kinds of the capability, by name.
#[derive(Clone, Default)]
pub struct Toggles {
    /// The kinds.
    pub kinds: BTreeMap<String, Arc<ToggleKind>>,
}

/// What a kind is made of.
pub struct ToggleParts {
    /// Its configuration.
    pub config: ToggleConfig,
    /// Bounds of its batches.
    pub batch: BatchConfig,
    /// Bounds of its journal.
    pub journal: JournalConfig,
    /// Time within which hydration and waiting for SQL must be done, in milliseconds.
    pub deadline_ms: u64,
    /// The rules.
    pub policies: Arc<Policies>,
    /// Hot state and journal.
    pub store: Arc<dyn Store>,
    /// The truth.
    pub sql: Arc<dyn Sql>,
    /// Shared with the flusher of the kind.
    pub watch: Arc<JournalWatch>,
    /// The time.
    pub clock: Clock,
}

/// One kind: its configuration, its batchers, its way to policy, store and SQL.
pub struct ToggleKind {
    shared: Arc<Shared>,
    steps: Batcher<ToggleRequest, Result<Evaluated, Refusal>>,
    hydrator: Hydrator,
}

/// What requests, batches and hydration of one kind share.
struct Shared {
    parts: ToggleParts,
    store_failing: AtomicBool,
    sql_failing: AtomicBool,
}

impl ToggleKind {
    /// Starts the kind's batchers on the current runtime.
    pub fn start(parts: ToggleParts) -> Self {
        let shared =
            Arc::new(Shared { parts, store_failing: AtomicBool::new(false), sql_failing: AtomicBool::new(false) });
        let step = Step::new(Arc::clone(&shared));
        let steps = Batcher::start(&shared.parts.batch, "toggles", &shared.parts.config.kind, move |batch| {
            step.clone().run(batch)
        });
        let hydrator = Hydrator::start(Arc::clone(&shared));
        Self { shared, steps, hydrator }
    }

    /// Its configuration.
    pub fn config(&self) -> &ToggleConfig {
        &self.shared.parts.config
    }

    /// Decides, applies and journals one operation, together with whatever is concurrent. With the kind's level
    /// `stored` it also waits for the flush, up to the deadline; the reply names the level really reached.
    ///
    /// # Errors
    /// See [`Refusal`]. An operation on a cold target whose state SQL cannot give is refused with nothing done.
    pub async fn apply(&self, request: ToggleRequest) -> Result<ToggleReply, Refusal> {
        if self.shared.parts.watch.is_full(&self.shared.parts.journal) {
            counter!(telemetry::SHED_TOTAL, "limit" => "journal.backlog").increment(1);
            return Err(Refusal::JournalFull);
        }
        let deadline = self.deadline();
        loop {
            let evaluated = self.steps.submit(request.clone()).await??;
            let cold = match evaluated.result {
                ToggleResult::ColdTarget => Want::Target(request.target.clone()),
                ToggleResult::ColdPair => Want::Pair(request.target.clone(), request.actor.clone()),
                _ => return self.answer(&request, evaluated, deadline).await,
            };
            self.hydrator.fetch(vec![cold], deadline).await?;
        }
    }

    async fn answer(
        &self,
        request: &ToggleRequest,
        evaluated: Evaluated,
        deadline: Instant,
    ) -> Result<ToggleReply, Refusal> {
        let outcome = match evaluated.result {
            ToggleResult::Done(outcome) => outcome,
            ToggleResult::Denied(_) => return Err(Refusal::Denied),
            ToggleResult::Limited { retry_after_ms, rate } => {
                return Err(Refusal::RateLimited { retry_after_ms, rate, limit: evaluated.limit });
            }
            ToggleResult::TargetMissing => return Err(Refusal::TargetMissing),
            ToggleResult::IdempotencyConflict => return Err(Refusal::IdempotencyConflict),
            ToggleResult::ColdTarget | ToggleResult::ColdPair => return Err(Refusal::StoreUnavailable),
        };
        let partition = partition_of(&request.target, self.shared.parts.store.partitions());
        let receipt = Receipt { partition, incarnation: evaluated.incarnation, position: outcome.position };
        let stored = match self.config().durability {
            DurabilityLevel::Journaled => {
                // What was changed just now is hardly in SQL yet: that is not worth asking.
                !outcome.changed
                    && self.shared.parts.watch.is_stored(receipt.partition, receipt.incarnation, receipt.position)
            }
            // A fifth of the time is left for the reply: journaled is an answer, a missed deadline is none.
            DurabilityLevel::Stored => {
                let spare = Duration::from_millis(self.shared.parts.deadline_ms / 5);
                self.wait_stored(receipt, deadline - spare).await
            }
        };
        Ok(ToggleReply {
            state: outcome.state,
            changed: outcome.changed,
            durability: if stored { DurabilityLevel::Stored.as_str() } else { DurabilityLevel::Journaled.as_str() },
            receipt,
            rate: outcome.rate.zip(evaluated.limit),
            replayed: outcome.replayed,
            at_ms: evaluated.at_ms,
        })
    }

    /// State and count of many targets, in order; `None` for one that does not exist. `active` is false without actor.
    ///
    /// # Errors
    /// Fails as a whole when the store, or SQL for a cold target, does not answer.
    pub async fn read(&self, targets: &[Id], actor: Option<&Id>) -> Result<Vec<Option<PairState>>, Refusal> {
        let deadline = self.deadline();
        let pairs: Vec<(Id, Option<Id>)> = targets.iter().map(|target| (target.clone(), actor.cloned())).collect();
        loop {
            let results = self.shared.read(&pairs).await?;
            let cold: Vec<Want> = results
                .iter()
                .zip(&pairs)
                .filter_map(|(result, (target, actor))| match (result, actor) {
                    (ReadResult::ColdPair, Some(actor)) => Some(Want::Pair(target.clone(), actor.clone())),
                    (ReadResult::ColdTarget | ReadResult::ColdPair, _) => Some(Want::Target(target.clone())),
                    _ => None,
                })
                .collect();
            if cold.is_empty() {
                return Ok(results
                    .into_iter()
                    .map(|result| if let ReadResult::Known(state) = result { Some(state) } else { None })
                    .collect());
            }
            self.hydrator.fetch(cold, deadline).await?;
        }
    }

    /// Members newest first, strictly older than `before`.
    ///
    /// # Errors
    /// [`Refusal::TargetMissing`] when the target does not exist; else as [`ToggleKind::read`].
    pub async fn members(&self, target: &Id, before: Option<&Member>, limit: usize) -> Result<Vec<Member>, Refusal> {
        let deadline = self.deadline();
        loop {
            if let Some(page) = members::page(&self.shared, target, before, limit).await? {
                return Ok(page);
            }
            self.hydrator.fetch(vec![Want::Target(target.clone())], deadline).await?;
        }
    }

    /// Whether everything up to `receipt` is committed in SQL.
    ///
    /// # Errors
    /// Fails when neither this host's knowledge nor the store can tell.
    pub async fn is_stored(&self, receipt: Receipt) -> Result<bool, Refusal> {
        let parts = &self.shared.parts;
        if receipt.partition >= parts.store.partitions() {
            return Ok(false);
        }
        if parts.watch.is_stored(receipt.partition, receipt.incarnation, receipt.position) {
            return Ok(true);
        }
        let heads = parts.store.heads(&parts.config.kind, &[receipt.partition]).await;
        let heads = heads.map_err(|error| self.shared.store_refusal(&error))?;
        parts.watch.observe(&heads);
        Ok(parts.watch.is_stored(receipt.partition, receipt.incarnation, receipt.position))
    }

    /// Waits until `receipt` is stored or `deadline` has passed; whether it is stored. Woken by this host's flusher;
    /// when another host flushes, the head is polled.
    pub async fn wait_stored(&self, receipt: Receipt, deadline: Instant) -> bool {
        const POLL_MS: u64 = 100;
        let mut committed = self.shared.parts.watch.subscribe();
        loop {
            if self.shared.parts.watch.is_stored(receipt.partition, receipt.incarnation, receipt.position) {
                return true;
            }
            let now = Instant::now();
            if now >= deadline {
                return false;
            }
            let poll_at = deadline.min(now + Duration::from_millis(POLL_MS));
            if tokio::time::timeout_at(poll_at, committed.changed()).await.is_err()
                && matches!(self.is_stored(receipt).await, Ok(true))
            {
                return true;
            }
        }
    }

    /// Everything known of one pair; see [`explain`](fn@explain).
    pub async fn explain(&self, target: &Id, actor: &Id) -> serde_json::Value {
        let parts = &self.shared.parts;
        explain(&parts.config, &*parts.store, &*parts.sql, parts.clock.now_ms(), target, actor).await
    }

    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.shared.parts.deadline_ms)
    }
}

impl Shared {
    async fn read(&self, pairs: &[(Id, Option<Id>)]) -> Result<Vec<ReadResult>, Refusal> {
        let parts = &self.parts;
        let started = std::time::Instant::now();
        let results = parts.store.read(&parts.config.kind, parts.clock.now_ms(), pairs).await;
        histogram!(telemetry::STORE_CALL_SECONDS, "operation" => "read").record(started.elapsed().as_secs_f64());
        let results = results.map_err(|error| self.store_refusal(&error))?;
        self.store_served();
        Ok(results)
    }

    /// The refusal for a failed store call that changed nothing. Logs when the store begins to fail, not for each
    /// request.
    fn store_refusal(&self, error: &StoreError) -> Refusal {
        if !self.store_failing.swap(true, Ordering::Relaxed) {
            tracing::error!(kind = self.parts.config.kind, %error, "the store does not serve requests");
        }
        Refusal::StoreUnavailable
    }

    fn store_served(&self) {
        if self.store_failing.load(Ordering::Relaxed) && self.store_failing.swap(false, Ordering::Relaxed) {
            tracing::info!(kind = self.parts.config.kind, "the store serves requests again");
        }
    }

    fn sql_refusal(&self, error: &SqlError) -> Refusal {
        if !self.sql_failing.swap(true, Ordering::Relaxed) {
            tracing::error!(kind = self.parts.config.kind, %error, "SQL does not answer for cold targets");
        }
        Refusal::SqlUnavailable
    }

    fn sql_served(&self) {
        if self.sql_failing.load(Ordering::Relaxed) && self.sql_failing.swap(false, Ordering::Relaxed) {
            tracing::info!(kind = self.parts.config.kind, "SQL answers for cold targets again");
        }
    }
}
