//! A stored response, and the decision whether and for how long to store it (RFC 9111, sections 3 and 4.2).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderName};

use super::allowance::Allowance;
use super::control::{Control, Wishes, joined, split};
use super::events::is_events;
use super::names::hands_a_credential;
use super::outgoing::Person;
use weir_cache::Times;
use weir_core::config::UpstreamConfig;

/// Names of the groups that a response belongs to (RFC 9875).
const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
/// Most groups of one response, and most bytes of a name: the minimum that the RFC asks of caches.
const GROUPS_MAX: usize = 32;
const GROUP_BYTES_MAX: usize = 128;
/// Statuses that a cache may store without an explicit lifetime (RFC 9110, section 15.1), except 206.
const HEURISTIC_STATUSES: [u16; 11] = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];
/// Statuses whose caching semantics weir implements; a response with `must-understand` is stored only with one of them.
const UNDERSTOOD_STATUSES: [u16; 27] = [
    200, 203, 204, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 406, 409, 410, 411, 412, 413, 414, 421, 500,
    501, 502, 503, 504,
];
/// The heuristic lifetime is the time since `Last-Modified`, divided by this.
const HEURISTIC_SHARE: u64 = 10;

/// An entry of the cache.
#[derive(Debug)]
pub(super) enum Cached {
    /// A response.
    Response(Box<Stored>),
    /// The variants are under keys of their own, by the values of these request headers.
    Vary(Box<[HeaderName]>),
    /// Under the key of a single flight: the response may not be stored, so requests for it need not wait for each other.
    Private,
}

/// A response.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// When it was received or validated, by the clock that never jumps.
    pub(super) response_ms: u64,
    /// Its age then.
    pub(super) initial_age_ms: u64,
    pub(super) lifetime_ms: u64,
    /// It may not be served without validation.
    pub(super) no_cache: bool,
    /// It may never be served stale.
    pub(super) strict: bool,
    /// See [`Verdict::anonymous_only`].
    pub(super) anonymous_only: bool,
    /// After a failure of the origin it is served without a request until then.
    pub(super) backoff_until_ms: AtomicU64,
}

/// When a request was sent and its answer received, by the clock that never jumps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moments {
    pub(super) request_ms: u64,
    pub(super) response_ms: u64,
    /// How far the wall clock is ahead of that clock.
    pub(super) ahead_ms: i64,
}

impl Moments {
    /// When the answer was received, in Unix time as in the headers.
    fn received_ms(self) -> u64 {
        self.response_ms.saturating_add_signed(self.ahead_ms)
    }
}

/// How a response may be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) times: Times,
    pub(super) initial_age_ms: u64,
    pub(super) lifetime_ms: u64,
    pub(super) no_cache: bool,
    pub(super) strict: bool,
    /// Names of headers that are not stored.
    pub(super) fields: Vec<String>,
    /// Names of the request headers that it depends on.
    pub(super) vary: Vec<HeaderName>,
    /// The origin gave no lifetime, or a rule loosened it: it is not served to requests with an identity.
    pub(super) anonymous_only: bool,
}

/// What the decision depends on besides the response.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) config: &'a UpstreamConfig,
    pub(super) allowance: &'a Allowance,
    /// The identity in the request.
    pub(super) person: Person,
    /// The request says `no-store`, and may.
    pub(super) no_store: bool,
}

impl Stored {
    /// Its age.
    pub(super) fn age_ms(&self, now_ms: u64) -> u64 {
        self.initial_age_ms.saturating_add(now_ms.saturating_sub(self.response_ms))
    }

    /// How long it stays fresh; negative when it is stale.
    pub(super) fn ttl_ms(&self, now_ms: u64) -> i64 {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        signed(self.lifetime_ms).saturating_sub(signed(self.age_ms(now_ms)))
    }

    /// Whether it can be validated.
    pub(super) fn has_validator(&self) -> bool {
        self.headers.contains_key(header::ETAG) || self.headers.contains_key(header::LAST_MODIFIED)
    }

    /// Whether a request accepts it although it is stale, or rejects it although it is fresh; `None` where the request leaves that
    /// to the cache.
    pub(super) fn wanted(&self, wishes: &Wishes, now_ms: u64) -> Option<bool> {
        let (age_s, ttl_ms) = (self.age_ms(now_ms) / 1_000, self.ttl_ms(now_ms));
        let seconds = |ms: i64| u64::try_from(ms / 1_000).unwrap_or(0);
        if wishes.no_cache
            || wishes.max_age_s.is_some_and(|max| age_s > max || max == 0)
            || wishes.min_fresh_s.is_some_and(|min| ttl_ms <= 0 || seconds(ttl_ms) < min)
        {
            return Some(false);
        }
        let stale_s = seconds(ttl_ms.saturating_neg());
        (ttl_ms <= 0 && !self.no_cache && !self.strict && wishes.max_stale_s.is_some_and(|max| stale_s <= max))
            .then_some(true)
    }

    /// Serves it without a request until then, because the origin has failed.
    pub(super) fn back_off(&self, until_ms: u64) {
        self.backoff_until_ms.store(until_ms, Ordering::Relaxed);
    }

    /// Whether the backoff after a failure of the origin lasts.
    pub(super) fn is_backing_off(&self, now_ms: u64) -> bool {
        self.backoff_until_ms.load(Ordering::Relaxed) > now_ms
    }
}

/// Whether and for how long a response to a GET may be stored.
///
/// # Errors
/// The reason why not, as a token.
pub(super) fn judge(
    (status, headers): (StatusCode, &HeaderMap),
    at: Moments,
    terms: Terms<'_>,
) -> Result<Verdict, &'static str> {
    let Terms { allowance, person, .. } = terms;
    // An event stream has no end.
    if is_events(headers) {
        return Err("event-stream");
    }
    let control = Control::of(headers);
    let loosened = allowance.loosens(person, (status, headers), &control);
    let mut control = if loosened { control.loosened() } else { control };
    let understood = UNDERSTOOD_STATUSES.contains(&status.as_u16());
    may_be_stored(status, &control, understood)?;
    may_be_shared(headers, &control, terms)?;
    control.fields.extend(headers.keys().map(|name| name.as_str().to_owned()).filter(|name| hands_a_credential(name)));
    let vary = vary(headers)?;
    let explicit_ms = explicit_lifetime_ms(&control, headers, at);
    let said_ms = match explicit_ms {
        Some(lifetime_ms) => lifetime_ms,
        None => heuristic_ms(status, headers, &control, at, terms)?,
    };
    let lifetime_ms = allowance.pick(loosened, allowance.ttl_ms, said_ms);
    let initial_age_ms = initial_age_ms(headers, at);
    let strict = control.must_revalidate || control.proxy_revalidate || control.no_cache;
    let times = times(&control, (strict, loosened), (lifetime_ms, initial_age_ms), at, terms);
    let has_validator = headers.contains_key(header::ETAG) || headers.contains_key(header::LAST_MODIFIED);
    // A response that can be neither served nor validated is not worth its memory.
    if times.error_until_ms <= at.response_ms && !has_validator {
        return Err("no-lifetime");
    }
    let no_cache = control.no_cache;
    let anonymous_only = loosened || explicit_ms.is_none();
    Ok(Verdict { times, initial_age_ms, lifetime_ms, no_cache, strict, fields: control.fields, vary, anonymous_only })
}

/// Whether the origin allows a cache to store it at all.
fn may_be_stored(status: StatusCode, control: &Control, understood: bool) -> Result<(), &'static str> {
    if matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED) || status.is_informational() {
        return Err("partial");
    }
    if control.must_understand && !understood {
        return Err("status-not-understood");
    }
    // With `must-understand` the `no-store` is for caches that do not understand the status.
    if control.no_store && !control.must_understand {
        return Err("no-store");
    }
    if control.private { Err("private") } else { Ok(()) }
}

/// Whether it may be served to other clients than the one that asked.
fn may_be_shared(headers: &HeaderMap, control: &Control, terms: Terms<'_>) -> Result<(), &'static str> {
    let Terms { config, person, no_store, .. } = terms;
    // The standard allows more. But an application that never expected a shared cache sets lifetimes for browsers, and means one
    // person's copy.
    let for_all = control.public || control.s_maxage_s.is_some();
    if person.cookie && !for_all && !config.keep_asked_with_cookie {
        return Err("cookie");
    }
    // The header that names weir's own actor, an API key or a token proves as much as a credential.
    if person.credential && !for_all || person.authorization && !for_all && !control.must_revalidate {
        return Err("authorization");
    }
    if !config.keep_set_cookie && headers.keys().any(|name| hands_a_credential(name.as_str())) {
        return Err("set-cookie");
    }
    if no_store { Err("request-no-store") } else { Ok(()) }
}

/// The names that a response varies by, sorted.
fn vary(headers: &HeaderMap) -> Result<Vec<HeaderName>, &'static str> {
    let text = joined(headers, &header::VARY);
    let mut names = Vec::new();
    for name in split(&text, b',') {
        if name == "*" {
            return Err("vary-star");
        }
        names.push(HeaderName::from_bytes(name.as_bytes()).map_err(|_| "vary-malformed")?);
    }
    names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    Ok(names)
}

fn explicit_lifetime_ms(control: &Control, headers: &HeaderMap, at: Moments) -> Option<u64> {
    if let Some(seconds) = control.s_maxage_s.or(control.max_age_s) {
        return Some(seconds * 1_000);
    }
    let expires = headers.get(header::EXPIRES).filter(|_| !control.targeted)?;
    // A malformed date counts as past.
    let expires_ms = expires.to_str().ok().and_then(date_ms).unwrap_or(0);
    Some(expires_ms.saturating_sub(date_of(headers).unwrap_or(at.received_ms())))
}

/// The lifetime of a response without an explicit one, which may be 0; an error where it may not be stored at all. A response for
/// one person gets no heuristic lifetime.
fn heuristic_ms(
    status: StatusCode,
    headers: &HeaderMap,
    control: &Control,
    at: Moments,
    Terms { config, person, .. }: Terms<'_>,
) -> Result<u64, &'static str> {
    if !control.public && !HEURISTIC_STATUSES.contains(&status.as_u16()) {
        return Err("no-lifetime");
    }
    if headers.keys().any(|name| hands_a_credential(name.as_str())) {
        return Err("set-cookie");
    }
    if person.is_known() {
        return Err(if person.cookie { "cookie" } else { "authorization" });
    }
    let modified_ms = headers.get(header::LAST_MODIFIED).and_then(|value| value.to_str().ok()).and_then(date_ms);
    let Some(modified_ms) = modified_ms else { return Ok(0) };
    let since_ms = date_of(headers).unwrap_or(at.received_ms()).saturating_sub(modified_ms);
    Ok((since_ms / HEURISTIC_SHARE).min(config.limits.heuristic_max_ms))
}

/// RFC 9111, section 4.2.3.
fn initial_age_ms(headers: &HeaderMap, at: Moments) -> u64 {
    // The first member of a list counts, and malformed values are ignored (section 5.1).
    let ages = joined(headers, &header::AGE);
    let age_s = split(&ages, b',').first().copied().and_then(super::control::seconds);
    let age_ms = age_s.unwrap_or(0).saturating_mul(1_000);
    let delay_ms = at.response_ms.saturating_sub(at.request_ms);
    // Dates have whole seconds.
    let apparent_ms = date_of(headers).map_or(0, |date_ms| (at.received_ms() / 1_000 * 1_000).saturating_sub(date_ms));
    apparent_ms.max(age_ms.saturating_add(delay_ms))
}

fn times(
    control: &Control,
    (strict, loosened): (bool, bool),
    (lifetime_ms, initial_age_ms): (u64, u64),
    at: Moments,
    Terms { config, allowance, .. }: Terms<'_>,
) -> Times {
    let fresh_until_ms = if control.no_cache {
        at.response_ms
    } else {
        at.response_ms.saturating_add(lifetime_ms).saturating_sub(initial_age_ms)
    };
    if strict {
        return Times { fresh_until_ms, revalidate_until_ms: fresh_until_ms, error_until_ms: fresh_until_ms };
    }
    let ms = |seconds: Option<u64>| seconds.map(|seconds| seconds.saturating_mul(1_000));
    let revalidate_ms = ms(control.stale_while_revalidate_s).unwrap_or(0);
    let revalidate_ms = allowance.pick(loosened, allowance.revalidate_ms, revalidate_ms);
    // `s-maxage` forbids a default that the origin did not ask for; a response that was never fresh gets none either.
    let default_ms = if control.s_maxage_s.is_some() || lifetime_ms == 0 { 0 } else { config.limits.stale_if_error_ms };
    let error_ms = ms(control.stale_if_error_s).unwrap_or(default_ms);
    let error_ms = allowance.pick(loosened, allowance.error_ms, error_ms);
    let revalidate_until_ms = fresh_until_ms.saturating_add(revalidate_ms);
    // A window counts from the end of freshness, or from now for a response that arrived stale.
    let error_from_ms =
        if control.stale_if_error_s.is_some() { fresh_until_ms } else { fresh_until_ms.max(at.response_ms) };
    let error_until_ms = error_from_ms.saturating_add(error_ms).max(revalidate_until_ms);
    Times { fresh_until_ms, revalidate_until_ms, error_until_ms }
}

fn date_of(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::DATE).and_then(|value| value.to_str().ok()).and_then(date_ms)
}

/// An HTTP date as Unix time.
pub(super) fn date_ms(text: &str) -> Option<u64> {
    let since = httpdate::parse_http_date(text.trim()).ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

/// The groups of a response, as the invalidation log names them.
pub(super) fn groups(upstream: &str, headers: &HeaderMap) -> Vec<Box<str>> {
    group_names(upstream, headers, &CACHE_GROUPS)
}

/// The groups that a header lists, as the invalidation log names them. Groups of a table (`"table:seat"`) are the ones that SQL
/// reads use, too; all others belong to the upstream.
pub(super) fn group_names(upstream: &str, headers: &HeaderMap, name: &HeaderName) -> Vec<Box<str>> {
    let text = joined(headers, name);
    let inside = |member: &str| {
        let item = split(member, b';').into_iter().next()?.to_owned();
        let group = item.strip_prefix('"')?.strip_suffix('"')?.replace('\\', "");
        (!group.is_empty() && group.len() <= GROUP_BYTES_MAX).then_some(group)
    };
    let named = |group: String| match group.strip_prefix("table:") {
        // Table names ignore case, as in SQL reads.
        Some(_) => group.to_ascii_lowercase().into_boxed_str(),
        None => format!("group:{upstream}:{group}").into_boxed_str(),
    };
    split(&text, b',').into_iter().filter_map(inside).take(GROUPS_MAX).map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::config::{Staleness, UpstreamConfig, UpstreamLimits};
    use weir_core::model::CacheRule;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn judged(status: u16, pairs: &[(&'static str, &str)]) -> Result<Verdict, &'static str> {
        judged_for(Person::default(), &shop(), status, pairs)
    }

    fn judged_for(
        person: Person,
        config: &UpstreamConfig,
        status: u16,
        pairs: &[(&'static str, &str)],
    ) -> Result<Verdict, &'static str> {
        let at = Moments { request_ms: NOW_MS, response_ms: NOW_MS, ahead_ms: 0 };
        let status = StatusCode::from_u16(status).unwrap();
        let allowance = allowance(None, CacheRule::AS_THE_ORIGIN_SAYS_MS);
        judge((status, &headers(pairs)), at, Terms { config, allowance: &allowance, person, no_store: false })
    }

    fn shop() -> UpstreamConfig {
        UpstreamConfig::new("shop", "/shop/", "http://127.0.0.1:1")
    }

    fn person(name: &str) -> Person {
        let none = Person::default();
        match name {
            "cookie" => Person { cookie: true, ..none },
            "authorization" => Person { authorization: true, ..none },
            _ => Person { credential: true, ..none },
        }
    }

    /// What a rule of one time allows; in a class it may loosen.
    fn allowance(class: Option<Staleness>, ms: u64) -> Allowance {
        let rule =
            CacheRule::Store { ttl_ms: ms, stale_while_revalidate_ms: ms, stale_if_error_ms: ms, groups: Vec::new() };
        let config = UpstreamConfig { class, may_loosen: class.is_some(), ..shop() };
        Allowance::of(&rule, &config).unwrap()
    }

    /// Seconds of freshness, and of the windows after it.
    fn times_s(
        allowance: &Allowance,
        person: Person,
        pairs: &[(&'static str, &str)],
    ) -> Result<(i64, u64, u64), &'static str> {
        let at = Moments { request_ms: NOW_MS, response_ms: NOW_MS, ahead_ms: 0 };
        let limits = UpstreamLimits { stale_if_error_ms: 0, ..UpstreamLimits::default() };
        let terms = Terms { config: &UpstreamConfig { limits, ..shop() }, allowance, person, no_store: false };
        let times = judge((StatusCode::OK, &headers(pairs)), at, terms)?.times;
        let since = |until_ms: u64| (until_ms - times.fresh_until_ms) / 1_000;
        let fresh_s = (times.fresh_until_ms as i64 - NOW_MS as i64) / 1_000;
        Ok((fresh_s, since(times.revalidate_until_ms), since(times.error_until_ms)))
    }

    #[test]
    fn a_rule_tightens_what_a_response_allows() {
        let says = [("cache-control", "max-age=60, stale-while-revalidate=60, stale-if-error=90")];
        let of = |ms| times_s(&allowance(None, ms), Person::default(), &says);
        assert_eq!(of(CacheRule::AS_THE_ORIGIN_SAYS_MS), Ok((60, 60, 90)));
        assert_eq!(of(5_000), Ok((5, 5, 5)));
        let no =
            |text| times_s(&allowance(None, 5_000), Person::default(), &[("cache-control", text), ("etag", "\"a\"")]);
        assert_eq!([no("no-store"), no("private, max-age=60")], [Err("no-store"), Err("private")]);
        assert_eq!(no("max-age=1"), Ok((1, 0, 0)), "it does not lengthen");
    }

    #[test]
    fn a_rule_loosens_where_the_operator_lets_it_but_not_what_is_for_one_client() {
        let loose = allowance(Some(Staleness::Minutes), 5_000);
        let spring = [("cache-control", "no-cache, no-store, max-age=0, must-revalidate"), ("expires", "0")];
        assert_eq!(times_s(&loose, Person::default(), &spring), Ok((5, 5, 5)));
        assert_eq!(times_s(&loose, Person::default(), &[("cache-control", "max-age=600")]), Ok((5, 5, 5)));
        for personal in ["cookie", "authorization", "x-api-key"] {
            assert_eq!(times_s(&loose, person(personal), &spring), Err("no-store"), "{personal}");
        }
        let of = |pairs: &[(&'static str, &str)]| times_s(&loose, Person::default(), pairs);
        assert_eq!(of(&[("cache-control", "private, max-age=60")]), Err("private"));
        assert_eq!(of(&[("cache-control", "no-store"), ("set-cookie", "a=b")]), Err("no-store"));
        assert_eq!(of(&[("cache-control", "no-store"), ("vary", "*")]), Err("vary-star"));
        let left = allowance(Some(Staleness::Minutes), CacheRule::AS_THE_ORIGIN_SAYS_MS);
        assert_eq!(times_s(&left, Person::default(), &spring), Err("no-store"), "it leaves that to the origin");
    }

    fn fresh_s(status: u16, pairs: &[(&'static str, &str)]) -> i64 {
        let verdict = judged(status, pairs).unwrap();
        (verdict.times.fresh_until_ms as i64 - NOW_MS as i64) / 1_000
    }

    fn date(offset_s: i64) -> String {
        let at = UNIX_EPOCH + std::time::Duration::from_millis(NOW_MS.checked_add_signed(offset_s * 1_000).unwrap());
        httpdate::fmt_http_date(at)
    }

    #[test]
    fn lifetimes() {
        assert_eq!(fresh_s(200, &[("cache-control", "max-age=60")]), 60);
        assert_eq!(fresh_s(200, &[("cache-control", "max-age=60, s-maxage=5")]), 5);
        assert_eq!(fresh_s(200, &[("cache-control", "max-age=60"), ("age", "20")]), 40);
        assert_eq!(fresh_s(200, &[("expires", &date(30)), ("date", &date(-10)), ("age", "25")]), 15);
        assert_eq!(fresh_s(200, &[("cache-control", "max-age=60"), ("expires", &date(-5))]), 60);
        assert_eq!(fresh_s(200, &[("last-modified", &date(-1_000))]), 100);
        assert_eq!(fresh_s(599, &[("last-modified", &date(-1_000)), ("cache-control", "public")]), 100);
        let aged = |ages: &[&str]| {
            let ages = ages.iter().map(|age| ("age", *age));
            fresh_s(200, &[("cache-control", "max-age=60")].into_iter().chain(ages).collect::<Vec<_>>())
        };
        for (first, age_s) in
            [("20, 7200", 20), ("0,0", 0), ("7200, 0", 7_200), ("20;foo=1", 0), ("x", 0), ("-20", 0), ("2.5", 0)]
        {
            assert_eq!(aged(&[first]), 60 - age_s, "{first}: the first member counts, what cannot be read does not");
        }
        assert_eq!((aged(&["20", "7200"]), aged(&["x", "20"])), (40, 60));
        assert_eq!(fresh_s(503, &[("cache-control", "max-age=60")]), 60, "when the origin says so");
    }

    #[test]
    fn what_is_not_kept_says_why() {
        let why = |status, pairs: &[(&'static str, &str)]| judged(status, pairs).unwrap_err();
        assert_eq!(why(200, &[]), "no-lifetime");
        assert_eq!(why(502, &[("last-modified", &date(-1_000))]), "no-lifetime");
        assert_eq!(why(200, &[("cache-control", "max-age=60, no-store")]), "no-store");
        assert_eq!(why(200, &[("cache-control", "private, max-age=60")]), "private");
        assert_eq!(why(200, &[("cache-control", "max-age=60"), ("vary", ", *")]), "vary-star");
        assert_eq!(why(206, &[("cache-control", "max-age=60")]), "partial");
        assert_eq!(why(599, &[("cache-control", "max-age=60, must-understand")]), "status-not-understood");
        assert!(judged(200, &[("cache-control", "max-age=60, must-understand, no-store")]).is_ok());
        assert_eq!(why(200, &[("last-modified", &date(-1_000)), ("set-cookie", "a=b")]), "set-cookie");
        assert!(judged(200, &[("etag", "\"a\"")]).unwrap().times.fresh_until_ms <= NOW_MS, "to be validated");
    }

    #[test]
    fn what_is_asked_for_by_somebody_is_kept_only_where_the_origin_says_that_it_is_for_all() {
        let of = |name: &str, control| {
            let pairs = [("cache-control", control), ("etag", "\"a\"")];
            judged_for(person(name), &shop(), 200, &pairs).err()
        };
        for name in ["cookie", "authorization", "x-api-key"] {
            let why = if name == "cookie" { "cookie" } else { "authorization" };
            for personal in ["max-age=60", "stale-if-error=9", "no-cache", "x"] {
                assert_eq!(of(name, personal), Some(why), "{name}: {personal}");
            }
            for for_all in ["max-age=60, public", "s-maxage=60"] {
                assert_eq!(of(name, for_all), None, "{name}: {for_all}");
            }
            let by_the_rfc = (name != "authorization").then_some(why);
            assert_eq!(of(name, "max-age=60, must-revalidate"), by_the_rfc, "{name}");
            assert_eq!(of(name, "public"), Some(why), "{name}: nothing is guessed");
        }
        let loosened = UpstreamConfig { keep_asked_with_cookie: true, ..shop() };
        let of = |name, pairs: &[(&'static str, &str)]| judged_for(person(name), &loosened, 200, pairs).err();
        assert_eq!(of("cookie", &[("cache-control", "max-age=60")]), None);
        assert_eq!(of("cookie", &[("last-modified", &date(-1_000))]), Some("cookie"));
        assert_eq!(of("x-api-key", &[("cache-control", "max-age=60")]), Some("authorization"));
    }

    #[test]
    fn a_cookie_is_never_kept() {
        let (shop, loosened) = (shop(), UpstreamConfig { keep_set_cookie: true, ..shop() });
        let of = |config, pairs: &[(&'static str, &str)]| judged_for(Person::default(), config, 200, pairs);
        for name in ["set-cookie", "x-csrf-token"] {
            for control in ["max-age=60", "public, s-maxage=60", "private=\"set-cookie\", max-age=60"] {
                let pairs = [("cache-control", control), (name, "a=b")];
                assert_eq!(of(&shop, &pairs).unwrap_err(), "set-cookie", "{control}");
                let fields = of(&loosened, &pairs).unwrap().fields;
                assert!(fields.iter().any(|field| field == name), "{control}: the answer is kept without it");
            }
            assert_eq!(of(&loosened, &[("last-modified", &date(-1_000)), (name, "a=b")]).unwrap_err(), "set-cookie");
        }
    }

    #[test]
    fn what_is_guessed_is_for_strangers() {
        assert!(judged(200, &[("last-modified", &date(-1_000))]).unwrap().anonymous_only);
        assert!(!judged(200, &[("cache-control", "max-age=60")]).unwrap().anonymous_only);
    }

    #[test]
    fn stale_windows() {
        let windows = |control: &str| {
            let times = judged(200, &[("cache-control", control), ("etag", "\"a\"")]).unwrap().times;
            let seconds = |until_ms: u64| (until_ms - NOW_MS) / 1_000;
            (seconds(times.revalidate_until_ms), seconds(times.error_until_ms))
        };
        assert_eq!(windows("max-age=10, stale-while-revalidate=5, stale-if-error=60"), (15, 70));
        assert_eq!(windows("max-age=10"), (10, 3_610));
        assert_eq!(windows("s-maxage=10"), (10, 10));
        assert_eq!(windows("max-age=10, must-revalidate, stale-while-revalidate=5"), (10, 10));
        assert_eq!(windows("max-age=10, no-cache"), (0, 0));
    }

    #[test]
    fn groups_are_an_upstreams_own_but_for_tables() {
        let headers = headers(&[("cache-groups", "\"a, b\";x=1, \"table:seat\""), ("cache-groups", "c, \"d\"")]);
        let groups = groups("shop", &headers);
        let names: Vec<&str> = groups.iter().map(|group| &**group).collect();
        assert_eq!(names, ["group:shop:a, b", "table:seat", "group:shop:d"]);
    }
}
