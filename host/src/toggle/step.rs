//! One batch of toggles: one policy call decides, one store step evaluates, changes and journals.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use metrics::{Counter, Histogram, counter, histogram};
use sha2::{Digest as _, Sha256};

use super::{Shared, ToggleRequest};
use crate::error::Refusal;
use crate::model::{Digest, Incarnation, Intent, Partition, RateLimit, Verb, partition_of};
use crate::policy::{DecidedToggles, Decider};
use crate::store::{Idempotency, StoreError, ToggleBatch, ToggleOp, ToggleOutcome, ToggleResult};
use crate::telemetry;

/// What became of one request in its batch.
#[derive(Debug, Clone)]
pub(super) struct Evaluated {
    pub(super) result: ToggleResult,
    /// The limit of the rule that was decided.
    pub(super) limit: Option<RateLimit>,
    /// The life of the journal of the target's partition.
    pub(super) incarnation: Incarnation,
    /// Time of the batch, in Unix milliseconds.
    pub(super) at_ms: u64,
}

/// Runs batches of one kind.
#[derive(Clone)]
pub(super) struct Step {
    shared: Arc<Shared>,
    store_seconds: Histogram,
    outcomes: Arc<Outcomes>,
}

impl Step {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let outcomes = Arc::new(Outcomes::new(&shared.parts.config.kind));
        Self { shared, store_seconds: histogram!(telemetry::STORE_CALL_SECONDS, "operation" => "toggle"), outcomes }
    }

    pub(super) async fn run(self, batch: Vec<ToggleRequest>) -> Vec<Result<Evaluated, Refusal>> {
        let length = batch.len();
        match self.evaluate(batch).await {
            Ok(evaluated) => evaluated,
            Err(refusal) => vec![Err(refusal); length],
        }
    }

    async fn evaluate(&self, batch: Vec<ToggleRequest>) -> Result<Vec<Result<Evaluated, Refusal>>, Refusal> {
        let parts = &self.shared.parts;
        let kind = parts.config.kind.as_str();
        let now_ms = parts.clock.now_ms();
        let (intents, keys): (Vec<Intent>, Vec<Option<Idempotency>>) = batch
            .into_iter()
            .map(|request| {
                let key = request.idempotency_key.as_deref().map(|key| idempotency(kind, &request, key));
                (Intent { target: request.target, actor: request.actor, verb: request.verb }, key)
            })
            .unzip();
        // A failed module is logged, counted and reported by the policy room itself.
        let decided = parts.policies.decide_toggles(kind, now_ms, &intents).await;
        let DecidedToggles { rules, decider } = decided.map_err(|_| Refusal::PolicyFailed)?;
        let ops = intents.into_iter().zip(keys).zip(rules);
        let ops: Vec<ToggleOp> = ops
            .map(|((intent, idempotency), rule)| ToggleOp {
                target: intent.target,
                actor: intent.actor,
                rule,
                idempotency,
            })
            .collect();
        match decider {
            Decider::One(digest) => {
                let evaluated = self.commit(digest, now_ms, ops).await?;
                Ok(evaluated.into_iter().map(Ok).collect())
            }
            Decider::Each(digests) => Ok(self.commit_each(&digests, now_ms, ops).await),
        }
    }

    /// Each journal entry names one module, so each module's operations are a step of their own. The order of operations
    /// on one target stays: one module decides them all.
    async fn commit_each(
        &self,
        digests: &[Digest],
        now_ms: u64,
        ops: Vec<ToggleOp>,
    ) -> Vec<Result<Evaluated, Refusal>> {
        let mut by_module: BTreeMap<Digest, (Vec<usize>, Vec<ToggleOp>)> = BTreeMap::new();
        let mut results: Vec<Option<Result<Evaluated, Refusal>>> = vec![None; ops.len()];
        for (index, (digest, op)) in digests.iter().zip(ops).enumerate() {
            let (indexes, of_module) = by_module.entry(*digest).or_default();
            indexes.push(index);
            of_module.push(op);
        }
        for (digest, (indexes, ops)) in by_module {
            let evaluated = match self.commit(digest, now_ms, ops).await {
                Ok(evaluated) => evaluated.into_iter().map(Ok).collect(),
                Err(refusal) => vec![Err(refusal); indexes.len()],
            };
            for (index, result) in indexes.into_iter().zip(evaluated) {
                results[index] = Some(result);
            }
        }
        results.into_iter().map(|result| result.unwrap_or(Err(Refusal::StoreUnavailable))).collect()
    }

    /// One store step. Index-aligned with `ops`.
    async fn commit(&self, digest: Digest, now_ms: u64, ops: Vec<ToggleOp>) -> Result<Vec<Evaluated>, Refusal> {
        let parts = &self.shared.parts;
        let limits: Vec<Option<RateLimit>> = ops.iter().map(|op| op.rule.limit).collect();
        let partitions: Vec<Partition> =
            ops.iter().map(|op| partition_of(&op.target, parts.store.partitions())).collect();
        let started = Instant::now();
        let commit = parts.store.toggle(&parts.config.kind, ToggleBatch { digest, now_ms, ops }).await;
        self.store_seconds.record(started.elapsed().as_secs_f64());
        let commit = commit.map_err(|error| {
            counter!(telemetry::STORE_FAILURES_TOTAL, "operation" => "toggle", "cause" => error.cause()).increment(1);
            let refusal = self.shared.store_refusal(&error);
            if matches!(error, StoreError::OutcomeUnknown(_)) { Refusal::OutcomeUnknown } else { refusal }
        })?;
        self.shared.store_served();
        parts.watch.observe(&commit.heads);
        let changed = |result: &ToggleResult| matches!(result, ToggleResult::Done(ToggleOutcome { changed: true, .. }));
        if commit.results.iter().any(changed) {
            parts.watch.wake();
        }
        self.outcomes.count(&commit.results);
        let lives: BTreeMap<Partition, Incarnation> =
            commit.heads.iter().map(|head| (head.partition, head.incarnation)).collect();
        let evaluated = commit.results.into_iter().zip(limits).zip(partitions);
        Ok(evaluated
            .map(|((result, limit), partition)| {
                let incarnation = lives.get(&partition).copied().unwrap_or(Incarnation(uuid::Uuid::nil()));
                Evaluated { result, limit, incarnation, at_ms: now_ms }
            })
            .collect())
    }
}

/// The key is the actor's own: two actors may use the same `Idempotency-Key`.
fn idempotency(kind: &str, request: &ToggleRequest, key: &str) -> Idempotency {
    let verb = match request.verb {
        Verb::Toggle => "toggle",
        Verb::Set => "set",
        Verb::Clear => "clear",
    };
    Idempotency {
        key: hash(&[kind, &request.actor.to_string(), key]),
        fingerprint: hash(&[verb, &request.target.to_string()]),
    }
}

/// First half of SHA-256 over the length-prefixed parts.
fn hash(parts: &[&str]) -> [u8; 16] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut half = [0; 16];
    half.copy_from_slice(&hasher.finalize()[..16]);
    half
}

/// Counters of outcomes, looked up once.
struct Outcomes {
    changed: Counter,
    unchanged: Counter,
    replayed: Counter,
    denied: Counter,
    limited: Counter,
    missing: Counter,
    cold: Counter,
    conflict: Counter,
}

impl Outcomes {
    fn new(kind: &str) -> Self {
        let of =
            |outcome: &'static str| counter!(telemetry::TOGGLES_TOTAL, "kind" => kind.to_owned(), "outcome" => outcome);
        Self {
            changed: of("changed"),
            unchanged: of("unchanged"),
            replayed: of("replayed"),
            denied: of("denied"),
            limited: of("limited"),
            missing: of("missing"),
            cold: of("cold"),
            conflict: of("conflict"),
        }
    }

    fn count(&self, results: &[ToggleResult]) {
        for result in results {
            let counter = match result {
                ToggleResult::Done(ToggleOutcome { replayed: true, .. }) => &self.replayed,
                ToggleResult::Done(ToggleOutcome { changed: true, .. }) => &self.changed,
                ToggleResult::Done(_) => &self.unchanged,
                ToggleResult::Denied(_) => &self.denied,
                ToggleResult::Limited { .. } => &self.limited,
                ToggleResult::TargetMissing => &self.missing,
                ToggleResult::ColdTarget | ToggleResult::ColdPair => &self.cold,
                ToggleResult::IdempotencyConflict => &self.conflict,
            };
            counter.increment(1);
        }
    }
}
