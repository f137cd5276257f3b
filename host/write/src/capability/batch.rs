//! What is concurrent, in one batch: one policy call decides, one store step evaluates, changes and journals.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use metrics::{Counter, Histogram, counter, histogram};

use super::steps::{Ruled, decided_apart, in_steps, kept};
use super::{Capability, KindContext, Outcomes, StepBatch};
use weir_core::error::Refusal;
use weir_core::model::{Digest, Incarnation, Partition};
use weir_core::telemetry;
use weir_policy::{Decided, Decider};

/// A request, and what the rules said of it before what the store did not know was loaded.
pub struct Submitted<C: Capability> {
    pub(super) request: C::Prepared,
    pub(super) ruled: Option<Ruled<C::Ruling>>,
}

/// What became of one request in its batch.
pub struct Evaluated<C: Capability> {
    pub(super) outcome: C::Outcome,
    pub(super) ruled: Ruled<C::Ruling>,
    /// The life of the journal of its partition.
    pub(super) incarnation: Incarnation,
    /// Time of the batch, in Unix milliseconds.
    pub(super) at_ms: u64,
}

/// What the store answered one operation.
struct Answer<O> {
    outcome: O,
    incarnation: Incarnation,
}

/// What of an operation is needed when the store has answered.
struct Place {
    partition: Partition,
    amount: u64,
}

/// Runs batches of one kind.
pub(super) struct Batches<C: Capability> {
    capability: Arc<C>,
    context: Arc<KindContext>,
    store_seconds: Histogram,
    outcomes: Vec<(&'static str, Counter)>,
}

impl<C: Capability> Batches<C> {
    pub(super) fn new(capability: Arc<C>, context: Arc<KindContext>) -> Self {
        let Outcomes { metric, labels } = C::OUTCOMES;
        let of =
            |label: &&'static str| (*label, counter!(metric, "kind" => context.kind().to_owned(), "outcome" => *label));
        Self {
            store_seconds: histogram!(telemetry::STORE_CALL_SECONDS, "operation" => C::OPERATION),
            outcomes: labels.iter().map(of).collect(),
            capability,
            context,
        }
    }

    /// Index-aligned with `batch`.
    pub(super) async fn run(self: Arc<Self>, batch: Vec<Submitted<C>>) -> Vec<Result<Evaluated<C>, C::Refusal>> {
        decided_apart(batch, |submitted| submitted.ruled.is_some(), |batch| self.run_alike(batch)).await
    }

    async fn run_alike(&self, batch: Vec<Submitted<C>>) -> Vec<Result<Evaluated<C>, C::Refusal>> {
        let length = batch.len();
        match self.evaluate(batch).await {
            Ok(evaluated) => evaluated,
            Err(refusal) => (0..length).map(|_| Err(refusal.clone().into())).collect(),
        }
    }

    async fn evaluate(&self, mut batch: Vec<Submitted<C>>) -> Result<Vec<Result<Evaluated<C>, C::Refusal>>, Refusal> {
        let (capability, context) = (&*self.capability, &*self.context);
        let at_ms = context.parts.clock.now_ms();
        let before = kept(batch.iter_mut().map(|submitted| submitted.ruled.take()));
        let subject = |submitted: Submitted<C>| capability.subject(context, submitted.request);
        let (subjects, keys): (Vec<C::Subject>, Vec<_>) = batch.into_iter().map(subject).unzip();
        let Decided { rules, decider } = match before {
            Some(decided) => decided,
            None => capability.decide(context, at_ms, &subjects).await?,
        };
        let digest_of = |index: usize| match &decider {
            Decider::One(digest) => *digest,
            Decider::Each(digests) => digests.get(index).copied().unwrap_or_default(),
        };
        let (mut ops, mut rulings) = (Vec::with_capacity(subjects.len()), Vec::with_capacity(subjects.len()));
        // What the rules refuse comes to no step; its place is kept.
        let mut refused: Vec<(usize, C::Refusal)> = Vec::new();
        for (index, ((subject, key), mut ruling)) in subjects.into_iter().zip(keys).zip(rules).enumerate() {
            match capability.op(subject, &mut ruling, key) {
                Ok(op) => {
                    ops.push(op);
                    rulings.push(Ruled { ruling, digest: digest_of(index) });
                }
                Err(refusal) => refused.push((index, refusal)),
            }
        }
        let decider = match decider {
            Decider::One(digest) => Decider::One(digest),
            Decider::Each(_) => Decider::Each(rulings.iter().map(|ruled| ruled.digest).collect()),
        };
        let step_of = |op: &C::Op| context.parts.store.step_of(C::partition(context, op));
        let answers = in_steps(decider, ops, step_of, |digest, ops| self.commit(digest, at_ms, ops)).await;
        let mut results: Vec<Result<Evaluated<C>, C::Refusal>> = Vec::with_capacity(answers.len());
        for (answer, ruled) in answers.into_iter().zip(rulings) {
            let evaluated =
                answer.map(|Answer { outcome, incarnation }| Evaluated { outcome, ruled, incarnation, at_ms });
            results.push(evaluated.map_err(C::Refusal::from));
        }
        for (index, refusal) in refused {
            results.insert(index.min(results.len()), Err(refusal));
        }
        Ok(results)
    }

    /// Store steps, each of a bounded size. Index-aligned with `ops`.
    async fn commit(&self, digest: Digest, at_ms: u64, ops: Vec<C::Op>) -> Result<Vec<Answer<C::Outcome>>, Refusal> {
        // The rules may have refused them all.
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        if C::STEP_BYTES_MAX == usize::MAX {
            return self.step(digest, at_ms, ops).await;
        }
        let mut answers = Vec::with_capacity(ops.len());
        let (mut waiting, mut bytes) = (Vec::new(), 0);
        for op in ops {
            let of_op = C::bytes(&op);
            if bytes > 0 && bytes + of_op > C::STEP_BYTES_MAX {
                answers.extend(self.step(digest, at_ms, std::mem::take(&mut waiting)).await?);
                bytes = 0;
            }
            bytes += of_op;
            waiting.push(op);
        }
        answers.extend(self.step(digest, at_ms, waiting).await?);
        Ok(answers)
    }

    /// One store step. Index-aligned with `ops`.
    async fn step(&self, digest: Digest, at_ms: u64, ops: Vec<C::Op>) -> Result<Vec<Answer<C::Outcome>>, Refusal> {
        let (context, parts) = (&*self.context, &self.context.parts);
        let place = |op: &C::Op| Place { partition: C::partition(context, op), amount: C::amount(op) };
        let places: Vec<Place> = ops.iter().map(place).collect();
        let batch = StepBatch { digest, at_ms, now_ms: parts.clock.steady_ms(), ops };
        let started = Instant::now();
        let commit = self.capability.step(context, batch).await;
        self.store_seconds.record(started.elapsed().as_secs_f64());
        let commit = commit.map_err(|error| context.step_refusal(C::OPERATION, &error))?;
        context.store_served();
        parts.watch.observe(&commit.heads);
        if commit.results.iter().any(C::is_new) {
            parts.watch.wake();
        }
        let lives: BTreeMap<Partition, Incarnation> =
            commit.heads.iter().map(|head| (head.partition, head.incarnation)).collect();
        let answer = |(outcome, place): (C::Outcome, Place)| {
            self.count(C::outcome(&outcome), place.amount);
            let incarnation = lives.get(&place.partition).copied().unwrap_or(Incarnation(uuid::Uuid::nil()));
            Answer { outcome, incarnation }
        };
        Ok(commit.results.into_iter().zip(places).map(answer).collect())
    }

    fn count(&self, label: &'static str, amount: u64) {
        let counter = self.outcomes.iter().find(|(known, _)| *known == label);
        debug_assert!(counter.is_some(), "{label} is no outcome of {}", C::NAME);
        if let Some((_, counter)) = counter {
            counter.increment(amount);
        }
    }
}
