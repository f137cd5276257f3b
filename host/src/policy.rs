//! The policy engine: runs the rules, which live in WebAssembly components, and trusts nothing that they return.
//!
//! Tier 2: imports tiers 0 and 1. Never imports store or sql: what a granted import does comes in through `grants`.
//! Never does I/O for a guest that was not granted.
//!
//! - by lifetime: `engine` (process) · `module` (per component) · `instance` and `call` (per call). `compiler` turns a
//!   component into code; `bindings` holds the only `bindgen!`, `imports` what stands behind the granted ones; `convert`
//!   checks and converts what crosses the border; `builtin` holds the default component and the same rules natively.
//! - `life`: registry on disk, gate, activation, rollback, the watched directory.
//! - `trial`: test vectors, shadow, canary, the decision log.
//! - `offline`: what is asked of a component without a host.

mod bindings;
mod builtin;
mod call;
mod compiler;
mod convert;
mod engine;
mod grants;
mod imports;
mod instance;
mod interface;
mod life;
mod log_gate;
mod module;
mod observe;
mod offline;
mod outline;
mod record;
mod refusal;
#[cfg(test)]
mod tests;
mod trial;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use metrics::counter;
use weir_default_policy::rules;
use weir_policy_vectors::Answer;

use crate::config::{BuiltinRules, PolicyFailure};
use crate::model::{Backlog, Digest, Intent, ToggleChange, ToggleRule};
use crate::telemetry::POLICY_FALLBACKS_TOTAL;
use call::Role;
use interface::Interface;
use life::control::Control;
use life::loader::Loader;
use life::saver::Saver;
use life::set::{Active, LiveSet};
use module::Module;
use trial::Trial;
use trial::observer::Observer;

pub use compiler::{CHILD_COMMAND, Compiler, child_main};
pub use grants::{Capabilities, GrantError, GuestKeys, GuestStatements, RowSets};
pub use life::control::{ControlError, ModuleUpload};
pub use life::start::PolicySetup;
pub use module::ModuleInfo;
pub use offline::{
    Difference, PurityReport, ReplayReport, TestReport, check, check_file, check_purity, replay_file, test_file,
};
pub use outline::SOURCE_SECTION;
pub use refusal::LoadError;
pub use trial::vectors::CaseReport;
pub use weir_policy_vectors::{NAME_SECTION, VERSION_SECTION};

/// Rules for a batch of intents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecidedToggles {
    /// Index-aligned with the batch, same length.
    pub rules: Vec<ToggleRule>,
    /// The module that decided.
    pub decider: Decider,
}

/// Who decided a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decider {
    /// One module all of it.
    One(Digest),
    /// A canary some of it: index-aligned with the batch. All intents on one target have one decider.
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
    fallbacks: AtomicU64,
}

/// What is native of a kind.
struct KindRules {
    settings: rules::Settings,
    on_failure: PolicyFailure,
}

impl Policies {
    /// One rule for each intent. Fails when the module does and the kind says to refuse then; a kind that was not
    /// given to [`Policies::load`] refuses.
    pub async fn decide_toggles(
        self: &Arc<Self>,
        kind: &str,
        now_ms: u64,
        batch: &[Intent],
    ) -> Result<DecidedToggles, PolicyError> {
        let active = self.active();
        if !active.does_io(Interface::Toggle) {
            return self.decide(&active, kind, now_ms, batch);
        }
        let (policies, owned_kind, batch) = (Arc::clone(self), kind.to_owned(), batch.to_vec());
        let digest = active.live.toggle.module.digest;
        let decided = tokio::task::spawn_blocking(move || policies.decide(&active, &owned_kind, now_ms, &batch)).await;
        decided.unwrap_or_else(|error| {
            Err(PolicyError { digest, interface: Interface::Toggle.name(), reason: format!("the call ended: {error}") })
        })
    }

    fn decide(
        &self,
        active: &Active,
        kind: &str,
        now_ms: u64,
        batch: &[Intent],
    ) -> Result<DecidedToggles, PolicyError> {
        let canary = active.canary.as_ref().filter(|canary| canary.module.exports(Interface::Toggle));
        let Some(canary) = canary else {
            let (rules, digest) = self.decide_live(active, kind, now_ms, batch)?;
            return Ok(DecidedToggles { rules, decider: Decider::One(digest) });
        };
        let of_canary: Vec<bool> = batch.iter().map(|intent| canary.takes(&intent.target)).collect();
        let part = |wanted: bool| -> Vec<Intent> {
            let both = batch.iter().zip(&of_canary);
            both.filter(|(_, of_canary)| **of_canary == wanted).map(|(intent, _)| intent.clone()).collect()
        };
        let (rest_rules, rest_digest) = self.decide_live(active, kind, now_ms, &part(false))?;
        let (canary_rules, canary_digest) = self.decide_canary(active, canary, kind, now_ms, &part(true))?;
        let (mut rest_rules, mut canary_rules) = (rest_rules.into_iter(), canary_rules.into_iter());
        let next = |of_canary: &bool| if *of_canary { canary_rules.next() } else { rest_rules.next() };
        let rules = of_canary.iter().filter_map(next).collect();
        let digest = |of_canary: &bool| if *of_canary { canary_digest } else { rest_digest };
        Ok(DecidedToggles { rules, decider: Decider::Each(of_canary.iter().map(digest).collect()) })
    }

    /// The canary decides; the live module where it fails, so that no request pays for the trial.
    fn decide_canary(
        &self,
        active: &Active,
        canary: &Arc<Trial>,
        kind: &str,
        now_ms: u64,
        batch: &[Intent],
    ) -> Result<(Vec<ToggleRule>, Digest), PolicyError> {
        if batch.is_empty() {
            return Ok((Vec::new(), canary.module.digest));
        }
        let outcome = canary.module.decide(Role::Canary, kind, now_ms, batch);
        self.judge_canary(canary, &outcome);
        match outcome {
            Ok(answered) => {
                self.observe_canary(active, canary, Interface::Toggle, batch.len(), answered.elapsed, || {
                    (record::decide(kind, now_ms, batch), record::rules(&answered.answer))
                });
                Ok((answered.answer, canary.module.digest))
            }
            Err(_) => self.decide_live(active, kind, now_ms, batch),
        }
    }

    fn decide_live(
        &self,
        active: &Active,
        kind: &str,
        now_ms: u64,
        batch: &[Intent],
    ) -> Result<(Vec<ToggleRule>, Digest), PolicyError> {
        let module = &active.live.toggle.module;
        if batch.is_empty() {
            return Ok((Vec::new(), module.digest));
        }
        if let Some(kind) = self.kinds.get(kind).filter(|_| self.runs_natively(module)) {
            return Ok((builtin::decide(&kind.settings, batch), module.digest));
        }
        let outcome = module.decide(Role::Live, kind, now_ms, batch);
        self.judge_live(active, module, &outcome);
        let failure = match outcome {
            Ok(answered) => {
                self.observe_live(active, module, Interface::Toggle, batch.len(), answered.elapsed, || {
                    (record::decide(kind, now_ms, batch), record::rules(&answered.answer))
                });
                return Ok((answered.answer, module.digest));
            }
            Err(failure) => failure,
        };
        if let Some(before) = active.before(module, Interface::Toggle)
            && let Ok(answered) = before.decide(Role::Live, kind, now_ms, batch)
        {
            self.count_fallback(kind, "previous");
            return Ok((answered.answer, before.digest));
        }
        match self.kinds.get(kind) {
            Some(KindRules { settings, on_failure: PolicyFailure::BuiltIn }) => {
                self.count_fallback(kind, "built-in");
                Ok((builtin::decide(settings, batch), self.builtin_digest))
            }
            _ => {
                self.count_fallback(kind, "deny");
                Err(PolicyError {
                    digest: module.digest,
                    interface: Interface::Toggle.name(),
                    reason: format!("{}: {}", failure.cause.as_str(), failure.reason),
                })
            }
        }
    }

    /// When to flush. Never fails: the built-in plan stands in for a module that does.
    pub async fn plan_flush(self: &Arc<Self>, kind: &str, now_ms: u64, backlog: &Backlog) -> FlushPlan {
        let active = self.active();
        if !active.does_io(Interface::Flush) {
            return self.plan(&active, kind, now_ms, backlog);
        }
        let (policies, owned_kind, owned) = (Arc::clone(self), kind.to_owned(), *backlog);
        let planned = tokio::task::spawn_blocking(move || policies.plan(&active, &owned_kind, now_ms, &owned)).await;
        planned.unwrap_or_else(|_| self.builtin_plan(kind, now_ms, backlog))
    }

    /// A plan concerns no target: the live module plans, and a canary is asked only to see whether it fails.
    fn plan(&self, active: &Active, kind: &str, now_ms: u64, backlog: &Backlog) -> FlushPlan {
        let asked = |canary: &&Arc<Trial>| canary.module.exports(Interface::Flush) && !canary.module.does_io;
        if let Some(canary) = active.canary.as_ref().filter(asked) {
            let outcome = canary.module.plan(Role::Canary, kind, now_ms, convert::backlog(backlog, now_ms));
            self.judge_canary(canary, &outcome);
        }
        let module = &active.live.flush.module;
        if self.runs_natively(module) {
            return self.builtin_plan(kind, now_ms, backlog);
        }
        let outcome = module.plan(Role::Live, kind, now_ms, convert::backlog(backlog, now_ms));
        self.judge_live(active, module, &outcome);
        match outcome {
            Ok(answered) => {
                self.observe_live(active, module, Interface::Flush, 1, answered.elapsed, || {
                    (record::flush_plan(kind, now_ms, backlog), record::plan(&answered.answer))
                });
                answered.answer
            }
            Err(_) => {
                self.count_fallback(kind, "built-in");
                self.builtin_plan(kind, now_ms, backlog)
            }
        }
    }

    fn builtin_plan(&self, kind: &str, now_ms: u64, backlog: &Backlog) -> FlushPlan {
        let settings = self.kinds.get(kind).map_or_else(|| builtin::settings(&BTreeMap::new()), |kind| kind.settings);
        builtin::plan(&settings, now_ms, backlog)
    }

    /// Which changes are written. Never fails: the host's own choice stands in for a module that does.
    pub fn coalesce(&self, kind: &str, changes: &[ToggleChange]) -> Coalesced {
        let last = convert::last_of_each_pair(changes);
        let active = self.active();
        let canary = active.canary.as_ref().filter(|canary| canary.module.exports(Interface::Flush));
        let fell_back = match canary {
            _ if changes.is_empty() => false,
            None => self.coalesce_live(&active, kind, changes, &last),
            Some(canary) => {
                let (of_canary, rest): (Vec<_>, Vec<_>) =
                    changes.iter().cloned().partition(|change| canary.takes(&change.target));
                let fell_back =
                    !rest.is_empty() && self.coalesce_live(&active, kind, &rest, &convert::last_of_each_pair(&rest));
                self.coalesce_canary(&active, canary, kind, &of_canary);
                fell_back
            }
        };
        Coalesced { kept: last, fell_back }
    }

    fn coalesce_live(&self, active: &Active, kind: &str, changes: &[ToggleChange], last: &[usize]) -> bool {
        let module = &active.live.flush.module;
        if self.runs_natively(module) {
            return false;
        }
        let outcome = module.coalesce(Role::Live, kind, changes, last);
        self.judge_live(active, module, &outcome);
        match outcome {
            Ok(answered) => {
                self.observe_live(active, module, Interface::Flush, changes.len(), answered.elapsed, || {
                    (record::flush_coalesce(kind, changes), Answer::Kept(answered.answer))
                });
                false
            }
            Err(_) => {
                self.count_fallback(kind, "built-in");
                true
            }
        }
    }

    fn coalesce_canary(&self, active: &Active, canary: &Arc<Trial>, kind: &str, changes: &[ToggleChange]) {
        if changes.is_empty() {
            return;
        }
        let last = convert::last_of_each_pair(changes);
        let outcome = canary.module.coalesce(Role::Canary, kind, changes, &last);
        self.judge_canary(canary, &outcome);
        if let Ok(answered) = outcome {
            self.observe_canary(active, canary, Interface::Flush, changes.len(), answered.elapsed, || {
                (record::flush_coalesce(kind, changes), Answer::Kept(answered.answer))
            });
        }
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
