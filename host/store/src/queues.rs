//! The role of waiting rooms: queues with places, stays and totals.
//!
//! Called by `room` (the capability) and by the operators' API. The policy module decides the lanes; the store keeps order and
//! capacity.
//!
//! A queue has a *life*: a random seed that is made with it. Tokens name the life, so a store that was wiped never accepts an
//! old token for a new queue. Per queue the store holds:
//! - the people who **wait**, by score: lane, and within the lane the number of the arrival or the rank in the lottery;
//! - the people who are **active**, each with a deadline;
//! - when each person was **seen** last: a waiting person who does not poll for the grace period loses the place;
//! - the people whose place or stay has **ended**, and why, for a while; and totals of all this;
//! - the **log** of those who take part in a lottery.
//!
//! Every operation is atomic by itself, and the number of active people never exceeds the capacity that a tick names. Nothing
//! here goes to SQL: it is as durable as [`super::StoreHealth::durability`] says. The times at which people were seen are the
//! exception: a restart of the embedded store starts them anew.

use async_trait::async_trait;

use super::StoreError;
use weir_core::model::Id;

/// Number of scores in one lane: each is the number of an arrival, or a rank in the lottery.
pub const LANE_SCORES: u64 = 1 << 44;
/// Most people that one tick handles: bounds how long one call may occupy the store.
pub const TICK_PEOPLE_MAX: u32 = 500;

/// What a queue needs when it is opened.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    /// The seed of a queue that does not exist yet.
    pub seed: [u8; 32],
    /// The time that measures idle queues, in milliseconds; it never jumps.
    pub now_ms: u64,
    /// Most queues of the kind.
    pub queues_max: usize,
    /// A queue without waiting or active people and without any change for this long gives way to new ones, in milliseconds;
    /// of several, the one that was used longest ago.
    pub idle_ms: u64,
}

/// The result of opening a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// The queue exists, with this seed.
    Open([u8; 32]),
    /// There are too many queues of this kind.
    Full,
}

/// An operation on a queue for one person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomVerb {
    /// Take a place, or keep the one that the person has.
    Join {
        /// The lane.
        lane: u8,
        /// The rank in the lottery, below [`LANE_SCORES`]; the number of the arrival where there is none. When the rank is
        /// taken, the next free one.
        lottery_rank: Option<u64>,
        /// Admit at once for this long, in milliseconds, whatever the capacity.
        through_ms: Option<u64>,
    },
    /// Read the status, and count the person as present. An admitted person who polls has shown up.
    Poll,
    /// Read the status on behalf of somebody else.
    Look,
    /// Give up the place, or the stay.
    Leave,
    /// End the stay. A waiting person goes on waiting.
    Complete,
    /// Extend the stay.
    Extend {
        /// From now, in milliseconds; the length at admission where there is none. A stay is never shortened.
        ttl_ms: Option<u64>,
        /// Longest stay since its beginning, in milliseconds.
        stay_ms_max: u64,
    },
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomOp {
    /// The person.
    pub actor: Id,
    /// The number of the arrival, as the token says; ignored by a join.
    pub number: u64,
    /// The operation.
    pub verb: RoomVerb,
}

/// The time of one queue, and its durations.
///
/// A queue has a clock of its own, which runs only while people could poll; its deadlines are in that clock. The clock follows
/// the steady clock from one call to the next, but counts a pause longer than `pause_ms_max` as that long: the host or the
/// store stood still, or none ran, so no one was served meanwhile. Where several hosts share the store, the server's
/// clock counts. A host that people polled through and that falls silent holds the clock up for a while, too: they must
/// reach another host first.
#[derive(Debug, Clone)]
pub struct RoomTimes {
    /// Unix time, in milliseconds: the time in replies.
    pub at_ms: u64,
    /// The time that never jumps, in milliseconds (see [`weir_core::clock`]); a store with one clock for all hosts uses its own.
    pub now_ms: u64,
    /// Longest pause between two calls in which the queue's clock runs, in milliseconds.
    pub pause_ms_max: u64,
    /// The host that calls.
    pub owner: String,
    /// How long a person may wait without polling, in milliseconds.
    pub grace_ms: u64,
    /// How long the store remembers why a place or stay ended, in milliseconds.
    pub ended_ttl_ms: u64,
}

/// Operations on one queue, to be applied in order.
#[derive(Debug, Clone)]
pub struct RoomBatch {
    /// The seed of the queue's life.
    pub seed: [u8; 32],
    /// The time.
    pub times: RoomTimes,
    /// Most waiting people; beyond, [`RoomResult::Full`].
    pub waiting_max: u64,
    /// The operations.
    pub ops: Vec<RoomOp>,
}

impl RoomBatch {
    /// Whether an operation may add a person.
    pub(super) fn joins(&self) -> bool {
        self.ops.iter().any(|op| matches!(op.verb, RoomVerb::Join { .. }))
    }
}

/// Why a place or a stay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomEnd {
    /// The person gave the place up.
    Left,
    /// The person is done.
    Completed,
    /// The person was admitted and showed up; the stay ran out.
    Expired,
    /// The person did not poll for the grace period.
    Abandoned,
    /// The person was admitted and never showed up.
    NoShow,
}

impl RoomEnd {
    /// Its number in records.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Left => 1,
            Self::Completed => 2,
            Self::Expired => 3,
            Self::Abandoned => 4,
            Self::NoShow => 5,
        }
    }

    /// The one with this [`RoomEnd::code`].
    pub(super) fn of_code(code: u64) -> Option<Self> {
        [Self::Left, Self::Completed, Self::Expired, Self::Abandoned, Self::NoShow]
            .into_iter()
            .find(|end| u64::from(end.code()) == code)
    }
}

/// The status of one person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomResult {
    /// Waits.
    Waiting {
        /// The number of the arrival.
        number: u64,
        /// The number of people in front.
        ahead: u64,
        /// The lane.
        lane: u8,
        /// When the person joined, in Unix milliseconds.
        joined_ms: u64,
        /// This operation created the place.
        is_new: bool,
    },
    /// Was admitted.
    Active {
        /// The number of the arrival.
        number: u64,
        /// When the stay ends, in Unix milliseconds.
        until_ms: u64,
        /// When the person was admitted, in Unix milliseconds.
        admitted_ms: u64,
        /// This operation admitted the person, or was the first to see it.
        is_new: bool,
    },
    /// The place or the stay has ended.
    Ended {
        /// Why.
        end: RoomEnd,
        /// This operation ended it.
        is_new: bool,
    },
    /// The store knows nothing of this arrival (any more).
    Unknown,
    /// Too many people wait. Nothing was done.
    Full,
}

/// Numbers of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoomFigures {
    /// People who wait now.
    pub waiting: u64,
    /// People who are active now.
    pub active: u64,
    /// People who joined, in this life of the queue. The totals below have the same scope.
    pub joined: u64,
    /// Admissions.
    pub admitted: u64,
    /// Completed stays.
    pub completed: u64,
    /// Stays that ran out after the person had shown up.
    pub expired: u64,
    /// Admitted people who never showed up.
    pub no_shows: u64,
    /// Waiting people who stopped polling.
    pub abandoned: u64,
    /// People who gave their place up.
    pub left: u64,
}

/// The result of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomCommit {
    /// Done. Results are index-aligned with the operations.
    Done(Vec<RoomResult>, RoomFigures),
    /// The queue has another life, or none: open it again. Nothing was done.
    OtherLife,
}

/// One step of a queue's clock. Sweeps at most [`TICK_PEOPLE_MAX`] people, and admits at most as many.
#[derive(Debug, Clone)]
pub struct RoomTick {
    /// The seed of the queue's life.
    pub seed: [u8; 32],
    /// The time, and the host that ticks; one host at a time.
    pub times: RoomTimes,
    /// How long no other host may tick, in milliseconds. A step that leaves no waiting or active people gives the rest up.
    pub lease_ms: u64,
    /// Most people to admit.
    pub admit: u32,
    /// Most active people.
    pub capacity: u64,
    /// Length of a stay, in milliseconds.
    pub active_ttl_ms: u64,
    /// An admitted person who does not show up for this long loses the stay, in milliseconds.
    pub claim_ms: u64,
}

/// The result of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ticked {
    /// It is another host's turn.
    NotOurs,
    /// The queue has another life, or none: open it again.
    OtherLife,
    /// Done.
    Done {
        /// People admitted.
        admitted: u32,
        /// There may be more people to sweep.
        is_more: bool,
        /// The queue afterwards.
        figures: RoomFigures,
    },
}

/// Waiting rooms. All methods may be called concurrently, by several hosts.
#[async_trait]
pub trait Queues: Send + Sync {
    /// Creates a queue and returns its seed; an existing queue keeps its own.
    async fn open_room(&self, kind: &str, queue: &Id, opening: Opening) -> Result<Opened, StoreError>;

    /// The known queues of a kind, in no order.
    async fn room_queues(&self, kind: &str) -> Result<Vec<Id>, StoreError>;

    /// Applies operations.
    ///
    /// # Errors
    /// After [`StoreError::OutcomeUnknown`] some may have been applied; each is safe to repeat.
    async fn apply_room(&self, kind: &str, queue: &Id, batch: RoomBatch) -> Result<RoomCommit, StoreError>;

    /// One step: removes people whose time is over, then admits those at the front.
    ///
    /// # Errors
    /// As [`Queues::apply_room`].
    async fn tick_room(&self, kind: &str, queue: &Id, tick: RoomTick) -> Result<Ticked, StoreError>;

    /// `owner` stops: its turn is over, and people who polled through it will poll through another host.
    async fn part_room(&self, _kind: &str, _queue: &Id, _owner: &str) -> Result<(), StoreError> {
        Ok(())
    }

    /// The people who take part in the lottery, in the order of their arrival, from the `skip`th, at most `limit`.
    async fn room_entrants(&self, kind: &str, queue: &Id, skip: u64, limit: usize) -> Result<Vec<Id>, StoreError>;
}
