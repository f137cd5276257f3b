//! What is in force, and what is written down and said of it: shared by those who ask (`rules`), try (`trials`) and
//! operate (`registry`).
//!
//! One command at a time passes the gate. A change of the active set is written down first and then in force, so that
//! after a crash the set is the old one or the new one. See `change`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use metrics::{counter, gauge};

use super::audit::{AuditLine, AuditTrail, DONE};
use super::disk::{Condemned, ModuleStore, Record};
use super::loader::{Loader, Times};
use super::saver::Saver;
use super::set::{Active, LiveSet};
use crate::component::parse_digest;
use crate::module::Module;
use crate::refusal::LoadError;
use crate::said::clip;
use crate::trial::Trial;
use weir_core::clock::Clock;
use weir_core::model::Digest;
use weir_core::operators::{Commanded, Event, WatchedFile};
use weir_core::telemetry::{POLICY_EVENTS_TOTAL, POLICY_UNSAVED};

/// Beginning of a digest that names a module.
const DIGEST_DIGITS_MIN: usize = 6;
/// Events that are remembered.
const EVENTS_MAX: usize = 100;
/// Bytes of an event's reason.
const REASON_BYTES_MAX: usize = 2_000;

/// Why a command was not done. The text reaches the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The module is not good.
    #[error(transparent)]
    Refused(#[from] LoadError),
    /// No such module.
    #[error("{0}")]
    NotFound(String),
    /// An invalid name or number.
    #[error("{0}")]
    Invalid(String),
    /// Not in the present state.
    #[error("{0}")]
    Conflict(String),
    /// The registry cannot be read or written.
    #[error("policy.registry: {0}")]
    Disk(String),
}

/// The trials that ended last.
#[derive(Clone, Default)]
pub(crate) struct Ended {
    pub(crate) shadow: Option<Arc<Trial>>,
    pub(crate) canary: Option<Arc<Trial>>,
}

/// See the module's text.
pub(crate) struct Control {
    pub(crate) clock: Clock,
    /// Swapped as a whole; a call keeps the one it began with.
    pub(super) active: RwLock<Arc<Active>>,
    /// One command at a time.
    gate: Mutex<()>,
    /// Held while the active set is written down and put into force.
    pub(super) saving: Mutex<()>,
    store: RwLock<ModuleStore>,
    pub(super) trail: AuditTrail,
    pub(super) saver: Saver,
    /// Modules that were rolled back by themselves, by digest; written down by the saver.
    pub(super) condemned: Mutex<BTreeMap<String, Condemned>>,
    /// Why what is in force is not written down, while it is not.
    unsaved: Mutex<Option<String>>,
    pub(super) events: Mutex<VecDeque<Event>>,
    pub(crate) ended: Mutex<Ended>,
    pub(super) watched: Mutex<Vec<WatchedFile>>,
}

/// What is on disk when the host starts, and how it is written.
pub(crate) struct OnDisk {
    pub(crate) store: ModuleStore,
    pub(crate) trail: AuditTrail,
    pub(crate) saver: Saver,
}

impl Control {
    pub(crate) fn new(active: Active, on_disk: OnDisk, clock: Clock) -> Self {
        let OnDisk { store, trail, saver } = on_disk;
        gauge!(POLICY_UNSAVED).set(0.0);
        let condemned = store.records().filter_map(|record| Some((record.digest.clone(), record.condemned.clone()?)));
        Self {
            clock,
            active: RwLock::new(Arc::new(active)),
            gate: Mutex::new(()),
            saving: Mutex::new(()),
            condemned: Mutex::new(condemned.collect()),
            store: RwLock::new(store),
            trail,
            saver,
            unsaved: Mutex::default(),
            events: Mutex::default(),
            ended: Mutex::default(),
            watched: Mutex::default(),
        }
    }

    /// What is in force.
    pub(crate) fn active(&self) -> Arc<Active> {
        Arc::clone(&self.active.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn store(&self) -> RwLockReadGuard<'_, ModuleStore> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn store_to_write(&self) -> RwLockWriteGuard<'_, ModuleStore> {
        self.store.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held by a command that loads or removes modules.
    pub(super) fn gate(&self) -> MutexGuard<'_, ()> {
        lock(&self.gate)
    }

    /// Notes an event for operators, the log and the metric.
    pub(crate) fn event(&self, what: &'static str, module: String, by: &str, reason: Option<String>) {
        counter!(POLICY_EVENTS_TOTAL, "event" => what).increment(1);
        let reason = reason.map(|reason| clip(&reason, REASON_BYTES_MAX));
        match &reason {
            Some(reason) => tracing::warn!(module, by, reason, "policy module {what}"),
            None => tracing::info!(module, by, "policy module {what}"),
        }
        let event = Event { at_ms: self.clock.now_ms(), what: what.to_owned(), module, by: by.to_owned(), reason };
        let mut events = lock(&self.events);
        if events.len() == EVENTS_MAX {
            events.pop_back();
        }
        events.push_front(event);
    }

    /// Reports to operators what the breakers of a module have done.
    pub(crate) fn report_breakers(&self, module: &Module) {
        for notice in module.breakers.take_notices() {
            self.event(notice.what, module.title(), "weir", Some(notice.reason));
        }
    }

    pub(super) fn audit<T>(&self, by: &str, what: &str, module: Option<&str>, result: &Result<T, ControlError>) {
        self.trail.note(&AuditLine {
            at_ms: self.clock.now_ms(),
            by: by.to_owned(),
            what: what.to_owned(),
            module: module.map(str::to_owned),
            outcome: result.as_ref().map_or_else(ToString::to_string, |_| DONE.into()),
        });
    }

    /// A module was rolled back by itself: said of it until it is activated again.
    pub(crate) fn condemn(&self, digest: &Digest, reason: &str) {
        let condemned = Condemned { at_ms: self.clock.now_ms(), reason: clip(reason, REASON_BYTES_MAX) };
        lock(&self.condemned).insert(digest.to_string(), condemned);
    }

    /// An operator activates it again, whatever it has done.
    pub(super) fn acquit(&self, digest: &Digest) {
        if lock(&self.condemned).remove(&digest.to_string()).is_some()
            && let Err(error) = self.save_condemned()
        {
            tracing::warn!(error, "after a restart the module is still said to have been rolled back");
        }
    }

    /// Writes down of all modules whether they were rolled back by themselves.
    pub(super) fn save_condemned(&self) -> Result<(), String> {
        let condemned = lock(&self.condemned).clone();
        let mut store = self.store_to_write();
        let digests: Vec<String> = store.records().map(|record| record.digest.clone()).collect();
        digests.iter().try_for_each(|digest| store.condemn(digest, condemned.get(digest)))
    }

    /// What is in force is written down, or why it is not.
    pub(crate) fn note_saved(&self, problem: Option<String>) {
        gauge!(POLICY_UNSAVED).set(if problem.is_some() { 1.0 } else { 0.0 });
        *lock(&self.unsaved) = problem;
    }

    pub(super) fn unsaved(&self) -> Option<String> {
        lock(&self.unsaved).clone()
    }

    /// One command that loads or removes modules: alone, audited, answered with what holds afterwards.
    pub(crate) fn command(
        &self,
        by: &str,
        what: &str,
        module: Option<&str>,
        command: impl FnOnce(&mut Times) -> Result<(), ControlError>,
    ) -> Result<Commanded, ControlError> {
        let _gate = self.gate();
        self.urgent_command(by, what, module, command)
    }

    /// The same for one that only takes modules out of service: it does not wait until another one has been compiled.
    pub(crate) fn urgent_command(
        &self,
        by: &str,
        what: &str,
        module: Option<&str>,
        command: impl FnOnce(&mut Times) -> Result<(), ControlError>,
    ) -> Result<Commanded, ControlError> {
        let mut times = Times::default();
        let result = command(&mut times);
        self.audit(by, what, module, &result);
        result?;
        Ok(self.commanded(&times))
    }

    /// The module of this digest, with warm instances: one that serves, did, or is a canary; else it is loaded.
    pub(crate) fn warm(&self, loader: &Loader, digest: Digest, times: &mut Times) -> Result<Arc<Module>, ControlError> {
        let active = self.active();
        let of_set = |set: &LiveSet| set.module(&digest).cloned();
        let canary =
            || active.canary.as_ref().map(|trial| &trial.module).filter(|module| module.digest == digest).cloned();
        let warm = of_set(&active.live).or_else(|| active.previous.as_ref().and_then(of_set)).or_else(canary);
        match warm {
            Some(module) => Ok(module),
            None => Ok(loader.load(&self.store(), &digest.to_string(), true, times)?),
        }
    }

    /// The digest that an operator means.
    pub(crate) fn find(&self, module: &str) -> Result<Digest, ControlError> {
        let store = self.store();
        let (name, version) = module.split_once('@').map_or((module, None), |(name, version)| (name, Some(version)));
        let is_named = |record: &&Record| {
            record.name == name && version.is_none_or(|version| record.version.as_deref() == Some(version))
        };
        let lower = module.to_ascii_lowercase();
        let is_digest = |record: &&Record| module.len() >= DIGEST_DIGITS_MIN && record.digest.starts_with(&lower);
        let by_digest: Vec<&Record> = store.records().filter(is_digest).collect();
        let found = match by_digest.as_slice() {
            [one] => Some(*one),
            // The one that was uploaded last, whatever the clock has done since.
            [] => store.records().filter(is_named).max_by_key(|record| record.youth()),
            several => {
                let message = format!("{module} is the beginning of {} digests: give more digits", several.len());
                return Err(ControlError::Invalid(message));
            }
        };
        found.and_then(|record| parse_digest(&record.digest)).ok_or_else(|| {
            ControlError::NotFound(format!(
                "there is no module {module:?}: weir policy list shows those that are there"
            ))
        })
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
