//! What is kept of reads: the live module says, and the built-in rule is always there.

use super::Policies;
use super::call::Role;
use super::interface::{Interface, cache};
use crate::model::{CacheRule, ReadProfile};

impl Policies {
    /// What may be kept of a read. May wait for what a module was granted: call it where that is allowed. Never fails: the
    /// built-in rule stands in for a module that does.
    pub fn eligible(&self, now_ms: u64, profile: &ReadProfile) -> CacheRule {
        let active = self.active();
        let module = &active.live.get(Interface::Cache).module;
        if self.runs_natively(module) {
            return cache::builtin(profile);
        }
        let outcome = module.eligible(Role::Live, &profile.name, now_ms, profile);
        self.judge_live(&active, module, &outcome);
        match outcome {
            Ok(answered) => {
                self.observe_live(&active, module, Interface::Cache, 1, answered.elapsed, || {
                    (cache::record(&profile.name, now_ms, profile), cache::record_rule(&answered.answer))
                });
                answered.answer
            }
            Err(_) => {
                self.count_fallback(&profile.name, "built-in");
                cache::builtin(profile)
            }
        }
    }

    /// Differs when another module says what is kept.
    pub fn eligible_version(&self) -> u64 {
        let digest = self.active().live.get(Interface::Cache).module.digest;
        digest.0.iter().take(8).fold(0, |version, byte| version << 8 | u64::from(*byte))
    }
}
