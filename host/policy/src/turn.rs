//! Where a call runs that takes long: not on a thread that serves.
//!
//! Deciding takes microseconds, so a pure module is called where the request is, without a switch of threads. A guest that
//! is still running when the second tick has come gives its place up: the runtime hands the worker that it stands on to
//! another thread, which goes on serving, and the guest goes on where it is until its deadline. So a guest that loops holds a
//! serving thread for two ticks at most, and costs a guest that does not loop nothing. Does no I/O, knows no module.

use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use wasmtime::UpdateDeadline;

/// Ticks after which a guest gives its place up: the first may come at once, so that one whole one has passed.
const QUICK_TICKS: u64 = 2;
/// How long the thread that gave its worker up stands aside for the one that takes it, which is woken meanwhile. A worker
/// that no thread has taken by then is taken back.
const HANDOVER_TIME: Duration = Duration::from_millis(1);
/// Handovers that are tried for one call.
const HANDOVERS_MAX: u32 = 2;

/// What is left of a call's time, in ticks of the engine.
#[derive(Debug, Default)]
pub(super) struct Turn {
    ticks_left: u64,
    handovers_left: u32,
}

impl Turn {
    /// Of a call that may take so many ticks. Also says after how many it is asked first.
    pub(super) fn begin(ticks: u64) -> (Self, u64) {
        let first = ticks.min(QUICK_TICKS);
        (Self { ticks_left: ticks - first, handovers_left: HANDOVERS_MAX }, first)
    }

    /// The ticks that were given have passed, and the guest runs on: where, and for how long.
    pub(super) fn go_on(&mut self) -> UpdateDeadline {
        if self.ticks_left == 0 {
            return UpdateDeadline::Interrupt;
        }
        if let Some(left) = self.handovers_left.checked_sub(1) {
            self.handovers_left = left;
            aside(|| std::thread::sleep(HANDOVER_TIME));
        }
        // As long as another handover is to be tried, it is asked again soon.
        let ticks = if self.handovers_left > 0 { self.ticks_left.min(QUICK_TICKS) } else { self.ticks_left };
        self.ticks_left -= ticks;
        UpdateDeadline::Continue(ticks)
    }
}

/// Does what takes long, or waits, where it stands, while another thread serves in its place. Where there is no other (a
/// runtime of one thread, a thread of no runtime) it is just done.
pub(super) fn aside<R>(work: impl FnOnce() -> R) -> R {
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(total: u64) -> Vec<u64> {
        let (mut turn, first) = Turn::begin(total);
        let mut given = vec![first];
        while let UpdateDeadline::Continue(ticks) = turn.go_on() {
            given.push(ticks);
        }
        given
    }

    #[test]
    fn a_call_has_as_many_ticks_as_it_may_take() {
        assert_eq!(ticks(11), [2, 2, 7]);
        assert_eq!(ticks(3), [2, 1]);
        assert_eq!((ticks(2), ticks(1)), (vec![2], vec![1]));
        assert!(matches!(Turn::default().go_on(), UpdateDeadline::Interrupt), "the start of an instance has no turn");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn others_are_served_while_somebody_stands_aside() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let waits = tokio::spawn(async move {
            tokio::spawn(async move { sender.send("served") });
            // The only worker would wait for itself.
            aside(|| receiver.recv_timeout(Duration::from_secs(20)))
        });
        assert_eq!(waits.await.unwrap(), Ok("served"));
    }
}
