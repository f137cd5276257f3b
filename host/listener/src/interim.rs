//! Interim answers (1xx) that an origin sends before its answer, on their way to the client.
//!
//! hyper's server cannot send one: a service answers once. But every byte that hyper writes goes through the wire,
//! which knows when hyper holds nothing back. The wire writes interim answers there, before the request's final answer
//! begins. An interim answer belongs to one request. It is dropped if that request has already been answered, or if the
//! connection has no room for it. Dropping is safe: interim answers are hints.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use hyper::StatusCode;
use hyper::header::HeaderMap;

use super::turn::Turn;

/// Bytes of interim answers that may wait for the connection; further ones are dropped.
const BYTES_MAX: usize = 16 << 10;
/// Interim answers to one request; further ones are dropped.
const COUNT_MAX: u32 = 16;

/// Where the interim answers to one request go.
#[derive(Clone)]
pub struct Interim {
    turn: Arc<Turn>,
    request: u64,
}

/// The interim answers of one connection.
#[derive(Debug, Default)]
pub(super) struct Interims {
    /// The number of the current request, and which interim answers it may still get. Only the connection's task writes
    /// it. Interim answers of any other request are dropped.
    state: AtomicU64,
    has_some: AtomicBool,
    waiting: Mutex<Waiting>,
}

/// The request speaks HTTP/1.1, and its answer has not been given.
const OPEN: u64 = 1;
/// Its answer has been given, and hyper has not written its head.
const HEAD_DUE: u64 = 2;
/// Bits of both.
const NUMBER_SHIFT: u32 = 2;

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    request: u64,
    count: u32,
    /// Of the connection's task.
    waker: Option<Waker>,
}

impl Interim {
    pub(super) fn new(turn: &Arc<Turn>, request: u64) -> Self {
        Self { turn: Arc::clone(turn), request }
    }

    /// Sends an interim answer, but for 101, which is none. `headers` has nothing of one hop.
    pub fn send(&self, status: StatusCode, headers: &HeaderMap) {
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        let mut head = format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default());
        // Writing into a `String` cannot fail. A header whose value is not text is left out.
        for (name, value) in headers {
            if let Ok(value) = value.to_str() {
                let _ = write!(head, "{name}: {value}\r\n");
            }
        }
        head.push_str("\r\n");
        self.turn.interims().push(self.request, head.as_bytes());
    }
}

impl Interims {
    /// A request begins; its number.
    pub(super) fn begin(&self, may_be_told: bool) -> u64 {
        let request = (self.state.load(Ordering::Relaxed) >> NUMBER_SHIFT) + 1;
        self.state.store(request << NUMBER_SHIFT | u64::from(may_be_told), Ordering::Release);
        request
    }

    /// The answer is there: what is waiting goes before it or not at all.
    pub(super) fn close(&self) {
        let state = self.state.load(Ordering::Relaxed);
        if state & OPEN != 0 {
            self.state.store(state & !OPEN | HEAD_DUE, Ordering::Release);
        }
    }

    fn push(&self, request: u64, head: &[u8]) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.state.load(Ordering::Acquire) != request << NUMBER_SHIFT | OPEN {
            return;
        }
        if waiting.request != request {
            (waiting.request, waiting.count) = (request, 0);
            waiting.bytes.clear();
        }
        if waiting.count == COUNT_MAX || waiting.bytes.len() + head.len() > BYTES_MAX {
            return;
        }
        waiting.count += 1;
        waiting.bytes.extend_from_slice(head);
        self.has_some.store(true, Ordering::Release);
        let waker = waiting.waker.clone();
        drop(waiting);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whose task writes them.
    pub(super) fn set_waker(&self, waker: &Waker) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).waker = Some(waker.clone());
    }

    /// What is to be written now, before what hyper writes.
    pub(super) fn take(&self, moment: Moment) -> Option<Vec<u8>> {
        let state = self.state.load(Ordering::Relaxed);
        let is_write = moment != Moment::After;
        if is_write && state & HEAD_DUE != 0 {
            // Whatever it is that hyper writes, the head is in it or behind it: from now on nothing may come between.
            self.state.store(state & !HEAD_DUE, Ordering::Release);
        }
        if !self.has_some.load(Ordering::Acquire) {
            return None;
        }
        let keeps = match moment {
            // The end of the answer before.
            Moment::Within => state & OPEN != 0,
            // It goes before the head.
            Moment::After => state & HEAD_DUE != 0,
            Moment::Before => false,
        };
        if keeps {
            return None;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.has_some.store(false, Ordering::Release);
        let bytes = std::mem::take(&mut waiting.bytes);
        let fits = match moment {
            Moment::Within => false,
            Moment::After => state & OPEN != 0,
            Moment::Before => state & (OPEN | HEAD_DUE) != 0,
        };
        let is_its = waiting.request == state >> NUMBER_SHIFT;
        (fits && is_its && !bytes.is_empty()).then_some(bytes)
    }
}

/// When the wire asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// hyper writes, and had nothing left to write before: an answer begins, or a piece of one goes on whose head was
    /// written.
    Before,
    /// hyper has written everything it had.
    After,
    /// hyper writes what was left.
    Within,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.append("link", "</a.css>; rel=preload".parse().unwrap());
        headers.append("link", "</b.js>; rel=preload".parse().unwrap());
        headers
    }

    const HINTS: &[u8] =
        b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.js>; rel=preload\r\n\r\n";

    #[test]
    fn a_hint_is_told_of_its_own_request_before_its_answer() {
        let turn = Arc::new(Turn::new());
        let interims = turn.interims();
        let first = Interim::new(&turn, interims.begin(true));
        first.send(StatusCode::SWITCHING_PROTOCOLS, &hints());
        first.send(StatusCode::OK, &hints());
        assert_eq!(interims.take(Moment::After), None);
        first.send(StatusCode::EARLY_HINTS, &hints());
        assert_eq!(interims.take(Moment::Within), None, "the end of the answer before goes first");
        assert_eq!(interims.take(Moment::After).as_deref(), Some(HINTS));
        assert_eq!(interims.take(Moment::After), None, "once");
        first.send(StatusCode::EARLY_HINTS, &hints());
        interims.close();
        first.send(StatusCode::EARLY_HINTS, &hints());
        assert_eq!(interims.take(Moment::Before).as_deref(), Some(HINTS), "what came before the answer");
        let second = Interim::new(&turn, interims.begin(true));
        first.send(StatusCode::EARLY_HINTS, &hints());
        assert_eq!(interims.take(Moment::After), None, "the first one is over");
        second.send(StatusCode::PROCESSING, &HeaderMap::new());
        interims.close();
        assert_eq!(interims.take(Moment::Within), None, "the head is behind the end of the answer before");
        assert_eq!(interims.take(Moment::Before), None, "and now it may be written");
        let third = Interim::new(&turn, interims.begin(true));
        third.send(StatusCode::PROCESSING, &HeaderMap::new());
        interims.close();
        assert_eq!(interims.take(Moment::After), None, "it waits for the head");
        assert!(interims.take(Moment::Before).is_some());
        let old = Interim::new(&turn, interims.begin(false));
        old.send(StatusCode::EARLY_HINTS, &hints());
        assert_eq!(interims.take(Moment::Before), None, "HTTP/1.0 knows none");
    }

    #[test]
    fn hints_are_bounded() {
        let turn = Arc::new(Turn::new());
        let interim = Interim::new(&turn, turn.interims().begin(true));
        (0..100).for_each(|_| interim.send(StatusCode::EARLY_HINTS, &hints()));
        let told = turn.interims().take(Moment::After).unwrap();
        assert_eq!(told.len(), HINTS.len() * COUNT_MAX as usize);
    }
}
