//! The policy engine: runs the rules, which live in WebAssembly components, and trusts nothing that they return.
//!
//! Tier 2: imports tiers 0 and 1. Never imports store or sql, never does I/O for a guest that was not granted.
//!
//! Structured by lifetime: `engine` (process) · `module` (per component loaded) · `instance` (per call). `bindings`
//! holds the only `bindgen!`; `convert` checks and converts what crosses the border.

use crate::model::{Backlog, Digest, Intent, ToggleChange, ToggleRule};

/// Rules for a batch of intents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecidedToggles {
    /// Index-aligned with the batch, same length.
    pub rules: Vec<ToggleRule>,
    /// The module that decided.
    pub digest: Digest,
}

/// When to flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushPlan {
    /// Flush what waits now.
    pub flush_now: bool,
    /// At most so many changes at once (the host's adaptive batch may be smaller).
    pub changes_max: u32,
    /// Look again after so many milliseconds, unless woken by new changes.
    pub look_again_ms: u32,
}

/// Which entries survive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coalesced {
    /// Ascending indexes into the changes: exactly the last action of each (target, actor) pair at least.
    pub kept: Vec<usize>,
    /// The module failed or broke the contract, and the host's own rule was used.
    pub fell_back: bool,
}

/// The module failed, and the kind says to refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy module {digest} failed in {interface}: {reason}")]
pub struct PolicyError {
    /// The module.
    pub digest: Digest,
    /// The interface that was called.
    pub interface: &'static str,
    /// Trap, deadline, or the broken contract.
    pub reason: String,
}

// API that the helper building this room provides (synchronous; called from tokio workers):
//
// pub struct Policies;
// impl Policies {
//     pub fn load(config: &PolicyConfig, kinds: &[KindPolicy]) -> Result<Self, LoadError>;
//     pub fn decide_toggles(&self, kind: &str, now_ms: u64, batch: &[Intent]) -> Result<DecidedToggles, PolicyError>;
//     pub fn plan_flush(&self, kind: &str, now_ms: u64, backlog: &Backlog) -> FlushPlan;   // never fails: built-in
//     pub fn coalesce(&self, kind: &str, changes: &[ToggleChange]) -> Coalesced;           // never fails: own rule
//     pub fn modules(&self) -> Vec<ModuleInfo>;
// }
// pub struct KindPolicy { pub kind: String, pub settings: BTreeMap<String,String>, pub on_failure: PolicyFailure }

pub struct Policies { kinds: std::collections::BTreeMap<String, (weir_default_policy::rules::Settings, crate::config::PolicyFailure)> }
pub struct KindPolicy { pub kind: String, pub settings: std::collections::BTreeMap<String,String>, pub on_failure: crate::config::PolicyFailure }
#[derive(Debug, thiserror::Error)] #[error("x")] pub struct LoadError;
#[derive(serde::Serialize)] pub struct ModuleInfo { #[serde(skip)] pub digest: Digest, pub source: String, pub interfaces: Vec<String>, pub healthy: bool, pub failures: u64 }
impl Policies {
  pub fn load(_: &crate::config::PolicyConfig, kinds: &[KindPolicy]) -> Result<Self, LoadError> { 
    Ok(Self{kinds: kinds.iter().map(|k| (k.kind.clone(), (weir_default_policy::rules::Settings::read(|key| k.settings.get(key).cloned(), |_,_| {}), k.on_failure))).collect()}) }
  pub fn decide_toggles(&self, kind: &str, _: u64, batch: &[Intent]) -> Result<DecidedToggles, PolicyError> {
    use weir_default_policy::rules as r; use crate::model::{Verb, Effect, RateLimit};
    let s = &self.kinds[kind].0;
    let e = |e| match e { r::Effect::Add => Effect::Add, r::Effect::Remove => Effect::Remove, r::Effect::Keep => Effect::Keep };
    Ok(DecidedToggles{ digest: Digest([1;32]), rules: batch.iter().map(|i| { let rule = r::decide(s, match i.verb { Verb::Toggle => r::Verb::Toggle, Verb::Set => r::Verb::Set, Verb::Clear => r::Verb::Clear });
      ToggleRule{ when_absent: e(rule.when_absent), when_present: e(rule.when_present), limit: rule.limit.map(|(burst, period_ms)| RateLimit{burst, period_ms}) } }).collect() })
  }
  pub fn plan_flush(&self, kind: &str, now: u64, b: &Backlog) -> FlushPlan { let p = weir_default_policy::rules::plan(&self.kinds[kind].0, b.entries, b.oldest_age_ms(now)); FlushPlan{flush_now: p.flush_now, changes_max: u32::MAX, look_again_ms: p.look_again_ms} }
  pub fn coalesce(&self, _: &str, c: &[ToggleChange]) -> Coalesced { let pairs: Vec<_> = c.iter().map(|c| (&c.target, &c.actor)).collect(); Coalesced{ kept: weir_default_policy::rules::coalesce(&pairs).into_iter().map(|i| i as usize).collect(), fell_back: false } }
  pub fn modules(&self) -> Vec<ModuleInfo> { vec![] }
}
