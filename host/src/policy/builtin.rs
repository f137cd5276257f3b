//! The built-in rules: the component that is compiled in, and the settings of the same rules natively, to fall back on.

use std::collections::BTreeMap;

use weir_default_policy::rules::Settings;

/// The default policy, built by `weir policy build guest/default`. A test fails when it is older than its sources.
pub(super) const COMPONENT: &[u8] = include_bytes!("../../../guest/default/policy.wasm");

/// Reads a kind's settings as the default rules understand them. What is unusable is said by the component, once.
pub(super) fn settings(kind: &BTreeMap<String, String>) -> Settings {
    Settings::read(|key| kind.get(key).cloned(), |_, _| ())
}
