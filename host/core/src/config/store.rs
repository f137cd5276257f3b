//! `[store]`: where the hot state and the journal live.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tls::{TlsConfig, TlsMode, tls_settings};
use super::{ConfigError, Namespace, StoreUrl, all, at_least, ensure, value};
use crate::model::Partition;

/// Where the hot state and the journal live.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// `embedded`, `redis` or `redis-cluster`.
    #[serde(rename = "type")]
    pub store_type: StoreType,
    /// Directory of the embedded store.
    pub path: PathBuf,
    /// Memory for the state of targets in the embedded store, in bytes. Beyond, clean targets are forgotten and read
    /// from SQL again; what waits for SQL is kept, some 60 bytes for each change.
    pub memory_bytes_max: usize,
    /// URL of the Redis, `redis://[user:password@]host:port[/db]`, with TLS `rediss://…`; of a cluster any node, or several with
    /// commas between; of a master that sentinels watch `redis+sentinel://[user:password@]host:port,host:port/master[/db]`.
    #[schemars(extend("x-weir-secret" = "url"))]
    pub url: String,
    /// File that holds the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// Redis: a part of every key, which keeps databases apart that share a Redis. `None`: see [`Namespace::of_database`].
    pub namespace: Option<Namespace>,
    /// Time for one answer of Redis, in milliseconds; beyond: 503, outcome unknown.
    pub response_timeout_ms: u64,
    /// Replicas of a Redis that must have received a write before it is acknowledged (WAIT); with fewer: 503, outcome
    /// unknown. 0: replication is not waited for.
    pub replicas_min: u32,
    /// How long these are waited for, in milliseconds.
    pub replicas_timeout_ms: u64,
    /// Partitions per kind. Part of the data format: fixed at the first start.
    pub partitions: Partition,
    /// How long the state of a target is kept after its last change was committed to SQL, in seconds. Then it is
    /// read from SQL again: what others changed there becomes visible.
    pub state_ttl_s: u64,
    /// How long "this target does not exist" is believed, in seconds.
    pub absent_ttl_s: u64,
    /// How long an idempotency key is remembered, in seconds.
    pub idempotency_ttl_s: u64,
    /// Known pairs of one huge target, beyond which they are dropped once they are committed.
    pub huge_pairs_max: u64,
    /// Rates, windows and queues go by the time that calls name, in place of the Redis server's clock: for tests that move
    /// the time by hand.
    #[serde(skip)]
    pub is_time_told: bool,
    /// How long the embedded store may refuse writes after a failure of its disk before `/livez` says so, in milliseconds,
    /// so that a supervisor restarts the host. Meanwhile it tries to mend itself, and `/readyz` says so at once.
    pub restart_after_ms: u64,
    /// `required` or `off`; left out: required, except to loopback addresses and sockets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsMode>,
    /// Certificates of authorities that are trusted besides the system's, as PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_ca_file: Option<PathBuf>,
    /// Our own certificate, as PEM, where the server asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_client_certificate_file: Option<PathBuf>,
    /// Its key, as PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_client_key_file: Option<PathBuf>,
    /// Whether the certificate must be for the name that is connected to. `false` only with `tls_ca_file`.
    pub tls_verify_name: bool,
    /// The name that the certificate must be for, where it is not that of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<String>,
}

/// The implementations of the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StoreType {
    /// In process, on disk, one fdatasync per batch.
    #[default]
    Embedded,
    /// A Redis 7 or later, shared by several hosts.
    Redis,
    /// A cluster of such.
    #[serde(rename = "redis-cluster")]
    RedisCluster,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            store_type: StoreType::Embedded,
            path: PathBuf::from("weir-store"),
            memory_bytes_max: 64 << 20,
            url: "redis://127.0.0.1:6379".into(),
            url_file: None,
            namespace: None,
            response_timeout_ms: 1_000,
            replicas_min: 0,
            replicas_timeout_ms: 200,
            partitions: 8,
            state_ttl_s: 3_600,
            absent_ttl_s: 10,
            idempotency_ttl_s: 600,
            huge_pairs_max: 100_000,
            is_time_told: false,
            restart_after_ms: 60_000,
            tls: None,
            tls_ca_file: None,
            tls_client_certificate_file: None,
            tls_client_key_file: None,
            tls_verify_name: true,
            tls_server_name: None,
        }
    }
}

impl StoreConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        all([
            at_least("store.partitions", self.partitions, 1),
            ensure(self.partitions <= 1024, "store.partitions", "must be at most 1024"),
            at_least("store.response_timeout_ms", self.response_timeout_ms, 1),
            at_least("store.replicas_timeout_ms", self.replicas_timeout_ms, 1),
            ensure(
                self.replicas_min == 0 || self.replicas_timeout_ms < self.response_timeout_ms,
                "store.replicas_timeout_ms",
                "must be less than store.response_timeout_ms",
            ),
            at_least("store.memory_bytes_max", self.memory_bytes_max, 1 << 20),
            at_least("store.state_ttl_s", self.state_ttl_s, 1),
            at_least("store.absent_ttl_s", self.absent_ttl_s, 1),
            at_least("store.restart_after_ms", self.restart_after_ms, 1),
            at_least("store.idempotency_ttl_s", self.idempotency_ttl_s, 1),
            if self.store_type == StoreType::Embedded { Ok(()) } else { self.secured().map(drop) },
        ])
    }

    /// How connections to the Redis are encrypted; `None`: they are not.
    ///
    /// # Errors
    /// A URL that is none, contradictions, and plain connections that nobody has asked for.
    pub fn secured(&self) -> Result<Option<TlsConfig>, ConfigError> {
        let url = StoreUrl::parse(&self.url).map_err(|reason| value("store.url", reason))?;
        if url.sentinels.is_some() && self.store_type != StoreType::Redis {
            return Err(value("store.url", "sentinels watch a single Redis: write store.type = \"redis\""));
        }
        let config = tls_settings!(self);
        let hosts: Vec<&str> = url.hosts.iter().map(String::as_str).collect();
        Ok(config.decide("store", url.tls, &hosts)?.then_some(config))
    }
}
