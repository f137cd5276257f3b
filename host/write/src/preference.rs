//! The preference capability: the settings of members, and who of thousands of them has a topic enabled, in one call.
//!
//! Of its own crate it uses `capability` alone. Never imports flush or http. Holds no rule: the policy says which fields a
//! topic needs and what follows from them, the capability moves data in chunks between it and the store.
//!
//! - `share`: members are fetched once, however many look-ups ask for them at the same time.
//! - `lookup`: in chunks: fetch, columns, one policy call.
//! - `load`: members that the store does not know.
//! - `fold`: what a flush makes of its changes.

mod fold;
mod load;
mod lookup;
mod share;

use std::sync::Arc;

use metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::capability::{
    Capability, Fold, Kind, KindContext, Outcomes, Receipt, RequestKey, Settled, StepBatch, Written,
};
pub use load::SettingsLoad;
use lookup::Lookups;
pub use lookup::{Looked, Topic};
use weir_core::config::{Config, ConfigError, DurabilityLevel, KindTable, PreferenceConfig};
use weir_core::error::Refusal;
use weir_core::model::{Id, Partition, Setting, SettingRef, Settings};
use weir_core::telemetry;
use weir_policy::{Contract, Decided, Decider, KindPolicy};
use weir_store::{Commit, Idempotency, SettingsBatch, SettingsOp, SettingsOutcome, SettingsResult, StoreError};

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

/// A change, as it waits for its store step. No rule decides it.
pub struct Put {
    member: Id,
    settings: Settings,
}

/// One kind of the capability.
pub type PreferenceKind = Kind<Preference>;

/// What only this capability needs of a kind.
pub struct Preference {
    config: Arc<PreferenceConfig>,
    load: Arc<SettingsLoad>,
    lookups: Lookups,
    bodies: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Capability for Preference {
    const NAME: &'static str = "preference";
    const QUEUE: &'static str = "preferences";
    const OPERATION: &'static str = "put_settings";
    const OUTCOMES: Outcomes =
        Outcomes { metric: telemetry::SETTINGS_TOTAL, labels: &["set", "replayed", "missing", "cold", "conflict"] };
    const IS_RULED: bool = false;

    type Config = PreferenceConfig;
    type Request = PutRequest;
    type Prepared = PutRequest;
    type Subject = Put;
    type Ruling = ();
    type Op = SettingsOp;
    type Outcome = SettingsResult;
    type Done = SettingsOutcome;
    type Reply = PutReply;
    type Refusal = Refusal;
    type Load = SettingsLoad;

    fn configs(config: &Config) -> &[PreferenceConfig] {
        &config.preferences
    }

    fn configs_mut(config: &mut Config) -> &mut [PreferenceConfig] {
        &mut config.preferences
    }

    fn kind(config: &PreferenceConfig) -> &str {
        &config.kind
    }

    fn kind_mut(config: &mut PreferenceConfig) -> &mut String {
        &mut config.kind
    }

    fn rules(config: &PreferenceConfig) -> KindPolicy {
        let (kind, settings) = (config.kind.clone(), config.policy_settings());
        KindPolicy { kind, settings, on_failure: config.on_policy_failure }
    }

    fn start(config: PreferenceConfig, context: &Arc<KindContext>) -> Result<Self, ConfigError> {
        let config = Arc::new(config);
        context.parts.policies.hold_to(&config.kind, Arc::new(FieldContract(Arc::clone(&config))));
        let load = Arc::new(SettingsLoad { context: Arc::clone(context), config: Arc::clone(&config) });
        let bodies_bytes_max = config.lookup_body_bytes_max.saturating_mul(BODIES_MAX).min(Semaphore::MAX_PERMITS);
        Ok(Self {
            lookups: Lookups::new(Arc::clone(&config), Arc::clone(context), Arc::clone(&load)),
            bodies: Arc::new(Semaphore::new(bodies_bytes_max)),
            streams: Arc::new(Semaphore::new(config.streams_max.min(Semaphore::MAX_PERMITS))),
            load,
            config,
        })
    }

    fn config(&self) -> &PreferenceConfig {
        &self.config
    }

    fn durability(&self) -> DurabilityLevel {
        self.config.durability
    }

    fn load(&self, _context: &Arc<KindContext>) -> Arc<SettingsLoad> {
        Arc::clone(&self.load)
    }

    async fn check(&self, context: &KindContext, request: &PutRequest) -> Result<(), Refusal> {
        let fit = &context.parts.fit;
        fit.check_settings(&request.settings)?;
        fit.check(&request.member, None, None, true).await
    }

    fn prepare(&self, _context: &KindContext, request: PutRequest) -> Result<PutRequest, Refusal> {
        Ok(request)
    }

    // Also where the outcome is unknown: what was fetched before may be old now.
    fn submitted(&self, request: &PutRequest) {
        self.lookups.forget(&request.member);
    }

    fn subject(&self, context: &KindContext, request: PutRequest) -> (Put, Option<Idempotency>) {
        let PutRequest { member, actor, settings, idempotency_key } = request;
        let idempotency = idempotency_key.map(|key| {
            let (kind, actor) = (context.kind(), &*actor.to_string());
            RequestKey { kind, actor, key: &key, target: Some(&member) }.of(&["set", &asked(&settings)])
        });
        (Put { member, settings }, idempotency)
    }

    async fn decide(&self, context: &KindContext, _at_ms: u64, puts: &[Put]) -> Result<Decided<()>, Refusal> {
        // No rule decides a change: the module that the kind has is named.
        let decider = Decider::One(context.parts.policies.delivery_digest());
        Ok(Decided { rules: vec![(); puts.len()], decider })
    }

    fn op(&self, put: Put, _nothing: &mut (), idempotency: Option<Idempotency>) -> Result<SettingsOp, Refusal> {
        Ok(SettingsOp { member: put.member, settings: put.settings, idempotency })
    }

    fn partition(context: &KindContext, op: &SettingsOp) -> Partition {
        context.partition(&op.member)
    }

    async fn step(
        &self,
        context: &KindContext,
        batch: StepBatch<SettingsOp>,
    ) -> Result<Commit<SettingsResult>, StoreError> {
        let StepBatch { digest, at_ms, now_ms, ops } = batch;
        context.parts.store.put_settings(context.kind(), SettingsBatch { digest, at_ms, now_ms, ops }).await
    }

    fn is_new(outcome: &SettingsResult) -> bool {
        matches!(outcome, SettingsResult::Done(SettingsOutcome { replayed: false, .. }))
    }

    fn outcome(outcome: &SettingsResult) -> &'static str {
        match outcome {
            SettingsResult::Done(SettingsOutcome { replayed: true, .. }) => "replayed",
            SettingsResult::Done(_) => "set",
            SettingsResult::TargetMissing => "missing",
            SettingsResult::TargetNotLoaded => "cold",
            SettingsResult::IdempotencyConflict => "conflict",
        }
    }

    fn settle(
        &self,
        context: &KindContext,
        request: &PutRequest,
        _nothing: &mut (),
        outcome: SettingsResult,
    ) -> Settled<Self> {
        match outcome {
            SettingsResult::Done(done) => {
                let (partition, position) = (context.partition(&request.member), done.position);
                Settled::Done { done, partition, position }
            }
            SettingsResult::TargetNotLoaded => Settled::NotLoaded(vec![request.member.clone()]),
            SettingsResult::TargetMissing => Settled::Refused(Refusal::TargetMissing),
            SettingsResult::IdempotencyConflict => Settled::Refused(Refusal::IdempotencyConflict),
        }
    }

    fn reply(written: Written<Self>, durability: DurabilityLevel) -> PutReply {
        let Written { done, receipt, at_ms, .. } = written;
        PutReply { durability: durability.as_str(), receipt, replayed: done.replayed, at_ms }
    }

    fn fold(table: &KindTable) -> Option<Box<dyn Fold>> {
        matches!(table, KindTable::Preference(_)).then(|| Box::<fold::SettingsFold>::default() as Box<dyn Fold>)
    }
}

impl Kind<Preference> {
    /// Room for the body of a look-up, until the permit is dropped.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] when too much is held already.
    pub fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        Arc::clone(&self.capability().bodies)
            .try_acquire_many_owned(permits)
            .map_err(|_| shed("preference.lookup_body_bytes_max"))
    }

    /// The right to a streamed look-up, until the permit is dropped.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] when there are too many already.
    pub fn begin_stream(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.capability().streams).try_acquire_owned().map_err(|_| shed("preference.streams_max"))
    }

    /// What holds of each field of a member, in the order of the configuration's.
    ///
    /// # Errors
    /// [`Refusal::TargetMissing`] where there is a table of members and the member is not in it; else what store or SQL do
    /// not answer.
    pub async fn read(&self, member: &Id) -> Result<Vec<(String, Setting)>, Refusal> {
        let mut found = self.capability().lookups.fetch(vec![member.clone()]).await;
        let settings = found.pop().unwrap_or(Err(Refusal::StoreUnavailable))?.ok_or(Refusal::TargetMissing)?;
        let fields = self.config().table.fields.iter();
        Ok(fields
            .map(|field| {
                let value = settings.get(&field.name).map(SettingRef::to_setting);
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
        self.capability().lookups.topic(name).await
    }

    /// Who of `members` has the topic enabled. The same member twice is looked up once. See [`Looked`].
    ///
    /// # Errors
    /// [`Refusal::PolicyFailed`]. What cannot be read fails its members, and not the call.
    pub async fn lookup(&self, topic: &Topic, members: &[Id]) -> Result<Looked, Refusal> {
        self.capability().lookups.lookup(topic, members).await
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

/// What makes a request the same request: fields and values, whatever their order.
fn asked(settings: &Settings) -> String {
    serde_json::Value::Object(settings.to_json()).to_string()
}

fn shed(limit: &'static str) -> Refusal {
    counter!(telemetry::SHED_TOTAL, "limit" => limit).increment(1);
    Refusal::Overloaded { queue: limit }
}
