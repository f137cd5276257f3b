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

/// The built-in rule.
///
/// What the class tolerates is kept for most of that time. Not kept is what would not be told twice: measured over enough
/// requests, what is never repeated, what has changed nearly each time it was read again, and what is so cheap that the
/// cache saves nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuiltIn;

/// Requests below which a profile says nothing against keeping.
const REQUESTS_MIN: u64 = 1_000;
/// Share of requests that the cache must answer to be worth it.
const HIT_RATIO_MIN: f64 = 0.01;
/// Share of readings that find a change, beyond which keeping is in vain.
const CHANGE_RATIO_MAX: f64 = 0.95;
/// A read below both is cheap: its 99th percentile, in microseconds, and its share of all time in SQL.
const CHEAP_P99_US: u64 = 100;
const CHEAP_SHARE: f64 = 0.01;
/// Larger answers are not kept, in bytes.
const BYTES_MAX: u64 = 4 << 20;

impl Eligibility for BuiltIn {
    fn rule(&self, profile: &ReadProfile) -> CacheRule {
        let (ttl_ms, stale_while_revalidate_ms, stale_if_error_ms) = match profile.class {
            "seconds" => (2_000, 2_000, 30_000),
            "minutes" => (60_000, 60_000, 600_000),
            "hours" => (3_600_000, 3_600_000, 86_400_000),
            _ => return CacheRule::Bypass("live".into()),
        };
        if profile.bytes > BYTES_MAX {
            return CacheRule::Bypass("too-large".into());
        }
        if profile.requests >= REQUESTS_MIN {
            if profile.cost_p99_us < CHEAP_P99_US && profile.cost_share < CHEAP_SHARE {
                return CacheRule::Bypass("cheap".into());
            }
            // Without a hit in so many requests: each asks for something else.
            if profile.hit_ratio < HIT_RATIO_MIN {
                return CacheRule::Bypass("never-repeated".into());
            }
            if profile.change_ratio > CHANGE_RATIO_MAX && profile.hit_ratio < 0.5 {
                return CacheRule::Bypass("changes-too-often".into());
            }
        }
        CacheRule::Store { ttl_ms, stale_while_revalidate_ms, stale_if_error_ms, groups: Vec::new() }
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

    fn profile(class: &'static str) -> ReadProfile {
        ReadProfile {
            name: "r".into(),
            class,
            requests: 2_000,
            rate: 10.0,
            hit_ratio: 0.9,
            cost_p50_us: 5_000,
            cost_p99_us: 9_000,
            cost_share: 0.5,
            bytes: 100,
            change_ratio: 0.1,
        }
    }

    #[test]
    fn the_built_in_rule_keeps_what_is_worth_it() {
        let why = |profile: ReadProfile| match BuiltIn.rule(&profile) {
            CacheRule::Bypass(reason) => reason,
            CacheRule::Store { ttl_ms, .. } => ttl_ms.to_string(),
        };
        assert_eq!(why(profile("live")), "live");
        assert_eq!([why(profile("seconds")), why(profile("minutes"))], ["2000", "60000"]);
        assert_eq!(why(ReadProfile { bytes: 5 << 20, ..profile("hours") }), "too-large");
        assert_eq!(why(ReadProfile { hit_ratio: 0.0, ..profile("hours") }), "never-repeated");
        assert_eq!(why(ReadProfile { hit_ratio: 0.0, requests: 999, ..profile("hours") }), "3600000");
        assert_eq!(why(ReadProfile { hit_ratio: 0.2, change_ratio: 1.0, ..profile("hours") }), "changes-too-often");
        assert_eq!(why(ReadProfile { cost_p99_us: 50, cost_share: 0.001, ..profile("hours") }), "cheap");
    }

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
