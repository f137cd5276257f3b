//! A capability as the list of capabilities holds it, and the kinds that were started from the list.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Capability, Fold, Kind, KindParts};
use weir_core::config::{Config, ConfigError, KindTable};
use weir_policy::KindPolicy;

/// Starts the kinds of a capability that are configured.
type StartKinds = fn(&Config, &BTreeMap<String, KindParts>, &mut WrittenKinds) -> Result<(), ConfigError>;

/// A capability without its types: what the rest of the host does with every one of them.
pub struct Plug {
    /// Its name.
    pub name: &'static str,
    check: fn(&Config) -> Result<(), ConfigError>,
    rename: fn(&mut Config, &str, &str),
    rules: fn(&Config) -> Vec<KindPolicy>,
    start: StartKinds,
    fold: fn(&KindTable) -> Option<Box<dyn Fold>>,
}

impl Plug {
    /// Of a capability.
    pub const fn of<C: Capability>() -> Self {
        Self {
            name: C::NAME,
            check: check::<C>,
            rename: rename::<C>,
            rules: rules::<C>,
            start: start::<C>,
            fold: C::fold,
        }
    }

    /// Whether its kinds can be started, before anything is opened.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn check(&self, config: &Config) -> Result<(), ConfigError> {
        (self.check)(config)
    }

    /// Gives the kind of this name another one, where it is of this capability.
    pub fn rename(&self, config: &mut Config, from: &str, to: &str) {
        (self.rename)(config, from, to);
    }

    /// What policy modules learn of its kinds.
    pub fn rules(&self, config: &Config) -> Vec<KindPolicy> {
        (self.rules)(config)
    }

    /// Starts all of its kinds, each of its parts, on the current runtime.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn start(
        &self,
        config: &Config,
        parts: &BTreeMap<String, KindParts>,
        kinds: &mut WrittenKinds,
    ) -> Result<(), ConfigError> {
        (self.start)(config, parts, kinds)
    }

    /// An empty fold for the tables of a kind; `None` where they are of another capability.
    pub fn fold(&self, table: &KindTable) -> Option<Box<dyn Fold>> {
        (self.fold)(table)
    }
}

fn check<C: Capability>(config: &Config) -> Result<(), ConfigError> {
    C::configs(config).iter().try_for_each(C::check_config)
}

fn rename<C: Capability>(config: &mut Config, from: &str, to: &str) {
    let names = C::configs_mut(config).iter_mut().map(C::kind_mut);
    names.filter(|name| name.as_str() == from).for_each(|name| to.clone_into(name));
}

fn rules<C: Capability>(config: &Config) -> Vec<KindPolicy> {
    C::configs(config).iter().map(C::rules).collect()
}

fn start<C: Capability>(
    config: &Config,
    parts: &BTreeMap<String, KindParts>,
    kinds: &mut WrittenKinds,
) -> Result<(), ConfigError> {
    for config in C::configs(config) {
        let name = C::kind(config);
        if let Some(parts) = parts.get(name) {
            let kind = Kind::<C>::start(config.clone(), parts.clone())?;
            kinds.by_name.insert(name.to_owned(), Arc::new(kind));
        }
    }
    Ok(())
}

/// A kind without its types.
trait AnyKind: Send + Sync {
    /// With its types, where they are asked for.
    fn typed(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<C: Capability> AnyKind for Kind<C> {
    fn typed(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// Kinds of all capabilities that are written behind. A name is configured once.
#[derive(Clone, Default)]
pub struct WrittenKinds {
    by_name: BTreeMap<String, Arc<dyn AnyKind>>,
}

impl WrittenKinds {
    /// The kind of this name, where it is of this capability.
    pub fn get<C: Capability>(&self, name: &str) -> Option<Arc<Kind<C>>> {
        typed(self.by_name.get(name)?)
    }

    /// The kinds of a capability, in the order of their names.
    pub fn of<C: Capability>(&self) -> Vec<Arc<Kind<C>>> {
        self.by_name.values().filter_map(typed).collect()
    }
}

fn typed<C: Capability>(kind: &Arc<dyn AnyKind>) -> Option<Arc<Kind<C>>> {
    Arc::clone(kind).typed().downcast().ok()
}
