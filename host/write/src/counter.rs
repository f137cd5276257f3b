//! The counter capability: views, plays, downloads; how often, not by whom.
//!
//! Of its own crate it uses `capability` alone. Never imports flush or http. Holds no rule: the policy decides what a hit
//! counts for, the store evaluates windows and limits and adds.
//!
//! - `load`: counts that the store does not know.
//! - `fold`: what a flush makes of its changes.

mod fold;
mod load;

use std::sync::Arc;

use crate::capability::{
    Capability, Fold, Kind, KindContext, Outcomes, Receipt, RequestKey, Settled, StepBatch, Written,
};
pub use load::CountLoad;
use weir_core::config::{Config, ConfigError, CounterConfig, DurabilityLevel, KindTable};
use weir_core::error::Refusal;
use weir_core::model::{CountRule, Hit, Id, Partition, RateLimit, RateState};
use weir_core::telemetry;
use weir_policy::{Decided, KindPolicy};
use weir_store::{Commit, CountBatch, CountOp, CountOutcome, CountResult, Idempotency, ReadResult, StoreError};

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

/// One kind of the capability.
pub type CounterKind = Kind<Counter>;

/// What only this capability needs of a kind.
pub struct Counter {
    config: CounterConfig,
}

impl Capability for Counter {
    const NAME: &'static str = "counter";
    const QUEUE: &'static str = "counters";
    const OPERATION: &'static str = "count";
    const OUTCOMES: Outcomes = Outcomes {
        metric: telemetry::COUNTS_TOTAL,
        labels: &["counted", "uncounted", "replayed", "limited", "missing", "cold", "overflow", "conflict"],
    };

    type Config = CounterConfig;
    type Request = CountRequest;
    type Prepared = CountRequest;
    type Subject = Hit;
    type Ruling = CountRule;
    type Op = CountOp;
    type Outcome = CountResult;
    type Done = CountOutcome;
    type Reply = CountReply;
    type Refusal = Refusal;
    type Load = CountLoad;

    fn configs(config: &Config) -> &[CounterConfig] {
        &config.counters
    }

    fn configs_mut(config: &mut Config) -> &mut [CounterConfig] {
        &mut config.counters
    }

    fn kind(config: &CounterConfig) -> &str {
        &config.kind
    }

    fn kind_mut(config: &mut CounterConfig) -> &mut String {
        &mut config.kind
    }

    fn rules(config: &CounterConfig) -> KindPolicy {
        let (kind, settings) = (config.kind.clone(), config.policy_settings());
        KindPolicy { kind, settings, on_failure: config.on_policy_failure }
    }

    fn start(config: CounterConfig, _context: &Arc<KindContext>) -> Result<Self, ConfigError> {
        Ok(Self { config })
    }

    fn config(&self) -> &CounterConfig {
        &self.config
    }

    fn durability(&self) -> DurabilityLevel {
        self.config.durability
    }

    fn load(&self, context: &Arc<KindContext>) -> Arc<CountLoad> {
        Arc::new(CountLoad { context: Arc::clone(context), table: self.config.table.clone() })
    }

    async fn check(&self, context: &KindContext, request: &CountRequest) -> Result<(), Refusal> {
        context.parts.fit.check(&request.target, request.actor.as_ref(), Some(request.by), true).await
    }

    fn prepare(&self, _context: &KindContext, request: CountRequest) -> Result<CountRequest, Refusal> {
        Ok(request)
    }

    fn subject(&self, context: &KindContext, request: CountRequest) -> (Hit, Option<Idempotency>) {
        let CountRequest { target, actor, by, idempotency_key } = request;
        let idempotency = idempotency_key.map(|key| {
            let actor = actor.as_ref().map(ToString::to_string).unwrap_or_default();
            let key = RequestKey { kind: context.kind(), actor: &actor, key: &key, target: Some(&target) };
            key.of(&["count", &by.to_string()])
        });
        (Hit { target, actor, by }, idempotency)
    }

    async fn decide(&self, context: &KindContext, at_ms: u64, hits: &[Hit]) -> Result<Decided<CountRule>, Refusal> {
        // A failed module is logged, counted and reported by the policy itself.
        let decided = context.parts.policies.decide_counts(context.kind(), at_ms, hits).await;
        decided.map_err(|_| Refusal::PolicyFailed)
    }

    fn op(&self, hit: Hit, rule: &mut CountRule, idempotency: Option<Idempotency>) -> Result<CountOp, Refusal> {
        let Hit { target, actor, by } = hit;
        Ok(CountOp { target, actor, by, rule: *rule, idempotency })
    }

    fn partition(context: &KindContext, op: &CountOp) -> Partition {
        context.partition(&op.target)
    }

    async fn step(&self, context: &KindContext, batch: StepBatch<CountOp>) -> Result<Commit<CountResult>, StoreError> {
        let StepBatch { digest, at_ms, now_ms, ops } = batch;
        let (keep_actors, unique_pairs_max) = (self.config.table.events.is_some(), self.config.unique_pairs_max);
        let batch = CountBatch { digest, at_ms, now_ms, keep_actors, unique_pairs_max, ops };
        context.parts.store.count(context.kind(), batch).await
    }

    fn is_new(outcome: &CountResult) -> bool {
        matches!(outcome, CountResult::Done(CountOutcome { counted: true, .. }))
    }

    fn outcome(outcome: &CountResult) -> &'static str {
        match outcome {
            CountResult::Done(CountOutcome { replayed: true, .. }) => "replayed",
            CountResult::Done(CountOutcome { counted: true, .. }) => "counted",
            CountResult::Done(_) => "uncounted",
            CountResult::Limited { .. } => "limited",
            CountResult::TargetMissing => "missing",
            CountResult::TargetNotLoaded => "cold",
            CountResult::Overflow => "overflow",
            CountResult::IdempotencyConflict => "conflict",
        }
    }

    fn settle(
        &self,
        context: &KindContext,
        request: &CountRequest,
        rule: &mut CountRule,
        outcome: CountResult,
    ) -> Settled<Self> {
        match outcome {
            CountResult::Done(done) => {
                let (partition, position) = (context.partition(&request.target), done.position);
                Settled::Done { done, partition, position }
            }
            CountResult::TargetNotLoaded => Settled::NotLoaded(vec![request.target.clone()]),
            CountResult::Limited { retry_after_ms, rate } => {
                // A limit applies only with an actor.
                let limit = request.actor.as_ref().and(rule.limit);
                Settled::Refused(Refusal::RateLimited { retry_after_ms, rate, limit })
            }
            CountResult::TargetMissing => Settled::Refused(Refusal::TargetMissing),
            CountResult::Overflow => Settled::Refused(Refusal::CountOverflow),
            CountResult::IdempotencyConflict => Settled::Refused(Refusal::IdempotencyConflict),
        }
    }

    fn reply(written: Written<Self>, durability: DurabilityLevel) -> CountReply {
        let Written { done, ruling, receipt, at_ms, .. } = written;
        CountReply {
            count: done.count,
            counted: done.counted,
            durability: durability.as_str(),
            receipt,
            // The store says no rate where there is no actor.
            rate: done.rate.zip(ruling.limit),
            replayed: done.replayed,
            at_ms,
        }
    }

    fn fold(table: &KindTable) -> Option<Box<dyn Fold>> {
        let KindTable::Counter(table) = table else { return None };
        Some(Box::new(fold::CountFold::new(table.events.is_some())))
    }
}

impl Kind<Counter> {
    /// The counts of many targets, in order; `None` for one that does not exist.
    ///
    /// # Errors
    /// Fails as a whole when the store, or SQL for a counter that is not loaded, does not answer.
    pub async fn read(&self, targets: &[Id]) -> Result<Vec<Option<u64>>, Refusal> {
        let deadline = self.context().deadline();
        let asked: Vec<(Id, Option<Id>)> = targets.iter().map(|target| (target.clone(), None)).collect();
        loop {
            let results = self.context().read(&asked).await?;
            let mut misses = Vec::new();
            let mut counts = Vec::with_capacity(results.len());
            for (result, target) in results.into_iter().zip(targets) {
                match result {
                    ReadResult::Known(state) => counts.push(Some(state.count)),
                    ReadResult::TargetMissing => counts.push(None),
                    ReadResult::TargetNotLoaded | ReadResult::PairNotLoaded => misses.push(target.clone()),
                }
            }
            if misses.is_empty() {
                return Ok(counts);
            }
            self.hydrate(misses, deadline).await?;
        }
    }
}
