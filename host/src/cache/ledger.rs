//! Invalidation without walking over entries: a number that grows with each invalidation, and for each group, key and
//! prefix the number at which it was last invalidated. An entry knows the number before its read began; what was invalidated
//! later than that, it must not be told of. So a read that was under way when its table changed is not told either.
//!
//! Bounded: when there are too many marks, everything that was read so far counts as invalidated, and the marks are
//! dropped. Safe, and rare.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use tokio::sync::broadcast;

use super::entry::Stamp;

/// Marks kept; beyond, everything read so far counts as invalidated.
const MARKS_MAX: usize = 65_536;
/// Prefixes kept: each lookup after an invalidation compares them all.
const PREFIXES_MAX: usize = 64;
/// Invalidations that a slow listener may be behind; beyond, it is told that it has missed some.
const HEARD_MAX: usize = 1_024;

/// How an invalidation treats what was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hardness {
    /// It may be told no more.
    Hard,
    /// It is stale: it may be told while somebody reads it anew, or when nobody can.
    Soft,
}

/// What the ledger says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// Nothing that concerns it was invalidated.
    Good,
    /// It is stale.
    Soft,
    /// It may be told no more.
    Hard,
}

/// What was invalidated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The entries of these groups.
    Groups(Vec<String>),
    /// The entry of this key.
    Key(String),
    /// The entries whose key begins so.
    Prefix(String),
    /// Everything.
    All,
}

/// An invalidation, as listeners hear of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalidation {
    /// What.
    pub what: What,
    /// How.
    pub hardness: Hardness,
}

#[derive(Debug, Clone, Copy, Default)]
struct Last {
    hard: u64,
    soft: u64,
}

#[derive(Debug, Default)]
struct Marks {
    groups: HashMap<Box<str>, Last>,
    keys: HashMap<Box<str>, Last>,
    prefixes: Vec<(Box<str>, Last)>,
    /// What began before it is invalid, whatever it is.
    floor: u64,
    /// What began before it is stale, whatever it is.
    floor_soft: u64,
}

/// All invalidations.
#[derive(Debug)]
pub struct Ledger {
    number: AtomicU64,
    marks: RwLock<Marks>,
    heard: broadcast::Sender<Invalidation>,
    /// Invalidations of this host that the others were not told yet.
    untold: AtomicU64,
}

impl Default for Ledger {
    fn default() -> Self {
        let (heard, _) = broadcast::channel(HEARD_MAX);
        Self { number: AtomicU64::new(0), marks: RwLock::default(), heard, untold: AtomicU64::new(0) }
    }
}

impl Last {
    fn set(&mut self, number: u64, hardness: Hardness) {
        match hardness {
            Hardness::Hard => self.hard = number,
            Hardness::Soft => self.soft = number,
        }
    }

    fn judge(self, begun: u64) -> Mark {
        match begun {
            begun if self.hard > begun => Mark::Hard,
            begun if self.soft > begun => Mark::Soft,
            _ => Mark::Good,
        }
    }
}

impl Ledger {
    pub(super) fn stamp(&self) -> Stamp {
        let begun = self.number.load(Ordering::Acquire);
        Stamp { begun, good_at: AtomicU64::new(begun) }
    }

    /// What holds of an entry. Looks at marks only when there was an invalidation since it was last found good.
    pub(super) fn judge(&self, key: &str, groups: &[Box<str>], stamp: &Stamp) -> Mark {
        let number = self.number.load(Ordering::Acquire);
        if stamp.good_at.load(Ordering::Relaxed) == number {
            return Mark::Good;
        }
        let marks = self.marks.read().unwrap_or_else(PoisonError::into_inner);
        let begun = stamp.begun;
        let of_groups = groups.iter().filter_map(|group| marks.groups.get(group));
        let of_prefixes = marks.prefixes.iter().filter(|(prefix, _)| key.starts_with(&**prefix)).map(|(_, last)| last);
        let all = of_groups.chain(marks.keys.get(key)).chain(of_prefixes);
        let of_all = Last { hard: marks.floor, soft: marks.floor_soft };
        let mark = all.map(|last| last.judge(begun)).fold(of_all.judge(begun), Mark::max);
        if mark == Mark::Good {
            stamp.good_at.store(number, Ordering::Relaxed);
        }
        mark
    }

    /// Invalidates the entries of these groups.
    pub fn invalidate_groups<'a>(&self, groups: impl IntoIterator<Item = &'a str>, hardness: Hardness) {
        let groups: Vec<String> = groups.into_iter().map(str::to_owned).collect();
        if !groups.is_empty() {
            self.announce(Invalidation { what: What::Groups(groups), hardness });
        }
    }

    /// Invalidates the entry of this key.
    pub fn invalidate_key(&self, key: &str, hardness: Hardness) {
        self.announce(Invalidation { what: What::Key(key.to_owned()), hardness });
    }

    /// Invalidates the entries whose key begins so.
    pub fn invalidate_prefix(&self, prefix: &str, hardness: Hardness) {
        self.announce(Invalidation { what: What::Prefix(prefix.to_owned()), hardness });
    }

    /// Invalidates everything.
    pub fn invalidate_all(&self, hardness: Hardness) {
        self.announce(Invalidation { what: What::All, hardness });
    }

    fn announce(&self, invalidation: Invalidation) {
        // Before it is applied: who finds that all is told, and begins to read after that, is not told of it too late.
        self.untold.fetch_add(1, Ordering::SeqCst);
        self.apply(&invalidation);
        if self.heard.send(invalidation).is_err() {
            // Nobody listens on a host that is alone.
            self.told(1);
        }
    }

    /// So many invalidations of this host have reached the others.
    pub fn told(&self, count: u64) {
        self.untold.fetch_sub(count, Ordering::SeqCst);
    }

    /// Whether all that was invalidated here has reached the others. Until then what others have kept may be untrue, and
    /// only this host knows.
    pub fn is_told(&self) -> bool {
        self.untold.load(Ordering::SeqCst) == 0
    }

    /// Does what another host announced; listeners of this one do not hear of it.
    pub fn apply(&self, invalidation: &Invalidation) {
        let mut marks = self.marks.write().unwrap_or_else(PoisonError::into_inner);
        // The number moves under the lock, so that whoever sees it finds the marks.
        let number = self.number.fetch_add(1, Ordering::AcqRel) + 1;
        let hardness = invalidation.hardness;
        match &invalidation.what {
            What::Groups(groups) => {
                for group in groups {
                    marks.groups.entry(group.as_str().into()).or_default().set(number, hardness);
                }
            }
            What::Key(key) => marks.keys.entry(key.as_str().into()).or_default().set(number, hardness),
            What::Prefix(prefix) => match marks.prefixes.iter_mut().find(|(known, _)| **known == **prefix) {
                Some((_, last)) => last.set(number, hardness),
                None => {
                    let mut last = Last::default();
                    last.set(number, hardness);
                    marks.prefixes.push((prefix.as_str().into(), last));
                }
            },
            What::All => match hardness {
                Hardness::Hard => marks.floor = number,
                Hardness::Soft => marks.floor_soft = number,
            },
        }
        let too_many = marks.groups.len() + marks.keys.len() > MARKS_MAX || marks.prefixes.len() > PREFIXES_MAX;
        if too_many || marks.floor == number {
            *marks = Marks { floor: number, ..Marks::default() };
        }
    }

    /// Hears of the invalidations of this host from now on.
    pub fn listen(&self) -> broadcast::Receiver<Invalidation> {
        self.heard.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_bounded_and_the_safe_way_round() {
        let ledger = Ledger::default();
        let old = ledger.stamp();
        for number in 0..=MARKS_MAX {
            ledger.invalidate_key(&number.to_string(), Hardness::Soft);
        }
        assert_eq!(ledger.marks.read().unwrap().keys.len(), 0);
        assert_eq!(ledger.judge("another", &[], &old), Mark::Hard);
        assert_eq!(ledger.judge("another", &[], &ledger.stamp()), Mark::Good);
    }

    #[test]
    fn everything_can_become_stale_or_go() {
        let ledger = Ledger::default();
        let (first, second) = (ledger.stamp(), ledger.stamp());
        ledger.invalidate_key("gone", Hardness::Hard);
        ledger.invalidate_all(Hardness::Soft);
        assert_eq!(ledger.judge("kept", &[], &first), Mark::Soft);
        assert_eq!(ledger.judge("gone", &[], &first), Mark::Hard, "what was invalid before stays so");
        assert_eq!(ledger.judge("kept", &[], &ledger.stamp()), Mark::Good);
        ledger.invalidate_all(Hardness::Hard);
        assert_eq!(ledger.judge("kept", &[], &second), Mark::Hard);
    }

    #[test]
    fn only_what_begins_here_is_heard() {
        let ledger = Ledger::default();
        let mut heard = ledger.listen();
        ledger.apply(&Invalidation { what: What::All, hardness: Hardness::Hard });
        ledger.invalidate_groups(["a"], Hardness::Soft);
        let expected = Invalidation { what: What::Groups(vec!["a".into()]), hardness: Hardness::Soft };
        assert_eq!(heard.try_recv().unwrap(), expected);
        assert!(heard.try_recv().is_err());
    }
}
