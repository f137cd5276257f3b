//! What the rule says of one read or upstream now, and when it is asked again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

use arc_swap::ArcSwap;
use serde::Serialize;

use super::eligibility::{Eligibility, bounded};
use super::ledger::{Invalidation, Ledger, What};
use super::profile::{Profile, Totals};
use super::{CacheStatus, Forwarded, Hardness, Usage};
use crate::config::Staleness;
use crate::model::CacheRule;

/// What the rule does not keep is tried anew this often, in milliseconds: as if nothing were known of its requests.
const TRY_AGAIN_MS: u64 = 60_000;
/// The word for what has no class of its own.
const ORIGIN: &str = "origin";

/// What rulings stand on.
#[derive(Clone)]
pub struct Rules {
    /// Who says what may be kept.
    pub eligibility: Arc<dyn Eligibility>,
    /// Invalidations: what is kept for longer than it may be now is read anew.
    pub ledger: Arc<Ledger>,
}

/// What a ruling is about.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its name in metrics and for the rule.
    pub name: String,
    /// Without one the origin decides, and the rule may ask for less.
    pub class: Option<Staleness>,
    /// The group of all that is kept of it.
    pub group: String,
    /// A rule may leave times to an origin.
    pub of_origin: bool,
}

/// One read's or upstream's numbers, and what the rule makes of them.
pub struct Ruling {
    subject: Subject,
    rules: Rules,
    profile: Profile,
    /// Read on every request: a lock would be one more thing that all cores write to.
    rule: ArcSwap<CacheRule>,
    /// Who asks the rule.
    asks: Mutex<()>,
    /// Since when the rule keeps nothing, as Unix time; 0 while it does.
    bypassed_ms: AtomicU64,
    usage: Arc<Usage>,
}

/// What operators see of it.
#[derive(Debug, Clone, Serialize)]
pub struct RulingState {
    /// Its class.
    pub class: &'static str,
    /// What the rule says now.
    pub rule: String,
    /// Requests since the host began, or since what is not kept was last tried anew.
    pub requests: u64,
    /// Of 1,000 of them, those that the cache answered.
    pub hit_permille: u32,
    /// Those that were told something stale since the host began.
    pub stale: u64,
    /// Those without an answer since the host began.
    pub failed: u64,
    /// Median time of a reading, in microseconds.
    pub cost_p50_us: u64,
    /// Its 99th percentile.
    pub cost_p99_us: u64,
    /// Time that SQL or the origin did not have to work, in milliseconds.
    pub saved_ms: u64,
    /// What is kept of it.
    pub entries: u64,
    /// The memory of that, in bytes.
    pub bytes: u64,
    /// Dropped for room since the host began.
    pub evictions: u64,
}

impl Ruling {
    /// Keeps nothing until the rule was asked.
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

    /// Its numbers.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Counts what it has in the cache.
    pub fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }

    /// The rule now, within the class.
    pub fn rule(&self) -> Arc<CacheRule> {
        self.rule.load_full()
    }

    /// Why the rule keeps nothing now; `None` where it does.
    pub fn bypasses(&self) -> Option<String> {
        match &**self.rule.load() {
            CacheRule::Bypass(reason) => Some(reason.clone()),
            CacheRule::Store { .. } => None,
        }
    }

    /// A request was answered.
    pub fn told(&self, status: CacheStatus, bytes: usize) {
        if status.forwarded == Some(Forwarded::Method) {
            return self.profile.passed();
        }
        self.profile.told(status.how(), bytes);
    }

    /// Whether to ask the rule; true for one caller in a while.
    pub fn is_due(&self, now_ms: u64) -> bool {
        self.profile.is_due(now_ms)
    }

    /// Shows the profile to the rule, where it has moved. May wait: call it where that is allowed.
    pub fn ask(&self, now_ms: u64) {
        // One at a time, and nobody queues: a rule that is slower than it is asked would take thread after thread.
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
        // Before the invalidation: what begins to be read after it finds the new rule.
        self.rule.store(Arc::new(rule));
        if shorter {
            // What is kept for longer than it may be now is read anew. Other hosts ask the rule themselves.
            let what = What::Groups(vec![self.subject.group.clone()]);
            self.rules.ledger.apply(&Invalidation { what, hardness: Hardness::Soft });
        }
    }

    /// The group of all that is kept of it, and those that the rule names now.
    pub fn groups(&self) -> Vec<String> {
        let mut groups = vec![self.subject.group.clone()];
        if let CacheRule::Store { groups: named, .. } = &*self.rule() {
            groups.extend(named.iter().cloned());
        }
        groups
    }

    /// What operators see.
    pub fn state(&self) -> RulingState {
        let profile = self.profile.look();
        let rule = match (&*self.rule(), self.subject.class) {
            (_, Some(Staleness::Live)) => "bypass: live".to_owned(),
            (CacheRule::Bypass(reason), _) => format!("bypass: {reason}"),
            (CacheRule::Store { ttl_ms, .. }, _) if *ttl_ms >= CacheRule::AS_THE_ORIGIN_SAYS_MS => {
                "store: as the origin says".to_owned()
            }
            (CacheRule::Store { ttl_ms, .. }, _) => format!("store: {ttl_ms} ms"),
        };
        RulingState {
            class: profile.class,
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

/// Whether answers that were kept by the old rule may be older than the new one allows.
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
    use crate::cache::{Cache, CacheLimits, Entry, Freshness, Times};
    use crate::model::ReadProfile;

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
    fn a_shorter_rule_makes_what_is_kept_stale() {
        let says = Arc::new(Says(Mutex::new(store(60_000))));
        let ledger = Arc::new(Ledger::default());
        let rules = Rules { eligibility: says.clone(), ledger: ledger.clone() };
        let subject =
            Subject { name: "r".into(), class: Some(Staleness::Minutes), group: "read:r".into(), of_origin: false };
        let ruling = Ruling::new(subject, rules, Arc::default());
        assert_eq!(*ruling.rule(), CacheRule::Bypass("unknown".into()), "nothing is kept until it was asked");
        ruling.ask(1_000);
        assert_eq!(ruling.groups(), ["read:r", "g"]);
        let cache: Cache<i32> = Cache::new("test", CacheLimits { bytes_max: 1 << 20, waiters_max: 1 }, ledger);
        let times = Times { fresh_until_ms: 60_000, revalidate_until_ms: 60_000, error_until_ms: 60_000 };
        cache.put("k", Entry::new(1, 1, Box::new(["read:r".into()]), cache.stamp(), times, 0));
        let freshness = || cache.get("k", 2_000).map(|(_, freshness)| freshness);
        *says.0.lock().unwrap() = store(90_000);
        ruling.ask(2_000);
        assert_eq!(freshness(), Some(Freshness::Fresh), "a longer rule leaves it");
        *says.0.lock().unwrap() = store(1_000);
        ruling.ask(3_000);
        assert_eq!((ruling.state().rule.as_str(), freshness()), ("store: 1000 ms", Some(Freshness::Stale)));
    }

    #[test]
    fn nobody_queues_for_a_slow_rule() {
        let rules = Rules { eligibility: Arc::new(Says(Mutex::new(store(60_000)))), ledger: Arc::default() };
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
        let rules = Rules { eligibility: says, ledger: Arc::default() };
        let subject = Subject { name: "upstream:r".into(), class: None, group: "upstream:r".into(), of_origin: true };
        let ruling = Ruling::new(subject, rules, Arc::default());
        ruling.told(CacheStatus::hit(1), 5);
        ruling.told(CacheStatus::forwarded(Forwarded::Method), 5);
        ruling.ask(1_000);
        assert_eq!((ruling.state().rule.as_str(), ruling.state().requests), ("bypass: never-repeated", 1));
        ruling.ask(1_000 + TRY_AGAIN_MS);
        assert_eq!(ruling.state().requests, 0);
    }
}
