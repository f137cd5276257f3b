//! Single answer: members that many look-ups ask for at the same time are fetched once. A look-up that asks while a fetch is
//! under way gets its answer; one that asks soon after gets what this host has cached.
//!
//! What is written through this host is forgotten here at once, also where a fetch that began before is still under way: its
//! answer goes to those who asked before the write, and is not cached.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use weir_core::error::Refusal;
use weir_core::model::{Id, Settings};

/// What was fetched of a member: its settings; `None` where it does not exist.
pub(super) type Fetched = Result<Option<Settings>, Refusal>;

/// A fetch under way: what it found, index-aligned with what it was asked for.
pub(super) type FetchAnswer = watch::Receiver<Option<Arc<Vec<Fetched>>>>;
/// Where a fetch sends what it found.
pub(super) type FetchSender = watch::Sender<Option<Arc<Vec<Fetched>>>>;

enum Slot {
    /// Being fetched: by which fetch, at which place in it.
    Pending(FetchAnswer, usize),
    /// Cached until then.
    Cached(Instant, Option<Settings>),
}

/// How a member is answered.
pub(super) enum Claim {
    /// From the cache.
    Cached(Option<Settings>),
    /// By a fetch of somebody else, at that place.
    Joined(FetchAnswer, usize),
    /// By a fetch of the caller's, at that place.
    Mine(usize),
}

/// What look-ups share; see above.
pub(super) struct Share {
    slots: Mutex<Slots>,
    cached_for: Duration,
    entries_max: usize,
}

struct Slots {
    by_member: HashMap<Id, Slot>,
    /// Until then nothing more is cached: it is full, and was looked through.
    full_until: Instant,
}

impl Share {
    /// Caches what is fetched for so long, of so many members at most.
    pub(super) fn new(cached_for: Duration, entries_max: usize) -> Self {
        let slots = Slots { by_member: HashMap::new(), full_until: Instant::now() };
        Self { slots: Mutex::new(slots), cached_for, entries_max }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        // Whole at every moment.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says of each member how it is answered. Those that are the caller's to fetch are handed back: their fetch must be finished.
    pub(super) fn claim(&self, members: &[Id], answer: &FetchAnswer) -> (Vec<Claim>, Vec<Id>) {
        let now = Instant::now();
        let (mut claims, mut mine) = (Vec::with_capacity(members.len()), Vec::new());
        let mut slots = self.slots();
        for member in members {
            let claim = match slots.by_member.get(member) {
                Some(Slot::Cached(until, settings)) if now < *until => Claim::Cached(settings.clone()),
                // A fetch that ended without an answer has died.
                Some(Slot::Pending(answer, place)) if answer.has_changed().is_ok() || answer.borrow().is_some() => {
                    Claim::Joined(answer.clone(), *place)
                }
                _ => {
                    mine.push(member.clone());
                    slots.by_member.insert(member.clone(), Slot::Pending(answer.clone(), mine.len() - 1));
                    Claim::Mine(mine.len() - 1)
                }
            };
            claims.push(claim);
        }
        (claims, mine)
    }

    /// Sends what was fetched to all who wait, and caches it where nothing was written meanwhile.
    pub(super) fn finish(&self, members: Vec<Id>, sender: &FetchSender, found: Vec<Fetched>) {
        let (now, found) = (Instant::now(), Arc::new(found));
        let until = now + self.cached_for;
        let ours = sender.subscribe();
        let mut slots = self.slots();
        for (member, fetched) in members.into_iter().zip(&*found) {
            let is_ours = matches!(slots.by_member.get(&member),
                Some(Slot::Pending(answer, _)) if answer.same_channel(&ours));
            if !is_ours {
                continue;
            }
            match fetched {
                Ok(settings)
                    if !self.cached_for.is_zero() && slots.may_cache(self.entries_max, now, self.cached_for) =>
                {
                    slots.by_member.insert(member, Slot::Cached(until, settings.clone()));
                }
                _ => drop(slots.by_member.remove(&member)),
            }
        }
        drop(slots);
        sender.send_replace(Some(found));
    }

    /// The member was written: later reads go to the store.
    pub(super) fn forget(&self, member: &Id) {
        self.slots().by_member.remove(member);
    }
}

impl Slots {
    /// Whether one more may be cached. Looks through all at most once in the time that anything is cached.
    fn may_cache(&mut self, entries_max: usize, now: Instant, cached_for: Duration) -> bool {
        if self.by_member.len() <= entries_max {
            return true;
        }
        if now < self.full_until {
            return false;
        }
        self.by_member.retain(|_, slot| !matches!(slot, Slot::Cached(until, _) if *until <= now));
        self.full_until = now + cached_for;
        self.by_member.len() <= entries_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::model::Setting;

    fn settings(on: bool) -> Option<Settings> {
        Some(Settings::of([("a", &Setting::Bool(on))]))
    }

    fn begin() -> (FetchSender, FetchAnswer) {
        watch::channel(None)
    }

    #[tokio::test]
    async fn who_asks_during_a_fetch_joins_it_and_who_asks_after_gets_what_is_cached() {
        let share = Share::new(Duration::from_secs(60), 10);
        let (sender, answer) = begin();
        let members = [Id::Int(1), Id::Int(2)];
        let (claims, mine) = share.claim(&members, &answer);
        assert!(matches!(claims[..], [Claim::Mine(0), Claim::Mine(1)]));
        let (_other_sender, other) = begin();
        let (claims, others) = share.claim(&[Id::Int(2), Id::Int(3)], &other);
        assert!(matches!(&claims[..], [Claim::Joined(_, 1), Claim::Mine(0)]));
        assert_eq!(others, [Id::Int(3)]);
        share.finish(mine, &sender, vec![Ok(settings(true)), Err(Refusal::StoreUnavailable)]);
        assert_eq!(answer.borrow().as_ref().unwrap()[0], Ok(settings(true)));
        let (claims, _) = share.claim(&members, &begin().1);
        assert!(matches!(&claims[..], [Claim::Cached(found), Claim::Mine(0)] if *found == settings(true)));
    }

    #[tokio::test]
    async fn what_is_written_meanwhile_is_not_cached() {
        let share = Share::new(Duration::from_secs(60), 10);
        let (sender, answer) = begin();
        let (_, mine) = share.claim(&[Id::Int(1)], &answer);
        share.forget(&Id::Int(1));
        let (later_sender, later) = begin();
        let (claims, later_mine) = share.claim(&[Id::Int(1)], &later);
        assert!(matches!(claims[..], [Claim::Mine(0)]));
        share.finish(mine, &sender, vec![Ok(settings(false))]);
        share.finish(later_mine, &later_sender, vec![Ok(settings(true))]);
        let (claims, _) = share.claim(&[Id::Int(1)], &begin().1);
        assert!(matches!(&claims[..], [Claim::Cached(found)] if *found == settings(true)));
    }

    #[tokio::test]
    async fn a_fetch_that_died_is_begun_anew_and_memory_is_bounded() {
        let share = Share::new(Duration::from_secs(60), 2);
        let (sender, answer) = begin();
        share.claim(&[Id::Int(1)], &answer);
        drop(sender);
        let (sender, answer) = begin();
        let (claims, mine) = share.claim(&[Id::Int(1), Id::Int(2), Id::Int(3), Id::Int(4)], &answer);
        assert!(matches!(claims[0], Claim::Mine(0)));
        share.finish(mine, &sender, vec![Ok(settings(true)); 4]);
        assert!(share.slots().by_member.len() <= 2);
    }
}
