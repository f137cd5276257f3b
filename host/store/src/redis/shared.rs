//! The cache that hosts share: an answer that one host has read spares the others a query. It may lose anything at any time.
//!
//! An entry is valid while the versions are those under which it was read. A host that loads an answer fetches the versions
//! before it queries SQL; a host that finds an entry fetches the versions after it has found it; an invalidation changes versions
//! in the same step in which it notifies the other hosts (see `bus`). So no entry is valid whose read was in flight during its
//! invalidation, or whose invalidation a host has received.
//!
//! Entries and versions are in two places: entries in a Redis that may evict them, versions beside the stream of the bus.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionInfo, RedisError, Value};

use super::bus::VERSION_OF_ALL;
use super::link::{Link, Nature, Opener, addresses};
use super::reply::unexpected;
use crate::StoreError;
use weir_core::config::{SharedCacheConfig, StoreConfig};

/// The connections of the shared cache.
pub struct SharedCache {
    versions: Link,
    info: ConnectionInfo,
    opener: Opener,
    timeout: Duration,
    /// Replaced after each failure: a connection to a server that disappeared silently would wait for the system to notice.
    entries: RwLock<Option<MultiplexedConnection>>,
}

/// An entry that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedEntry {
    /// Its bytes, as they were stored.
    pub bytes: Vec<u8>,
    /// Its remaining time to live, in milliseconds.
    pub left_ms: u64,
}

impl SharedCache {
    /// Connects when it is first used.
    ///
    /// # Errors
    /// An invalid URL, or one that names several servers.
    pub fn new(store: &StoreConfig, config: &SharedCacheConfig) -> Result<Self, StoreError> {
        let wrong = |reason: String| StoreError::Misconfigured(format!("cache.shared.url: {reason}"));
        let infos = addresses(&config.url).map_err(|error| wrong(error.to_string()))?;
        let [info] = infos.as_slice() else { return Err(wrong("name one server".into())) };
        let timeout = Duration::from_millis(config.timeout_ms);
        let tls = config.secured().map_err(|error| StoreError::Misconfigured(error.to_string()))?;
        let opener = Opener::new("cache.shared", tls.as_ref(), config.tls, timeout)?;
        Ok(Self { versions: Link::new(store)?, info: info.clone(), opener, timeout, entries: RwLock::default() })
    }

    /// The connection; when several callers open one at once, the last one stays.
    async fn entries(&self) -> Result<MultiplexedConnection, StoreError> {
        if let Some(entries) = self.entries.read().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(entries);
        }
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(self.timeout));
        // After a failure the caller does without the cache for a while, so this does not retry.
        let opened = tokio::time::timeout(self.timeout, self.opener.open_and_drive(&self.info, config)).await;
        let late = || RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        let opened = opened.unwrap_or_else(|_| Err(late())).map_err(|error| self.failed(&error))?;
        *self.entries.write().unwrap_or_else(PoisonError::into_inner) = Some(opened.clone());
        Ok(opened)
    }

    fn failed(&self, error: &RedisError) -> StoreError {
        *self.entries.write().unwrap_or_else(PoisonError::into_inner) = None;
        StoreError::Unavailable(format!("the cache that hosts share: {error}"))
    }

    /// The entry under `hash`, if there is one.
    ///
    /// # Errors
    /// The Redis of the entries does not answer.
    pub async fn find(&self, hash: &str) -> Result<Option<SharedEntry>, StoreError> {
        let key = self.versions.guard.keys.shared(hash);
        let mut pipe = redis::pipe();
        // Both of the same entry.
        pipe.atomic().cmd("GET").arg(&key).cmd("PTTL").arg(&key);
        let (bytes, left_ms): (Option<Vec<u8>>, i64) =
            pipe.query_async(&mut self.entries().await?).await.map_err(|error| self.failed(&error))?;
        // Expired between the two, or stored by another program without expiry: no entry.
        let left_ms = u64::try_from(left_ms).ok().filter(|left_ms| *left_ms > 0);
        Ok(bytes.zip(left_ms).map(|(bytes, left_ms)| SharedEntry { bytes, left_ms }))
    }

    /// Stores an entry.
    ///
    /// # Errors
    /// The Redis of the entries does not answer.
    pub async fn put(&self, hash: &str, bytes: &[u8], life_ms: u64) -> Result<(), StoreError> {
        let mut command = redis::cmd("SET");
        command.arg(self.versions.guard.keys.shared(hash)).arg(bytes).arg("PX").arg(life_ms);
        command.query_async(&mut self.entries().await?).await.map_err(|error| self.failed(&error))
    }

    /// The present versions of these groups, as one text; `None` while there is no version of everything.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn versions(&self, groups: &[Box<str>]) -> Result<Option<String>, StoreError> {
        let fields = std::iter::once(VERSION_OF_ALL.to_owned()).chain(groups.iter().map(|group| version_field(group)));
        let fields: Vec<String> = fields.collect();
        let arguments = |command: &mut redis::Cmd| {
            command.arg(&fields);
        };
        let keys = [self.versions.guard.keys.versions()];
        let found = self.versions.run(&self.versions.scripts.versions, Nature::Reads, &keys, arguments).await?;
        let Value::Array(found) = found else { return Err(unexpected("a list")) };
        if found.len() != fields.len() {
            return Err(unexpected("a version for each group"));
        }
        let mut text = String::new();
        for (field, version) in fields.iter().zip(found) {
            let version = match version {
                Value::BulkString(version) => String::from_utf8(version).map_err(|_| unexpected("a version"))?,
                Value::Nil if field == VERSION_OF_ALL => return Ok(None),
                Value::Nil => String::new(),
                _ => return Err(unexpected("a version")),
            };
            text.push_str(&format!("{field:?}={version};"));
        }
        Ok(Some(text))
    }
}

/// Whether a group has a version. Groups made up by requests to an upstream have none: their number is unbounded, and no SQL read
/// has one.
pub fn is_versioned(group: &str) -> bool {
    !["uri:", "group:", "upstream:"].iter().any(|prefix| group.starts_with(prefix))
}

/// The field with the version of a group.
pub fn version_field(group: &str) -> String {
    format!("group:{group}")
}
