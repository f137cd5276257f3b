//! What is cached of a read.
//!
//! An answer is cached for most of the time that its class tolerates; where the origin decides, for as long as it allows. A
//! read that would not be served twice is not cached: measured over enough requests, one that is never repeated, one that
//! has changed nearly each time it was read again, and one that is so cheap that the cache saves nothing.

use weir_policy_vectors::{Keep, ReadProfile, Staleness};

/// Requests below which a profile says nothing against keeping.
const REQUESTS_MIN: u64 = 1_000;
/// Of 1,000 requests, those that the cache must answer to be worth it.
const HIT_PERMILLE_MIN: u32 = 10;
/// Of 1,000 readings, those that find a change, beyond which keeping is in vain unless half of the requests are hits.
const CHANGE_PERMILLE_MAX: u32 = 950;
/// A read below both is cheap.
const CHEAP_P99_US: u64 = 100;
const CHEAP_SHARE_PERMILLE: u32 = 10;
/// Leaves a time to the origin.
const AS_THE_ORIGIN_SAYS: u32 = u32::MAX;
/// Larger answers are not kept, in bytes.
const BYTES_MAX: u64 = 4 << 20;

/// For how long the answers of a read are cached, or why they are not.
///
/// # Errors
/// The reason, as `Cache-Status` shows it.
pub fn eligible(profile: &ReadProfile) -> Result<Keep, &'static str> {
    let (ttl_ms, stale_while_revalidate_ms, stale_if_error_ms) = match profile.class {
        Staleness::Live => return Err("live"),
        Staleness::Seconds => (2_000, 2_000, 30_000),
        Staleness::Minutes => (60_000, 60_000, 600_000),
        Staleness::Hours => (3_600_000, 3_600_000, 86_400_000),
        Staleness::Origin => return Ok(keep(AS_THE_ORIGIN_SAYS, AS_THE_ORIGIN_SAYS, AS_THE_ORIGIN_SAYS)),
    };
    if profile.bytes > BYTES_MAX {
        return Err("too-large");
    }
    if profile.requests >= REQUESTS_MIN {
        if profile.cost_p99_us < CHEAP_P99_US && profile.cost_share_permille < CHEAP_SHARE_PERMILLE {
            return Err("cheap");
        }
        if profile.hit_permille < HIT_PERMILLE_MIN {
            return Err("never-repeated");
        }
        if profile.change_permille > CHANGE_PERMILLE_MAX && profile.hit_permille < 500 {
            return Err("changes-too-often");
        }
    }
    Ok(keep(ttl_ms, stale_while_revalidate_ms, stale_if_error_ms))
}

fn keep(ttl_ms: u32, stale_while_revalidate_ms: u32, stale_if_error_ms: u32) -> Keep {
    Keep { ttl_ms, stale_while_revalidate_ms, stale_if_error_ms, groups: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_worth_it_is_kept() {
        let profile = |class| ReadProfile {
            class,
            requests: 2_000,
            requests_per_minute: 40,
            hit_permille: 900,
            cost_p50_us: 1_000,
            cost_p99_us: 9_000,
            cost_share_permille: 500,
            bytes: 100,
            change_permille: 100,
        };
        let hours = profile(Staleness::Hours);
        let why = |profile: ReadProfile| eligible(&profile).map(|keep| keep.ttl_ms);
        assert_eq!(why(profile(Staleness::Live)), Err("live"));
        assert_eq!([why(profile(Staleness::Seconds)), why(profile(Staleness::Minutes))], [Ok(2_000), Ok(60_000)]);
        assert_eq!(why(ReadProfile { bytes: 5 << 20, ..profile(Staleness::Origin) }), Ok(u32::MAX));
        assert_eq!(why(ReadProfile { bytes: 5 << 20, ..hours }), Err("too-large"));
        assert_eq!(why(ReadProfile { hit_permille: 0, ..hours }), Err("never-repeated"));
        assert_eq!(why(ReadProfile { hit_permille: 0, requests: 999, ..hours }), Ok(3_600_000));
        assert_eq!(why(ReadProfile { hit_permille: 200, change_permille: 1_000, ..hours }), Err("changes-too-often"));
        assert_eq!(why(ReadProfile { cost_p99_us: 50, cost_share_permille: 1, ..hours }), Err("cheap"));
    }
}
