//! The toggle capability: like / unlike by one actor on one target.
//!
//! Tier 3: imports tiers 0 to 2 and `capability`. Never imports flush or http. Holds no rule: the
//! policy decides, the store evaluates, this room moves data in batches between them.
//!
//! - `step`: one batch: one policy call, one store step.
//! - `hydrate`: what the store does not know of targets and pairs.
//! - `members`: who is on a target; for a huge one SQL with the store's newer knowledge laid over it.

mod hydrate;
mod members;
mod step;

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::histogram;
use tokio::time::Instant;

use crate::batcher::Batcher;
use crate::capability::{Ground, Hydrator, Parts, Receipt};
use crate::config::{DurabilityLevel, ToggleConfig};
use crate::error::Refusal;
use crate::model::{Id, Member, PairState, RateState, Verb};
use crate::store::{ReadResult, ToggleResult};
use crate::telemetry;
use hydrate::{ToggleLoad, Want};
use step::{Asked, Evaluated, Step};

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
    /// Where the answered state lies in the journal: ask [`Ground::is_stored`] with it.
    pub receipt: Receipt,
    /// The rate limit afterwards, and the rule's limit as (burst, period in milliseconds).
    pub rate: Option<(RateState, crate::model::RateLimit)>,
    /// The outcome of an earlier request with the same `Idempotency-Key`, answered again.
    pub replayed: bool,
    /// When it was evaluated, in Unix milliseconds.
    pub at_ms: u64,
}

/// All kinds of the capability, by name.
#[derive(Clone, Default)]
pub struct Toggles {
    /// The kinds.
    pub kinds: BTreeMap<String, Arc<ToggleKind>>,
}

/// One kind: its configuration, its batchers, its way to policy, store and SQL.
pub struct ToggleKind {
    shared: Arc<Shared>,
    steps: Batcher<Asked, Result<Evaluated, Refusal>>,
    hydrator: Hydrator<ToggleLoad>,
}

/// What requests and batches of one kind share.
struct Shared {
    config: ToggleConfig,
    ground: Arc<Ground>,
}

impl ToggleKind {
    /// Starts the kind's batchers on the current runtime.
    pub fn start(config: ToggleConfig, parts: Parts) -> Self {
        let ground = Arc::new(Ground::new(parts));
        let load = ToggleLoad { ground: Arc::clone(&ground), table: config.table.clone() };
        let hydrator = Hydrator::start(Arc::clone(&ground), Arc::new(load));
        let shared = Arc::new(Shared { config, ground });
        let step = Step::new(Arc::clone(&shared));
        let (batch, kind) = (&shared.ground.parts.batch, shared.ground.kind());
        let steps = Batcher::start(batch, "toggles", kind, move |batch| step.clone().run(batch));
        Self { shared, steps, hydrator }
    }

    /// Its configuration.
    pub fn config(&self) -> &ToggleConfig {
        &self.shared.config
    }

    /// What it stands on.
    pub fn ground(&self) -> &Ground {
        &self.shared.ground
    }

    /// Decides, applies and journals one operation, together with whatever is concurrent. With the kind's level
    /// `stored` it also waits for the flush, up to the deadline; the reply names the level really reached.
    ///
    /// # Errors
    /// See [`Refusal`]. An operation on a cold target whose state SQL cannot give is refused with nothing done.
    pub async fn apply(&self, request: ToggleRequest) -> Result<ToggleReply, Refusal> {
        let ground = self.ground();
        ground.admit()?;
        ground.parts.fit.check(&request.target, Some(&request.actor), None, request.verb != Verb::Clear).await?;
        let deadline = ground.deadline();
        let mut ruled = None;
        loop {
            let evaluated = self.steps.submit(Asked { request: request.clone(), ruled }).await??;
            ruled = Some(evaluated.ruled);
            let cold = match evaluated.result {
                ToggleResult::TargetNotLoaded => Want::Target(request.target.clone()),
                ToggleResult::PairNotLoaded => Want::Pair(request.target.clone(), request.actor.clone()),
                _ => return self.answer(&request, evaluated, deadline).await,
            };
            // In a box: what is known already must not hold room for it.
            Box::pin(self.hydrator.fetch(vec![cold], deadline)).await?;
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
                return Err(Refusal::RateLimited { retry_after_ms, rate, limit: evaluated.limit() });
            }
            ToggleResult::TargetMissing => return Err(Refusal::TargetMissing),
            ToggleResult::IdempotencyConflict => return Err(Refusal::IdempotencyConflict),
            ToggleResult::TargetNotLoaded | ToggleResult::PairNotLoaded => return Err(Refusal::StoreUnavailable),
        };
        let ground = self.ground();
        let partition = ground.partition(&request.target);
        let receipt = Receipt { partition, incarnation: evaluated.incarnation, position: outcome.position };
        let stored = match self.config().durability {
            // What was changed just now is hardly in SQL yet: that is not worth asking.
            DurabilityLevel::Journaled => !outcome.changed && ground.knows_stored(receipt),
            DurabilityLevel::Stored => ground.wait_stored(receipt, ground.wait_until(deadline)).await,
        };
        Ok(ToggleReply {
            state: outcome.state,
            changed: outcome.changed,
            durability: if stored { DurabilityLevel::Stored.as_str() } else { DurabilityLevel::Journaled.as_str() },
            receipt,
            rate: outcome.rate.zip(evaluated.limit()),
            replayed: outcome.replayed,
            at_ms: evaluated.at_ms,
        })
    }

    /// State and count of many targets, in order; `None` for one that does not exist. `active` is false without actor.
    ///
    /// # Errors
    /// Fails as a whole when the store, or SQL for a cold target, does not answer.
    pub async fn read(&self, targets: &[Id], actor: Option<&Id>) -> Result<Vec<Option<PairState>>, Refusal> {
        let deadline = self.ground().deadline();
        let pairs: Vec<(Id, Option<Id>)> = targets.iter().map(|target| (target.clone(), actor.cloned())).collect();
        loop {
            let results = self.shared.read(&pairs).await?;
            let cold: Vec<Want> = results
                .iter()
                .zip(&pairs)
                .filter_map(|(result, (target, actor))| match (result, actor) {
                    (ReadResult::PairNotLoaded, Some(actor)) => Some(Want::Pair(target.clone(), actor.clone())),
                    (ReadResult::TargetNotLoaded | ReadResult::PairNotLoaded, _) => Some(Want::Target(target.clone())),
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
        let deadline = self.ground().deadline();
        loop {
            if let Some(page) = members::page(&self.shared, target, before, limit).await? {
                return Ok(page);
            }
            self.hydrator.fetch(vec![Want::Target(target.clone())], deadline).await?;
        }
    }
}

impl Shared {
    async fn read(&self, pairs: &[(Id, Option<Id>)]) -> Result<Vec<ReadResult>, Refusal> {
        let parts = &self.ground.parts;
        let started = std::time::Instant::now();
        let results = parts.store.read(&parts.kind, parts.clock.steady_ms(), pairs).await;
        histogram!(telemetry::STORE_CALL_SECONDS, "operation" => "read").record(started.elapsed().as_secs_f64());
        let results = results.map_err(|error| self.ground.store_refusal(&error))?;
        self.ground.store_served();
        Ok(results)
    }
}
