//! Which module serves which interface: in force, before that, and as it is written down.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::interface::Interface;
use crate::module::Module;
use crate::trial::Trial;
use crate::trial::judge::Judge;
use weir_core::clock::Clock;
use weir_core::config::CanaryConfig;
use weir_core::model::Digest;

/// A module that serves an interface.
#[derive(Clone)]
pub(crate) struct Serving {
    pub(crate) module: Arc<Module>,
    /// Since when, in Unix milliseconds; 0 for what was not activated.
    pub(crate) since_ms: u64,
    /// Who activated it.
    pub(crate) by: Option<String>,
}

impl Serving {
    /// A module that serves where no other was activated.
    pub(crate) fn base(module: &Arc<Module>) -> Self {
        Self { module: Arc::clone(module), since_ms: 0, by: None }
    }
}

/// One module for each interface.
#[derive(Clone)]
pub(crate) struct LiveSet([Serving; Interface::COUNT]);

impl LiveSet {
    /// What `serving` says of each interface.
    pub(crate) fn of(serving: impl FnMut(Interface) -> Serving) -> Self {
        Self(Interface::ALL.map(serving))
    }

    pub(crate) fn get(&self, interface: Interface) -> &Serving {
        &self.0[interface as usize]
    }

    pub(crate) fn set(&mut self, interface: Interface, serving: Serving) {
        self.0[interface as usize] = serving;
    }

    /// Whether `digest` serves something.
    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.modules().any(|(_, module)| module.digest == *digest)
    }

    /// The module of this digest, where it serves something and not only holds the place of one that does not fit.
    pub(crate) fn module(&self, digest: &Digest) -> Option<&Arc<Module>> {
        self.modules().map(|(_, module)| module).find(|module| module.digest == *digest && module.is_unfit().is_none())
    }

    /// Each interface and its module.
    pub(crate) fn modules(&self) -> impl Iterator<Item = (Interface, &Arc<Module>)> {
        Interface::ALL.into_iter().zip(self.0.iter().map(|serving| &serving.module))
    }

    /// What is written down: all but what was not activated.
    pub(super) fn saved(&self) -> BTreeMap<String, SavedServing> {
        let saved = |interface: Interface| {
            let serving = self.get(interface);
            let digest = serving.module.digest.to_string();
            let by = serving.by.clone()?;
            Some((interface.name().to_owned(), SavedServing { digest, since_ms: serving.since_ms, by }))
        };
        Interface::ALL.into_iter().filter_map(saved).collect()
    }
}

/// A set that was activated a short time ago: its failures roll it back.
pub(crate) struct Probation {
    pub(crate) judge: Judge,
    /// The modules that are new.
    pub(crate) digests: Vec<Digest>,
    /// What served before all of them, kept warm.
    pub(crate) proven: LiveSet,
    /// When it ends, in Unix milliseconds: for people, and for the next start.
    pub(crate) until_ms: u64,
    /// The same by the steady clock, so that setting the machine's clock neither ends nor prolongs it.
    until_steady_ms: u64,
    clock: Clock,
}

impl Probation {
    /// Until `until_ms`; `None` where that has passed. Also after a restart: a module that fails must go all the same.
    pub(crate) fn until(
        until_ms: u64,
        clock: &Clock,
        bounds: CanaryConfig,
        digests: Vec<Digest>,
        proven: LiveSet,
    ) -> Option<Self> {
        let left_ms = until_ms.checked_sub(clock.now_ms()).filter(|left_ms| *left_ms > 0)?;
        let until_steady_ms = clock.steady_ms().checked_add(left_ms)?;
        let (judge, clock) = (Judge::new(bounds, clock.clone()), clock.clone());
        Some(Self { judge, digests, proven, until_ms, until_steady_ms, clock })
    }

    /// Whether the module of this digest is on probation now.
    pub(super) fn covers(&self, digest: &Digest) -> bool {
        self.digests.contains(digest) && self.is_on()
    }

    /// Whether it lasts.
    pub(super) fn is_on(&self) -> bool {
        self.clock.steady_ms() < self.until_steady_ms
    }
}

/// Everything that is in force. Replaced as a whole; a batch keeps the one that it began with.
#[derive(Clone)]
pub(crate) struct Active {
    pub(crate) live: LiveSet,
    /// Before the last activation, kept warm.
    pub(crate) previous: Option<LiveSet>,
    pub(crate) probation: Option<Arc<Probation>>,
    pub(crate) canary: Option<Arc<Trial>>,
    pub(crate) shadow: Option<Arc<Trial>>,
}

impl Active {
    /// Whether deciding may wait for I/O: also that of a module which stands in for one that has failed lately.
    pub(crate) fn does_io(&self, interface: Interface) -> bool {
        let live = &self.live.get(interface).module;
        let canary = self.canary.as_ref().map(|canary| &canary.module).filter(|module| module.exports(interface));
        let is_needed = self.on_probation(live).is_some() || live.breakers.is_troubled();
        let before = is_needed.then(|| self.before(live, interface)).flatten();
        live.does_io || [canary, before].into_iter().flatten().any(|module| module.does_io)
    }

    /// The probation that `module` is on.
    pub(crate) fn on_probation(&self, module: &Module) -> Option<&Arc<Probation>> {
        self.probation.as_ref().filter(|probation| probation.covers(&module.digest))
    }

    /// The module that served before `module`: what was proven while that is on probation, later what a rollback brings back.
    pub(crate) fn before(&self, module: &Module, interface: Interface) -> Option<&Arc<Module>> {
        let proven = self.on_probation(module).map(|probation| &probation.proven);
        let before = &proven.or(self.previous.as_ref())?.get(interface).module;
        (before.digest != module.digest).then_some(before)
    }

    /// Makes the previous set serve again. The title of what served, or `None` where there was nothing before it.
    pub(super) fn roll_back(&mut self) -> Option<String> {
        let previous = self.previous.take()?;
        let from = std::mem::replace(&mut self.live, previous);
        // What was on probation before, and serves again, stays so.
        let live = &self.live;
        self.probation = self.probation.take().filter(|probation| probation.digests.iter().any(|new| live.has(new)));
        let differs =
            |interface: &Interface| from.get(*interface).module.digest != self.live.get(*interface).module.digest;
        let gone = Interface::ALL.into_iter().find(differs).unwrap_or(Interface::Toggle);
        Some(from.get(gone).module.title())
    }

    /// What is written down of it.
    pub(super) fn saved(&self) -> SavedSet {
        let trial = |trial: &Option<Arc<Trial>>| {
            trial.as_ref().map(|trial| SavedTrial {
                digest: trial.module.digest.to_string(),
                share: trial.share,
                since_ms: trial.since_ms,
                by: trial.by.clone(),
            })
        };
        let probation = self.probation.as_ref();
        SavedSet {
            serving: self.live.saved(),
            previous: self.previous.as_ref().map(LiveSet::saved),
            probation: probation.filter(|probation| probation.is_on()).map(|probation| SavedProbation {
                digests: probation.digests.iter().map(ToString::to_string).collect(),
                until_ms: probation.until_ms,
                proven: probation.proven.saved(),
            }),
            canary: trial(&self.canary),
            shadow: trial(&self.shadow),
        }
    }
}

/// The active set as it is written down. What a later weir has written besides is left out: going back to this one must not
/// stop the host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedSet {
    /// By interface; what is missing is served by the configured or the built-in module.
    pub(crate) serving: BTreeMap<String, SavedServing>,
    /// Before the last activation.
    pub(crate) previous: Option<BTreeMap<String, SavedServing>>,
    pub(crate) probation: Option<SavedProbation>,
    pub(crate) canary: Option<SavedTrial>,
    pub(crate) shadow: Option<SavedTrial>,
}

impl SavedSet {
    /// Every module that it needs.
    pub(super) fn needs(&self, digest: &str) -> bool {
        let proven = self.probation.iter().map(|probation| &probation.proven);
        let before = self.previous.iter().chain(proven).flat_map(BTreeMap::values);
        let serving = self.serving.values().chain(before);
        let tried = self.canary.iter().chain(&self.shadow);
        serving.map(|serving| &serving.digest).chain(tried.map(|trial| &trial.digest)).any(|known| known == digest)
    }
}

/// A module that serves, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedServing {
    pub(crate) digest: String,
    pub(crate) since_ms: u64,
    pub(crate) by: String,
}

/// A module that is tried, as it is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedTrial {
    pub(crate) digest: String,
    pub(crate) share: f64,
    pub(crate) since_ms: u64,
    pub(crate) by: String,
}

/// Modules on probation, as they are written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedProbation {
    pub(crate) digests: Vec<String>,
    pub(crate) until_ms: u64,
    pub(crate) proven: BTreeMap<String, SavedServing>,
}
