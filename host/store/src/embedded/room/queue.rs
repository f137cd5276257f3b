//! One queue in memory: waiting people, active people, and their deadlines.
//!
//! Deadlines are checked lazily: each person has one entry in a heap, and a poll only records its time. When the entry comes up,
//! a person who polled meanwhile gets a later one. Deadlines are in the queue's own time, which stands still while people cannot
//! be served (see [`RoomTimes`]); people see times of the wall clock.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use super::ranked::Ranked;
use crate::queues::{LANE_SCORES, RoomEnd, RoomFigures, RoomResult, RoomTick, RoomTimes, RoomVerb, TICK_PEOPLE_MAX};
use weir_core::model::Id;

/// The status of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Waiting { score: u64, joined_ms: u64 },
    Active { ttl_ms: u64, admitted_ms: u64, has_come: bool },
}

/// A person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) actor: Id,
    pub(super) number: u64,
    pub(super) standing: Standing,
    /// When a waiting person was seen last; when the stay of an active person ends.
    pub(super) time_ms: u64,
    /// The admission by the wall clock: the same in each reply. Earlier versions did not record it.
    pub(super) entered_ms: Option<u64>,
}

/// Changes that must be written to disk.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// New or changed persons; `None` for removed ones.
    pub(super) people: Vec<(Id, Option<Person>)>,
    /// People who take part in the lottery, by place.
    pub(super) draws: Vec<(u64, Id)>,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.people.is_empty() && self.draws.is_empty()
    }
}

/// A crash extends stays by at most this long, in milliseconds: the queue's time is written to disk as often.
const WRITE_TIME_MS: u64 = 5_000;

/// Largest difference between two readings of two clocks, in milliseconds.
const TOLD_MS: i64 = 50;

/// The times that operations need.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// In the queue's time.
    pub(super) now_ms: u64,
    /// By the wall clock.
    pub(super) at_ms: u64,
    pub(super) grace_ms: u64,
    pub(super) ended_ttl_ms: u64,
}

/// People by the time of their next check: time, slot, number.
type Deadlines = BinaryHeap<Reverse<(u64, u32, u64)>>;

/// Slot and number of a person whose check is due.
fn pop_due(deadlines: &mut Deadlines, now_ms: u64) -> Option<(u32, u64)> {
    deadlines.peek().filter(|Reverse((due_ms, ..))| *due_ms <= now_ms)?;
    deadlines.pop().map(|Reverse((_, slot, number))| (slot, number))
}

/// One queue of this store.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) seed: [u8; 32],
    /// The last number of an arrival.
    pub(super) number: u64,
    pub(super) figures: RoomFigures,
    pub(super) draws: u64,
    /// When it was opened, or a person came or left last, in Unix milliseconds.
    pub(super) used_ms: u64,
    /// The group of writes of its last change.
    pub(super) group: u64,
    /// The queue's own time, in milliseconds; `None` for a queue of an earlier version, whose deadlines are Unix times.
    pub(super) time_ms: Option<u64>,
    /// The part of it that is on disk.
    written_ms: u64,
    /// When it advanced last, by the clock that never jumps; `None` since the start.
    heard_ms: Option<u64>,
    /// How far the wall clock is ahead of it, for replies.
    ahead_ms: i64,
    /// The last call, by the wall clock.
    at_ms: u64,
    people: Vec<Option<Person>>,
    free: Vec<u32>,
    index: HashMap<Id, u32>,
    waiting: Ranked,
    /// It was read from disk, and no tick came since.
    is_restored: bool,
    /// Checks of waiting people, and of active people.
    waits: Deadlines,
    stays: Deadlines,
    ended: HashMap<Id, (u64, RoomEnd)>,
    ended_until: VecDeque<(u64, Id, u64)>,
}

impl Queue {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Adds a person from a record.
    pub(super) fn restore(&mut self, person: Person) {
        if matches!(person.standing, Standing::Active { .. }) {
            self.figures.active += 1;
        }
        self.is_restored = true;
        self.put(person, 0);
    }

    /// Advances the queue's time.
    pub(super) fn pass(&mut self, times: &RoomTimes) -> Times {
        let before_ms = self.heard_ms.replace(times.now_ms).unwrap_or(times.now_ms);
        let passed_ms = times.now_ms.saturating_sub(before_ms).min(times.pause_ms_max);
        let now_ms = self.time_ms.unwrap_or(times.at_ms).saturating_add(passed_ms);
        self.time_ms = Some(now_ms);
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        // Replies show the same offset as before unless it has really changed.
        self.at_ms = times.at_ms;
        let ahead_ms = signed(times.at_ms) - signed(now_ms);
        if (ahead_ms - self.ahead_ms).abs() > TOLD_MS {
            self.ahead_ms = ahead_ms;
        }
        Times { now_ms, at_ms: times.at_ms, grace_ms: times.grace_ms, ended_ttl_ms: times.ended_ttl_ms }
    }

    /// Whether enough time has passed, with people in the queue, that it must be written to disk.
    pub(super) fn is_time_to_write(&self) -> bool {
        let is_idle = self.figures.active == 0 && self.waiting.len() == 0;
        !is_idle && self.time_ms.unwrap_or(0) >= self.written_ms.saturating_add(WRITE_TIME_MS)
    }

    /// Records that its present time is on disk.
    pub(super) fn note_written(&mut self) {
        self.written_ms = self.time_ms.unwrap_or(0);
    }

    /// A person who waited through a restart counts as seen at the first tick after it: polls were impossible meanwhile.
    fn wake(&mut self, now_ms: u64, grace_ms: u64) {
        if !std::mem::take(&mut self.is_restored) {
            return;
        }
        self.waits.clear();
        for (slot, person) in self.people.iter_mut().enumerate() {
            if let Some(person) = person
                && matches!(person.standing, Standing::Waiting { .. })
            {
                person.time_ms = person.time_ms.max(now_ms);
                self.waits.push(Reverse((person.time_ms + grace_ms, slot as u32, person.number)));
            }
        }
    }

    /// The figures, with the number of waiting people.
    pub(super) fn figures(&self) -> RoomFigures {
        RoomFigures { waiting: self.waiting.len() as u64, ..self.figures }
    }

    fn put(&mut self, person: Person, grace_ms: u64) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.people.push(None);
            (self.people.len() - 1) as u32
        });
        match person.standing {
            Standing::Waiting { score, .. } => {
                self.waiting.insert(score, slot);
                self.waits.push(Reverse((person.time_ms + grace_ms, slot, person.number)));
            }
            Standing::Active { .. } => self.stays.push(Reverse((person.time_ms, slot, person.number))),
        }
        self.index.insert(person.actor.clone(), slot);
        self.people[slot as usize] = Some(person);
        slot
    }

    fn person(&self, slot: u32) -> Option<&Person> {
        self.people.get(slot as usize)?.as_ref()
    }

    /// Ends a place or a stay.
    fn end(&mut self, slot: u32, mut end: RoomEnd, times: Times, changes: &mut Changes) {
        let Some(person) = self.people.get_mut(slot as usize).and_then(Option::take) else { return };
        self.free.push(slot);
        self.index.remove(&person.actor);
        match person.standing {
            Standing::Waiting { score, .. } => drop(self.waiting.remove(score)),
            Standing::Active { has_come, .. } => {
                self.figures.active -= 1;
                if end == RoomEnd::Expired && !has_come {
                    end = RoomEnd::NoShow;
                }
            }
        }
        let total = match end {
            RoomEnd::Left => &mut self.figures.left,
            RoomEnd::Completed => &mut self.figures.completed,
            RoomEnd::Expired => &mut self.figures.expired,
            RoomEnd::Abandoned => &mut self.figures.abandoned,
            RoomEnd::NoShow => &mut self.figures.no_shows,
        };
        *total += 1;
        self.ended.insert(person.actor.clone(), (person.number, end));
        let until_ms = times.now_ms + times.ended_ttl_ms;
        self.ended_until.push_back((until_ms, person.actor.clone(), person.number));
        changes.people.push((person.actor, None));
    }

    /// Forgets the reasons of ended places and stays whose time is over.
    fn forget_ended(&mut self, now_ms: u64) {
        while let Some((_, actor, number)) = self.ended_until.pop_front_if(|(until_ms, ..)| *until_ms <= now_ms) {
            if self.ended.get(&actor).is_some_and(|(known, _)| *known == number) {
                self.ended.remove(&actor);
            }
        }
    }

    /// The person, unless the stay is over: then this ends it.
    fn find(&mut self, actor: &Id, times: Times, changes: &mut Changes) -> Option<u32> {
        let slot = *self.index.get(actor)?;
        let person = self.person(slot)?;
        if matches!(person.standing, Standing::Active { .. }) && person.time_ms <= times.now_ms {
            self.end(slot, RoomEnd::Expired, times, changes);
            return None;
        }
        Some(slot)
    }

    /// The status, without recording a poll.
    fn told(&self, slot: u32, is_new: bool) -> RoomResult {
        match self.person(slot) {
            None => RoomResult::Unknown,
            Some(Person { number, standing: Standing::Waiting { score, joined_ms }, .. }) => RoomResult::Waiting {
                number: *number,
                ahead: self.waiting.rank(*score),
                lane: u8::try_from(score / LANE_SCORES).unwrap_or(u8::MAX),
                joined_ms: *joined_ms,
                is_new,
            },
            Some(Person { number, standing: Standing::Active { admitted_ms, .. }, time_ms, entered_ms, .. }) => {
                // By the wall clock: the remaining time counts.
                let told_ms = |ms: u64| ms.saturating_add_signed(self.ahead_ms);
                let (until_ms, admitted_ms) = (told_ms(*time_ms), entered_ms.unwrap_or_else(|| told_ms(*admitted_ms)));
                RoomResult::Active { number: *number, until_ms, admitted_ms, is_new }
            }
        }
    }

    /// Whether an operation can be answered without a change that must go to disk. Records a poll in that case.
    pub(super) fn peek(&mut self, (actor, number, verb): (&Id, u64, RoomVerb), now_ms: u64) -> Option<RoomResult> {
        if !matches!(verb, RoomVerb::Poll | RoomVerb::Look) {
            return None;
        }
        let Some(slot) = self.index.get(actor).copied() else { return Some(self.told_ended(actor, number)) };
        let person = self.people.get_mut(slot as usize)?.as_mut()?;
        if person.number != number {
            return Some(self.told_ended(actor, number));
        }
        match &mut person.standing {
            Standing::Waiting { .. } => {
                if verb == RoomVerb::Poll {
                    person.time_ms = person.time_ms.max(now_ms);
                }
            }
            Standing::Active { .. } if person.time_ms <= now_ms => return None,
            Standing::Active { has_come, .. } if !*has_come && verb == RoomVerb::Poll => return None,
            Standing::Active { .. } => {}
        }
        Some(self.told(slot, false))
    }

    fn told_ended(&self, actor: &Id, number: u64) -> RoomResult {
        match self.ended.get(actor) {
            Some((known, end)) if *known == number => RoomResult::Ended { end: *end, is_new: false },
            _ => RoomResult::Unknown,
        }
    }

    /// One operation.
    pub(super) fn apply(
        &mut self,
        (actor, number, verb): (&Id, u64, RoomVerb),
        times: Times,
        waiting_max: u64,
        changes: &mut Changes,
    ) -> RoomResult {
        let found = self.find(actor, times, changes);
        if let RoomVerb::Join { lane, lottery_rank, through_ms } = verb {
            return match found {
                Some(slot) => {
                    self.note_seen(slot, times.now_ms);
                    self.told(slot, false)
                }
                None if through_ms.is_none() && self.waiting.len() as u64 >= waiting_max => RoomResult::Full,
                None => self.join(actor, (lane, lottery_rank, through_ms), times, changes),
            };
        }
        let Some(slot) = found.filter(|slot| self.person(*slot).is_some_and(|person| person.number == number)) else {
            return self.told_ended(actor, number);
        };
        let is_active = self.person(slot).is_some_and(|person| matches!(person.standing, Standing::Active { .. }));
        let end = match verb {
            RoomVerb::Leave if is_active => Some(RoomEnd::Completed),
            RoomVerb::Leave => Some(RoomEnd::Left),
            RoomVerb::Complete if is_active => Some(RoomEnd::Completed),
            _ => None,
        };
        if let Some(end) = end {
            self.end(slot, end, times, changes);
            return RoomResult::Ended { end, is_new: true };
        }
        let is_new = match verb {
            RoomVerb::Poll => {
                self.note_seen(slot, times.now_ms);
                self.note_come(slot, changes)
            }
            RoomVerb::Extend { ttl_ms, stay_ms_max } => self.extend(slot, (ttl_ms, stay_ms_max), times, changes),
            _ => false,
        };
        self.told(slot, is_new)
    }

    fn join(
        &mut self,
        actor: &Id,
        (lane, lottery_rank, through_ms): (u8, Option<u64>, Option<u64>),
        times: Times,
        changes: &mut Changes,
    ) -> RoomResult {
        let now_ms = times.now_ms;
        self.number += 1;
        self.figures.joined += 1;
        let (standing, time_ms) = match through_ms {
            Some(ttl_ms) => {
                self.figures.active += 1;
                self.figures.admitted += 1;
                (Standing::Active { ttl_ms, admitted_ms: now_ms, has_come: true }, now_ms + ttl_ms)
            }
            None => {
                let mut score = u64::from(lane) * LANE_SCORES + lottery_rank.unwrap_or(self.number) % LANE_SCORES;
                while self.waiting.contains(score) {
                    score += 1;
                }
                if lottery_rank.is_some() {
                    changes.draws.push((self.draws, actor.clone()));
                    self.draws += 1;
                }
                (Standing::Waiting { score, joined_ms: times.at_ms }, now_ms)
            }
        };
        let entered_ms = through_ms.map(|_| self.at_ms);
        let person = Person { actor: actor.clone(), number: self.number, standing, time_ms, entered_ms };
        changes.people.push((actor.clone(), Some(person.clone())));
        let slot = self.put(person, times.grace_ms);
        self.told(slot, true)
    }

    fn note_seen(&mut self, slot: u32, now_ms: u64) {
        if let Some(Some(person)) = self.people.get_mut(slot as usize)
            && matches!(person.standing, Standing::Waiting { .. })
        {
            person.time_ms = person.time_ms.max(now_ms);
        }
    }

    /// An admitted person has shown up: the whole stay is theirs.
    fn note_come(&mut self, slot: u32, changes: &mut Changes) -> bool {
        let Some(Some(person)) = self.people.get_mut(slot as usize) else { return false };
        let Standing::Active { ttl_ms, admitted_ms, has_come } = &mut person.standing else { return false };
        if std::mem::replace(has_come, true) {
            return false;
        }
        person.time_ms = person.time_ms.max(*admitted_ms + *ttl_ms);
        changes.people.push((person.actor.clone(), Some(person.clone())));
        true
    }

    fn extend(
        &mut self,
        slot: u32,
        (asked_ms, stay_ms_max): (Option<u64>, u64),
        times: Times,
        changes: &mut Changes,
    ) -> bool {
        let Some(Some(person)) = self.people.get_mut(slot as usize) else { return false };
        let Standing::Active { ttl_ms, admitted_ms, has_come } = &mut person.standing else { return false };
        let until_ms = (times.now_ms + asked_ms.unwrap_or(*ttl_ms)).min(*admitted_ms + stay_ms_max);
        if until_ms <= person.time_ms {
            return false;
        }
        person.time_ms = until_ms;
        *has_come = true;
        changes.people.push((person.actor.clone(), Some(person.clone())));
        true
    }

    /// One step of the clock. Returns the number of admissions, and whether there may be more people to sweep.
    pub(super) fn tick(&mut self, tick: &RoomTick, changes: &mut Changes) -> (u32, bool) {
        let times = self.pass(&tick.times);
        let (now_ms, grace_ms) = (times.now_ms, times.grace_ms);
        self.wake(now_ms, grace_ms);
        self.forget_ended(now_ms);
        let mut work = 0;
        while work < TICK_PEOPLE_MAX
            && let Some((slot, number)) = pop_due(&mut self.stays, now_ms)
        {
            let Some(person) = self.person(slot).filter(|person| person.number == number) else { continue };
            work += 1;
            if person.time_ms <= now_ms {
                self.end(slot, RoomEnd::Expired, times, changes);
            } else {
                self.stays.push(Reverse((person.time_ms, slot, number)));
            }
        }
        while work < TICK_PEOPLE_MAX
            && let Some((slot, number)) = pop_due(&mut self.waits, now_ms)
        {
            let waits =
                |person: &&Person| person.number == number && matches!(person.standing, Standing::Waiting { .. });
            let Some(person) = self.person(slot).filter(waits) else { continue };
            work += 1;
            let due_ms = person.time_ms + grace_ms;
            if due_ms <= now_ms {
                self.end(slot, RoomEnd::Abandoned, times, changes);
            } else {
                self.waits.push(Reverse((due_ms, slot, number)));
            }
        }
        (self.admit(tick, now_ms, changes), work == TICK_PEOPLE_MAX)
    }

    fn admit(&mut self, tick: &RoomTick, now_ms: u64, changes: &mut Changes) -> u32 {
        let space = tick.capacity.saturating_sub(self.figures.active).min(u64::from(tick.admit.min(TICK_PEOPLE_MAX)));
        let slots = self.waiting.first(usize::try_from(space).unwrap_or(usize::MAX));
        for slot in &slots {
            let Some(Some(person)) = self.people.get_mut(*slot as usize) else { continue };
            if let Standing::Waiting { score, .. } = person.standing {
                self.waiting.remove(score);
            }
            person.standing = Standing::Active { ttl_ms: tick.active_ttl_ms, admitted_ms: now_ms, has_come: false };
            person.entered_ms = Some(self.at_ms);
            person.time_ms = now_ms + tick.claim_ms.min(tick.active_ttl_ms);
            self.stays.push(Reverse((person.time_ms, *slot, person.number)));
            changes.people.push((person.actor.clone(), Some(person.clone())));
        }
        self.figures.active += slots.len() as u64;
        self.figures.admitted += slots.len() as u64;
        slots.len() as u32
    }
}
