//! What one host knows of the heads of a kind's journals: how much waits, and how far SQL has got.
//!
//! Requests report the heads that their batches left, the flusher reports the heads that it polls and the positions
//! that it commits. Requests read from it whether the journal is full and whether a position is stored; the flusher is
//! woken by it. Knowledge only: the truth about a head is the store's, the truth about a checkpoint is SQL's.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Notify, watch};

use super::Head;
use crate::config::JournalConfig;
use crate::model::{Backlog, Incarnation, Partition, Position};

/// The watch over the journals of one kind.
#[derive(Debug)]
pub struct JournalWatch {
    heads: Mutex<Vec<Option<Head>>>,
    /// Of all partitions: what every request asks for, without the lock.
    backlog_entries: AtomicU64,
    backlog_bytes: AtomicU64,
    appended: Notify,
    committed: watch::Sender<u64>,
    flush_wanted: AtomicBool,
    /// Entries of which a row went to the dead letters: the newest ones, at most [`DEAD_MAX`].
    dead: Mutex<VecDeque<(Partition, Position)>>,
}

/// Entries with dead letters that are remembered, so that no reply calls them stored.
const DEAD_MAX: usize = 1_024;

impl JournalWatch {
    /// Knows nothing yet of `partitions` journals.
    pub fn new(partitions: Partition) -> Self {
        Self {
            heads: Mutex::new(vec![None; usize::from(partitions)]),
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
                let newer = slot.is_none_or(|old| {
                    head.incarnation > old.incarnation
                        || head.incarnation == old.incarnation && head.last >= old.last && head.flushed >= old.flushed
                });
                if newer {
                    committed |= slot.is_none_or(|old| head.flushed > old.flushed);
                    *slot = Some(*head);
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
                    *slot = Some(*head);
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
            if let Some(Some(head)) = known.get_mut(usize::from(partition))
                && head.incarnation == incarnation
                && head.flushed < position
            {
                head.flushed = position;
                if head.last <= position {
                    head.last = position;
                    head.backlog = Backlog::default();
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

    /// What waits in all partitions, as far as known.
    pub fn backlog(&self) -> Backlog {
        total(&self.lock())
    }

    /// Whether the backlog has reached one of its bounds.
    pub fn is_full(&self, bounds: &JournalConfig) -> bool {
        self.backlog_entries.load(Ordering::Relaxed) >= bounds.backlog_entries_max
            || self.backlog_bytes.load(Ordering::Relaxed) >= bounds.backlog_bytes_max
    }

    fn sum_up(&self, heads: &[Option<Head>]) {
        let backlog = total(heads);
        self.backlog_entries.store(backlog.entries, Ordering::Relaxed);
        self.backlog_bytes.store(backlog.bytes, Ordering::Relaxed);
    }

    /// Whether the flush of everything up to `position` of that life of the journal is known to be committed, whatever became
    /// of single rows.
    pub fn is_flushed(&self, partition: Partition, incarnation: Incarnation, position: Position) -> bool {
        position == 0
            || matches!(self.lock().get(usize::from(partition)), Some(Some(head))
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
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Option<Head>>> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn total(heads: &[Option<Head>]) -> Backlog {
    let mut total = Backlog::default();
    for head in heads.iter().flatten() {
        total.merge(&head.backlog);
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
        let watch = JournalWatch::new(4);
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
        let watch = JournalWatch::new(4);
        watch.observe(&[head(Incarnation::fresh(), 20, 10, 7)]);
        let bounds = |entries, bytes| JournalConfig { backlog_entries_max: entries, backlog_bytes_max: bytes };
        assert!(watch.is_full(&bounds(7, 1_000)));
        assert!(watch.is_full(&bounds(8, 133)));
        assert!(!watch.is_full(&bounds(8, 134)));
    }
}
