//! What is cached of reads and upstreams, and what can be purged.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Every read and upstream, and the memory of their caches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CacheReport {
    /// The named SQL reads.
    pub reads: Vec<ReadCache>,
    /// The upstreams.
    pub upstreams: Vec<UpstreamCache>,
    /// What a purge can name.
    pub purge: PurgeHelp,
    /// The memory of the caches.
    pub memory: CacheMemories,
}

/// How a read uses the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ReadCache {
    /// Its name.
    pub name: String,
    /// What was measured.
    #[serde(flatten)]
    pub usage: CacheUse,
    /// How its keys look.
    pub key: String,
    /// The groups that its answers belong to.
    pub groups: Vec<String>,
}

/// How an upstream uses the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct UpstreamCache {
    /// Its name.
    pub name: String,
    /// What the paths of its requests begin with.
    pub prefix: String,
    /// What was measured.
    #[serde(flatten)]
    pub usage: CacheUse,
    /// How its keys look: the path and query that the origin sees; one stands for all variants and hosts.
    pub key: String,
    /// The groups that its responses belong to.
    pub groups: Vec<String>,
}

/// What was measured of a read or an upstream, and what the rule makes of that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CacheUse {
    /// Its class: how old an answer may be.
    pub class: String,
    /// What the rule says now.
    pub rule: String,
    /// Requests since the host began, or since the cache was last tried again.
    pub requests: u64,
    /// Of 1,000 of them, those that the cache answered.
    pub hit_permille: u32,
    /// Those that got something stale since the host began.
    pub stale: u64,
    /// Those without an answer since the host began.
    pub failed: u64,
    /// Median time of a load, in microseconds.
    pub cost_p50_us: u64,
    /// Its 99th percentile.
    pub cost_p99_us: u64,
    /// Time that SQL or the origin did not have to work, in milliseconds.
    pub saved_ms: u64,
    /// Entries in the cache.
    pub entries: u64,
    /// Their memory, in bytes.
    pub bytes: u64,
    /// Entries that were evicted for room since the host began.
    pub evictions: u64,
}

/// What each parameter of a purge means.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PurgeHelp {
    /// One key.
    pub key: String,
    /// All keys that begin so.
    pub prefix: String,
    /// A group.
    pub group: String,
    /// Everything.
    pub all: String,
    /// Hard or soft.
    pub mode: String,
}

/// The memory of both caches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CacheMemories {
    /// Of the reads.
    pub reads: CacheMemory,
    /// Of the upstreams.
    pub upstream: CacheMemory,
}

/// What a cache holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CacheMemory {
    /// Entries.
    pub entries: usize,
    /// Their memory, in bytes.
    pub bytes: u64,
}

/// A purge was carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Purged {
    /// Always true.
    pub purged: bool,
}
