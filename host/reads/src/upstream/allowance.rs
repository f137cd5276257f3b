//! The effect of a rule on a response: less than RFC 9111 allows, or other times where the operator lets a rule loosen.

use hyper::StatusCode;
use hyper::header::HeaderMap;

use super::control::Control;
use super::names::hands_a_credential;
use super::outgoing::Person;
use weir_cache::eligibility::fresh_ms_max;
use weir_core::config::UpstreamConfig;
use weir_core::model::CacheRule;

/// No bound: the response decides.
const AS_IT_SAYS: u64 = u64::MAX;
/// Statuses for which a rule may override the origin.
const LOOSENED_STATUSES: [u16; 6] = [200, 203, 204, 300, 301, 308];

/// How long responses may be stored at most, in milliseconds; a loosening rule replaces their own times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Allowance {
    pub(super) ttl_ms: u64,
    pub(super) revalidate_ms: u64,
    pub(super) error_ms: u64,
    pub(super) groups: Vec<String>,
    loosens: bool,
}

impl Allowance {
    /// The allowance of a rule.
    ///
    /// # Errors
    /// The rule allows nothing, for this reason.
    pub(super) fn of(rule: &CacheRule, config: &UpstreamConfig) -> Result<Self, String> {
        match rule {
            CacheRule::Bypass(reason) => Err(reason.clone()),
            CacheRule::Store { ttl_ms, stale_while_revalidate_ms, stale_if_error_ms, groups } => {
                let leaves = |ms: u64| ms >= CacheRule::AS_THE_ORIGIN_SAYS_MS;
                let time = |ms: u64| if leaves(ms) { AS_IT_SAYS } else { ms };
                Ok(Self {
                    ttl_ms: time(*ttl_ms).min(fresh_ms_max(config.class)),
                    revalidate_ms: time(*stale_while_revalidate_ms),
                    error_ms: time(*stale_if_error_ms),
                    groups: groups.clone(),
                    loosens: config.may_loosen && !leaves(*ttl_ms),
                })
            }
        }
    }

    /// Whether its times replace those of a response. Never for a response to one client: a private one, one that sets a cookie,
    /// or one to a request with a cookie or a credential.
    pub(super) fn loosens(
        &self,
        person: Person,
        (status, headers): (StatusCode, &HeaderMap),
        control: &Control,
    ) -> bool {
        self.loosens
            && LOOSENED_STATUSES.contains(&status.as_u16())
            && !control.private
            && control.fields.is_empty()
            && !headers.keys().any(|name| hands_a_credential(name.as_str()))
            && !person.is_known()
    }

    /// The shorter of the allowed time and the response's own; the allowed time where it is `loosened`.
    pub(super) fn pick(&self, loosened: bool, allowed_ms: u64, said_ms: u64) -> u64 {
        if loosened && allowed_ms != AS_IT_SAYS { allowed_ms } else { said_ms.min(allowed_ms) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::config::Staleness;

    fn store(ttl_ms: u64) -> CacheRule {
        CacheRule::Store { ttl_ms, stale_while_revalidate_ms: 5, stale_if_error_ms: 5, groups: Vec::new() }
    }

    #[test]
    fn a_rule_may_loosen_only_where_the_operator_says_so_and_it_names_a_time() {
        let config = |may_loosen| UpstreamConfig {
            class: Some(Staleness::Seconds),
            may_loosen,
            ..UpstreamConfig::new("shop", "/shop/", "http://127.0.0.1:1")
        };
        let of = |rule: &CacheRule, may_loosen| Allowance::of(rule, &config(may_loosen)).unwrap();
        assert!(!of(&store(5_000), false).loosens && of(&store(5_000), true).loosens);
        let left = of(&store(CacheRule::AS_THE_ORIGIN_SAYS_MS), true);
        assert_eq!((left.loosens, left.ttl_ms), (false, 10_000), "the class bounds it all the same");
        assert_eq!(Allowance::of(&CacheRule::Bypass("no".into()), &config(true)), Err("no".into()));
    }
}
