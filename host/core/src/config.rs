//! What an operator may set: one struct per table, every field documented, with its default.
//!
//! May use only `model`. The only module that reads configuration files and environment variables. Unknown fields are errors; a
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
mod load;
mod log;
mod namespace;
mod network;
mod policy;
mod policy_pool;
mod preference;
mod read;
mod room;
mod schema;
mod secret;
mod show;
mod sql;
mod sql_url;
mod start;
mod store;
mod store_url;
mod tls;
mod toggle;
mod upstream;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use address::listen_address;
pub use cache::{CacheConfig, SharedCacheConfig};
pub use cors::CorsConfig;
pub use counter::{ActorNeed, CounterConfig, CounterTable, EventTable};
pub use fit::FitConfig;
pub use flow::{BatchConfig, FlushConfig, JournalConfig};
pub use http::{AdminConfig, AuthConfig, HttpConfig, ProxyHeaders, TrustedHeaderFrom};
pub use ingest::{ChildTable, IngestConfig, IngestTable};
pub use jwt::{JwtConfig, OneOrMany};
pub use kind::{DurabilityLevel, KindTable, PolicyFailure};
pub use load::{Loaded, Mistake, Origin, Sources};
pub use log::{AccessLogConfig, AccessLogFormat, LogConfig, TraceConfig};
pub use namespace::Namespace;
pub use network::Networks;
pub use policy::{
    AuditConfig, BreakerConfig, BuiltinRules, CanaryConfig, DecisionLogConfig, GrantConfig, ParameterType,
    PolicyConfig, StatementConfig,
};
pub use policy::{is_free_module_name, is_module_name, is_reserved_module_name};
pub use policy_pool::PolicyPoolConfig;
pub use preference::{
    FieldConfig, LookupFallback, MemberTable, PreferenceConfig, PreferenceTable, StoreFallback, WriteRights,
};
pub use read::{ReadConfig, Staleness};
pub use room::{RoomAlgorithm, RoomConfig, RoomKeyConfig, RoomMode};
pub use schema::schema;
pub use show::{Shown, shown};
pub use sql::{Pooler, SqlConfig};
pub use sql_url::SqlUrl;
pub use start::{OnTimeout, StartConfig};
pub use store::{StoreConfig, StoreType};
pub use store_url::{SentinelUrl, StoreUrl};
pub use tls::{TlsConfig, TlsMode, UrlTls};
pub use toggle::{CountTable, ToggleConfig, ToggleResponse, ToggleTable};
pub use upstream::{UpstreamConfig, UpstreamLimits};

/// Everything in `weir.toml`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// How long a start waits for SQL and the store.
    pub start: StartConfig,
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
    /// What is wrong in what was read, each with its place.
    #[error("{}", load::told(.0))]
    Mistakes(Vec<Mistake>),
    /// Several of these.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<ConfigError>),
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
    /// Reads and validates a file, with what the environment of this process says.
    ///
    /// # Errors
    /// All mistakes, each with its place.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Ok(Sources::files([path]).with_environment().load()?.config)
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
    ///
    /// # Errors
    /// All that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let documents_bytes_max = self.policy.documents_bytes_max();
        let names_actor = self.auth.trusted_header.as_deref();
        all([
            ensure(
                !names_actor.is_some_and(|name| name.eq_ignore_ascii_case(&self.http.trace.request_id_header)),
                "http.trace.request_id_header",
                "is the name of auth.trusted_header, which names an actor",
            ),
            self.http.validate(),
            self.admin.validate(),
            self.auth.validate(),
            self.log.validate(),
            self.start.validate(),
            self.store.validate(),
            self.sql.validate(),
            self.policy.validate(),
            self.batch.validate(),
            self.flush.validate(),
            self.fit.validate(),
            all(self.toggles.iter().enumerate().map(|(index, kind)| kind.validate(index))),
            all(self.counters.iter().enumerate().map(|(index, kind)| kind.validate(index))),
            all(self
                .ingests
                .iter()
                .enumerate()
                .map(|(index, kind)| all([kind.validate(index), kind.validate_for_rules(index, documents_bytes_max)]))),
            all(self.preferences.iter().enumerate().map(|(index, kind)| kind.validate(index))),
            all(self.rooms.iter().enumerate().map(|(index, kind)| kind.validate(index))),
            self.cache.validate(self.store.store_type),
            all(self.reads.iter().enumerate().map(|(index, read)| read.validate(index))),
            all(self.upstreams.iter().enumerate().map(|(index, upstream)| upstream.validate(index))),
            self.validate_names(),
        ])
    }

    /// One name, one journal: also over capabilities. Rules know reads by name, too.
    fn validate_names(&self) -> Result<(), ConfigError> {
        let named = |names: Vec<&str>, list: &'static str, of: &'static str| {
            let owned: Vec<String> = names.into_iter().map(ToOwned::to_owned).collect();
            owned.into_iter().enumerate().map(move |(index, name)| (name, format!("{list}[{index}].{of}")))
        };
        let kinds = named(self.reads.iter().map(|read| read.name.as_str()).collect(), "read", "name")
            .chain(named(self.toggles.iter().map(|kind| kind.kind.as_str()).collect(), "toggle", "kind"))
            .chain(named(self.counters.iter().map(|kind| kind.kind.as_str()).collect(), "counter", "kind"))
            .chain(named(self.ingests.iter().map(|kind| kind.kind.as_str()).collect(), "ingest", "kind"))
            .chain(named(self.preferences.iter().map(|kind| kind.kind.as_str()).collect(), "preference", "kind"))
            .chain(named(self.rooms.iter().map(|kind| kind.kind.as_str()).collect(), "room", "kind"));
        let upstreams = named(self.upstreams.iter().map(|one| one.name.as_str()).collect(), "upstream", "name");
        let mut taken = BTreeSet::new();
        let kinds = kinds
            .map(|(name, field)| ensure(taken.insert(name.clone()), field, format!("{name:?} is configured twice")));
        let mut taken = BTreeSet::new();
        let upstreams = upstreams
            .map(|(name, field)| ensure(taken.insert(name.clone()), field, format!("{name:?} is configured twice")));
        all(kinds.chain(upstreams))
    }

    /// Reads the files with keys and tokens, which are used later.
    ///
    /// # Errors
    /// All that cannot be read, or hold what is no such thing.
    pub fn validate_secrets(&self) -> Result<(), ConfigError> {
        // Published keys are read when the host starts, and again.
        let jwt = self.auth.jwt.as_ref().filter(|jwt| jwt.jwks_url.is_none());
        let jwt = jwt.map_or(Ok(()), |jwt| jwt.read_key().map(drop));
        let keys = self.rooms.iter().enumerate().flat_map(|(index, room)| {
            room.keys.iter().enumerate().map(move |(at, key)| {
                key.read().map(drop).map_err(|error| error.under("room.keys", &format!("room[{index}].keys[{at}]")))
            })
        });
        all([self.admin.read_token().map(drop), jwt].into_iter().chain(keys))
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

impl ConfigError {
    /// With the field where it stands in the whole, in place of where it stands in its kind.
    fn under(self, of_kind: &str, whole: &str) -> Self {
        match self {
            Self::Value { field, reason } => {
                let rest = field.strip_prefix(of_kind);
                Self::Value { field: rest.map_or(field.clone(), |rest| format!("{whole}{rest}")), reason }
            }
            other => other,
        }
    }
}

pub(crate) fn value(field: impl Into<String>, reason: impl Into<String>) -> ConfigError {
    ConfigError::Value { field: field.into(), reason: reason.into() }
}

/// All that is wrong, not only the first.
pub(crate) fn all(checks: impl IntoIterator<Item = Result<(), ConfigError>>) -> Result<(), ConfigError> {
    let mut found = Vec::new();
    for error in checks.into_iter().filter_map(Result::err) {
        match error {
            ConfigError::Several(several) => found.extend(several),
            error => found.push(error),
        }
    }
    match found.len() {
        0 => Ok(()),
        1 => Err(found.remove(0)),
        _ => Err(ConfigError::Several(found)),
    }
}

/// A mistake unless it `is_right`.
pub(crate) fn ensure(is_right: bool, field: impl Into<String>, reason: impl Into<String>) -> Result<(), ConfigError> {
    if is_right { Ok(()) } else { Err(value(field, reason)) }
}

pub(crate) fn at_least<T: PartialOrd + std::fmt::Display>(field: &str, given: T, least: T) -> Result<(), ConfigError> {
    if given < least { Err(value(field, format!("must be at least {least}, is {given}"))) } else { Ok(()) }
}

pub(crate) fn between<T: PartialOrd + std::fmt::Display>(
    field: &str,
    given: T,
    least: T,
    most: T,
) -> Result<(), ConfigError> {
    if given > most {
        return Err(value(field, format!("must be at most {most}, is {given}")));
    }
    at_least(field, given, least)
}

/// A setting, or the file that holds it: not both.
pub(crate) fn one_of(field: &str, is_given: bool, is_in_file: bool) -> Result<(), ConfigError> {
    let name = field.rsplit('.').next().unwrap_or(field);
    ensure(!(is_given && is_in_file), format!("{field}_file"), format!("give {name} or {name}_file, not both"))
}

/// A setting, or the file that holds it: one of them.
pub(crate) fn exactly_one(field: &str, is_given: bool, is_in_file: bool) -> Result<(), ConfigError> {
    let name = field.rsplit('.').next().unwrap_or(field);
    all([
        one_of(field, is_given, is_in_file),
        ensure(is_given || is_in_file, field, format!("give {name} or {name}_file")),
    ])
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
