//! The preference capability: the settings of members, and who of thousands of them has a topic enabled, in one call.
//!
//! Tier 3: imports tiers 0 to 2 and `capability`. Never imports flush or http. Holds no rule: the policy says which fields a
//! topic needs and what follows from them, this room moves data in chunks between it and the store.
//!
//! - `step`: one batch of changes: one store step.
//! - `share`: members are fetched once, however many look-ups ask for them at the same time.
//! - `lookup`: in chunks: fetch, columns, one policy call.
//! - `hydrate`: members that the store does not know.

mod hydrate;
mod lookup;
mod share;
mod step;

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::batcher::Batcher;
use crate::capability::{Ground, Hydrator, Parts, Receipt};
use crate::config::{DurabilityLevel, PreferenceConfig};
use crate::error::Refusal;
use crate::model::{Id, Setting, Settings};
use crate::policy::Contract;
use crate::store::{SettingsOutcome, SettingsResult};
use crate::telemetry;
use hydrate::SettingsLoad;
use lookup::Lookups;
use step::{Evaluated, Step};

pub use lookup::{Looked, Topic};

/// Look-ups of full size whose bodies may be held at once.
const BODIES_MAX: usize = 8;

/// A change of one member's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutRequest {
    /// Whose settings. Of the kind's member type.
    pub member: Id,
    /// Who changes them.
    pub actor: Id,
    /// The fields that change, each of the kind's and of its type.
    pub settings: Settings,
    /// The caller's `Idempotency-Key`, 1 to 255 bytes.
    pub idempotency_key: Option<String>,
}

/// The answer to a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutReply {
    /// The level reached: `journaled` or `stored`.
    pub durability: &'static str,
    /// Where the change lies in the journal.
    pub receipt: Receipt,
    /// The outcome of an earlier request with the same `Idempotency-Key`, answered again.
    pub replayed: bool,
    /// When it was evaluated, in Unix milliseconds.
    pub at_ms: u64,
}

/// All kinds of the capability, by name.
#[derive(Clone, Default)]
pub struct Preferences {
    /// The kinds.
    pub kinds: BTreeMap<String, Arc<PreferenceKind>>,
}

/// One kind: its configuration, its batchers, its way to policy, store and SQL.
pub struct PreferenceKind {
    config: Arc<PreferenceConfig>,
    ground: Arc<Ground>,
    steps: Batcher<PutRequest, Result<Evaluated, Refusal>>,
    hydrator: Hydrator<SettingsLoad>,
    lookups: Lookups,
    bodies: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl PreferenceKind {
    /// Starts the kind's batchers on the current runtime.
    pub fn start(config: PreferenceConfig, parts: Parts) -> Self {
        let (config, ground) = (Arc::new(config), Arc::new(Ground::new(parts)));
        ground.parts.policies.hold_to(&config.kind, Arc::new(FieldContract(Arc::clone(&config))));
        let load = Arc::new(SettingsLoad { ground: Arc::clone(&ground), config: Arc::clone(&config) });
        let hydrator = Hydrator::start(Arc::clone(&ground), Arc::clone(&load));
        let step = Step::new(Arc::clone(&ground));
        let steps =
            Batcher::start(&ground.parts.batch, "preferences", ground.kind(), move |batch| step.clone().run(batch));
        let bodies_bytes_max = config.lookup_body_bytes_max.saturating_mul(BODIES_MAX).min(Semaphore::MAX_PERMITS);
        Self {
            lookups: Lookups::new(Arc::clone(&config), Arc::clone(&ground), load),
            bodies: Arc::new(Semaphore::new(bodies_bytes_max)),
            streams: Arc::new(Semaphore::new(config.streams_max.min(Semaphore::MAX_PERMITS))),
            config,
            ground,
            steps,
            hydrator,
        }
    }

    /// Its configuration.
    pub fn config(&self) -> &PreferenceConfig {
        &self.config
    }

    /// What it stands on.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// Room for the body of a look-up, until the permit is dropped.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] when too much is held already.
    pub fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        Arc::clone(&self.bodies).try_acquire_many_owned(permits).map_err(|_| shed("preference.lookup_body_bytes_max"))
    }

    /// The right to a streamed look-up, until the permit is dropped.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] when there are too many already.
    pub fn begin_stream(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| shed("preference.streams_max"))
    }

    /// Applies and journals one change, together with whatever is concurrent: this host's look-ups see it when this returns.
    /// With the kind's level `stored` it also waits for the flush, up to the deadline; the reply names the level really
    /// reached.
    ///
    /// # Errors
    /// See [`Refusal`]. A change of a member whose settings SQL cannot give is refused with nothing done.
    pub async fn put(&self, request: PutRequest) -> Result<PutReply, Refusal> {
        let ground = self.ground();
        ground.admit()?;
        ground.parts.fit.check_settings(&request.settings)?;
        ground.parts.fit.check(&request.member, None, None, true).await?;
        let deadline = ground.deadline();
        loop {
            let submitted = self.steps.submit(request.clone()).await;
            // Also where the outcome is unknown: what was fetched before may be old now.
            self.lookups.forget(&request.member);
            let Evaluated { result, incarnation, at_ms } = submitted??;
            let SettingsOutcome { position, replayed } = match result {
                SettingsResult::Done(outcome) => outcome,
                SettingsResult::TargetNotLoaded => {
                    self.hydrator.fetch(vec![request.member.clone()], deadline).await?;
                    continue;
                }
                SettingsResult::TargetMissing => return Err(Refusal::TargetMissing),
                SettingsResult::IdempotencyConflict => return Err(Refusal::IdempotencyConflict),
            };
            let receipt = Receipt { partition: ground.partition(&request.member), incarnation, position };
            let stored = match self.config.durability {
                DurabilityLevel::Journaled => replayed && ground.knows_stored(receipt),
                DurabilityLevel::Stored => {
                    ground.parts.watch.want_flush();
                    ground.wait_stored(receipt, ground.wait_until(deadline)).await
                }
            };
            let durability = if stored { DurabilityLevel::Stored } else { DurabilityLevel::Journaled };
            return Ok(PutReply { durability: durability.as_str(), receipt, replayed, at_ms });
        }
    }

    /// What holds of each field of a member, in the order of the configuration's.
    ///
    /// # Errors
    /// [`Refusal::TargetMissing`] where there is a table of members and the member is not in it; else what store or SQL do
    /// not answer.
    pub async fn read(&self, member: &Id) -> Result<Vec<(String, Setting)>, Refusal> {
        let mut found = self.lookups.fetch(vec![member.clone()]).await;
        let settings = found.pop().unwrap_or(Err(Refusal::StoreUnavailable))?.ok_or(Refusal::TargetMissing)?;
        let fields = self.config.table.fields.iter();
        Ok(fields
            .map(|field| {
                let value = settings.get(&field.name).map(crate::model::SettingRef::to_setting);
                let value = value.filter(|value| value.setting_type() == field.field_type);
                (field.name.clone(), value.unwrap_or_else(|| field.default.clone()))
            })
            .collect())
    }

    /// The topic of this name; `None` where the rules know none.
    ///
    /// # Errors
    /// [`Refusal::PolicyFailed`].
    pub async fn topic(&self, name: &str) -> Result<Option<Topic>, Refusal> {
        self.lookups.topic(name).await
    }

    /// Who of `members` has the topic enabled. The same member twice is looked up once. See [`Looked`].
    ///
    /// # Errors
    /// [`Refusal::PolicyFailed`]. What cannot be read fails its members, and not the call.
    pub async fn lookup(&self, topic: &Topic, members: &[Id]) -> Result<Looked, Refusal> {
        self.lookups.lookup(topic, members).await
    }
}

/// A topic needs fields that are configured.
struct FieldContract(Arc<PreferenceConfig>);

impl Contract for FieldContract {
    fn check_field(&self, field: &str) -> Result<(), String> {
        let of = |_| ();
        self.0
            .table
            .field(field)
            .map(of)
            .ok_or_else(|| format!("field {field:?} is not among the fields of [[preference]] {:?}", self.0.kind))
    }
}

fn shed(limit: &'static str) -> Refusal {
    counter!(telemetry::SHED_TOTAL, "limit" => limit).increment(1);
    Refusal::Overloaded { queue: limit }
}
