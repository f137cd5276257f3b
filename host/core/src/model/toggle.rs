//! Toggles: what is asked for, decided, changed and answered.

use weir_policy_vectors::{Action, Verb};

use super::Id;

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
