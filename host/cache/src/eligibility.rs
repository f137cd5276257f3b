//! The rule for what may be cached: a policy module's, or the built-in one.

use weir_core::config::Staleness;
use weir_core::model::{CacheRule, ReadProfile};

/// Longest time that an answer of each class is served as fresh, in milliseconds, whatever the rule says.
const SECONDS_MS_MAX: u64 = 10_000;
const MINUTES_MS_MAX: u64 = 600_000;
const HOURS_MS_MAX: u64 = 86_400_000;
/// After that it may be served stale for this many times as long.
const STALE_SHARE: u64 = 10;

/// Decides what may be cached of a read, from its measurements.
pub trait Eligibility: Send + Sync {
    /// The rule for this profile.
    fn rule(&self, profile: &ReadProfile) -> CacheRule;

    /// Changes when the rules do: the host then asks for the rule of each read again.
    fn version(&self) -> u64 {
        0
    }
}

/// Longest time that an answer of a class is served as fresh, in milliseconds; without a class there is no bound.
pub fn fresh_ms_max(class: Option<Staleness>) -> u64 {
    match class {
        Some(Staleness::Live) => 0,
        Some(Staleness::Seconds) => SECONDS_MS_MAX,
        Some(Staleness::Minutes) => MINUTES_MS_MAX,
        Some(Staleness::Hours) => HOURS_MS_MAX,
        None => u64::MAX,
    }
}

/// Cuts a rule to the bounds of a class. `live` is never cached. Where the rule `leaves` times to an origin, those stay.
pub(super) fn bounded(class: Option<Staleness>, leaves: bool, rule: CacheRule) -> CacheRule {
    if class == Some(Staleness::Live) {
        return CacheRule::Bypass("live".into());
    }
    let ms_max = fresh_ms_max(class);
    let within = |ms: u64, ms_max: u64| {
        if leaves && ms >= CacheRule::AS_THE_ORIGIN_SAYS_MS { ms } else { ms.min(ms_max) }
    };
    match rule {
        CacheRule::Bypass(reason) => CacheRule::Bypass(token(&reason)),
        CacheRule::Store { ttl_ms, stale_while_revalidate_ms, stale_if_error_ms, groups } => CacheRule::Store {
            ttl_ms: within(ttl_ms, ms_max),
            stale_while_revalidate_ms: within(stale_while_revalidate_ms, ms_max),
            stale_if_error_ms: within(stale_if_error_ms, ms_max.saturating_mul(STALE_SHARE)),
            groups,
        },
    }
}

/// A reason as `Cache-Status` can carry it.
fn token(reason: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let token: String = reason.chars().take(64).map(plain).collect();
    if token.starts_with(|c: char| c.is_ascii_alphabetic()) { token } else { format!("rule-{token}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_kept_within_its_class() {
        let rule = || CacheRule::Store {
            ttl_ms: u64::MAX,
            stale_while_revalidate_ms: u64::MAX,
            stale_if_error_ms: 1,
            groups: vec!["a".into()],
        };
        assert_eq!(bounded(Some(Staleness::Live), false, rule()), CacheRule::Bypass("live".into()));
        let expected = CacheRule::Store {
            ttl_ms: 10_000,
            stale_while_revalidate_ms: 10_000,
            stale_if_error_ms: 1,
            groups: vec!["a".into()],
        };
        assert_eq!(bounded(Some(Staleness::Seconds), false, rule()), expected);
        assert_eq!(bounded(None, true, rule()), rule());
        let left = CacheRule::Store {
            ttl_ms: u64::MAX,
            stale_while_revalidate_ms: u64::MAX,
            stale_if_error_ms: 1,
            groups: vec!["a".into()],
        };
        assert_eq!(bounded(Some(Staleness::Seconds), true, rule()), left);
        assert_eq!(
            bounded(Some(Staleness::Hours), false, CacheRule::Bypass("not now!".into())),
            CacheRule::Bypass("not-now-".into())
        );
    }
}
