//! The store: state of the hot path, and the journal that is appended atomically with each change of it.
//!
//! Uses `weir-core` alone: knows neither a policy nor SQL, never decides a business rule (it evaluates the
//! decision tables it is given), never talks to SQL (it reports a miss; the capability loads it).
//!
//! # Roles
//! [`Store`] is the sum of small roles. A user that needs only one takes that one:
//! - [`Journal`] (`journal`): heads, leases and entries. The flusher.
//! - [`State`] (`state`): steps of the capabilities, reads, hydration. The write path.
//! - [`ModuleKeys`] (`module_keys`): keys and counters of policy modules.
//! - [`Queues`] (`queues`): waiting rooms.
//! - [`Ownership`] (`ownership`): whose the journal is, and what the store holds. The start, and operators.
//! - [`StoreHealth`] (`health`): probes and durability.
//!
//! Beside the store stand [`InvalidationBus`] and [`SharedCache`]: hosts that share a Redis use them to invalidate and to share
//! cached reads.
//!
//! # What an implementation holds, per (kind, partition)
//! - a **head**: incarnation, `last` (position of the newest entry), `flushed` (position known to be committed in
//!   SQL, the trim point), `floor` (below it the state cannot speak for itself), and the backlog: changes, bytes, and the
//!   targets that these concern, as far as their state is known;
//! - the **journal**: packed entries above `flushed`;
//! - per target a **state**: not loaded · missing (not in SQL, short TTL) · whole (all members) · huge (count
//!   and known pairs only) · counter (count) · exists (a document whose id comes from outside) · settings (a member);
//! - per waiting document its place in the journal. That belongs to the journal, not to the state: it survives a wipe and a
//!   new life;
//! - a **table of windows** (see `unique`), of fixed size: which pairs were counted, and until when. It survives a wipe and a
//!   new life, too.
//!
//! # The hydration invariant
//! A target with entries above `flushed` is *dirty* and its state is never dropped or expired. So a target without
//! state has no entries above `flushed`, and SQL as of a checkpoint `c` describes it if and only if `c` belongs to
//! the head's incarnation and `c >= max(flushed, floor)`. [`State::hydrate`] checks exactly that, atomically;
//! it refuses a load that came too late or too early as stale, and the loader reads again. The loader MUST read the checkpoint
//! row *before* it reads the data.
//!
//! The embedded store forgets all state at a restart, and lays the tail of the journal over the rows of SQL: of a whole
//! target the last change of each pair, of a counter the sum of all increments above `c`. Laying a change over members twice
//! does no harm; a count that a flush has moved meanwhile would be counted twice. So the store refuses as stale a counter
//! with an increment above `c` that the flusher has read, and may have committed since, until SQL has it. No store can see the
//! commit of an earlier process that was in flight when that process died: only a loader that reads the checkpoint row again
//! after a count, and finds it unchanged, can exclude it.

mod count;
mod create;
pub mod embedded;
mod error;
mod explain;
mod health;
mod hydration;
mod journal;
mod limit;
mod module_keys;
mod ownership;
mod page;
mod queues;
pub mod redis;
mod settings;
mod state;
mod text;
mod toggle;
mod unique;

use std::path::Path;
use std::sync::Arc;

pub use self::redis::bus::{InvalidationBus, Received, VERSION_OF_ALL};
pub use self::redis::shared::{SharedCache, SharedEntry, is_versioned, version_field};
pub use count::{CountBatch, CountOp, CountOutcome, CountResult};
pub use create::{CreateBatch, CreateOp, CreateResult, Created, PendingDocument};
pub use error::StoreError;
pub use health::{Durability, NodeStatus, Refusing, StoreHealth};
pub use hydration::{Hydrated, Hydration, LoadedState, PairLoad, TargetLoad};
pub use journal::{Head, Journal, JournalRead};
pub use module_keys::{Counted, ModuleKeys};
pub use ownership::{Binding, ForeignJournal, Inventory, KindInventory, Ownership};
pub use queues::{
    LANE_SCORES, Opened, Opening, Queues, RoomBatch, RoomCommit, RoomEnd, RoomFigures, RoomOp, RoomResult, RoomTick,
    RoomTimes, RoomVerb, TICK_PEOPLE_MAX, Ticked,
};
pub use settings::{MemberRead, SettingsBatch, SettingsOp, SettingsOutcome, SettingsResult};
pub use state::{Commit, Idempotency, Members, ReadResult, State};
pub use toggle::{ToggleBatch, ToggleOp, ToggleOutcome, ToggleResult};

use weir_core::config::{StoreConfig, StoreType};
use weir_core::model::Partition;

/// Bytes of a journal after which a read of it stops.
const READ_BYTES_MAX: usize = 8 << 20;

/// Everything that a host needs of its store: all roles at once. All methods take `&self` and may be called concurrently.
pub trait Store: Journal + State + ModuleKeys + Queues + Ownership + StoreHealth {}

impl<S: Journal + State + ModuleKeys + Queues + Ownership + StoreHealth> Store for S {}

/// Opens the configured store. A Redis that does not answer is no error: the store returns [`StoreError::Unavailable`] until
/// it does.
///
/// # Errors
/// `Misconfigured` with what to do; `Damaged` or `Refused` when the disk cannot be read or written.
pub async fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, StoreError> {
    match config.store_type {
        StoreType::Embedded => {
            let config = config.clone();
            let opened = tokio::task::spawn_blocking(move || embedded::EmbeddedStore::open(&config)).await;
            let store = opened.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))?;
            Ok(Arc::new(store))
        }
        StoreType::Redis | StoreType::RedisCluster => Ok(Arc::new(redis::RedisStore::connect(config).await?)),
    }
}

/// As [`open`], for inspection: of an embedded store it opens a copy, so that nothing changes on disk.
///
/// # Errors
/// As [`open`]; `InUse` by a running host.
pub async fn open_copy(config: &StoreConfig) -> Result<Arc<dyn Store>, StoreError> {
    if config.store_type != StoreType::Embedded {
        return open(config).await;
    }
    let config = config.clone();
    let opened = tokio::task::spawn_blocking(move || embedded::EmbeddedStore::open_copy(&config)).await;
    Ok(Arc::new(opened.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))?))
}

/// The inventory of the configured store (`None` where an embedded one was never begun), and which losses an acknowledged write
/// survives there. Changes nothing.
///
/// # Errors
/// `Unavailable` where it does not answer, `InUse` by another process.
pub async fn inspect(config: &StoreConfig) -> Result<(Option<Inventory>, Durability), StoreError> {
    match config.store_type {
        StoreType::Embedded => Ok((inspect_directory(&config.path).await?, embedded::durability())),
        StoreType::Redis | StoreType::RedisCluster => {
            let (inventory, durability) = redis::inventory::inspect(config).await?;
            Ok((Some(inventory), durability))
        }
    }
}

/// The inventory of the embedded store in a directory: see [`inspect`].
///
/// # Errors
/// See [`inspect`].
pub async fn inspect_directory(path: &Path) -> Result<Option<Inventory>, StoreError> {
    let path = path.to_owned();
    let inspected = tokio::task::spawn_blocking(move || embedded::inventory::inspect(&path)).await;
    inspected.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
}

/// The error for data with another number of partitions.
fn other_partitions(place: &str, recorded: Partition, configured: Partition) -> StoreError {
    StoreError::Misconfigured(format!(
        "store.partitions: {place} holds data of {recorded} partitions, the configuration says {configured}; write \
         partitions = {recorded}, or let weir flush all with {recorded}, stop it, and start with an empty store"
    ))
}
