//! The role of policy modules: the keys and counters that a module may keep.
//!
//! Called by `app::grants`, on behalf of a module with the grant for it.
//!
//! It promises that a module sees its own keys only, and that a call takes effect as a whole or not at all. It promises no
//! durability: values live outside the journal, no call waits for the disk, and a lost store loses them.

use async_trait::async_trait;

use super::StoreError;
use weir_core::model::{KeyEntry, KeyIncrement};

/// The result of incrementing a policy module's counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counted {
    /// The counters after each increment, in order.
    Totals(Vec<i64>),
    /// The key of the increment at this index holds a value that was set. Nothing was done.
    NotACounter(usize),
    /// The increment at this index would leave the range of a signed 64-bit integer. Nothing was done.
    Overflow(usize),
}

/// Keys and values of policy modules. All methods may be called concurrently; each is one round trip.
#[async_trait]
pub trait ModuleKeys: Send + Sync {
    /// The values of `module` under `keys` (see [`ModuleKeys::guest_set`]), in order; for a counter, its decimal digits.
    /// `None` where there is no value, or where it has expired.
    async fn guest_get(&self, module: &str, now_ms: u64, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;

    /// Stores values of `module`, each under a key of the module's own, until its time to live ends: all of them or, after an
    /// error, none. A value replaces the one before it; when two entries name the same key, the later one wins.
    async fn guest_set(&self, module: &str, now_ms: u64, entries: Vec<KeyEntry>) -> Result<(), StoreError>;

    /// Adds to counters of `module`, in order, in one atomic step. A missing counter starts at 0 and lives as long as its first
    /// increment says. An increment by 0 reads a counter and starts none.
    async fn guest_increment(
        &self,
        module: &str,
        now_ms: u64,
        increments: Vec<KeyIncrement>,
    ) -> Result<Counted, StoreError>;
}
