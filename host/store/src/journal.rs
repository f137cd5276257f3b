//! The role of the flusher: heads, leases, and the journal's entries.
//!
//! Called by `flush`, by hydration (which compares heads with checkpoints) and by receipts (which wait for a position).
//!
//! It promises that an entry stays readable until a trim names it, that a gap or a rewind is reported and never skipped, and
//! that no two lives of a journal have the same incarnation. It does not keep two flushers apart: the lease only saves work,
//! the checkpoint's compare-and-set in SQL decides.

use async_trait::async_trait;

use super::StoreError;
pub use weir_core::journal::Head;
use weir_core::journal::{Entry, Hole, Mark};
use weir_core::model::{Checkpoint, Id, Incarnation, Partition, Position};

/// The result of reading the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalRead {
    /// The entries after the given position, in order; empty when there are none.
    Entries(Vec<Entry>),
    /// The journal has another incarnation than the caller expected: adopt that one.
    OtherIncarnation(Head),
    /// The journal has lost entries that SQL already holds (a failover or an old backup): [`Journal::reset`] it.
    Rewound(Head),
    /// The entries after the given position are gone, and SQL does not hold them. The entries after the hole are there.
    Hole(Head, Hole),
}

/// What a flush needs of a store: heads, leases, and the journal's entries.
#[async_trait]
pub trait Journal: Send + Sync {
    /// The number of partitions per kind, as recorded with the data.
    fn partitions(&self) -> Partition;

    /// The store step that handles the operations of a partition. Operations of one step form one call, which succeeds or
    /// fails as a whole. Steps are independent: the failure of one says nothing about another.
    fn step_of(&self, _partition: Partition) -> Partition {
        0
    }

    /// The heads of the given partitions, in order. A partition without a head gets one with a fresh incarnation.
    async fn heads(&self, kind: &str, partitions: &[Partition]) -> Result<Vec<Head>, StoreError>;

    /// Reads entries after `position` of the given incarnation until `changes_max` changes or 8 MiB are read or the journal
    /// ends (at least one entry if there is any), or up to a hole: see [`weir_core::journal::chain`].
    ///
    /// Detects a journal that was recreated or rewound. A `position` above `flushed` MUST be the position of an entry: the
    /// entries after it still name it when it is gone.
    async fn read_journal(
        &self,
        kind: &str,
        partition: Partition,
        incarnation: Incarnation,
        position: Position,
        changes_max: usize,
    ) -> Result<JournalRead, StoreError>;

    /// Drops the entries up to `position`, which SQL has committed, and moves `flushed` there. Does nothing when `flushed` is
    /// already further or the incarnation differs.
    ///
    /// - `touched` are the targets of the dropped entries. Targets without newer entries become clean and expire after the TTL.
    /// - A dropped document stops waiting. The store remembers that it exists when its id came from outside, and forgets it
    ///   otherwise.
    /// - `invalid` are targets whose state SQL does not match any more (a row was dead-lettered). Targets without newer entries
    ///   are unloaded at once, the others when a later trim makes them clean.
    ///
    /// Repeat a failed trim, or pass its targets to a later one. A target that no trim names stays dirty, which costs memory
    /// but never correctness.
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

    /// As [`Journal::trim`], by a caller that knows how many changes it has read up to there. The store needs that number to
    /// count lost changes when entries disappear after the caller has read them.
    async fn trim_to(
        &self,
        kind: &str,
        partition: Partition,
        incarnation: Incarnation,
        upto: Mark,
        touched: &[Id],
        invalid: &[Id],
    ) -> Result<(), StoreError>;

    /// The canonical texts of targets that a hole concerns, as far as the state still knows them: those whose newest change
    /// was in it. Returns at most `targets_max`, and no more than a bounded search finds.
    async fn lost_targets(
        &self,
        kind: &str,
        partition: Partition,
        hole: &Hole,
        targets_max: usize,
    ) -> Result<Vec<String>, StoreError>;

    /// Drops the state that earlier lives of these partitions left behind. After a hole the entries of some targets are gone,
    /// so no trim would ever make them clean. Scans all keys in small steps.
    async fn forget_lost(&self, _kind: &str, _partitions: &[Partition]) -> Result<(), StoreError> {
        Ok(())
    }

    /// Starts a new life of a partition whose journal was rewound, or whose incarnation is older than SQL's.
    ///
    /// The new incarnation is greater than `than`, `flushed` is 0, `floor` is `last`. All state is unloaded; entries stay, and
    /// waiting documents stay readable. When no entry is left, `last` and `floor` become 0, because SQL alone holds the truth.
    /// Returns the new head. When the incarnation already is greater than `than`, only returns the head.
    async fn reset(&self, kind: &str, partition: Partition, than: Incarnation) -> Result<Head, StoreError>;

    /// Follows SQL into a later life: the checkpoint `row` is of a later life than `head`, so no host flushes `head` any more,
    /// and everything up to the checkpoint was committed or recorded as lost. Trims that part, then starts a life later than
    /// both: see [`Journal::reset`]. `known` is what the caller knows about that position. Returns the new head.
    async fn follow(&self, kind: &str, head: &Head, row: &Checkpoint, known: Option<Mark>) -> Result<Head, StoreError> {
        let known = known.filter(|known| known.position == row.position && row.position <= head.last);
        let upto = known.unwrap_or_else(|| row.position.min(head.last).into());
        self.trim_to(kind, head.partition, head.incarnation, upto, &[], &[]).await?;
        self.reset(kind, head.partition, row.incarnation).await
    }

    /// Takes or renews the lease to flush `kind` for `owner`. Returns `true` when `owner` holds it now, until `ttl_ms` from
    /// now. The lease saves work; the checkpoint's compare-and-set keeps two flushers apart.
    async fn lease(&self, kind: &str, owner: &str, ttl_ms: u64) -> Result<bool, StoreError>;

    /// Gives the lease back if `owner` holds it.
    async fn release(&self, kind: &str, owner: &str) -> Result<(), StoreError>;

    /// Checks that the journal still belongs to the database that it was bound to. The flusher calls this whenever it takes or
    /// renews its lease.
    ///
    /// # Errors
    /// As [`super::Ownership::bind`].
    async fn check_binding(&self) -> Result<(), StoreError>;
}
