//! What is cached of reads: the live module says, and the built-in rule is always there.

use weir_policy_vectors::Answer;

use super::service::Rules;
use crate::call::Role;
use crate::interface::{Interface, cache};
use weir_core::model::{CacheRule, ReadProfile};

impl Rules {
    /// What may be cached of a read. May wait for what a module was granted: call it where that is allowed. Never fails: the
    /// built-in rule stands in for a module that does.
    pub fn eligible(&self, now_ms: u64, profile: &ReadProfile) -> CacheRule {
        let active = self.active();
        let module = &active.live.get(Interface::Cache).module;
        if self.runs_natively(module) {
            return cache::builtin(profile);
        }
        let outcome = module.eligible(Role::Live, &profile.name, now_ms, &cache::measured(profile));
        self.trials.judge_live(&active, module, &outcome);
        match outcome {
            Ok(answered) => {
                self.trials.observe_live(&active, module, Interface::Cache, 1, answered.elapsed, || {
                    (cache::record(&profile.name, now_ms, profile), Answer::Cache(answered.answer.clone()))
                });
                cache::to_rule(answered.answer)
            }
            Err(_) => {
                self.count_fallback(&profile.name, "built-in");
                cache::builtin(profile)
            }
        }
    }

    /// Differs when another module says what is cached.
    pub fn eligible_version(&self) -> u64 {
        let digest = self.live_digest(Interface::Cache);
        digest.0.iter().take(8).fold(0, |version, byte| version << 8 | u64::from(*byte))
    }
}
