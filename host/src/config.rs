//! What an operator may set: one struct per room, every field documented, with its default.
//!
//! Tier 0. The only room that reads configuration files and environment variables. Unknown fields are errors; a
//! wrong value is refused at start with the name of the field and what to write instead.

mod flow;
mod http;
mod policy;
mod toggle;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use flow::{BatchConfig, FlushConfig, JournalConfig, SqlConfig, StoreConfig, StoreType};
pub use http::{AdminConfig, AuthConfig, HttpConfig, JwtConfig, TrustedHeaderFrom};
pub use policy::{
    BuiltinRules, CanaryConfig, DecisionLogConfig, GrantConfig, ParameterType, PolicyConfig, StatementConfig,
};
pub(crate) use policy::{is_free_module_name, is_module_name};
pub use toggle::{CountTable, DurabilityLevel, PolicyFailure, ToggleConfig, ToggleResponse, ToggleTable};

/// Everything in `weir.toml`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The public listener and its limits.
    pub http: HttpConfig,
    /// The operators' listener.
    pub admin: AdminConfig,
    /// Who the actor of a request is.
    pub auth: AuthConfig,
    /// Where the hot state and the journal live.
    pub store: StoreConfig,
    /// Where the truth lives.
    pub sql: SqlConfig,
    /// The WebAssembly component with the rules, and its limits.
    pub policy: PolicyConfig,
    /// Gathering of concurrent requests.
    pub batch: BatchConfig,
    /// Bounds of the journal.
    pub journal: JournalConfig,
    /// Writing behind.
    pub flush: FlushConfig,
    /// The kinds of the toggle capability.
    #[serde(rename = "toggle")]
    pub toggles: Vec<ToggleConfig>,
}

/// Why a configuration is not usable. The message names the field and says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Not TOML, an unknown field, or a wrong type.
    #[error("{path}: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's message, with line and column.
        reason: String,
    },
    /// A value that cannot be.
    #[error("{field}: {reason}")]
    Value {
        /// The field, dotted.
        field: String,
        /// What is wrong and what to write.
        reason: String,
    },
}

impl Config {
    /// Reads and validates a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), reason: error.to_string() })?;
        let config: Self = toml::from_str(&text)
            .map_err(|error| ConfigError::Syntax { path: path.to_owned(), reason: error.to_string() })?;
        config.validate()?;
        Ok(config)
    }

    /// The embedded demo: SQLite and the embedded store under `data`, kind `feed-like`, actor by trusted header on
    /// loopback.
    pub fn demo(data: &Path) -> Self {
        Self {
            auth: AuthConfig { trusted_header: Some("X-Actor-Id".into()), ..AuthConfig::default() },
            store: StoreConfig { path: data.join("store"), ..StoreConfig::default() },
            policy: PolicyConfig { registry: data.join("policies"), ..PolicyConfig::default() },
            sql: SqlConfig { url: format!("sqlite://{}", data.join("demo.db").display()), ..SqlConfig::default() },
            toggles: vec![ToggleConfig::demo()],
            ..Self::default()
        }
    }

    /// Checks what the types cannot.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.http.validate()?;
        self.admin.validate()?;
        self.auth.validate()?;
        self.store.validate()?;
        self.sql.validate()?;
        self.policy.validate()?;
        self.batch.validate()?;
        self.flush.validate()?;
        for (index, toggle) in self.toggles.iter().enumerate() {
            toggle.validate(index)?;
            if self.toggles[..index].iter().any(|earlier| earlier.kind == toggle.kind) {
                return Err(value(format!("toggle[{index}].kind"), format!("{:?} is configured twice", toggle.kind)));
            }
        }
        Ok(())
    }
}

pub(crate) fn value(field: impl Into<String>, reason: impl Into<String>) -> ConfigError {
    ConfigError::Value { field: field.into(), reason: reason.into() }
}

pub(crate) fn at_least<T: PartialOrd + std::fmt::Display>(field: &str, given: T, least: T) -> Result<(), ConfigError> {
    if given < least { Err(value(field, format!("must be at least {least}, is {given}"))) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_is_valid_and_survives_toml() {
        let demo = Config::demo(Path::new("weir-data"));
        demo.validate().unwrap();
        let text = toml::to_string(&demo).unwrap();
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), demo);
    }

    #[test]
    fn unknown_fields_are_named() {
        let error = toml::from_str::<Config>("[http]\nlisten_adress = \"127.0.0.1:1\"").unwrap_err();
        assert!(error.to_string().contains("listen_adress"), "{error}");
    }

    #[test]
    fn a_kind_is_configured_once() {
        let mut config = Config::demo(Path::new("d"));
        config.toggles.push(ToggleConfig::demo());
        assert!(config.validate().unwrap_err().to_string().contains("configured twice"));
    }
}
