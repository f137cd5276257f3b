//! What a loader brings from SQL, and whether the store took it. See [`super`] for the hydration invariant.

use weir_core::journal::Head;
use weir_core::model::{Aside, Id, Incarnation, Partition, Position, Settings};

/// What SQL returned for one target that was not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetLoad {
    /// The target.
    pub target: Id,
    /// Its state in SQL.
    pub state: LoadedState,
}

/// The state of a target in SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadedState {
    /// No such target.
    Missing,
    /// All members with the time they were added (Unix milliseconds; 0 when unknown).
    Whole(Vec<(Id, u64)>),
    /// Too many members to load: only the count. Pairs are hydrated one by one, in bulk.
    Huge(u64),
    /// A counter: its count. The store caps it at 2^53 - 1.
    Count(u64),
    /// It exists. Nothing else matters for a document whose id comes from outside.
    Exists,
    /// A member: the settings that it has.
    Settings(Settings),
}

/// What SQL returned for one pair of a huge target.
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
    /// What SQL holds beyond the checkpoint, where the store adds the tail of the journal to it.
    pub aside: Option<Aside>,
    /// The targets. The store keeps the state of a target that was loaded meanwhile.
    pub targets: Vec<TargetLoad>,
    /// Pairs of huge targets. The store keeps a pair that was loaded meanwhile, and ignores one whose target is no longer huge
    /// or loaded.
    pub pairs: Vec<PairLoad>,
    /// The time from which TTLs count, in milliseconds; it never jumps (see [`weir_core::clock`]).
    pub now_ms: u64,
}

/// Whether the store took a hydration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hydrated {
    /// Taken.
    Accepted,
    /// The checkpoint does not describe the state now (see the hydration invariant): read again.
    Stale(Head),
}
