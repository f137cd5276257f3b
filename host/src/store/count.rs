//! Hits on counters as the store takes and answers them.

use super::Idempotency;
use crate::model::{CountRule, Digest, Id, Position, RateState};

/// One hit with its decided rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountOp {
    /// What is counted.
    pub target: Id,
    /// Who is counted. Without one neither the limit nor the window of the rule applies.
    pub actor: Option<Id>,
    /// How much is asked for, 1 or more.
    pub by: u32,
    /// The rule; what is added is `by` times its weight.
    pub rule: CountRule,
    /// Present when the caller sent an `Idempotency-Key`.
    pub idempotency: Option<Idempotency>,
}

impl CountOp {
    /// What is added when it counts.
    pub fn added(&self) -> u64 {
        u64::from(self.by) * u64::from(self.rule.weight)
    }

    /// Whose window of uniqueness it asks for, and how long that is, in milliseconds; a window of no time is none.
    pub(super) fn window(&self) -> Option<(&Id, u32)> {
        self.actor.as_ref().zip(self.rule.unique_ms.filter(|unique_ms| *unique_ms > 0))
    }
}

/// Hits of one kind, decided by one module, to be applied in order.
#[derive(Debug, Clone)]
pub struct CountBatch {
    /// The module that decided them; goes into the journal.
    pub digest: Digest,
    /// When, in Unix milliseconds: the time of the entries.
    pub at_ms: u64,
    /// The time that ages and times to live are measured by, in milliseconds; it never jumps (see [`crate::clock`]).
    pub now_ms: u64,
    /// Whether the journal keeps the actors: the kind has a table of events.
    pub keep_actors: bool,
    /// How many (target, actor) pairs the kind remembers for windows of uniqueness: the size of their table follows from it.
    /// With another number than before, pairs have other places in the table: windows that were begun are forgotten, and
    /// their pairs may count again before their time.
    pub unique_pairs_max: u64,
    /// The hits. Several may concern the same target; each sees the effect of those before it.
    pub ops: Vec<CountOp>,
}

/// Result of one hit, index-aligned with the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CountResult {
    /// Evaluated. The state and, if it counted, the journal are durable as [`Store::durability`](super::Store::durability)
    /// says.
    Done(CountOutcome),
    /// Over the rule's rate limit; nothing was counted, and the window was not begun.
    Limited {
        /// Milliseconds until one hit is allowed again.
        retry_after_ms: u64,
        /// What is left: `remaining` is 0.
        rate: RateState,
    },
    /// The target does not exist in SQL (cached absence).
    TargetMissing,
    /// The target's state is unknown: hydrate it, then apply the hit again. Nothing was done.
    ColdTarget,
    /// The count would leave the range that every part holds exactly (2^53 - 1). Nothing was done.
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
    /// The answer is that of an earlier request with the same idempotency key.
    pub replayed: bool,
}

/// Greatest count: what a double holds exactly, and with it Redis and JavaScript.
pub(super) const COUNT_MAX: u64 = (1 << 53) - 1;
