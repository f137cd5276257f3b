//! `[batch]`, `[journal]` and `[flush]`: the way of a write.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigError, all, at_least, ensure};

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
