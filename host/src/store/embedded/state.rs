//! What is known of targets, in memory: the cache of which SQL plus the journal's tail is the truth.
//!
//! Bounded: beyond `store.memory_bytes_max` clean targets are forgotten, those first that became clean first, and new
//! ones are known only as huge. What is dirty stays, and so does what is known of documents that wait; the journal's
//! bounds are its bounds.
//!
//! After a restart nothing is known, but what waits in the journal: a [`Tail`] is laid over what SQL says of a target, and
//! documents that wait are found in it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::pending::Pending;
use super::tail::Tail;
use super::target::{Mode, Target};
use crate::journal::Entry;
use crate::model::{Id, Partition, Position};
use crate::store::LoadedState;

/// What is known of one (kind, partition).
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) targets: HashMap<Id, Target>,
    pub(super) tails: HashMap<Id, Tail>,
    /// Documents that wait: of the journal, and no cache.
    pub(super) pending: Pending,
    /// Up to here the flusher has read the journal while there were tails: SQL may hold it at any moment.
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

    /// Whether what waits can be laid over what SQL says of a target as of the checkpoint at `position`.
    pub(super) fn fits(&self, id: &Id, target: &Target, position: Position) -> bool {
        self.tails.get(id).is_none_or(|tail| tail.fits(target, position, self.read_to))
    }

    fn count_dirty(&mut self, was_dirty: bool, is_dirty: bool) {
        self.dirty = (self.dirty + u64::from(is_dirty)).saturating_sub(u64::from(was_dirty));
    }

    /// Targets with entries that are not trimmed yet, as far as they are known.
    fn waiting(&self) -> u64 {
        self.dirty + (self.tails.len() + self.pending.len()) as u64
    }
}

/// Place of a target: index of its kind, its partition, its id.
type Place = (usize, Partition, Id);

/// All that is known.
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
    /// The group of writes that is being gathered.
    pub(super) group: u64,
}

impl State {
    pub(super) fn new(partitions: Partition, bytes_max: usize) -> Self {
        Self { bytes_max, partitions, group: 1, ..Self::default() }
    }

    /// The place of a kind in the tables, made when there is none.
    pub(super) fn kind(&mut self, kind: &str) -> usize {
        if let Some(index) = self.kinds.get(kind) {
            return *index;
        }
        let index = self.known.len();
        self.kinds.insert(kind.to_owned(), index);
        self.known.push((0..self.partitions).map(|_| Known::default()).collect());
        index
    }

    /// What is known of a partition. `kind` is of [`State::kind`]; `None` where a partition is out of range.
    pub(super) fn known(&mut self, kind: usize, partition: Partition) -> Option<&mut Known> {
        self.known.get_mut(kind)?.get_mut(usize::from(partition))
    }

    /// The target, if it is known at `now_ms`.
    pub(super) fn target(&self, kind: &str, partition: Partition, target: &Id, now_ms: u64) -> Option<&Target> {
        let known = self.known.get(*self.kinds.get(kind)?)?.get(usize::from(partition))?;
        known.targets.get(target).filter(|target| target.is_known(now_ms))
    }

    /// Works on a target, and counts what memory it takes afterwards.
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

    /// Takes a target that was not known. Forgets others where memory is short; where that does not help, only the count
    /// of a whole one is kept.
    pub(super) fn insert(&mut self, (kind, partition): (usize, Partition), id: &Id, mut target: Target) {
        let may_shrink = target.mode == Mode::Whole && !target.is_dirty();
        // One that would drive out a good part of all others, too.
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

    /// Puts a clean target into the queue of those that expire, unless it stands there.
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

    /// Forgets all targets of a partition, and its tail. Documents that wait are of the journal: they stay.
    pub(super) fn clear(&mut self, kind: usize, partition: Partition) {
        if let Some(known) = self.known(kind, partition) {
            let bytes: usize = known.targets.values().map(Target::bytes).sum();
            *known = Known { pending: std::mem::take(&mut known.pending), ..Known::default() };
            self.bytes -= bytes;
        }
    }

    /// Works on the documents that wait, and counts what memory they take afterwards.
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

    /// The documents that wait in a partition.
    pub(super) fn pending(&self, kind: &str, partition: Partition) -> Option<&Pending> {
        self.known.get(*self.kinds.get(kind)?)?.get(usize::from(partition)).map(|known| &known.pending)
    }

    /// Targets of a partition of which the newest change lies above `after`, up to `last`; at most `targets_max`.
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

    /// Whether what is read of a journal must be noted, by [`State::note_read`]: tails wait for their targets.
    pub(super) fn has_tails(&self, kind: &str, partition: Partition) -> bool {
        let known = self.kinds.get(kind).and_then(|kind| self.known.get(*kind)?.get(usize::from(partition)));
        known.is_some_and(|known| !known.tails.is_empty())
    }

    /// The flusher is about to be given entries up to `position`.
    pub(super) fn note_read(&mut self, kind: &str, partition: Partition, position: Position) {
        let place = self.kind(kind);
        if let Some(known) = self.known(place, partition) {
            known.read_to = known.read_to.max(position);
        }
    }

    /// As if the flusher had been given all that is there.
    pub(super) fn note_all_read(&mut self) {
        self.known.iter_mut().flatten().for_each(|known| known.read_to = Position::MAX);
    }

    /// Targets of a partition that have entries above the trim point, as far as they are known.
    pub(super) fn waiting(&self, kind: &str, partition: Partition) -> u64 {
        let known = self.kinds.get(kind).and_then(|kind| self.known.get(*kind)?.get(usize::from(partition)));
        known.map_or(0, Known::waiting)
    }

    /// Forgets what has expired, at most `targets_max`; whether there may be more.
    pub(super) fn sweep(&mut self, now_ms: u64, targets_max: usize) -> bool {
        for _ in 0..targets_max {
            match self.queue.peek() {
                Some(Reverse((expires_ms, _))) if *expires_ms <= now_ms => self.pop(|target| target.is_known(now_ms)),
                _ => return false,
            }
        }
        true
    }

    /// Forgets clean targets until the rest fits, or none is left.
    pub(super) fn make_room(&mut self) {
        while self.bytes > self.bytes_max && !self.queue.is_empty() {
            self.pop(Target::is_dirty);
        }
    }

    /// Takes the first out of the queue, and forgets it unless it is to be kept.
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
