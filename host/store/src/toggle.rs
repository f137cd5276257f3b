//! The store's requests and results for toggles.

use super::Idempotency;
use weir_core::model::{Digest, Id, PairState, Position, RateState, ToggleRule};

/// One operation with its decided rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToggleOp {
    /// The target, such as a post that is liked.
    pub target: Id,
    /// The actor, such as the person who likes it.
    pub actor: Id,
    /// The decision table to evaluate against the state.
    pub rule: ToggleRule,
    /// Present when the caller sent an `Idempotency-Key`.
    pub idempotency: Option<Idempotency>,
}

/// Operations of one kind, decided by one module, to be applied in order.
#[derive(Debug, Clone)]
pub struct ToggleBatch {
    /// The module that decided them; recorded in the journal.
    pub digest: Digest,
    /// Unix time in milliseconds: the time of the entries.
    pub at_ms: u64,
    /// The time that ages and times to live are measured by, in milliseconds; it never jumps (see [`weir_core::clock`]).
    pub now_ms: u64,
    /// The operations. Several may concern the same pair; each sees the effect of those before it.
    pub ops: Vec<ToggleOp>,
}

/// Result of one operation, index-aligned with the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToggleResult {
    /// Evaluated. The state and, if it changed, the journal are durable as [`StoreHealth::durability`](super::StoreHealth::durability)
    /// says.
    Done(ToggleOutcome),
    /// The rule's effect is `deny`; the state and the rate limit are untouched.
    Denied(PairState),
    /// Over the rule's rate limit; the state is untouched.
    Limited {
        /// Milliseconds until one operation is allowed again.
        retry_after_ms: u64,
        /// The state of the limit: `remaining` is 0.
        rate: RateState,
    },
    /// The target does not exist in SQL (cached absence).
    TargetMissing,
    /// The target is not loaded: hydrate it, then apply the operation again. Nothing was done.
    TargetNotLoaded,
    /// The target is huge and this pair is not loaded: hydrate the pair, then apply the operation again. Nothing was done.
    PairNotLoaded,
    /// The idempotency key was used with another request. Nothing was done.
    IdempotencyConflict,
}

/// The outcome of an evaluated operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToggleOutcome {
    /// The pair and its count afterwards.
    pub state: PairState,
    /// Whether the operation changed the pair.
    pub changed: bool,
    /// Position in the partition's journal at or below which the answered state lies: the entry of this change, or
    /// the newest entry of the target when nothing changed; 0 when SQL already holds it all.
    pub position: Position,
    /// The limit's state, when the rule had a limit.
    pub rate: Option<RateState>,
    /// The answer to an earlier request with the same idempotency key.
    pub replayed: bool,
}
