//! The ingest capability: documents that are accepted now and inserted behind, in bulk.
//!
//! Tier 3: imports tiers 0 to 2 and `capability`. Never imports flush or http. Holds no rule: the configuration says the
//! shape, the policy what else must hold; the store takes a request's documents together or not at all.
//!
//! - `shape`: JSON Schema, fields without a column, the id field.
//! - `ids`: ids that weir makes, the same again for a repeated request.
//! - `step`: one batch: one policy call, one store step.
//! - `status`: what has become of a document: the store, then SQL, then the dead letters.

mod ids;
mod shape;
mod status;
mod step;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::batcher::Batcher;
use crate::capability::{Ground, Hydrator, Load, Parts, Receipt};
use crate::config::{BatchConfig, ConfigError, DurabilityLevel, IngestConfig};
use crate::error::Refusal;
use crate::model::{Id, Partition, Violation};
use crate::policy::Contract;
use crate::store::{Hydration, LoadedState, TargetLoad};
use crate::telemetry;
use shape::Shape;
pub use shape::check_schema;
pub use status::{Listed, Page, Status, StatusOf};
use step::{Creation, Outcome, Step};

/// Requests of one kind that hold their bodies in memory at once take so many bytes at most; beyond, they are refused.
const BODIES_BYTES_MAX: usize = 64 << 20;
/// Ids of one load at most.
const LOAD_IDS_MAX: usize = 1_000;

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

/// All kinds of the capability, by name.
#[derive(Clone, Default)]
pub struct Ingests {
    /// The kinds.
    pub kinds: BTreeMap<String, Arc<IngestKind>>,
}

/// One kind: its configuration, its shape, its batchers, its way to policy, store and SQL.
pub struct IngestKind {
    config: IngestConfig,
    ground: Arc<Ground>,
    shape: Arc<Shape>,
    bodies: Arc<Semaphore>,
    steps: Batcher<Creation, Result<Outcome, CreateRefusal>>,
    hydrator: Hydrator<IdLoad>,
    statuses: Batcher<Id, Result<Option<Status>, Refusal>>,
}

impl IngestKind {
    /// Starts the kind's batchers on the current runtime.
    ///
    /// # Errors
    /// A schema that cannot be read or is none.
    pub fn start(config: IngestConfig, parts: Parts) -> Result<Self, ConfigError> {
        let shape = Arc::new(Shape::new(&config)?);
        let ground = Arc::new(Ground::new(parts));
        let contract: Arc<dyn Contract> = Arc::<Shape>::clone(&shape);
        ground.parts.policies.hold_to(&config.kind, contract);
        let load = IdLoad { ground: Arc::clone(&ground), config: config.clone() };
        let hydrator = Hydrator::start(Arc::clone(&ground), Arc::new(load));
        let batch = &ground.parts.batch;
        let step = Step::new(Arc::clone(&ground), Arc::clone(&shape), &config);
        let steps = Batcher::start(batch, "creates", ground.kind(), move |batch| step.clone().run(batch));
        let look_ups = BatchConfig { items_max: batch.items_max.min(LOAD_IDS_MAX), ..batch.clone() };
        let (of_status, table) = (Arc::clone(&ground), config.clone());
        let statuses = Batcher::start(&look_ups, "statuses", ground.kind(), move |ids: Vec<Id>| {
            let (ground, config) = (Arc::clone(&of_status), table.clone());
            async move {
                match status::look_up(&ground, &config, &ids).await {
                    Ok(found) => found.into_iter().map(Ok).collect(),
                    Err(refusal) => vec![Err(refusal); ids.len()],
                }
            }
        });
        Ok(Self {
            config,
            ground,
            shape,
            bodies: Arc::new(Semaphore::new(BODIES_BYTES_MAX)),
            steps,
            hydrator,
            statuses,
        })
    }

    /// Its configuration.
    pub fn config(&self) -> &IngestConfig {
        &self.config
    }

    /// What it stands on.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// Room for a body of so many bytes, to be held until the request is answered.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] when too much is held already.
    pub fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let permits = u32::try_from(bytes.min(BODIES_BYTES_MAX)).unwrap_or(u32::MAX);
        Arc::clone(&self.bodies).try_acquire_many_owned(permits).map_err(|_| {
            counter!(telemetry::SHED_TOTAL, "limit" => "ingest.bodies_bytes_max").increment(1);
            Refusal::Overloaded { queue: "ingest.bodies_bytes_max" }
        })
    }

    /// Checks, decides, accepts and journals the documents of one request, together with whatever is concurrent. Where the
    /// caller, or the kind's level `stored`, wants to wait for SQL it does so, up to the deadline.
    ///
    /// # Errors
    /// See [`CreateRefusal`].
    pub async fn create(&self, request: CreateRequest) -> Result<CreateReply, CreateRefusal> {
        let ground = self.ground();
        ground.admit()?;
        ground.parts.fit.check_actor(&request.actor).await?;
        let deadline = ground.deadline();
        let wait = request.wait;
        let mut creation = Creation::new(&self.shape, &self.config, ground, request)?;
        let outcome = loop {
            match self.steps.submit(creation.clone()).await?? {
                Outcome::Cold(ids, judged) => {
                    creation.keep(judged);
                    self.hydrator.fetch(ids, deadline).await?;
                }
                outcome => break outcome,
            }
        };
        let Outcome::Done { ids, created, receipt } = outcome else {
            return Err(Refusal::StoreUnavailable.into());
        };
        let waits = wait > Duration::ZERO || self.config.durability == DurabilityLevel::Stored;
        let mut statuses = vec![StatusOf::Pending; ids.len()];
        if waits {
            let until = ground.wait_until(deadline);
            let until = if wait > Duration::ZERO { until.min(tokio::time::Instant::now() + wait) } else { until };
            ground.parts.watch.want_flush();
            if ground.wait_flushed(receipt, until).await {
                statuses = self.statuses_of(&ids).await?;
            }
        }
        let stored = statuses.iter().all(|status| *status == StatusOf::Stored);
        Ok(CreateReply {
            ids,
            durability: if stored { DurabilityLevel::Stored.as_str() } else { DurabilityLevel::Journaled.as_str() },
            statuses,
            receipt,
            replayed: created.replayed,
            at_ms: created.at_ms,
        })
    }

    async fn statuses_of(&self, ids: &[Id]) -> Result<Vec<StatusOf>, Refusal> {
        let found = status::look_up(&self.ground, &self.config, ids).await?;
        // What nobody knows any more was accepted all the same: its dead letter was dropped just now.
        Ok(found.into_iter().map(|status| status.map_or(StatusOf::Rejected, |status| status.of)).collect())
    }

    /// What has become of a document; `None` when there is none, or when it is somebody else's.
    ///
    /// # Errors
    /// When the store, or SQL for what is not pending any more, does not answer.
    pub async fn status(&self, id: &Id, actor: &Id) -> Result<Option<Status>, Refusal> {
        let found = self.statuses.submit(id.clone()).await??;
        Ok(found.filter(|status| status.actor.as_ref().is_none_or(|owner| owner == actor)))
    }

    /// The documents of an actor: those that are pending, newest first, then those in SQL, newest first.
    ///
    /// # Errors
    /// As [`IngestKind::status`].
    pub async fn list(&self, actor: &Id, after: Option<&Listed>, limit: usize) -> Result<Page, Refusal> {
        status::list(&self.ground, &self.config, actor, after, limit).await
    }
}

/// Asks SQL whether ids from outside are taken.
struct IdLoad {
    ground: Arc<Ground>,
    config: IngestConfig,
}

impl Load for IdLoad {
    type Want = Id;

    const ITEMS_MAX: usize = LOAD_IDS_MAX;

    fn partition(&self, want: &Id) -> Partition {
        self.config.partition(want, self.ground.parts.store.partitions())
    }

    async fn load(&self, wants: &[&Id], hydrations: &mut BTreeMap<Partition, Hydration>) -> Result<(), Refusal> {
        let ids: Vec<Id> = wants.iter().map(|id| (*id).clone()).collect();
        let found = self.ground.parts.sql.load_documents(&self.config.table, &ids).await;
        let found = found.map_err(|error| self.ground.sql_refusal(&error))?;
        let kind = self.ground.kind().to_owned();
        counter!(telemetry::HYDRATED_TOTAL, "kind" => kind, "what" => "document").increment(ids.len() as u64);
        for (target, document) in ids.into_iter().zip(found) {
            let state = if document.is_some() { LoadedState::Exists } else { LoadedState::Missing };
            if let Some(hydration) = hydrations.get_mut(&self.partition(&target)) {
                hydration.targets.push(TargetLoad { target, state });
            }
        }
        Ok(())
    }
}
