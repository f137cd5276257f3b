//! The toggle capability: like / unlike by one actor on one target.
//!
//! Tier 3: imports tiers 0 to 2 (policy, store, sql for hydration). Never imports flush or http. Holds no rule: the
//! policy decides, the store evaluates, this room moves data in batches between them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::ToggleConfig;
use crate::error::Refusal;
use crate::model::{Id, Member, PairState, Partition, Position, RateState, Verb};

/// One request for a toggle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToggleRequest {
    /// What the caller asks for.
    pub verb: Verb,
    /// What is liked. Of the kind's target type.
    pub target: Id,
    /// Who likes it. Of the kind's actor type.
    pub actor: Id,
    /// The caller's `Idempotency-Key`, 1 to 255 bytes.
    pub idempotency_key: Option<String>,
}

/// The answer to a toggle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToggleReply {
    /// The pair and its count afterwards.
    pub state: PairState,
    /// Whether this request changed the pair.
    pub changed: bool,
    /// The level reached: `journaled` or `stored`.
    pub durability: &'static str,
    /// Where the answered state lies in the journal: ask [`ToggleKind::is_stored`] with it.
    pub receipt: Receipt,
    /// The rate limit afterwards, and the rule's limit as (burst, period in milliseconds).
    pub rate: Option<(RateState, crate::model::RateLimit)>,
    /// The outcome of an earlier request with the same `Idempotency-Key`, answered again.
    pub replayed: bool,
    /// When it was evaluated, in Unix milliseconds.
    pub at_ms: u64,
}

/// A place in the journal of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The target's partition.
    pub partition: Partition,
    /// The entry; 0 when SQL already held it.
    pub position: Position,
}

/// All kinds of the capability, by name.
#[derive(Clone, Default)]
pub struct Toggles {
    /// The kinds.
    pub kinds: BTreeMap<String, Arc<ToggleKind>>,
}

/// One kind: its configuration, its batcher, its way to policy, store and SQL.
pub struct ToggleKind {
    config: ToggleConfig,
}

impl ToggleKind {
    /// Its configuration.
    pub fn config(&self) -> &ToggleConfig {
        &self.config
    }

    /// Decides, applies and journals one operation, together with whatever is concurrent. With the kind's level
    /// `stored` it also waits for the flush, up to the deadline; the reply names the level really reached.
    pub async fn apply(&self, _request: ToggleRequest) -> Result<ToggleReply, Refusal> {
        Err(Refusal::Draining)
    }

    /// State and count of many targets, in order; `None` for one that does not exist. `active` is false without actor.
    pub async fn read(&self, _targets: &[Id], _actor: Option<&Id>) -> Result<Vec<Option<PairState>>, Refusal> {
        Err(Refusal::Draining)
    }

    /// Members newest first, strictly older than `before`. `TargetMissing` when the target does not exist.
    pub async fn members(&self, _target: &Id, _before: Option<&Member>, _limit: usize) -> Result<Vec<Member>, Refusal> {
        Err(Refusal::Draining)
    }

    /// Whether everything up to `receipt` is committed in SQL.
    pub async fn is_stored(&self, _receipt: Receipt) -> Result<bool, Refusal> {
        Err(Refusal::Draining)
    }

    /// Everything known of one pair: `store`, `sql`, `checkpoint`, `dead_letters`.
    pub async fn explain(&self, _target: &Id, _actor: &Id) -> Result<serde_json::Value, Refusal> {
        Err(Refusal::Draining)
    }
}
