//! The rule of one read or upstream now, and when the host asks for it again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

use arc_swap::ArcSwap;

use super::eligibility::{Eligibility, bounded};
use super::invalidation::{Invalidation, InvalidationLog, Scope};
use super::profile::{Profile, Totals};
use super::{CacheStatus, Forwarded, PurgeMode, Usage};
use weir_core::config::Staleness;
use weir_core::model::CacheRule;
use weir_core::operators::CacheUse;

/// The host asks for the rule of a read that is not cached this often, in milliseconds, as if it had no measurements.
const TRY_AGAIN_MS: u64 = 60_000;
/// The class of reads without one of their own.
const ORIGIN: &str = "origin";

/// What all rulings share.
#[derive(Clone)]
pub struct Rules {
    /// Decides what may be cached.
    pub eligibility: Arc<dyn Eligibility>,
    /// Invalidates entries that are cached for longer than a new rule allows.
    pub invalidations: Arc<InvalidationLog>,
}

/// The read or upstream of a ruling.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its name in metrics and for the rule.
    pub name: String,
    /// Its class. Without one the origin decides, and the rule may ask for less.
    pub class: Option<Staleness>,
    /// The group of all its entries.
    pub group: String,
    /// A rule may leave times to an origin.
    pub of_origin: bool,
}

/// One read's or upstream's measurements, and the rule that follows from them.
pub struct Ruling {
    subject: Subject,
    rules: Rules,
    profile: Profile,
    /// Read on every request: a lock would be one more thing that all cores write to.
    rule: ArcSwap<CacheRule>,
    /// Held by the caller that asks for the rule.
    asks: Mutex<()>,
    /// Since when the rule caches nothing, in milliseconds; 0 while it does.
    bypassed_ms: AtomicU64,
    usage: Arc<Usage>,
}

impl Ruling {
    /// A ruling that caches nothing until [`Ruling::ask`].
    pub fn new(subject: Subject, rules: Rules, totals: Arc<Totals>) -> Self {
        let profile = Profile::new(&subject.name, subject.class.map_or(ORIGIN, Staleness::as_str), totals);
        let rule = ArcSwap::from_pointee(CacheRule::Bypass("unknown".into()));
        Self {
            subject,
            rules,
            profile,
            rule,
            asks: Mutex::default(),
            bypassed_ms: AtomicU64::new(0),
            usage: Arc::default(),
        }
    }

    /// Its measurements.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Counts its entries in the cache.
    pub fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }

    /// The rule now, within the class.
    pub fn rule(&self) -> Arc<CacheRule> {
        self.rule.load_full()
    }

    /// Why the rule caches nothing now; `None` where it does.
    pub fn bypasses(&self) -> Option<String> {
        match &**self.rule.load() {
            CacheRule::Bypass(reason) => Some(reason.clone()),
            CacheRule::Store { .. } => None,
        }
    }

    /// Counts a request that was answered.
    pub fn served(&self, status: CacheStatus, bytes: usize) {
        if status.forwarded == Some(Forwarded::Method) {
            return self.profile.passed();
        }
        self.profile.served(status.how(), bytes);
    }

    /// Whether to ask for the rule; true for one caller per window.
    pub fn is_due(&self, now_ms: u64) -> bool {
        self.profile.is_due(now_ms)
    }

    /// Shows the profile to the rule, if it has moved. Blocks: call it on a thread that may wait.
    pub fn ask(&self, now_ms: u64) {
        // One caller at a time, and none queues: a slow rule would otherwise take thread after thread.
        let _one = match self.asks.try_lock() {
            Ok(one) => one,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let bypassed_ms = self.bypassed_ms.load(Ordering::Relaxed);
        if bypassed_ms != 0 && now_ms >= bypassed_ms + TRY_AGAIN_MS && self.subject.class != Some(Staleness::Live) {
            self.profile.forget();
            self.bypassed_ms.store(now_ms, Ordering::Relaxed);
        }
        let Some(profile) = self.profile.take(now_ms, self.rules.eligibility.version()) else { return };
        let rule = bounded(self.subject.class, self.subject.of_origin, self.rules.eligibility.rule(&profile));
        let known = self.rule.load_full();
        if *known == rule {
            return;
        }
        let since_ms = if matches!(rule, CacheRule::Bypass(_)) { now_ms } else { 0 };
        self.bypassed_ms.store(since_ms, Ordering::Relaxed);
        tracing::debug!(name = self.subject.name, ?rule, "the rule of a read has changed");
        let shorter = shortens(&known, &rule);
        // Store the rule before the invalidation: a load that starts after it must find the new rule.
        self.rule.store(Arc::new(rule));
        if shorter {
            // Entries that are cached for longer than the new rule allows become stale. Other hosts ask for the rule themselves.
            let scope = Scope::Groups(vec![self.subject.group.clone()]);
            self.rules.invalidations.apply(&Invalidation { scope, mode: PurgeMode::Soft });
        }
    }

    /// The group of all its entries, and the groups that the rule names now.
    pub fn groups(&self) -> Vec<String> {
        let mut groups = vec![self.subject.group.clone()];
        if let CacheRule::Store { groups: named, .. } = &*self.rule() {
            groups.extend(named.iter().cloned());
        }
        groups
    }

    /// What operators see.
    pub fn state(&self) -> CacheUse {
        let profile = self.profile.look();
        let rule = match (&*self.rule(), self.subject.class) {
            (_, Some(Staleness::Live)) => "bypass: live".to_owned(),
            (CacheRule::Bypass(reason), _) => format!("bypass: {reason}"),
            (CacheRule::Store { ttl_ms, .. }, _) if *ttl_ms >= CacheRule::AS_THE_ORIGIN_SAYS_MS => {
                "store: as the origin says".to_owned()
            }
            (CacheRule::Store { ttl_ms, .. }, _) => format!("store: {ttl_ms} ms"),
        };
        CacheUse {
            class: profile.class.to_owned(),
            rule,
            requests: profile.requests,
            hit_permille: profile.hit_permille,
            stale: self.profile.stale(),
            failed: self.profile.failures(),
            cost_p50_us: profile.cost_p50_us,
            cost_p99_us: profile.cost_p99_us,
            saved_ms: self.profile.saved_us() / 1_000,
            entries: self.usage.entries(),
            bytes: self.usage.bytes(),
            evictions: self.usage.evictions(),
        }
    }
}

/// Whether answers that the old rule cached may be older than the new one allows.
fn shortens(old: &CacheRule, new: &CacheRule) -> bool {
    match (old, new) {
        (CacheRule::Store { ttl_ms: old_ms, .. }, CacheRule::Store { ttl_ms: new_ms, .. }) => new_ms < old_ms,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{Cache, CacheLimits, Entry, Freshness, Times};
    use weir_core::model::ReadProfile;

    struct Says(Mutex<CacheRule>);

    impl Eligibility for Says {
        fn rule(&self, _: &ReadProfile) -> CacheRule {
            self.0.lock().unwrap().clone()
        }

        fn version(&self) -> u64 {
            match &*self.0.lock().unwrap() {
                CacheRule::Store { ttl_ms, .. } => *ttl_ms,
                CacheRule::Bypass(_) => 1,
            }
        }
    }

    fn store(ttl_ms: u64) -> CacheRule {
        CacheRule::Store { ttl_ms, stale_while_revalidate_ms: 0, stale_if_error_ms: 0, groups: vec!["g".into()] }
    }

    #[test]
    fn a_shorter_rule_makes_cached_entries_stale() {
        let says = Arc::new(Says(Mutex::new(store(60_000))));
        let log = Arc::new(InvalidationLog::default());
        let rules = Rules { eligibility: says.clone(), invalidations: log.clone() };
        let subject =
            Subject { name: "r".into(), class: Some(Staleness::Minutes), group: "read:r".into(), of_origin: false };
        let ruling = Ruling::new(subject, rules, Arc::default());
        assert_eq!(*ruling.rule(), CacheRule::Bypass("unknown".into()), "it caches nothing before the first ask");
        ruling.ask(1_000);
        assert_eq!(ruling.groups(), ["read:r", "g"]);
        let cache: Cache<i32> = Cache::new("test", CacheLimits { bytes_max: 1 << 20, waiters_max: 1 }, log);
        let times = Times { fresh_until_ms: 60_000, revalidate_until_ms: 60_000, error_until_ms: 60_000 };
        cache.put("k", Entry::new(1, 1, Box::new(["read:r".into()]), cache.generation(), times, 0));
        let freshness = || cache.get("k", 2_000).map(|(_, freshness)| freshness);
        *says.0.lock().unwrap() = store(90_000);
        ruling.ask(2_000);
        assert_eq!(freshness(), Some(Freshness::Fresh), "a longer rule leaves it");
        *says.0.lock().unwrap() = store(1_000);
        ruling.ask(3_000);
        assert_eq!((ruling.state().rule.as_str(), freshness()), ("store: 1000 ms", Some(Freshness::Stale)));
    }

    #[test]
    fn no_caller_queues_for_a_slow_rule() {
        let rules = Rules { eligibility: Arc::new(Says(Mutex::new(store(60_000)))), invalidations: Arc::default() };
        let subject = Subject { name: "r".into(), class: None, group: "read:r".into(), of_origin: true };
        let ruling = Ruling::new(subject, rules, Arc::default());
        let asking = ruling.asks.lock().unwrap();
        ruling.ask(1_000);
        assert_eq!(ruling.state().rule, "bypass: unknown", "it is left to the one who asks");
        drop(asking);
        ruling.ask(2_000);
        assert_eq!(ruling.state().rule, "store: 60000 ms");
    }

    #[test]
    fn what_is_bypassed_is_tried_anew() {
        let says = Arc::new(Says(Mutex::new(CacheRule::Bypass("never-repeated".into()))));
        let rules = Rules { eligibility: says, invalidations: Arc::default() };
        let subject = Subject { name: "upstream:r".into(), class: None, group: "upstream:r".into(), of_origin: true };
        let ruling = Ruling::new(subject, rules, Arc::default());
        ruling.served(CacheStatus::hit(1), 5);
        ruling.served(CacheStatus::forwarded(Forwarded::Method), 5);
        ruling.ask(1_000);
        assert_eq!((ruling.state().rule.as_str(), ruling.state().requests), ("bypass: never-repeated", 1));
        ruling.ask(1_000 + TRY_AGAIN_MS);
        assert_eq!(ruling.state().requests, 0);
    }
}
