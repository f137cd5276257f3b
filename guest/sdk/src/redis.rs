//! The granted import `redis`: a few keys of the module's own, in the host's store.
//!
//! A module that calls anything here must be granted it (`[[policy.grant]]`), and is called off the fast path. Ask for a
//! whole batch in one call. In native tests [`testing::redis_set`](crate::testing::redis_set) says what is there.

pub use crate::bindings::toggle::weir::policy::redis::{Addition, Entry, Error};

#[cfg(target_arch = "wasm32")]
use crate::bindings::toggle::weir::policy::redis as host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::redis as host;

/// Keys, entries or additions in one call, at most.
pub const ITEMS_MAX: usize = 1_000;

impl Entry {
    /// Keep `value` under `key` (1 to 255 bytes) for `ttl_ms` (1 or more).
    pub fn new(key: impl Into<String>, value: impl Into<Vec<u8>>, ttl_ms: u32) -> Self {
        Self { key: key.into(), value: value.into(), ttl_ms }
    }
}

impl Addition {
    /// Add `by` to the counter `key` (1 to 255 bytes), which lives for `ttl_ms` (1 or more) after it began.
    pub fn new(key: impl Into<String>, by: i64, ttl_ms: u32) -> Self {
        Self { key: key.into(), by, ttl_ms }
    }
}

/// The values of `keys`, in order; `None` where there is nothing. A counter's value is its decimal digits.
///
/// # Errors
/// More than [`ITEMS_MAX`] keys, a key that is too long, or the store does not answer.
pub fn get(keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error> {
    host::get(keys)
}

/// Keeps all entries, replacing what was there.
///
/// # Errors
/// As [`get`]; also a value of more than 64 KiB, or a time to live of 0.
pub fn set(entries: &[Entry]) -> Result<(), Error> {
    host::set(entries)
}

/// Adds to counters, each atomically; what they hold afterwards, in order. One that is not there begins at 0.
///
/// # Errors
/// As [`get`]; also a time to live of 0, or a key whose value was set.
pub fn increment(additions: &[Addition]) -> Result<Vec<i64>, Error> {
    host::increment(additions)
}
