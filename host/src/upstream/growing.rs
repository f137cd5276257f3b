//! A body that is told while it comes: one reads it from the origin, all who asked for it follow, each at a pace of its own
//! and from the first byte.
//!
//! While the body may still be kept nobody waits for anybody, because its bytes are bounded by what is kept. One that grows
//! too large for that is no longer joined; what all have been told is dropped, and the reader waits for the slowest. Who
//! holds the others up for too long is torn off.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::Stream;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::listener::reply::{CutShort, Piece};

/// Pieces smaller than this are gathered, so that an origin that sends single bytes takes no more memory than they have.
const SMALL_BYTES: usize = 16 << 10;
/// Up to so many bytes.
const GATHERED_BYTES: usize = 64 << 10;
/// How far the slowest may be behind, in bytes, once the body is too large to be kept.
const BEHIND_BYTES_MAX: u64 = 256 << 10;

/// A body on its way.
#[derive(Debug)]
pub(super) struct Growing {
    state: Mutex<State>,
    /// There is more of it, or it has ended.
    grown: Notify,
    /// Somebody was told some of it, or has left.
    taken: Notify,
    length: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    sealed: VecDeque<Bytes>,
    /// The number of the first of `sealed`.
    first: usize,
    /// What comes after `sealed`.
    open: BytesMut,
    bytes: u64,
    /// All of it, in the place of `sealed` and `open`.
    whole: Option<Bytes>,
    end: Option<Result<(), CutShort>>,
    /// It is too large to be kept: nobody joins any more.
    is_passing: bool,
    followers: HashMap<u64, Place>,
    numbers: u64,
}

/// How far one has got: in which piece, and where in it.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    piece: usize,
    offset: usize,
    bytes: u64,
    /// How long others have waited for it since it had taken so many bytes.
    cost: Duration,
    cost_from: u64,
    is_cut: bool,
}

/// The one who reads it from the origin. Dropped without an end, the body was cut short.
pub(super) struct Source(Arc<Growing>);

/// One who is told it.
pub(super) struct Follower {
    growing: Arc<Growing>,
    number: u64,
    /// Bytes that it is not told, before and behind what it wants.
    skip: u64,
    left: Option<u64>,
    is_over: bool,
}

/// What there is for a follower.
enum Next {
    Piece(Bytes),
    End(Option<CutShort>),
    Wait,
}

impl Growing {
    /// Begins one, with its length where that is known.
    pub(super) fn begin(length: Option<u64>) -> (Source, Arc<Self>) {
        let growing = Arc::new(Self { state: Mutex::default(), grown: Notify::new(), taken: Notify::new(), length });
        (Source(Arc::clone(&growing)), growing)
    }

    /// Its length in bytes, where that is known beforehand.
    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Joins it; `None` where its beginning may be gone.
    pub(super) fn follow(self: &Arc<Self>) -> Option<Follower> {
        let mut state = self.state();
        if state.is_passing {
            return None;
        }
        state.numbers += 1;
        let number = state.numbers;
        state.followers.insert(number, Place::default());
        drop(state);
        Some(Follower { growing: Arc::clone(self), number, skip: 0, left: None, is_over: false })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, number: u64) -> Next {
        let mut state = self.state();
        let Some(mut place) = state.followers.get(&number).copied() else { return Next::End(None) };
        let next = state.next(&mut place);
        state.followers.insert(number, place);
        let is_passing = state.is_passing;
        drop(state);
        if is_passing {
            self.taken.notify_one();
        }
        next
    }
}

impl State {
    fn next(&self, place: &mut Place) -> Next {
        if place.is_cut {
            return Next::End(Some(CutShort("it was told too slowly for the others who are told the same".into())));
        }
        if let Some(whole) = &self.whole {
            let from = usize::try_from(place.bytes).unwrap_or(usize::MAX).min(whole.len());
            let rest = whole.slice(from..);
            place.bytes = whole.len() as u64;
            return if rest.is_empty() { Next::End(None) } else { Next::Piece(rest) };
        }
        while let Some(piece) = place.piece.checked_sub(self.first).and_then(|index| self.sealed.get(index)) {
            let rest = piece.slice(place.offset.min(piece.len())..);
            (place.piece, place.offset) = (place.piece + 1, 0);
            if !rest.is_empty() {
                place.bytes += rest.len() as u64;
                return Next::Piece(rest);
            }
        }
        if let Some(rest) = self.open.get(place.offset..).filter(|rest| !rest.is_empty()) {
            let rest = Bytes::copy_from_slice(rest);
            (place.offset, place.bytes) = (self.open.len(), place.bytes + rest.len() as u64);
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

    /// Drops what all have been told; how far the slowest is behind.
    fn trim(&mut self) -> u64 {
        let live = || self.followers.values().filter(|place| !place.is_cut);
        let piece = live().map(|place| place.piece).min().unwrap_or(usize::MAX);
        let told = live().map(|place| place.bytes).min().unwrap_or(self.bytes);
        while self.first < piece && self.sealed.pop_front().is_some() {
            self.first += 1;
        }
        self.bytes - told
    }

    /// Those who are too far behind.
    fn slow(&self) -> impl Iterator<Item = (&u64, &Place)> {
        let is_behind = |place: &Place| !place.is_cut && self.bytes - place.bytes > BEHIND_BYTES_MAX;
        self.followers.iter().filter(move |(_, place)| is_behind(place))
    }
}

impl Source {
    /// There is more of it; how many bytes there are now.
    pub(super) fn push(&self, bytes: Bytes) -> u64 {
        let mut state = self.0.state();
        state.push(bytes);
        let bytes = state.bytes;
        drop(state);
        self.0.grown.notify_waiters();
        bytes
    }

    /// All of it, when all has come.
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

    /// It has come whole, and is these bytes.
    pub(super) fn finish(self, whole: Bytes) {
        let mut state = self.0.state();
        (state.sealed, state.open, state.whole) = (VecDeque::new(), BytesMut::new(), Some(whole));
        state.end = Some(Ok(()));
    }

    /// It has ended.
    pub(super) fn end(self, end: Result<(), CutShort>) {
        self.0.state().end = Some(end);
    }

    /// It is too large to be kept.
    pub(super) fn pass(&self) {
        let mut state = self.0.state();
        state.seal();
        state.is_passing = true;
    }

    /// Waits until the slowest is near enough; who has held others up for `patience` while it took less than
    /// [`BEHIND_BYTES_MAX`] is torn off where others wait.
    /// Whether anybody follows.
    pub(super) async fn room(&self, patience: Duration) -> bool {
        loop {
            let mut taken = pin!(self.0.taken.notified());
            taken.as_mut().enable();
            let (slow, left) = {
                let mut state = self.0.state();
                if state.followers.is_empty() {
                    return false;
                }
                if state.trim() <= BEHIND_BYTES_MAX {
                    return true;
                }
                let slow: Vec<u64> = state.slow().map(|(number, _)| *number).collect();
                let costs = state.slow().map(|(_, place)| patience.saturating_sub(place.cost));
                (slow, costs.min().unwrap_or(patience))
            };
            let waited = Instant::now();
            tokio::select! {
                () = taken => {}
                () = tokio::time::sleep(left) => {}
            }
            self.charge(&slow, waited.elapsed(), patience);
        }
    }

    /// Charges a wait to those who were waited for. Who takes a little now and then holds the others up as well as who takes
    /// nothing, so it is the sum that counts; who has taken [`BEHIND_BYTES_MAX`] since is merely slower, and begins anew.
    fn charge(&self, slow: &[u64], waited: Duration, patience: Duration) {
        let mut state = self.0.state();
        let live = state.followers.values().filter(|place| !place.is_cut).count();
        // Who is alone holds nobody up, and the listener bounds how long it may stand still.
        if slow.len() < live {
            for number in slow {
                if let Some(place) = state.followers.get_mut(number) {
                    if place.bytes - place.cost_from >= BEHIND_BYTES_MAX {
                        (place.cost, place.cost_from) = (Duration::ZERO, place.bytes);
                    }
                    place.cost += waited;
                    place.is_cut = place.cost >= patience;
                }
            }
        }
        drop(state);
        self.0.grown.notify_waiters();
    }
}

impl Drop for Source {
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
    /// The same, of which only this part is told.
    pub(super) fn part(mut self, range: Range<usize>) -> Self {
        (self.skip, self.left) = (range.start as u64, Some(range.len() as u64));
        self
    }

    /// What it is told, as it comes.
    pub(super) fn into_stream(self) -> impl Stream<Item = Piece> + Send {
        futures_util::stream::unfold(self, |mut follower| async move {
            let piece = follower.next().await?;
            Some((piece, follower))
        })
    }

    async fn next(&mut self) -> Option<Piece> {
        while !self.is_over && self.left != Some(0) {
            let mut grown = pin!(self.growing.grown.notified());
            grown.as_mut().enable();
            match self.growing.next(self.number) {
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
        self.growing.state().followers.remove(&self.number);
        self.growing.taken.notify_one();
    }
}

/// What is wanted of a piece.
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

    /// All that is told until there is no more yet; whether that is the end, and a cut.
    fn told(stream: &mut (impl Stream<Item = Piece> + Unpin)) -> (Vec<u8>, Option<Result<(), CutShort>>) {
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

    fn begin() -> (Source, Arc<Growing>, impl Fn() -> Follower) {
        let (source, growing) = Growing::begin(None);
        let of = Arc::clone(&growing);
        (source, growing, move || Box::pin(of.follow().unwrap().into_stream()))
    }

    #[test]
    fn all_are_told_all_from_the_first_byte_whenever_they_join() {
        let (source, growing, follow) = begin();
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
        let part = growing.follow().unwrap().part(1..SMALL_BYTES + 5);
        let mut begun = told(&mut first).0;
        assert_eq!(begun, expected);
        let whole = source.whole();
        assert_eq!(whole, expected);
        source.finish(whole);
        begun.extend(told(&mut first).0);
        assert_eq!(begun, expected);
        for (mut other, mut all) in others {
            let (rest, end) = told(&mut other);
            all.extend(rest);
            assert_eq!((all.len(), end), (expected.len(), Some(Ok(()))));
        }
        assert_eq!(told(&mut Box::pin(part.into_stream())), (expected[1..SMALL_BYTES + 5].to_vec(), Some(Ok(()))));
        assert_eq!(told(&mut follow()).0, expected, "it may be joined at its end");
    }

    #[test]
    fn what_ends_early_never_looks_whole() {
        let (source, _growing, follow) = begin();
        let mut one = follow();
        source.push(Bytes::from_static(b"half"));
        drop(source);
        assert!(matches!(told(&mut one), (half, Some(Err(_))) if half == b"half"));
        assert!(matches!(told(&mut follow()), (_, Some(Err(_)))));
    }

    #[tokio::test]
    async fn what_is_too_large_waits_for_the_slowest_but_not_for_ever() {
        let (source, growing, follow) = begin();
        let (mut fast, mut slow) = (follow(), follow());
        let piece = Bytes::from(vec![b'x'; 200 << 10]);
        source.push(piece.clone());
        source.pass();
        assert!(growing.follow().is_none());
        source.push(piece.clone());
        let patience = Duration::from_millis(20);
        assert_eq!(told(&mut fast).0.len(), 2 * piece.len());
        assert!(source.room(patience).now_or_never().is_none(), "one is behind");
        assert_eq!(told(&mut slow).0.len(), 2 * piece.len());
        assert!(source.room(patience).await);
        assert!(growing.state().sealed.is_empty(), "what all have been told is dropped");
        source.push(piece.clone());
        source.push(piece.clone());
        told(&mut fast);
        assert!(source.room(patience).await, "the slow one is torn off");
        assert!(matches!(told(&mut slow), (_, Some(Err(_)))));
        drop((slow, fast));
        assert!(!source.room(patience).await, "nobody follows");
    }

    #[test]
    fn who_takes_a_little_now_and_then_is_torn_off_and_who_is_merely_slower_is_not() {
        let (source, growing, follow) = begin();
        let (mut fast, mut slow, mut trickle) = (follow(), follow(), follow());
        let (patience, wait) = (Duration::from_secs(10), Duration::from_secs(3));
        let piece = Bytes::from(vec![b'x'; SMALL_BYTES]);
        let many = BEHIND_BYTES_MAX / SMALL_BYTES as u64;
        let mut rounds = 0;
        loop {
            // Far enough ahead of both, whatever they take in a round.
            for _ in 0..4 * many {
                source.push(piece.clone());
            }
            told(&mut fast);
            let behind: Vec<u64> = growing.state().slow().map(|(number, _)| *number).collect();
            (0..many).for_each(|_| drop(slow.next().now_or_never()));
            let taken = trickle.next().now_or_never();
            if matches!(taken, Some(Some(Err(_)))) {
                break;
            }
            rounds += 1;
            assert!(rounds < 9, "it would go on for ever");
            source.charge(&behind, wait, patience);
        }
        assert_eq!(rounds, 4, "3 s each time");
        for _ in 0..9 {
            (0..many).for_each(|_| assert!(matches!(slow.next().now_or_never(), Some(Some(Ok(_))))));
            source.charge(&[2], wait, patience);
        }
        assert!(matches!(told(&mut fast), (_, None)), "the others go on");
        // Whoever is left alone holds nobody up.
        drop(fast);
        (0..9).for_each(|_| source.charge(&[2], wait, patience));
        assert!(matches!(slow.next().now_or_never(), Some(Some(Ok(_)))), "those who were torn off are no others");
    }
}
