//! What an operator may set: one struct per room, every field documented, with its default.
//!
//! Tier 0. The only room that reads configuration files and environment variables. Unknown fields are errors; a
//! wrong value is refused at start with the name of the field and what to write instead.

mod address;
mod cache;
mod cors;
mod counter;
mod fit;
mod flow;
mod http;
mod ingest;
mod jwt;
mod kind;
mod log;
mod namespace;
mod network;
mod policy;
mod policy_pool;
mod preference;
mod room;
mod sql_url;
mod store_url;
mod tls;
mod toggle;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use address::listen_address;
pub use cache::{CacheConfig, ReadConfig, SharedCacheConfig, Staleness, UpstreamConfig, UpstreamLimits};
pub use cors::CorsConfig;
pub use counter::{ActorNeed, CounterConfig, CounterTable, EventTable};
pub use fit::FitConfig;
pub use flow::{BatchConfig, FlushConfig, JournalConfig, SqlConfig, StoreConfig, StoreType};
pub use http::{AdminConfig, AuthConfig, HttpConfig, ProxyHeaders, TrustedHeaderFrom};
pub use ingest::{ChildTable, IngestConfig, IngestTable};
pub use jwt::{JwtConfig, OneOrMany};
pub use kind::{DurabilityLevel, KindTable, PolicyFailure};
pub use log::{AccessLogConfig, AccessLogFormat, LogConfig, TraceConfig};
pub use namespace::Namespace;
pub use network::Networks;
pub use policy::{
    AuditConfig, BreakerConfig, BuiltinRules, CanaryConfig, DecisionLogConfig, GrantConfig, ParameterType,
    PolicyConfig, StatementConfig,
};
pub(crate) use policy::{is_free_module_name, is_module_name, is_reserved_module_name};
pub use policy_pool::PolicyPoolConfig;
pub use preference::{
    FieldConfig, LookupFallback, MemberTable, PreferenceConfig, PreferenceTable, StoreFallback, WriteRights,
};
pub use room::{RoomAlgorithm, RoomConfig, RoomKeyConfig, RoomMode};
pub use sql_url::SqlUrl;
pub use store_url::{SentinelUrl, StoreUrl};
pub use tls::{TlsConfig, TlsMode, UrlTls};
pub use toggle::{CountTable, ToggleConfig, ToggleResponse, ToggleTable};

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
    /// What is logged.
    pub log: LogConfig,
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
    /// What is refused because SQL could never take it.
    pub fit: FitConfig,
    /// The kinds of the toggle capability.
    #[serde(rename = "toggle")]
    pub toggles: Vec<ToggleConfig>,
    /// The kinds of the counter capability.
    #[serde(rename = "counter")]
    pub counters: Vec<CounterConfig>,
    /// The kinds of the ingest capability.
    #[serde(rename = "ingest")]
    pub ingests: Vec<IngestConfig>,
    /// The kinds of the preference capability.
    #[serde(rename = "preference")]
    pub preferences: Vec<PreferenceConfig>,
    /// The kinds of the room capability. They have no table: what they hold is the store's.
    #[serde(rename = "room")]
    pub rooms: Vec<RoomConfig>,
    /// The cache of reads.
    pub cache: CacheConfig,
    /// SQL reads.
    #[serde(rename = "read")]
    pub reads: Vec<ReadConfig>,
    /// Origins behind weir.
    #[serde(rename = "upstream")]
    pub upstreams: Vec<UpstreamConfig>,
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

    /// The embedded demo: SQLite and the embedded store under `data`, one kind of each capability, actor by trusted header on
    /// loopback.
    pub fn demo(data: &Path) -> Self {
        Self {
            auth: AuthConfig { trusted_header: Some("X-Actor-Id".into()), ..AuthConfig::default() },
            store: StoreConfig { path: data.join("store"), ..StoreConfig::default() },
            policy: PolicyConfig { registry: data.join("policies"), ..PolicyConfig::default() },
            sql: SqlConfig { url: format!("sqlite://{}", data.join("demo.db").display()), ..SqlConfig::default() },
            toggles: vec![ToggleConfig::demo(), ToggleConfig::demo_video()],
            counters: vec![CounterConfig::demo()],
            ingests: vec![IngestConfig::demo()],
            preferences: vec![PreferenceConfig::demo()],
            rooms: vec![RoomConfig::demo(data.join("room.pem"))],
            reads: vec![ReadConfig::demo_dates(), ReadConfig::demo_seats()],
            ..Self::default()
        }
    }

    /// With the namespace that its database gives it, where none is configured.
    #[must_use]
    pub fn with_namespace(mut self) -> Self {
        self.store.namespace.get_or_insert_with(|| Namespace::of_database(&self.sql.url));
        self
    }

    /// Checks what the types cannot.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.http.validate()?;
        self.admin.validate()?;
        self.auth.validate()?;
        if self
            .auth
            .trusted_header
            .as_deref()
            .is_some_and(|name| name.eq_ignore_ascii_case(&self.http.trace.request_id_header))
        {
            return Err(value(
                "http.trace.request_id_header",
                "is the name of auth.trusted_header, which names an actor",
            ));
        }
        self.log.validate()?;
        self.store.validate()?;
        self.sql.validate()?;
        self.policy.validate()?;
        self.batch.validate()?;
        self.flush.validate()?;
        self.fit.validate()?;
        self.toggles.iter().enumerate().try_for_each(|(index, kind)| kind.validate(index))?;
        self.counters.iter().enumerate().try_for_each(|(index, kind)| kind.validate(index))?;
        self.ingests.iter().enumerate().try_for_each(|(index, kind)| {
            kind.validate(index)?;
            kind.validate_for_rules(index, self.policy.documents_bytes_max())
        })?;
        self.preferences.iter().enumerate().try_for_each(|(index, kind)| kind.validate(index))?;
        self.rooms.iter().enumerate().try_for_each(|(index, kind)| kind.validate(index))?;
        self.cache.validate(self.store.store_type)?;
        self.reads.iter().enumerate().try_for_each(|(index, read)| read.validate(index))?;
        self.upstreams.iter().enumerate().try_for_each(|(index, upstream)| upstream.validate(index))?;
        let mut names = BTreeSet::new();
        if let Some(read) = self.reads.iter().find(|read| !names.insert(read.name.as_str())) {
            return Err(value("read.name", format!("{:?} is configured twice", read.name)));
        }
        let mut names = BTreeSet::new();
        if let Some(upstream) = self.upstreams.iter().find(|upstream| !names.insert(upstream.name.as_str())) {
            return Err(value("upstream.name", format!("{:?} is configured twice", upstream.name)));
        }
        // One name, one journal: also over capabilities.
        let mut kinds = BTreeSet::new();
        // Rules know reads by name, too.
        kinds.extend(self.reads.iter().map(|read| read.name.as_str()));
        let of_tables = self.kinds().into_iter().map(|(kind, _)| kind);
        match of_tables.chain(self.rooms.iter().map(|room| room.kind.as_str())).find(|kind| !kinds.insert(*kind)) {
            Some(kind) => Err(value("kind", format!("{kind:?} is configured twice"))),
            None => Ok(()),
        }
    }

    /// Every kind that is written behind, and its tables.
    pub fn kinds(&self) -> Vec<(&str, KindTable)> {
        let toggles = self.toggles.iter().map(|kind| (kind.kind.as_str(), KindTable::Toggle(kind.table.clone())));
        let counters = self.counters.iter().map(|kind| (kind.kind.as_str(), KindTable::Counter(kind.table.clone())));
        let ingests = self.ingests.iter().map(|kind| (kind.kind.as_str(), KindTable::Ingest(kind.table.clone())));
        let preferences =
            self.preferences.iter().map(|kind| (kind.kind.as_str(), KindTable::Preference(kind.table.clone())));
        toggles.chain(counters).chain(ingests).chain(preferences).collect()
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
    fn a_document_fits_into_a_call_of_the_rules() {
        let mut config = Config::demo(Path::new("d"));
        config.ingests[0].document_bytes_max = 256 << 10;
        config.validate().unwrap();
        config.ingests[0].document_bytes_max += 1;
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains("ingest[0].document_bytes_max") && error.contains("transfer_bytes_max"), "{error}");
        config.policy.transfer_bytes_max = 2 << 20;
        config.validate().unwrap();
    }

    #[test]
    fn an_actor_is_no_request_id() {
        let mut config = Config::demo(Path::new("d"));
        config.http.trace.request_id_header = "x-actor-id".into();
        assert!(config.validate().unwrap_err().to_string().contains("names an actor"));
    }

    #[test]
    fn a_kind_is_configured_once() {
        let mut config = Config::demo(Path::new("d"));
        config.toggles.push(ToggleConfig::demo());
        assert!(config.validate().unwrap_err().to_string().contains("configured twice"));
    }
}
