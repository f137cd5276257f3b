//! The few typed causes for which a request is refused. `http::problem` maps each to its one status.
//!
//! A cause that only an operator can mend is logged where it is met; a client sees what to do next.

use std::sync::Arc;

use crate::model::{RateLimit, RateState};

/// Why a request was not done. Unless said otherwise nothing was changed, and it is safe to send it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The target does not exist in SQL.
    #[error("the target does not exist")]
    TargetMissing,
    /// A value does not fit into its column: SQL could never take it.
    #[error("a value does not fit into {column}, which holds {limit}")]
    Unfit {
        /// Table and column.
        column: Arc<str>,
        /// What the column holds, in words.
        limit: Arc<str>,
    },
    /// The row is missing that this one would belong to: SQL would refuse it.
    #[error("there is no such row in {table}, to which {column} leads")]
    ParentMissing {
        /// Table and column of the foreign key.
        column: Arc<str>,
        /// The table that it leads to.
        table: Arc<str>,
    },
    /// The policy's rule denies it.
    #[error("the rules of this kind do not allow it")]
    Denied,
    /// Over the rule's rate limit.
    #[error("too many operations on this target by this actor")]
    RateLimited {
        /// Milliseconds until one operation is allowed again.
        retry_after_ms: u64,
        /// What is left.
        rate: RateState,
        /// The limit.
        limit: Option<RateLimit>,
    },
    /// The counter is at the greatest count that every part of the way holds exactly.
    #[error("the count would leave the range of whole numbers that are held exactly (2^53 - 1)")]
    CountOverflow,
    /// The `Idempotency-Key` was used with another request.
    #[error("the Idempotency-Key was used with another request")]
    IdempotencyConflict,
    /// A queue of this host is full.
    #[error("the host is overloaded: {queue} is full")]
    Overloaded {
        /// Which queue.
        queue: &'static str,
    },
    /// The journal has reached its bound because SQL does not take its changes.
    #[error("the journal is full: SQL is not taking writes")]
    JournalFull,
    /// The store cannot be reached or refuses writes.
    #[error("the store is not available")]
    StoreUnavailable,
    /// The store did not answer: the operation may have been applied. Repeat it only with an `Idempotency-Key`.
    #[error("the store did not answer in time; the operation may have been applied")]
    OutcomeUnknown,
    /// The state of the target must be read from SQL first, and SQL is not available.
    #[error("the target is not in the store and SQL is not available")]
    SqlUnavailable,
    /// The policy module failed, and the kind's configuration says to refuse then.
    #[error("the policy module failed")]
    PolicyFailed,
    /// Not done within the request's deadline. The operation may have been applied.
    #[error("no answer within the deadline; the operation may have been applied")]
    DeadlineExceeded,
    /// The host is stopping.
    #[error("the host is stopping")]
    Draining,
    /// A waiting room refuses it.
    #[error(transparent)]
    Room(#[from] RoomRefusal),
}

/// Why a waiting room refuses a request. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoomRefusal {
    /// There is no such queue.
    #[error("there is no such queue")]
    QueueMissing,
    /// The kind has as many queues as it may have.
    #[error("there are too many queues of this kind")]
    TooManyQueues,
    /// The queue accepts no more joins.
    #[error("the queue is closed")]
    Closed,
    /// As many wait as may wait.
    #[error("the queue is full")]
    Full,
    /// No token of ours: not well-formed, wrong signature, key or algorithm.
    #[error("the token is not valid")]
    TokenInvalid,
    /// A token of ours, for something else.
    #[error("the token is for another queue")]
    TokenOfAnotherQueue,
    /// A pass where a ticket is needed.
    #[error("a ticket is needed, the token of a join")]
    NotATicket,
    /// A ticket where a pass is needed.
    #[error("a pass is needed")]
    NotAPass,
    /// The token's own time is over.
    #[error("the token has expired")]
    TokenExpired,
    /// The holder left or is done, or nothing is known of the arrival any more.
    #[error("what the token was for has ended")]
    TokenEnded,
    /// The holder waits.
    #[error("the holder has not been let in")]
    NotActive,
}
