//! One batch of creates: one policy call validates, one store step accepts and journals.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use metrics::{Counter, Histogram, counter, histogram};
use serde_json::Value;

use super::ids::{self, Seed};
use super::shape::{self, Shape};
use super::{CreateRefusal, CreateRequest, Fields};
use crate::capability::{Ground, Receipt, Ruled, decided_apart, idempotency, in_steps};
use crate::config::IngestConfig;
use crate::error::Refusal;
use crate::model::{Digest, Document, Id, Incarnation, Partition, Violation};
use crate::policy::{Decided, Decider, Verdict};
use crate::store::{CreateBatch, CreateOp, CreateResult, Created, Idempotency};
use crate::telemetry;

/// Bytes of documents in one store step at most, unless one request alone has more: what one call may hold Redis up.
const STEP_BYTES_MAX: usize = 4 << 20;

/// A request whose documents have the right shape.
#[derive(Debug, Clone)]
pub(super) struct Creation {
    documents: Arc<Vec<Fields>>,
    texts: Arc<Vec<Arc<str>>>,
    actor: Id,
    idempotency: Option<Idempotency>,
    seed: Seed,
    judged: Option<Box<Judged>>,
}

/// Where a request's documents go, and what the rules made of them.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    partition: Partition,
    ruled: Ruled<Vec<Document>>,
}

impl Creation {
    pub(super) fn new(
        shape: &Shape,
        config: &IngestConfig,
        ground: &Ground,
        request: CreateRequest,
    ) -> Result<Self, CreateRefusal> {
        let CreateRequest { documents, actor, idempotency_key, .. } = request;
        let values: Vec<Value> = documents.into_iter().map(Value::Object).collect();
        let texts: Vec<String> = values.iter().map(Value::to_string).collect();
        let of = |(index, value): (usize, &Value)| {
            shape.violations(value).into_iter().map(move |violation| (index, violation)).collect::<Vec<_>>()
        };
        let mut violations: Vec<(usize, Violation)> = values.iter().enumerate().flat_map(of).collect();
        if violations.is_empty() {
            violations = unfit(shape, ground, &values);
        }
        let fields = |value| if let Value::Object(fields) = value { fields } else { Fields::new() };
        let documents: Vec<Fields> = values.into_iter().map(fields).collect();
        violations.extend(shape.violations_together(&documents, &texts));
        if !violations.is_empty() {
            violations.sort_by_key(|(index, _)| *index);
            return Err(CreateRefusal::Invalid(violations));
        }
        debug_assert!(documents.len() <= config.documents_max, "the door counts them");
        let idempotency = idempotency_key.map(|key| {
            let asked: Vec<&str> = std::iter::once("create").chain(texts.iter().map(String::as_str)).collect();
            idempotency((ground.kind(), &actor.to_string(), &key), None, &asked)
        });
        Ok(Self {
            documents: Arc::new(documents),
            texts: Arc::new(texts.into_iter().map(Arc::from).collect()),
            actor,
            seed: idempotency.as_ref().map_or_else(ids::random_seed, |idempotency| idempotency.key),
            idempotency,
            judged: None,
        })
    }

    /// Keeps what the rules said: they are not asked again.
    pub(super) fn keep(&mut self, judged: Box<Judged>) {
        self.judged = Some(judged);
    }
}

/// What of documents of the right shape does not fit into their columns.
fn unfit(shape: &Shape, ground: &Ground, documents: &[Value]) -> Vec<(usize, Violation)> {
    let fit = &ground.parts.fit;
    let mut found = Vec::new();
    for (index, document) in documents.iter().enumerate() {
        found.extend(fit.violations(document, shape::VIOLATIONS_MAX).into_iter().map(|violation| (index, violation)));
        let id = document.as_object().and_then(|fields| shape.id_of(fields));
        let unfit = id.and_then(|id| fit.check_document_id(&id).err());
        found.extend(unfit.and_then(|unfit| Some((index, shape.unfit_id(&unfit)?))));
    }
    found
}

/// What became of one request in its batch.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Done {
        ids: Vec<Id>,
        created: Created,
        receipt: Receipt,
    },
    /// Whether these are in SQL must be asked first.
    Cold(Vec<Id>, Box<Judged>),
}

/// What the store answered one request.
#[derive(Clone)]
struct Evaluated {
    result: CreateResult,
    incarnation: Incarnation,
}

/// What of a request is needed when the store has answered.
struct Waiting {
    partition: Partition,
    ids: Vec<Id>,
    /// Where the store may not know the ids.
    kept: Option<Judged>,
}

/// Runs batches of one kind.
#[derive(Clone)]
pub(super) struct Step {
    ground: Arc<Ground>,
    shape: Arc<Shape>,
    config: Arc<IngestConfig>,
    store_seconds: Histogram,
    outcomes: Arc<Outcomes>,
}

impl Step {
    pub(super) fn new(ground: Arc<Ground>, shape: Arc<Shape>, config: &IngestConfig) -> Self {
        Self {
            store_seconds: histogram!(telemetry::STORE_CALL_SECONDS, "operation" => "create"),
            outcomes: Arc::new(Outcomes::new(&config.kind)),
            config: Arc::new(config.clone()),
            ground,
            shape,
        }
    }

    pub(super) async fn run(self, batch: Vec<Creation>) -> Vec<Result<Outcome, CreateRefusal>> {
        decided_apart(batch, |creation| creation.judged.is_some(), |batch| self.run_alike(batch)).await
    }

    async fn run_alike(&self, batch: Vec<Creation>) -> Vec<Result<Outcome, CreateRefusal>> {
        let length = batch.len();
        match self.evaluate(batch).await {
            Ok(evaluated) => evaluated,
            Err(refusal) => vec![Err(refusal.into()); length],
        }
    }

    async fn evaluate(&self, batch: Vec<Creation>) -> Result<Vec<Result<Outcome, CreateRefusal>>, Refusal> {
        let at_ms = self.ground.parts.clock.now_ms();
        let before: Option<Vec<_>> = batch.iter().map(|creation| creation.judged.as_deref().cloned().map(Ok)).collect();
        let judged = match before {
            Some(judged) => judged,
            None => self.judge(&batch, at_ms).await?,
        };

        // Requests that go on, and what becomes of the others.
        let mut results: Vec<Option<Result<Outcome, CreateRefusal>>> = Vec::with_capacity(batch.len());
        let (mut ops, mut digests, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for (creation, judged) in batch.iter().zip(judged) {
            let judged = match judged {
                Ok(judged) => judged,
                Err(refusal) => {
                    results.push(Some(Err(refusal)));
                    continue;
                }
            };
            results.push(None);
            let (partition, has_fresh_ids) = (judged.partition, self.shape.makes_ids());
            let ids = judged.ruled.rule.iter().map(|document| document.id.clone()).collect();
            // Fresh ids are never cold.
            let kept = (!has_fresh_ids).then(|| judged.clone());
            waiting.push(Waiting { partition, ids, kept });
            digests.push(judged.ruled.digest);
            let documents = judged.ruled.rule;
            ops.push(CreateOp { partition, documents, has_fresh_ids, idempotency: creation.idempotency });
        }
        let decider = match digests.first() {
            Some(first) if digests.iter().all(|digest| digest == first) => Decider::One(*first),
            _ => Decider::Each(digests),
        };
        let accepted = {
            let step_of = |op: &CreateOp| self.ground.parts.store.step_of(op.partition);
            in_steps(decider, ops, step_of, |digest, ops| self.commit(digest, at_ms, ops)).await
        };
        let mut accepted = accepted.into_iter().zip(waiting);
        let finish = |(creation, result): (&Creation, Option<Result<Outcome, CreateRefusal>>)| {
            result.or_else(|| {
                let (evaluated, waiting) = accepted.next()?;
                Some(evaluated.map_err(CreateRefusal::from).and_then(|of| self.outcome(creation, of, waiting)))
            })
        };
        let finished: Vec<_> = batch.iter().zip(results).map(finish).collect();
        Ok(finished.into_iter().map(|result| result.unwrap_or(Err(Refusal::StoreUnavailable.into()))).collect())
    }

    /// Where the documents of each request go, and what the rules make of them, in one policy call.
    async fn judge(&self, batch: &[Creation], at_ms: u64) -> Result<Vec<Result<Judged, CreateRefusal>>, Refusal> {
        let parts = &self.ground.parts;
        let placed: Vec<(Partition, Vec<Document>)> =
            batch.iter().map(|creation| self.place(creation, at_ms)).collect();
        let documents: Vec<Document> = placed.iter().flat_map(|(_, documents)| documents.clone()).collect();
        // A failed module is logged, counted and reported by the policy room itself.
        let decided = parts.policies.validate(&parts.kind, at_ms, &documents).await;
        let Decided { rules, decider } = decided.map_err(|_| Refusal::PolicyFailed)?;
        drop(documents);
        let (mut verdicts, mut first) = (rules.into_iter(), 0);
        let judge =
            |(creation, (partition, documents)): (&Creation, (Partition, Vec<Document>))| -> Result<_, CreateRefusal> {
                // One entry names one module: whoever decided the first document.
                let digest = match &decider {
                    Decider::One(digest) => *digest,
                    Decider::Each(digests) => digests.get(first).copied().unwrap_or_default(),
                };
                first += documents.len();
                let of_request = verdicts.by_ref().take(documents.len()).collect();
                let rule = ruled(creation, documents, of_request)?;
                Ok(Judged { partition, ruled: Ruled { rule, digest } })
            };
        Ok(batch.iter().zip(placed).map(judge).collect())
    }

    /// Gives the documents of a request their ids, and all of them their partition.
    fn place(&self, creation: &Creation, at_ms: u64) -> (Partition, Vec<Document>) {
        let partitions = self.ground.parts.store.partitions();
        let (partition, ids) = if self.shape.makes_ids() {
            ids::made(&creation.seed, at_ms, creation.documents.len(), partitions)
        } else {
            let ids: Vec<Id> = creation.documents.iter().filter_map(|fields| self.shape.id_of(fields)).collect();
            (ids.first().map_or(0, |id| self.config.partition(id, partitions)), ids)
        };
        let document =
            |(id, body): (Id, &Arc<str>)| Document { id, actor: creation.actor.clone(), body: Arc::clone(body) };
        (partition, ids.into_iter().zip(creation.texts.iter()).map(document).collect())
    }

    fn outcome(&self, creation: &Creation, evaluated: Evaluated, waiting: Waiting) -> Result<Outcome, CreateRefusal> {
        let Waiting { partition, ids, kept } = waiting;
        match evaluated.result {
            CreateResult::Done(created) => {
                let (partition, ids) = if created.replayed && self.shape.makes_ids() {
                    let partitions = self.ground.parts.store.partitions();
                    ids::made(&creation.seed, created.at_ms, creation.documents.len(), partitions)
                } else {
                    (partition, ids)
                };
                let receipt = Receipt { partition, incarnation: evaluated.incarnation, position: created.position };
                Ok(Outcome::Done { ids, created, receipt })
            }
            CreateResult::Exists(index) => match ids.into_iter().nth(index) {
                Some(id) => Err(CreateRefusal::Exists(index, id)),
                None => Err(Refusal::StoreUnavailable.into()),
            },
            CreateResult::NotLoaded(ids) => {
                let kept = kept.ok_or(Refusal::StoreUnavailable)?;
                Ok(Outcome::Cold(ids, Box::new(kept)))
            }
            CreateResult::IdempotencyConflict => Err(Refusal::IdempotencyConflict.into()),
        }
    }

    /// Store steps, each of a bounded size. Index-aligned with `ops`.
    async fn commit(&self, digest: Digest, at_ms: u64, ops: Vec<CreateOp>) -> Result<Vec<Evaluated>, Refusal> {
        let mut evaluated = Vec::with_capacity(ops.len());
        let (mut waiting, mut bytes) = (Vec::new(), 0);
        for op in ops {
            let of_op: usize = op.documents.iter().map(|document| document.body.len()).sum();
            if bytes > 0 && bytes + of_op > STEP_BYTES_MAX {
                evaluated.extend(self.step(digest, at_ms, std::mem::take(&mut waiting)).await?);
                bytes = 0;
            }
            bytes += of_op;
            waiting.push(op);
        }
        if !waiting.is_empty() {
            evaluated.extend(self.step(digest, at_ms, waiting).await?);
        }
        Ok(evaluated)
    }

    async fn step(&self, digest: Digest, at_ms: u64, ops: Vec<CreateOp>) -> Result<Vec<Evaluated>, Refusal> {
        let (ground, parts) = (&self.ground, &self.ground.parts);
        let of: Vec<(Partition, usize)> = ops.iter().map(|op| (op.partition, op.documents.len())).collect();
        let started = Instant::now();
        let commit =
            parts.store.create(&parts.kind, CreateBatch { digest, at_ms, now_ms: parts.clock.steady_ms(), ops }).await;
        self.store_seconds.record(started.elapsed().as_secs_f64());
        let commit = commit.map_err(|error| ground.step_refusal("create", &error))?;
        ground.store_served();
        parts.watch.observe(&commit.heads);
        if commit.results.iter().any(|result| matches!(result, CreateResult::Done(Created { replayed: false, .. }))) {
            parts.watch.wake();
        }
        let lives: BTreeMap<Partition, Incarnation> =
            commit.heads.iter().map(|head| (head.partition, head.incarnation)).collect();
        let evaluated = commit.results.into_iter().zip(of);
        Ok(evaluated
            .map(|(result, (partition, documents))| {
                self.outcomes.count(&result, documents as u64);
                let incarnation = lives.get(&partition).copied().unwrap_or(Incarnation(uuid::Uuid::nil()));
                Evaluated { result, incarnation }
            })
            .collect())
    }
}

/// The documents as the rules leave them, or why they are refused. What a module made of one is still one of its kind: the
/// policy room has checked that.
fn ruled(
    creation: &Creation,
    mut documents: Vec<Document>,
    verdicts: Vec<Verdict>,
) -> Result<Vec<Document>, CreateRefusal> {
    let mut violations = Vec::new();
    for (index, (document, verdict)) in documents.iter_mut().zip(verdicts).enumerate() {
        match verdict {
            Ok(None) => {}
            Ok(Some(body)) => document.body = body,
            Err(of_document) => violations.extend(of_document.into_iter().map(|violation| (index, violation))),
        }
    }
    if documents.len() != creation.documents.len() {
        return Err(Refusal::StoreUnavailable.into());
    }
    if violations.is_empty() { Ok(documents) } else { Err(CreateRefusal::Invalid(violations)) }
}

/// Counters of outcomes, looked up once; in documents.
struct Outcomes {
    accepted: Counter,
    replayed: Counter,
    exists: Counter,
    cold: Counter,
    conflict: Counter,
}

impl Outcomes {
    fn new(kind: &str) -> Self {
        let of = |outcome: &'static str| counter!(telemetry::DOCUMENTS_TOTAL, "kind" => kind.to_owned(), "outcome" => outcome);
        Self {
            accepted: of("accepted"),
            replayed: of("replayed"),
            exists: of("exists"),
            cold: of("cold"),
            conflict: of("conflict"),
        }
    }

    fn count(&self, result: &CreateResult, documents: u64) {
        let counter = match result {
            CreateResult::Done(Created { replayed: true, .. }) => &self.replayed,
            CreateResult::Done(_) => &self.accepted,
            CreateResult::Exists(_) => &self.exists,
            CreateResult::NotLoaded(_) => &self.cold,
            CreateResult::IdempotencyConflict => &self.conflict,
        };
        counter.increment(documents);
    }
}
