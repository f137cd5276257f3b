//! From the configuration, the registry and the built-in component to the rules in force.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock, Weak};

use tokio::runtime::Handle;
use weir_policy_vectors::{Answer, Call, Decision};

use super::audit::AuditTrail;
use super::control::{BUILT_IN, Control};
use super::loader::{Loader, Times, parse_digest, settings};
use super::registry::Registry;
use super::saver;
use super::set::{Active, LiveSet, Probation, SavedProbation, SavedServing, SavedTrial, Serving};
use crate::clock::Clock;
use crate::config::PolicyConfig;
use crate::model::Digest;
use crate::policy::builtin;
use crate::policy::call::{Outcome, Role};
use crate::policy::compiler::Compiler;
use crate::policy::contract::Contracts;
use crate::policy::engine::Metering;
use crate::policy::grants::Capabilities;
use crate::policy::imports::Imports;
use crate::policy::instance::Cause;
use crate::policy::interface::Interface;
use crate::policy::module::{Label, Module, Unfit, digest_of};
use crate::policy::outline;
use crate::policy::refusal::LoadError;
use crate::policy::trial::Trial;
use crate::policy::trial::comparison::{Comparison, decisions, differences};
use crate::policy::trial::decisions::DecisionLog;
use crate::policy::trial::judge::Judge;
use crate::policy::trial::observer::{self, Job, Jobs};
use crate::policy::{KindPolicy, Policies};

/// What a host gives to its rules.
#[derive(Clone)]
pub struct PolicySetup {
    /// Where components are compiled.
    pub compiler: Compiler,
    /// What stands behind the granted imports; without, they are unavailable.
    pub capabilities: Option<(Capabilities, Handle)>,
    /// Only to look whether everything loads: nothing is written into the registry.
    pub is_look: bool,
}

impl Default for PolicySetup {
    fn default() -> Self {
        Self { compiler: Compiler::InProcess, capabilities: None, is_look: false }
    }
}

impl Policies {
    /// Loads what was active last; where nothing was, the component that `config` names, and the built-in one for
    /// interfaces that it does not export. Takes as long as compiling does, on a thread that may wait.
    ///
    /// What was active and does not fit any more stops nothing: see [`Policies::modules`] and `ModuleInfo::unfit`.
    ///
    /// # Errors
    /// A configured component that is refused as a whole; a registry that cannot be read.
    pub fn load(config: &PolicyConfig, kinds: &[KindPolicy], setup: PolicySetup) -> Result<Arc<Self>, LoadError> {
        let PolicySetup { compiler, capabilities, is_look } = setup;
        let settings = settings(kinds.iter());
        let loader = Loader::new(config, settings, compiler.clone(), capabilities, Metering::None)?;
        let opened = if is_look { Registry::look(&config.registry) } else { Registry::open(&config.registry) };
        let registry = opened.map_err(|reason| LoadError::Registry { reason })?;
        let trail = AuditTrail::new(&config.registry, config.audit.clone()).only_looked_at(is_look);
        let (base, left) = base(&loader)?;
        let mut restore = Restore { loader: &loader, registry: &registry, base: &base, loaded: HashMap::new(), left };
        let active = restore.active()?;
        let left = restore.left;
        let ((observer, jobs), (saver, changes)) = (observer::queue(), saver::queue());
        let policies = Arc::new(Self {
            kinds: kinds.iter().map(|kind| (kind.kind.clone(), builtin::kind_rules(kind))).collect(),
            builtin_digest: digest_of(builtin::COMPONENT),
            builtin: config.builtin,
            base,
            active: RwLock::new(Arc::new(active)),
            loader,
            control: Control::new(registry, trail),
            observer,
            saver,
            decision_share: config.decisions.share,
            contracts: Contracts::default(),
            fallbacks: AtomicU64::new(0),
        });
        let log = DecisionLog::new(&config.registry, config.decisions.bytes_max);
        let metered = Metered { compiler, loader: None, module: None, failed: None };
        start_observer(Arc::downgrade(&policies), jobs, log, metered)?;
        saver::start(Arc::downgrade(&policies), changes)?;
        for Left { what, module, reason } in left {
            policies.control.event(what, module, "weir", Some(reason));
        }
        policies.count_unfit();
        Ok(policies)
    }

    /// Begins to watch `policy.dir`, where one is configured, as long as the policies live.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn watch(self: &Arc<Self>) -> Result<(), LoadError> {
        match &self.loader.config.dir {
            Some(dir) => super::watch::start(Arc::downgrade(self), dir.clone()),
            None => Ok(()),
        }
    }
}

/// What serves where nothing was activated, and what of the configured component does not fit.
fn base(loader: &Loader) -> Result<(LiveSet, Vec<Left>), LoadError> {
    let mut times = Times::default();
    // The vectors of the built-in one are run when weir is tested: a start on a busy machine must not depend on the
    // deadlines of their calls.
    let built_in = |times: &mut Times| -> Result<Arc<Module>, LoadError> {
        let compiled = loader.compile(builtin::COMPONENT, None, times)?;
        let version = compiled.outline.version.clone();
        loader.start(&compiled, Label { name: BUILT_IN.to_owned(), version }, true, times)
    };
    let Some(path) = &loader.config.component else {
        let module = built_in(&mut times)?;
        return Ok((LiveSet::of(|_| Serving::base(&module)), Vec::new()));
    };
    let bytes = outline::read(path, loader.config.module_bytes_max)?;
    let carried = outline::inspect(&loader.config, &bytes)?.name;
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = carried.or(stem).unwrap_or_else(|| "configured".into());
    let compiled = loader.compile(&bytes, None, &mut times)?;
    let label = Label { name, version: compiled.outline.version.clone() };
    let (given, unfit) = loader.start_what_fits(&compiled, label.clone(), &mut times)?;
    if let Some(vectors) = compiled.vectors().filter(|_| unfit.is_empty()) {
        loader.check_vectors(&compiled, &[vectors], &mut times)?;
    }
    let all = Interface::ALL.into_iter().all(|interface| given.exports(interface));
    let rest = if all { Arc::clone(&given) } else { built_in(&mut times)? };
    let mut set = LiveSet::of(|interface| Serving::base(if given.exports(interface) { &given } else { &rest }));
    let mut left = Vec::new();
    for (interface, refusal) in unfit {
        let reason = refusal.to_string();
        set.set(interface, Serving::base(&Arc::new(Module::unfit(given.digest, label.clone(), &reason))));
        left.push(Left::unfit(given.title(), interface, reason));
    }
    Ok((set, left))
}

/// What is not as it was when the host ended, and why.
struct Left {
    what: &'static str,
    module: String,
    reason: String,
}

impl Left {
    /// A module that served an interface, and cannot any more.
    fn unfit(module: String, interface: Interface, reason: String) -> Self {
        let reason = format!(
            "{} has no module: what its kinds say of failures (on_policy_failure) answers until another one is activated; \
             it does not fit this weir: {reason}",
            interface.name()
        );
        Self { what: "unfit", module, reason }
    }
}

/// A module that served, as far as it can be had.
struct Restored {
    module: Option<Arc<Module>>,
    digest: Digest,
    label: Label,
    /// Why it is not there at all.
    reason: String,
    unfit: Vec<Unfit>,
}

impl Restored {
    /// What serves `interface`: the module, or one in its place whose every call fails, and why.
    fn serve(&self, interface: Interface) -> Result<Arc<Module>, (Arc<Module>, String)> {
        if let Some(module) = self.module.as_ref().filter(|module| module.exports(interface)) {
            return Ok(Arc::clone(module));
        }
        let unfit = self.unfit.iter().find(|(other, _)| *other == interface);
        let reason = match (unfit, &self.module) {
            (Some((_, refusal)), _) => refusal.to_string(),
            (None, Some(_)) => format!("it does not export {}", interface.export_name()),
            (None, None) => self.reason.clone(),
        };
        Err((Arc::new(Module::unfit(self.digest, self.label.clone(), &reason)), reason))
    }
}

/// Loads what was active when the host ended.
///
/// Nothing of it stops the host: a module of an older contract, or one that was damaged, is left where it cannot be called,
/// interface by interface, and said; its kinds answer as they say for failures. Its place in the set stays, so that it
/// serves again when it can. What only stood by (the set before, a canary, a shadow) is left out, and said.
struct Restore<'a> {
    loader: &'a Loader,
    registry: &'a Registry,
    base: &'a LiveSet,
    loaded: HashMap<String, Restored>,
    left: Vec<Left>,
}

impl Restore<'_> {
    fn active(&mut self) -> Result<Active, LoadError> {
        let saved = self.registry.saved().map_err(|reason| LoadError::Registry { reason })?;
        let (live, unfit) = self.set(&saved.serving);
        self.left.extend(unfit);
        let previous = saved.previous.as_ref().map(|previous| self.set(previous));
        let previous = previous.and_then(|set| self.whole(set));
        let canary = saved.canary.and_then(|canary| self.trial(&canary, true));
        let shadow = saved.shadow.and_then(|shadow| self.trial(&shadow, false));
        let probation = saved.probation.and_then(|saved| self.probation(&saved));
        Ok(Active { live, previous, probation, canary, shadow })
    }

    fn probation(&mut self, saved: &SavedProbation) -> Option<Arc<Probation>> {
        let proven = self.set(&saved.proven);
        let proven = self.whole(proven)?;
        let digests = saved.digests.iter().filter_map(|digest| parse_digest(digest)).collect();
        let mut loaded = self.loaded.values().filter_map(|restored| restored.module.as_ref());
        let does_io = loaded.any(|module| module.does_io);
        let bounds = self.loader.config.canary_bounds(does_io);
        let now_ms = Clock::Real.now_ms();
        // The clock may have been set back since: it is never longer than one that begins now.
        let until_ms = saved.until_ms.min(now_ms.saturating_add(self.loader.config.probation_ms));
        Probation::until(bounds, digests, proven, until_ms, now_ms).map(Arc::new)
    }

    /// A set that stands by, if all of it is there.
    fn whole(&mut self, (set, unfit): (LiveSet, Vec<Left>)) -> Option<LiveSet> {
        let first = unfit.into_iter().next();
        let is_whole = first.is_none();
        self.left.extend(first.map(|left| Left { what: "not-restored", ..left }));
        is_whole.then_some(set)
    }

    fn set(&mut self, saved: &BTreeMap<String, SavedServing>) -> (LiveSet, Vec<Left>) {
        let (mut set, mut left) = (self.base.clone(), Vec::new());
        for (name, saved) in saved {
            // An interface of a later weir: nothing here asks for it.
            let Some(interface) = Interface::from_name(name) else { continue };
            let module = self.restored(&saved.digest).serve(interface).unwrap_or_else(|(module, reason)| {
                left.push(Left::unfit(module.title(), interface, reason));
                module
            });
            set.set(interface, Serving { module, since_ms: saved.since_ms, by: Some(saved.by.clone()) });
        }
        (set, left)
    }

    fn restored(&mut self, digest: &str) -> &Restored {
        let (loader, registry) = (self.loader, self.registry);
        self.loaded.entry(digest.to_owned()).or_insert_with(|| {
            let record = registry.get(digest);
            let name = record.map_or_else(|| "a module".to_owned(), |record| record.name.clone());
            let label = Label { name, version: record.and_then(|record| record.version.clone()) };
            let (module, reason, unfit) = match loader.restore(registry, digest) {
                Ok((module, unfit)) => (Some(module), String::new(), unfit),
                Err(error) => (None, error.to_string(), Vec::new()),
            };
            Restored { module, digest: parse_digest(digest).unwrap_or_default(), label, reason, unfit }
        })
    }

    fn trial(&mut self, saved: &SavedTrial, write: bool) -> Option<Arc<Trial>> {
        match self.loader.restore_whole(self.registry, &saved.digest, write) {
            Ok(module) => {
                let judge = Judge::new(self.loader.config.canary_bounds(module.does_io));
                Some(Arc::new(Trial::new(module, saved.share, saved.since_ms, saved.by.clone(), judge)))
            }
            Err(error) => {
                let name = self.registry.get(&saved.digest).map_or("a module", |record| &record.name);
                let module = format!("{name} ({})", saved.digest.get(..12).unwrap_or(&saved.digest));
                self.left.push(Left { what: "not-restored", module, reason: error.to_string() });
                None
            }
        }
    }
}

fn start_observer(
    policies: Weak<Policies>,
    jobs: Jobs,
    mut log: DecisionLog,
    mut metered: Metered,
) -> Result<(), LoadError> {
    let work = move || {
        while let Some(job) = jobs.next() {
            match job {
                Job::Shadow { trial, call, live } => match ask_shadow(&policies, &trial, &call) {
                    Ok(answered) => {
                        let differing = differences(&call, &live.0, &answered.answer);
                        let compare = |comparison: &mut Comparison| {
                            comparison.compare(&call, live.1, answered.elapsed, differing);
                        };
                        trial.with_comparison(compare);
                    }
                    // Not compared: the shadow was not called.
                    Err(failure) if failure.cause == Cause::Open => trial.skip(),
                    Err(failure) => trial.with_comparison(|comparison| comparison.failed(&failure)),
                },
                Job::Canary { trial, live, call, candidate } => {
                    let asked = live.ask(Role::Test, &call, None).ok();
                    let both = asked.map(|asked| (differences(&call, &asked.answer, &candidate.0), asked.elapsed));
                    trial.with_comparison(|comparison| match both {
                        Some((differing, elapsed)) => comparison.compare(&call, elapsed, candidate.1, differing),
                        None => comparison.served(decisions(&call), candidate.1),
                    });
                }
                Job::Decision { module, at_ms, call, answer, elapsed } => {
                    let fuel = policies.upgrade().and_then(|policies| metered.fuel(&policies, &module, &call));
                    let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
                    let decision = Decision { at_ms, digest: module.digest.to_string(), call, answer, micros, fuel };
                    if let Err(error) = log.write(&decision) {
                        tracing::warn!(%error, "the decision log cannot be written");
                    }
                }
            }
        }
    };
    std::thread::Builder::new()
        .name("weir-policy-observe".into())
        .spawn(work)
        .map(drop)
        .map_err(|error| LoadError::Engine { reason: format!("cannot start a thread to observe on: {error}") })
}

/// The shadow is held to what the kind asks of whoever serves.
fn ask_shadow(policies: &Weak<Policies>, trial: &Trial, call: &Call) -> Outcome<Answer> {
    let contract = policies.upgrade().and_then(|policies| policies.contracts.of_call(call));
    let outcome = trial.module.ask(Role::Shadow, call, contract.as_deref());
    if let Some(policies) = policies.upgrade() {
        policies.tell_breakers(&trial.module);
    }
    outcome
}

/// Says how much fuel a call uses: the module that serves does not count it, so the call is run again where it is.
struct Metered {
    compiler: Compiler,
    loader: Option<Loader>,
    /// The one that was asked last.
    module: Option<Arc<Module>>,
    /// The one that could not be started: it is not tried for every decision.
    failed: Option<Digest>,
}

impl Metered {
    /// `None` for a module that does I/O: its call cannot be repeated.
    fn fuel(&mut self, policies: &Policies, module: &Module, call: &Call) -> Option<u64> {
        if module.does_io || self.failed == Some(module.digest) {
            return None;
        }
        if self.module.as_ref().is_none_or(|known| known.digest != module.digest) {
            self.module = self.start(policies, module);
            self.failed = self.module.is_none().then_some(module.digest);
        }
        self.module.as_ref()?.ask(Role::Test, call, None).ok()?.fuel
    }

    fn start(&mut self, policies: &Policies, module: &Module) -> Option<Arc<Module>> {
        let of = &policies.loader;
        if self.loader.is_none() {
            let (compiler, settings) = (self.compiler.clone(), Arc::clone(&of.settings));
            self.loader = Loader::new(&of.config, settings, compiler, None, Metering::Fuel).ok();
        }
        let loader = self.loader.as_ref()?;
        let digest = module.digest.to_string();
        let bytes = match policies.control.registry().bytes(&digest) {
            Ok(bytes) => bytes,
            Err(_) if module.digest == policies.builtin_digest => builtin::COMPONENT.to_vec(),
            Err(_) => outline::read(of.config.component.as_ref()?, of.config.module_bytes_max).ok()?,
        };
        let mut times = Times::default();
        let compiled = loader.compile(&bytes, None, &mut times).ok()?;
        // Muted: its lines have been written once.
        let imports = Imports::of_vectors(Arc::clone(&of.settings), &weir_policy_vectors::Granted::default());
        let start = || Module::start(&loader.engine, &of.config, &compiled, module.label(), imports, 1);
        (compiled.digest == module.digest).then(start)?.ok().map(Arc::new)
    }
}
