//! What was measured of a read, and what may be kept of it by a rule.

/// What was measured of a read, over the last some thousand readings and the last window of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadProfile {
    /// Its name; an upstream's is `upstream:NAME`.
    pub name: String,
    /// How old its answers may be: `live`, `seconds`, `minutes`, `hours`; `origin` where the origin says.
    pub class: &'static str,
    /// Requests since the host began.
    pub requests: u64,
    /// Requests a minute, lately.
    pub requests_per_minute: u64,
    /// Of 1,000 requests, those that the cache answered.
    pub hit_permille: u32,
    /// Median time of a reading, in microseconds.
    pub cost_p50_us: u64,
    /// 99th percentile of that.
    pub cost_p99_us: u64,
    /// Of 1,000 parts of the time that all reads spend in SQL, this one's.
    pub cost_share_permille: u32,
    /// Mean size of an answer, in bytes.
    pub bytes: u64,
    /// Of 1,000 readings of something known, those that found it changed.
    pub change_permille: u32,
}

/// What may be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheRule {
    /// Nothing, for this reason: a token of `Cache-Status`.
    Bypass(String),
    /// Answers, for so long.
    Store {
        /// How long an answer is served, in milliseconds.
        ttl_ms: u64,
        /// How long after that it is served while it is being read anew.
        stale_while_revalidate_ms: u64,
        /// How long it is served when it cannot be read anew.
        stale_if_error_ms: u64,
        /// Groups that it belongs to besides those of its tables.
        groups: Vec<String>,
    },
}

impl CacheRule {
    /// Leaves a time to the origin of an upstream, in milliseconds: the greatest that a guest can say.
    pub const AS_THE_ORIGIN_SAYS_MS: u64 = u32::MAX as u64;
}
