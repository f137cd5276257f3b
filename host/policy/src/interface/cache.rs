//! `cache`: the profile of a read out, what may be cached of it back.

use weir_default_policy::rules::cache as rules;
use weir_policy_vectors as vectors;
use weir_policy_vectors::{CacheRule, Call, Keep, Staleness};

use super::Interface;
use crate::bindings::cache;
use crate::call::{Called, Outcome, Role, not_exported};
use crate::instance::Warm;
use crate::module::Module;
use weir_core::model::{self, ReadProfile};

/// Groups that one rule may name, and bytes of each.
const GROUPS_MAX: usize = 32;
const GROUP_BYTES_MAX: usize = 128;
/// Bytes of a reason.
const REASON_BYTES_MAX: usize = 64;

impl Module {
    /// What may be cached.
    pub(crate) fn eligible(
        &self,
        role: Role,
        kind: &str,
        now_ms: u64,
        profile: &vectors::ReadProfile,
    ) -> Outcome<CacheRule> {
        let given = given(profile);
        let call = |warm: &mut Warm| match &warm.exports.cache {
            Some(cache) => cache.call_eligible(&mut warm.store, kind, now_ms, given),
            None => Err(not_exported()),
        };
        self.run(role, Called { interface: Interface::Cache, function: "eligible", kind }, 1, call, check)
    }
}

/// A profile as the rules see it.
pub(crate) fn measured(profile: &ReadProfile) -> vectors::ReadProfile {
    vectors::ReadProfile {
        class: match profile.class {
            "seconds" => Staleness::Seconds,
            "minutes" => Staleness::Minutes,
            "hours" => Staleness::Hours,
            "origin" => Staleness::Origin,
            _ => Staleness::Live,
        },
        requests: profile.requests,
        requests_per_minute: profile.requests_per_minute,
        hit_permille: profile.hit_permille,
        cost_p50_us: profile.cost_p50_us,
        cost_p99_us: profile.cost_p99_us,
        cost_share_permille: profile.cost_share_permille,
        bytes: profile.bytes,
        change_permille: profile.change_permille,
    }
}

/// A profile as the guest gets it.
fn given(profile: &vectors::ReadProfile) -> cache::ReadProfile {
    cache::ReadProfile {
        class: match profile.class {
            Staleness::Live => cache::Staleness::Live,
            Staleness::Seconds => cache::Staleness::Seconds,
            Staleness::Minutes => cache::Staleness::Minutes,
            Staleness::Hours => cache::Staleness::Hours,
            Staleness::Origin => cache::Staleness::Origin,
        },
        requests: profile.requests,
        requests_per_minute: profile.requests_per_minute,
        hit_permille: profile.hit_permille,
        cost_p50_us: profile.cost_p50_us,
        cost_p99_us: profile.cost_p99_us,
        cost_share_permille: profile.cost_share_permille,
        bytes: profile.bytes,
        change_permille: profile.change_permille,
    }
}

/// A rule, or how it breaks the contract.
fn check(rule: cache::CacheRule) -> Result<CacheRule, String> {
    match rule {
        cache::CacheRule::Bypass(reason) => {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            if !(1..=REASON_BYTES_MAX).contains(&reason.len()) || !reason.bytes().all(plain) {
                return Err(format!(
                    "the reason {reason:?} is not 1 to {REASON_BYTES_MAX} letters, digits and hyphens"
                ));
            }
            Ok(CacheRule::Bypass(reason))
        }
        cache::CacheRule::Store(keep) => {
            if keep.groups.len() > GROUPS_MAX {
                return Err(format!("{} groups, over {GROUPS_MAX}", keep.groups.len()));
            }
            if let Some(group) = keep.groups.iter().find(|group| !(1..=GROUP_BYTES_MAX).contains(&group.len())) {
                return Err(format!("group {group:?} is not of 1 to {GROUP_BYTES_MAX} bytes"));
            }
            let cache::Keep { ttl_ms, stale_while_revalidate_ms, stale_if_error_ms, groups } = keep;
            Ok(CacheRule::Store(Keep { ttl_ms, stale_while_revalidate_ms, stale_if_error_ms, groups }))
        }
    }
}

/// The built-in rule.
pub(crate) fn builtin(profile: &ReadProfile) -> model::CacheRule {
    match rules::eligible(&measured(profile)) {
        Ok(keep) => to_rule(CacheRule::Store(keep)),
        Err(reason) => model::CacheRule::Bypass(reason.to_owned()),
    }
}

/// A rule as the host has it: its times are wider, because an origin's may be.
pub(crate) fn to_rule(rule: CacheRule) -> model::CacheRule {
    match rule {
        CacheRule::Bypass(reason) => model::CacheRule::Bypass(reason),
        CacheRule::Store(keep) => model::CacheRule::Store {
            ttl_ms: keep.ttl_ms.into(),
            stale_while_revalidate_ms: keep.stale_while_revalidate_ms.into(),
            stale_if_error_ms: keep.stale_if_error_ms.into(),
            groups: keep.groups,
        },
    }
}

/// A call of `cache.eligible`.
pub(crate) fn record(kind: &str, now_ms: u64, profile: &ReadProfile) -> Call {
    Call::CacheEligible(vectors::CacheEligible { kind: kind.to_owned(), now_ms, profile: measured(profile) })
}
