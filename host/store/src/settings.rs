//! The store's requests and results for settings of members.

use super::Idempotency;
use weir_core::model::{Digest, Id, Position, Settings};

/// One change of a member's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsOp {
    /// The member.
    pub member: Id,
    /// The fields that change, with their new values.
    pub settings: Settings,
    /// Present when the caller sent an `Idempotency-Key`.
    pub idempotency: Option<Idempotency>,
}

/// Changes of one kind, to be applied in order.
#[derive(Debug, Clone)]
pub struct SettingsBatch {
    /// The module with the rules of the kind; recorded in the journal.
    pub digest: Digest,
    /// Unix time in milliseconds: the time of the entries.
    pub at_ms: u64,
    /// The time that ages and times to live are measured by, in milliseconds; it never jumps (see [`weir_core::clock`]).
    pub now_ms: u64,
    /// The changes. Several may concern the same member; the last value of a field wins.
    pub ops: Vec<SettingsOp>,
}

/// Result of one change, index-aligned with the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingsResult {
    /// Applied. State and journal are durable as [`StoreHealth::durability`](super::StoreHealth::durability) says.
    Done(SettingsOutcome),
    /// The member does not exist in SQL (cached absence).
    TargetMissing,
    /// The member is not loaded: hydrate it, then apply the change again. Nothing was done.
    TargetNotLoaded,
    /// The idempotency key was used with another request. Nothing was done.
    IdempotencyConflict,
}

/// The outcome of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettingsOutcome {
    /// Its entry in the partition's journal.
    pub position: Position,
    /// The answer to an earlier request with the same idempotency key.
    pub replayed: bool,
}

/// What the store knows of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberRead {
    /// The settings that it has; defaults apply to missing fields.
    Known(Settings),
    /// It does not exist in SQL (cached absence).
    Missing,
    /// Hydrate it, then read again.
    NotLoaded,
}
