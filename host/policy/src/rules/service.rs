//! The rules in force, and what stands in for a module that fails.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::counter;
use weir_default_policy::rules::Settings;

use crate::builtin::{self, KindRules};
use crate::contract::{Contract, Contracts};
use crate::decision::KindPolicy;
use crate::interface::Interface;
use crate::module::Module;
use crate::registry::control::Control;
use crate::registry::set::Active;
use crate::trials::Trials;
use weir_core::config::{BuiltinRules, PolicyConfig};
use weir_core::model::Digest;
use weir_core::telemetry::POLICY_FALLBACKS_TOTAL;

/// The rules in force. A pure module is called where the caller runs: deciding takes microseconds, and never longer than
/// `policy.call_deadline_ms` twice (once to wait for an instance, once to run). A module that does I/O is called on a
/// thread that may wait. Coalescing takes a microsecond or two for each change, and may take a deadline for each started
/// 1,000 of them: call it where a thread may be busy for that long.
pub struct Rules {
    pub(super) kinds: HashMap<String, KindRules>,
    builtin: BuiltinRules,
    pub(super) config: PolicyConfig,
    control: Arc<Control>,
    pub(super) trials: Arc<Trials>,
    pub(super) contracts: Arc<Contracts>,
    fallbacks: AtomicU64,
}

impl Rules {
    pub(crate) fn new(
        config: &PolicyConfig,
        kinds: &[KindPolicy],
        control: Arc<Control>,
        trials: Arc<Trials>,
        contracts: Arc<Contracts>,
    ) -> Self {
        Self {
            kinds: kinds.iter().map(|kind| (kind.kind.clone(), builtin::kind_rules(kind))).collect(),
            builtin: config.builtin,
            config: config.clone(),
            control,
            trials,
            contracts,
            fallbacks: AtomicU64::new(0),
        }
    }

    /// From now on the answers of modules for `kind` must keep `contract`. Said once, before the kind serves.
    pub fn hold_to(&self, kind: &str, contract: Arc<dyn Contract>) {
        self.contracts.set(kind, contract);
    }

    /// Batches that something else decided, because the live module failed, since the start.
    pub fn fallbacks(&self) -> u64 {
        self.fallbacks.load(Ordering::Relaxed)
    }

    pub(crate) fn active(&self) -> Arc<Active> {
        self.control.active()
    }

    /// The module that serves `interface` now.
    pub(super) fn live_digest(&self, interface: Interface) -> Digest {
        self.active().live.get(interface).module.digest
    }

    pub(super) fn runs_natively(&self, module: &Module) -> bool {
        self.builtin == BuiltinRules::Native && module.digest == builtin::digest()
    }

    /// The settings of a kind as the built-in rules understand them; the defaults of a kind that is not known.
    pub(super) fn settings(&self, kind: &str) -> Settings {
        self.kinds.get(kind).map_or_else(|| builtin::settings(&BTreeMap::new()), |kind| kind.settings)
    }

    pub(super) fn count_fallback(&self, kind: &str, to: &'static str) {
        self.fallbacks.fetch_add(1, Ordering::Relaxed);
        counter!(POLICY_FALLBACKS_TOTAL, "kind" => kind.to_owned(), "to" => to).increment(1);
    }

    /// Reports what the breakers of a module that stood in have done.
    pub(super) fn report_breakers(&self, module: &Module) {
        self.control.report_breakers(module);
    }

    /// Who decides what `module` has failed to decide: the one before it. The built-in module only on probation: later the
    /// kind says whether the built-in rules may. With `may_wait` false, only one that does no I/O.
    pub(super) fn stands_in<'a>(
        &self,
        active: &'a Active,
        module: &Module,
        interface: Interface,
        may_wait: bool,
    ) -> Option<&'a Arc<Module>> {
        let is_new = active.on_probation(module).is_some();
        let before = active.before(module, interface)?;
        let may_decide = is_new || before.digest != builtin::digest();
        (may_decide && (may_wait || !before.does_io)).then_some(before)
    }
}
