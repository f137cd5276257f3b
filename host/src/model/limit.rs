//! What is left of the rate limits of rules.

/// What a rate limit has left after an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateState {
    /// Operations still allowed at once.
    pub remaining: u32,
    /// Milliseconds until the limit is whole again.
    pub reset_ms: u64,
}
