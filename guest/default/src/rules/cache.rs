//! What is kept of a read.
//!
//! What its class tolerates is kept for most of that time; where the origin decides, all that it allows. Not kept is what would not be told twice: measured over enough
//! requests, what is never repeated, what has changed nearly each time it was read again, and what is so cheap that the
//! cache saves nothing.

/// How old the answers of a read may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staleness {
    /// Not at all.
    Live,
    /// Some seconds.
    Seconds,
    /// Some minutes.
    Minutes,
    /// Some hours.
    Hours,
    /// As the origin says.
    Origin,
}

/// What was measured of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// How old its answers may be.
    pub class: Staleness,
    /// Requests.
    pub requests: u64,
    /// Of 1,000 requests, those that the cache answered.
    pub hit_permille: u32,
    /// 99th percentile of the time of a reading, in microseconds.
    pub cost_p99_us: u64,
    /// Share of the time of all reads, in 1,000 parts.
    pub cost_share_permille: u32,
    /// Mean size of an answer, in bytes.
    pub bytes: u64,
    /// Of 1,000 readings of something known, those that found it changed.
    pub change_permille: u32,
}

/// For how long answers are kept, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// How long an answer is told.
    pub ttl_ms: u32,
    /// How long after that it is told while it is read anew.
    pub stale_while_revalidate_ms: u32,
    /// How long after that it is told when it cannot be read anew.
    pub stale_if_error_ms: u32,
}

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

/// For how long the answers of a read are kept, or why they are not.
///
/// # Errors
/// The reason, as `Cache-Status` tells it.
pub fn eligible(profile: &Profile) -> Result<Keep, &'static str> {
    let (ttl_ms, stale_while_revalidate_ms, stale_if_error_ms) = match profile.class {
        Staleness::Live => return Err("live"),
        Staleness::Seconds => (2_000, 2_000, 30_000),
        Staleness::Minutes => (60_000, 60_000, 600_000),
        Staleness::Hours => (3_600_000, 3_600_000, 86_400_000),
        Staleness::Origin => {
            let as_it_says = AS_THE_ORIGIN_SAYS;
            return Ok(Keep {
                ttl_ms: as_it_says,
                stale_while_revalidate_ms: as_it_says,
                stale_if_error_ms: as_it_says,
            });
        }
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
    Ok(Keep { ttl_ms, stale_while_revalidate_ms, stale_if_error_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_worth_it_is_kept() {
        let profile = |class| Profile {
            class,
            requests: 2_000,
            hit_permille: 900,
            cost_p99_us: 9_000,
            cost_share_permille: 500,
            bytes: 100,
            change_permille: 100,
        };
        let hours = profile(Staleness::Hours);
        let why = |profile: Profile| eligible(&profile).map(|keep| keep.ttl_ms);
        assert_eq!(why(profile(Staleness::Live)), Err("live"));
        assert_eq!([why(profile(Staleness::Seconds)), why(profile(Staleness::Minutes))], [Ok(2_000), Ok(60_000)]);
        assert_eq!(why(Profile { bytes: 5 << 20, ..profile(Staleness::Origin) }), Ok(u32::MAX));
        assert_eq!(why(Profile { bytes: 5 << 20, ..hours }), Err("too-large"));
        assert_eq!(why(Profile { hit_permille: 0, ..hours }), Err("never-repeated"));
        assert_eq!(why(Profile { hit_permille: 0, requests: 999, ..hours }), Ok(3_600_000));
        assert_eq!(why(Profile { hit_permille: 200, change_permille: 1_000, ..hours }), Err("changes-too-often"));
        assert_eq!(why(Profile { cost_p99_us: 50, cost_share_permille: 1, ..hours }), Err("cheap"));
    }
}
