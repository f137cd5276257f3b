//! Toggles: what is asked for, decided, changed and answered.

use serde::{Deserialize, Serialize};

use super::{Id, RateLimit};

/// What the caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Add when absent, remove when present, by the default rules (`POST`).
    Toggle,
    /// Make present (`PUT`).
    Set,
    /// Make absent (`DELETE`).
    Clear,
}

/// One request for a toggle, as the policy sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// What is liked.
    pub target: Id,
    /// Who likes it.
    pub actor: Id,
    /// What the caller asks for.
    pub verb: Verb,
}

/// What a rule does in one of the two states of a (target, actor) pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Make the pair present. Without effect when it is present.
    Add,
    /// Make the pair absent. Without effect when it is absent.
    Remove,
    /// Leave the state; answer it.
    Keep,
    /// Leave the state; refuse with 403.
    Deny,
}

/// The decision table that a policy returns for one intent. The store evaluates it atomically against the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ToggleRule {
    /// Effect when the pair is absent.
    pub when_absent: Effect,
    /// Effect when the pair is present.
    pub when_present: Effect,
    /// Checked before the effect; counts every evaluated operation that it lets pass.
    pub limit: Option<RateLimit>,
}

/// A change of one (target, actor) pair, absolute: it says what holds afterwards, so repeating it is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The pair is present afterwards.
    Add,
    /// The pair is absent afterwards.
    Remove,
}

/// One accepted change, as it lies in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToggleChange {
    /// What is liked.
    pub target: Id,
    /// Who likes it.
    pub actor: Id,
    /// What holds afterwards.
    pub action: Action,
}

/// Whether a pair is present, and how many are on its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairState {
    /// Present for this actor; `false` where no actor was asked.
    pub active: bool,
    /// Members of the target.
    pub count: u64,
}

/// One member of a target, in a newest-first list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The actor.
    pub actor: Id,
    /// When it was added, in Unix milliseconds; 0 when unknown.
    pub since_ms: u64,
}
