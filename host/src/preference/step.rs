//! One batch of changes: one store step applies and journals them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use metrics::{Counter, Histogram, counter, histogram};

use super::PutRequest;
use crate::capability::{Ground, idempotency, in_steps};
use crate::error::Refusal;
use crate::model::{Digest, Incarnation, Partition, Settings};
use crate::policy::Decider;
use crate::store::{SettingsBatch, SettingsOp, SettingsOutcome, SettingsResult};
use crate::telemetry;

/// What became of one change in its batch.
#[derive(Debug, Clone)]
pub(super) struct Evaluated {
    pub(super) result: SettingsResult,
    /// The life of the journal of the member's partition.
    pub(super) incarnation: Incarnation,
    /// Time of the batch, in Unix milliseconds.
    pub(super) at_ms: u64,
}

/// Runs batches of one kind.
#[derive(Clone)]
pub(super) struct Step {
    ground: Arc<Ground>,
    store_seconds: Histogram,
    outcomes: Arc<Outcomes>,
}

impl Step {
    pub(super) fn new(ground: Arc<Ground>) -> Self {
        Self {
            store_seconds: histogram!(telemetry::STORE_CALL_SECONDS, "operation" => "put_settings"),
            outcomes: Arc::new(Outcomes::new(ground.kind())),
            ground,
        }
    }

    pub(super) async fn run(self, batch: Vec<PutRequest>) -> Vec<Result<Evaluated, Refusal>> {
        let parts = &self.ground.parts;
        let (kind, at_ms) = (parts.kind.as_str(), parts.clock.now_ms());
        let op = |request: PutRequest| {
            let PutRequest { member, actor, settings, idempotency_key } = request;
            let idempotency = idempotency_key
                .map(|key| idempotency((kind, &actor.to_string(), &key), Some(&member), &["set", &asked(&settings)]));
            SettingsOp { member, settings, idempotency }
        };
        let ops = batch.into_iter().map(op).collect();
        // No rule decides a change: the module that the kind has is named.
        let decider = Decider::One(parts.policies.delivery_digest());
        in_steps(decider, ops, |op| self.ground.step_of(&op.member), |digest, ops| self.commit(digest, at_ms, ops))
            .await
    }

    /// One store step. Index-aligned with `ops`.
    async fn commit(&self, digest: Digest, at_ms: u64, ops: Vec<SettingsOp>) -> Result<Vec<Evaluated>, Refusal> {
        let (ground, parts) = (&self.ground, &self.ground.parts);
        let partitions: Vec<Partition> = ops.iter().map(|op| ground.partition(&op.member)).collect();
        let started = Instant::now();
        let batch = SettingsBatch { digest, at_ms, now_ms: parts.clock.steady_ms(), ops };
        let commit = parts.store.put_settings(&parts.kind, batch).await;
        self.store_seconds.record(started.elapsed().as_secs_f64());
        let commit = commit.map_err(|error| ground.step_refusal("put_settings", &error))?;
        ground.store_served();
        parts.watch.observe(&commit.heads);
        let is_new = |result: &SettingsResult| matches!(result, SettingsResult::Done(outcome) if !outcome.replayed);
        if commit.results.iter().any(is_new) {
            parts.watch.wake();
        }
        self.outcomes.count(&commit.results);
        let lives: BTreeMap<Partition, Incarnation> =
            commit.heads.iter().map(|head| (head.partition, head.incarnation)).collect();
        let evaluated = commit.results.into_iter().zip(partitions);
        Ok(evaluated
            .map(|(result, partition)| {
                let incarnation = lives.get(&partition).copied().unwrap_or(Incarnation(uuid::Uuid::nil()));
                Evaluated { result, incarnation, at_ms }
            })
            .collect())
    }
}

/// What makes a request the same request: fields and values, whatever their order.
fn asked(settings: &Settings) -> String {
    serde_json::Value::Object(settings.to_json()).to_string()
}

/// Counters of outcomes, looked up once.
struct Outcomes {
    set: Counter,
    replayed: Counter,
    missing: Counter,
    cold: Counter,
    conflict: Counter,
}

impl Outcomes {
    fn new(kind: &str) -> Self {
        let of = |outcome: &'static str| counter!(telemetry::SETTINGS_TOTAL, "kind" => kind.to_owned(), "outcome" => outcome);
        Self {
            set: of("set"),
            replayed: of("replayed"),
            missing: of("missing"),
            cold: of("cold"),
            conflict: of("conflict"),
        }
    }

    fn count(&self, results: &[SettingsResult]) {
        for result in results {
            let counter = match result {
                SettingsResult::Done(SettingsOutcome { replayed: true, .. }) => &self.replayed,
                SettingsResult::Done(_) => &self.set,
                SettingsResult::TargetMissing => &self.missing,
                SettingsResult::TargetNotLoaded => &self.cold,
                SettingsResult::IdempotencyConflict => &self.conflict,
            };
            counter.increment(1);
        }
    }
}
