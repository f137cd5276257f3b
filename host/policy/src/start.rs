//! From the configuration, the registry and the built-in component to the rules in force.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::runtime::Handle;

use super::builtin;
use super::compiler::Compiler;
use super::component::{ComponentBytes, parse_digest};
use super::contract::Contracts;
use super::decision::KindPolicy;
use super::engine::Metering;
use super::grants::Capabilities;
use super::interface::Interface;
use super::module::{Label, Module, Unfit};
use super::outline;
use super::refusal::LoadError;
use super::registry::change::start_saver;
use super::registry::control::{Control, OnDisk};
use super::registry::disk::ModuleStore;
use super::registry::loader::{Loader, Times, settings};
use super::registry::set::{Active, LiveSet, Probation, SavedProbation, SavedServing, SavedTrial, Serving};
use super::registry::{AuditTrail, BUILT_IN, Registry, saver};
use super::rules::Rules;
use super::trial::Trial;
use super::trial::decisions::DecisionLog;
use super::trial::judge::Judge;
use super::trials::{Metered, Trials, observer};
use weir_core::clock::Clock;
use weir_core::config::PolicyConfig;
use weir_core::model::Digest;

/// What a host gives to its rules.
#[derive(Clone)]
pub struct PolicySetup {
    /// Where components are compiled.
    pub compiler: Compiler,
    /// What stands behind the granted imports; without, they are unavailable.
    pub capabilities: Option<(Capabilities, Handle)>,
    /// The time: of events, and of the windows of canary and probation.
    pub clock: Clock,
    /// Only to look whether everything loads: nothing is written into the registry.
    pub is_look: bool,
}

impl Default for PolicySetup {
    fn default() -> Self {
        Self { compiler: Compiler::InProcess, capabilities: None, clock: Clock::Real, is_look: false }
    }
}

/// The rules of a host, by who uses them.
pub struct Policies {
    /// Asks the modules: for those who serve requests.
    pub rules: Arc<Rules>,
    /// Uploads, activates, rolls back: for operators.
    pub registry: Arc<Registry>,
    /// Shadow, canary and probation: for operators.
    pub trials: Arc<Trials>,
}

impl Policies {
    /// Loads what was active last; where nothing was, the component that `config` names, and the built-in one for
    /// interfaces that it does not export. Takes as long as compiling does, on a thread that may wait.
    ///
    /// What was active and does not fit any more stops nothing: see [`Registry::modules`] and `ModuleInfo::unfit`.
    ///
    /// # Errors
    /// A configured component that is refused as a whole; a registry that cannot be read.
    pub fn load(config: &PolicyConfig, kinds: &[KindPolicy], setup: PolicySetup) -> Result<Arc<Self>, LoadError> {
        let PolicySetup { compiler, capabilities, clock, is_look } = setup;
        let settings = settings(kinds.iter());
        let loader = Loader::new(config, settings, compiler, capabilities, clock.clone(), Metering::None)?;
        let opened = if is_look { ModuleStore::look(&config.registry) } else { ModuleStore::open(&config.registry) };
        let store = opened.map_err(|reason| LoadError::Registry { reason })?;
        let trail = AuditTrail::new(&config.registry, config.audit.clone()).only_looked_at(is_look);
        let (base, left) = base(&loader)?;
        let mut restore =
            Restore { loader: &loader, store: &store, base: &base, clock: &clock, loaded: HashMap::new(), left };
        let active = restore.active()?;
        let left = restore.left;

        let ((observer, jobs), (saver, changes)) = (observer::queue(), saver::queue());
        let control = Arc::new(Control::new(active, OnDisk { store, trail, saver }, clock));
        let (loader, contracts) = (Arc::new(loader), Arc::new(Contracts::default()));
        let log = DecisionLog::new(&config.registry, config.decisions.bytes_max);
        let metered = Metered::new(Arc::clone(&loader));
        observer::start(Arc::downgrade(&control), Arc::clone(&contracts), jobs, log, metered)?;
        start_saver(Arc::downgrade(&control), changes)?;
        for Left { what, module, reason } in left {
            control.event(what, module, "weir", Some(reason));
        }
        control.count_unfit();
        let trials = Arc::new(Trials::new(Arc::clone(&control), Arc::clone(&loader), observer));
        let rules = Rules::new(config, kinds, Arc::clone(&control), Arc::clone(&trials), contracts);
        let registry = Registry::new(control, loader, base);
        Ok(Arc::new(Self { rules: Arc::new(rules), registry: Arc::new(registry), trials }))
    }
}

/// What serves where nothing was activated, and what of the configured component does not fit.
fn base(loader: &Loader) -> Result<(LiveSet, Vec<Left>), LoadError> {
    let mut times = Times::default();
    // The vectors of the built-in one are run when weir is tested: a start on a busy machine must not depend on the
    // deadlines of their calls.
    let built_in = |times: &mut Times| -> Result<Arc<Module>, LoadError> {
        let component = ComponentBytes { digest: builtin::digest(), bytes: builtin::COMPONENT };
        let compiled = loader.compile(component, None, times)?;
        let label = Label { name: BUILT_IN.to_owned(), version: compiled.outline.version.clone() };
        let grant = loader.grant(&compiled, &label.name)?;
        loader.start(&compiled, label, grant, true, times)
    };
    let Some(path) = &loader.config.component else {
        let module = built_in(&mut times)?;
        return Ok((LiveSet::of(|_| Serving::base(&module)), Vec::new()));
    };
    let bytes = outline::read(path, loader.config.module_bytes_max)?;
    let compiled = loader.compile(ComponentBytes::of(&bytes), None, &mut times)?;
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = compiled.outline.name.clone().or(stem).unwrap_or_else(|| "configured".into());
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
    store: &'a ModuleStore,
    base: &'a LiveSet,
    clock: &'a Clock,
    loaded: HashMap<String, Restored>,
    left: Vec<Left>,
}

impl Restore<'_> {
    fn active(&mut self) -> Result<Active, LoadError> {
        let saved = self.store.saved().map_err(|reason| LoadError::Registry { reason })?;
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
        // The clock may have been set back since: it is never longer than one that begins now.
        let until_ms = saved.until_ms.min(self.clock.now_ms().saturating_add(self.loader.config.probation_ms));
        Probation::until(until_ms, self.clock, bounds, digests, proven).map(Arc::new)
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
        let (loader, store) = (self.loader, self.store);
        self.loaded.entry(digest.to_owned()).or_insert_with(|| {
            let record = store.get(digest);
            let name = record.map_or_else(|| "a module".to_owned(), |record| record.name.clone());
            let label = Label { name, version: record.and_then(|record| record.version.clone()) };
            let (module, reason, unfit) = match loader.restore(store, digest) {
                Ok((module, unfit)) => (Some(module), String::new(), unfit),
                Err(error) => (None, error.to_string(), Vec::new()),
            };
            Restored { module, digest: parse_digest(digest).unwrap_or_default(), label, reason, unfit }
        })
    }

    fn trial(&mut self, saved: &SavedTrial, write: bool) -> Option<Arc<Trial>> {
        match self.loader.restore_whole(self.store, &saved.digest, write) {
            Ok(module) => {
                let judge = Judge::new(self.loader.config.canary_bounds(module.does_io), self.clock.clone());
                Some(Arc::new(Trial::new(module, saved.share, saved.since_ms, saved.by.clone(), judge)))
            }
            Err(error) => {
                let name = self.store.get(&saved.digest).map_or("a module", |record| &record.name);
                let module = format!("{name} ({})", saved.digest.get(..12).unwrap_or(&saved.digest));
                self.left.push(Left { what: "not-restored", module, reason: error.to_string() });
                None
            }
        }
    }
}
