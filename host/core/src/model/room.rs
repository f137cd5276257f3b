//! Waiting rooms: who arrives, where they are placed, how many are let in.

use super::Id;

/// Somebody who arrives at a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The queue.
    pub queue: Id,
    /// Who arrives.
    pub actor: Id,
}

/// What the rules say of an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Behind those who are in this lane already. Lanes are served in the order of their numbers.
    Line {
        /// The lane.
        lane: u8,
    },
    /// In this lane, in the order of the queue's lot.
    Draw {
        /// The lane.
        lane: u8,
    },
    /// Nowhere.
    Refuse,
}

/// A queue as the rules see it at a tick.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoomState {
    /// Who waits.
    pub waiting: u64,
    /// Who is in.
    pub active: u64,
    /// Who may be in at once. The store holds it, whatever the plan says.
    pub capacity: u64,
    /// Time since the plan before, in milliseconds; 0 at the first.
    pub since_ms: u64,
    /// Let in since then.
    pub admitted: u64,
    /// Done since then, and gone.
    pub completed: u64,
    /// Let in, and out of time since then.
    pub expired: u64,
    /// Of `expired`, those who never came.
    pub no_shows: u64,
    /// Gone from the queue since then: they left, or did not ask any more.
    pub abandoned: u64,
}

/// What a tick does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionPlan {
    /// Let in so many, those first who are first.
    pub admit: u32,
    /// How long each may stay, in milliseconds.
    pub active_ttl_ms: u32,
    /// Ask again after so many milliseconds, or earlier when something happens.
    pub next_tick_ms: u32,
}
