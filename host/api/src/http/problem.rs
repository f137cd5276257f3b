//! The one map from a cause to its status: what the capabilities refuse with, and what the API itself refuses.

use std::borrow::Cow;

use hyper::header::{self, HeaderName, HeaderValue};

use super::reply::{CACHE_STATUS, RATE_LIMIT, RATE_LIMIT_POLICY, rate_limit_after, rate_limit_policy_value};
use weir_core::error::{Refusal, RoomRefusal};
use weir_core::model::{RateLimit, RateState};
use weir_listener::body;
use weir_listener::problem::{BODY_TOO_LARGE, METHOD_NOT_ALLOWED, Problem, problem_types};
use weir_reads::read::{ReadError, ReadFailure};
use weir_reads::upstream::{UPSTREAM_METHODS, UpstreamError, UpstreamFailure};

problem_types! { API_TYPES:
    BAD_ID = 400 "bad-id" "An id is not of the kind's type";
    BAD_QUERY = 400 "bad-query" "The query is not understood";
    BAD_HEADER = 400 "bad-header" "A header is not understood";
    BAD_PATH = 400 "bad-path" "The path is not understood";
    DOT_SEGMENT = 400 "dot-segment" "The path has a segment that is . or ..";
    UNAUTHENTICATED = 401 "unauthenticated" "The actor is not known";
    DENIED = 403 "denied" "The rules of this kind do not allow it";
    ROUTE_MISSING = 404 "route-missing" "There is nothing at this path";
    KIND_MISSING = 404 "kind-missing" "The kind is not configured";
    READ_MISSING = 404 "read-missing" "There is no such read";
    TARGET_MISSING = 404 "target-missing" "The target does not exist";
    DOCUMENT_MISSING = 404 "document-missing" "There is no such document of this actor";
    NOT_OWN = 403 "not-own" "The settings are those of somebody else";
    DOCUMENT_EXISTS = 409 "document-exists" "A document with this id exists";
    QUEUE_MISSING = 404 "queue-missing" "There is no such queue";
    ROOM_CLOSED = 403 "room-closed" "The queue is closed";
    TOKEN_INVALID = 403 "token-invalid" "The token is not valid";
    TOKEN_OF_ANOTHER_QUEUE = 403 "token-of-another-queue" "The token is for another queue";
    TOKEN_OF_ANOTHER_USE = 403 "token-of-another-use" "The token is for another use";
    NOT_ACTIVE = 409 "not-active" "The holder of the token has not been let in";
    TOKEN_EXPIRED = 410 "token-expired" "The token has expired";
    TOKEN_ENDED = 410 "token-ended" "What the token was for has ended";
    ROOM_FULL = 503 "room-full" "The queue is full";
    TOO_MANY_QUEUES = 503 "too-many-queues" "There are too many queues";
    COUNT_OVERFLOW = 409 "count-overflow" "The counter is full";
    TOO_MANY_DOCUMENTS = 413 "too-many-documents" "The request has too many documents";
    TOO_MANY_TOKENS = 413 "too-many-tokens" "The request has too many tokens";
    TOO_MANY_MEMBERS = 413 "too-many-members" "The look-up has too many members";
    INVALID_BODY = 400 "invalid-body" "The body is not what this path takes";
    INVALID_DOCUMENT = 422 "invalid-document" "A document is not accepted";
    UNFIT = 422 "unfit" "A value does not fit into its column";
    PARENT_MISSING = 422 "parent-missing" "A row is missing that this one belongs to";
    INVALID_SETTINGS = 422 "invalid-settings" "The settings are not accepted";
    UNKNOWN_TOPIC = 422 "unknown-topic" "There is no such topic";
    IDEMPOTENCY_CONFLICT = 422 "idempotency-conflict" "The Idempotency-Key was used with another request";
    RATE_LIMITED = 429 "rate-limited" "Too many operations on this target by this actor";
    OVERLOADED = 503 "overloaded" "The host is overloaded";
    JOURNAL_FULL = 503 "journal-full" "The journal is full";
    STORE_UNAVAILABLE = 503 "store-unavailable" "The store is not available";
    SQL_UNAVAILABLE = 503 "sql-unavailable" "The database is not available";
    KEYS_UNAVAILABLE = 503 "keys-unavailable" "The keys of tokens are not available";
    POLICY_FAILED = 503 "policy-failed" "The rules could not be evaluated";
    OUTCOME_UNKNOWN = 503 "outcome-unknown" "It is not known whether the operation was applied";
    DEADLINE_EXCEEDED = 503 "deadline-exceeded" "No answer within the deadline";
    ORIGIN_UNREACHABLE = 502 "origin-unreachable" "The origin cannot be reached";
    ORIGIN_BROKEN = 502 "origin-broken" "The origin's answer is not usable";
    ORIGIN_LATE = 504 "origin-late" "The origin did not answer in time";
    NOT_KEPT = 504 "not-kept" "Nothing is kept of it";
    LOOP_DETECTED = 508 "loop-detected" "The request goes round in a circle";
    READ_TOO_LARGE = 503 "read-too-large" "The read finds more than it may";
    READ_FAILED = 503 "read-failed" "The read does not work";
    DRAINING = 503 "draining" "The host is stopping";
}

/// When to come back after a queue was full, in seconds.
const RETRY_OVERLOADED_S: u64 = 1;
/// When to come back after a server behind the host did not answer, in seconds.
const RETRY_UNAVAILABLE_S: u64 = 5;

/// What the caller sent that decides whether it may repeat an operation of unknown outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeatable {
    /// A read, a `PUT` or `DELETE`, or a write with an `Idempotency-Key`.
    Yes,
    /// A write without.
    No,
}

/// The problem of a refusal.
pub(super) fn from_refusal(refusal: &Refusal, repeatable: Repeatable) -> Problem {
    match refusal {
        Refusal::TargetMissing => Problem::new(&TARGET_MISSING, "use the id of a target that exists"),
        Refusal::Unfit { column, limit } => {
            let problem = Problem::new(&UNFIT, format!("nothing was changed; {column} holds {limit}"));
            problem.member("column", column.to_string()).member("limit", limit.to_string())
        }
        Refusal::ParentMissing { column, table } => {
            let detail = format!("nothing was changed; {column} leads to a row of {table} that is not there");
            let problem = Problem::new(&PARENT_MISSING, detail);
            problem.member("column", column.to_string()).member("table", table.to_string())
        }
        Refusal::Denied => Problem::new(&DENIED, "the rules refuse it in the present state; do not repeat it"),
        Refusal::RateLimited { retry_after_ms, rate, limit } => rate_limited(*retry_after_ms, *rate, *limit),
        Refusal::CountOverflow => {
            Problem::new(&COUNT_OVERFLOW, "nothing was changed; counts are held up to 9007199254740991")
        }
        Refusal::IdempotencyConflict => {
            Problem::new(&IDEMPOTENCY_CONFLICT, "use a new Idempotency-Key for each operation, the same to repeat one")
        }
        Refusal::Overloaded { queue } => {
            let detail = format!("nothing was changed; {queue} is full, send it again later");
            Problem::new(&OVERLOADED, detail).retry_after_s(RETRY_OVERLOADED_S)
        }
        Refusal::JournalFull => unavailable(&JOURNAL_FULL, "nothing was changed; the database does not take writes"),
        Refusal::StoreUnavailable => unavailable(&STORE_UNAVAILABLE, "nothing was changed; send it again later"),
        Refusal::SqlUnavailable => unavailable(&SQL_UNAVAILABLE, "nothing was changed; send it again later"),
        Refusal::PolicyFailed => unavailable(&POLICY_FAILED, "nothing was changed; send it again later"),
        Refusal::OutcomeUnknown => unknown(&OUTCOME_UNKNOWN, repeatable),
        Refusal::DeadlineExceeded => unknown(&DEADLINE_EXCEEDED, repeatable),
        Refusal::Draining => unavailable(&DRAINING, "nothing was changed; send it again on a new connection").close(),
        Refusal::Room(refusal) => of_room(*refusal),
    }
}

/// The problem of a refusal by a waiting room.
fn of_room(refusal: RoomRefusal) -> Problem {
    match refusal {
        RoomRefusal::QueueMissing => Problem::new(&QUEUE_MISSING, "use the id of a queue that there is"),
        RoomRefusal::Closed => Problem::new(&ROOM_CLOSED, "nobody joins any more; whoever has a place keeps it"),
        RoomRefusal::TokenInvalid => Problem::new(
            &TOKEN_INVALID,
            "it is not well-formed, or not signed by a key of this kind with the algorithm of that key; join to get one",
        ),
        RoomRefusal::TokenOfAnotherQueue => {
            Problem::new(&TOKEN_OF_ANOTHER_QUEUE, "use it at the queue that it was given for")
        }
        RoomRefusal::NotATicket => Problem::new(
            &TOKEN_OF_ANOTHER_USE,
            "use the token of the join; a pass only proves to others that its holder is in",
        ),
        RoomRefusal::NotAPass => {
            Problem::new(&TOKEN_OF_ANOTHER_USE, "send the pass; the token of the join is its holder's own")
        }
        RoomRefusal::TokenExpired => Problem::new(&TOKEN_EXPIRED, "join again"),
        RoomRefusal::TokenEnded => {
            Problem::new(&TOKEN_ENDED, "its holder left, is done, or did not ask for too long; join again")
        }
        RoomRefusal::NotActive => Problem::new(&NOT_ACTIVE, "nothing was changed; wait until the status says active"),
        RoomRefusal::Full => unavailable(&ROOM_FULL, "nothing was changed; as many wait as may wait, try again later"),
        RoomRefusal::TooManyQueues => unavailable(&TOO_MANY_QUEUES, "nothing was changed; see queues_max of the kind"),
    }
}

/// The problem of an upstream that has no answer.
pub(super) fn from_upstream(failure: &UpstreamFailure) -> Problem {
    let problem = match failure.error {
        UpstreamError::Unreachable => {
            Problem::new(&ORIGIN_UNREACHABLE, "send it again later").retry_after_s(RETRY_UNAVAILABLE_S)
        }
        UpstreamError::Broken => Problem::new(&ORIGIN_BROKEN, "it is not known whether the origin did what was asked"),
        UpstreamError::Late => Problem::new(&ORIGIN_LATE, "it is not known whether the origin did what was asked"),
        UpstreamError::NotCached => Problem::new(&NOT_KEPT, "send it without only-if-cached"),
        UpstreamError::Loop => Problem::new(
            &LOOP_DETECTED,
            "Via names this host: an origin, or a proxy behind this host, sends requests back to it; see origin of the [[upstream]]",
        ),
        UpstreamError::MethodRefused => {
            Problem::new(&METHOD_NOT_ALLOWED, "TRACE is not passed on; use a method that Allow names")
                .header(header::ALLOW, HeaderValue::from_static(UPSTREAM_METHODS))
        }
        UpstreamError::RequestBodyTooLarge => Problem::new(&BODY_TOO_LARGE, "send a smaller body").close(),
        UpstreamError::RequestBodyBroken => body::broken(&failure.error),
        UpstreamError::DotSegment => {
            Problem::new(&DOT_SEGMENT, "send the path that is meant, without . and .. (also not as %2e)")
        }
        UpstreamError::BadPath => Problem::new(&BAD_PATH, "it cannot be sent to the origin"),
        UpstreamError::Overloaded => Problem::new(&OVERLOADED, "too many requests to the origin; send it again later")
            .retry_after_s(RETRY_OVERLOADED_S),
    };
    let status = failure.cache_status(problem.name());
    with_cache_status(problem, &status)
}

/// The problem of a read that has no answer.
pub(super) fn from_read(failure: &ReadFailure) -> Problem {
    let problem = match &failure.error {
        ReadError::Refused(refusal) => from_refusal(refusal, Repeatable::Yes),
        ReadError::Invalid(_) => Problem::new(&READ_FAILED, "its statement does not work; the operator can see why"),
        ReadError::TooLarge { limit, max } => {
            let detail =
                format!("it finds more than {limit} = {max}; ask for less, or let the operator raise the limit");
            Problem::new(&READ_TOO_LARGE, detail)
                .member("limit", *limit)
                .value("max", serde_json::json!(max))
                .retry_after_s(RETRY_UNAVAILABLE_S)
        }
    };
    let status = failure.cache_status(problem.name());
    with_cache_status(problem, &status)
}

/// The same with `Cache-Status`, where there is no answer rather than a mistake of the caller.
fn with_cache_status(problem: Problem, status: &str) -> Problem {
    match HeaderValue::from_str(status) {
        Ok(status) if problem.status().is_server_error() => problem.header(CACHE_STATUS, status),
        _ => problem,
    }
}

fn unavailable(kind: &'static weir_listener::problem::ProblemType, detail: &'static str) -> Problem {
    Problem::new(kind, detail).retry_after_s(RETRY_UNAVAILABLE_S)
}

fn unknown(kind: &'static weir_listener::problem::ProblemType, repeatable: Repeatable) -> Problem {
    match repeatable {
        Repeatable::Yes => {
            let detail =
                "it may have been applied; it is safe to send the same again, with the same Idempotency-Key if any";
            Problem::new(kind, detail).retry_after_s(RETRY_UNAVAILABLE_S)
        }
        // No Retry-After: clients repeat blindly on it, and a toggle would be undone.
        Repeatable::No => Problem::new(
            kind,
            "it may have been applied: read the state before sending it again, and send an Idempotency-Key next time",
        ),
    }
}

fn rate_limited(retry_after_ms: u64, rate: RateState, limit: Option<RateLimit>) -> Problem {
    let retry_after_s = retry_after_ms.div_ceil(1000).max(1);
    let problem = Problem::new(&RATE_LIMITED, "nothing was changed; wait as long as Retry-After says")
        .retry_after_s(retry_after_s)
        .header(RATE_LIMIT, rate_limit_after(rate.remaining, retry_after_s));
    match limit {
        Some(limit) => problem.header(RATE_LIMIT_POLICY, rate_limit_policy_value(limit)),
        None => problem,
    }
}

/// 401, with what is expected instead.
pub(super) fn unauthenticated(detail: impl Into<Cow<'static, str>>, challenge: &HeaderValue) -> Problem {
    Problem::new(&UNAUTHENTICATED, detail).header(HeaderName::from_static("www-authenticate"), challenge.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_listener::problem::LISTENER_TYPES;

    /// Every refusal once. The match has no wildcard: a new refusal does not compile until it stands here.
    fn every_refusal() -> Vec<Refusal> {
        let rate = RateState { remaining: 0, reset_ms: 9_100 };
        let all = vec![
            Refusal::TargetMissing,
            Refusal::Unfit { column: "feed_like.user_id".into(), limit: "integers from 0 to 9".into() },
            Refusal::ParentMissing { column: "feed_like.user_id".into(), table: "account".into() },
            Refusal::Denied,
            Refusal::CountOverflow,
            Refusal::RateLimited { retry_after_ms: 1_001, rate, limit: None },
            Refusal::IdempotencyConflict,
            Refusal::Overloaded { queue: "batch.queue_max" },
            Refusal::JournalFull,
            Refusal::StoreUnavailable,
            Refusal::OutcomeUnknown,
            Refusal::SqlUnavailable,
            Refusal::PolicyFailed,
            Refusal::DeadlineExceeded,
            Refusal::Draining,
            Refusal::Room(RoomRefusal::QueueMissing),
            Refusal::Room(RoomRefusal::TooManyQueues),
            Refusal::Room(RoomRefusal::Closed),
            Refusal::Room(RoomRefusal::Full),
            Refusal::Room(RoomRefusal::TokenInvalid),
            Refusal::Room(RoomRefusal::TokenOfAnotherQueue),
            Refusal::Room(RoomRefusal::NotATicket),
            Refusal::Room(RoomRefusal::NotAPass),
            Refusal::Room(RoomRefusal::TokenExpired),
            Refusal::Room(RoomRefusal::TokenEnded),
            Refusal::Room(RoomRefusal::NotActive),
        ];
        for refusal in &all {
            match refusal {
                Refusal::TargetMissing
                | Refusal::Unfit { .. }
                | Refusal::ParentMissing { .. }
                | Refusal::Denied
                | Refusal::CountOverflow
                | Refusal::RateLimited { .. }
                | Refusal::IdempotencyConflict
                | Refusal::Overloaded { .. }
                | Refusal::JournalFull
                | Refusal::StoreUnavailable
                | Refusal::OutcomeUnknown
                | Refusal::SqlUnavailable
                | Refusal::PolicyFailed
                | Refusal::DeadlineExceeded
                | Refusal::Draining
                | Refusal::Room(
                    RoomRefusal::QueueMissing
                    | RoomRefusal::TooManyQueues
                    | RoomRefusal::Closed
                    | RoomRefusal::Full
                    | RoomRefusal::TokenInvalid
                    | RoomRefusal::TokenOfAnotherQueue
                    | RoomRefusal::NotATicket
                    | RoomRefusal::NotAPass
                    | RoomRefusal::TokenExpired
                    | RoomRefusal::TokenEnded
                    | RoomRefusal::NotActive,
                ) => {}
            }
        }
        all
    }

    #[test]
    fn every_refusal_has_its_status() {
        let statuses: Vec<u16> =
            every_refusal().iter().map(|refusal| from_refusal(refusal, Repeatable::Yes).status().as_u16()).collect();
        let of_rooms = [404, 503, 403, 503, 403, 403, 403, 403, 410, 410, 409];
        let others = [404, 422, 422, 403, 409, 429, 422, 503, 503, 503, 503, 503, 503, 503, 503];
        assert_eq!(statuses, [&others[..], &of_rooms].concat());
    }

    #[test]
    fn what_can_be_repeated_says_when() {
        for refusal in every_refusal() {
            let retry_after = |repeatable| {
                let reply = from_refusal(&refusal, repeatable).into_reply();
                reply.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned())
            };
            let unknown = matches!(refusal, Refusal::OutcomeUnknown | Refusal::DeadlineExceeded);
            let passing = from_refusal(&refusal, Repeatable::Yes).status() == 503 || refusal_is_limit(&refusal);
            assert_eq!(retry_after(Repeatable::Yes).is_some(), passing, "{refusal:?}");
            assert_eq!(retry_after(Repeatable::No).is_some(), passing && !unknown, "{refusal:?}");
        }
    }

    fn refusal_is_limit(refusal: &Refusal) -> bool {
        matches!(refusal, Refusal::RateLimited { .. })
    }

    #[test]
    fn a_rate_limit_says_what_is_left() {
        let rate = RateState { remaining: 0, reset_ms: 9_100 };
        let limit = Some(RateLimit { burst: 10, period_ms: 10_000 });
        let refusal = Refusal::RateLimited { retry_after_ms: 1_001, rate, limit };
        let reply = from_refusal(&refusal, Repeatable::No).into_reply();
        assert_eq!(reply.headers()["retry-after"], "2");
        assert_eq!(reply.headers()["ratelimit"], "\"toggle\";r=0;t=2", "it agrees with Retry-After");
        assert_eq!(reply.headers()["ratelimit-policy"], "\"toggle\";q=10;w=10");
    }

    #[test]
    fn a_stopping_host_closes_the_connection() {
        assert_eq!(from_refusal(&Refusal::Draining, Repeatable::No).into_reply().headers()["connection"], "close");
    }

    #[test]
    fn names_are_given_once() {
        let mut names: Vec<_> = API_TYPES.iter().chain(LISTENER_TYPES).map(|kind| kind.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        for kind in API_TYPES {
            assert_eq!(Problem::new(kind, "").status().as_u16(), kind.status);
        }
    }
}
