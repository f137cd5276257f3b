//! The store: state of the hot path, and the journal that is appended atomically with each change of it.
//!
//! Tier 2: imports tiers 0 and 1. Never imports policy or sql, never decides a business rule (it evaluates the
//! decision tables it is given), never talks to SQL (it says what it does not know; the capability fetches it).
//!
//! # What an implementation holds, per (kind, partition)
//! - a **head**: incarnation, `last` (position of the newest entry), `flushed` (position known to be committed in
//!   SQL, the trim point), `floor` (below it the state cannot speak for itself), and what waits: changes, bytes, and the
//!   targets that these concern, as far as their state is known;
//! - the **journal**: packed entries above `flushed`;
//! - per target a **state**: unknown (cold) · missing (not in SQL, short TTL) · whole (all members) · huge (count
//!   and known pairs only) · counter (count) · exists (a document whose id comes from outside) · settings (a member);
//! - per document that waits, where it lies. That is the journal's, not the state's: no wipe and no new life forgets it;
//! - a **table of windows** (see `unique`), of fixed size: who was counted on what, and until when. It outlives a wipe and a
//!   new life, too.
//!
//! # The law of hydration
//! A target with entries above `flushed` is *dirty* and its state is never dropped or expired. So a target without
//! state has no entries above `flushed`, and SQL as of a checkpoint `c` speaks for it if and only if `c` belongs to
//! the head's incarnation and `c >= max(flushed, floor)`. [`Store::hydrate`] checks exactly that, atomically;
//! a load that came too late or too early is refused as stale and read again. The loader MUST read the checkpoint
//! row *before* it reads the data.
//!
//! The embedded store forgets all state at a restart, and lays what waits in the journal over what SQL says: of a whole
//! target the last change of each pair, of a counter the sum of all increments above `c`. Members are what they are,
//! however often a change is laid over them; a count that a flush has moved meanwhile would be counted twice. So a counter
//! with an increment above `c` that the flusher has read, and may have committed since, is refused as stale, until SQL has
//! it. What no store can see is the commit of an earlier process that was on its way when that died: only a loader that
//! reads the checkpoint row again after a count, and finds it where it was, is sure of that, too.

pub mod binding;
mod count;
mod create;
pub mod embedded;
mod explain;
mod limit;
mod page;
pub mod redis;
mod room;
mod settings;
mod text;
mod toggle;
mod unique;

use std::sync::Arc;

use async_trait::async_trait;

pub use self::redis::relay::{Heard, Relay, VERSION_OF_ALL};
pub use self::redis::shared::{SharedCache, SharedEntry, is_versioned, version_field};
pub use crate::journal::Head;
pub use binding::{Binding, HeldKind, Holdings, Stranger};
pub use count::{CountBatch, CountOp, CountOutcome, CountResult};
pub use create::{CreateBatch, CreateOp, CreateResult, Created, PendingDocument};
pub use room::{
    LANE_SCORES, Opened, Opening, RoomBatch, RoomCommit, RoomEnd, RoomFigures, RoomOp, RoomResult, RoomStore, RoomTick,
    RoomTimes, RoomVerb, TICK_PEOPLE_MAX, Ticked,
};
pub use settings::{MemberRead, SettingsBatch, SettingsOp, SettingsOutcome, SettingsResult};
pub use toggle::{ToggleBatch, ToggleOp, ToggleOutcome, ToggleResult};

use crate::config::{StoreConfig, StoreType};
use crate::journal::{Entry, Hole, Mark};
use crate::model::{
    Aside, Checkpoint, Id, Incarnation, KeyEntry, KeyIncrement, Member, PairState, Partition, Position, Settings,
};

/// Makes an operation safe to repeat: the same key and fingerprint answer the first outcome again. Outcomes are `Done`
/// and `Denied`; what was not evaluated is not remembered. Checked before everything else, needs no state, and costs
/// nothing of the rate limit. A key is remembered in the partition of its operation, so that both are one step: whoever
/// makes keys makes the same one for the same partition only, by hashing the target into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotency {
    /// Hash of (kind, actor, `Idempotency-Key`), and of the target where the operation has one.
    pub key: [u8; 16],
    /// Hash of what was asked.
    pub fingerprint: [u8; 16],
}

/// Bytes of a journal after which a read of it stops.
const READ_BYTES_MAX: usize = 8 << 20;

/// What a batch left behind: its results, and the heads of the partitions it touched.
#[derive(Debug, Clone)]
pub struct Commit<R> {
    /// Index-aligned with the operations.
    pub results: Vec<R>,
    /// Heads after the batch, of each partition that an operation of the batch belongs to.
    pub heads: Vec<Head>,
}

/// Answer to a read of one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadResult {
    /// Known. As recent as the last acknowledged operation.
    Known(PairState),
    /// The target does not exist in SQL (cached absence).
    TargetMissing,
    /// Hydrate the target, then read again.
    ColdTarget,
    /// Hydrate the pair, then read again.
    ColdPair,
}

/// What SQL said of one cold target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetLoad {
    /// The target.
    pub target: Id,
    /// Its state in SQL.
    pub state: LoadedState,
}

/// State of a target in SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadedState {
    /// No such target.
    Missing,
    /// All members with the time they were added (Unix milliseconds; 0 when unknown).
    Whole(Vec<(Id, u64)>),
    /// Too many to load: only the count. Pairs are hydrated one by one, in bulk.
    Huge(u64),
    /// A counter: its count. More than 2^53 - 1 is taken for that.
    Count(u64),
    /// It is there; of a document whose id comes from outside nothing else matters.
    Exists,
    /// A member: its settings, as far as it has some.
    Settings(Settings),
}

/// What SQL said of one pair of a huge target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairLoad {
    /// The target.
    pub target: Id,
    /// The actor.
    pub actor: Id,
    /// When the pair was added (Unix milliseconds; 0 when unknown), or `None` when it is absent.
    pub present_since_ms: Option<u64>,
}

/// Loads of one partition, all read after the checkpoint row that they name.
#[derive(Debug, Clone)]
pub struct Hydration {
    /// The partition that all targets belong to.
    pub partition: Partition,
    /// Incarnation of the checkpoint row.
    pub incarnation: Incarnation,
    /// Position of the checkpoint row.
    pub position: Position,
    /// What SQL holds beyond it, where the tail of the journal is added to what it says.
    pub aside: Option<Aside>,
    /// Cold targets. One that is known meanwhile is left as it is.
    pub targets: Vec<TargetLoad>,
    /// Cold pairs of huge targets. One that is known meanwhile is left as it is; one whose target is no longer
    /// huge or known is ignored.
    pub pairs: Vec<PairLoad>,
    /// The time from which TTLs count, in milliseconds; it never jumps (see [`crate::clock`]).
    pub now_ms: u64,
}

/// Whether a hydration was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hydrated {
    /// Taken.
    Accepted,
    /// The checkpoint does not speak for the state now (see the law of hydration): read again.
    Stale(Head),
}

/// What a read of the journal found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalRead {
    /// Entries after the asked position, in order; empty when there are none.
    Entries(Vec<Entry>),
    /// The journal is in another life than asked for: adopt that one.
    OtherIncarnation(Head),
    /// The journal has lost entries that SQL already holds (a failover or an old backup): [`Store::reset`] it.
    Rewound(Head),
    /// The entries after the asked position have gone, and SQL does not hold them. What follows the hole is there.
    Hole(Head, Hole),
}

/// What the store knows of a target's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Members {
    /// A page of the whole list: newest first, ties by actor text descending.
    Whole(Vec<Member>),
    /// The target is huge: the pairs that are known and have entries which SQL may not hold yet. Lay them over SQL.
    Overlay {
        /// Known present.
        present: Vec<Member>,
        /// Known absent.
        absent: Vec<Id>,
    },
    /// The target does not exist in SQL.
    TargetMissing,
    /// Hydrate the target first.
    ColdTarget,
}

/// What became of increments of policy modules' counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counted {
    /// What the counters hold after each increment, in order.
    Totals(Vec<i64>),
    /// The key of the increment at this index holds a value that was set. Nothing was done.
    NotACounter(usize),
    /// The increment at this index would leave the range of a signed 64-bit integer. Nothing was done.
    Overflow(usize),
}

/// What survives which loss, as the store is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durability {
    /// One word or two for a reply's detail, such as `fdatasync` or `aof-everysec`.
    pub mode: String,
    /// A sentence for operators.
    pub description: String,
    /// Whether an acknowledged write survives the loss of power.
    pub survives_power_loss: bool,
}

/// One server of a store that has several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// `host:port`.
    pub name: String,
    /// Whether it keeps what weir promises. One that is away breaks no promise.
    pub fit: bool,
    /// Role, slots, replicas and settings, or why it does not answer.
    pub detail: String,
}

/// Why the store did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Not reached, or refused before anything was done: safe to repeat.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The answer did not arrive: it may have been applied or not. Never repeated blindly.
    #[error("the store did not answer in time, the outcome is unknown: {0}")]
    OutcomeUnknown(String),
    /// The store refuses writes (out of memory, disk full, read-only).
    #[error("the store refuses writes: {0}")]
    Refused(String),
    /// What lies in the store is not what weir wrote. Never repaired silently.
    #[error("the store's data is damaged: {0}")]
    Damaged(String),
    /// Another process has the directory of the embedded store.
    #[error(
        "store.path: {0} is in use by another process; an embedded store belongs to one host, stop the other one or give \
             this one another directory"
    )]
    InUse(String),
    /// The configuration or the server's settings forbid starting. Says what to do.
    #[error("{0}")]
    Misconfigured(String),
}

impl StoreError {
    /// The word of the metric's `cause`.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::OutcomeUnknown(_) => "unknown",
            Self::Refused(_) => "refused",
            Self::Damaged(_) => "damaged",
            Self::InUse(_) => "in-use",
            Self::Misconfigured(_) => "misconfigured",
        }
    }
}

/// Since when a store refuses writes, and why.
#[derive(Debug, Clone)]
pub struct Refusing {
    /// When it began.
    pub since: std::time::Instant,
    /// What the disk said last.
    pub reason: String,
}

/// Opens the store that the configuration names. A Redis that is away is no error: the store answers
/// [`StoreError::Unavailable`] until it is there.
///
/// # Errors
/// `Misconfigured` with what to do; `Damaged` or `Refused` by a disk that cannot be read or written.
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

/// As [`open`], to look at: nothing of an embedded store changes on disk, because it is a copy that is opened.
///
/// # Errors
/// As [`open`]; `InUse` by a running host.
pub async fn open_to_look(config: &StoreConfig) -> Result<Arc<dyn Store>, StoreError> {
    if config.store_type != StoreType::Embedded {
        return open(config).await;
    }
    let config = config.clone();
    let opened = tokio::task::spawn_blocking(move || embedded::EmbeddedStore::open_to_look(&config)).await;
    Ok(Arc::new(opened.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))?))
}

/// What the store that the configuration names holds, without changing anything in it (`None` where an embedded one was never
/// begun), and what an acknowledged write survives there.
///
/// # Errors
/// `Unavailable` where it does not answer, `InUse` by another process.
pub async fn look(config: &StoreConfig) -> Result<(Option<Holdings>, Durability), StoreError> {
    match config.store_type {
        StoreType::Embedded => Ok((look_into(&config.path).await?, embedded::durability())),
        StoreType::Redis | StoreType::RedisCluster => {
            let (holdings, durability) = redis::holdings::look(config).await?;
            Ok((Some(holdings), durability))
        }
    }
}

/// What the embedded store in a directory holds: see [`look`].
///
/// # Errors
/// See [`look`].
pub async fn look_into(path: &std::path::Path) -> Result<Option<Holdings>, StoreError> {
    let path = path.to_owned();
    let looked = tokio::task::spawn_blocking(move || embedded::holdings::look(&path)).await;
    looked.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
}

/// The data belongs to another number of partitions.
fn other_partitions(place: &str, recorded: Partition, configured: Partition) -> StoreError {
    StoreError::Misconfigured(format!(
        "store.partitions: {place} holds data of {recorded} partitions, the configuration says {configured}; write \
         partitions = {recorded}, or let weir flush all with {recorded}, stop it, and start with an empty store"
    ))
}

/// State plus journal of the hot path. All methods take `&self` and may be called concurrently.
#[async_trait]
pub trait Store: Send + Sync {
    /// Applies a batch: per partition one atomic step evaluates each rule, changes the state and appends one packed
    /// entry with the changes (none when nothing changed). Returns when the journal is durable.
    ///
    /// # Errors
    /// The whole call fails; after [`StoreError::OutcomeUnknown`] some partitions may have been applied.
    async fn toggle(&self, kind: &str, batch: ToggleBatch) -> Result<Commit<ToggleResult>, StoreError>;

    /// Applies a batch of hits on counters, as [`Store::toggle`] does; the mark of a window is set in the same step as its
    /// increment. Where actors are not kept, the hits of a batch on one target are one record, and one change, of their sum.
    /// Counts are read by [`Store::read`] without an actor, and hydrated as [`LoadedState::Count`] or
    /// [`LoadedState::Missing`].
    ///
    /// # Errors
    /// As [`Store::toggle`].
    async fn count(&self, kind: &str, batch: CountBatch) -> Result<Commit<CountResult>, StoreError>;

    /// Takes documents, each operation with all of its documents or none of them, and appends them to the journal. Ids from
    /// outside are hydrated as [`LoadedState::Exists`] or [`LoadedState::Missing`]; after the flush such a document is known
    /// to exist for a while.
    ///
    /// # Errors
    /// As [`Store::toggle`]. `Refused` when a partition does not exist.
    async fn create(&self, kind: &str, batch: CreateBatch) -> Result<Commit<CreateResult>, StoreError>;

    /// The documents that wait in the journal, index-aligned with their partitions and ids; `None` where none waits (any
    /// more): then SQL has it, or refused it, or there never was one. As lasting as the journal: neither [`Store::wipe_state`]
    /// nor [`Store::reset`] nor a restart forgets a document that waits. One round trip.
    async fn documents(&self, kind: &str, ids: &[(Partition, Id)]) -> Result<Vec<Option<PendingDocument>>, StoreError>;

    /// The documents of one actor that wait in the journal, of all partitions, at most `limit`: newest first by their
    /// positions, ties by the id's text descending. As lasting as [`Store::documents`].
    async fn documents_of(&self, kind: &str, actor: &Id, limit: usize) -> Result<Vec<PendingDocument>, StoreError>;

    /// Applies a batch of changes of members' settings: each becomes part of the journal, also where it says what holds
    /// already. Members are hydrated as [`LoadedState::Settings`] or [`LoadedState::Missing`].
    ///
    /// # Errors
    /// As [`Store::toggle`].
    async fn put_settings(&self, kind: &str, batch: SettingsBatch) -> Result<Commit<SettingsResult>, StoreError>;

    /// The settings of members, index-aligned. As recent as the last acknowledged change. One round trip for each of their
    /// partitions, all at once. What fails, fails for those that it concerns: a damaged member, a node that does not answer.
    async fn settings(&self, kind: &str, now_ms: u64, members: &[Id]) -> Vec<Result<MemberRead, StoreError>>;

    /// Reads count and, where an actor is given, the pair. Index-aligned. Of a counter the count; a document that is known to
    /// exist has none, and one that waits is cold here: see [`Store::documents`].
    async fn read(&self, kind: &str, now_ms: u64, pairs: &[(Id, Option<Id>)]) -> Result<Vec<ReadResult>, StoreError>;

    /// Members of `target`, newest first: at most `limit`, only those strictly older than `before` in the order
    /// (since_ms, actor text). For a huge target, the overlay instead (all of it, `limit` does not apply).
    async fn members(
        &self,
        kind: &str,
        now_ms: u64,
        target: &Id,
        before: Option<&Member>,
        limit: usize,
    ) -> Result<Members, StoreError>;

    /// Takes what SQL said, if it still holds. See the law of hydration. Index-aligned with `hydrations`.
    async fn hydrate(&self, kind: &str, hydrations: Vec<Hydration>) -> Result<Vec<Hydrated>, StoreError>;

    /// The heads of the given partitions (created with a fresh incarnation where there is none), in order.
    async fn heads(&self, kind: &str, partitions: &[Partition]) -> Result<Vec<Head>, StoreError>;

    /// Reads entries after `position` of the given incarnation until `changes_max` changes or 8 MiB are read or the journal
    /// ends (at least one entry if there is any), or up to a hole: see [`crate::journal::chain`]. Detects a journal that was
    /// recreated or rewound: `position` above `flushed` MUST be the position of an entry, which those after it know of when
    /// it is not there any more.
    async fn read_journal(
        &self,
        kind: &str,
        partition: Partition,
        incarnation: Incarnation,
        position: Position,
        changes_max: usize,
    ) -> Result<JournalRead, StoreError>;

    /// Drops entries up to `position`, which SQL has committed, and moves `flushed` there; without effect when
    /// `flushed` is further already or the incarnation is another. `touched` are the targets of the dropped entries:
    /// those without newer entries become clean (expire after the TTL). A document does not wait any more: one whose id came
    /// from outside is known to exist, any other is forgotten. `invalid` are targets whose state is no
    /// longer what SQL holds (a row was dead-lettered): those without newer entries become cold at once, the others
    /// when a later trim makes them clean. A trim that failed MUST be repeated, or its targets given to a later one:
    /// a target that is never named stays dirty, which costs memory, not truth.
    async fn trim(
        &self,
        kind: &str,
        partition: Partition,
        incarnation: Incarnation,
        position: Position,
        touched: &[Id],
        invalid: &[Id],
    ) -> Result<(), StoreError> {
        self.trim_to(kind, partition, incarnation, position.into(), touched, invalid).await
    }

    /// As [`Store::trim`], by a caller that knows how many changes it has read up to there: if entries that it has read have
    /// gone meanwhile, what was lost besides them can still be counted.
    async fn trim_to(
        &self,
        kind: &str,
        partition: Partition,
        incarnation: Incarnation,
        upto: Mark,
        touched: &[Id],
        invalid: &[Id],
    ) -> Result<(), StoreError>;

    /// Canonical texts of the targets that a hole concerns, as far as the state still knows: those whose newest change was in it. At most
    /// `targets_max`, and no more than a bounded search finds.
    async fn lost_targets(
        &self,
        kind: &str,
        partition: Partition,
        hole: &Hole,
        targets_max: usize,
    ) -> Result<Vec<String>, StoreError>;

    /// Forgets what earlier lives of these partitions left behind in the state: targets whose entries have gone would stay
    /// dirty for ever. Looks at all keys, some at a time. For the time after a hole, when its life has ended.
    async fn forget_lost(&self, _kind: &str, _partitions: &[Partition]) -> Result<(), StoreError> {
        Ok(())
    }

    /// Starts a new life of a partition whose journal was rewound, or whose incarnation is older than SQL's: a new
    /// incarnation greater than `than`, `flushed` = 0, `floor` = `last`; all state becomes cold; entries stay. Where no
    /// entry is left, `last` becomes 0 and so does `floor`: SQL as it is speaks for all. Returns the new head. When the
    /// incarnation is greater than `than` already, only returns the head. Documents that wait are still told.
    async fn reset(&self, kind: &str, partition: Partition, than: Incarnation) -> Result<Head, StoreError>;

    /// SQL's checkpoint `row` is of a later life than `head`: nobody flushes that any more, and what the journal holds up to
    /// the checkpoint was committed, or is recorded as lost. It is trimmed, and a life later than both begins: see
    /// [`Store::reset`]. `known` is what the caller knows of that place. Returns the new head.
    async fn follow(&self, kind: &str, head: &Head, row: &Checkpoint, known: Option<Mark>) -> Result<Head, StoreError> {
        let known = known.filter(|known| known.position == row.position && row.position <= head.last);
        let upto = known.unwrap_or_else(|| row.position.min(head.last).into());
        self.trim_to(kind, head.partition, head.incarnation, upto, &[], &[]).await?;
        self.reset(kind, head.partition, row.incarnation).await
    }

    /// Makes all state of the kind cold, as if the cache had been lost, but keeps the journal: `floor` = `last`.
    /// Documents that wait are no cache, and are still told. For operators and tests.
    async fn wipe_state(&self, kind: &str) -> Result<(), StoreError>;

    /// Takes or renews the lease to flush `kind` for `owner`. `true` when `owner` holds it now, until `ttl_ms` from
    /// now. The lease saves work; it is the checkpoint's compare-and-set that keeps two flushers apart.
    async fn lease(&self, kind: &str, owner: &str, ttl_ms: u64) -> Result<bool, StoreError>;

    /// Gives the lease back if `owner` holds it.
    async fn release(&self, kind: &str, owner: &str) -> Result<(), StoreError>;

    /// What policy module `module` keeps under `keys` (see [`Store::guest_set`]), in order; of a counter, its decimal
    /// digits; `None` where there is nothing, or no longer. One round trip.
    async fn guest_get(&self, module: &str, now_ms: u64, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;

    /// Keeps what policy module `module` wants to remember, each under a key of the module's own that nothing else
    /// can have, until its time to live is over; all of it or, after an error, nothing. It replaces what was there; of
    /// a key that is named twice, the later one holds. A help and no promise: outside of the journal, not waited for
    /// until it is on the disk, and not survived by a store that is lost. One round trip.
    async fn guest_set(&self, module: &str, now_ms: u64, entries: Vec<KeyEntry>) -> Result<(), StoreError>;

    /// Adds to counters of policy module `module`, in order, in one atomic step; those that are not there begin at 0
    /// and live as long as their first increment says. An increment by 0 reads and begins nothing. As lasting as
    /// [`Store::guest_set`]. One round trip.
    async fn guest_increment(
        &self,
        module: &str,
        now_ms: u64,
        increments: Vec<KeyIncrement>,
    ) -> Result<Counted, StoreError>;

    /// The waiting rooms.
    fn rooms(&self) -> &dyn RoomStore;

    /// Everything known of a target, and of one actor on it, in words, for `weir explain`: an object with at least `state`,
    /// `head` and `journal` (the entries of this target, and of this actor where one is given, above `flushed`, newest last,
    /// at most 100).
    async fn explain(
        &self,
        kind: &str,
        now_ms: u64,
        target: (Partition, &Id),
        actor: Option<&Id>,
    ) -> Result<serde_json::Value, StoreError>;

    /// Which store step the operations of a partition belong to: those of one step are one call that is answered or fails as
    /// one. Steps are independent: the failure of one says nothing of another.
    fn step_of(&self, _partition: Partition) -> Partition {
        0
    }

    /// Whether what is hydrated gets the tail of the journal laid over it.
    fn lays_tails(&self) -> bool {
        false
    }

    /// The servers of a store that has several, as they are now: for operators.
    async fn nodes(&self) -> Vec<NodeStatus> {
        Vec::new()
    }

    /// What is recorded of the journal, and what it holds of each kind. Changes nothing.
    async fn holdings(&self) -> Result<Holdings, StoreError>;

    /// Binds the journal to a database: records it, after what an earlier version has left was taken over. From then on the
    /// store is refused as long as its journal belongs to another one.
    ///
    /// # Errors
    /// `Misconfigured` where it does, with the ways out.
    async fn bind(&self, binding: &Binding) -> Result<(), StoreError>;

    /// Whether the journal still is what it was bound to. For the flusher, whenever it takes or renews its lease.
    ///
    /// # Errors
    /// As [`Store::bind`].
    async fn check_binding(&self) -> Result<(), StoreError>;

    /// Deletes all of a kind: what waits, and what is known. For operators; hosts must not serve the kind meanwhile. May be
    /// repeated.
    async fn drop_kind(&self, kind: &str) -> Result<(), StoreError>;

    /// Deletes everything, and whose it was. As [`Store::drop_kind`].
    async fn drop_all(&self) -> Result<(), StoreError>;

    /// Whether the store answers now.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Whether it refuses writes, and mends that itself or needs a restart: what `/livez` says after a bound. A store that is
    /// another process is nothing that a restart of this one mends.
    fn refusing(&self) -> Option<Refusing> {
        None
    }

    /// What an acknowledged write survives.
    fn durability(&self) -> Durability;

    /// Number of partitions per kind, as recorded with the data.
    fn partitions(&self) -> Partition;
}
