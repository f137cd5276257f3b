//! The known state of targets, in memory: a cache of SQL plus the journal's tail.
//!
//! Bounded: beyond `store.memory_bytes_max` the store evicts clean targets, in the order in which they became clean, and loads
//! new ones as huge only. Dirty targets and waiting documents stay; the journal's bounds limit them.
//!
//! After a restart the store knows only what waits in the journal: it lays a [`Tail`] over the rows that SQL returns for a
//! target, and finds waiting documents in the journal.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::pending::Pending;
use super::tail::Tail;
use super::target::{Mode, Target};
use crate::LoadedState;
use weir_core::journal::Entry;
use weir_core::model::{Id, Partition, Position};

/// The state of one (kind, partition).
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) targets: HashMap<Id, Target>,
    pub(super) tails: HashMap<Id, Tail>,
    /// Waiting documents: part of the journal, not of the cache.
    pub(super) pending: Pending,
    /// The flusher has read the journal up to here while there were tails: SQL may hold it at any moment.
    read_to: Position,
    /// How many of `targets` are dirty.
    dirty: u64,
}

impl Known {
    /// Takes an entry of the journal's tail.
    pub(super) fn add_tail(&mut self, entry: Entry) {
        for change in entry.changes {
            self.tails.entry(change.target().clone()).or_default().add(entry.position, entry.at_ms, change);
        }
    }

    /// Whether the tail of a target can be laid over its rows in SQL as of the checkpoint at `position`.
    pub(super) fn fits(&self, id: &Id, target: &Target, position: Position) -> bool {
        self.tails.get(id).is_none_or(|tail| tail.fits(target, position, self.read_to))
    }

    fn count_dirty(&mut self, was_dirty: bool, is_dirty: bool) {
        self.dirty = (self.dirty + u64::from(is_dirty)).saturating_sub(u64::from(was_dirty));
    }

    /// The number of known targets with entries that are not trimmed yet.
    fn waiting(&self) -> u64 {
        self.dirty + (self.tails.len() + self.pending.len()) as u64
    }
}

/// The place of a target: index of its kind, its partition, its id.
type Place = (usize, Partition, Id);

/// The state of all kinds.
#[derive(Debug, Default)]
pub(super) struct State {
    kinds: HashMap<String, usize>,
    known: Vec<Vec<Known>>,
    /// Memory of all targets, in bytes.
    pub(super) bytes: usize,
    bytes_max: usize,
    partitions: Partition,
    /// Clean targets by the time at which they expire.
    queue: BinaryHeap<Reverse<(u64, Place)>>,
    /// The group of writes that is being collected.
    pub(super) group: u64,
}

impl State {
    pub(super) fn new(partitions: Partition, bytes_max: usize) -> Self {
        Self { bytes_max, partitions, group: 1, ..Self::default() }
    }

    /// The index of a kind, created when there is none.
    pub(super) fn kind(&mut self, kind: &str) -> usize {
        if let Some(index) = self.kinds.get(kind) {
            return *index;
        }
        let index = self.known.len();
        self.kinds.insert(kind.to_owned(), index);
        self.known.push((0..self.partitions).map(|_| Known::default()).collect());
        index
    }

    /// The state of a partition. `kind` comes from [`State::kind`]; `None` where a partition is out of range.
    pub(super) fn known(&mut self, kind: usize, partition: Partition) -> Option<&mut Known> {
        self.known.get_mut(kind)?.get_mut(usize::from(partition))
    }

    /// The target, if it is loaded at `now_ms`.
    pub(super) fn target(&self, kind: &str, partition: Partition, target: &Id, now_ms: u64) -> Option<&Target> {
        let known = self.known.get(*self.kinds.get(kind)?)?.get(usize::from(partition))?;
        known.targets.get(target).filter(|target| target.is_known(now_ms))
    }

    /// Works on a target, and recounts its memory afterwards.
    pub(super) fn with<T>(
        &mut self,
        (kind, partition): (usize, Partition),
        target: &Id,
        work: impl FnOnce(&mut Target) -> T,
    ) -> Option<T> {
        let known = self.known.get_mut(kind)?.get_mut(usize::from(partition))?;
        let found = known.targets.get_mut(target)?;
        let (before, was_dirty) = (found.bytes(), found.is_dirty());
        let result = work(found);
        let (after, is_dirty) = (found.bytes(), found.is_dirty());
        known.count_dirty(was_dirty, is_dirty);
        self.bytes = self.bytes + after - before;
        Some(result)
    }

    /// Adds a target that was not loaded. Evicts others where memory is short; where that does not help, keeps only the count of
    /// a whole one.
    pub(super) fn insert(&mut self, (kind, partition): (usize, Partition), id: &Id, mut target: Target) {
        let may_shrink = target.mode == Mode::Whole && !target.is_dirty();
        // Also for a target that would evict a large part of all others.
        if !(may_shrink && target.bytes() > self.bytes_max / 4) {
            self.bytes += target.bytes();
            self.make_room();
            self.bytes -= target.bytes();
        }
        if may_shrink && (target.bytes() > self.bytes_max / 4 || self.bytes + target.bytes() > self.bytes_max) {
            target = Target::new(&LoadedState::Huge(target.count), target.expires_ms);
        }
        self.remove((kind, partition), id);
        self.bytes += target.bytes();
        let expires_ms = target.expires_ms;
        if let Some(known) = self.known(kind, partition) {
            known.count_dirty(false, target.is_dirty());
            known.targets.insert(id.clone(), target);
        }
        self.queue((kind, partition), id, expires_ms);
    }

    /// Adds a clean target to the queue of expiries, unless it is already in it.
    pub(super) fn queue(&mut self, (kind, partition): (usize, Partition), id: &Id, expires_ms: u64) {
        let Some(target) = self.known(kind, partition).and_then(|known| known.targets.get_mut(id)) else { return };
        if expires_ms != 0 && target.queued_ms == 0 {
            target.queued_ms = expires_ms;
            self.queue.push(Reverse((expires_ms, (kind, partition, id.clone()))));
        }
    }

    pub(super) fn remove(&mut self, (kind, partition): (usize, Partition), id: &Id) {
        let Some(known) = self.known(kind, partition) else { return };
        let Some(target) = known.targets.remove(id) else { return };
        known.count_dirty(target.is_dirty(), false);
        self.bytes -= target.bytes();
    }

    /// Unloads all targets of a partition, and drops its tail. Waiting documents belong to the journal and stay.
    pub(super) fn clear(&mut self, kind: usize, partition: Partition) {
        if let Some(known) = self.known(kind, partition) {
            let bytes: usize = known.targets.values().map(Target::bytes).sum();
            *known = Known { pending: std::mem::take(&mut known.pending), ..Known::default() };
            self.bytes -= bytes;
        }
    }

    /// Works on the waiting documents, and recounts their memory afterwards.
    pub(super) fn with_pending<T>(
        &mut self,
        (kind, partition): (usize, Partition),
        work: impl FnOnce(&mut Pending) -> T,
    ) -> Option<T> {
        let pending = &mut self.known.get_mut(kind)?.get_mut(usize::from(partition))?.pending;
        let before = pending.bytes();
        let result = work(pending);
        self.bytes = self.bytes + pending.bytes() - before;
        Some(result)
    }

    /// The waiting documents of a partition.
    pub(super) fn pending(&self, kind: &str, partition: Partition) -> Option<&Pending> {
        self.known.get(*self.kinds.get(kind)?)?.get(usize::from(partition)).map(|known| &known.pending)
    }

    /// Targets of a partition whose newest change is above `after`, up to `last`; at most `targets_max`.
    pub(super) fn changed_between(
        &self,
        (kind, partition): (&str, Partition),
        (after, last): (Position, Position),
        targets_max: usize,
    ) -> Vec<String> {
        let known = self.kinds.get(kind).and_then(|kind| self.known.get(*kind)?.get(usize::from(partition)));
        let Some(known) = known else { return Vec::new() };
        let lies = |target: &Target| target.is_dirty() && target.last > after && target.last <= last;
        let targets = known.targets.iter().filter(|(_, target)| lies(target)).map(|(id, _)| id);
        targets.chain(known.pending.between(after, last)).take(targets_max).map(Id::to_string).collect()
    }

    /// Whether a read of the journal must be recorded by [`State::note_read`]: tails wait for their targets.
    pub(super) fn has_tails(&self, kind: &str, partition: Partition) -> bool {
        let known = self.kinds.get(kind).and_then(|kind| self.known.get(*kind)?.get(usize::from(partition)));
        known.is_some_and(|known| !known.tails.is_empty())
    }

    /// Records that the flusher gets the entries up to `position`.
    pub(super) fn note_read(&mut self, kind: &str, partition: Partition, position: Position) {
        let place = self.kind(kind);
        if let Some(known) = self.known(place, partition) {
            known.read_to = known.read_to.max(position);
        }
    }

    /// As if the flusher had read the whole journal.
    pub(super) fn note_all_read(&mut self) {
        self.known.iter_mut().flatten().for_each(|known| known.read_to = Position::MAX);
    }

    /// Known targets of a partition with entries above the trim point.
    pub(super) fn waiting(&self, kind: &str, partition: Partition) -> u64 {
        let known = self.kinds.get(kind).and_then(|kind| self.known.get(*kind)?.get(usize::from(partition)));
        known.map_or(0, Known::waiting)
    }

    /// Drops expired targets, at most `targets_max`. Returns whether there may be more.
    pub(super) fn sweep(&mut self, now_ms: u64, targets_max: usize) -> bool {
        for _ in 0..targets_max {
            match self.queue.peek() {
                Some(Reverse((expires_ms, _))) if *expires_ms <= now_ms => self.pop(|target| target.is_known(now_ms)),
                _ => return false,
            }
        }
        true
    }

    /// Evicts clean targets until the rest fits, or none is left.
    pub(super) fn make_room(&mut self) {
        while self.bytes > self.bytes_max && !self.queue.is_empty() {
            self.pop(Target::is_dirty);
        }
    }

    /// Takes the first target from the queue, and unloads it unless it must stay.
    fn pop(&mut self, keep: impl Fn(&Target) -> bool) {
        let Some(Reverse((queued_ms, (kind, partition, id)))) = self.queue.pop() else { return };
        let Some(target) = self.known(kind, partition).and_then(|known| known.targets.get_mut(&id)) else { return };
        if target.queued_ms != queued_ms {
            return;
        }
        target.queued_ms = 0;
        if !keep(target) {
            self.remove((kind, partition), &id);
        } else if !target.is_dirty() {
            let expires_ms = target.expires_ms;
            self.queue((kind, partition), &id, expires_ms);
        }
    }
}
