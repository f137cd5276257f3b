//! One batch of hits: one policy call decides, one store step evaluates, counts and journals.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use metrics::{Counter, Histogram, counter, histogram};

use super::CountRequest;
use crate::capability::{Ground, Ruled, decided_apart, idempotency, in_steps, kept};
use crate::config::CounterConfig;
use crate::error::Refusal;
use crate::model::{CountRule, Digest, Hit, Incarnation, Partition, RateLimit};
use crate::policy::Decided;
use crate::store::{CountBatch, CountOp, CountOutcome, CountResult};
use crate::telemetry;

/// A request, and what the rules said of it before its target was loaded.
pub(super) struct Asked {
    pub(super) request: CountRequest,
    pub(super) ruled: Option<Ruled<CountRule>>,
}

/// What became of one request in its batch.
#[derive(Debug, Clone)]
pub(super) struct Evaluated {
    pub(super) result: CountResult,
    /// What was decided.
    pub(super) ruled: Ruled<CountRule>,
    /// Its limit, where there is an actor who can have one.
    pub(super) limit: Option<RateLimit>,
    /// The life of the journal of the target's partition.
    pub(super) incarnation: Incarnation,
    /// Time of the batch, in Unix milliseconds.
    pub(super) at_ms: u64,
}

/// Runs batches of one kind.
#[derive(Clone)]
pub(super) struct Step {
    ground: Arc<Ground>,
    keep_actors: bool,
    unique_pairs_max: u64,
    store_seconds: Histogram,
    outcomes: Arc<Outcomes>,
}

impl Step {
    pub(super) fn new(ground: Arc<Ground>, config: &CounterConfig) -> Self {
        Self {
            keep_actors: config.table.events.is_some(),
            unique_pairs_max: config.unique_pairs_max,
            store_seconds: histogram!(telemetry::STORE_CALL_SECONDS, "operation" => "count"),
            outcomes: Arc::new(Outcomes::new(&config.kind)),
            ground,
        }
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
        let parts = &self.ground.parts;
        let (kind, at_ms) = (parts.kind.as_str(), parts.clock.now_ms());
        let Decided { rules, decider } = match kept(batch.iter().map(|asked| asked.ruled)) {
            Some(decided) => decided,
            None => {
                let hit = |Asked { request, .. }: &Asked| Hit {
                    target: request.target.clone(),
                    actor: request.actor.clone(),
                    by: request.by,
                };
                let hits: Vec<Hit> = batch.iter().map(hit).collect();
                // A failed module is logged, counted and reported by the policy room itself.
                let decided = parts.policies.decide_counts(kind, at_ms, &hits).await;
                decided.map_err(|_| Refusal::PolicyFailed)?
            }
        };
        let op = |(asked, rule): (Asked, CountRule)| {
            let CountRequest { target, actor, by, idempotency_key } = asked.request;
            let idempotency = idempotency_key.map(|key| {
                let actor = actor.as_ref().map(ToString::to_string).unwrap_or_default();
                idempotency((kind, &actor, &key), Some(&target), &["count", &by.to_string()])
            });
            CountOp { target, actor, by, rule, idempotency }
        };
        let ops: Vec<CountOp> = batch.into_iter().zip(rules).map(op).collect();
        Ok(in_steps(decider, ops, |op| self.ground.step_of(&op.target), |digest, ops| self.commit(digest, at_ms, ops))
            .await)
    }

    /// One store step. Index-aligned with `ops`.
    async fn commit(&self, digest: Digest, at_ms: u64, ops: Vec<CountOp>) -> Result<Vec<Evaluated>, Refusal> {
        let (ground, parts) = (&self.ground, &self.ground.parts);
        // Nobody has a limit without an actor.
        let limit = |op: &CountOp| op.actor.as_ref().and(op.rule.limit);
        let of: Vec<(CountRule, Option<RateLimit>, Partition)> =
            ops.iter().map(|op| (op.rule, limit(op), ground.partition(&op.target))).collect();
        let (keep_actors, unique_pairs_max) = (self.keep_actors, self.unique_pairs_max);
        let now_ms = parts.clock.steady_ms();
        let batch = CountBatch { digest, at_ms, now_ms, keep_actors, unique_pairs_max, ops };
        let started = Instant::now();
        let commit = parts.store.count(&parts.kind, batch).await;
        self.store_seconds.record(started.elapsed().as_secs_f64());
        let commit = commit.map_err(|error| ground.step_refusal("count", &error))?;
        ground.store_served();
        parts.watch.observe(&commit.heads);
        let counted = |result: &CountResult| matches!(result, CountResult::Done(CountOutcome { counted: true, .. }));
        if commit.results.iter().any(counted) {
            parts.watch.wake();
        }
        self.outcomes.count(&commit.results);
        let lives: BTreeMap<Partition, Incarnation> =
            commit.heads.iter().map(|head| (head.partition, head.incarnation)).collect();
        let evaluated = commit.results.into_iter().zip(of);
        Ok(evaluated
            .map(|(result, (rule, limit, partition))| {
                let incarnation = lives.get(&partition).copied().unwrap_or(Incarnation(uuid::Uuid::nil()));
                Evaluated { result, ruled: Ruled { rule, digest }, limit, incarnation, at_ms }
            })
            .collect())
    }
}

/// Counters of outcomes, looked up once.
struct Outcomes {
    counted: Counter,
    uncounted: Counter,
    replayed: Counter,
    limited: Counter,
    missing: Counter,
    cold: Counter,
    overflow: Counter,
    conflict: Counter,
}

impl Outcomes {
    fn new(kind: &str) -> Self {
        let of =
            |outcome: &'static str| counter!(telemetry::COUNTS_TOTAL, "kind" => kind.to_owned(), "outcome" => outcome);
        Self {
            counted: of("counted"),
            uncounted: of("uncounted"),
            replayed: of("replayed"),
            limited: of("limited"),
            missing: of("missing"),
            cold: of("cold"),
            overflow: of("overflow"),
            conflict: of("conflict"),
        }
    }

    fn count(&self, results: &[CountResult]) {
        for result in results {
            let counter = match result {
                CountResult::Done(CountOutcome { replayed: true, .. }) => &self.replayed,
                CountResult::Done(CountOutcome { counted: true, .. }) => &self.counted,
                CountResult::Done(_) => &self.uncounted,
                CountResult::Limited { .. } => &self.limited,
                CountResult::TargetMissing => &self.missing,
                CountResult::TargetNotLoaded => &self.cold,
                CountResult::Overflow => &self.overflow,
                CountResult::IdempotencyConflict => &self.conflict,
            };
            counter.increment(1);
        }
    }
}
