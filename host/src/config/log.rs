//! `[log]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigError, ensure};

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// The least level: `error`, `warn`, `info`, `debug` or `trace`. `WEIR_LOG` in the environment goes before it.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".into() }
    }
}

impl LogConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let is_known = ["error", "warn", "info", "debug", "trace"].contains(&self.level.as_str());
        ensure(is_known, "log.level", format!("{:?} is none: write error, warn, info, debug or trace", self.level))
    }
}
