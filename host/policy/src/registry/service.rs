//! What operators do with modules that are there: activate, roll back, delete.

use std::sync::Arc;

use super::control::{Control, ControlError};
use super::loader::{Loader, Times};
use super::set::{Active, LiveSet, Probation, Serving};
use crate::interface::Interface;
use crate::module::Module;
use weir_core::operators::Commanded;

/// What serves where nothing was activated.
pub(crate) const BUILT_IN: &str = "built-in";

/// What operators do with modules, and what they see of them.
pub struct Registry {
    pub(crate) control: Arc<Control>,
    pub(crate) loader: Arc<Loader>,
    /// What serves where nothing was activated.
    base: LiveSet,
}

impl Registry {
    pub(crate) fn new(control: Arc<Control>, loader: Arc<Loader>, base: LiveSet) -> Self {
        Self { control, loader, base }
    }

    /// Makes a module serve what it exports, or only `interfaces` if any are named.
    ///
    /// # Errors
    /// An unknown module or interface, or one that is refused now.
    pub fn activate(&self, by: &str, module: &str, interfaces: &[String]) -> Result<Commanded, ControlError> {
        self.control.command(by, "activate", Some(module), |times| {
            if module == BUILT_IN {
                return self.activate_base(by, interfaces);
            }
            let digest = self.control.find(module)?;
            let module = self.control.warm(&self.loader, digest, times)?;
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
        // An operator who activates a module wants it to be called.
        module.breakers.reset();
        let since_ms = self.control.clock.now_ms();
        let serving = Serving { module: Arc::clone(module), since_ms, by: Some(by.to_owned()) };
        let changed = times.step("swap", || {
            self.control.change(|active| {
                let serves = |interface: &Interface| {
                    let live = &active.live.get(*interface).module;
                    live.digest == module.digest && live.is_unfit().is_none()
                };
                if interfaces.iter().all(serves) {
                    return false;
                }
                active.probation = self.probation(active, module, since_ms);
                active.previous = Some(active.live.clone());
                interfaces.iter().for_each(|interface| active.live.set(*interface, serving.clone()));
                true
            })
        })?;
        self.control.end_trials_of(&module.digest);
        self.control.acquit(&module.digest);
        if changed {
            self.control.event("activated", module.title(), by, None);
        }
        Ok(())
    }

    /// Back to what the configuration names, or the built-in rules.
    fn activate_base(&self, by: &str, interfaces: &[String]) -> Result<(), ControlError> {
        let interfaces = if interfaces.is_empty() { Interface::ALL.to_vec() } else { named(interfaces)? };
        let changed = self.control.change(|active| {
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

    /// The probation of a module that is about to serve. Modules already on probation stay on it, and all of them roll
    /// back to the set that was proven before them.
    fn probation(&self, active: &Active, module: &Module, now_ms: u64) -> Option<Arc<Probation>> {
        let (config, digest) = (&self.loader.config, module.digest);
        let until_ms = now_ms.saturating_add(config.probation_ms);
        let earlier = active.probation.as_ref().filter(|probation| probation.is_on());
        let mut digests = earlier.map_or_else(Vec::new, |earlier| earlier.digests.clone());
        digests.retain(|earlier| active.live.has(earlier) && *earlier != digest);
        let proven = earlier.filter(|_| !digests.is_empty()).map_or(&active.live, |earlier| &earlier.proven).clone();
        digests.push(digest);
        let bounds = config.canary_bounds(module.does_io);
        Probation::until(until_ms, &self.control.clock, bounds, digests, proven).map(Arc::new)
    }

    /// Makes the set before the last activation serve again. One swap: it is warm.
    ///
    /// # Errors
    /// [`ControlError::Conflict`] where there is none.
    pub fn rollback(&self, by: &str) -> Result<Commanded, ControlError> {
        self.control.urgent_command(by, "rollback", None, |times| {
            let from = times.step("swap", || self.control.change_in_any_case("rolled-back", Active::roll_back));
            let from = from.ok_or_else(|| ControlError::Conflict("there is no set to roll back to".into()))?;
            self.control.event("rolled-back", from, by, None);
            Ok(())
        })
    }

    /// Removes a module from the registry.
    ///
    /// # Errors
    /// One that serves, is tried, or would serve after a rollback, is a conflict.
    pub fn delete(&self, by: &str, module: &str) -> Result<Commanded, ControlError> {
        self.control.command(by, "delete", Some(module), |_| {
            let digest = self.control.find(module)?.to_string();
            // What has changed by itself may not be written down yet: after a crash it would be asked for.
            self.control.change(|_| ())?;
            if self.control.active().saved().needs(&digest) {
                return Err(ControlError::Conflict(format!(
                    "{module} serves, is tried, or would serve after a rollback: activate another one twice, or end the trial"
                )));
            }
            self.control.store_to_write().remove(&digest).map_err(ControlError::Disk)
        })
    }

    /// Writes down what has changed by itself and is not written down yet. For the end of the host.
    pub fn close(&self) {
        self.control.close();
    }
}

fn named(interfaces: &[String]) -> Result<Vec<Interface>, ControlError> {
    let named = |name: &String| {
        let known = || Interface::ALL.map(Interface::name).join(", ");
        Interface::from_name(name)
            .ok_or_else(|| ControlError::Invalid(format!("there is no interface {name:?}: {}", known())))
    };
    interfaces.iter().map(named).collect()
}
