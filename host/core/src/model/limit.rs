//! Rate limits of rules, and what is left of them.

use serde::{Deserialize, Serialize};

/// At most `burst` operations in any `period_ms` by one actor on one target (GCRA, evenly refilled).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RateLimit {
    /// Operations allowed at once, 1 or more.
    pub burst: u32,
    /// Time in which `burst` operations are refilled, in milliseconds, 1 or more.
    pub period_ms: u32,
}

/// What a rate limit has left after an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateState {
    /// Operations still allowed at once.
    pub remaining: u32,
    /// Milliseconds until the limit is whole again.
    pub reset_ms: u64,
}
