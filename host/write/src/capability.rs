//! The write path, once: what a capability says of itself, and everything that all of them do alike.
//!
//! Stands below the capabilities. Never imports a capability, flush or http. Holds no rule and no state
//! of a kind.
//!
//! A capability implements [`Capability`] and is listed in `write`. [`Kind`] takes a request through the path: submit → decide
//! → store step → hydrate what was not loaded, and again → receipt → durability level → reply.
//!
//! - `kind`: the way of one request.
//! - `batch`: the way of what is concurrent: one policy call, one store step.
//! - `steps`: into which store steps a batch goes; the rules are asked of each item once.
//! - `context`: what a kind is made of, and the ways in which store and SQL fail a request.
//! - `fit`: what SQL could never take is refused at the door.
//! - `hydrate`: what the store does not know is read from SQL, in bulk, under the law of hydration.
//! - `idempotency`: what makes a request the same request.
//! - `receipt`: a place in the journal, and waiting until SQL has got there.
//! - `fold`: what a flush makes of a capability's changes.
//! - `plug`: a capability without its types, as the list holds it.
//! - `explain`: everything that is known of a target.

mod batch;
mod context;
mod explain;
mod fit;
mod fold;
mod hydrate;
mod idempotency;
mod kind;
mod plug;
mod receipt;
mod steps;

use std::future::Future;
use std::sync::Arc;

use weir_core::config::{Config, ConfigError, DurabilityLevel, KindTable};
use weir_core::error::Refusal;
use weir_core::model::{Digest, Partition, Position};
use weir_policy::{Decided, KindPolicy};
use weir_store::{Commit, Idempotency, StoreError};

pub use context::{KindContext, KindParts};
pub use explain::{Explained, dead_letter, explain, journal_hole};
pub use fit::Fit;
pub use fold::{Fold, NoFold, OtherCapability};
pub use hydrate::{Hydrations, Hydrator, Load, hydrate_all, put_targets};
pub use idempotency::RequestKey;
pub use kind::{Kind, Written};
pub use plug::{Plug, WrittenKinds};
pub use receipt::Receipt;

/// A capability that is written behind. Its value is one kind of it: the configuration, and what only this capability needs.
///
/// Everything here is plain data or short: who waits for what, in which batches, and how failures are reported is [`Kind`]'s.
/// Types and functions are known at compile time, so that the path of a request is one future, without a box.
pub trait Capability: Sized + Send + Sync + 'static {
    /// Its one name.
    const NAME: &'static str;
    /// The queue of its writes, in refusals and metrics.
    const QUEUE: &'static str;
    /// The store's operation, in metrics.
    const OPERATION: &'static str;
    /// What becomes of its writes, in metrics.
    const OUTCOMES: Outcomes;
    /// Whether the rules are asked of each request. They are asked once: what they said stays with the request while what the
    /// store does not know is loaded.
    const IS_RULED: bool = true;
    /// Whether who waits for the level `stored` has the flush begin at once; otherwise it begins when the rules plan it.
    const FLUSHES_FOR_WAITERS: bool = true;
    /// Bytes of one store step at most, unless one operation alone has more: what one call may hold a store up.
    const STEP_BYTES_MAX: usize = usize::MAX;

    /// What is configured of a kind.
    type Config: Clone + Send + Sync + 'static;
    /// What a caller asks for.
    type Request: Send + Sync;
    /// A request that was checked: it goes into a batch, more than once where something must be loaded first.
    type Prepared: Clone + Send + Sync + 'static;
    /// What the rules see of a request.
    type Subject: Send + Sync;
    /// What the rules say of one.
    type Ruling: Clone + Send + Sync + 'static;
    /// What the store is to do.
    type Op: Send;
    /// What the store made of it.
    type Outcome: Send + 'static;
    /// What is left of an outcome that answers the request.
    type Done: Send + Sync;
    /// What the caller gets.
    type Reply: Send;
    /// Why a caller gets nothing.
    type Refusal: From<Refusal> + Clone + Send + 'static;
    /// How it reads what the store does not know.
    type Load: Load;

    /// The kinds that are configured.
    fn configs(config: &Config) -> &[Self::Config];

    /// The kinds that are configured, to be changed.
    fn configs_mut(config: &mut Config) -> &mut [Self::Config];

    /// The name of a kind.
    fn kind(config: &Self::Config) -> &str;

    /// The name of a kind, to be changed.
    fn kind_mut(config: &mut Self::Config) -> &mut String;

    /// What policy modules learn of a kind.
    fn rules(config: &Self::Config) -> KindPolicy;

    /// Whether a kind can be started, before anything is opened.
    ///
    /// # Errors
    /// What is wrong with it.
    fn check_config(_config: &Self::Config) -> Result<(), ConfigError> {
        Ok(())
    }

    /// Starts a kind on the current runtime.
    ///
    /// # Errors
    /// What is wrong with its configuration.
    fn start(config: Self::Config, context: &Arc<KindContext>) -> Result<Self, ConfigError>;

    /// Its configuration.
    fn config(&self) -> &Self::Config;

    /// The level that a reply waits for.
    fn durability(&self) -> DurabilityLevel;

    /// How it reads what the store does not know.
    fn load(&self, context: &Arc<KindContext>) -> Arc<Self::Load>;

    /// Refuses what SQL could never take, before anything is done.
    fn check(
        &self,
        context: &KindContext,
        request: &Self::Request,
    ) -> impl Future<Output = Result<(), Self::Refusal>> + Send;

    /// Makes a request ready for a batch.
    ///
    /// # Errors
    /// What is wrong with it.
    fn prepare(&self, context: &KindContext, request: Self::Request) -> Result<Self::Prepared, Self::Refusal>;

    /// A batch has ended, whatever it made of the request.
    fn submitted(&self, _request: &Self::Prepared) {}

    /// What the rules see of a request, and its idempotency key.
    fn subject(&self, context: &KindContext, request: Self::Prepared) -> (Self::Subject, Option<Idempotency>);

    /// Asks the rules of a whole batch, in one call. Index-aligned with `subjects`.
    fn decide(
        &self,
        context: &KindContext,
        at_ms: u64,
        subjects: &[Self::Subject],
    ) -> impl Future<Output = Result<Decided<Self::Ruling>, Refusal>> + Send;

    /// The operation of a subject under its ruling. The ruling stays with the request until it is answered; what can not be
    /// needed again may be taken out of it.
    ///
    /// # Errors
    /// Why the rules refuse it.
    fn op(
        &self,
        subject: Self::Subject,
        ruling: &mut Self::Ruling,
        idempotency: Option<Idempotency>,
    ) -> Result<Self::Op, Self::Refusal>;

    /// The partition of an operation.
    fn partition(context: &KindContext, op: &Self::Op) -> Partition;

    /// How many outcomes an operation is counted as.
    fn amount(_op: &Self::Op) -> u64 {
        1
    }

    /// Bytes of an operation, where a store step is bounded by them.
    fn bytes(_op: &Self::Op) -> usize {
        0
    }

    /// One atomic step of the store. Index-aligned with the operations.
    fn step(
        &self,
        context: &KindContext,
        batch: StepBatch<Self::Op>,
    ) -> impl Future<Output = Result<Commit<Self::Outcome>, StoreError>> + Send;

    /// Whether an outcome has put something new into the journal.
    fn is_new(outcome: &Self::Outcome) -> bool;

    /// The outcome, as one of [`Capability::OUTCOMES`].
    fn outcome(outcome: &Self::Outcome) -> &'static str;

    /// What an outcome means for its request. What a request that is done needs no more may be taken out of the ruling.
    fn settle(
        &self,
        context: &KindContext,
        request: &Self::Prepared,
        ruling: &mut Self::Ruling,
        outcome: Self::Outcome,
    ) -> Settled<Self>;

    /// The reply to what was written, and the level that was reached.
    fn reply(written: Written<Self>, durability: DurabilityLevel) -> Self::Reply;

    /// An empty fold for the tables of a kind; `None` where they are of another capability.
    fn fold(table: &KindTable) -> Option<Box<dyn Fold>>;
}

/// The metric that counts what became of writes.
pub struct Outcomes {
    /// Its name.
    pub metric: &'static str,
    /// The values of its label `outcome`.
    pub labels: &'static [&'static str],
}

/// Operations for one step of the store, decided by one module, to be applied in order.
pub struct StepBatch<Op> {
    /// The module that decided them.
    pub digest: Digest,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// The time that never jumps, in milliseconds.
    pub now_ms: u64,
    /// The operations.
    pub ops: Vec<Op>,
}

/// What an outcome of the store means for its request.
pub enum Settled<C: Capability> {
    /// It is done: what the reply needs, and where it lies in the journal.
    Done {
        /// What the reply needs.
        done: C::Done,
        /// The partition.
        partition: Partition,
        /// The entry.
        position: Position,
    },
    /// Nothing was done: the store does not know these. They are loaded, and the request is submitted again.
    NotLoaded(Vec<<C::Load as Load>::Miss>),
    /// It is refused.
    Refused(C::Refusal),
}
