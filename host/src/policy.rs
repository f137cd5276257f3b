//! The policy engine: runs the rules, which live in WebAssembly components, and trusts nothing that they return.
//!
//! Tier 2: imports tiers 0 and 1. Never imports store or sql: what a granted import does comes in through `grants`.
//! Never does I/O for a guest that was not granted.
//!
//! - by lifetime: `engine` (process) · `module` (per component) · `instance`, `call` and `turn` (per call). `compiler` turns a
//!   component into code; `bindings` holds the only `bindgen!`, `imports` what stands behind the granted ones; `builtin`
//!   holds the default component; `space` says what fits into a limited address space.
//! - by interface: `interface` has a file for each, with all that crosses the border there; `convert` and `record` have what
//!   they share. `decide` is the one way of a batch to its rules, `flush` that of a plan and of what is coalesced; `contract` is
//!   what a kind asks of answers besides; `breaker` keeps calls from a module that fails.
//! - `life`: registry on disk, gate, activation, rollback, the watched directory.
//! - `trial`: test vectors, shadow, canary, the decision log.
//! - `offline`: what is asked of a component without a host.

mod admission;
mod bindings;
mod breaker;
mod builtin;
mod cache;
mod call;
mod compiler;
mod contract;
mod convert;
mod decide;
mod delivery;
mod engine;
mod flush;
mod grants;
mod imports;
mod instance;
mod interface;
mod life;
mod log_gate;
mod module;
mod nearest;
mod observe;
mod offline;
mod outline;
mod record;
mod refusal;
mod said;
mod space;
#[cfg(test)]
mod tests;
mod trace;
mod trial;
mod turn;
mod wasi;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use metrics::counter;
use weir_default_policy::{delivery as delivery_rules, rules};

use crate::config::{BuiltinRules, PolicyFailure};
use crate::model::{CountRule, Digest, Document, Hit, Intent, ToggleRule, Violation};
use crate::telemetry::POLICY_FALLBACKS_TOTAL;
use life::control::Control;
use life::loader::Loader;
use life::saver::Saver;
use life::set::{Active, LiveSet};
use module::Module;
use trial::observer::Observer;

pub use breaker::OpenBreaker;
pub use compiler::{CHILD_COMMAND, ChildArguments, Compiler, child_main};
pub use contract::Contract;
pub use grants::{Capabilities, GrantError, GuestKeys, GuestStatements, RowSets};
pub use life::control::{ControlError, ModuleUpload};
pub use life::start::PolicySetup;
pub use module::{Failing, ModuleInfo};
pub use offline::purity::{PurityReport, check_purity};
pub use offline::{Difference, ReplayReport, TestReport, check, check_file, replay_file, test_file};
pub use outline::SOURCE_SECTION;
pub use refusal::LoadError;
pub use trial::vectors::CaseReport;
pub use weir_policy_vectors::{NAME_SECTION, VERSION_SECTION};

/// What was decided for a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided<R> {
    /// Index-aligned with the batch, same length.
    pub rules: Vec<R>,
    /// The module that decided.
    pub decider: Decider,
}

/// What a policy says of a document: as it is, as it is normalised, or why not.
pub type Verdict = Result<Option<Arc<str>>, Vec<Violation>>;

/// Who decided a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decider {
    /// One module all of it.
    One(Digest),
    /// A canary some of it, or what stands in for a module that failed on the way: index-aligned with the batch. All intents
    /// and hits on one target have one decider.
    Each(Vec<Digest>),
}

/// When to flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushPlan {
    /// Flush what waits now.
    pub flush_now: bool,
    /// At most so many changes at once (the host's adaptive batch may be smaller).
    pub changes_max: u32,
    /// Look again after so many milliseconds, unless woken by new changes.
    pub look_again_ms: u32,
}

/// Which entries survive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coalesced {
    /// Ascending indexes into the changes: exactly the last one of each (target, actor) pair.
    pub kept: Vec<usize>,
    /// The module failed or broke the contract, and the host's own rule was used.
    pub fell_back: bool,
}

/// The module failed, and the kind says to refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy module {digest} failed in {interface}: {reason}")]
pub struct PolicyError {
    /// The module.
    pub digest: Digest,
    /// The interface that was called.
    pub interface: &'static str,
    /// Trap, deadline, or the broken contract.
    pub reason: String,
}

/// What the rules may know of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindPolicy {
    /// Its name.
    pub kind: String,
    /// What a module reads through its `config` import.
    pub settings: BTreeMap<String, String>,
    /// What a batch gets when the module fails.
    pub on_failure: PolicyFailure,
}

/// The rules in force. A pure module is called where the caller runs: deciding takes microseconds, and never longer than
/// `policy.call_deadline_ms` twice (once to wait for an instance, once to run). A module that does I/O is called on a
/// thread that may wait. Coalescing takes a microsecond or two for each change, and may take a deadline for each started
/// 1,000 of them: call it where a thread may be busy for that long.
pub struct Policies {
    kinds: HashMap<String, KindRules>,
    builtin_digest: Digest,
    builtin: BuiltinRules,
    /// What serves where nothing was activated.
    base: LiveSet,
    /// Swapped as a whole; a call keeps the one it began with.
    active: RwLock<Arc<Active>>,
    loader: Loader,
    control: Control,
    observer: Observer,
    saver: Saver,
    decision_share: f64,
    contracts: contract::Contracts,
    fallbacks: AtomicU64,
}

/// What is native of a kind.
struct KindRules {
    settings: rules::Settings,
    delivery: delivery_rules::Settings,
    /// The fields of each topic, separated by commas.
    topics: BTreeMap<String, String>,
    on_failure: PolicyFailure,
}

impl Policies {
    /// One rule for each intent. Fails when the module does and the kind says to refuse then; a kind that was not
    /// given to [`Policies::load`] refuses.
    ///
    /// # Errors
    /// What the module did, and that nobody stands in for it.
    pub async fn decide_toggles(
        self: &Arc<Self>,
        kind: &str,
        now_ms: u64,
        batch: &[Intent],
    ) -> Result<Decided<ToggleRule>, PolicyError> {
        self.decide(kind, now_ms, batch).await
    }

    /// One rule for each hit; else as [`Policies::decide_toggles`].
    ///
    /// # Errors
    /// See [`Policies::decide_toggles`].
    pub async fn decide_counts(
        self: &Arc<Self>,
        kind: &str,
        now_ms: u64,
        batch: &[Hit],
    ) -> Result<Decided<CountRule>, PolicyError> {
        self.decide(kind, now_ms, batch).await
    }

    /// A verdict for each document; else as [`Policies::decide_toggles`]. What is normalised is a JSON object that keeps
    /// the kind's [`Contract`]. Documents of more than 32 KiB are judged on a
    /// thread that may be busy; those that one call cannot carry (see `policy.transfer_bytes_max`) in several.
    ///
    /// # Errors
    /// See [`Policies::decide_toggles`]: one failed call is a failure of the whole batch.
    pub async fn validate(
        self: &Arc<Self>,
        kind: &str,
        now_ms: u64,
        batch: &[Document],
    ) -> Result<Decided<Verdict>, PolicyError> {
        self.decide(kind, now_ms, batch).await
    }

    fn runs_natively(&self, module: &Module) -> bool {
        self.builtin == BuiltinRules::Native && module.digest == self.builtin_digest
    }

    fn active(&self) -> Arc<Active> {
        Arc::clone(&self.active.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Batches that something else decided, because the live module failed, since the start.
    pub fn fallbacks(&self) -> u64 {
        self.fallbacks.load(Ordering::Relaxed)
    }

    fn count_fallback(&self, kind: &str, to: &'static str) {
        self.fallbacks.fetch_add(1, Ordering::Relaxed);
        counter!(POLICY_FALLBACKS_TOTAL, "kind" => kind.to_owned(), "to" => to).increment(1);
    }
}
