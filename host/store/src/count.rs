//! The store's requests and results for hits on counters.

use super::Idempotency;
use weir_core::model::{CountRule, Digest, Id, Position, RateState};

/// One hit with its decided rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountOp {
    /// The counter.
    pub target: Id,
    /// The actor. Without one neither the limit nor the window of the rule applies.
    pub actor: Option<Id>,
    /// The requested increment, 1 or more.
    pub by: u32,
    /// The rule; the increment is `by` times its weight.
    pub rule: CountRule,
    /// Present when the caller sent an `Idempotency-Key`.
    pub idempotency: Option<Idempotency>,
}

impl CountOp {
    /// The increment if the hit counts.
    pub fn added(&self) -> u64 {
        u64::from(self.by) * u64::from(self.rule.weight)
    }

    /// The actor of the uniqueness window, and its length in milliseconds; a length of 0 means no window.
    pub(super) fn window(&self) -> Option<(&Id, u32)> {
        self.actor.as_ref().zip(self.rule.unique_ms.filter(|unique_ms| *unique_ms > 0))
    }
}

/// Hits of one kind, decided by one module, to be applied in order.
#[derive(Debug, Clone)]
pub struct CountBatch {
    /// The module that decided them; recorded in the journal.
    pub digest: Digest,
    /// Unix time in milliseconds: the time of the entries.
    pub at_ms: u64,
    /// The time that ages and times to live are measured by, in milliseconds; it never jumps (see [`weir_core::clock`]).
    pub now_ms: u64,
    /// Whether the journal records the actors: the kind has a table of events.
    pub keep_actors: bool,
    /// How many (target, actor) pairs the kind remembers for uniqueness windows; the size of their table follows from it. A
    /// changed number moves all pairs in the table: running windows are lost, and their pairs may count again too early.
    pub unique_pairs_max: u64,
    /// The hits. Several may concern the same target; each sees the effect of those before it.
    pub ops: Vec<CountOp>,
}

/// Result of one hit, index-aligned with the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CountResult {
    /// Evaluated. The state and, if it counted, the journal are durable as [`StoreHealth::durability`](super::StoreHealth::durability)
    /// says.
    Done(CountOutcome),
    /// Over the rule's rate limit; nothing was counted, and no window was started.
    Limited {
        /// Milliseconds until one hit is allowed again.
        retry_after_ms: u64,
        /// The state of the limit: `remaining` is 0.
        rate: RateState,
    },
    /// The target does not exist in SQL (cached absence).
    TargetMissing,
    /// The target is not loaded: hydrate it, then apply the hit again. Nothing was done.
    TargetNotLoaded,
    /// The count would exceed the range that every part represents exactly (2^53 - 1). Nothing was done.
    Overflow,
    /// The idempotency key was used with another request. Nothing was done.
    IdempotencyConflict,
}

/// The outcome of an evaluated hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountOutcome {
    /// The count afterwards.
    pub count: u64,
    /// Whether it counted: `false` for a weight of 0, and for a repetition within the window.
    pub counted: bool,
    /// Position in the partition's journal at or below which the answered count lies: the entry of this hit, or the newest
    /// entry of the target when it did not count; 0 when SQL already holds it all.
    pub position: Position,
    /// The limit's state, when the rule had a limit and there is an actor.
    pub rate: Option<RateState>,
    /// The answer to an earlier request with the same idempotency key.
    pub replayed: bool,
}

/// Greatest count that a double represents exactly, and so Redis and JavaScript.
pub(super) const COUNT_MAX: u64 = (1 << 53) - 1;
