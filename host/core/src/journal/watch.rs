//! What one host knows of the heads of a kind's journals: how much waits, and how far SQL has got.
//!
//! Requests report the heads that their batches left, the flusher reports the heads that it polls and the positions
//! that it commits. Requests read from it whether the journal is full and whether a position is stored; the flusher is
//! woken by it. Knowledge only: the truth about a head is the store's, the truth about a checkpoint is SQL's.
//!
//! Entries carry the wall clock of the host that accepted them, which may have been set since, or be another host's. So
//! how old what waits is is asked of the wall clock once, when it is first seen here, and counted by the steady one
//! from then on: an entry from the future is new, and grows old like any other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Notify, watch};

use super::Head;
use crate::clock::Clock;
use crate::config::JournalConfig;
use crate::model::{Backlog, Incarnation, Partition, Position};

/// The watch over the journals of one kind.
#[derive(Debug)]
pub struct JournalWatch {
    heads: Mutex<Vec<Option<Known>>>,
    clock: Clock,
    /// Of all partitions: what every request asks for, without the lock.
    backlog_entries: AtomicU64,
    backlog_bytes: AtomicU64,
    appended: Notify,
    committed: watch::Sender<u64>,
    flush_wanted: AtomicBool,
    /// Entries of which a row went to the dead letters: the newest ones, at most [`DEAD_MAX`].
    dead: Mutex<VecDeque<(Partition, Position)>>,
}

/// A head, and since when the oldest that waits there has waited, by the steady clock.
#[derive(Debug, Clone, Copy)]
struct Known {
    head: Head,
    since_ms: Option<u64>,
}

impl Known {
    /// `head`, where `before` was known.
    fn new(head: Head, before: Option<&Self>, clock: &Clock) -> Self {
        let Some(at_ms) = head.backlog.oldest_at_ms else { return Self { head, since_ms: None } };
        let before = before.filter(|before| before.head.incarnation == head.incarnation);
        let known = before.and_then(|before| Some((before.head.backlog.oldest_at_ms?, before.since_ms?)));
        let since_ms = match known {
            Some((same, since_ms)) if same == at_ms => since_ms,
            known => {
                let seen_ms = clock.steady_ms().saturating_sub(clock.now_ms().saturating_sub(at_ms));
                // What comes after another has waited for less long, whatever the wall clock says.
                seen_ms.max(known.map_or(0, |(_, since_ms)| since_ms))
            }
        };
        Self { head, since_ms: Some(since_ms) }
    }
}

/// Entries with dead letters that are remembered, so that no reply calls them stored.
const DEAD_MAX: usize = 1_024;

impl JournalWatch {
    /// Knows nothing yet of `partitions` journals.
    pub fn new(partitions: Partition, clock: Clock) -> Self {
        Self {
            heads: Mutex::new(vec![None; usize::from(partitions)]),
            clock,
            backlog_entries: AtomicU64::new(0),
            backlog_bytes: AtomicU64::new(0),
            appended: Notify::new(),
            committed: watch::Sender::new(0),
            flush_wanted: AtomicBool::new(false),
            dead: Mutex::new(VecDeque::new()),
        }
    }

    /// Takes newer knowledge. Reports may arrive out of order: an older one of the same life changes nothing.
    pub fn observe(&self, heads: &[Head]) {
        let mut committed = false;
        {
            let mut known = self.lock();
            for head in heads {
                let Some(slot) = known.get_mut(usize::from(head.partition)) else { continue };
                let newer = slot.is_none_or(|Known { head: old, .. }| {
                    head.incarnation > old.incarnation
                        || head.incarnation == old.incarnation && head.last >= old.last && head.flushed >= old.flushed
                });
                if newer {
                    committed |= slot.is_none_or(|old| head.flushed > old.head.flushed);
                    *slot = Some(Known::new(*head, slot.as_ref(), &self.clock));
                }
            }
            self.sum_up(&known);
        }
        if committed {
            self.committed.send_modify(|round| *round += 1);
        }
    }

    /// Takes what the flusher has just polled, even when it is less than was known: a store that lost its newest entries
    /// says so by nothing else.
    pub fn replace(&self, heads: &[Head]) {
        {
            let mut known = self.lock();
            for head in heads {
                if let Some(slot) = known.get_mut(usize::from(head.partition)) {
                    *slot = Some(Known::new(*head, slot.as_ref(), &self.clock));
                }
            }
            self.sum_up(&known);
        }
        self.committed.send_modify(|round| *round += 1);
    }

    /// Asks the flusher not to wait for the policy's plan: somebody waits for SQL to catch up.
    pub fn want_flush(&self) {
        self.flush_wanted.store(true, Ordering::Relaxed);
        self.appended.notify_one();
    }

    /// Whether a flush was asked for since the last call.
    pub fn take_flush_wanted(&self) -> bool {
        self.flush_wanted.swap(false, Ordering::Relaxed)
    }

    /// A row of the entry at `position` went to the dead letters: that entry is never called stored.
    pub fn note_dead(&self, partition: Partition, position: Position) {
        let mut dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        if dead.len() == DEAD_MAX {
            dead.pop_front();
        }
        dead.push_back((partition, position));
    }

    /// SQL has committed everything up to `position`. The backlog is corrected by the next observed head.
    pub fn commit(&self, partition: Partition, incarnation: Incarnation, position: Position) {
        {
            let mut known = self.lock();
            if let Some(Some(Known { head, since_ms })) = known.get_mut(usize::from(partition))
                && head.incarnation == incarnation
                && head.flushed < position
            {
                head.flushed = position;
                if head.last <= position {
                    head.last = position;
                    (head.backlog, *since_ms) = (Backlog::default(), None);
                }
            }
            self.sum_up(&known);
        }
        self.committed.send_modify(|round| *round += 1);
    }

    /// Wakes the flusher: something was appended.
    pub fn wake(&self) {
        self.appended.notify_one();
    }

    /// Waits until [`JournalWatch::wake`] was called, or returns at once when it was since the last wait.
    pub async fn appended(&self) {
        self.appended.notified().await;
    }

    /// What waits in all partitions, as far as known. The time of the oldest is that which its age follows from now.
    pub fn backlog(&self) -> Backlog {
        let (total, since_ms) = {
            let known = self.lock();
            (total(&known), known.iter().flatten().filter_map(|known| known.since_ms).min())
        };
        let age_ms = since_ms.map(|since_ms| self.clock.steady_ms().saturating_sub(since_ms));
        Backlog { oldest_at_ms: age_ms.map(|age_ms| self.clock.now_ms().saturating_sub(age_ms)), ..total }
    }

    /// Whether the backlog has reached one of its bounds.
    pub fn is_full(&self, bounds: &JournalConfig) -> bool {
        self.backlog_entries.load(Ordering::Relaxed) >= bounds.backlog_entries_max
            || self.backlog_bytes.load(Ordering::Relaxed) >= bounds.backlog_bytes_max
    }

    fn sum_up(&self, heads: &[Option<Known>]) {
        let backlog = total(heads);
        self.backlog_entries.store(backlog.entries, Ordering::Relaxed);
        self.backlog_bytes.store(backlog.bytes, Ordering::Relaxed);
    }

    /// Whether the flush of everything up to `position` of that life of the journal is known to be committed, whatever became
    /// of single rows.
    pub fn is_flushed(&self, partition: Partition, incarnation: Incarnation, position: Position) -> bool {
        position == 0
            || matches!(self.lock().get(usize::from(partition)), Some(Some(Known { head, .. }))
                if head.incarnation == incarnation && head.flushed >= position)
    }

    /// Whether everything up to `position` of that life of the journal is known to be committed, and no row of the entry there
    /// went to the dead letters.
    pub fn is_stored(&self, partition: Partition, incarnation: Incarnation, position: Position) -> bool {
        if position == 0 {
            return true;
        }
        self.is_flushed(partition, incarnation, position) && !self.was_dead(partition, position)
    }

    /// Whether a row of the entry at `position` of that life of the journal is known to have gone to the dead letters.
    pub fn is_dead(&self, partition: Partition, incarnation: Incarnation, position: Position) -> bool {
        position > 0 && self.is_flushed(partition, incarnation, position) && self.was_dead(partition, position)
    }

    fn was_dead(&self, partition: Partition, position: Position) -> bool {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner).contains(&(partition, position))
    }

    /// Changes whenever more is known to be committed.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.committed.subscribe()
    }

    /// What is known of each partition, in order.
    pub fn heads(&self) -> Vec<Option<Head>> {
        self.lock().iter().map(|known| known.map(|known| known.head)).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Option<Known>>> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn total(heads: &[Option<Known>]) -> Backlog {
    let mut total = Backlog::default();
    for known in heads.iter().flatten() {
        total.merge(&known.head.backlog);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(incarnation: Incarnation, last: Position, flushed: Position, entries: u64) -> Head {
        let backlog = Backlog { entries, targets: 0, bytes: entries * 19, oldest_at_ms: (entries > 0).then_some(5) };
        Head { partition: 1, incarnation, last, flushed, floor: 0, backlog }
    }

    #[test]
    fn late_reports_do_not_turn_back_time() {
        let watch = JournalWatch::new(4, Clock::manual(1_000_000));
        let life = Incarnation::fresh();
        watch.observe(&[head(life, 20, 10, 7)]);
        watch.observe(&[head(life, 15, 5, 3)]);
        assert_eq!(watch.backlog().entries, 7);
        assert!(watch.is_stored(1, life, 10) && !watch.is_stored(1, life, 11) && watch.is_stored(1, life, 0));
        assert!(!watch.is_stored(1, Incarnation::after(life), 10), "another life says nothing of this one");
        watch.commit(1, life, 20);
        assert_eq!(watch.backlog(), Backlog::default());
        watch.observe(&[head(life, 20, 10, 7)]);
        assert!(watch.is_stored(1, life, 20));
        watch.note_dead(1, 20);
        assert!(!watch.is_stored(1, life, 20) && watch.is_stored(1, life, 19));
        assert!(watch.is_dead(1, life, 20) && !watch.is_dead(1, life, 19));
        watch.replace(&[head(life, 12, 5, 3)]);
        assert_eq!((watch.backlog().entries, watch.is_stored(1, life, 10)), (3, false), "what was polled holds");
        watch.observe(&[head(Incarnation::after(life), 3, 0, 2)]);
        assert_eq!(watch.backlog().entries, 2);
    }

    #[test]
    fn bounds_are_reached_by_entries_or_bytes() {
        let watch = JournalWatch::new(4, Clock::manual(1_000_000));
        watch.observe(&[head(Incarnation::fresh(), 20, 10, 7)]);
        let bounds = |entries, bytes| JournalConfig { backlog_entries_max: entries, backlog_bytes_max: bytes };
        assert!(watch.is_full(&bounds(7, 1_000)));
        assert!(watch.is_full(&bounds(8, 133)));
        assert!(!watch.is_full(&bounds(8, 134)));
    }

    fn waits(incarnation: Incarnation, flushed: Position, oldest_at_ms: u64) -> Head {
        let backlog = Backlog { entries: 3, targets: 1, bytes: 60, oldest_at_ms: Some(oldest_at_ms) };
        Head { partition: 1, incarnation, last: 20, flushed, floor: 0, backlog }
    }

    #[test]
    fn what_waits_grows_old_whatever_the_wall_clock_says() {
        let (clock, life) = (Clock::manual(1_000_000), Incarnation::fresh());
        let watch = JournalWatch::new(4, clock.clone());
        let age = || watch.backlog().oldest_age_ms(clock.now_ms());
        watch.observe(&[waits(life, 0, 999_000)]);
        assert_eq!(age(), 1_000, "asked of the wall clock once");
        clock.advance_ms(50);
        for set_by_ms in [-900_000, 5_000_000] {
            clock.set_by_ms(set_by_ms);
            watch.replace(&[waits(life, 0, 999_000)]);
            assert_eq!(age(), 1_050, "after {set_by_ms}");
        }
        // The rest of a flush: younger than what went, older than nothing.
        watch.replace(&[waits(life, 7, 999_500)]);
        assert_eq!(age(), 1_050);
        // What another host took, whose clock is ahead: seen now, and not in an hour.
        let (ahead_ms, other) = (clock.now_ms() + 3_600_000, Incarnation::after(life));
        watch.replace(&[waits(other, 0, ahead_ms)]);
        assert_eq!(age(), 0);
        clock.advance_ms(700);
        watch.observe(&[waits(other, 0, ahead_ms)]);
        assert_eq!(age(), 700);
        watch.commit(1, other, 20);
        assert_eq!(watch.backlog(), Backlog::default());
    }
}
