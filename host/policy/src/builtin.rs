//! The built-in rules: the component that is compiled in, and the settings of the same rules natively, to fall back on.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use weir_default_policy::delivery;
use weir_default_policy::rules::Settings;

use super::component::digest_of;
use super::decision::KindPolicy;
use weir_core::config::PolicyFailure;
use weir_core::model::Digest;

/// The default policy, built by `weir policy build guest/default`. A test fails when it is older than its sources.
pub(super) const COMPONENT: &[u8] = include_bytes!("../../../guest/default/policy.wasm");

/// SHA-256 of [`COMPONENT`].
pub(super) fn digest() -> Digest {
    static DIGEST: OnceLock<Digest> = OnceLock::new();
    *DIGEST.get_or_init(|| digest_of(COMPONENT))
}

/// What is native of a kind.
pub(super) struct KindRules {
    pub(super) settings: Settings,
    pub(super) delivery: delivery::Settings,
    /// The fields of each topic, separated by commas.
    pub(super) topics: BTreeMap<String, String>,
    pub(super) on_failure: PolicyFailure,
}

/// The native rules of a kind.
pub(super) fn kind_rules(kind: &KindPolicy) -> KindRules {
    let topic = |(key, fields): (&String, &String)| Some((key.strip_prefix("topic:")?.to_owned(), fields.clone()));
    KindRules {
        settings: settings(&kind.settings),
        delivery: delivery::Settings::read(|key| kind.settings.get(key).cloned()),
        topics: kind.settings.iter().filter_map(topic).collect(),
        on_failure: kind.on_failure,
    }
}

/// Reads a kind's settings as the default rules understand them. What is unusable is said by the component, once.
pub(super) fn settings(kind: &BTreeMap<String, String>) -> Settings {
    Settings::read(|key| kind.get(key).cloned(), |_, _| ())
}
