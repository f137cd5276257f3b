//! What is known of targets, in memory: the cache of which SQL plus the journal's tail is the truth.
//!
//! Bounded: beyond `store.memory_bytes_max` clean targets are forgotten, those first that became clean first, and new
//! ones are known only as huge. What is dirty stays; the journal's bounds are its bounds.
//!
//! After a restart nothing is known, but what waits in the journal: a [`Tail`] is laid over what SQL says of a target.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::by_id::ById;
use crate::journal::Entry;
use crate::model::{Action, Id, Partition, Position};
use crate::store::LoadedState;

/// The time of a pair that is known to be absent.
const ABSENT: u64 = u64::MAX;

/// What is known of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Missing,
    Whole,
    Huge,
}

/// What is known of one actor on a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pair {
    Unknown,
    Absent,
    /// Since when, in Unix milliseconds.
    Present(u64),
}

/// State of one target.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) mode: Mode,
    /// SQL holds something else: becomes cold when it becomes clean.
    pub(super) invalid: bool,
    pub(super) count: u64,
    /// Newest entry with a change of it; at or below the head's `flushed` when it is clean.
    pub(super) last: Position,
    /// When it is forgotten, in Unix milliseconds; 0 while it is dirty.
    pub(super) expires_ms: u64,
    /// The group of writes that changed it last: until that is on the disk, nobody is told.
    pub(super) group: u64,
    /// Its place in the queue of those that expire; 0 when it has none. An item of another time is not its own.
    queued_ms: u64,
    /// Members of a whole target; known pairs of a huge one.
    pairs: ById<u64>,
    /// Of a huge target: pairs that SQL may not hold yet, with their newest change.
    dirty: ById<Position>,
}

impl Target {
    pub(super) fn new(state: &LoadedState, expires_ms: u64) -> Self {
        let mut target = Self {
            mode: Mode::Missing,
            invalid: false,
            count: 0,
            last: 0,
            expires_ms,
            group: 0,
            queued_ms: 0,
            pairs: ById::default(),
            dirty: ById::default(),
        };
        match state {
            LoadedState::Missing => {}
            LoadedState::Huge(count) => (target.mode, target.count) = (Mode::Huge, *count),
            LoadedState::Whole(members) => {
                target.mode = Mode::Whole;
                if let Some((actor, _)) = members.first() {
                    target.pairs.reserve(members.len(), actor);
                }
                members.iter().for_each(|(actor, since_ms)| target.set(actor, Pair::Present(*since_ms)));
                target.count = target.pairs.len() as u64;
            }
        }
        target
    }

    /// Whether it speaks for the target at `now_ms`.
    pub(super) fn is_known(&self, now_ms: u64) -> bool {
        self.expires_ms == 0 || now_ms < self.expires_ms
    }

    pub(super) fn pair(&self, actor: &Id) -> Pair {
        match self.pairs.get(actor) {
            Some(&ABSENT) => Pair::Absent,
            Some(&since_ms) => Pair::Present(since_ms),
            None if self.mode == Mode::Huge => Pair::Unknown,
            None => Pair::Absent,
        }
    }

    /// Takes what holds now of a pair. Does not count.
    pub(super) fn set(&mut self, actor: &Id, pair: Pair) {
        let since_ms = match pair {
            Pair::Present(since_ms) => since_ms.min(ABSENT - 1),
            Pair::Absent if self.mode == Mode::Huge => ABSENT,
            Pair::Absent | Pair::Unknown => {
                return self.pairs.remove(actor);
            }
        };
        self.pairs.insert(actor, since_ms);
    }

    /// Notes that the change of a pair lies in the entry at `position`.
    pub(super) fn touch(&mut self, actor: &Id, position: Position) {
        self.last = position;
        self.expires_ms = 0;
        if self.mode == Mode::Huge {
            self.dirty.insert(actor, position);
        }
    }

    /// Changes up to `flushed` lie in SQL: they are no longer laid over it.
    pub(super) fn forget_dirty(&mut self, flushed: Position) {
        self.dirty.retain(|position| *position > flushed);
    }

    /// Known pairs: of a huge target what was looked up or changed.
    pub(super) fn pairs_known(&self) -> u64 {
        self.pairs.len() as u64
    }

    pub(super) fn forget_pairs(&mut self) {
        (self.pairs, self.dirty) = (ById::default(), ById::default());
    }

    /// Who is present, and since when.
    pub(super) fn members(&self) -> impl Iterator<Item = (Id, u64)> {
        self.pairs.iter().filter(|(_, since_ms)| **since_ms != ABSENT).map(|(actor, since_ms)| (actor, *since_ms))
    }

    /// Pairs that are laid over SQL.
    pub(super) fn dirty(&self) -> impl Iterator<Item = (Id, Pair)> {
        self.dirty.iter().map(|(actor, _)| {
            let pair = self.pair(&actor);
            (actor, pair)
        })
    }

    /// Memory that it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<(Id, Self)>() + self.pairs.bytes() + self.dirty.bytes()
    }
}

/// What the journal holds of a target that is not known: the last change of each pair.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pairs: HashMap<Id, (Action, u64)>,
    pub(super) last: Position,
}

impl Tail {
    /// Lays it over what SQL said of the whole target as of a checkpoint that is no earlier than the journal's `flushed`.
    /// Changes say what holds afterwards, so it does not matter which of them SQL has already.
    pub(super) fn over(self, target: &mut Target, flushed: Position) {
        for (actor, (action, at_ms)) in self.pairs {
            match action {
                Action::Remove => target.set(&actor, Pair::Absent),
                Action::Add if target.pair(&actor) == Pair::Absent => target.set(&actor, Pair::Present(at_ms)),
                Action::Add => {}
            }
        }
        target.count = target.pairs_known();
        target.last = self.last;
        if self.last > flushed {
            target.expires_ms = 0;
        }
    }
}

/// The targets of one (kind, partition).
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) targets: HashMap<Id, Target>,
    pub(super) tails: HashMap<Id, Tail>,
}

impl Known {
    /// Takes an entry of the journal's tail.
    pub(super) fn add_tail(&mut self, entry: Entry) {
        for change in entry.changes {
            let tail = self.tails.entry(change.target).or_default();
            tail.pairs.insert(change.actor, (change.action, change.at_ms));
            tail.last = entry.position;
        }
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
        let found = self.known.get_mut(kind)?.get_mut(usize::from(partition))?.targets.get_mut(target)?;
        let before = found.bytes();
        let result = work(found);
        self.bytes = self.bytes + found.bytes() - before;
        Some(result)
    }

    /// Takes a target that was not known. Forgets others where memory is short; where that does not help, only the count
    /// of a whole one is kept.
    pub(super) fn insert(&mut self, (kind, partition): (usize, Partition), id: &Id, mut target: Target) {
        let may_shrink = target.mode == Mode::Whole && target.expires_ms != 0;
        // One that would drive out a good part of all others, too.
        if !(may_shrink && target.bytes() > self.bytes_max / 4) {
            self.bytes += target.bytes();
            self.make_room();
            self.bytes -= target.bytes();
        }
        if may_shrink && (target.bytes() > self.bytes_max / 4 || self.bytes + target.bytes() > self.bytes_max) {
            target = Target::new(&LoadedState::Huge(target.count), target.expires_ms);
        }
        self.bytes += target.bytes();
        let expires_ms = target.expires_ms;
        if let Some(known) = self.known(kind, partition)
            && let Some(before) = known.targets.insert(id.clone(), target)
        {
            self.bytes -= before.bytes();
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
        let removed = self.known(kind, partition).and_then(|known| known.targets.remove(id));
        self.bytes -= removed.map_or(0, |target| target.bytes());
    }

    /// Forgets all targets of a partition, and its tail.
    pub(super) fn clear(&mut self, kind: usize, partition: Partition) {
        if let Some(known) = self.known(kind, partition) {
            let bytes: usize = known.targets.values().map(Target::bytes).sum();
            *known = Known::default();
            self.bytes -= bytes;
        }
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
            self.pop(|target| target.expires_ms == 0);
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
        } else if target.expires_ms != 0 {
            let expires_ms = target.expires_ms;
            self.queue((kind, partition), &id, expires_ms);
        }
    }
}
