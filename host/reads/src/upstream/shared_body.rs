//! A body that many clients share while it arrives: one task reads it from the origin, every follower reads it at its own pace
//! and from the first byte.
//!
//! While the body may still be stored, the task waits for no follower: the size limit of stored bodies bounds its memory. Once
//! the body is larger, it takes no new followers; the bytes that all followers have read are dropped, and the task waits for
//! the slowest. A follower that stalls the others for too long is cut off.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::Stream;
use tokio::sync::Notify;
use tokio::time::Instant;

use weir_listener::reply::{CutShort, Piece};

/// Smaller pieces are gathered, so that an origin that sends single bytes takes no more memory than the bytes.
const SMALL_BYTES: usize = 16 << 10;
/// Most bytes that are gathered into one piece.
const GATHERED_BYTES: usize = 64 << 10;
/// How far the slowest follower may lag, in bytes, once the body is too large to be stored.
const LAG_BYTES_MAX: u64 = 256 << 10;

/// An arriving body.
#[derive(Debug)]
pub(super) struct SharedBody {
    state: Mutex<State>,
    /// Notified when the body has grown or ended.
    grown: Notify,
    /// Notified when a follower has read or left.
    taken: Notify,
    length: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    sealed: VecDeque<Bytes>,
    /// The number of the first piece in `sealed`.
    first: usize,
    /// The bytes after `sealed`.
    open: BytesMut,
    bytes: u64,
    /// The complete body, in place of `sealed` and `open`.
    whole: Option<Bytes>,
    end: Option<Result<(), CutShort>>,
    /// It is too large to be stored, and takes no new followers.
    is_oversized: bool,
    followers: HashMap<u64, Cursor>,
    numbers: u64,
}

/// The position of a follower: the piece, and the offset in it.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    piece: usize,
    offset: usize,
    bytes: u64,
    /// How long it has stalled the others since it had read `stalled_from` bytes.
    stalled: Duration,
    stalled_from: u64,
    is_cut: bool,
}

/// The writing end, for the task that reads the origin. A drop without an end means that the body was cut short.
pub(super) struct BodySource(Arc<SharedBody>);

/// The reading end of one client.
pub(super) struct Follower {
    body: Arc<SharedBody>,
    number: u64,
    /// Bytes to skip, then bytes to read; all of them without `left`.
    skip: u64,
    left: Option<u64>,
    is_over: bool,
}

/// The next thing for a follower.
enum Next {
    Piece(Bytes),
    End(Option<CutShort>),
    Wait,
}

impl SharedBody {
    /// A new body, with its length where that is known.
    pub(super) fn begin(length: Option<u64>) -> (BodySource, Arc<Self>) {
        let body = Arc::new(Self { state: Mutex::default(), grown: Notify::new(), taken: Notify::new(), length });
        (BodySource(Arc::clone(&body)), body)
    }

    /// Its length in bytes, where that is known in advance.
    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Adds a follower; `None` where the beginning of the body may be gone.
    pub(super) fn follow(self: &Arc<Self>) -> Option<Follower> {
        let mut state = self.state();
        if state.is_oversized {
            return None;
        }
        state.numbers += 1;
        let number = state.numbers;
        state.followers.insert(number, Cursor::default());
        drop(state);
        Some(Follower { body: Arc::clone(self), number, skip: 0, left: None, is_over: false })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, number: u64) -> Next {
        let mut state = self.state();
        let Some(mut cursor) = state.followers.get(&number).copied() else { return Next::End(None) };
        let next = state.next(&mut cursor);
        state.followers.insert(number, cursor);
        let is_oversized = state.is_oversized;
        drop(state);
        if is_oversized {
            self.taken.notify_one();
        }
        next
    }
}

impl State {
    fn next(&self, cursor: &mut Cursor) -> Next {
        if cursor.is_cut {
            return Next::End(Some(CutShort("it was told too slowly for the others who are told the same".into())));
        }
        if let Some(whole) = &self.whole {
            let from = usize::try_from(cursor.bytes).unwrap_or(usize::MAX).min(whole.len());
            let rest = whole.slice(from..);
            cursor.bytes = whole.len() as u64;
            return if rest.is_empty() { Next::End(None) } else { Next::Piece(rest) };
        }
        while let Some(piece) = cursor.piece.checked_sub(self.first).and_then(|index| self.sealed.get(index)) {
            let rest = piece.slice(cursor.offset.min(piece.len())..);
            (cursor.piece, cursor.offset) = (cursor.piece + 1, 0);
            if !rest.is_empty() {
                cursor.bytes += rest.len() as u64;
                return Next::Piece(rest);
            }
        }
        if let Some(rest) = self.open.get(cursor.offset..).filter(|rest| !rest.is_empty()) {
            let rest = Bytes::copy_from_slice(rest);
            (cursor.offset, cursor.bytes) = (self.open.len(), cursor.bytes + rest.len() as u64);
            return Next::Piece(rest);
        }
        match &self.end {
            None => Next::Wait,
            Some(end) => Next::End(end.clone().err()),
        }
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            let open = self.open.split().freeze();
            self.sealed.push_back(open);
        }
    }

    fn push(&mut self, bytes: Bytes) {
        self.bytes += bytes.len() as u64;
        if bytes.len() >= SMALL_BYTES {
            self.seal();
            self.sealed.push_back(bytes);
            return;
        }
        self.open.extend_from_slice(&bytes);
        if self.open.len() >= GATHERED_BYTES {
            self.seal();
        }
    }

    /// Drops the bytes that all followers have read. Returns the lag of the slowest.
    fn trim(&mut self) -> u64 {
        let live = || self.followers.values().filter(|cursor| !cursor.is_cut);
        let piece = live().map(|cursor| cursor.piece).min().unwrap_or(usize::MAX);
        let read = live().map(|cursor| cursor.bytes).min().unwrap_or(self.bytes);
        while self.first < piece && self.sealed.pop_front().is_some() {
            self.first += 1;
        }
        self.bytes - read
    }

    /// The followers that lag too far.
    fn slow(&self) -> impl Iterator<Item = (&u64, &Cursor)> {
        let is_behind = |cursor: &Cursor| !cursor.is_cut && self.bytes - cursor.bytes > LAG_BYTES_MAX;
        self.followers.iter().filter(move |(_, cursor)| is_behind(cursor))
    }
}

impl BodySource {
    /// Adds bytes. Returns the size of the body so far.
    pub(super) fn push(&self, bytes: Bytes) -> u64 {
        let mut state = self.0.state();
        state.push(bytes);
        let bytes = state.bytes;
        drop(state);
        self.0.grown.notify_waiters();
        bytes
    }

    /// The complete body, once all of it has arrived.
    pub(super) fn whole(&self) -> Bytes {
        let mut state = self.0.state();
        state.seal();
        if state.sealed.len() == 1 {
            return state.sealed[0].clone();
        }
        let mut whole = BytesMut::with_capacity(usize::try_from(state.bytes).unwrap_or_default());
        state.sealed.iter().for_each(|piece| whole.extend_from_slice(piece));
        whole.freeze()
    }

    /// Ends the body, which is complete, and is these bytes.
    pub(super) fn finish(self, whole: Bytes) {
        let mut state = self.0.state();
        (state.sealed, state.open, state.whole) = (VecDeque::new(), BytesMut::new(), Some(whole));
        state.end = Some(Ok(()));
    }

    /// Ends the body.
    pub(super) fn end(self, end: Result<(), CutShort>) {
        self.0.state().end = Some(end);
    }

    /// The body is too large to be stored.
    pub(super) fn set_oversized(&self) {
        let mut state = self.0.state();
        state.seal();
        state.is_oversized = true;
    }

    /// Waits until the slowest follower lags by no more than [`LAG_BYTES_MAX`]. Cuts off a follower that has stalled others for
    /// `stall_limit` while it read less than that. Returns whether there are followers.
    pub(super) async fn wait_for_slowest(&self, stall_limit: Duration) -> bool {
        loop {
            let mut taken = pin!(self.0.taken.notified());
            taken.as_mut().enable();
            let (slow, left) = {
                let mut state = self.0.state();
                if state.followers.is_empty() {
                    return false;
                }
                if state.trim() <= LAG_BYTES_MAX {
                    return true;
                }
                let slow: Vec<u64> = state.slow().map(|(number, _)| *number).collect();
                let left_of = state.slow().map(|(_, cursor)| stall_limit.saturating_sub(cursor.stalled));
                (slow, left_of.min().unwrap_or(stall_limit))
            };
            let waited = Instant::now();
            tokio::select! {
                () = taken => {}
                () = tokio::time::sleep(left) => {}
            }
            self.charge(&slow, waited.elapsed(), stall_limit);
        }
    }

    /// Charges a wait to the followers that caused it. A follower that reads a little now and then stalls the others as much as
    /// one that reads nothing, so the sum counts. A follower that has read [`LAG_BYTES_MAX`] since is merely slower, and its sum
    /// starts again.
    fn charge(&self, slow: &[u64], waited: Duration, stall_limit: Duration) {
        let mut state = self.0.state();
        let live = state.followers.values().filter(|cursor| !cursor.is_cut).count();
        // A single follower stalls no other, and the listener bounds how long its connection may stand still.
        if slow.len() < live {
            for number in slow {
                if let Some(cursor) = state.followers.get_mut(number) {
                    if cursor.bytes - cursor.stalled_from >= LAG_BYTES_MAX {
                        (cursor.stalled, cursor.stalled_from) = (Duration::ZERO, cursor.bytes);
                    }
                    cursor.stalled += waited;
                    cursor.is_cut = cursor.stalled >= stall_limit;
                }
            }
        }
        drop(state);
        self.0.grown.notify_waiters();
    }
}

impl Drop for BodySource {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if state.end.is_none() {
            state.end = Some(Err(CutShort("whoever read it was stopped".into())));
        }
        drop(state);
        self.0.grown.notify_waiters();
    }
}

impl Follower {
    /// The same follower, for this range only.
    pub(super) fn part(mut self, range: Range<usize>) -> Self {
        (self.skip, self.left) = (range.start as u64, Some(range.len() as u64));
        self
    }

    /// The body as a stream.
    pub(super) fn into_stream(self) -> impl Stream<Item = Piece> + Send {
        futures_util::stream::unfold(self, |mut follower| async move {
            let piece = follower.next().await?;
            Some((piece, follower))
        })
    }

    async fn next(&mut self) -> Option<Piece> {
        while !self.is_over && self.left != Some(0) {
            let mut grown = pin!(self.body.grown.notified());
            grown.as_mut().enable();
            match self.body.next(self.number) {
                Next::Piece(bytes) => {
                    let piece = wanted(&mut self.skip, &mut self.left, bytes);
                    if !piece.is_empty() {
                        return Some(Ok(piece));
                    }
                }
                Next::End(cut) => {
                    self.is_over = true;
                    return cut.map(Err);
                }
                Next::Wait => grown.await,
            }
        }
        None
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.body.state().followers.remove(&self.number);
        self.body.taken.notify_one();
    }
}

/// The wanted part of a piece.
fn wanted(skip: &mut u64, left: &mut Option<u64>, mut piece: Bytes) -> Bytes {
    let skipped = usize::try_from(*skip).unwrap_or(usize::MAX).min(piece.len());
    piece.advance(skipped);
    *skip -= skipped as u64;
    if let Some(left) = left {
        piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= piece.len() as u64;
    }
    piece
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    /// Reads all that is there; whether that is the end, and a cut.
    fn read(stream: &mut (impl Stream<Item = Piece> + Unpin)) -> (Vec<u8>, Option<Result<(), CutShort>>) {
        let mut all = Vec::new();
        loop {
            match stream.next().now_or_never() {
                None => return (all, None),
                Some(None) => return (all, Some(Ok(()))),
                Some(Some(Ok(bytes))) => all.extend_from_slice(&bytes),
                Some(Some(Err(cut))) => return (all, Some(Err(cut))),
            }
        }
    }

    type Follower = std::pin::Pin<Box<dyn Stream<Item = Piece> + Send>>;

    fn begin() -> (BodySource, Arc<SharedBody>, impl Fn() -> Follower) {
        let (source, body) = SharedBody::begin(None);
        let of = Arc::clone(&body);
        (source, body, move || Box::pin(of.follow().unwrap().into_stream()))
    }

    #[test]
    fn all_are_told_all_from_the_first_byte_whenever_they_join() {
        let (source, body, follow) = begin();
        let mut first = follow();
        let large = vec![b'x'; SMALL_BYTES];
        let mut expected = Vec::new();
        let mut others = Vec::new();
        for round in 0..6_u8 {
            for piece in [&b"ab"[..], &large, b"", b"c"] {
                expected.extend_from_slice(piece);
                source.push(Bytes::copy_from_slice(piece));
            }
            if round % 2 == 0 {
                others.push((follow(), Vec::new()));
            }
        }
        let part = body.follow().unwrap().part(1..SMALL_BYTES + 5);
        let mut begun = read(&mut first).0;
        assert_eq!(begun, expected);
        let whole = source.whole();
        assert_eq!(whole, expected);
        source.finish(whole);
        begun.extend(read(&mut first).0);
        assert_eq!(begun, expected);
        for (mut other, mut all) in others {
            let (rest, end) = read(&mut other);
            all.extend(rest);
            assert_eq!((all.len(), end), (expected.len(), Some(Ok(()))));
        }
        assert_eq!(read(&mut Box::pin(part.into_stream())), (expected[1..SMALL_BYTES + 5].to_vec(), Some(Ok(()))));
        assert_eq!(read(&mut follow()).0, expected, "it may be joined at its end");
    }

    #[test]
    fn what_ends_early_never_looks_whole() {
        let (source, _body, follow) = begin();
        let mut one = follow();
        source.push(Bytes::from_static(b"half"));
        drop(source);
        assert!(matches!(read(&mut one), (half, Some(Err(_))) if half == b"half"));
        assert!(matches!(read(&mut follow()), (_, Some(Err(_)))));
    }

    #[tokio::test]
    async fn what_is_too_large_waits_for_the_slowest_but_not_for_ever() {
        let (source, body, follow) = begin();
        let (mut fast, mut slow) = (follow(), follow());
        let piece = Bytes::from(vec![b'x'; 200 << 10]);
        source.push(piece.clone());
        source.set_oversized();
        assert!(body.follow().is_none());
        source.push(piece.clone());
        let stall_limit = Duration::from_millis(20);
        assert_eq!(read(&mut fast).0.len(), 2 * piece.len());
        assert!(source.wait_for_slowest(stall_limit).now_or_never().is_none(), "one is behind");
        assert_eq!(read(&mut slow).0.len(), 2 * piece.len());
        assert!(source.wait_for_slowest(stall_limit).await);
        assert!(body.state().sealed.is_empty(), "what all have been told is dropped");
        source.push(piece.clone());
        source.push(piece.clone());
        read(&mut fast);
        assert!(source.wait_for_slowest(stall_limit).await, "the slow one is torn off");
        assert!(matches!(read(&mut slow), (_, Some(Err(_)))));
        drop((slow, fast));
        assert!(!source.wait_for_slowest(stall_limit).await, "nobody follows");
    }

    #[test]
    fn who_takes_a_little_now_and_then_is_torn_off_and_who_is_merely_slower_is_not() {
        let (source, body, follow) = begin();
        let (mut fast, mut slow, mut trickle) = (follow(), follow(), follow());
        let (stall_limit, wait) = (Duration::from_secs(10), Duration::from_secs(3));
        let piece = Bytes::from(vec![b'x'; SMALL_BYTES]);
        let many = LAG_BYTES_MAX / SMALL_BYTES as u64;
        let mut rounds = 0;
        loop {
            // Far enough ahead of both, whatever they take in a round.
            for _ in 0..4 * many {
                source.push(piece.clone());
            }
            read(&mut fast);
            let behind: Vec<u64> = body.state().slow().map(|(number, _)| *number).collect();
            (0..many).for_each(|_| drop(slow.next().now_or_never()));
            let taken = trickle.next().now_or_never();
            if matches!(taken, Some(Some(Err(_)))) {
                break;
            }
            rounds += 1;
            assert!(rounds < 9, "it would go on for ever");
            source.charge(&behind, wait, stall_limit);
        }
        assert_eq!(rounds, 4, "3 s each time");
        for _ in 0..9 {
            (0..many).for_each(|_| assert!(matches!(slow.next().now_or_never(), Some(Some(Ok(_))))));
            source.charge(&[2], wait, stall_limit);
        }
        assert!(matches!(read(&mut fast), (_, None)), "the others go on");
        // A single follower stalls no other.
        drop(fast);
        (0..9).for_each(|_| source.charge(&[2], wait, stall_limit));
        assert!(matches!(slow.next().now_or_never(), Some(Some(Ok(_)))), "those who were torn off are no others");
    }
}
