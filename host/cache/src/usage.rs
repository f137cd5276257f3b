//! One read's or upstream's share of the cache, counted by its entries as they are created and dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The counts.
#[derive(Debug, Default)]
pub struct Usage {
    entries: AtomicU64,
    bytes: AtomicU64,
    evictions: AtomicU64,
}

/// One entry's share, returned when the entry is dropped.
#[derive(Debug)]
pub(super) struct Share {
    usage: Arc<Usage>,
    bytes: u64,
}

impl Usage {
    /// Entries.
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Their memory, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Evictions since the host started.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }
}

impl Share {
    pub(super) fn new(usage: &Arc<Usage>, bytes: u64) -> Self {
        usage.entries.fetch_add(1, Ordering::Relaxed);
        usage.bytes.fetch_add(bytes, Ordering::Relaxed);
        Self { usage: Arc::clone(usage), bytes }
    }

    pub(super) fn evicted(&self) {
        self.usage.evictions.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.usage.entries.fetch_sub(1, Ordering::Relaxed);
        self.usage.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
