//! `[start]`: how long a start waits for what is not there yet.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigError, ensure};

/// Longest wait, in milliseconds: a day.
const WAIT_MS_MAX_MAX: u64 = 86_400_000;

/// How long a start waits for SQL and the store. Meanwhile the host is alive and not ready, and answers what it can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StartConfig {
    /// How long, in milliseconds. What is wrong for good (a password, a database that does not exist, a schema that does not fit)
    /// ends a start at once, also when a server that came late says so.
    pub wait_ms_max: u64,
    /// What comes after it.
    pub on_timeout: OnTimeout,
}

/// What comes after the wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnTimeout {
    /// The host goes on without, serves what it can, and takes up the rest when it comes.
    #[default]
    Serve,
    /// The host ends with exit code 3.
    Exit,
}

impl Default for StartConfig {
    fn default() -> Self {
        Self { wait_ms_max: 60_000, on_timeout: OnTimeout::Serve }
    }
}

impl StartConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let reason = format!("must be at most {WAIT_MS_MAX_MAX} (a day)");
        ensure(self.wait_ms_max <= WAIT_MS_MAX_MAX, "start.wait_ms_max", reason)
    }
}
