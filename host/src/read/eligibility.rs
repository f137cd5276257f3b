//! What may be kept, by a rule: a policy module's, or the built-in one.

use crate::config::Staleness;
use crate::model::{CacheRule, ReadProfile};

/// Longest time that an answer of each class is told as fresh, in milliseconds, whatever the rule says.
const SECONDS_MS_MAX: u64 = 10_000;
const MINUTES_MS_MAX: u64 = 600_000;
const HOURS_MS_MAX: u64 = 86_400_000;
/// How long after that it may be told stale.
const STALE_SHARE: u64 = 10;

/// Says what may be kept of a read, from what was measured.
pub trait Eligibility: Send + Sync {
    /// The rule for this profile.
    fn rule(&self, profile: &ReadProfile) -> CacheRule;

    /// Changes when the rules do: then each read is asked for again.
    fn version(&self) -> u64 {
        0
    }
}

/// A rule within what a class allows. `live` is never kept.
pub(super) fn bounded(class: Staleness, rule: CacheRule) -> CacheRule {
    let ms_max = match class {
        Staleness::Live => return CacheRule::Bypass("live".into()),
        Staleness::Seconds => SECONDS_MS_MAX,
        Staleness::Minutes => MINUTES_MS_MAX,
        Staleness::Hours => HOURS_MS_MAX,
    };
    match rule {
        CacheRule::Bypass(reason) => CacheRule::Bypass(token(&reason)),
        CacheRule::Store { ttl_ms, stale_while_revalidate_ms, stale_if_error_ms, groups } => CacheRule::Store {
            ttl_ms: ttl_ms.min(ms_max),
            stale_while_revalidate_ms: stale_while_revalidate_ms.min(ms_max),
            stale_if_error_ms: stale_if_error_ms.min(ms_max.saturating_mul(STALE_SHARE)),
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
        assert_eq!(bounded(Staleness::Live, rule()), CacheRule::Bypass("live".into()));
        let expected = CacheRule::Store {
            ttl_ms: 10_000,
            stale_while_revalidate_ms: 10_000,
            stale_if_error_ms: 1,
            groups: vec!["a".into()],
        };
        assert_eq!(bounded(Staleness::Seconds, rule()), expected);
        assert_eq!(
            bounded(Staleness::Hours, CacheRule::Bypass("not now!".into())),
            CacheRule::Bypass("not-now-".into())
        );
    }
}
