//! The toggle capability: like / unlike by one actor on one target.
//!
//! Of its own crate it uses `capability` alone. Never imports flush or http. Holds no rule: the policy decides, the store
//! evaluates.
//!
//! - `load`: what the store does not know of targets and pairs.
//! - `members`: who is on a target; for a huge one SQL with the store's newer knowledge laid over it.
//! - `fold`: what a flush makes of its changes.

mod fold;
mod load;
mod members;

use std::sync::Arc;

use crate::capability::{
    Capability, Fold, Kind, KindContext, Outcomes, Receipt, RequestKey, Settled, StepBatch, Written,
};
pub use load::{ToggleLoad, ToggleMiss};
use weir_core::config::{Config, ConfigError, DurabilityLevel, KindTable, ToggleConfig};
use weir_core::error::Refusal;
use weir_core::model::{Id, Intent, Member, PairState, Partition, RateLimit, RateState, ToggleRule, Verb};
use weir_core::telemetry;
use weir_policy::{Decided, KindPolicy};
use weir_store::{Commit, Idempotency, ReadResult, StoreError, ToggleBatch, ToggleOp, ToggleOutcome, ToggleResult};

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
    /// Where the answered state lies in the journal: ask [`KindContext::is_stored`] with it.
    pub receipt: Receipt,
    /// The rate limit afterwards, and the rule's limit as (burst, period in milliseconds).
    pub rate: Option<(RateState, RateLimit)>,
    /// The outcome of an earlier request with the same `Idempotency-Key`, answered again.
    pub replayed: bool,
    /// When it was evaluated, in Unix milliseconds.
    pub at_ms: u64,
}

/// One kind of the capability.
pub type ToggleKind = Kind<Toggle>;

/// What only this capability needs of a kind.
pub struct Toggle {
    config: ToggleConfig,
}

impl Capability for Toggle {
    const NAME: &'static str = "toggle";
    const QUEUE: &'static str = "toggles";
    const OPERATION: &'static str = "toggle";
    const OUTCOMES: Outcomes = Outcomes {
        metric: telemetry::TOGGLES_TOTAL,
        labels: &["changed", "unchanged", "replayed", "denied", "limited", "missing", "cold", "conflict"],
    };
    const FLUSHES_FOR_WAITERS: bool = false;

    type Config = ToggleConfig;
    type Request = ToggleRequest;
    type Prepared = ToggleRequest;
    type Subject = Intent;
    type Ruling = ToggleRule;
    type Op = ToggleOp;
    type Outcome = ToggleResult;
    type Done = ToggleOutcome;
    type Reply = ToggleReply;
    type Refusal = Refusal;
    type Load = ToggleLoad;

    fn configs(config: &Config) -> &[ToggleConfig] {
        &config.toggles
    }

    fn configs_mut(config: &mut Config) -> &mut [ToggleConfig] {
        &mut config.toggles
    }

    fn kind(config: &ToggleConfig) -> &str {
        &config.kind
    }

    fn kind_mut(config: &mut ToggleConfig) -> &mut String {
        &mut config.kind
    }

    fn rules(config: &ToggleConfig) -> KindPolicy {
        let (kind, settings) = (config.kind.clone(), config.settings.clone());
        KindPolicy { kind, settings, on_failure: config.on_policy_failure }
    }

    fn start(config: ToggleConfig, _context: &Arc<KindContext>) -> Result<Self, ConfigError> {
        Ok(Self { config })
    }

    fn config(&self) -> &ToggleConfig {
        &self.config
    }

    fn durability(&self) -> DurabilityLevel {
        self.config.durability
    }

    fn load(&self, context: &Arc<KindContext>) -> Arc<ToggleLoad> {
        Arc::new(ToggleLoad { context: Arc::clone(context), table: self.config.table.clone() })
    }

    async fn check(&self, context: &KindContext, request: &ToggleRequest) -> Result<(), Refusal> {
        let makes_row = request.verb != Verb::Clear;
        context.parts.fit.check(&request.target, Some(&request.actor), None, makes_row).await
    }

    fn prepare(&self, _context: &KindContext, request: ToggleRequest) -> Result<ToggleRequest, Refusal> {
        Ok(request)
    }

    fn subject(&self, context: &KindContext, request: ToggleRequest) -> (Intent, Option<Idempotency>) {
        let ToggleRequest { verb, target, actor, idempotency_key } = request;
        let idempotency = idempotency_key.map(|key| {
            let (kind, actor) = (context.kind(), &*actor.to_string());
            RequestKey { kind, actor, key: &key, target: Some(&target) }.of(&[verb_text(verb)])
        });
        (Intent { target, actor, verb }, idempotency)
    }

    async fn decide(
        &self,
        context: &KindContext,
        at_ms: u64,
        intents: &[Intent],
    ) -> Result<Decided<ToggleRule>, Refusal> {
        // A failed module is logged, counted and reported by the policy itself.
        let decided = context.parts.policies.decide_toggles(context.kind(), at_ms, intents).await;
        decided.map_err(|_| Refusal::PolicyFailed)
    }

    fn op(&self, intent: Intent, rule: &mut ToggleRule, idempotency: Option<Idempotency>) -> Result<ToggleOp, Refusal> {
        Ok(ToggleOp { target: intent.target, actor: intent.actor, rule: *rule, idempotency })
    }

    fn partition(context: &KindContext, op: &ToggleOp) -> Partition {
        context.partition(&op.target)
    }

    async fn step(
        &self,
        context: &KindContext,
        batch: StepBatch<ToggleOp>,
    ) -> Result<Commit<ToggleResult>, StoreError> {
        let StepBatch { digest, at_ms, now_ms, ops } = batch;
        context.parts.store.toggle(context.kind(), ToggleBatch { digest, at_ms, now_ms, ops }).await
    }

    fn is_new(outcome: &ToggleResult) -> bool {
        matches!(outcome, ToggleResult::Done(ToggleOutcome { changed: true, .. }))
    }

    fn outcome(outcome: &ToggleResult) -> &'static str {
        match outcome {
            ToggleResult::Done(ToggleOutcome { replayed: true, .. }) => "replayed",
            ToggleResult::Done(ToggleOutcome { changed: true, .. }) => "changed",
            ToggleResult::Done(_) => "unchanged",
            ToggleResult::Denied(_) => "denied",
            ToggleResult::Limited { .. } => "limited",
            ToggleResult::TargetMissing => "missing",
            ToggleResult::TargetNotLoaded | ToggleResult::PairNotLoaded => "cold",
            ToggleResult::IdempotencyConflict => "conflict",
        }
    }

    fn settle(
        &self,
        context: &KindContext,
        request: &ToggleRequest,
        rule: &mut ToggleRule,
        outcome: ToggleResult,
    ) -> Settled<Self> {
        let target = || request.target.clone();
        match outcome {
            ToggleResult::Done(done) => {
                let (partition, position) = (context.partition(&request.target), done.position);
                Settled::Done { done, partition, position }
            }
            ToggleResult::TargetNotLoaded => Settled::NotLoaded(vec![ToggleMiss::Target(target())]),
            ToggleResult::PairNotLoaded => Settled::NotLoaded(vec![ToggleMiss::Pair(target(), request.actor.clone())]),
            ToggleResult::Denied(_) => Settled::Refused(Refusal::Denied),
            ToggleResult::Limited { retry_after_ms, rate } => {
                Settled::Refused(Refusal::RateLimited { retry_after_ms, rate, limit: rule.limit })
            }
            ToggleResult::TargetMissing => Settled::Refused(Refusal::TargetMissing),
            ToggleResult::IdempotencyConflict => Settled::Refused(Refusal::IdempotencyConflict),
        }
    }

    fn reply(written: Written<Self>, durability: DurabilityLevel) -> ToggleReply {
        let Written { done, ruling, receipt, at_ms, .. } = written;
        ToggleReply {
            state: done.state,
            changed: done.changed,
            durability: durability.as_str(),
            receipt,
            rate: done.rate.zip(ruling.limit),
            replayed: done.replayed,
            at_ms,
        }
    }

    fn fold(table: &KindTable) -> Option<Box<dyn Fold>> {
        matches!(table, KindTable::Toggle(_)).then(|| Box::<fold::ToggleFold>::default() as Box<dyn Fold>)
    }
}

impl Kind<Toggle> {
    /// State and count of many targets, in order; `None` for one that does not exist. `active` is false without actor.
    ///
    /// # Errors
    /// Fails as a whole when the store, or SQL for what is not loaded, does not answer.
    pub async fn read(&self, targets: &[Id], actor: Option<&Id>) -> Result<Vec<Option<PairState>>, Refusal> {
        let deadline = self.context().deadline();
        let pairs: Vec<(Id, Option<Id>)> = targets.iter().map(|target| (target.clone(), actor.cloned())).collect();
        loop {
            let results = self.context().read(&pairs).await?;
            let misses: Vec<ToggleMiss> = results
                .iter()
                .zip(&pairs)
                .filter_map(|(result, (target, actor))| match (result, actor) {
                    (ReadResult::PairNotLoaded, Some(actor)) => Some(ToggleMiss::Pair(target.clone(), actor.clone())),
                    (ReadResult::TargetNotLoaded | ReadResult::PairNotLoaded, _) => {
                        Some(ToggleMiss::Target(target.clone()))
                    }
                    _ => None,
                })
                .collect();
            if misses.is_empty() {
                let state = |result| if let ReadResult::Known(state) = result { Some(state) } else { None };
                return Ok(results.into_iter().map(state).collect());
            }
            self.hydrate(misses, deadline).await?;
        }
    }

    /// Members newest first, strictly older than `before`.
    ///
    /// # Errors
    /// [`Refusal::TargetMissing`] when the target does not exist; else as [`ToggleKind::read`].
    pub async fn members(&self, target: &Id, before: Option<&Member>, limit: usize) -> Result<Vec<Member>, Refusal> {
        let deadline = self.context().deadline();
        loop {
            if let Some(page) = members::page(self, target, before, limit).await? {
                return Ok(page);
            }
            self.hydrate(vec![ToggleMiss::Target(target.clone())], deadline).await?;
        }
    }
}

/// Set, clear and toggle are different requests.
fn verb_text(verb: Verb) -> &'static str {
    match verb {
        Verb::Toggle => "toggle",
        Verb::Set => "set",
        Verb::Clear => "clear",
    }
}
