//! Waiting rooms as the store keeps them: the second contract of a store, beside [`super::Store`].
//!
//! A queue has a *life*: a random seed that is made with it. Tokens name the life, so that a store that was wiped never takes
//! an old token for a new one. Per queue it holds:
//! - who **waits**, by score: lane, and within the lane the number of the arrival or the lot;
//! - who is **active**, and until when;
//! - when who was **seen** last: whoever waits and does not ask for the grace period is gone;
//! - who has **ended**, and why, for a while; and totals of all this;
//! - the **log** of those who take part in a draw.
//!
//! Every operation is atomic by itself, and the number of those who are active never goes over the capacity that a tick
//! names. Nothing here is written to SQL: it is as lasting as [`super::Store::durability`] says, but when somebody was seen
//! last, which a restart of the embedded store counts anew.

use async_trait::async_trait;

use super::StoreError;
use crate::model::Id;

/// Scores of one lane: below it the number of the arrival, or the lot.
pub const LANE_SCORES: u64 = 1 << 44;
/// Work of one tick at most, in people: what one call may hold the store up.
pub const TICK_PEOPLE_MAX: u32 = 500;

/// What a queue needs when it is opened.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    /// The seed of a queue that is not there yet.
    pub seed: [u8; 32],
    /// The time that idle queues are measured by, in milliseconds; it never jumps.
    pub now_ms: u64,
    /// Queues of the kind at most.
    pub queues_max: usize,
    /// A queue where nobody waits or is in, and nobody came or went for so long, makes room for others, in milliseconds; of
    /// several the one that was used longest ago.
    pub idle_ms: u64,
}

/// What became of an opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// It is there, with this seed.
    Open([u8; 32]),
    /// There are too many queues of this kind.
    Full,
}

/// What is asked of a queue for one person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomVerb {
    /// A place, or the one that the person has.
    Join {
        /// The lane.
        lane: u8,
        /// The lot below [`LANE_SCORES`]; without one it is the number of the arrival. Where it is taken, the next that is
        /// free.
        lot: Option<u64>,
        /// Let in at once and for so long, in milliseconds, whatever the capacity.
        through_ms: Option<u64>,
    },
    /// How it stands; the person is here. Whoever was let in has come.
    Poll,
    /// How it stands, for somebody else.
    Look,
    /// Gives the place up, or the stay.
    Leave,
    /// Ends the stay. Whoever waits goes on waiting.
    Complete,
    /// A longer stay.
    Extend {
        /// From now, in milliseconds; without it, as long as the stay was when the person was let in. A stay is never shortened.
        ttl_ms: Option<u64>,
        /// Longest stay from when it began, in milliseconds.
        stay_ms_max: u64,
    },
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomOp {
    /// The person.
    pub actor: Id,
    /// The number of the arrival, as the token says; of a join it is not looked at.
    pub number: u64,
    /// What is asked.
    pub verb: RoomVerb,
}

/// When it is, for one queue, and how long things last there.
///
/// A queue has a time of its own, which passes only while people could ask: deadlines are in it. It follows the steady clock
/// from one call to the next, but a longer pause than `pause_ms_max` counts as that long: nobody was served meanwhile, because
/// the host or the store stood still, or none ran. Where several hosts share the store it is that server's clock, and a host
/// that people asked through and that falls silent holds the time up for a while, too: they must find another one first.
#[derive(Debug, Clone)]
pub struct RoomTimes {
    /// Unix time, in milliseconds: what people are told is in this.
    pub at_ms: u64,
    /// The time that never jumps, in milliseconds (see [`crate::clock`]); a store that has a clock for all hosts takes that.
    pub now_ms: u64,
    /// Longest pause between two calls in which time passes, in milliseconds.
    pub pause_ms_max: u64,
    /// The host that calls.
    pub owner: String,
    /// How long somebody may wait without asking, in milliseconds.
    pub grace_ms: u64,
    /// How long the store remembers why somebody is gone, in milliseconds.
    pub ended_ttl_ms: u64,
}

/// Operations on one queue, to be applied in order.
#[derive(Debug, Clone)]
pub struct RoomBatch {
    /// The seed of the queue's life.
    pub seed: [u8; 32],
    /// The time.
    pub times: RoomTimes,
    /// Waiting at most; beyond, [`RoomResult::Full`].
    pub waiting_max: u64,
    /// The operations.
    pub ops: Vec<RoomOp>,
}

impl RoomBatch {
    /// Whether somebody may be added.
    pub(super) fn joins(&self) -> bool {
        self.ops.iter().any(|op| matches!(op.verb, RoomVerb::Join { .. }))
    }
}

/// Why somebody is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomEnd {
    /// Gave the place up.
    Left,
    /// Is done.
    Completed,
    /// Was let in and came, and the time was over.
    Expired,
    /// Did not ask for the grace period.
    Abandoned,
    /// Was let in, and never came.
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

/// How it stands with somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomResult {
    /// Waits.
    Waiting {
        /// The number of the arrival.
        number: u64,
        /// So many are before.
        ahead: u64,
        /// The lane.
        lane: u8,
        /// Since when, in Unix milliseconds.
        joined_ms: u64,
        /// This operation made it so.
        is_new: bool,
    },
    /// Is in.
    Active {
        /// The number of the arrival.
        number: u64,
        /// Until when, in Unix milliseconds.
        until_ms: u64,
        /// Since when, in Unix milliseconds.
        admitted_ms: u64,
        /// This operation saw it first, or made it so.
        is_new: bool,
    },
    /// Is gone.
    Ended {
        /// Why.
        end: RoomEnd,
        /// This operation made it so.
        is_new: bool,
    },
    /// Nothing is known of this arrival (any more).
    Unknown,
    /// Too many wait. Nothing was done.
    Full,
}

/// Numbers of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoomFigures {
    /// Who waits now.
    pub waiting: u64,
    /// Who is active now.
    pub active: u64,
    /// Ever joined, in this life of the queue; and so on.
    pub joined: u64,
    /// Let in.
    pub admitted: u64,
    /// Done.
    pub completed: u64,
    /// Let in and come, and out of time.
    pub expired: u64,
    /// Let in, and never came.
    pub no_shows: u64,
    /// Did not ask any more.
    pub abandoned: u64,
    /// Gave their place up.
    pub left: u64,
}

/// What a batch left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomCommit {
    /// Done. Results are index-aligned with the operations.
    Done(Vec<RoomResult>, RoomFigures),
    /// The queue has another life, or none: open it again. Nothing was done.
    OtherLife,
}

/// One step of a queue's clock. At most [`TICK_PEOPLE_MAX`] people are swept, and as many let in.
#[derive(Debug, Clone)]
pub struct RoomTick {
    /// The seed of the queue's life.
    pub seed: [u8; 32],
    /// The time, and who ticks; one at a time.
    pub times: RoomTimes,
    /// For how long nobody else may, in milliseconds. A step that leaves nobody waiting or in gives the rest of it up.
    pub lease_ms: u64,
    /// Let in at most so many.
    pub admit: u32,
    /// Active at most, all in all.
    pub capacity: u64,
    /// How long a stay is, in milliseconds.
    pub active_ttl_ms: u64,
    /// Whoever does not come for so long after being let in is out again, in milliseconds.
    pub claim_ms: u64,
}

/// What a tick did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ticked {
    /// It is another owner's turn.
    NotOurs,
    /// The queue has another life, or none: open it again.
    OtherLife,
    /// Done.
    Done {
        /// How many were let in.
        admitted: u32,
        /// There may be more to sweep.
        is_more: bool,
        /// The queue afterwards.
        figures: RoomFigures,
    },
}

/// Waiting rooms. All methods may be called concurrently, by several hosts.
#[async_trait]
pub trait RoomStore: Send + Sync {
    /// Makes a queue known, and tells its seed; one that is there keeps its own.
    async fn open_room(&self, kind: &str, queue: &Id, opening: Opening) -> Result<Opened, StoreError>;

    /// The queues of a kind that are known, in no order.
    async fn room_queues(&self, kind: &str) -> Result<Vec<Id>, StoreError>;

    /// Applies operations.
    ///
    /// # Errors
    /// After [`StoreError::OutcomeUnknown`] some may have been applied; each is safe to repeat.
    async fn apply_room(&self, kind: &str, queue: &Id, batch: RoomBatch) -> Result<RoomCommit, StoreError>;

    /// One step: those whose time is over go, then those at the front are let in.
    ///
    /// # Errors
    /// As [`RoomStore::apply_room`].
    async fn tick_room(&self, kind: &str, queue: &Id, tick: RoomTick) -> Result<Ticked, StoreError>;

    /// `owner` stops: its turn is over, and whoever asked through it will ask through another host.
    async fn part_room(&self, _kind: &str, _queue: &Id, _owner: &str) -> Result<(), StoreError> {
        Ok(())
    }

    /// Who takes part in the draw, in the order of their arrival, from the `skip`th, at most `limit`.
    async fn room_draw(&self, kind: &str, queue: &Id, skip: u64, limit: usize) -> Result<Vec<Id>, StoreError>;
}
