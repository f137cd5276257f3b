//! Counters: what is asked for, decided and changed.

use super::{Id, RateLimit};

/// One request to count, as the policy sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// What is counted, such as a video.
    pub target: Id,
    /// Who is counted; `None` where nobody is known.
    pub actor: Option<Id>,
    /// How much the caller asks for, 1 or more.
    pub by: u32,
}

/// What a policy returns for one hit. The store evaluates it atomically against what it remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountRule {
    /// What each unit counts for; 0 ignores the hit. At most [`CountRule::WEIGHT_MAX`].
    pub weight: u32,
    /// A further hit by the same actor on the same target within so many milliseconds counts nothing. Without an actor
    /// there is nobody to remember: the hit counts.
    pub unique_ms: Option<u32>,
    /// Checked first, for hits by an actor; counts every hit that it lets pass.
    pub limit: Option<RateLimit>,
}

impl CountRule {
    /// Greatest weight. With it no hit leaves the range that Redis' numbers hold exactly.
    pub const WEIGHT_MAX: u32 = 1_000_000;
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
