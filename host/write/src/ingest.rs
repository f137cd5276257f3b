//! The ingest capability: documents that are accepted now and inserted behind, in bulk.
//!
//! Of its own crate it uses `capability` alone. Never imports flush or http. Holds no rule: the configuration says the
//! shape, the policy what else must hold; the store takes a request's documents together or not at all.
//!
//! - `shape`: JSON Schema, fields without a column, the id field.
//! - `ids`: ids that weir makes, the same again for a repeated request.
//! - `create`: the documents of a request: placed, judged by the rules, accepted together.
//! - `load`: whether ids from outside are taken.
//! - `status`: what has become of a document: the store, then SQL, then the dead letters.
//! - `fold`: what a flush makes of its changes.

mod create;
mod fold;
mod ids;
mod load;
mod shape;
mod status;

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::capability::{Capability, Fold, Kind, KindContext, Outcomes, Receipt, Settled, StepBatch, Written};
pub use create::{Creation, Judged, Judgement};
pub use load::IdLoad;
use shape::Shape;
pub use status::{Listed, Page, Status, StatusOf};
use weir_core::batcher::Batcher;
use weir_core::config::{BatchConfig, Config, ConfigError, DurabilityLevel, IngestConfig, KindTable};
use weir_core::error::Refusal;
use weir_core::model::{Id, Partition, Violation};
use weir_core::telemetry;
use weir_policy::{Contract, Decided, KindPolicy};
use weir_store::{Commit, CreateBatch, CreateOp, CreateResult, Created, Idempotency, StoreError};

/// Requests of one kind that hold their bodies in memory at once take so many bytes at most; beyond, they are refused.
const BODIES_BYTES_MAX: usize = 64 << 20;
/// Ids of one load at most.
const LOAD_IDS_MAX: usize = 1_000;
/// Bytes of documents in one store step at most.
const STEP_BYTES_MAX: usize = 4 << 20;

/// A JSON object.
pub type Fields = Map<String, Value>;

/// A request to create documents, all of them or none.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// The documents, in order; 1 to the kind's `documents_max`.
    pub documents: Vec<Fields>,
    /// Who creates them. Of the kind's actor type.
    pub actor: Id,
    /// The caller's `Idempotency-Key`, 1 to 255 bytes.
    pub idempotency_key: Option<String>,
    /// How long the caller wants to wait for SQL.
    pub wait: Duration,
}

/// The answer to a request that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateReply {
    /// The documents' ids, in order.
    pub ids: Vec<Id>,
    /// What has become of each, where the caller waited; pending otherwise.
    pub statuses: Vec<StatusOf>,
    /// The level reached: `journaled`, or `stored` when SQL has all of them.
    pub durability: &'static str,
    /// Where they lie in the journal.
    pub receipt: Receipt,
    /// They were accepted before, under the same `Idempotency-Key`.
    pub replayed: bool,
    /// When they were accepted, in Unix milliseconds.
    pub at_ms: u64,
}

/// Why a request was not accepted. Nothing was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateRefusal {
    /// Documents are not as they must be: index of the document, and what is wrong with it.
    Invalid(Vec<(usize, Violation)>),
    /// A document with the id of the one at this index exists.
    Exists(usize, Id),
    /// Everything else.
    Other(Refusal),
}

impl From<Refusal> for CreateRefusal {
    fn from(refusal: Refusal) -> Self {
        Self::Other(refusal)
    }
}

/// One kind of the capability.
pub type IngestKind = Kind<Ingest>;

/// What only this capability needs of a kind.
pub struct Ingest {
    config: Arc<IngestConfig>,
    shape: Arc<Shape>,
    bodies: Arc<Semaphore>,
    statuses: Batcher<Id, Result<Option<Status>, Refusal>>,
}

/// An accepted request, as the store answered it.
pub struct Accepted {
    ids: Vec<Id>,
    created: Created,
}

impl Capability for Ingest {
    const NAME: &'static str = "ingest";
    const QUEUE: &'static str = "creates";
    const OPERATION: &'static str = "create";
    const OUTCOMES: Outcomes = Outcomes {
        metric: telemetry::DOCUMENTS_TOTAL,
        labels: &["accepted", "replayed", "exists", "cold", "conflict"],
    };
    const STEP_BYTES_MAX: usize = STEP_BYTES_MAX;

    type Config = IngestConfig;
    type Request = CreateRequest;
    type Prepared = Creation;
    type Subject = Creation;
    type Ruling = Judgement;
    type Op = CreateOp;
    type Outcome = CreateResult;
    type Done = Accepted;
    type Reply = CreateReply;
    type Refusal = CreateRefusal;
    type Load = IdLoad;

    fn configs(config: &Config) -> &[IngestConfig] {
        &config.ingests
    }

    fn configs_mut(config: &mut Config) -> &mut [IngestConfig] {
        &mut config.ingests
    }

    fn kind(config: &IngestConfig) -> &str {
        &config.kind
    }

    fn kind_mut(config: &mut IngestConfig) -> &mut String {
        &mut config.kind
    }

    fn rules(config: &IngestConfig) -> KindPolicy {
        let (kind, settings) = (config.kind.clone(), config.policy_settings());
        KindPolicy { kind, settings, on_failure: config.on_policy_failure }
    }

    fn check_config(config: &IngestConfig) -> Result<(), ConfigError> {
        check_schema(config)
    }

    fn start(config: IngestConfig, context: &Arc<KindContext>) -> Result<Self, ConfigError> {
        let (shape, config) = (Arc::new(Shape::new(&config)?), Arc::new(config));
        let contract: Arc<dyn Contract> = Arc::<Shape>::clone(&shape);
        context.parts.policies.hold_to(&config.kind, contract);
        let batch = &context.parts.batch;
        let look_ups = BatchConfig { items_max: batch.items_max.min(LOAD_IDS_MAX), ..batch.clone() };
        let (of_status, table) = (Arc::clone(context), Arc::clone(&config));
        let statuses = Batcher::start(&look_ups, "statuses", context.kind(), move |ids: Vec<Id>| {
            let (context, config) = (Arc::clone(&of_status), Arc::clone(&table));
            async move {
                match status::look_up(&context, &config, &ids).await {
                    Ok(found) => found.into_iter().map(Ok).collect(),
                    Err(refusal) => vec![Err(refusal); ids.len()],
                }
            }
        });
        Ok(Self { config, shape, bodies: Arc::new(Semaphore::new(BODIES_BYTES_MAX)), statuses })
    }

    fn config(&self) -> &IngestConfig {
        &self.config
    }

    fn durability(&self) -> DurabilityLevel {
        self.config.durability
    }

    fn load(&self, context: &Arc<KindContext>) -> Arc<IdLoad> {
        Arc::new(IdLoad { context: Arc::clone(context), config: Arc::clone(&self.config) })
    }

    async fn check(&self, context: &KindContext, request: &CreateRequest) -> Result<(), CreateRefusal> {
        Ok(context.parts.fit.check_actor(&request.actor).await?)
    }

    fn prepare(&self, context: &KindContext, request: CreateRequest) -> Result<Creation, CreateRefusal> {
        self.creation(context, request)
    }

    fn subject(&self, _context: &KindContext, creation: Creation) -> (Creation, Option<Idempotency>) {
        let idempotency = creation.idempotency;
        (creation, idempotency)
    }

    async fn decide(
        &self,
        context: &KindContext,
        at_ms: u64,
        creations: &[Creation],
    ) -> Result<Decided<Judgement>, Refusal> {
        self.judge(context, at_ms, creations).await
    }

    fn op(
        &self,
        _creation: Creation,
        judgement: &mut Judgement,
        idempotency: Option<Idempotency>,
    ) -> Result<CreateOp, CreateRefusal> {
        match judgement {
            Ok(judged) => Ok(self.create_op(judged, idempotency)),
            Err(refusal) => Err(refusal.clone()),
        }
    }

    fn partition(_context: &KindContext, op: &CreateOp) -> Partition {
        op.partition
    }

    fn amount(op: &CreateOp) -> u64 {
        op.documents.len() as u64
    }

    fn bytes(op: &CreateOp) -> usize {
        op.documents.iter().map(|document| document.body.len()).sum()
    }

    async fn step(
        &self,
        context: &KindContext,
        batch: StepBatch<CreateOp>,
    ) -> Result<Commit<CreateResult>, StoreError> {
        let StepBatch { digest, at_ms, now_ms, ops } = batch;
        context.parts.store.create(context.kind(), CreateBatch { digest, at_ms, now_ms, ops }).await
    }

    fn is_new(outcome: &CreateResult) -> bool {
        matches!(outcome, CreateResult::Done(Created { replayed: false, .. }))
    }

    fn outcome(outcome: &CreateResult) -> &'static str {
        match outcome {
            CreateResult::Done(Created { replayed: true, .. }) => "replayed",
            CreateResult::Done(_) => "accepted",
            CreateResult::Exists(_) => "exists",
            CreateResult::NotLoaded(_) => "cold",
            CreateResult::IdempotencyConflict => "conflict",
        }
    }

    fn settle(
        &self,
        context: &KindContext,
        creation: &Creation,
        judgement: &mut Judgement,
        outcome: CreateResult,
    ) -> Settled<Self> {
        let judged = match judgement {
            Ok(judged) => judged,
            Err(refusal) => return Settled::Refused(refusal.clone()),
        };
        match outcome {
            CreateResult::Done(created) => {
                let (partition, ids) = if created.replayed && self.shape.makes_ids() {
                    // As they were made the first time.
                    self.made_ids(context, creation, created.at_ms)
                } else {
                    (judged.partition, std::mem::take(&mut judged.ids))
                };
                Settled::Done { position: created.position, done: Accepted { ids, created }, partition }
            }
            CreateResult::Exists(index) => match judged.ids.get(index) {
                Some(id) => Settled::Refused(CreateRefusal::Exists(index, id.clone())),
                None => Settled::Refused(Refusal::StoreUnavailable.into()),
            },
            // Ids that were just made need no look; a store that asks for one is not to be trusted.
            CreateResult::NotLoaded(_) if self.shape.makes_ids() => Settled::Refused(Refusal::StoreUnavailable.into()),
            CreateResult::NotLoaded(ids) => Settled::NotLoaded(ids),
            CreateResult::IdempotencyConflict => Settled::Refused(Refusal::IdempotencyConflict.into()),
        }
    }

    fn reply(written: Written<Self>, durability: DurabilityLevel) -> CreateReply {
        let Written { done: Accepted { ids, created }, receipt, .. } = written;
        CreateReply {
            statuses: vec![StatusOf::Pending; ids.len()],
            ids,
            durability: durability.as_str(),
            receipt,
            replayed: created.replayed,
            at_ms: created.at_ms,
        }
    }

    fn fold(table: &KindTable) -> Option<Box<dyn Fold>> {
        matches!(table, KindTable::Ingest(_)).then(|| Box::<fold::DocumentFold>::default() as Box<dyn Fold>)
    }
}

impl Kind<Ingest> {
    /// Room for a body of so many bytes, to be held until the request is answered.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] when too much is held already.
    pub fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let permits = u32::try_from(bytes.min(BODIES_BYTES_MAX)).unwrap_or(u32::MAX);
        Arc::clone(&self.capability().bodies).try_acquire_many_owned(permits).map_err(|_| {
            counter!(telemetry::SHED_TOTAL, "limit" => "ingest.bodies_bytes_max").increment(1);
            Refusal::Overloaded { queue: "ingest.bodies_bytes_max" }
        })
    }

    /// Checks, decides, accepts and journals the documents of one request, together with whatever is concurrent. Where the
    /// caller, or the kind's level `stored`, wants to wait for SQL it does so, up to the deadline, and says what has become of
    /// each document.
    ///
    /// # Errors
    /// See [`CreateRefusal`].
    pub async fn create(&self, request: CreateRequest) -> Result<CreateReply, CreateRefusal> {
        let (context, wait) = (self.context(), request.wait);
        let written = self.submit(request).await?;
        let until = context.wait_until(written.deadline);
        let mut reply = Ingest::reply(written, DurabilityLevel::Journaled);
        if wait > Duration::ZERO || self.config().durability == DurabilityLevel::Stored {
            let until = if wait > Duration::ZERO { until.min(tokio::time::Instant::now() + wait) } else { until };
            context.parts.watch.want_flush();
            if context.wait_flushed(reply.receipt, until).await {
                reply.statuses = self.statuses_of(&reply.ids).await?;
            }
            // A row may have gone to the dead letters, so what was flushed is not all stored.
            if reply.statuses.iter().all(|status| *status == StatusOf::Stored) {
                reply.durability = DurabilityLevel::Stored.as_str();
            }
        }
        Ok(reply)
    }

    async fn statuses_of(&self, ids: &[Id]) -> Result<Vec<StatusOf>, Refusal> {
        let found = status::look_up(self.context(), self.config(), ids).await?;
        // A document without a status was accepted all the same: its dead letter was dropped just now.
        Ok(found.into_iter().map(|status| status.map_or(StatusOf::Rejected, |status| status.of)).collect())
    }

    /// What has become of a document; `None` when there is none, or when it is somebody else's.
    ///
    /// # Errors
    /// When the store, or SQL for what is not pending any more, does not answer.
    pub async fn status(&self, id: &Id, actor: &Id) -> Result<Option<Status>, Refusal> {
        let found = self.capability().statuses.submit(id.clone()).await??;
        Ok(found.filter(|status| status.actor.as_ref().is_none_or(|owner| owner == actor)))
    }

    /// The documents of an actor: those that are pending, newest first, then those in SQL, newest first.
    ///
    /// # Errors
    /// As [`IngestKind::status`].
    pub async fn list(&self, actor: &Id, after: Option<&Listed>, limit: usize) -> Result<Page, Refusal> {
        status::list(self.context(), self.config(), actor, after, limit).await
    }
}

/// Whether the schema of a kind can be read and is one.
///
/// # Errors
/// What is wrong with it.
pub fn check_schema(config: &IngestConfig) -> Result<(), ConfigError> {
    Shape::new(config).map(drop)
}
