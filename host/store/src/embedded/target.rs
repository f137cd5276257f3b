//! The state of one target, in memory.

use super::by_id::ById;
use crate::LoadedState;
use crate::count::COUNT_MAX;
use weir_core::model::{Id, Position, Settings};

/// The time of a pair that is known to be absent.
const ABSENT: u64 = u64::MAX;

/// The loaded state of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Missing,
    Whole,
    Huge,
    /// A counter.
    Count,
    /// A document that is in SQL.
    Exists,
    /// A member.
    Settings,
}

impl Mode {
    /// Whether both belong to one capability. A missing target belongs to every one.
    fn fits(self, other: Self) -> bool {
        let capability = |mode| match mode {
            Self::Missing => 0,
            Self::Whole | Self::Huge => 1,
            Self::Count => 2,
            Self::Exists => 3,
            Self::Settings => 4,
        };
        self == Self::Missing || other == Self::Missing || capability(self) == capability(other)
    }
}

/// The state of one actor on a target.
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
    /// SQL holds something else: the target is unloaded when it becomes clean.
    pub(super) invalid: bool,
    pub(super) count: u64,
    /// The newest entry with a change of it; at or below the head's `flushed` when it is clean.
    pub(super) last: Position,
    /// When it expires, in Unix milliseconds; 0 while it is dirty.
    pub(super) expires_ms: u64,
    /// The group of writes that changed it last: no caller learns of the change before that group is on disk.
    pub(super) group: u64,
    /// Its place in the queue of expiries; 0 when it has none. An item with another time is outdated.
    pub(super) queued_ms: u64,
    /// Of a member: its settings.
    pub(super) settings: Settings,
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
            settings: Settings::default(),
            pairs: ById::default(),
            dirty: ById::default(),
        };
        match state {
            LoadedState::Missing => {}
            LoadedState::Exists => target.mode = Mode::Exists,
            LoadedState::Settings(settings) => (target.mode, target.settings) = (Mode::Settings, settings.clone()),
            LoadedState::Count(count) => (target.mode, target.count) = (Mode::Count, (*count).min(COUNT_MAX)),
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

    /// Whether it is valid at `now_ms`.
    pub(super) fn is_known(&self, now_ms: u64) -> bool {
        self.is_dirty() || now_ms < self.expires_ms
    }

    /// Whether it has changes that are not trimmed yet.
    pub(super) fn is_dirty(&self) -> bool {
        self.expires_ms == 0
    }

    /// Whether it stays when `load` comes from SQL at `now_ms`, because it is loaded. State that an earlier capability of the
    /// kind left does not stay.
    pub(super) fn stays(&self, load: &Self, now_ms: u64) -> bool {
        self.is_dirty() || (self.is_known(now_ms) && self.mode.fits(load.mode))
    }

    /// The newest entry with a change of it, or 0 where SQL holds all of them.
    pub(super) fn position(&self, flushed: Position) -> Position {
        if self.last > flushed { self.last } else { 0 }
    }

    pub(super) fn pair(&self, actor: &Id) -> Pair {
        match self.pairs.get(actor) {
            Some(&ABSENT) => Pair::Absent,
            Some(&since_ms) => Pair::Present(since_ms),
            None if self.mode == Mode::Huge => Pair::Unknown,
            None => Pair::Absent,
        }
    }

    /// Sets the present state of a pair. Does not change the count.
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

    /// Records that the entry at `position`, of the group `group`, changed it.
    pub(super) fn touch(&mut self, position: Position, group: u64) {
        (self.last, self.expires_ms, self.group) = (position, 0, group);
    }

    /// Records that the entry at `position` changed a pair, in addition to [`Target::touch`].
    pub(super) fn touch_pair(&mut self, actor: &Id, position: Position) {
        if self.mode == Mode::Huge {
            self.dirty.insert(actor, position);
        }
    }

    /// Changes up to `flushed` are in SQL: they leave the overlay.
    pub(super) fn forget_dirty(&mut self, flushed: Position) {
        self.dirty.retain(|position| *position > flushed);
    }

    /// Known pairs: of a huge target those that were loaded or changed.
    pub(super) fn pairs_known(&self) -> u64 {
        self.pairs.len() as u64
    }

    pub(super) fn forget_pairs(&mut self) {
        (self.pairs, self.dirty) = (ById::default(), ById::default());
    }

    /// The present actors, and since when.
    pub(super) fn members(&self) -> impl Iterator<Item = (Id, u64)> {
        self.pairs.iter().filter(|(_, since_ms)| **since_ms != ABSENT).map(|(actor, since_ms)| (actor, *since_ms))
    }

    /// The pairs of the overlay over SQL.
    pub(super) fn dirty(&self) -> impl Iterator<Item = (Id, Pair)> {
        self.dirty.iter().map(|(actor, _)| {
            let pair = self.pair(&actor);
            (actor, pair)
        })
    }

    /// Its memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<(Id, Self)>() + self.settings.as_bytes().len() + self.pairs.bytes() + self.dirty.bytes()
    }
}
