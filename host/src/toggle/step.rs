//! One batch of toggles: one policy call decides, one store step evaluates, changes and journals.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use metrics::{Counter, Histogram, counter, histogram};

use super::{Shared, ToggleRequest};
use crate::capability::{Ruled, decided_apart, idempotency, in_steps, kept};
use crate::error::Refusal;
use crate::model::{Digest, Incarnation, Intent, Partition, RateLimit, ToggleRule, Verb};
use crate::policy::Decided;
use crate::store::{Idempotency, ToggleBatch, ToggleOp, ToggleOutcome, ToggleResult};
use crate::telemetry;

/// A request, and what the rules said of it before its target was loaded.
pub(super) struct Asked {
    pub(super) request: ToggleRequest,
    pub(super) ruled: Option<Ruled<ToggleRule>>,
}

/// What became of one request in its batch.
#[derive(Debug, Clone)]
pub(super) struct Evaluated {
    pub(super) result: ToggleResult,
    /// What was decided.
    pub(super) ruled: Ruled<ToggleRule>,
    /// The life of the journal of the target's partition.
    pub(super) incarnation: Incarnation,
    /// Time of the batch, in Unix milliseconds.
    pub(super) at_ms: u64,
}

impl Evaluated {
    /// The limit of the rule that was decided.
    pub(super) fn limit(&self) -> Option<RateLimit> {
        self.ruled.rule.limit
    }
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
        let outcomes = Arc::new(Outcomes::new(shared.ground.kind()));
        Self { shared, store_seconds: histogram!(telemetry::STORE_CALL_SECONDS, "operation" => "toggle"), outcomes }
    }

    pub(super) async fn run(self, batch: Vec<Asked>) -> Vec<Result<Evaluated, Refusal>> {
        decided_apart(batch, |asked| asked.ruled.is_some(), |batch| self.run_alike(batch)).await
    }

    async fn run_alike(&self, batch: Vec<Asked>) -> Vec<Result<Evaluated, Refusal>> {
        let length = batch.len();
        match self.evaluate(batch).await {
            Ok(evaluated) => evaluated,
            Err(refusal) => vec![Err(refusal); length],
        }
    }

    async fn evaluate(&self, batch: Vec<Asked>) -> Result<Vec<Result<Evaluated, Refusal>>, Refusal> {
        let parts = &self.shared.ground.parts;
        let kind = parts.kind.as_str();
        let at_ms = parts.clock.now_ms();
        let decided = kept(batch.iter().map(|asked| asked.ruled));
        let (intents, keys): (Vec<Intent>, Vec<Option<Idempotency>>) = batch
            .into_iter()
            .map(|Asked { request, .. }| {
                let key = request.idempotency_key.as_deref().map(|key| {
                    let of = (kind, &*request.actor.to_string(), key);
                    idempotency(of, Some(&request.target), &[verb_text(request.verb)])
                });
                (Intent { target: request.target, actor: request.actor, verb: request.verb }, key)
            })
            .unzip();
        let Decided { rules, decider } = match decided {
            Some(decided) => decided,
            // A failed module is logged, counted and reported by the policy room itself.
            None => {
                let decided = parts.policies.decide_toggles(kind, at_ms, &intents).await;
                decided.map_err(|_| Refusal::PolicyFailed)?
            }
        };
        let ops = intents.into_iter().zip(keys).zip(rules);
        let ops: Vec<ToggleOp> = ops
            .map(|((intent, idempotency), rule)| ToggleOp {
                target: intent.target,
                actor: intent.actor,
                rule,
                idempotency,
            })
            .collect();
        Ok(in_steps(
            decider,
            ops,
            |op| self.shared.ground.step_of(&op.target),
            |digest, ops| self.commit(digest, at_ms, ops),
        )
        .await)
    }

    /// One store step. Index-aligned with `ops`.
    async fn commit(&self, digest: Digest, at_ms: u64, ops: Vec<ToggleOp>) -> Result<Vec<Evaluated>, Refusal> {
        let (ground, parts) = (&self.shared.ground, &self.shared.ground.parts);
        let rules: Vec<ToggleRule> = ops.iter().map(|op| op.rule).collect();
        let partitions: Vec<Partition> = ops.iter().map(|op| ground.partition(&op.target)).collect();
        let started = Instant::now();
        let commit =
            parts.store.toggle(&parts.kind, ToggleBatch { digest, at_ms, now_ms: parts.clock.steady_ms(), ops }).await;
        self.store_seconds.record(started.elapsed().as_secs_f64());
        let commit = commit.map_err(|error| ground.step_refusal("toggle", &error))?;
        ground.store_served();
        parts.watch.observe(&commit.heads);
        let changed = |result: &ToggleResult| matches!(result, ToggleResult::Done(ToggleOutcome { changed: true, .. }));
        if commit.results.iter().any(changed) {
            parts.watch.wake();
        }
        self.outcomes.count(&commit.results);
        let lives: BTreeMap<Partition, Incarnation> =
            commit.heads.iter().map(|head| (head.partition, head.incarnation)).collect();
        let evaluated = commit.results.into_iter().zip(rules).zip(partitions);
        Ok(evaluated
            .map(|((result, rule), partition)| {
                let incarnation = lives.get(&partition).copied().unwrap_or(Incarnation(uuid::Uuid::nil()));
                Evaluated { result, ruled: Ruled { rule, digest }, incarnation, at_ms }
            })
            .collect())
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
                ToggleResult::TargetNotLoaded | ToggleResult::PairNotLoaded => &self.cold,
                ToggleResult::IdempotencyConflict => &self.conflict,
            };
            counter.increment(1);
        }
    }
}
