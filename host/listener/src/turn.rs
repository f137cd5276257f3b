//! The one timer of a connection: how long it may idle or take for a head, and when the request under way is looked
//! after.
//!
//! A timer per request would be set and cleared and almost never fire, which costs more than reading the head. This
//! timer is left alone while the connection is on time. When it fires, it checks the progress and is set to the next
//! time at which the connection would be late.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep};

use super::interim::{Interim, Interims};

/// Shortest pause between two looks at a late request.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(5);
/// The pause between two looks at a late request is this fraction of the deadline (1/n).
const LOOK_AGAIN_SHARE: u32 = 20;

/// Whose turn it is on a connection: the peer's, to send a head, or the handler's, to answer.
#[derive(Debug)]
pub(super) struct Turn {
    origin: Instant,
    /// Since when, in milliseconds after `origin`.
    since_ms: AtomicU64,
    phase: AtomicU8,
    /// A head has begun and not ended.
    in_head: AtomicBool,
    interims: Interims,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The rest of a head, or the first one of a connection.
    Head,
    /// The start of the next head.
    Idle,
    /// The answer.
    Handler,
}

/// How a stretch of a connection's life ended.
pub(super) enum End<T> {
    /// The connection itself ended.
    Connection(T),
    /// The peer idled, or did not send a whole head in time.
    Late,
    /// The awaited event came.
    Event,
    /// The connection was evicted to make room for another one.
    Evicted,
}

/// How long each may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// A head, from its first byte; the first one of a connection from when that was accepted.
    pub(super) head: Duration,
    /// From the end of a reply to the first byte of the next head.
    pub(super) idle: Duration,
    /// After this the handler's future is polled again and again, so that it sees its own deadline.
    pub(super) request: Duration,
}

impl Turn {
    /// It is the peer's.
    pub(super) fn new() -> Self {
        Self {
            origin: Instant::now(),
            since_ms: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Head as u8),
            in_head: AtomicBool::new(false),
            interims: Interims::default(),
        }
    }

    /// A request is handled until the returned value is dropped. `may_hint`: its client knows interim answers.
    pub(super) fn handle(turn: &Arc<Self>, may_hint: bool) -> Handling {
        let begun = Instant::now();
        turn.begin(Phase::Handler, begun);
        let request = turn.interims.begin(may_hint);
        Handling { turn: Arc::clone(turn), request, begun, ended: OnceLock::new() }
    }

    /// The interim answers of this connection.
    pub(super) fn interims(&self) -> &Interims {
        &self.interims
    }

    /// Notes whether a head has begun and not ended: it has a time of its own from then on.
    pub(super) fn note_head(&self, in_head: bool) {
        self.in_head.store(in_head, Ordering::Relaxed);
        if in_head && self.phase() == Phase::Idle {
            self.begin(Phase::Head, Instant::now());
        }
    }

    /// Whether a head has begun and not ended.
    pub(super) fn is_in_head(&self) -> bool {
        self.in_head.load(Ordering::Relaxed)
    }

    fn begin(&self, phase: Phase, now: Instant) {
        let since_ms = u64::try_from((now - self.origin).as_millis()).unwrap_or(u64::MAX);
        self.since_ms.store(since_ms, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            phase if phase == Phase::Head as u8 => Phase::Head,
            phase if phase == Phase::Idle as u8 => Phase::Idle,
            _ => Phase::Handler,
        }
    }

    fn is_handlers(&self) -> bool {
        self.phase() == Phase::Handler
    }

    /// Since when this connection has waited for a head from its peer, in milliseconds of one clock for all
    /// connections; `None` while a request is handled.
    pub(super) fn waits_since_ms(&self) -> Option<u64> {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        let before = self.origin.saturating_duration_since(*ORIGIN.get_or_init(|| self.origin));
        let since_ms = u64::try_from(before.as_millis()).unwrap_or(u64::MAX);
        (!self.is_handlers()).then(|| since_ms.saturating_add(self.since_ms.load(Ordering::Relaxed)))
    }

    /// When it will be late.
    fn due(&self, times: Times) -> Instant {
        let since = self.origin + Duration::from_millis(self.since_ms.load(Ordering::Relaxed));
        since
            + match self.phase() {
                Phase::Head => times.head,
                Phase::Idle => times.idle,
                Phase::Handler => times.request,
            }
    }
}

/// A request is being handled, for as long as this is there.
pub struct Handling {
    turn: Arc<Turn>,
    request: u64,
    begun: Instant,
    /// When the answer was there, where that is when the turn ends.
    ended: OnceLock<Instant>,
}

impl Handling {
    /// Time from start to answer. Reads the clock once, for both the metrics and the turn.
    pub fn end(&self) -> Duration {
        *self.ended.get_or_init(Instant::now) - self.begun
    }

    /// When it began.
    pub fn begun(&self) -> std::time::Instant {
        self.begun.into_std()
    }

    /// Where interim answers to this request go.
    pub fn interim(&self) -> Interim {
        Interim::new(&self.turn, self.request)
    }

    /// The answer is there: no interim one goes before it any more.
    pub(super) fn answered(&self) {
        self.turn.interims.close();
    }

    /// It goes on although the answer's head is there.
    pub(super) fn go_on(&mut self) {
        self.ended.take();
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.turn.begin(Phase::Idle, self.ended.get().copied().unwrap_or_else(Instant::now));
    }
}

/// Drives a connection until it ends, is late, or `event` comes. `is_near` says cheaply that the event may have come;
/// until it does, the event is looked at once, so that it can wake the task, which keeps its waker for life.
pub(super) async fn drive<C: Future>(
    mut connection: Pin<&mut C>,
    (event, is_near): (impl Future<Output = ()>, impl Fn() -> bool),
    (turn, times): (&Turn, Times),
    mut timer: Pin<&mut Sleep>,
) -> End<C::Output> {
    // Both without tokio's budget: where that is spent they would not be registered, and nothing would look again.
    let mut event = pin!(unconstrained(event));
    // Timer and event have the task's waker.
    let mut is_registered = false;
    // What the timer is set for.
    let mut was = turn.phase();
    timer.as_mut().reset(turn.due(times));
    let mut looked_at = turn.origin;
    let look_again = (times.request / LOOK_AGAIN_SHARE).max(LOOK_AGAIN_MIN);
    poll_fn(|context| {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                return Poll::Ready(End::Connection(ended));
            }
            if (!is_registered || is_near()) && event.as_mut().poll(context).is_ready() {
                return Poll::Ready(End::Event);
            }
            let phase = turn.phase();
            let is_later = match (was, phase) {
                // From one head to the next it can only be due later, unless a head has begun while nothing was waited
                // for.
                (Phase::Idle, Phase::Head) | (Phase::Handler, _) | (_, Phase::Handler) => false,
                _ => true,
            };
            if is_registered && is_later && !timer.is_elapsed() {
                return Poll::Pending;
            }
            let due = turn.due(times).max(looked_at + look_again);
            if due < timer.deadline() {
                timer.as_mut().reset(due);
                was = phase;
            }
            is_registered = true;
            ready!(pin!(unconstrained(timer.as_mut())).poll(context));
            looked_at = Instant::now();
            let due = turn.due(times);
            if due <= looked_at && !turn.is_handlers() {
                return Poll::Ready(End::Late);
            }
            timer.as_mut().reset(due.max(looked_at + look_again));
            was = turn.phase();
        }
    })
    .await
}
