//! What may be kept of reads, by the policy modules.
//!
//! It lives in `app` because it joins modules that do not know each other.

use std::sync::Arc;

use crate::cache::eligibility::Eligibility;
use crate::clock::Clock;
use crate::model::{CacheRule, ReadProfile};
use crate::policy::Rules;

/// The live policy module.
pub struct ByPolicy {
    /// The modules.
    pub policies: Arc<Rules>,
    /// The time.
    pub clock: Clock,
}

impl Eligibility for ByPolicy {
    fn rule(&self, profile: &ReadProfile) -> CacheRule {
        self.policies.eligible(self.clock.now_ms(), profile)
    }

    fn version(&self) -> u64 {
        self.policies.eligible_version()
    }
}
