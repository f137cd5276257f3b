//! The policy engine: runs the rules, which live in WebAssembly components, and trusts nothing that they return.
//!
//! Tier 2: imports tiers 0 and 1. Never imports store or sql, never does I/O for a guest that was not granted.
//!
//! Structured by lifetime: `engine` (process) · `module` (per component loaded) · `instance` (per call). `bindings`
//! holds the only `bindgen!`; `convert` checks and converts what crosses the border; `builtin` holds the default
//! component and the same rules natively, to fall back on.

mod bindings;
mod builtin;
mod convert;
mod engine;
mod grants;
mod instance;
mod log_gate;
mod module;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use metrics::{counter, histogram};
use sha2::{Digest as _, Sha256};
use weir_default_policy::rules;

use crate::config::{PolicyConfig, PolicyFailure};
use crate::model::{Backlog, Digest, Intent, ToggleChange, ToggleRule};
use crate::telemetry::{POLICY_CALL_SECONDS, POLICY_FAILURES_TOTAL};
use convert::UuidTexts;
use engine::PolicyEngine;
use instance::{CallFailure, Cause, Warm};
use module::Module;

pub use grants::{Capabilities, GrantError, GuestKeys, GuestStatements, RowSets};
pub use module::{LoadError, ModuleInfo, SOURCE_SECTION};

/// Rules for a batch of intents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecidedToggles {
    /// Index-aligned with the batch, same length.
    pub rules: Vec<ToggleRule>,
    /// The module that decided.
    pub digest: Digest,
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

/// Changes that one deadline is for when a batch is coalesced: it is many times the size of a batch of requests.
const COALESCE_STEP: usize = 1_000;

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

/// The interfaces that the host calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interface {
    Toggle,
    Flush,
}

impl Interface {
    const ALL: [Self; 2] = [Self::Toggle, Self::Flush];

    /// For metrics and people.
    fn name(self) -> &'static str {
        match self {
            Self::Toggle => "toggle",
            Self::Flush => "flush",
        }
    }

    /// What a component calls it.
    fn export_name(self) -> &'static str {
        match self {
            Self::Toggle => "weir:policy/toggle@0.1.0",
            Self::Flush => "weir:policy/flush@0.1.0",
        }
    }

    /// The same with the compatible later patches.
    fn export_prefix(self) -> &'static str {
        match self {
            Self::Toggle => "weir:policy/toggle@0.1.",
            Self::Flush => "weir:policy/flush@0.1.",
        }
    }
}

/// The rules in force. Synchronous: deciding takes microseconds, and never longer than `policy.call_deadline_ms` twice
/// (once to wait for an instance, once to run). Coalescing takes a microsecond or two for each change, and may take a
/// deadline for each started 1,000 of them: call it where a thread may be busy for that long.
pub struct Policies {
    kinds: HashMap<String, KindRules>,
    builtin_digest: Digest,
    /// Swapped as a whole; a call keeps the one it began with.
    active: RwLock<Arc<Active>>,
}

/// What is native of a kind.
struct KindRules {
    settings: rules::Settings,
    on_failure: PolicyFailure,
}

/// Which module serves which interface.
struct Active {
    toggle: Arc<Module>,
    flush: Arc<Module>,
}

impl Active {
    /// `module` serves what it exports, the built-in component the rest.
    fn of(module: &Arc<Module>, builtin: impl FnOnce() -> Result<Arc<Module>, LoadError>) -> Result<Self, LoadError> {
        let all = Interface::ALL.into_iter().all(|interface| module.exports(interface));
        let rest = if all { Arc::clone(module) } else { builtin()? };
        let serves = |interface| Arc::clone(if module.exports(interface) { module } else { &rest });
        Ok(Self { toggle: serves(Interface::Toggle), flush: serves(Interface::Flush) })
    }
}

impl Policies {
    /// Loads the built-in component, or the one that `config` names; interfaces that it does not export stay with the
    /// built-in one. Takes as long as compiling does.
    pub fn load(config: &PolicyConfig, kinds: &[KindPolicy]) -> Result<Self, LoadError> {
        let engine = PolicyEngine::new(config)?;
        let settings = Arc::new(kinds.iter().map(|kind| (kind.kind.clone(), kind.settings.clone())).collect());
        let builtin = || Module::load(&engine, config, &settings, "built-in", builtin::COMPONENT).map(Arc::new);
        let active = match &config.component {
            None => {
                let module = builtin()?;
                Active { toggle: Arc::clone(&module), flush: module }
            }
            Some(path) => {
                let bytes = module::read(path, config.module_bytes_max)?;
                let source = path.display().to_string();
                let module = Module::load(&engine, config, &settings, &source, &bytes)?;
                Active::of(&Arc::new(module), builtin)?
            }
        };
        let native =
            |kind: &KindPolicy| KindRules { settings: builtin::settings(&kind.settings), on_failure: kind.on_failure };
        Ok(Self {
            kinds: kinds.iter().map(|kind| (kind.kind.clone(), native(kind))).collect(),
            builtin_digest: Digest(Sha256::digest(builtin::COMPONENT).into()),
            active: RwLock::new(Arc::new(active)),
        })
    }

    /// One rule for each intent. Fails when the module does and the kind says to refuse then; a kind that was not
    /// given to [`Policies::load`] refuses.
    pub fn decide_toggles(&self, kind: &str, now_ms: u64, batch: &[Intent]) -> Result<DecidedToggles, PolicyError> {
        let module = &self.active().toggle;
        if batch.is_empty() {
            return Ok(DecidedToggles { rules: Vec::new(), digest: module.digest });
        }
        let mut texts = UuidTexts::for_ids(batch.iter().flat_map(|intent| [&intent.target, &intent.actor]));
        let intents = convert::intents(batch, &mut texts);
        let call = |warm: &mut Warm| match &warm.toggle {
            Some(toggle) => toggle.call_decide(&mut warm.store, kind, now_ms, &intents),
            None => Err(not_exported()),
        };
        let check = |rules: Vec<bindings::toggle::Rule>| convert::check_rules(batch.len(), &rules);
        match run(module, Interface::Toggle, 1, call, check) {
            Ok(rules) => Ok(DecidedToggles { rules, digest: module.digest }),
            Err(failure) => match self.kinds.get(kind) {
                Some(KindRules { settings, on_failure: PolicyFailure::BuiltIn }) => {
                    Ok(DecidedToggles { rules: builtin::decide(settings, batch), digest: self.builtin_digest })
                }
                _ => Err(PolicyError {
                    digest: module.digest,
                    interface: Interface::Toggle.name(),
                    reason: format!("{}: {}", failure.cause.as_str(), failure.reason),
                }),
            },
        }
    }

    /// When to flush. Never fails: the built-in plan stands in for a module that does.
    pub fn plan_flush(&self, kind: &str, now_ms: u64, backlog: &Backlog) -> FlushPlan {
        let module = &self.active().flush;
        let waiting = convert::backlog(backlog, now_ms);
        let call = |warm: &mut Warm| match &warm.flush {
            Some(flush) => flush.call_plan(&mut warm.store, kind, now_ms, waiting),
            None => Err(not_exported()),
        };
        run(module, Interface::Flush, 1, call, convert::check_plan).unwrap_or_else(|_| {
            let settings =
                self.kinds.get(kind).map_or_else(|| builtin::settings(&BTreeMap::new()), |kind| kind.settings);
            builtin::plan(&settings, now_ms, backlog)
        })
    }

    /// Which changes are written. Never fails: the host's own choice stands in for a module that does.
    pub fn coalesce(&self, kind: &str, changes: &[ToggleChange]) -> Coalesced {
        if changes.is_empty() {
            return Coalesced { kept: Vec::new(), fell_back: false };
        }
        let module = &self.active().flush;
        let mut texts = UuidTexts::for_ids(changes.iter().flat_map(|change| [&change.target, &change.actor]));
        let entries = convert::entries(changes, &mut texts);
        let call = |warm: &mut Warm| match &warm.flush {
            Some(flush) => flush.call_coalesce(&mut warm.store, kind, &entries),
            None => Err(not_exported()),
        };
        let last = convert::last_of_each_pair(changes);
        let check = |kept: Vec<u32>| convert::check_kept(&last, changes.len(), &kept);
        let deadlines = changes.len().div_ceil(COALESCE_STEP) as u64;
        let fell_back = run(module, Interface::Flush, deadlines, call, check).is_err();
        Coalesced { kept: last, fell_back }
    }

    /// The modules in force, each with the interfaces that it serves.
    pub fn modules(&self) -> Vec<ModuleInfo> {
        let active = self.active();
        let mut modules: Vec<ModuleInfo> = Vec::new();
        for (module, interface) in [(&active.toggle, Interface::Toggle), (&active.flush, Interface::Flush)] {
            let info = module.info();
            match modules.iter_mut().find(|known| known.digest == info.digest) {
                Some(known) => known.interfaces.push(interface.name()),
                None => modules.push(ModuleInfo { interfaces: vec![interface.name()], ..info }),
            }
        }
        modules
    }

    fn active(&self) -> Arc<Active> {
        Arc::clone(&self.active.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Validates a component as [`Policies::load`] does, and starts an instance of it.
pub fn check(config: &PolicyConfig, bytes: &[u8]) -> Result<ModuleInfo, LoadError> {
    // One instance shows as much as several.
    let config = PolicyConfig { instances: 1, ..config.clone() };
    let engine = PolicyEngine::new(&config)?;
    Module::load(&engine, &config, &bindings::Settings::default(), "given", bytes).map(|module| module.info())
}

/// The same for a file.
pub fn check_file(config: &PolicyConfig, path: &Path) -> Result<ModuleInfo, LoadError> {
    let info = check(config, &module::read(path, config.module_bytes_max)?)?;
    Ok(ModuleInfo { source: path.display().to_string(), ..info })
}

/// Calls a module, measures, checks the answer, and counts what fails.
fn run<Raw, Answer>(
    module: &Module,
    interface: Interface,
    deadlines: u64,
    call: impl FnOnce(&mut Warm) -> wasmtime::Result<Raw>,
    check: impl FnOnce(Raw) -> Result<Answer, String>,
) -> Result<Answer, CallFailure> {
    let started = Instant::now();
    let answered = module.pool.call(deadlines, call);
    histogram!(POLICY_CALL_SECONDS, "interface" => interface.name()).record(started.elapsed().as_secs_f64());
    let checked = answered.and_then(|raw| check(raw).map_err(CallFailure::contract));
    if let Err(failure) = &checked {
        counter!(POLICY_FAILURES_TOTAL, "interface" => interface.name(), "cause" => failure.cause.as_str())
            .increment(1);
        // Too many callers are no fault of the module.
        if failure.cause != Cause::Busy {
            module.failed(interface, failure);
        }
    }
    checked
}

/// Cannot happen: a module serves only what it exports.
fn not_exported() -> wasmtime::Error {
    wasmtime::Error::msg("the module does not export this interface")
}
