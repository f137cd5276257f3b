//! From the configuration, the registry and the built-in component to the rules in force.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock, Weak};

use tokio::runtime::Handle;
use weir_policy_vectors::{Answer, Call, Decision};

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
use crate::policy::module::{Label, Module, digest_of};
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
    /// # Errors
    /// A component that is refused, also one that was active; a registry that cannot be read.
    pub fn load(config: &PolicyConfig, kinds: &[KindPolicy], setup: PolicySetup) -> Result<Arc<Self>, LoadError> {
        let PolicySetup { compiler, capabilities, is_look } = setup;
        let settings = settings(kinds.iter());
        let loader = Loader::new(config, settings, compiler.clone(), capabilities, Metering::None)?;
        let opened = if is_look { Registry::look(&config.registry) } else { Registry::open(&config.registry) };
        let registry = opened.map_err(|reason| LoadError::Registry { reason })?;
        let base = base(&loader)?;
        let mut restore =
            Restore { loader: &loader, registry: &registry, base: &base, loaded: HashMap::new(), lost: Vec::new() };
        let active = restore.active()?;
        let lost = restore.lost;
        let ((observer, jobs), (saver, changes)) = (observer::queue(), saver::queue());
        let policies = Arc::new(Self {
            kinds: kinds.iter().map(|kind| (kind.kind.clone(), builtin::kind_rules(kind))).collect(),
            builtin_digest: digest_of(builtin::COMPONENT),
            builtin: config.builtin,
            base,
            active: RwLock::new(Arc::new(active)),
            loader,
            control: Control::new(registry),
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
        for (module, reason) in lost {
            policies.control.event("not-restored", module, "weir", Some(reason));
        }
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

/// What serves where nothing was activated.
fn base(loader: &Loader) -> Result<LiveSet, LoadError> {
    let mut times = Times::default();
    // The vectors of the built-in one are run when weir is tested: a start on a busy machine must not depend on the
    // deadlines of their calls.
    let mut module = |name: &str, bytes: &[u8]| -> Result<Arc<Module>, LoadError> {
        let compiled = loader.compile(bytes, None, &mut times)?;
        let version = compiled.outline.version.clone();
        if let Some(vectors) = compiled.vectors().filter(|_| name != BUILT_IN) {
            loader.check_vectors(&compiled, &[vectors], &mut times)?;
        }
        loader.start(&compiled, Label { name: name.to_owned(), version }, true, &mut times)
    };
    let mut built_in = || module(BUILT_IN, builtin::COMPONENT);
    let Some(path) = &loader.config.component else {
        let module = built_in()?;
        return Ok(LiveSet::of(|_| Serving::base(&module)));
    };
    let bytes = outline::read(path, loader.config.module_bytes_max)?;
    let carried = outline::inspect(&loader.config, &bytes)?.name;
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = carried.or(stem).unwrap_or_else(|| "configured".into());
    let given = module(&name, &bytes)?;
    let all = Interface::ALL.into_iter().all(|interface| given.exports(interface));
    let rest = if all { Arc::clone(&given) } else { module(BUILT_IN, builtin::COMPONENT)? };
    Ok(LiveSet::of(|interface| Serving::base(if given.exports(interface) { &given } else { &rest })))
}

/// Loads what was active when the host ended.
///
/// What serves must load: other rules in its place would be a silent change, so the host says why and does not start. What
/// only stood by (the set before, a canary, a shadow) is left out, and said.
struct Restore<'a> {
    loader: &'a Loader,
    registry: &'a Registry,
    base: &'a LiveSet,
    loaded: HashMap<String, Arc<Module>>,
    /// Modules that are left out, and why.
    lost: Vec<(String, String)>,
}

impl Restore<'_> {
    fn active(&mut self) -> Result<Active, LoadError> {
        let saved = self.registry.saved().map_err(|reason| LoadError::Registry { reason })?;
        let live = self.set(&saved.serving)?;
        let previous = saved.previous.as_ref().map(|previous| self.set(previous));
        let previous = previous.and_then(|previous| self.or_lost(previous));
        let canary = saved.canary.map(|canary| self.trial(&canary, true)).and_then(|canary| self.or_lost(canary));
        let shadow = saved.shadow.map(|shadow| self.trial(&shadow, false)).and_then(|shadow| self.or_lost(shadow));
        let probation = saved.probation.and_then(|saved| self.probation(&saved));
        Ok(Active { live, previous, probation, canary, shadow })
    }

    fn probation(&mut self, saved: &SavedProbation) -> Option<Arc<Probation>> {
        let proven = self.set(&saved.proven);
        let proven = self.or_lost(proven)?;
        let digests = saved.digests.iter().filter_map(|digest| parse_digest(digest)).collect();
        let does_io = self.loaded.values().any(|module| module.does_io);
        let bounds = self.loader.config.canary_bounds(does_io);
        let now_ms = Clock::Real.now_ms();
        // The clock may have been set back since: it is never longer than one that begins now.
        let until_ms = saved.until_ms.min(now_ms.saturating_add(self.loader.config.probation_ms));
        Probation::until(bounds, digests, proven, until_ms, now_ms).map(Arc::new)
    }

    fn or_lost<T>(&mut self, restored: Result<T, LoadError>) -> Option<T> {
        restored
            .map_err(|error| match error {
                LoadError::ActiveSet { module, reason, .. } => self.lost.push((module, reason)),
                other => self.lost.push(("a module".into(), other.to_string())),
            })
            .ok()
    }

    fn set(&mut self, saved: &BTreeMap<String, SavedServing>) -> Result<LiveSet, LoadError> {
        let mut set = self.base.clone();
        for (name, saved) in saved {
            // An interface of a later weir: nothing here asks for it.
            let Some(interface) = Interface::from_name(name) else { continue };
            let module = match self.loaded.get(&saved.digest) {
                Some(module) => Arc::clone(module),
                None => self.load(&saved.digest, true)?,
            };
            self.loaded.insert(saved.digest.clone(), Arc::clone(&module));
            set.set(interface, Serving { module, since_ms: saved.since_ms, by: Some(saved.by.clone()) });
        }
        Ok(set)
    }

    fn trial(&mut self, saved: &SavedTrial, write: bool) -> Result<Arc<Trial>, LoadError> {
        let module = self.load(&saved.digest, write)?;
        let judge = Judge::new(self.loader.config.canary_bounds(module.does_io));
        Ok(Arc::new(Trial::new(module, saved.share, saved.since_ms, saved.by.clone(), judge)))
    }

    fn load(&self, digest: &str, write: bool) -> Result<Arc<Module>, LoadError> {
        self.loader.restore(self.registry, digest, write).map_err(|error| {
            let name = self.registry.get(digest).map_or("a module", |record| &record.name);
            let module = format!("{name} ({})", digest.get(..12).unwrap_or(digest));
            LoadError::ActiveSet { module, reason: error.to_string(), path: self.registry.dir().join("active.json") }
        })
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
