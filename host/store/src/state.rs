//! The role of the write path: one atomic step per batch, reads of the state, and hydration.
//!
//! Called by the capabilities (toggle, counter, ingest, preference), by `capability::hydrate` and by `weir explain`.
//!
//! It promises that a step changes state and journal together or not at all, that a read is as recent as the last
//! acknowledged operation, and that no answer is made from state that was not loaded: the store reports the miss, and the
//! capability loads it. See [`super`] for the hydration invariant.

use async_trait::async_trait;

use super::hydration::{Hydrated, Hydration};
use super::{
    CountBatch, CountResult, CreateBatch, CreateResult, MemberRead, PendingDocument, SettingsBatch, SettingsResult,
    StoreError, ToggleBatch, ToggleResult,
};
use weir_core::journal::Head;
use weir_core::model::{Id, Member, PairState, Partition};

/// Makes an operation safe to repeat: the same key and fingerprint return the first outcome again.
///
/// The store remembers the outcomes `Done` and `Denied`, not operations that it did not evaluate. It checks the key before
/// everything else; that needs no state and costs nothing of the rate limit. It remembers a key in the partition of its
/// operation, so that both are one step. Callers therefore hash the target into the key: the same key always belongs to the
/// same partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotency {
    /// Hash of (kind, actor, `Idempotency-Key`), and of the target where the operation has one.
    pub key: [u8; 16],
    /// Hash of the request.
    pub fingerprint: [u8; 16],
}

/// The results of a batch, and the heads of the partitions that it touched.
#[derive(Debug, Clone)]
pub struct Commit<R> {
    /// Index-aligned with the operations.
    pub results: Vec<R>,
    /// The heads after the batch, of each partition that an operation of the batch belongs to.
    pub heads: Vec<Head>,
}

/// The result of reading one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadResult {
    /// Known. As recent as the last acknowledged operation.
    Known(PairState),
    /// The target does not exist in SQL (cached absence).
    TargetMissing,
    /// Hydrate the target, then read again.
    TargetNotLoaded,
    /// Hydrate the pair, then read again.
    PairNotLoaded,
}

/// What the store knows of a target's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Members {
    /// A page of the whole list: newest first, ties by actor text descending.
    Whole(Vec<Member>),
    /// The target is huge: the known pairs with entries that SQL may not hold yet. Lay them over SQL.
    Overlay {
        /// Known present.
        present: Vec<Member>,
        /// Known absent.
        absent: Vec<Id>,
    },
    /// The target does not exist in SQL.
    TargetMissing,
    /// Hydrate the target first.
    TargetNotLoaded,
}

/// What the write path needs of a store: steps, reads, and hydration. All methods may be called concurrently.
#[async_trait]
pub trait State: Send + Sync {
    /// Applies a batch: per partition one atomic step evaluates each rule, changes the state and appends one packed
    /// entry with the changes (none when nothing changed). Returns when the journal is durable.
    ///
    /// # Errors
    /// The whole call fails; after [`StoreError::OutcomeUnknown`] some partitions may have been applied.
    async fn toggle(&self, kind: &str, batch: ToggleBatch) -> Result<Commit<ToggleResult>, StoreError>;

    /// Applies a batch of hits on counters, as [`State::toggle`] does. The step that increments also sets the mark of the
    /// uniqueness window. Where the kind keeps no actors, the hits of a batch on one target are one record and one change with
    /// their sum. [`State::read`] without an actor reads counts; [`super::LoadedState::Count`] or
    /// [`super::LoadedState::Missing`] hydrate them.
    ///
    /// # Errors
    /// As [`State::toggle`].
    async fn count(&self, kind: &str, batch: CountBatch) -> Result<Commit<CountResult>, StoreError>;

    /// Accepts documents and appends them to the journal; each operation succeeds with all of its documents or with none.
    /// [`super::LoadedState::Exists`] or [`super::LoadedState::Missing`] hydrate ids from outside; after the flush the store
    /// remembers for a while that such a document exists.
    ///
    /// # Errors
    /// As [`State::toggle`]. `Refused` when a partition does not exist.
    async fn create(&self, kind: &str, batch: CreateBatch) -> Result<Commit<CreateResult>, StoreError>;

    /// The documents that wait in the journal, index-aligned with their partitions and ids. `None` means that none waits (any
    /// more): SQL has it, or refused it, or it never existed. As durable as the journal: neither [`State::wipe_state`] nor
    /// [`super::Journal::reset`] nor a restart forgets a waiting document. One round trip.
    async fn documents(&self, kind: &str, ids: &[(Partition, Id)]) -> Result<Vec<Option<PendingDocument>>, StoreError>;

    /// One actor's documents that wait in the journal, of all partitions, at most `limit`: newest first by position, ties by
    /// the id's text descending. As durable as [`State::documents`].
    async fn documents_of(&self, kind: &str, actor: &Id, limit: usize) -> Result<Vec<PendingDocument>, StoreError>;

    /// Applies a batch of changes of members' settings. Each change enters the journal, even when it changes nothing.
    /// [`super::LoadedState::Settings`] or [`super::LoadedState::Missing`] hydrate members.
    ///
    /// # Errors
    /// As [`State::toggle`].
    async fn put_settings(&self, kind: &str, batch: SettingsBatch) -> Result<Commit<SettingsResult>, StoreError>;

    /// The settings of members, index-aligned. As recent as the last acknowledged change. Makes one round trip for each of
    /// their partitions, all at once. A failure concerns only the members behind it: a damaged member, a node that does not
    /// answer.
    async fn settings(&self, kind: &str, now_ms: u64, members: &[Id]) -> Vec<Result<MemberRead, StoreError>>;

    /// Reads the count and, where an actor is given, the pair. Index-aligned. A counter has a count only; a document that is
    /// known to exist has none, and a waiting one is not loaded here: see [`State::documents`].
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

    /// Takes what SQL returned, if the hydration invariant allows it. Index-aligned with `hydrations`.
    async fn hydrate(&self, kind: &str, hydrations: Vec<Hydration>) -> Result<Vec<Hydrated>, StoreError>;

    /// Whether the store lays the tail of the journal over what it hydrates.
    fn lays_tails(&self) -> bool {
        false
    }

    /// Unloads all state of the kind, as if the cache had been lost, but keeps the journal: `floor` = `last`. Waiting
    /// documents are no cache and stay readable. For operators and tests.
    async fn wipe_state(&self, kind: &str) -> Result<(), StoreError>;

    /// Everything known of a target, and of one actor on it, as text for `weir explain`: an object with at least `state`,
    /// `head` and `journal` (the entries of this target, and of this actor where one is given, above `flushed`, newest last,
    /// at most 100).
    async fn explain(
        &self,
        kind: &str,
        now_ms: u64,
        target: (Partition, &Id),
        actor: Option<&Id>,
    ) -> Result<serde_json::Value, StoreError>;
}
