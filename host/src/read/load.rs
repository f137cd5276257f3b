//! Reading for all who wait, and reading anew before anybody does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use metrics::counter;
use rand::RngExt;
use sha2::{Digest, Sha256};

use super::shared::Found;
use super::{Body, Read, ReadError, read_group, rows, table_group};
use crate::cache::{Entry, Flown, Freshness, Lead, Stamp, Times};
use crate::error::Refusal;
use crate::listener::text::push_hex;
use crate::model::{CacheRule, SqlValue};
use crate::sql::StatementError;
use crate::telemetry::SHED_TOTAL;

/// How long nothing is remembered as nothing, in milliseconds, where the rule allows longer.
const NEGATIVE_MS_MAX: u64 = 5_000;
/// Bytes of a hash in an entity tag.
const ETAG_BYTES: usize = 16;
/// Keys of one read that are read anew on time; further ones are read when they are asked for.
const FOLLOWED_MAX: usize = 1_000;
/// What was not asked for in so many intervals is no longer read anew.
const FOLLOWED_INTERVALS: u64 = 10;

/// What SQL answered.
#[derive(Debug, Clone)]
pub(super) struct FromSql {
    pub(super) json: bytes::Bytes,
    pub(super) etag: Box<str>,
    pub(super) is_empty: bool,
}

/// Where a reading may take its answer from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// From what another host has read, where that is fresh and not what is here already.
    Any,
    /// From SQL.
    Sql,
}

/// What was read.
pub(super) struct Loaded {
    pub(super) entry: Arc<Entry<Body>>,
    /// By another host.
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

    /// Reads `key` for all who wait, and keeps it for as long as the rule says.
    pub(super) async fn load(
        self: &Arc<Self>,
        (key, values): (&str, Vec<SqlValue>),
        lead: Lead,
        source: Source,
    ) -> Result<Loaded, ReadError> {
        let before = self.cache.get(key, self.parts.clock.steady_ms()).map(|(entry, _)| entry);
        // Before the reading: what changes while it is read invalidates it.
        let stamp = self.cache.stamp();
        let mut looked = self.look_shared(key, source == Source::Any).await;
        if let Some(found) = looked.found.take()
            && let Some(entry) = self.take_over(key, found, stamp, before.as_deref())
        {
            self.follow_key(key, values);
            lead.land(Flown::Kept);
            return Ok(Loaded { entry, is_shared: true });
        }
        let stamp = self.cache.stamp();
        let started = Instant::now();
        let read = match self.read_sql(&values).await {
            Ok(read) => read,
            Err(error) => {
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some((key.to_owned(), error.clone()));
                lead.land(Flown::Failed);
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
        let entry = self.put(key, (read, rand::rng().random()), (now_ms, used_ms), stamp, cost_ms);
        self.follow_key(key, values);
        lead.land(Flown::Kept);
        self.keep_shared(key, looked, (&entry, is_empty));
        Ok(Loaded { entry, is_shared: false })
    }

    /// Keeps what another host has read, where there is nothing better here; `None` where SQL must be asked all the same.
    fn take_over(
        &self,
        key: &str,
        found: Found,
        stamp: Stamp,
        before: Option<&Entry<Body>>,
    ) -> Option<Arc<Entry<Body>>> {
        let now_ms = self.parts.clock.steady_ms();
        let (times, _) = self.times(found.read_ms, found.read.is_empty);
        let is_fresh = times.fresh_until_ms > now_ms;
        // What is here already was not good enough. What is stale is kept for when SQL fails.
        let is_new = before.is_none_or(|before| is_fresh && before.value.id != found.id);
        if !is_new || times.error_until_ms <= now_ms {
            return None;
        }
        let entry = self.put(key, (found.read, found.id), (found.read_ms, now_ms), stamp, found.cost_ms);
        is_fresh.then_some(entry)
    }

    fn put(
        &self,
        key: &str,
        (read, id): (FromSql, u64),
        (read_ms, used_ms): (u64, u64),
        stamp: Stamp,
        cost_ms: u64,
    ) -> Arc<Entry<Body>> {
        let (times, groups) = self.times(read_ms, read.is_empty);
        let bytes = (read.json.len() + read.etag.len()) as u64;
        let body = Body { json: read.json, etag: read.etag, id, read_ms, used_ms: AtomicU64::new(used_ms) };
        self.cache.put(key, Entry::new(body, bytes, groups, stamp, times, cost_ms).counted(self.ruling.usage()))
    }

    /// Remembers what is read anew on time.
    fn follow_key(&self, key: &str, values: Vec<SqlValue>) {
        if self.config.refresh_ms > 0 {
            let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
            if followed.len() < FOLLOWED_MAX {
                followed.insert(key.to_owned(), values);
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

    /// Until when an answer that was read then may be told, and its groups.
    fn times(&self, read_ms: u64, is_empty: bool) -> (Times, Box<[Box<str>]>) {
        let rule = self.ruling.rule();
        let (ttl_ms, revalidate_ms, error_ms) = match &*rule {
            // It was not when this request began.
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

    /// Begins to read anew on time what is asked for.
    pub(super) fn follow(self: &Arc<Self>) {
        if self.config.refresh_ms == 0 {
            return;
        }
        let read = Arc::downgrade(self);
        let pause = Duration::from_millis(self.config.refresh_ms);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                let Some(read) = read.upgrade() else { return };
                read.refresh_followed().await;
            }
        });
        *self.follower.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    async fn refresh_followed(self: &Arc<Self>) {
        let followed: Vec<(String, Vec<SqlValue>)> = {
            let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
            followed.iter().map(|(key, values)| (key.clone(), values.clone())).collect()
        };
        for (key, values) in followed {
            let now_ms = self.parts.clock.steady_ms();
            let since_ms = now_ms.saturating_sub(self.config.refresh_ms * FOLLOWED_INTERVALS);
            let wanted = self.cache.get(&key, now_ms).is_some_and(|(entry, freshness)| {
                freshness < Freshness::Spent && entry.value.used_ms.load(Ordering::Relaxed) >= since_ms
            });
            if !wanted {
                self.followed.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            } else if let Some(lead) = self.cache.lead(&key) {
                drop(self.load((&key, values), lead, Source::Sql).await);
            }
        }
    }
}
