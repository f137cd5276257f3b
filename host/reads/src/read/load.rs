//! Loading an answer for all waiters, and refreshing it before anybody waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use metrics::counter;
use rand::RngExt;
use sha2::{Digest, Sha256};

use super::shared::SharedAnswer;
use super::{Body, Read, ReadError, read_group, rows, table_group};
use weir_cache::{Entry, Freshness, Generation, Leader, LoadResult, Times};
use weir_core::error::Refusal;
use weir_core::model::{CacheRule, SqlValue};
use weir_core::telemetry::SHED_TOTAL;
use weir_listener::text::push_hex;
use weir_sql::StatementError;

/// Longest time that an empty answer is fresh, in milliseconds, where the rule allows longer.
const NEGATIVE_MS_MAX: u64 = 5_000;
/// Bytes of the hash in an entity tag.
const ETAG_BYTES: usize = 16;
/// Most keys of one read that are refreshed on time; further ones are loaded on request.
const REFRESHED_MAX: usize = 1_000;
/// A key without a request in this many intervals is no longer refreshed.
const REFRESHED_INTERVALS: u64 = 10;

/// An answer of SQL.
#[derive(Debug, Clone)]
pub(super) struct FromSql {
    pub(super) json: bytes::Bytes,
    pub(super) etag: Box<str>,
    pub(super) is_empty: bool,
}

/// Where a load may take its answer from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoadSource {
    /// From another host, where its answer is fresh and not in this cache already; else from SQL.
    Any,
    /// From SQL only.
    Sql,
}

/// A loaded answer.
pub(super) struct LoadedAnswer {
    pub(super) entry: Arc<Entry<Body>>,
    /// Another host loaded it.
    pub(super) is_shared: bool,
}

impl Read {
    /// Runs the statement.
    pub(super) async fn read_sql(&self, values: &[SqlValue]) -> Result<FromSql, ReadError> {
        let sql = &self.parts.sql;
        let columns = self.columns.get_or_try_init(|| async {
            let names = sql.statement_columns(&self.statement).await.map_err(|error| {
                tracing::warn!(read = self.config.name, %error, "the columns of a read are not known");
                ReadError::Refused(Refusal::SqlUnavailable)
            })?;
            Ok::<_, ReadError>(rows::Columns::new(&names))
        });
        let columns = columns.await?;
        let parameters: Vec<SqlValue> = self.order.iter().filter_map(|place| values.get(*place).cloned()).collect();
        let started = Instant::now();
        let found = sql.run_statement(&self.statement, &[parameters]).await;
        self.ruling.profile().read(started.elapsed());
        let found = match found {
            Ok(mut sets) => sets.pop().unwrap_or_default(),
            Err(StatementError::Unavailable(reason)) => {
                tracing::debug!(read = self.config.name, reason, "SQL did not answer a read");
                return Err(Refusal::SqlUnavailable.into());
            }
            Err(StatementError::TooLarge { limit, max, .. }) => {
                tracing::warn!(read = self.config.name, limit, max, "a read finds more than it may");
                counter!(SHED_TOTAL, "limit" => limit).increment(1);
                return Err(ReadError::TooLarge { limit, max });
            }
            Err(StatementError::Invalid(reason)) => {
                tracing::error!(read = self.config.name, reason, "a read cannot be done");
                return Err(ReadError::Invalid(reason));
            }
        };
        let json = columns.json(&found);
        let mut etag = vec![b'"'];
        push_hex(&mut etag, &Sha256::digest(&json)[..ETAG_BYTES]);
        etag.push(b'"');
        let etag = String::from_utf8(etag).unwrap_or_default().into();
        Ok(FromSql { json: json.into(), etag, is_empty: found.is_empty() })
    }

    /// Loads `key` for all waiters, and caches the answer for as long as the rule says.
    pub(super) async fn load(
        self: &Arc<Self>,
        (key, values): (&str, Vec<SqlValue>),
        leader: Leader,
        source: LoadSource,
    ) -> Result<LoadedAnswer, ReadError> {
        let before = self.cache.get(key, self.parts.clock.steady_ms()).map(|(entry, _)| entry);
        // Before the read: a change of its tables during the read must invalidate it.
        let generation = self.cache.generation();
        let mut lookup = self.look_up_shared(key, source == LoadSource::Any).await;
        if let Some(found) = lookup.found.take()
            && let Some(entry) = self.take_over(key, found, generation, before.as_deref())
        {
            self.refresh_from_now(key, values);
            leader.finish(LoadResult::Cached);
            return Ok(LoadedAnswer { entry, is_shared: true });
        }
        let generation = self.cache.generation();
        let started = Instant::now();
        let read = match self.read_sql(&values).await {
            Ok(read) => read,
            Err(error) => {
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some((key.to_owned(), error.clone()));
                leader.finish(LoadResult::Failed);
                return Err(error);
            }
        };
        let cost_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let now_ms = self.parts.clock.steady_ms();
        let mut used_ms = now_ms;
        if let Some(before) = before {
            self.ruling.profile().compared(*before.value.etag != *read.etag);
            used_ms = before.value.used_ms.load(Ordering::Relaxed);
        }
        let is_empty = read.is_empty;
        let entry = self.put(key, (read, rand::rng().random()), (now_ms, used_ms), generation, cost_ms);
        self.refresh_from_now(key, values);
        leader.finish(LoadResult::Cached);
        self.share(key, lookup, (&entry, is_empty));
        Ok(LoadedAnswer { entry, is_shared: false })
    }

    /// Caches another host's answer, where this host has none as good; `None` where SQL must be queried all the same.
    fn take_over(
        &self,
        key: &str,
        found: SharedAnswer,
        generation: Generation,
        before: Option<&Entry<Body>>,
    ) -> Option<Arc<Entry<Body>>> {
        let now_ms = self.parts.clock.steady_ms();
        let (times, _) = self.times(found.read_ms, found.read.is_empty);
        let is_fresh = times.fresh_until_ms > now_ms;
        // The load began because this cache's own answer was not good enough. A stale one is still cached, for when SQL
        // fails.
        let is_new = before.is_none_or(|before| is_fresh && before.value.id != found.id);
        if !is_new || times.error_until_ms <= now_ms {
            return None;
        }
        let entry = self.put(key, (found.read, found.id), (found.read_ms, now_ms), generation, found.cost_ms);
        is_fresh.then_some(entry)
    }

    fn put(
        &self,
        key: &str,
        (read, id): (FromSql, u64),
        (read_ms, used_ms): (u64, u64),
        generation: Generation,
        cost_ms: u64,
    ) -> Arc<Entry<Body>> {
        let (times, groups) = self.times(read_ms, read.is_empty);
        let bytes = (read.json.len() + read.etag.len()) as u64;
        let body = Body { json: read.json, etag: read.etag, id, read_ms, used_ms: AtomicU64::new(used_ms) };
        self.cache.put(key, Entry::new(body, bytes, groups, generation, times, cost_ms).counted(self.ruling.usage()))
    }

    /// Adds the key to those that are refreshed on time.
    fn refresh_from_now(&self, key: &str, values: Vec<SqlValue>) {
        if self.config.refresh_ms > 0 {
            let mut refreshed = self.refreshed.lock().unwrap_or_else(PoisonError::into_inner);
            if refreshed.len() < REFRESHED_MAX {
                refreshed.insert(key.to_owned(), values);
            }
        }
    }

    /// The groups of an answer under this rule.
    pub(super) fn entry_groups(&self, rule: &CacheRule) -> Box<[Box<str>]> {
        let mut groups: Vec<Box<str>> = self.config.tables.iter().map(|table| table_group(table).into()).collect();
        groups.push(read_group(&self.config.name).into());
        if let CacheRule::Store { groups: named, .. } = rule {
            groups.extend(named.iter().map(|group| group.as_str().into()));
        }
        groups.into()
    }

    /// How long an answer that was read at `read_ms` may be served, and its groups.
    fn times(&self, read_ms: u64, is_empty: bool) -> (Times, Box<[Box<str>]>) {
        let rule = self.ruling.rule();
        let (ttl_ms, revalidate_ms, error_ms) = match &*rule {
            // The rule allowed caching when this request began.
            CacheRule::Bypass(_) => (0, 0, 0),
            CacheRule::Store { ttl_ms, stale_while_revalidate_ms, stale_if_error_ms, .. } => {
                (*ttl_ms, *stale_while_revalidate_ms, *stale_if_error_ms)
            }
        };
        let ttl_ms = if is_empty { ttl_ms.min(NEGATIVE_MS_MAX) } else { ttl_ms };
        let fresh_until_ms = read_ms.saturating_add(ttl_ms);
        let revalidate_until_ms = fresh_until_ms.saturating_add(revalidate_ms);
        let error_until_ms = fresh_until_ms.saturating_add(error_ms).max(revalidate_until_ms);
        (Times { fresh_until_ms, revalidate_until_ms, error_until_ms }, self.entry_groups(&rule))
    }

    /// Starts the task that refreshes keys on time.
    pub(super) fn start_refreshing(self: &Arc<Self>) {
        if self.config.refresh_ms == 0 {
            return;
        }
        let read = Arc::downgrade(self);
        let pause = Duration::from_millis(self.config.refresh_ms);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                let Some(read) = read.upgrade() else { return };
                read.refresh_all().await;
            }
        });
        *self.refresher.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    async fn refresh_all(self: &Arc<Self>) {
        let keys: Vec<(String, Vec<SqlValue>)> = {
            let refreshed = self.refreshed.lock().unwrap_or_else(PoisonError::into_inner);
            refreshed.iter().map(|(key, values)| (key.clone(), values.clone())).collect()
        };
        for (key, values) in keys {
            let now_ms = self.parts.clock.steady_ms();
            let since_ms = now_ms.saturating_sub(self.config.refresh_ms * REFRESHED_INTERVALS);
            let wanted = self.cache.get(&key, now_ms).is_some_and(|(entry, freshness)| {
                freshness < Freshness::Spent && entry.value.used_ms.load(Ordering::Relaxed) >= since_ms
            });
            if !wanted {
                self.refreshed.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            } else if let Some(leader) = self.cache.try_lead(&key) {
                drop(self.load((&key, values), leader, LoadSource::Sql).await);
            }
        }
    }
}
