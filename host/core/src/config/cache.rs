//! `[cache]`: how much may be cached, and where.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tls::{TlsConfig, TlsMode, is_yes, tls_settings, yes};
use super::{ConfigError, StoreType, StoreUrl, all, at_least, ensure, value};

/// The cache of reads, in memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Memory for SQL reads, in bytes; beyond, what is least worth keeping is dropped.
    pub reads_bytes_max: u64,
    /// Memory for upstream responses, in bytes.
    pub upstream_bytes_max: u64,
    /// Requests that wait for somebody else's read of the same thing; a further one is answered 503 with Retry-After.
    pub waiters_max: usize,
    /// How long each of them waits, in milliseconds; then it is answered 503 with Retry-After (SQL). For an upstream: how long it
    /// waits for a body to be kept that it cannot be told while it comes; then it takes its turn to ask the origin, a few at a
    /// time. For the head of an answer it waits as long as the one who asks does.
    pub wait_ms: u64,
    /// A second cache behind it that hosts share; without it, each host reads for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<SharedCacheConfig>,
}

/// `[cache.shared]`: answers of SQL reads in a Redis, for all hosts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SharedCacheConfig {
    /// `redis://[user:password@]host:port[/db]`, with TLS `rediss://…`: one server, best not that of the store, and best with a `maxmemory-policy`
    /// that evicts: it may lose anything at any time.
    #[schemars(extend("x-weir-secret" = "url"))]
    pub url: String,
    /// File that holds the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// Size of an answer that is shared, in bytes; larger ones are not.
    #[serde(default = "default_value_bytes_max")]
    pub value_bytes_max: usize,
    /// How long it is waited for, in milliseconds; then SQL is asked, and it is left alone for a second.
    #[serde(default = "default_shared_timeout_ms")]
    pub timeout_ms: u64,
    /// `required` or `off`; left out: required, except to loopback addresses and sockets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsMode>,
    /// Certificates of authorities that are trusted besides the system's, as PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca_file: Option<PathBuf>,
    /// Our own certificate, as PEM, where the server asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_client_certificate_file: Option<PathBuf>,
    /// Its key, as PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_client_key_file: Option<PathBuf>,
    /// Whether the certificate must be for the name that is connected to. `false` only with `tls_ca_file`.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub tls_verify_name: bool,
    /// The name that the certificate must be for, where it is not that of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<String>,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            reads_bytes_max: 64 << 20,
            upstream_bytes_max: 128 << 20,
            waiters_max: 20_000,
            wait_ms: 4_000,
            shared: None,
        }
    }
}

fn default_value_bytes_max() -> usize {
    256 << 10
}

fn default_shared_timeout_ms() -> u64 {
    100
}

impl CacheConfig {
    pub(super) fn validate(&self, store: StoreType) -> Result<(), ConfigError> {
        let shares = self.shared.is_some();
        let timeout_ms = self.shared.as_ref().map_or(1, |shared| shared.timeout_ms);
        all([
            at_least("cache.reads_bytes_max", self.reads_bytes_max, 64 << 10),
            at_least("cache.upstream_bytes_max", self.upstream_bytes_max, 64 << 10),
            at_least("cache.wait_ms", self.wait_ms, 1),
            at_least("cache.shared.timeout_ms", timeout_ms, 1),
            self.shared.as_ref().map_or(Ok(()), |shared| shared.secured().map(drop)),
            ensure(
                !shares || store != StoreType::Embedded,
                "cache.shared",
                "hosts that share a cache tell each other what changes by a Redis: set store.type = \"redis\"",
            ),
        ])
    }
}

impl SharedCacheConfig {
    /// In the Redis at `url`, with the default bounds.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.into(),
            url_file: None,
            value_bytes_max: default_value_bytes_max(),
            timeout_ms: default_shared_timeout_ms(),
            tls: None,
            tls_ca_file: None,
            tls_client_certificate_file: None,
            tls_client_key_file: None,
            tls_verify_name: true,
            tls_server_name: None,
        }
    }

    /// How connections to it are encrypted; `None`: they are not.
    ///
    /// # Errors
    /// A URL that is none, contradictions, and plain connections that nobody has asked for.
    pub fn secured(&self) -> Result<Option<TlsConfig>, ConfigError> {
        let url = StoreUrl::parse(&self.url).map_err(|reason| value("cache.shared.url", reason))?;
        if url.sentinels.is_some() || url.hosts.len() != 1 {
            return Err(value("cache.shared.url", "name one server"));
        }
        let config = tls_settings!(self);
        let hosts: Vec<&str> = url.hosts.iter().map(String::as_str).collect();
        Ok(config.decide("cache.shared", url.tls, &hosts)?.then_some(config))
    }
}
