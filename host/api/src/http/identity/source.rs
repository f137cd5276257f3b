//! The published key set for tokens: read at start, in the background, and when a token names an unknown key.
//!
//! However many tokens name unknown keys, only one read runs at a time, and a cooldown separates reads that tokens
//! cause. A failed read changes nothing: the last good set stays in use for a bounded time. Tokens that cannot be
//! verified in the meantime get 503, not 401: they may be valid.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use jsonwebtoken::Algorithm;
use metrics::{counter, gauge};
use tokio::sync::Semaphore;

use super::keys::{Candidates, KeySet};
use super::token::Head;
use weir_core::clock::Clock;
use weir_core::config::{ConfigError, JwtConfig};
use weir_core::telemetry::{JWKS_FETCHES_TOTAL, JWKS_KEYS, JWKS_READ_TIMESTAMP_SECONDS, JWKS_UNDECIDED_TOTAL};
use weir_core::tls::ClientTls;
use weir_core::tls::fetch::{self, FetchLimits};

/// Refresh interval for a key set that does not give one.
const REFRESH_S: u64 = 300;
/// First pause after a read that failed, in milliseconds; doubled each time.
const RETRY_MS_MIN: u64 = 1_000;
/// How long a request waits until the next read may begin, in milliseconds: most of its own time must be left.
const WAIT_MS_MAX: u64 = 2_000;
/// Requests that may wait for a read at once.
const WAITS_MAX: usize = 1_024;
/// How long it is remembered at least that a key was asked for and is not there, in milliseconds.
const ABSENT_MS_MIN: u64 = 5_000;
/// Keys that are remembered so; beyond, all are forgotten.
const ABSENT_MAX: usize = 1_024;

/// The published keys.
pub(super) struct Source {
    url: String,
    /// `None`: the keys are read in plain.
    tls: Option<ClientTls>,
    algorithms: Vec<Algorithm>,
    config: JwtConfig,
    clock: Clock,
    set: ArcSwapOption<KeySet>,
    state: Mutex<State>,
    /// The task that reads the keys holds this lock; the others wait.
    turn: tokio::sync::Mutex<()>,
    waits: Semaphore,
}

#[derive(Default)]
struct State {
    /// Reads that were begun.
    begun: u64,
    /// The last of them that ended well.
    good: u64,
    /// When that was, in steady milliseconds.
    read_ms: Option<u64>,
    /// Why the last one failed; nothing when it did not.
    failure: Option<String>,
    failures: u32,
    /// When a token caused the last one.
    caused_ms: Option<u64>,
    /// When the next one is due.
    due_ms: u64,
    /// Keys that were asked for, or have gone, and since when it is known that they are not there.
    absent: HashMap<String, u64>,
}

/// What became of a key that was not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Learned {
    /// Look the key up again: it is now known, or known to be absent.
    Look,
    /// The key's status is unknown; retry after this many seconds.
    Undecided { retry_after_s: u64 },
}

impl Source {
    /// Reads nothing yet.
    ///
    /// # Errors
    /// When the URL is invalid, or the certificate file cannot be read.
    pub(super) fn new(
        config: &JwtConfig,
        url: &str,
        algorithms: Vec<Algorithm>,
        clock: Clock,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            url: url.to_owned(),
            tls: config.secured()?.map(|tls| ClientTls::new("auth.jwt", &tls)).transpose()?,
            algorithms,
            config: config.clone(),
            clock,
            set: ArcSwapOption::empty(),
            state: Mutex::default(),
            turn: tokio::sync::Mutex::new(()),
            waits: Semaphore::new(WAITS_MAX),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys, as far as they are known and not too old.
    pub(super) fn set(&self) -> Option<Arc<KeySet>> {
        self.set.load_full()
    }

    /// Whether a token with this head can be judged now.
    pub(super) fn knows(&self, head: &Head) -> bool {
        if !self.algorithms.contains(&head.algorithm) {
            return true;
        }
        let set = self.set.load();
        set.as_ref().is_some_and(|set| matches!(set.of(head), Candidates::Some(_)))
    }

    /// Has the keys read for a token whose key is not known, where that is due.
    pub(super) async fn learn(&self, head: &Head) -> Learned {
        let came = {
            let state = self.state();
            let now_ms = self.clock.steady_ms();
            let kid = head.kid.as_deref().unwrap_or_default();
            let absent_ms = self.config.jwks_cooldown_ms.max(ABSENT_MS_MIN);
            let is_absent = state.absent.get(kid).is_some_and(|since_ms| now_ms.saturating_sub(*since_ms) < absent_ms);
            if is_absent && self.set.load().is_some() {
                return Learned::Look;
            }
            state.begun
        };
        let Ok(_wait) = self.waits.try_acquire() else { return undecided("cooldown", 1_000) };
        let _turn = self.turn.lock().await;
        if self.knows(head) {
            return Learned::Look;
        }
        let (begun, good, cooldown_ms) = {
            let state = self.state();
            let since_ms = state.caused_ms.map(|caused_ms| self.clock.steady_ms().saturating_sub(caused_ms));
            let cooldown_ms = since_ms.map_or(0, |since_ms| self.config.jwks_cooldown_ms.saturating_sub(since_ms));
            (state.begun, state.good, cooldown_ms)
        };
        // Another task read the keys while this one waited.
        if good > came {
            return self.absent(head);
        }
        if begun > came {
            return undecided("away", cooldown_ms);
        }
        if cooldown_ms > WAIT_MS_MAX {
            return undecided("cooldown", cooldown_ms);
        }
        tokio::time::sleep(Duration::from_millis(cooldown_ms)).await;
        self.state().caused_ms = Some(self.clock.steady_ms());
        if !self.read().await {
            return undecided("away", self.config.jwks_cooldown_ms);
        }
        if self.knows(head) { Learned::Look } else { self.absent(head) }
    }

    fn absent(&self, head: &Head) -> Learned {
        let mut state = self.state();
        if state.absent.len() >= ABSENT_MAX {
            state.absent.clear();
        }
        if let Some(kid) = head.kid.as_ref().filter(|kid| kid.len() <= super::keys::KID_BYTES_MAX) {
            state.absent.insert(kid.clone(), self.clock.steady_ms());
        }
        Learned::Look
    }

    /// Reads the keys and returns whether that succeeded. The caller must hold `turn`.
    async fn read(&self) -> bool {
        self.state().begun += 1;
        let fetched =
            self.fetch().await.and_then(|(bytes, max_age_s)| Ok((KeySet::parse(&bytes, &self.algorithms)?, max_age_s)));
        let now_ms = self.clock.steady_ms();
        let mut state = self.state();
        match fetched {
            Ok((set, max_age_s)) => {
                let bounds = (self.config.jwks_refresh_s_min, self.config.jwks_refresh_s_max);
                state.due_ms = now_ms + max_age_s.unwrap_or(REFRESH_S).clamp(bounds.0, bounds.1) * 1_000;
                state.good = state.begun;
                state.read_ms = Some(now_ms);
                state.absent.retain(|kid, since_ms| {
                    *since_ms = now_ms;
                    set.kids().all(|known| known != kid)
                });
                if let Some(before) = self.set.load().as_ref() {
                    // A token whose key has been removed need not cause another read.
                    for kid in before.kids().filter(|kid| set.kids().all(|known| known != *kid)) {
                        state.absent.insert(kid.to_owned(), now_ms);
                    }
                }
                self.note(&mut state, &set);
                self.set.store(Some(Arc::new(set)));
                true
            }
            Err(reason) => {
                self.note_failure(&mut state, reason, now_ms);
                false
            }
        }
    }

    fn note(&self, state: &mut State, set: &KeySet) {
        counter!(JWKS_FETCHES_TOTAL, "outcome" => "done").increment(1);
        gauge!(JWKS_KEYS).set(set.len() as f64);
        gauge!(JWKS_READ_TIMESTAMP_SECONDS).set(self.clock.now_ms() as f64 / 1_000.0);
        let kids: Vec<&str> = set.kids().collect();
        let same = self.set.load().as_ref().is_some_and(|before| before.kids().eq(kids.iter().copied()));
        if !same {
            tracing::info!(
                url = self.config.jwks_shown(),
                keys = set.len(),
                kids = kids.join(", "),
                "the keys of tokens are read"
            );
        } else if state.failure.is_some() {
            tracing::info!(url = self.config.jwks_shown(), "the keys of tokens can be read again");
        }
        state.failure = None;
        state.failures = 0;
    }

    fn note_failure(&self, state: &mut State, reason: String, now_ms: u64) {
        counter!(JWKS_FETCHES_TOTAL, "outcome" => "failed").increment(1);
        let pause_ms = RETRY_MS_MIN << state.failures.min(6);
        state.failures += 1;
        state.due_ms = now_ms + pause_ms.min(self.config.jwks_refresh_s_min * 1_000);
        let age_ms = state.read_ms.map(|read_ms| now_ms.saturating_sub(read_ms));
        if state.failure.is_none() {
            tracing::warn!(
                url = self.config.jwks_shown(),
                reason,
                "the keys of tokens cannot be read: tokens with keys of the last good set are accepted for up to \
                 {} s (auth.jwt.jwks_stale_s_max), all others are answered 503",
                self.config.jwks_stale_s_max
            );
        }
        state.failure = Some(reason);
        let is_stale = age_ms.is_none_or(|age_ms| age_ms >= self.config.jwks_stale_s_max * 1_000);
        if is_stale && self.set.swap(None).is_some() {
            gauge!(JWKS_KEYS).set(0.0);
            tracing::error!(
                url = self.config.jwks_shown(),
                "the keys of tokens are too old (auth.jwt.jwks_stale_s_max): tokens are answered 503"
            );
        }
    }

    /// The body, and for how long it is fresh, in seconds, where it says so.
    async fn fetch(&self) -> Result<(Bytes, Option<u64>), String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/jwk-set+json, application/json"));
        let timeout = Duration::from_millis(self.config.jwks_timeout_ms);
        let limits = FetchLimits { timeout, bytes_max: self.config.jwks_bytes_max };
        let answer =
            fetch::get(&self.url, headers, self.tls.as_ref(), limits).await.map_err(|error| error.to_string())?;
        match answer.status {
            200 => Ok((answer.body, max_age_s(&answer.headers))),
            status @ 300..400 => {
                let to = answer.headers.get(header::LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("elsewhere");
                Err(format!("it answers {status} and leads to {to:?}: set jwks_url to where the keys are"))
            }
            status => Err(format!("it answers {status}")),
        }
    }

    /// Reads the keys now.
    pub(super) async fn refresh(&self) {
        let _turn = self.turn.lock().await;
        self.read().await;
    }

    /// Reads the keys whenever they are due, for as long as this source is in use.
    pub(super) async fn keep(source: Weak<Self>) {
        loop {
            let Some(this) = source.upgrade() else { return };
            let pause_ms = this.state().due_ms.saturating_sub(this.clock.steady_ms());
            if pause_ms == 0 {
                this.refresh().await;
                continue;
            }
            drop(this);
            // A read that a token has caused moves it: so not for too long.
            tokio::time::sleep(Duration::from_millis(pause_ms.min(RETRY_MS_MIN))).await;
        }
    }

    /// Whether tokens can be judged, and how it is.
    pub(super) fn check(&self) -> (bool, String) {
        let state = self.state();
        let age_s = state.read_ms.map(|read_ms| self.clock.steady_ms().saturating_sub(read_ms) / 1_000);
        let known = match (self.set.load().as_ref(), age_s) {
            (Some(set), Some(age_s)) => format!("{} keys, read {age_s} s ago", set.len()),
            _ => "no keys: tokens are answered 503".into(),
        };
        let detail = match &state.failure {
            None => known,
            Some(reason) => format!("{known}; degraded: {} cannot be read: {reason}", self.config.jwks_shown()),
        };
        (self.set.load().is_some(), detail)
    }
}

fn undecided(cause: &'static str, retry_after_ms: u64) -> Learned {
    counter!(JWKS_UNDECIDED_TOTAL, "cause" => cause).increment(1);
    Learned::Undecided { retry_after_s: retry_after_ms.div_ceil(1_000).max(1) }
}

/// `Cache-Control: max-age`, less the time that it has been somewhere on the way.
fn max_age_s(headers: &HeaderMap) -> Option<u64> {
    let lines = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    let directives: Vec<String> =
        lines.flat_map(|line| line.split(',')).map(|word| word.trim().to_ascii_lowercase()).collect();
    if directives.iter().any(|word| word == "no-store" || word == "no-cache") {
        return Some(0);
    }
    let max_age = directives.iter().find_map(|word| word.strip_prefix("max-age="))?;
    let max_age_s: u64 = max_age.trim_matches('"').parse().ok()?;
    let age = headers.get(header::AGE).and_then(|age| age.to_str().ok()?.trim().parse().ok()).unwrap_or(0);
    Some(max_age_s.saturating_sub(age))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freshness_is_what_the_answer_says() {
        let of = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            max_age_s(&headers)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("cache-control", "public, Max-Age=600")]), Some(600));
        assert_eq!(of(&[("cache-control", "max-age=600"), ("age", "100")]), Some(500));
        assert_eq!(of(&[("cache-control", "max-age=600"), ("cache-control", "no-cache")]), Some(0));
        assert_eq!(of(&[("cache-control", "max-age=soon")]), None);
    }
}
