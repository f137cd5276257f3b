//! The time seam: what the wall clock says, and how much time has passed.
//!
//! The only file that may read the wall clock. There are two readings, and each use decides for one:
//! - [`Clock::now_ms`] is the time of events: what is written into rows, tokens and replies, and compared with times that
//!   others wrote. It jumps when somebody sets the machine's clock.
//! - [`Clock::steady_ms`] is for elapsed time: ages, times to live, leases, rates. It never jumps and never goes back, and
//!   counts on while the machine is suspended. It reads like Unix time because it began as that when the process did, so
//!   that what an earlier process wrote down can be compared with it; another host's differs.
//!
//! Deadlines within a process use `tokio::time`, which tests can pause.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Reads times in milliseconds.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's clocks.
    #[default]
    Real,
    /// A clock that moves only when a test advances it.
    Manual(Arc<Manual>),
}

/// Both readings of a clock that is moved by hand.
#[derive(Debug)]
pub struct Manual {
    wall_ms: AtomicU64,
    steady_ms: AtomicU64,
}

/// Where the steady clock began: what the wall clock said, and how long the machine had run.
struct Origin {
    wall_ms: u64,
    uptime: Duration,
}

impl Clock {
    /// A manual clock that starts at `now_ms`.
    pub fn manual(now_ms: u64) -> Self {
        Self::Manual(Arc::new(Manual { wall_ms: AtomicU64::new(now_ms), steady_ms: AtomicU64::new(now_ms) }))
    }

    /// Unix time, in milliseconds: when something happened.
    pub fn now_ms(&self) -> u64 {
        match self {
            Self::Real => wall_ms(),
            Self::Manual(manual) => manual.wall_ms.load(Ordering::SeqCst),
        }
    }

    /// A time that never jumps, in milliseconds: what was a while ago is as long ago as it seems.
    pub fn steady_ms(&self) -> u64 {
        match self {
            Self::Real => {
                static ORIGIN: OnceLock<Origin> = OnceLock::new();
                let origin = ORIGIN.get_or_init(|| Origin { wall_ms: wall_ms(), uptime: uptime() });
                let passed = uptime().saturating_sub(origin.uptime);
                origin.wall_ms.saturating_add(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
            }
            Self::Manual(manual) => manual.steady_ms.load(Ordering::SeqCst),
        }
    }

    /// How far the wall clock is ahead of the steady one, in milliseconds: changes when somebody sets it.
    pub fn ahead_ms(&self) -> i64 {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        signed(self.now_ms()) - signed(self.steady_ms())
    }

    /// Lets `ms` pass on a manual clock; a real one is not moved.
    pub fn advance_ms(&self, ms: u64) {
        if let Self::Manual(manual) = self {
            manual.wall_ms.fetch_add(ms, Ordering::SeqCst);
            manual.steady_ms.fetch_add(ms, Ordering::SeqCst);
        }
    }

    /// Sets the wall clock of a manual one forward or back, as an operator would; no time passes.
    pub fn set_by_ms(&self, ms: i64) {
        if let Self::Manual(manual) = self {
            let set = |now: u64| Some(now.saturating_add_signed(ms));
            let _ = manual.wall_ms.fetch_update(Ordering::SeqCst, Ordering::SeqCst, set);
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the one place that may")]
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// How long the machine has run, suspended or not.
#[cfg(target_os = "linux")]
fn uptime() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Since the first call.
#[cfg(not(target_os = "linux"))]
fn uptime() -> Duration {
    static BEGAN: OnceLock<std::time::Instant> = OnceLock::new();
    BEGAN.get_or_init(std::time::Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elapsed_time_knows_nothing_of_a_clock_that_is_set() {
        let clock = Clock::manual(1_000_000);
        clock.set_by_ms(-400_000);
        clock.advance_ms(7);
        assert_eq!((clock.now_ms(), clock.steady_ms(), clock.ahead_ms()), (600_007, 1_000_007, -400_000));
        clock.set_by_ms(i64::MIN);
        assert_eq!((clock.now_ms(), clock.steady_ms()), (0, 1_000_007));
    }

    #[test]
    fn the_real_steady_clock_reads_like_unix_time_and_passes() {
        let before = Clock::Real.steady_ms();
        assert!(Clock::Real.ahead_ms().abs() < 10_000, "{}", Clock::Real.ahead_ms());
        std::thread::sleep(Duration::from_millis(20));
        let passed = Clock::Real.steady_ms() - before;
        assert!((20..10_000).contains(&passed), "{passed}");
    }
}
