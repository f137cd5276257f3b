//! The invalidation log: invalidates entries without walking over them.
//!
//! A generation counts invalidations. For each group, key and prefix the log remembers the generation in which it was last
//! purged. An entry carries the generation that was current when its read *started*; any later purge of its key, its groups
//! or a prefix of its key makes it invalid or stale. A read in flight while its table changes is therefore discarded.
//!
//! The log is bounded: when it has too many records, it drops them and treats everything read so far as invalid. That is safe,
//! and rare.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use tokio::sync::broadcast;

use super::entry::Generation;

/// Most records of groups and keys; beyond, everything read so far counts as invalid.
const RECORDS_MAX: usize = 65_536;
/// Most records of prefixes: each lookup after an invalidation compares all of them.
const PREFIXES_MAX: usize = 64;
/// Invalidations that a slow subscriber may be behind; beyond, it learns that it has missed some.
const UNREAD_MAX: usize = 1_024;

/// What an invalidation does to the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurgeMode {
    /// Hard purge: the entry may not be served any more.
    Hard,
    /// Soft purge: the entry is stale. It may be served while a request reads it again, or when no request can.
    Soft,
}

/// What the log says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Validity {
    /// No purge concerns it.
    Valid,
    /// A soft purge made it stale.
    Stale,
    /// A hard purge made it invalid.
    Invalid,
}

/// Which entries an invalidation concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// The entries of these groups.
    Groups(Vec<String>),
    /// The entry of this key.
    Key(String),
    /// The entries whose keys start with this prefix.
    Prefix(String),
    /// Everything.
    All,
}

/// An invalidation, as subscribers receive it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalidation {
    /// Which entries.
    pub scope: Scope,
    /// What it does to them.
    pub mode: PurgeMode,
}

/// The generations of the last purges of one group, key or prefix.
#[derive(Debug, Clone, Copy, Default)]
struct LastPurge {
    hard: u64,
    soft: u64,
}

#[derive(Debug, Default)]
struct Records {
    groups: HashMap<Box<str>, LastPurge>,
    keys: HashMap<Box<str>, LastPurge>,
    prefixes: Vec<(Box<str>, LastPurge)>,
    /// The last purge of everything.
    all: LastPurge,
}

/// All invalidations of a host, shared by its caches.
#[derive(Debug)]
pub struct InvalidationLog {
    generation: AtomicU64,
    records: RwLock<Records>,
    subscribers: broadcast::Sender<Invalidation>,
    /// Invalidations of this host that the other hosts have not received yet.
    unpublished: AtomicU64,
}

impl Default for InvalidationLog {
    fn default() -> Self {
        let (subscribers, _) = broadcast::channel(UNREAD_MAX);
        Self { generation: AtomicU64::new(0), records: RwLock::default(), subscribers, unpublished: AtomicU64::new(0) }
    }
}

impl LastPurge {
    fn set(&mut self, generation: u64, mode: PurgeMode) {
        match mode {
            PurgeMode::Hard => self.hard = generation,
            PurgeMode::Soft => self.soft = generation,
        }
    }

    fn check(self, started: u64) -> Validity {
        match started {
            started if self.hard > started => Validity::Invalid,
            started if self.soft > started => Validity::Stale,
            _ => Validity::Valid,
        }
    }
}

impl InvalidationLog {
    pub(super) fn generation(&self) -> Generation {
        let started = self.generation.load(Ordering::Acquire);
        Generation { started, valid_at: AtomicU64::new(started) }
    }

    /// Checks an entry. Reads the records only when there was an invalidation since it was last found valid.
    pub(super) fn check(&self, key: &str, groups: &[Box<str>], of: &Generation) -> Validity {
        let current = self.generation.load(Ordering::Acquire);
        if of.valid_at.load(Ordering::Relaxed) == current {
            return Validity::Valid;
        }
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        let started = of.started;
        let of_groups = groups.iter().filter_map(|group| records.groups.get(group));
        let of_prefixes =
            records.prefixes.iter().filter(|(prefix, _)| key.starts_with(&**prefix)).map(|(_, last)| last);
        let concerned = of_groups.chain(records.keys.get(key)).chain(of_prefixes);
        let validity = concerned.map(|last| last.check(started)).fold(records.all.check(started), Validity::max);
        if validity == Validity::Valid {
            of.valid_at.store(current, Ordering::Relaxed);
        }
        validity
    }

    /// Invalidates the entries of these groups.
    pub fn invalidate_groups<'a>(&self, groups: impl IntoIterator<Item = &'a str>, mode: PurgeMode) {
        let groups: Vec<String> = groups.into_iter().map(str::to_owned).collect();
        if !groups.is_empty() {
            self.announce(Invalidation { scope: Scope::Groups(groups), mode });
        }
    }

    /// Invalidates the entry of this key.
    pub fn invalidate_key(&self, key: &str, mode: PurgeMode) {
        self.announce(Invalidation { scope: Scope::Key(key.to_owned()), mode });
    }

    /// Invalidates the entries whose keys start with this prefix.
    pub fn invalidate_prefix(&self, prefix: &str, mode: PurgeMode) {
        self.announce(Invalidation { scope: Scope::Prefix(prefix.to_owned()), mode });
    }

    /// Invalidates everything.
    pub fn invalidate_all(&self, mode: PurgeMode) {
        self.announce(Invalidation { scope: Scope::All, mode });
    }

    fn announce(&self, invalidation: Invalidation) {
        // Count before applying: a reader that finds everything published, and starts its read after that, must not miss this
        // invalidation.
        self.unpublished.fetch_add(1, Ordering::SeqCst);
        self.apply(&invalidation);
        if self.subscribers.send(invalidation).is_err() {
            // A host that is alone has no subscriber.
            self.published(1);
        }
    }

    /// `count` invalidations of this host have reached the other hosts.
    pub fn published(&self, count: u64) {
        self.unpublished.fetch_sub(count, Ordering::SeqCst);
    }

    /// Whether all invalidations of this host have reached the other hosts. Until then the entries that other hosts share may
    /// be outdated, and only this host knows.
    pub fn is_published(&self) -> bool {
        self.unpublished.load(Ordering::SeqCst) == 0
    }

    /// Applies an invalidation of another host; subscribers of this one do not receive it.
    pub fn apply(&self, invalidation: &Invalidation) {
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        // The generation moves under the lock, so that every reader of it finds the records.
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        let mode = invalidation.mode;
        match &invalidation.scope {
            Scope::Groups(groups) => {
                for group in groups {
                    records.groups.entry(group.as_str().into()).or_default().set(generation, mode);
                }
            }
            Scope::Key(key) => records.keys.entry(key.as_str().into()).or_default().set(generation, mode),
            Scope::Prefix(prefix) => match records.prefixes.iter_mut().find(|(known, _)| **known == **prefix) {
                Some((_, last)) => last.set(generation, mode),
                None => {
                    let mut last = LastPurge::default();
                    last.set(generation, mode);
                    records.prefixes.push((prefix.as_str().into(), last));
                }
            },
            Scope::All => records.all.set(generation, mode),
        }
        let too_many = records.groups.len() + records.keys.len() > RECORDS_MAX || records.prefixes.len() > PREFIXES_MAX;
        // A hard purge of everything makes all other records redundant; too many records become one.
        if too_many || records.all.hard == generation {
            *records = Records { all: LastPurge { hard: generation, soft: 0 }, ..Records::default() };
        }
    }

    /// Receives the invalidations of this host from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Invalidation> {
        self.subscribers.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_bounded_and_the_safe_way_round() {
        let log = InvalidationLog::default();
        let old = log.generation();
        for number in 0..=RECORDS_MAX {
            log.invalidate_key(&number.to_string(), PurgeMode::Soft);
        }
        assert_eq!(log.records.read().unwrap().keys.len(), 0);
        assert_eq!(log.check("another", &[], &old), Validity::Invalid);
        assert_eq!(log.check("another", &[], &log.generation()), Validity::Valid);
    }

    #[test]
    fn everything_can_become_stale_or_go() {
        let log = InvalidationLog::default();
        let (first, second) = (log.generation(), log.generation());
        log.invalidate_key("gone", PurgeMode::Hard);
        log.invalidate_all(PurgeMode::Soft);
        assert_eq!(log.check("cached", &[], &first), Validity::Stale);
        assert_eq!(log.check("gone", &[], &first), Validity::Invalid, "an invalid entry stays invalid");
        assert_eq!(log.check("cached", &[], &log.generation()), Validity::Valid);
        log.invalidate_all(PurgeMode::Hard);
        assert_eq!(log.check("cached", &[], &second), Validity::Invalid);
    }

    #[test]
    fn subscribers_receive_invalidations_of_this_host_only() {
        let log = InvalidationLog::default();
        let mut received = log.subscribe();
        log.apply(&Invalidation { scope: Scope::All, mode: PurgeMode::Hard });
        log.invalidate_groups(["a"], PurgeMode::Soft);
        let expected = Invalidation { scope: Scope::Groups(vec!["a".into()]), mode: PurgeMode::Soft };
        assert_eq!(received.try_recv().unwrap(), expected);
        assert!(received.try_recv().is_err());
    }
}
