//! `[store]`, `[sql]`, `[batch]`, `[journal]` and `[flush]`: the way of a write.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tls::{TlsConfig, TlsMode, UrlTls};
use super::{ConfigError, Namespace, SqlUrl, StoreUrl, all, at_least, ensure, value};
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
        let config = TlsConfig {
            mode: self.tls,
            ca_file: self.tls_ca_file.clone(),
            client_certificate_file: self.tls_client_certificate_file.clone(),
            client_key_file: self.tls_client_key_file.clone(),
            verify_name: self.tls_verify_name,
            server_name: self.tls_server_name.clone(),
        };
        let hosts: Vec<&str> = url.hosts.iter().map(String::as_str).collect();
        Ok(config.decide("store", url.tls, &hosts)?.then_some(config))
    }
}

/// What may be between weir and PostgreSQL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pooler {
    /// Nothing, or what keeps a session on one connection of the server.
    #[default]
    None,
    /// What gives a session another connection for each transaction.
    Transaction,
}

/// Where the truth lives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SqlConfig {
    /// `sqlite://path`, `postgres://user:password@host/database`, `mysql://user:password@host/database`. Of several hosts with
    /// commas between them the one that takes writes is used.
    #[schemars(extend("x-weir-secret" = "url"))]
    pub url: String,
    /// File that holds the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// Connections of the pool.
    pub connections_max: u32,
    /// Time to get a connection, in milliseconds.
    pub acquire_timeout_ms: u64,
    /// Time for one statement, kept by the server, in milliseconds.
    pub statement_timeout_ms: u64,
    /// Time a transaction may be idle, kept by the server, in milliseconds: what a stopped flusher can block.
    pub idle_transaction_timeout_ms: u64,
    /// Time that a flush waits for a row that another session has locked, kept by the server, in milliseconds (MariaDB and
    /// MySQL: full seconds). Then the target is set aside until the lock is gone, and all others go on.
    pub lock_timeout_ms: u64,
    /// Time of each query with which `weir check` and the start look at rows (counts, greatest ids), in milliseconds. What
    /// cannot be seen in it is said to be unknown.
    pub check_timeout_ms: u64,
    /// What is between weir and PostgreSQL.
    pub pooler: Pooler,
    /// What the self-check finds and you know to be right: columns whose names say that rows have a state, a type or are
    /// deleted, and triggers that name a count. Each `table.column` or `table.trigger`, the table as in its kind.
    pub acknowledged: Vec<String>,
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
}

impl Default for SqlConfig {
    fn default() -> Self {
        Self {
            url: "sqlite://weir.db".into(),
            url_file: None,
            connections_max: 8,
            acquire_timeout_ms: 5_000,
            statement_timeout_ms: 30_000,
            idle_transaction_timeout_ms: 10_000,
            lock_timeout_ms: 1_000,
            check_timeout_ms: 1_000,
            pooler: Pooler::None,
            acknowledged: Vec::new(),
            tls: None,
            tls_ca_file: None,
            tls_client_certificate_file: None,
            tls_client_key_file: None,
            tls_verify_name: true,
        }
    }
}

impl SqlConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let unknown = self.acknowledged.iter().filter(|known| !known.contains('.'));
        let unknown = unknown.map(|known| {
            Err(value("sql.acknowledged", format!("{known:?} must be \"table.column\" or \"table.trigger\"")))
        });
        let secured = match self.url.starts_with("sqlite:") {
            true => self.tls_config().decide("sql", UrlTls::Silent, &[]).map(drop),
            false => self.secured().map(drop),
        };
        let bounds = [
            secured,
            // One connection flushes, another hydrates.
            at_least("sql.connections_max", self.connections_max, 2),
            at_least("sql.acquire_timeout_ms", self.acquire_timeout_ms, 1),
            at_least("sql.statement_timeout_ms", self.statement_timeout_ms, 100),
            at_least("sql.idle_transaction_timeout_ms", self.idle_transaction_timeout_ms, 1_000),
            at_least("sql.lock_timeout_ms", self.lock_timeout_ms, 10),
            at_least("sql.check_timeout_ms", self.check_timeout_ms, 1),
            ensure(
                self.lock_timeout_ms <= self.statement_timeout_ms / 2,
                "sql.lock_timeout_ms",
                "must be at most half of sql.statement_timeout_ms",
            ),
            ensure(
                self.pooler == Pooler::None || self.url.starts_with("postgres"),
                "sql.pooler",
                "is of PostgreSQL alone: sessions of MySQL Router and ProxySQL keep their settings",
            ),
        ];
        all(bounds.into_iter().chain(unknown))
    }

    fn tls_config(&self) -> TlsConfig {
        TlsConfig {
            mode: self.tls.filter(|_| !self.url.starts_with("sqlite:")),
            ca_file: self.tls_ca_file.clone(),
            client_certificate_file: self.tls_client_certificate_file.clone(),
            client_key_file: self.tls_client_key_file.clone(),
            verify_name: self.tls_verify_name,
            server_name: None,
        }
    }

    /// Refuses a plain connection to a host that the URL does not name, unless it is this machine or `tls = "off"`.
    ///
    /// # Errors
    /// With what to write.
    pub fn check_plain(&self, host: &str) -> Result<(), ConfigError> {
        let is_on = self.tls_config().decide("sql", UrlTls::Silent, &[host])?;
        if is_on {
            Err(value("sql.url", format!("leads to {host} by other ways than its host: write it into the URL")))
        } else {
            Ok(())
        }
    }

    /// The servers that the URL names, and how connections to them are encrypted; `None`: they are not.
    ///
    /// # Errors
    /// A URL that is none, contradictions, and what encrypts only if the other side wants to.
    pub fn secured(&self) -> Result<(SqlUrl, Option<TlsConfig>), ConfigError> {
        let url = SqlUrl::parse(&self.url).map_err(|reason| value("sql.url", reason))?;
        let config = url.with_files(self.tls_config()).map_err(|reason| value("sql.url", reason))?;
        let hosts = url.hosts();
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let is_on = config.decide("sql", url.tls(), &hosts)?;
        Ok((url, is_on.then_some(config)))
    }
}

/// What a batch may be set to hold: beyond, one step would hold up everything else.
const ITEMS_MAX: usize = 16_384;

/// Gathering of concurrent requests: whatever waits while the previous batch is in flight goes together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// Operations in one batch.
    pub items_max: usize,
    /// Operations that wait for a batch; a further one is answered 503 with Retry-After.
    pub queue_max: usize,
    /// Batches in flight per kind. One is best where the store is near: the next gathers meanwhile.
    pub in_flight_max: usize,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { items_max: 512, queue_max: 8_192, in_flight_max: 1 }
    }
}

impl BatchConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        all([
            at_least("batch.items_max", self.items_max, 1),
            ensure(self.items_max <= ITEMS_MAX, "batch.items_max", "must be at most 16384"),
            at_least("batch.queue_max", self.queue_max, 1),
            at_least("batch.in_flight_max", self.in_flight_max, 1),
        ])
    }
}

/// Bounds of the journal of one kind; beyond, writes are answered 503 with Retry-After until a flush has made room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JournalConfig {
    /// Changes not yet committed to SQL.
    pub backlog_entries_max: u64,
    /// Their size, in bytes.
    pub backlog_bytes_max: u64,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self { backlog_entries_max: 10_000_000, backlog_bytes_max: 1 << 30 }
    }
}

/// Writing behind. *When* to flush is the policy's plan; these are the host's bounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FlushConfig {
    /// Smallest size that the adaptive batch shrinks to, in changes.
    pub batch_changes_min: usize,
    /// Largest size that the adaptive batch grows to, in changes.
    pub batch_changes_max: usize,
    /// Flush time that the adaptive batch aims at, in milliseconds.
    pub latency_target_ms: u64,
    /// Age of the oldest change that waits for SQL, in milliseconds, beyond which it is flushed whatever the policy plans: a
    /// rule that never flushes is said and counted, and loses no more time than that.
    pub age_ms_max: u64,
    /// Longest time between two looks at the backlog, whatever the policy plans, in milliseconds.
    pub look_again_ms_max: u64,
    /// How long the flusher of a kind keeps its lease without renewing it, in milliseconds.
    pub lease_ms: u64,
    /// First pause after a transient failure of SQL, in milliseconds; doubled each time, with jitter.
    pub retry_ms_min: u64,
    /// Longest such pause, in milliseconds.
    pub retry_ms_max: u64,
    /// Time for the last flushes when the host is told to stop, in milliseconds. What is left stays in the journal.
    pub drain_grace_ms: u64,
}

impl Default for FlushConfig {
    fn default() -> Self {
        Self {
            batch_changes_min: 100,
            batch_changes_max: 10_000,
            latency_target_ms: 200,
            age_ms_max: 900_000,
            look_again_ms_max: 5_000,
            lease_ms: 5_000,
            retry_ms_min: 100,
            retry_ms_max: 5_000,
            drain_grace_ms: 10_000,
        }
    }
}

impl FlushConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        all([
            at_least("flush.batch_changes_min", self.batch_changes_min, 1),
            at_least("flush.batch_changes_max", self.batch_changes_max, self.batch_changes_min),
            at_least("flush.age_ms_max", self.age_ms_max, 1_000),
            at_least("flush.look_again_ms_max", self.look_again_ms_max, 1),
            at_least("flush.lease_ms", self.lease_ms, 100),
            at_least("flush.retry_ms_min", self.retry_ms_min, 1),
            at_least("flush.retry_ms_max", self.retry_ms_max, self.retry_ms_min),
        ])
    }
}
