//! The counter capability: views, plays, downloads; how often, not by whom.
//!
//! Tier 3: imports tiers 0 to 2 and `capability`. Never imports flush or http. Holds no rule: the policy decides what a hit
//! counts for, the store evaluates windows and limits and adds, this room moves data in batches between them.
//!
//! - `step`: one batch: one policy call, one store step.

mod step;

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::{counter, histogram};

use crate::batcher::Batcher;
use crate::capability::{Ground, Hydrator, Load, Parts, Receipt};
use crate::config::{CounterConfig, DurabilityLevel};
use crate::error::Refusal;
use crate::model::{Id, Partition, RateLimit, RateState};
use crate::store::{CountResult, Hydration, LoadedState, ReadResult, TargetLoad};
use crate::telemetry;
use step::{Asked, Evaluated, Step};

/// One request to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountRequest {
    /// What is counted. Of the kind's target type.
    pub target: Id,
    /// Who is counted, if anybody is known. Of the kind's actor type.
    pub actor: Option<Id>,
    /// How much, from 1 to the kind's `by_max`.
    pub by: u32,
    /// The caller's `Idempotency-Key`, 1 to 255 bytes.
    pub idempotency_key: Option<String>,
}

/// The answer to a hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountReply {
    /// The count afterwards.
    pub count: u64,
    /// Whether it counted.
    pub counted: bool,
    /// The level reached: `journaled` or `stored`.
    pub durability: &'static str,
    /// Where the answered count lies in the journal.
    pub receipt: Receipt,
    /// The rate limit afterwards, and the rule's limit.
    pub rate: Option<(RateState, RateLimit)>,
    /// The outcome of an earlier request with the same `Idempotency-Key`, answered again.
    pub replayed: bool,
    /// When it was evaluated, in Unix milliseconds.
    pub at_ms: u64,
}

/// All kinds of the capability, by name.
#[derive(Clone, Default)]
pub struct Counters {
    /// The kinds.
    pub kinds: BTreeMap<String, Arc<CounterKind>>,
}

/// One kind: its configuration, its batchers, its way to policy, store and SQL.
pub struct CounterKind {
    config: CounterConfig,
    ground: Arc<Ground>,
    steps: Batcher<Asked, Result<Evaluated, Refusal>>,
    hydrator: Hydrator<CountLoad>,
}

impl CounterKind {
    /// Starts the kind's batchers on the current runtime.
    pub fn start(config: CounterConfig, parts: Parts) -> Self {
        let ground = Arc::new(Ground::new(parts));
        let load = CountLoad { ground: Arc::clone(&ground), config: config.clone() };
        let hydrator = Hydrator::start(Arc::clone(&ground), Arc::new(load));
        let step = Step::new(Arc::clone(&ground), &config);
        let steps =
            Batcher::start(&ground.parts.batch, "counters", ground.kind(), move |batch| step.clone().run(batch));
        Self { config, ground, steps, hydrator }
    }

    /// Its configuration.
    pub fn config(&self) -> &CounterConfig {
        &self.config
    }

    /// What it stands on.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// Decides, counts and journals one hit, together with whatever is concurrent. With the kind's level `stored` it also
    /// waits for the flush, up to the deadline; the reply names the level really reached.
    ///
    /// # Errors
    /// See [`Refusal`]. A hit on a cold counter whose count SQL cannot give is refused with nothing done.
    pub async fn count(&self, request: CountRequest) -> Result<CountReply, Refusal> {
        let ground = self.ground();
        ground.admit()?;
        ground.parts.fit.check(&request.target, request.actor.as_ref(), Some(request.by), true).await?;
        let deadline = ground.deadline();
        let mut ruled = None;
        loop {
            let evaluated = self.steps.submit(Asked { request: request.clone(), ruled }).await??;
            ruled = Some(evaluated.ruled);
            let outcome = match evaluated.result {
                CountResult::Done(outcome) => outcome,
                CountResult::TargetNotLoaded => {
                    self.hydrator.fetch(vec![request.target.clone()], deadline).await?;
                    continue;
                }
                CountResult::Limited { retry_after_ms, rate } => {
                    return Err(Refusal::RateLimited { retry_after_ms, rate, limit: evaluated.limit });
                }
                CountResult::TargetMissing => return Err(Refusal::TargetMissing),
                CountResult::Overflow => return Err(Refusal::CountOverflow),
                CountResult::IdempotencyConflict => return Err(Refusal::IdempotencyConflict),
            };
            let partition = ground.partition(&request.target);
            let receipt = Receipt { partition, incarnation: evaluated.incarnation, position: outcome.position };
            let stored = match self.config.durability {
                // What was counted just now is hardly in SQL yet: that is not worth asking.
                DurabilityLevel::Journaled => !outcome.counted && ground.knows_stored(receipt),
                DurabilityLevel::Stored => {
                    ground.parts.watch.want_flush();
                    ground.wait_stored(receipt, ground.wait_until(deadline)).await
                }
            };
            return Ok(CountReply {
                count: outcome.count,
                counted: outcome.counted,
                durability: if stored { DurabilityLevel::Stored.as_str() } else { DurabilityLevel::Journaled.as_str() },
                receipt,
                rate: outcome.rate.zip(evaluated.limit),
                replayed: outcome.replayed,
                at_ms: evaluated.at_ms,
            });
        }
    }

    /// The counts of many targets, in order; `None` for one that does not exist.
    ///
    /// # Errors
    /// Fails as a whole when the store, or SQL for a cold counter, does not answer.
    pub async fn read(&self, targets: &[Id]) -> Result<Vec<Option<u64>>, Refusal> {
        let deadline = self.ground.deadline();
        let asked: Vec<(Id, Option<Id>)> = targets.iter().map(|target| (target.clone(), None)).collect();
        loop {
            let results = self.look_up(&asked).await?;
            let mut cold = Vec::new();
            let mut counts = Vec::with_capacity(results.len());
            for (result, target) in results.into_iter().zip(targets) {
                match result {
                    ReadResult::Known(state) => counts.push(Some(state.count)),
                    ReadResult::TargetMissing => counts.push(None),
                    ReadResult::TargetNotLoaded | ReadResult::PairNotLoaded => cold.push(target.clone()),
                }
            }
            if cold.is_empty() {
                return Ok(counts);
            }
            self.hydrator.fetch(cold, deadline).await?;
        }
    }

    async fn look_up(&self, asked: &[(Id, Option<Id>)]) -> Result<Vec<ReadResult>, Refusal> {
        let parts = &self.ground.parts;
        let started = std::time::Instant::now();
        let results = parts.store.read(&parts.kind, parts.clock.steady_ms(), asked).await;
        histogram!(telemetry::STORE_CALL_SECONDS, "operation" => "read").record(started.elapsed().as_secs_f64());
        let results = results.map_err(|error| self.ground.store_refusal(&error))?;
        self.ground.store_served();
        Ok(results)
    }
}

/// Reads counts from the kind's table.
struct CountLoad {
    ground: Arc<Ground>,
    config: CounterConfig,
}

impl Load for CountLoad {
    type Want = Id;

    /// A count takes next to no memory: a cold start of many counters is a few reads.
    const ITEMS_MAX: usize = 1_000;

    const NEEDS_STILL_CHECKPOINT: bool = true;

    fn partition(&self, want: &Id) -> Partition {
        self.ground.partition(want)
    }

    async fn load(&self, wants: &[&Id], hydrations: &mut BTreeMap<Partition, Hydration>) -> Result<(), Refusal> {
        let targets: Vec<Id> = wants.iter().map(|target| (*target).clone()).collect();
        let counts = self.ground.parts.sql.load_counts(&self.config.table, &targets).await;
        let counts = counts.map_err(|error| self.ground.sql_refusal(&error))?;
        let kind = self.ground.kind().to_owned();
        counter!(telemetry::HYDRATED_TOTAL, "kind" => kind, "what" => "count").increment(targets.len() as u64);
        for (target, count) in targets.into_iter().zip(counts) {
            let state = count.map_or(LoadedState::Missing, LoadedState::Count);
            if let Some(hydration) = hydrations.get_mut(&self.ground.partition(&target)) {
                hydration.targets.push(TargetLoad { target, state });
            }
        }
        Ok(())
    }
}
