//! Counters: what is asked for, decided and changed.

use super::Id;

/// One request to count, as the policy sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// What is counted, such as a video.
    pub target: Id,
    /// Who is counted; `None` without a known actor.
    pub actor: Option<Id>,
    /// How much the caller asks for, 1 or more.
    pub by: u32,
}

/// One accepted increment, as it lies in the journal. A delta, not a value: the checkpoint is what makes it count once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountChange {
    /// What is counted.
    pub target: Id,
    /// Who was counted; kept only where the kind has a table of events.
    pub actor: Option<Id>,
    /// What is added, 1 or more.
    pub by: u64,
}
