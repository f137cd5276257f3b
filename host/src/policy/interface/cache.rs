//! `cache`: the profile of a read out, what may be kept of it back.

use weir_default_policy::rules::cache as rules;
use weir_policy_vectors as vectors;
use weir_policy_vectors::{Answer, Call};

use super::Interface;
use crate::model::{CacheRule, ReadProfile};
use crate::policy::bindings::cache;
use crate::policy::call::{Called, Outcome, Role, not_exported};
use crate::policy::instance::Warm;
use crate::policy::module::Module;

/// Groups that one rule may name, and bytes of each.
const GROUPS_MAX: usize = 32;
const GROUP_BYTES_MAX: usize = 128;
/// Bytes of a reason.
const REASON_BYTES_MAX: usize = 64;

impl Module {
    /// What may be kept.
    pub(in crate::policy) fn eligible(
        &self,
        role: Role,
        kind: &str,
        now_ms: u64,
        profile: &ReadProfile,
    ) -> Outcome<CacheRule> {
        let given = given(profile);
        let call = |warm: &mut Warm| match &warm.exports.cache {
            Some(cache) => cache.call_eligible(&mut warm.store, kind, now_ms, given),
            None => Err(not_exported()),
        };
        self.run(role, Called { interface: Interface::Cache, function: "eligible", kind }, 1, call, check)
    }
}

/// A profile as the guest gets it.
fn given(profile: &ReadProfile) -> cache::ReadProfile {
    cache::ReadProfile {
        class: match profile.class {
            "seconds" => cache::Staleness::Seconds,
            "minutes" => cache::Staleness::Minutes,
            "hours" => cache::Staleness::Hours,
            "origin" => cache::Staleness::Origin,
            _ => cache::Staleness::Live,
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
            Ok(CacheRule::Store {
                ttl_ms: keep.ttl_ms.into(),
                stale_while_revalidate_ms: keep.stale_while_revalidate_ms.into(),
                stale_if_error_ms: keep.stale_if_error_ms.into(),
                groups: keep.groups,
            })
        }
    }
}

/// The built-in rule.
pub(in crate::policy) fn builtin(profile: &ReadProfile) -> CacheRule {
    let known = rules::Profile {
        class: match profile.class {
            "seconds" => rules::Staleness::Seconds,
            "minutes" => rules::Staleness::Minutes,
            "hours" => rules::Staleness::Hours,
            "origin" => rules::Staleness::Origin,
            _ => rules::Staleness::Live,
        },
        requests: profile.requests,
        hit_permille: profile.hit_permille,
        cost_p99_us: profile.cost_p99_us,
        cost_share_permille: profile.cost_share_permille,
        bytes: profile.bytes,
        change_permille: profile.change_permille,
    };
    match rules::eligible(&known) {
        Ok(keep) => CacheRule::Store {
            ttl_ms: keep.ttl_ms.into(),
            stale_while_revalidate_ms: keep.stale_while_revalidate_ms.into(),
            stale_if_error_ms: keep.stale_if_error_ms.into(),
            groups: Vec::new(),
        },
        Err(reason) => CacheRule::Bypass(reason.to_owned()),
    }
}

/// A call of `cache.eligible`.
pub(in crate::policy) fn record(kind: &str, now_ms: u64, profile: &ReadProfile) -> Call {
    let profile = vectors::ReadProfile {
        class: match profile.class {
            "seconds" => vectors::Staleness::Seconds,
            "minutes" => vectors::Staleness::Minutes,
            "hours" => vectors::Staleness::Hours,
            "origin" => vectors::Staleness::Origin,
            _ => vectors::Staleness::Live,
        },
        requests: profile.requests,
        requests_per_minute: profile.requests_per_minute,
        hit_permille: profile.hit_permille,
        cost_p50_us: profile.cost_p50_us,
        cost_p99_us: profile.cost_p99_us,
        cost_share_permille: profile.cost_share_permille,
        bytes: profile.bytes,
        change_permille: profile.change_permille,
    };
    Call::CacheEligible(vectors::CacheEligible { kind: kind.to_owned(), now_ms, profile })
}

/// The answer of `cache.eligible`.
pub(in crate::policy) fn record_rule(rule: &CacheRule) -> Answer {
    // What a guest answered fits: it came as 32 bits.
    let ms = |ms: u64| u32::try_from(ms).unwrap_or(u32::MAX);
    Answer::Cache(match rule {
        CacheRule::Bypass(reason) => vectors::CacheRule::Bypass(reason.clone()),
        CacheRule::Store { ttl_ms, stale_while_revalidate_ms, stale_if_error_ms, groups } => {
            vectors::CacheRule::Store(vectors::Keep {
                ttl_ms: ms(*ttl_ms),
                stale_while_revalidate_ms: ms(*stale_while_revalidate_ms),
                stale_if_error_ms: ms(*stale_if_error_ms),
                groups: groups.clone(),
            })
        }
    })
}

/// A recorded profile.
pub(in crate::policy) fn to_profile(kind: &str, profile: &vectors::ReadProfile) -> ReadProfile {
    ReadProfile {
        name: kind.to_owned(),
        class: match profile.class {
            vectors::Staleness::Live => "live",
            vectors::Staleness::Seconds => "seconds",
            vectors::Staleness::Minutes => "minutes",
            vectors::Staleness::Hours => "hours",
            vectors::Staleness::Origin => "origin",
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
