//! Circuit breakers that pause calls to a failing module: one per function and kind, for as long as the module lives.
//!
//! A breaker opens when calls fail one after the other, or when most calls within a window fail. While it is open, the
//! guest is not called and the fallback answers at once. After a time, the breaker lets one call through: if it
//! succeeds, the breaker closes; if it fails, the breaker stays open for twice as long, up to a bound. A healthy module
//! costs one atomic load.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::gauge;
use serde::Serialize;

use super::call::Called;
use super::instance::{CallFailure, Cause};
use super::interface::Interface;
use weir_core::clock::Clock;
use weir_core::config::BreakerConfig;
use weir_core::telemetry::POLICY_BREAKERS_OPEN;

/// A call that was let through and has not come back after so long is taken for lost.
const TRIAL_TIME_MAX: Duration = Duration::from_secs(60);

/// What operators see of a breaker that is not closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpenBreaker {
    /// The interface.
    pub interface: &'static str,
    /// Its function, which is not called.
    pub function: &'static str,
    /// The kind that it is not called for.
    pub kind: String,
    /// `open`, or `half-open` while one call is tried.
    pub state: &'static str,
    /// Since when it has not been closed, in Unix milliseconds.
    pub since_ms: u64,
    /// When the next call is let through, in milliseconds from now.
    pub retry_in_ms: u64,
    /// Why it opened, and what the last call did.
    pub reason: String,
}

/// A breaker has opened or closed: for the operators' events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) what: &'static str,
    pub(super) reason: String,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Closed,
    Open {
        since_ms: u64,
        until: Instant,
    },
    /// One call is tried.
    HalfOpen {
        since_ms: u64,
        began: Instant,
    },
}

/// Of one function and kind, since its first failure.
struct Breaker {
    phase: Phase,
    window_began: Instant,
    calls: u64,
    failures: u64,
    in_a_row: u64,
    /// How long it was open last; zero before it ever was.
    backoff: Duration,
    /// Until when it remembers how long it was open.
    remembers_until: Instant,
    reason: String,
}

impl Breaker {
    fn fresh(now: Instant) -> Self {
        Self {
            phase: Phase::Closed,
            window_began: now,
            calls: 0,
            failures: 0,
            in_a_row: 0,
            backoff: Duration::ZERO,
            remembers_until: now,
            reason: String::new(),
        }
    }

    fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    fn open(&mut self, config: &BreakerConfig, since_ms: u64, now: Instant) {
        let (least, most) =
            (Duration::from_millis(config.backoff_ms_min), Duration::from_millis(config.backoff_ms_max));
        let remembered = if now <= self.remembers_until { self.backoff * 2 } else { Duration::ZERO };
        self.backoff = remembered.clamp(least, most);
        self.phase = Phase::Open { since_ms, until: now + self.backoff };
    }

    /// Why it must open, if it must.
    fn verdict(&self, config: &BreakerConfig) -> Option<String> {
        let (failures, calls) = (self.failures, self.calls);
        if self.in_a_row > config.failures_max {
            Some(format!("{} calls in a row failed", self.in_a_row))
        } else if failures > config.failures_max && failures.saturating_mul(2) > calls {
            Some(format!("{failures} of {calls} calls failed within {} ms", config.window_ms))
        } else {
            None
        }
    }
}

/// Interface, function and kind.
type Key = (Interface, &'static str, String);

fn key(called: Called<'_>) -> Key {
    (called.interface, called.function, called.kind.to_owned())
}

/// All breakers of one module.
pub(super) struct Breakers {
    config: BreakerConfig,
    /// When one opens, for people.
    clock: Clock,
    /// Entries of `by_call`: none while all is well.
    troubled: AtomicUsize,
    by_call: Mutex<BTreeMap<Key, Breaker>>,
    noticed: AtomicUsize,
    notices: Mutex<Vec<Notice>>,
}

impl Breakers {
    pub(super) fn new(config: &BreakerConfig, clock: Clock) -> Self {
        Self {
            config: config.clone(),
            clock,
            troubled: AtomicUsize::new(0),
            by_call: Mutex::default(),
            noticed: AtomicUsize::new(0),
            notices: Mutex::default(),
        }
    }

    /// Whether a call has failed not long ago.
    pub(super) fn is_troubled(&self) -> bool {
        self.troubled.load(Ordering::Relaxed) > 0
    }

    /// Whether a call may be made, else why not. A caller that is admitted must record the outcome.
    pub(super) fn admit(&self, called: Called<'_>) -> Result<(), CallFailure> {
        self.admit_at(called, Instant::now)
    }

    fn admit_at(&self, called: Called<'_>, now: impl FnOnce() -> Instant) -> Result<(), CallFailure> {
        if !self.is_troubled() {
            return Ok(());
        }
        let mut by_call = self.lock();
        let Some(breaker) = by_call.get_mut(&key(called)) else { return Ok(()) };
        let now = now();
        let (since_ms, left) = match breaker.phase {
            Phase::Closed => return Ok(()),
            Phase::Open { since_ms, until } => (since_ms, until.saturating_duration_since(now)),
            Phase::HalfOpen { since_ms, began } => (since_ms, (began + TRIAL_TIME_MAX).saturating_duration_since(now)),
        };
        if left.is_zero() {
            breaker.phase = Phase::HalfOpen { since_ms, began: now };
            return Ok(());
        }
        Err(CallFailure { cause: Cause::Open, reason: format!("not called, because {}", breaker.reason) })
    }

    /// Notes what became of a call: `failure` where it was the module's.
    pub(super) fn note(&self, called: Called<'_>, failure: Option<&CallFailure>) {
        self.note_at(called, failure, Instant::now);
    }

    /// A call that was let through was not made after all, for want of an instance: the next one may be.
    pub(super) fn give_back(&self, called: Called<'_>) {
        if let Some(breaker) = self.lock().get_mut(&key(called))
            && let Phase::HalfOpen { since_ms, .. } = breaker.phase
        {
            breaker.phase = Phase::Open { since_ms, until: Instant::now() };
        }
    }

    fn note_at(&self, called: Called<'_>, failure: Option<&CallFailure>, now: impl FnOnce() -> Instant) {
        if failure.is_none() && !self.is_troubled() {
            return;
        }
        let (mut by_call, now, key) = (self.lock(), now(), key(called));
        match failure {
            Some(failure) => {
                let breaker = by_call.entry(key).or_insert_with(|| Breaker::fresh(now));
                self.note_failure(breaker, called, failure, now);
            }
            None => {
                let is_over = by_call.get_mut(&key).is_some_and(|of| self.note_success(of, called, now));
                if is_over {
                    by_call.remove(&key);
                }
            }
        }
        self.troubled.store(by_call.len(), Ordering::Relaxed);
    }

    fn note_failure(&self, breaker: &mut Breaker, called: Called<'_>, failure: &CallFailure, now: Instant) {
        self.turn_window(breaker, now);
        breaker.calls += 1;
        breaker.failures += 1;
        breaker.in_a_row += 1;
        let last = format!("the last with {}: {}", failure.cause.as_str(), failure.reason);
        match breaker.phase {
            // Of a call that began before it opened.
            Phase::Open { .. } => {}
            Phase::HalfOpen { since_ms, .. } => {
                breaker.remembers_until = now;
                breaker.open(&self.config, since_ms, now);
                breaker.reason = format!("{} calls in a row failed, {last}", breaker.in_a_row);
            }
            Phase::Closed => {
                let Some(verdict) = breaker.verdict(&self.config) else { return };
                breaker.open(&self.config, self.clock.now_ms(), now);
                breaker.reason = format!("{verdict}, {last}");
                of(called).increment(1.0);
                let (ms, max) = (breaker.backoff.as_millis(), self.config.failures_max);
                self.notice(
                    "breaker-opened",
                    called,
                    &format!("{} (policy.breaker.failures_max = {max}); not called for {ms} ms", breaker.reason),
                );
            }
        }
    }

    /// Whether the trouble is over.
    fn note_success(&self, breaker: &mut Breaker, called: Called<'_>, now: Instant) -> bool {
        match breaker.phase {
            // Of a call that began before it opened.
            Phase::Open { .. } => return false,
            Phase::HalfOpen { .. } => {
                breaker.phase = Phase::Closed;
                breaker.remembers_until = now + breaker.backoff;
                (breaker.window_began, breaker.calls, breaker.failures) = (now, 0, 0);
                of(called).decrement(1.0);
                self.notice("breaker-closed", called, "a call succeeded");
            }
            Phase::Closed => {}
        }
        breaker.in_a_row = 0;
        let failures = breaker.failures;
        let is_next_window = self.turn_window(breaker, now);
        breaker.calls += 1;
        is_next_window && failures == 0 && now >= breaker.remembers_until
    }

    /// Begins the next window where this one is over; whether it was.
    fn turn_window(&self, breaker: &mut Breaker, now: Instant) -> bool {
        let is_over =
            now.saturating_duration_since(breaker.window_began) >= Duration::from_millis(self.config.window_ms);
        if is_over {
            (breaker.window_began, breaker.calls, breaker.failures) = (now, 0, 0);
        }
        is_over
    }

    fn notice(&self, what: &'static str, called: Called<'_>, reason: &str) {
        let Called { interface, function, kind } = called;
        let reason = format!("{}.{function} of {kind}: {reason}", interface.name());
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).push(Notice { what, reason });
        self.noticed.fetch_add(1, Ordering::Relaxed);
    }

    /// What has happened since this was asked last.
    pub(super) fn take_notices(&self) -> Vec<Notice> {
        if self.noticed.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        self.noticed.store(0, Ordering::Relaxed);
        std::mem::take(&mut *notices)
    }

    /// All that are not closed.
    pub(super) fn open(&self) -> Vec<OpenBreaker> {
        if !self.is_troubled() {
            return Vec::new();
        }
        let now = Instant::now();
        let shown = |((interface, function, kind), breaker): (&Key, &Breaker)| {
            let (state, since_ms, left) = match breaker.phase {
                Phase::Closed => return None,
                Phase::Open { since_ms, until } => ("open", since_ms, until.saturating_duration_since(now)),
                Phase::HalfOpen { since_ms, .. } => ("half-open", since_ms, Duration::ZERO),
            };
            Some(OpenBreaker {
                interface: interface.name(),
                function,
                kind: kind.clone(),
                state,
                since_ms,
                retry_in_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
                reason: breaker.reason.clone(),
            })
        };
        self.lock().iter().filter_map(shown).collect()
    }

    /// Forgets everything: an operator wants the module to be called.
    pub(super) fn reset(&self) {
        let mut by_call = self.lock();
        let open = by_call.iter().filter(|(_, breaker)| !breaker.is_closed());
        open.for_each(|((interface, function, kind), _)| {
            of(Called { interface: *interface, function, kind }).decrement(1.0);
        });
        by_call.clear();
        self.troubled.store(0, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Breaker>> {
        self.by_call.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The metric counts open breakers of modules that are loaded.
impl Drop for Breakers {
    fn drop(&mut self) {
        self.reset();
    }
}

fn of(called: Called<'_>) -> metrics::Gauge {
    let Called { interface, function, kind } = called;
    let interface = interface.name();
    gauge!(POLICY_BREAKERS_OPEN, "interface" => interface, "function" => function, "kind" => kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(kind: &str) -> Called<'_> {
        Called { interface: Interface::Toggle, function: "decide", kind }
    }

    fn failure() -> CallFailure {
        CallFailure { cause: Cause::Trap, reason: "unreachable".into() }
    }

    struct Tested {
        breakers: Breakers,
        now: Instant,
    }

    impl Tested {
        fn new() -> Self {
            let config = BreakerConfig { failures_max: 2, window_ms: 1_000, backoff_ms_min: 100, backoff_ms_max: 350 };
            Self { breakers: Breakers::new(&config, Clock::Real), now: Instant::now() }
        }

        fn later(&mut self, ms: u64) {
            self.now += Duration::from_millis(ms);
        }

        /// Whether the call was made.
        fn call(&self, kind: &str, succeeds: bool) -> bool {
            let failure = (!succeeds).then(failure);
            let made = self.breakers.admit_at(decide(kind), || self.now).is_ok();
            if made {
                self.breakers.note_at(decide(kind), failure.as_ref(), || self.now);
            }
            made
        }

        fn notices(&self) -> Vec<&'static str> {
            self.breakers.take_notices().iter().map(|notice| notice.what).collect()
        }
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_backs_off_for_ever() {
        let mut tested = Tested::new();
        assert!((0..3).all(|_| tested.call("a", false)));
        assert!(!tested.call("a", true) && tested.call("b", true), "another kind is called");
        assert_eq!(tested.notices(), ["breaker-opened"]);
        for backoff_ms in [100, 200, 350, 350, 350] {
            tested.later(backoff_ms - 1);
            assert!(!tested.call("a", true), "{backoff_ms}");
            tested.later(1);
            assert!(tested.call("a", false), "{backoff_ms}: one is tried");
        }
        let open = tested.breakers.open();
        assert_eq!((open.len(), open[0].state, open[0].kind.as_str()), (1, "open", "a"));
        assert!(open[0].reason.contains("8 calls in a row failed, the last with trap: unreachable"), "{open:?}");
        tested.later(350);
        assert!(tested.call("a", true) && tested.call("a", true));
        assert_eq!((tested.notices(), tested.breakers.open().len()), (vec!["breaker-closed"], 0));
    }

    #[test]
    fn one_call_is_tried_at_a_time() {
        let mut tested = Tested::new();
        assert!((0..3).all(|_| tested.call("a", false)));
        tested.later(100);
        let admitted = |tested: &Tested| tested.breakers.admit_at(decide("a"), || tested.now).is_ok();
        assert!(admitted(&tested) && !admitted(&tested));
        tested.later(60_000);
        assert!(admitted(&tested), "the one that was tried is lost");
    }

    #[test]
    fn trouble_that_comes_back_soon_waits_for_longer_and_else_is_forgotten() {
        let mut tested = Tested::new();
        assert!((0..3).all(|_| tested.call("a", false)));
        tested.later(100);
        assert!(tested.call("a", true));
        assert!((0..3).all(|_| tested.call("a", false)));
        tested.later(100);
        assert!(!tested.call("a", true), "200 ms this time");
        tested.later(100);
        assert!(tested.call("a", true));
        for _ in 0..3 {
            tested.later(1_000);
            assert!(tested.call("a", true));
        }
        assert!(!tested.breakers.is_troubled());
        assert!((0..3).all(|_| tested.call("a", false)));
        tested.later(100);
        assert!(tested.call("a", true), "100 ms again");
    }

    #[test]
    fn it_opens_when_most_calls_fail_and_not_when_few_do() {
        let tested = Tested::new();
        assert!((0..30).all(|n| tested.call("a", n % 3 > 0)));
        let tested = Tested::new();
        let made = (0..30).filter(|n| tested.call("a", n % 3 == 2)).count();
        assert_eq!(made, 4, "three of four failed");
    }
}
