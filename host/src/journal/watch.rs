//! What one host knows of the heads of a kind's journals: how much waits, and how far SQL has got.
//!
//! Requests report the heads that their batches left, the flusher reports the heads that it polls and the positions
//! that it commits. Requests read from it whether the journal is full and whether a position is stored; the flusher is
//! woken by it. Knowledge only: the truth about a head is the store's, the truth about a checkpoint is SQL's.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Notify, watch};

use super::Head;
use crate::config::JournalConfig;
use crate::model::{Backlog, Incarnation, Partition, Position};

/// The watch over the journals of one kind.
#[derive(Debug)]
pub struct JournalWatch {
    heads: Mutex<Vec<Option<Head>>>,
    appended: Notify,
    committed: watch::Sender<u64>,
}

impl JournalWatch {
    /// Knows nothing yet of `partitions` journals.
    pub fn new(partitions: Partition) -> Self {
        Self {
            heads: Mutex::new(vec![None; usize::from(partitions)]),
            appended: Notify::new(),
            committed: watch::Sender::new(0),
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
        }
        if committed {
            self.committed.send_modify(|round| *round += 1);
        }
    }

    /// SQL has committed everything up to `position`. The backlog is corrected by the next observed head.
    pub fn commit(&self, partition: Partition, incarnation: Incarnation, position: Position) {
        if let Some(Some(head)) = self.lock().get_mut(usize::from(partition))
            && head.incarnation == incarnation
            && head.flushed < position
        {
            head.flushed = position;
            if head.last <= position {
                head.last = position;
                head.backlog = Backlog::default();
            }
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
        let mut total = Backlog::default();
        for head in self.lock().iter().flatten() {
            total.merge(&head.backlog);
        }
        total
    }

    /// Whether the backlog has reached one of its bounds.
    pub fn is_full(&self, bounds: &JournalConfig) -> bool {
        let backlog = self.backlog();
        backlog.entries >= bounds.backlog_entries_max || backlog.bytes >= bounds.backlog_bytes_max
    }

    /// Whether everything up to `position` is known to be committed.
    pub fn is_stored(&self, partition: Partition, position: Position) -> bool {
        position == 0 || matches!(self.lock().get(usize::from(partition)), Some(Some(head)) if head.flushed >= position)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn head(incarnation: Incarnation, last: Position, flushed: Position, entries: u64) -> Head {
        let backlog = Backlog { entries, bytes: entries * 19, oldest_at_ms: (entries > 0).then_some(5) };
        Head { partition: 1, incarnation, last, flushed, floor: 0, backlog }
    }

    #[test]
    fn late_reports_do_not_turn_back_time() {
        let watch = JournalWatch::new(4);
        let life = Incarnation::fresh();
        watch.observe(&[head(life, 20, 10, 7)]);
        watch.observe(&[head(life, 15, 5, 3)]);
        assert_eq!(watch.backlog().entries, 7);
        assert!(watch.is_stored(1, 10) && !watch.is_stored(1, 11) && watch.is_stored(1, 0));
        watch.commit(1, life, 20);
        assert_eq!(watch.backlog(), Backlog::default());
        watch.observe(&[head(life, 20, 10, 7)]);
        assert!(watch.is_stored(1, 20));
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
