//! Waiting rooms: who arrives.

use super::Id;

/// Somebody who arrives at a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The queue.
    pub queue: Id,
    /// Who arrives.
    pub actor: Id,
}
