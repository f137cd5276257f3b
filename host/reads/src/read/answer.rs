//! Answering one request: from the cache, from a load that other requests share, or from a load of its own.

use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::load::{LoadSource, LoadedAnswer};
use super::reply::{Answer, Body, ReadError, ReadFailure, ReadReply};
use super::{Read, statement};
use weir_cache::{CacheStatus, Entry, Forwarded, Freshness, Join, LoadResult};
use weir_core::config::Staleness;
use weir_core::error::Refusal;
use weir_core::model::SqlValue;
use weir_core::telemetry::request;

/// Backoff after a failed read, in milliseconds: while it lasts, a stale answer is served without a query.
const BACKOFF_MS: u64 = 1_000;
/// How often a request looks up the cache, once more after each wait for another request's load.
const LOOKUPS_MAX: usize = 3;

thread_local! {
    /// Buffer for keys that are needed for a lookup only.
    static KEY: RefCell<String> = const { RefCell::new(String::new()) };
}

impl Read {
    /// Answers for these values of the parameters, in the order of their names, where that needs no waiting. Most requests end
    /// here. `None`: see [`Read::answer`].
    pub fn answer_at_once(self: &Arc<Self>, values: &[SqlValue]) -> Option<ReadReply> {
        let now_ms = self.parts.clock.steady_ms();
        self.ask_rule_in_time(now_ms);
        if self.config.class == Staleness::Live {
            return None;
        }
        if self.ruling.bypasses().is_some() {
            return None;
        }
        let (found, status) = KEY.with_borrow_mut(|key| {
            key.clear();
            statement::push_key(key, &self.config, values);
            let found = self.cache.get(key, now_ms)?;
            let status = self.may_serve(key, values, &found, now_ms)?;
            Some((found, status))
        })?;
        Some(self.serve(found.0, status, now_ms))
    }

    /// Answers for values that [`Read::answer_at_once`] has no answer for.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn answer(self: &Arc<Self>, values: Vec<SqlValue>) -> Result<ReadReply, ReadFailure> {
        let now_ms = self.parts.clock.steady_ms();
        self.ask_rule_in_time(now_ms);
        if self.config.class == Staleness::Live {
            return self.bypass(&values, "live", None).await;
        }
        if let Some(reason) = self.ruling.bypasses() {
            return self.bypass(&values, "rule", Some(reason)).await;
        }
        let key = statement::key(&self.config, &values);
        self.answer_shared(key, values, now_ms).await
    }

    /// Answers from the cache, or loads the answer for all requests that want it now.
    async fn answer_shared(
        self: &Arc<Self>,
        key: String,
        values: Vec<SqlValue>,
        mut now_ms: u64,
    ) -> Result<ReadReply, ReadFailure> {
        let mut collapsed = false;
        for _ in 0..LOOKUPS_MAX {
            let found = self.cache.get(&key, now_ms);
            let status = found.as_ref().and_then(|found| self.may_serve(&key, &values, found, now_ms));
            let found = match (status, found) {
                (Some(status), Some((entry, _))) => {
                    return Ok(self.serve(entry, CacheStatus { collapsed, ..status }, now_ms));
                }
                (_, found) => found,
            };
            let why = if found.is_some() { Forwarded::Stale } else { Forwarded::UriMiss };
            // One request loads for all; the others wait for it, and look up the cache again afterwards.
            match self.cache.join(&key) {
                Join::Leader(leader) => {
                    // An earlier leader may have cached its answer since our lookup.
                    let again = self.cache.get(&key, now_ms).filter(|(_, freshness)| *freshness == Freshness::Fresh);
                    if let Some((entry, _)) = again {
                        drop(leader);
                        let status = CacheStatus { collapsed, ..CacheStatus::hit(ttl_ms(&entry, now_ms)) };
                        return Ok(self.serve(entry, status, now_ms));
                    }
                    let (read, of) = (Arc::clone(self), key.clone());
                    // On a task of its own: the waiters need the load even when this client disconnects.
                    let loading = async move { read.load((&of, values), leader, LoadSource::Any).await };
                    let task = tokio::spawn(request::carry(loading));
                    return match task.await {
                        Ok(Ok(LoadedAnswer { entry, is_shared })) => {
                            let now_ms = self.parts.clock.steady_ms();
                            let status = if is_shared {
                                CacheStatus::hit(ttl_ms(&entry, now_ms)).because("shared")
                            } else {
                                CacheStatus { stored: true, ..CacheStatus::forwarded(why) }
                            };
                            Ok(self.serve(entry, status, now_ms))
                        }
                        Ok(Err(error)) => {
                            // Another host's answer may be in the cache now: too stale to serve, except after a failure.
                            let found = found.or_else(|| self.cache.get(&key, now_ms));
                            self.serve_on_error(found, ReadFailure::after(error, why))
                        }
                        Err(_) => Err(ReadFailure::after(Refusal::SqlUnavailable, why)),
                    };
                }
                Join::Waiter(mut waiter) => match tokio::time::timeout(self.wait, waiter.result()).await {
                    Ok(LoadResult::Cached) => collapsed = true,
                    Ok(LoadResult::Failed) => {
                        let mut failure = ReadFailure::after(self.why_failed(&key), why);
                        failure.status.collapsed = true;
                        return self.serve_on_error(found, failure);
                    }
                    // The next round makes another request the leader, perhaps this one.
                    Ok(LoadResult::Abandoned | LoadResult::Private) => {}
                    Err(_) => return Err(Refusal::Overloaded { queue: "cache.wait_ms" }.into()),
                },
                Join::Full => return Err(Refusal::Overloaded { queue: "cache.waiters_max" }.into()),
            }
            now_ms = self.parts.clock.steady_ms();
        }
        Err(Refusal::Overloaded { queue: "cache.wait_ms" }.into())
    }

    /// Whether a cached answer may be served without waiting; starts its refresh where that is due.
    fn may_serve(
        self: &Arc<Self>,
        key: &str,
        values: &[SqlValue],
        (entry, freshness): &(Arc<Entry<Body>>, Freshness),
        now_ms: u64,
    ) -> Option<CacheStatus> {
        let (refresh, detail) = match freshness {
            Freshness::Fresh => {
                let lifetime_ms = entry.times.fresh_until_ms.saturating_sub(entry.value.read_ms);
                (entry.is_due_early(now_ms, lifetime_ms), None)
            }
            Freshness::Stale => (true, Some("stale-while-revalidate")),
            Freshness::OnError if self.backoff_until_ms.load(Ordering::Relaxed) > now_ms => (false, Some("sql-failed")),
            _ => return None,
        };
        if refresh && let Some(leader) = self.cache.try_lead(key) {
            let (read, key, values) = (Arc::clone(self), key.to_owned(), values.to_vec());
            let loading = async move { drop(read.load((&key, values), leader, LoadSource::Any).await) };
            tokio::spawn(request::carry(loading));
        }
        let hit = CacheStatus::hit(ttl_ms(entry, now_ms));
        Some(CacheStatus { detail, ..if *freshness == Freshness::Fresh { hit } else { hit.stale() } })
    }

    fn serve(&self, entry: Arc<Entry<Body>>, status: CacheStatus, now_ms: u64) -> ReadReply {
        let body = &entry.value;
        if self.config.refresh_ms > 0 {
            body.used_ms.store(now_ms, Ordering::Relaxed);
        }
        self.ruling.served(status, body.json.len());
        let age_s = now_ms.saturating_sub(body.read_ms) / 1_000;
        ReadReply { answer: Answer::Cached(entry), age_s, status, reason: None, live: false }
    }

    /// Serves a stale answer after a failure, and backs off from SQL; fails where there is no answer to serve.
    fn serve_on_error(
        &self,
        found: Option<(Arc<Entry<Body>>, Freshness)>,
        failure: ReadFailure,
    ) -> Result<ReadReply, ReadFailure> {
        match found {
            Some((entry, freshness)) if freshness < Freshness::Spent => {
                let now_ms = self.parts.clock.steady_ms();
                self.backoff_until_ms.store(now_ms + BACKOFF_MS, Ordering::Relaxed);
                let status = CacheStatus::hit(ttl_ms(&entry, now_ms)).stale();
                Ok(self.serve(entry, status.because("sql-failed"), now_ms))
            }
            _ => {
                self.ruling.profile().failed();
                Err(failure)
            }
        }
    }

    /// Why the load that others waited for failed.
    fn why_failed(&self, key: &str) -> ReadError {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let of_key = failed.as_ref().filter(|(of, _)| of == key);
        of_key.map_or_else(|| Refusal::SqlUnavailable.into(), |(_, error)| error.clone())
    }

    /// Queries SQL for this request alone.
    async fn bypass(
        &self,
        values: &[SqlValue],
        detail: &'static str,
        reason: Option<String>,
    ) -> Result<ReadReply, ReadFailure> {
        let read = self.read_sql(values).await.inspect_err(|_| self.ruling.profile().failed());
        let read = read.map_err(|error| ReadFailure::after(error, Forwarded::Bypass))?;
        let status = CacheStatus::forwarded(Forwarded::Bypass).because(detail);
        self.ruling.served(status, read.json.len());
        Ok(ReadReply { answer: Answer::Own(read), age_s: 0, status, reason, live: true })
    }
}

fn ttl_ms(entry: &Entry<Body>, now_ms: u64) -> i64 {
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    signed(entry.times.fresh_until_ms) - signed(now_ms)
}
