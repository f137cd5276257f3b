//! `[fit]`: what is refused at the door because SQL could never take it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigError, all, at_least};

/// What of a request is compared with the tables before it is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FitConfig {
    /// How often the columns' types and foreign keys are read anew, in milliseconds. What was changed in between is judged by the
    /// database alone, or refused so long.
    pub refresh_ms: u64,
    /// Whether it is looked whether the row is there that the actor's (or a member's) foreign key leads to.
    pub parents: bool,
    /// Such rows of one kind that are remembered.
    pub parents_max: usize,
    /// How long it is remembered that one is there, in milliseconds.
    pub present_ms: u64,
    /// How long it is remembered that one is missing, in milliseconds.
    pub missing_ms: u64,
    /// How long a request waits for that, in milliseconds; beyond, it is accepted without.
    pub wait_ms: u64,
}

impl Default for FitConfig {
    fn default() -> Self {
        Self {
            refresh_ms: 30_000,
            parents: true,
            parents_max: 100_000,
            present_ms: 300_000,
            missing_ms: 1_000,
            wait_ms: 250,
        }
    }
}

impl FitConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        all([
            at_least("fit.refresh_ms", self.refresh_ms, 100),
            at_least("fit.parents_max", self.parents_max, 1),
            at_least("fit.wait_ms", self.wait_ms, 1),
        ])
    }
}
