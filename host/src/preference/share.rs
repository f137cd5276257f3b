//! Members that many look-ups ask for at the same time are fetched once: who asks while a fetch is under way gets its
//! answer, and who asks soon after gets what this host has kept.
//!
//! What is written through this host is forgotten here at once, also where a fetch that began before is still under way: its
//! answer goes to those who asked before the write, and is not kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Refusal;
use crate::model::{Id, Settings};

/// What was fetched of a member: its settings; `None` where it does not exist.
pub(super) type Fetched = Result<Option<Settings>, Refusal>;

/// A fetch under way: what it found, index-aligned with what it was asked for.
pub(super) type Flight = watch::Receiver<Option<Arc<Vec<Fetched>>>>;
/// Where a fetch tells what it found.
pub(super) type Landing = watch::Sender<Option<Arc<Vec<Fetched>>>>;

enum Slot {
    /// Being fetched: by which flight, at which place in it.
    Pending(Flight, usize),
    /// Kept until then.
    Kept(Instant, Option<Settings>),
}

/// How a member is answered.
pub(super) enum Claim {
    /// From what is kept.
    Kept(Option<Settings>),
    /// By a flight of somebody else, at that place.
    Joined(Flight, usize),
    /// By a fetch of the caller's, at that place.
    Mine(usize),
}

/// See the room's text.
pub(super) struct Share {
    slots: Mutex<Slots>,
    kept_for: Duration,
    entries_max: usize,
}

struct Slots {
    by_member: HashMap<Id, Slot>,
    /// Until then nothing more is kept: it is full, and was looked through.
    full_until: Instant,
}

impl Share {
    /// Keeps what is fetched for so long, of so many members at most.
    pub(super) fn new(kept_for: Duration, entries_max: usize) -> Self {
        let slots = Slots { by_member: HashMap::new(), full_until: Instant::now() };
        Self { slots: Mutex::new(slots), kept_for, entries_max }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        // Whole at every moment.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says of each member how it is answered. Those that are the caller's to fetch are handed back: their fetch must land.
    pub(super) fn claim(&self, members: &[Id], flight: &Flight) -> (Vec<Claim>, Vec<Id>) {
        let now = Instant::now();
        let (mut claims, mut mine) = (Vec::with_capacity(members.len()), Vec::new());
        let mut slots = self.slots();
        for member in members {
            let claim = match slots.by_member.get(member) {
                Some(Slot::Kept(until, settings)) if now < *until => Claim::Kept(settings.clone()),
                // A fetch that ended without an answer has died.
                Some(Slot::Pending(flight, place)) if flight.has_changed().is_ok() || flight.borrow().is_some() => {
                    Claim::Joined(flight.clone(), *place)
                }
                _ => {
                    mine.push(member.clone());
                    slots.by_member.insert(member.clone(), Slot::Pending(flight.clone(), mine.len() - 1));
                    Claim::Mine(mine.len() - 1)
                }
            };
            claims.push(claim);
        }
        (claims, mine)
    }

    /// Tells what was fetched to all who wait, and keeps it where nothing was written meanwhile.
    pub(super) fn land(&self, members: Vec<Id>, landing: &Landing, found: Vec<Fetched>) {
        let (now, found) = (Instant::now(), Arc::new(found));
        let until = now + self.kept_for;
        let ours = landing.subscribe();
        let mut slots = self.slots();
        for (member, fetched) in members.into_iter().zip(&*found) {
            let is_ours = matches!(slots.by_member.get(&member),
                Some(Slot::Pending(flight, _)) if flight.same_channel(&ours));
            if !is_ours {
                continue;
            }
            match fetched {
                Ok(settings) if !self.kept_for.is_zero() && slots.has_room(self.entries_max, now, self.kept_for) => {
                    slots.by_member.insert(member, Slot::Kept(until, settings.clone()));
                }
                _ => drop(slots.by_member.remove(&member)),
            }
        }
        drop(slots);
        landing.send_replace(Some(found));
    }

    /// The member was written: whoever asks from now on asks the store.
    pub(super) fn forget(&self, member: &Id) {
        self.slots().by_member.remove(member);
    }
}

impl Slots {
    /// Whether one more may be kept. Looks through all at most once in the time that anything is kept.
    fn has_room(&mut self, entries_max: usize, now: Instant, kept_for: Duration) -> bool {
        if self.by_member.len() <= entries_max {
            return true;
        }
        if now < self.full_until {
            return false;
        }
        self.by_member.retain(|_, slot| !matches!(slot, Slot::Kept(until, _) if *until <= now));
        self.full_until = now + kept_for;
        self.by_member.len() <= entries_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Setting;

    fn settings(on: bool) -> Option<Settings> {
        Some(Settings::of([("a", &Setting::Bool(on))]))
    }

    fn fly() -> (Landing, Flight) {
        watch::channel(None)
    }

    #[tokio::test]
    async fn who_asks_during_a_fetch_joins_it_and_who_asks_after_gets_what_is_kept() {
        let share = Share::new(Duration::from_secs(60), 10);
        let (landing, flight) = fly();
        let members = [Id::Int(1), Id::Int(2)];
        let (claims, mine) = share.claim(&members, &flight);
        assert!(matches!(claims[..], [Claim::Mine(0), Claim::Mine(1)]));
        let (_other_landing, other) = fly();
        let (claims, others) = share.claim(&[Id::Int(2), Id::Int(3)], &other);
        assert!(matches!(&claims[..], [Claim::Joined(_, 1), Claim::Mine(0)]));
        assert_eq!(others, [Id::Int(3)]);
        share.land(mine, &landing, vec![Ok(settings(true)), Err(Refusal::StoreUnavailable)]);
        assert_eq!(flight.borrow().as_ref().unwrap()[0], Ok(settings(true)));
        let (claims, _) = share.claim(&members, &fly().1);
        assert!(matches!(&claims[..], [Claim::Kept(found), Claim::Mine(0)] if *found == settings(true)));
    }

    #[tokio::test]
    async fn what_is_written_meanwhile_is_not_kept() {
        let share = Share::new(Duration::from_secs(60), 10);
        let (landing, flight) = fly();
        let (_, mine) = share.claim(&[Id::Int(1)], &flight);
        share.forget(&Id::Int(1));
        let (later_landing, later) = fly();
        let (claims, later_mine) = share.claim(&[Id::Int(1)], &later);
        assert!(matches!(claims[..], [Claim::Mine(0)]));
        share.land(mine, &landing, vec![Ok(settings(false))]);
        share.land(later_mine, &later_landing, vec![Ok(settings(true))]);
        let (claims, _) = share.claim(&[Id::Int(1)], &fly().1);
        assert!(matches!(&claims[..], [Claim::Kept(found)] if *found == settings(true)));
    }

    #[tokio::test]
    async fn a_fetch_that_died_is_begun_anew_and_memory_is_bounded() {
        let share = Share::new(Duration::from_secs(60), 2);
        let (landing, flight) = fly();
        share.claim(&[Id::Int(1)], &flight);
        drop(landing);
        let (landing, flight) = fly();
        let (claims, mine) = share.claim(&[Id::Int(1), Id::Int(2), Id::Int(3), Id::Int(4)], &flight);
        assert!(matches!(claims[0], Claim::Mine(0)));
        share.land(mine, &landing, vec![Ok(settings(true)); 4]);
        assert!(share.slots().by_member.len() <= 2);
    }
}
