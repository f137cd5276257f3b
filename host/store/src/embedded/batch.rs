//! The common part of all batches: the partitions that they touch, and the entries that they append.
//!
//! Reads that may fail (the disk) come before any change: a batch takes effect as a whole or not at all.

use std::collections::BTreeMap;

use super::layout::{HeadRecord, Space, UNKNOWN, journal_key};
use super::state::State;
use super::transaction::Transaction;
use crate::{Head, StoreError};
use weir_core::journal::{Link, entry};
use weir_core::model::{Digest, Partition, Position};

/// Greatest position that a time can lead to, however wrong the clock: leaves positions to count on.
const POSITION_OF_TIME_MAX: Position = 1 << 62;

/// The changes that a batch gathers in one partition.
pub(super) struct Work {
    pub(super) head: HeadRecord,
    /// The position of the entry, if there will be one.
    pub(super) position: Position,
    /// The entry, packed; empty as long as nothing changed.
    pub(super) entry: Vec<u8>,
    /// Records in the entry.
    pub(super) changes: u64,
    /// Their sum: see [`weir_core::model::Change::amount`].
    pub(super) amount: u64,
}

/// The changes that a batch gathers, by partition.
pub(super) type Works = BTreeMap<Partition, Work>;

/// The heads of the partitions of a batch, created where there are none.
pub(super) fn enter(
    transaction: &mut Transaction<'_>,
    kind: &str,
    partitions: impl Iterator<Item = Partition>,
    now_ms: u64,
) -> Result<Works, StoreError> {
    let mut works = Works::new();
    for partition in partitions {
        if let std::collections::btree_map::Entry::Vacant(place) = works.entry(partition) {
            let head = transaction.head_or_fresh(kind, partition)?;
            // Positions grow with time, so that a journal restored from an old copy never reuses one.
            let of_time = now_ms.saturating_mul(1_000).min(POSITION_OF_TIME_MAX);
            let position = head.newest().saturating_add(1).max(of_time);
            place.insert(Work { head, position, entry: Vec::new(), changes: 0, amount: 0 });
        }
    }
    Ok(works)
}

impl Work {
    /// Appends one more record to the entry, with this amount.
    pub(super) fn record(&mut self, digest: &Digest, at_ms: u64, amount: u64) -> &mut Vec<u8> {
        if self.entry.is_empty() {
            let link = Link::after(self.head.newest(), self.head.changes, self.head.amount);
            entry::encode_head(&mut self.entry, digest, at_ms, Some(link));
        }
        self.changes += 1;
        self.amount = self.amount.saturating_add(amount);
        &mut self.entry
    }
}

/// Appends the entries. Returns the heads afterwards.
pub(super) fn leave(
    transaction: &mut Transaction<'_>,
    state: &State,
    kind: &str,
    works: Works,
    at_ms: u64,
) -> Vec<Head> {
    let mut heads = Vec::with_capacity(works.len());
    for (partition, Work { mut head, position, entry, changes, amount }) in works {
        if changes > 0 {
            head.oldest_at_ms = if head.entries == 0 { at_ms } else { head.oldest_at_ms };
            head.entries += changes;
            head.changes += changes;
            head.amount = head.amount.saturating_add(amount).min(UNKNOWN - 1);
            head.bytes += entry.len() as u64;
            head.last = position;
            transaction.put(Space::Journal, journal_key(kind, partition, position), &entry);
            transaction.put_head(kind, partition, &head);
        }
        heads.push(head.public(partition, state.waiting(kind, partition)));
    }
    heads
}
