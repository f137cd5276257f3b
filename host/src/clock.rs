//! The time seam: wall-clock milliseconds, real or set by a test.
//!
//! Tier 0. The only file that may read the wall clock. Deadlines use `tokio::time`, which tests can pause.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Reads Unix time in milliseconds.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    Real,
    /// A time that only moves when told to, for tests.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// A manual clock that starts at `now_ms`.
    pub fn manual(now_ms: u64) -> Self {
        Self::Manual(Arc::new(AtomicU64::new(now_ms)))
    }

    /// Unix time, in milliseconds.
    #[allow(clippy::disallowed_methods, reason = "this is the one place that may")]
    pub fn now_ms(&self) -> u64 {
        match self {
            Self::Real => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            Self::Manual(now) => now.load(Ordering::SeqCst),
        }
    }

    /// Moves a manual clock forward by `ms`; a real one is not moved.
    pub fn advance_ms(&self, ms: u64) {
        if let Self::Manual(now) = self {
            now.fetch_add(ms, Ordering::SeqCst);
        }
    }
}
