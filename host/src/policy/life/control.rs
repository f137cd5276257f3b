//! What operators do with modules: upload, activate, shadow, canary, roll back, delete.
//!
//! One command at a time passes the gate. A change of the active set is written down first and then in force, so that
//! after a crash the set is the old one or the new one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use metrics::{counter, gauge};
use serde::Serialize;
use serde_json::Value;

use super::audit::{AuditLine, AuditTrail, DONE};
use super::loader::Times;
use super::registry::{Condemned, Record, Registry};
use super::set::{Active, LiveSet, Probation, Serving};
use crate::clock::Clock;
use crate::model::Digest;
use crate::policy::Policies;
use crate::policy::interface::Interface;
use crate::policy::module::Module;
use crate::policy::refusal::LoadError;
use crate::policy::said::clip;
use crate::policy::trial::Trial;
use crate::telemetry::{POLICY_EVENTS_TOTAL, POLICY_UNFIT, POLICY_UNSAVED};

/// What serves where nothing was activated.
pub(in crate::policy) const BUILT_IN: &str = "built-in";
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
    /// A name or number that is none.
    #[error("{0}")]
    Invalid(String),
    /// Not in the present state.
    #[error("{0}")]
    Conflict(String),
    /// The registry cannot be read or written.
    #[error("policy.registry: {0}")]
    Disk(String),
}

/// A component that is handed in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModuleUpload<'a> {
    /// The component.
    pub bytes: &'a [u8],
    /// Its name; else the one that it carries.
    pub name: Option<String>,
    /// Its version; else the one that it carries.
    pub version: Option<String>,
    /// Text of a file of test vectors, run besides those that it carries.
    pub vectors: Option<String>,
    /// Activate it when it is good.
    pub activate: bool,
}

/// What has happened to the active set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::policy) struct Event {
    at_ms: u64,
    what: &'static str,
    module: String,
    by: String,
    reason: Option<String>,
}

/// The trials that ended last.
#[derive(Clone, Default)]
pub(in crate::policy) struct Ended {
    pub(in crate::policy) shadow: Option<Arc<Trial>>,
    pub(in crate::policy) canary: Option<Arc<Trial>>,
}

/// The operators' side of [`Policies`].
pub(in crate::policy) struct Control {
    /// One command at a time.
    pub(super) gate: Mutex<()>,
    /// Held while the active set is written down and put into force.
    pub(super) saving: Mutex<()>,
    pub(in crate::policy) registry: RwLock<Registry>,
    pub(super) trail: AuditTrail,
    /// Modules that were rolled back by themselves, by digest; written down by the saver.
    pub(super) condemned: Mutex<BTreeMap<String, Condemned>>,
    /// Why what is in force is not written down, while it is not.
    unsaved: Mutex<Option<String>>,
    pub(in crate::policy) events: Mutex<VecDeque<Event>>,
    pub(in crate::policy) ended: Mutex<Ended>,
    pub(in crate::policy) watched: Mutex<Vec<super::watch::Watched>>,
}

impl Control {
    pub(in crate::policy) fn new(registry: Registry, trail: AuditTrail) -> Self {
        gauge!(POLICY_UNSAVED).set(0.0);
        let condemned =
            registry.records().filter_map(|record| Some((record.digest.clone(), record.condemned.clone()?)));
        Self {
            condemned: Mutex::new(condemned.collect()),
            trail,
            unsaved: Mutex::default(),
            gate: Mutex::new(()),
            saving: Mutex::new(()),
            registry: RwLock::new(registry),
            events: Mutex::default(),
            ended: Mutex::default(),
            watched: Mutex::default(),
        }
    }

    pub(in crate::policy) fn registry(&self) -> RwLockReadGuard<'_, Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an event for operators, the log and the metric.
    pub(in crate::policy) fn event(&self, what: &'static str, module: String, by: &str, reason: Option<String>) {
        counter!(POLICY_EVENTS_TOTAL, "event" => what).increment(1);
        let reason = reason.map(|reason| clip(&reason, REASON_BYTES_MAX));
        match &reason {
            Some(reason) => tracing::warn!(module, by, reason, "policy module {what}"),
            None => tracing::info!(module, by, "policy module {what}"),
        }
        let event = Event { at_ms: Clock::Real.now_ms(), what, module, by: by.to_owned(), reason };
        let mut events = lock(&self.events);
        if events.len() == EVENTS_MAX {
            events.pop_back();
        }
        events.push_front(event);
    }

    pub(super) fn audit<T>(&self, by: &str, what: &str, module: Option<&str>, result: &Result<T, ControlError>) {
        self.trail.note(&AuditLine {
            at_ms: Clock::Real.now_ms(),
            by: by.to_owned(),
            what: what.to_owned(),
            module: module.map(str::to_owned),
            outcome: result.as_ref().map_or_else(ToString::to_string, |_| DONE.into()),
        });
    }

    /// A module was rolled back by itself: said of it until it is activated again.
    pub(super) fn condemn(&self, digest: &Digest, reason: &str) {
        let condemned = Condemned { at_ms: Clock::Real.now_ms(), reason: clip(reason, REASON_BYTES_MAX) };
        lock(&self.condemned).insert(digest.to_string(), condemned);
    }

    /// Writes down of all modules whether they were rolled back by themselves.
    pub(super) fn save_condemned(&self) -> Result<(), String> {
        let condemned = lock(&self.condemned).clone();
        let mut registry = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        let digests: Vec<String> = registry.records().map(|record| record.digest.clone()).collect();
        digests.iter().try_for_each(|digest| registry.condemn(digest, condemned.get(digest)))
    }

    /// What is in force is written down, or why it is not.
    pub(super) fn note_saved(&self, problem: Option<String>) {
        gauge!(POLICY_UNSAVED).set(if problem.is_some() { 1.0 } else { 0.0 });
        *lock(&self.unsaved) = problem;
    }

    pub(super) fn unsaved(&self) -> Option<String> {
        lock(&self.unsaved).clone()
    }
}

pub(in crate::policy) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Policies {
    /// Makes a module serve what it exports, or only `interfaces` if any are named.
    ///
    /// # Errors
    /// An unknown module or interface, or one that is refused now.
    pub fn activate(&self, by: &str, module: &str, interfaces: &[String]) -> Result<Value, ControlError> {
        self.command(by, "activate", Some(module), |times| {
            if module == BUILT_IN {
                return self.activate_base(by, interfaces);
            }
            let digest = self.find(module)?;
            let module = self.warm(digest, times)?;
            self.activate_module(by, &module, interfaces, times)
        })
    }

    pub(super) fn activate_module(
        &self,
        by: &str,
        module: &Arc<Module>,
        interfaces: &[String],
        times: &mut Times,
    ) -> Result<(), ControlError> {
        let exported = || Interface::ALL.into_iter().filter(|interface| module.exports(*interface)).collect();
        let interfaces = if interfaces.is_empty() { exported() } else { named(interfaces)? };
        if let Some(missing) = interfaces.iter().find(|interface| !module.exports(**interface)) {
            return Err(ControlError::Invalid(format!("{} does not export {}", module.title(), missing.name())));
        }
        // Whoever activates it wants it to be called.
        module.breakers.reset();
        let now_ms = Clock::Real.now_ms();
        let serving = Serving { module: Arc::clone(module), since_ms: now_ms, by: Some(by.to_owned()) };
        let changed = times.step("swap", || {
            self.change(|active| {
                let serves = |interface: &Interface| {
                    let live = &active.live.get(*interface).module;
                    live.digest == module.digest && live.is_unfit().is_none()
                };
                if interfaces.iter().all(serves) {
                    return false;
                }
                active.probation = self.probation(active, module, now_ms);
                active.previous = Some(active.live.clone());
                interfaces.iter().for_each(|interface| active.live.set(*interface, serving.clone()));
                true
            })
        })?;
        self.end_trials_of(&module.digest);
        // Somebody wants it again, whatever it has done.
        if lock(&self.control.condemned).remove(&module.digest.to_string()).is_some()
            && let Err(error) = self.control.save_condemned()
        {
            tracing::warn!(error, "that a module was rolled back is said of it after a restart");
        }
        if changed {
            self.control.event("activated", module.title(), by, None);
        }
        Ok(())
    }

    /// Back to what the configuration names, or the built-in rules.
    fn activate_base(&self, by: &str, interfaces: &[String]) -> Result<(), ControlError> {
        let interfaces = if interfaces.is_empty() { Interface::ALL.to_vec() } else { named(interfaces)? };
        let changed = self.change(|active| {
            let base = |interface: &Interface| self.base.get(*interface);
            let serves =
                |interface: &Interface| active.live.get(*interface).module.digest == base(interface).module.digest;
            if interfaces.iter().all(serves) {
                return false;
            }
            active.previous = Some(active.live.clone());
            interfaces.iter().for_each(|interface| active.live.set(*interface, base(interface).clone()));
            true
        })?;
        if changed {
            self.control.event("activated", BUILT_IN.into(), by, None);
        }
        Ok(())
    }

    /// Of a module that is about to serve. Who is on probation already stays so, and what was proven before it is what
    /// both roll back to.
    fn probation(&self, active: &Active, module: &Module, now_ms: u64) -> Option<Arc<Probation>> {
        let (config, digest) = (&self.loader.config, module.digest);
        let until_ms = now_ms.saturating_add(config.probation_ms);
        let earlier = active.probation.as_ref().filter(|probation| probation.is_on());
        let mut digests = earlier.map_or_else(Vec::new, |earlier| earlier.digests.clone());
        digests.retain(|earlier| active.live.has(earlier) && *earlier != digest);
        let proven = earlier.filter(|_| !digests.is_empty()).map_or(&active.live, |earlier| &earlier.proven).clone();
        digests.push(digest);
        Probation::until(config.canary_bounds(module.does_io), digests, proven, until_ms, now_ms).map(Arc::new)
    }

    /// Makes the set before the last activation serve again. One swap: it is warm.
    ///
    /// # Errors
    /// There is none.
    pub fn rollback(&self, by: &str) -> Result<Value, ControlError> {
        self.urgent_command(by, "rollback", None, |times| {
            let from = times.step("swap", || self.change_in_any_case("rolled-back", roll_back));
            let from = from.ok_or_else(|| ControlError::Conflict("there is no set to roll back to".into()))?;
            self.control.event("rolled-back", from, by, None);
            Ok(())
        })
    }

    /// Removes a module from the registry.
    ///
    /// # Errors
    /// One that serves, is tried, or would serve after a rollback, is a conflict.
    pub fn delete(&self, by: &str, module: &str) -> Result<Value, ControlError> {
        self.command(by, "delete", Some(module), |_| {
            let digest = self.find(module)?.to_string();
            // What has changed by itself may not be written down yet: after a crash it would be asked for.
            self.change(|_| ())?;
            if self.active().saved().needs(&digest) {
                return Err(ControlError::Conflict(format!(
                    "{module} serves, is tried, or would serve after a rollback: activate another one twice, or end the trial"
                )));
            }
            let mut registry = self.control.registry.write().unwrap_or_else(PoisonError::into_inner);
            registry.remove(&digest).map_err(ControlError::Disk)
        })
    }

    /// One command that loads or removes modules: alone, audited, answered with what holds afterwards.
    pub(super) fn command(
        &self,
        by: &str,
        what: &str,
        module: Option<&str>,
        command: impl FnOnce(&mut Times) -> Result<(), ControlError>,
    ) -> Result<Value, ControlError> {
        let _gate = lock(&self.control.gate);
        self.urgent_command(by, what, module, command)
    }

    /// The same for one that only takes modules out of service: it does not wait until another one has been compiled.
    pub(super) fn urgent_command(
        &self,
        by: &str,
        what: &str,
        module: Option<&str>,
        command: impl FnOnce(&mut Times) -> Result<(), ControlError>,
    ) -> Result<Value, ControlError> {
        let mut times = Times::default();
        let result = command(&mut times);
        self.control.audit(by, what, module, &result);
        result?;
        let mut answer = self.set_report();
        answer["milliseconds"] = times.report();
        Ok(answer)
    }

    /// Changes what is in force: written down first.
    pub(super) fn change<T>(&self, change: impl Fn(&mut Active) -> T) -> Result<T, ControlError> {
        let _saving = lock(&self.control.saving);
        let mut next = (*self.active()).clone();
        change(&mut next);
        self.control.registry().save(&next.saved()).map_err(ControlError::Disk)?;
        let changed = self.change_at_once(change);
        self.control.note_saved(None);
        Ok(changed)
    }

    /// The same for what takes a module out of service: also where nothing can be written, and written down as soon as
    /// that can be done again.
    pub(super) fn change_in_any_case<T>(&self, what: &'static str, change: impl Fn(&mut Active) -> T) -> T {
        self.change(&change).unwrap_or_else(|error| {
            tracing::error!(%error, "the active set is changed, and cannot be written down yet");
            let changed = self.change_at_once(change);
            self.control.note_saved(Some(error.to_string()));
            self.saver.send(what, String::new());
            changed
        })
    }

    /// Changes what is in force without writing it down: whoever does this asks the saver to.
    pub(super) fn change_at_once<T>(&self, change: impl Fn(&mut Active) -> T) -> T {
        let mut active = self.active.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = (**active).clone();
        let result = change(&mut next);
        let before = std::mem::replace(&mut *active, Arc::new(next));
        drop(active);
        self.count_unfit();
        // Perhaps the last that held a module: its memory is given back when nobody waits for the lock.
        drop(before);
        result
    }

    /// Of each interface whether the module that was active does not fit this weir.
    pub(super) fn count_unfit(&self) {
        for (interface, module) in self.active().live.modules() {
            let unfit = if module.is_unfit().is_some() { 1.0 } else { 0.0 };
            gauge!(POLICY_UNFIT, "interface" => interface.name()).set(unfit);
        }
    }

    /// The module of this digest, with warm instances: one that serves, did, or is a canary; else it is loaded.
    pub(super) fn warm(&self, digest: Digest, times: &mut Times) -> Result<Arc<Module>, ControlError> {
        let active = self.active();
        let of_set = |set: &LiveSet| set.module(&digest).cloned();
        let canary =
            || active.canary.as_ref().map(|trial| &trial.module).filter(|module| module.digest == digest).cloned();
        let warm = of_set(&active.live).or_else(|| active.previous.as_ref().and_then(of_set)).or_else(canary);
        match warm {
            Some(module) => Ok(module),
            None => Ok(self.loader.load(&self.control.registry(), &digest.to_string(), true, times)?),
        }
    }

    /// The digest that an operator means.
    pub(super) fn find(&self, module: &str) -> Result<Digest, ControlError> {
        let registry = self.control.registry();
        let (name, version) = module.split_once('@').map_or((module, None), |(name, version)| (name, Some(version)));
        let is_named = |record: &&Record| {
            record.name == name && version.is_none_or(|version| record.version.as_deref() == Some(version))
        };
        let lower = module.to_ascii_lowercase();
        let is_digest = |record: &&Record| module.len() >= DIGEST_DIGITS_MIN && record.digest.starts_with(&lower);
        let by_digest: Vec<&Record> = registry.records().filter(is_digest).collect();
        let found = match by_digest.as_slice() {
            [one] => Some(*one),
            // The one that was uploaded last, whatever the clock has done since.
            [] => registry.records().filter(is_named).max_by_key(|record| record.youth()),
            several => {
                let message = format!("{module} is the beginning of {} digests: give more digits", several.len());
                return Err(ControlError::Invalid(message));
            }
        };
        found.and_then(|record| super::loader::parse_digest(&record.digest)).ok_or_else(|| {
            ControlError::NotFound(format!(
                "there is no module {module:?}: weir policy list shows those that are there"
            ))
        })
    }
}

/// Swaps back. The title of what served, or `None` when there was nothing before it.
pub(super) fn roll_back(active: &mut Active) -> Option<String> {
    let previous = active.previous.take()?;
    let from = std::mem::replace(&mut active.live, previous);
    // What was on probation before, and serves again, stays so.
    let live = &active.live;
    active.probation = active.probation.take().filter(|probation| probation.digests.iter().any(|new| live.has(new)));
    let differs =
        |interface: &Interface| from.get(*interface).module.digest != active.live.get(*interface).module.digest;
    let gone = Interface::ALL.into_iter().find(differs).unwrap_or(Interface::Toggle);
    Some(from.get(gone).module.title())
}

fn named(interfaces: &[String]) -> Result<Vec<Interface>, ControlError> {
    let named = |name: &String| {
        let known = || Interface::ALL.map(Interface::name).join(", ");
        Interface::from_name(name)
            .ok_or_else(|| ControlError::Invalid(format!("there is no interface {name:?}: {}", known())))
    };
    interfaces.iter().map(named).collect()
}
