//! The cache that hosts share: what one has read, the others need not. It may lose anything at any time.
//!
//! An entry is true while the versions are those that it was read under. Who reads anew asks for the versions before it asks
//! SQL; who finds an entry asks for the versions after it has found it; whoever invalidates gives them another version
//! in the step in which it tells the others (see `relay`). So none is true that was being read when it was invalidated,
//! and none that a host has heard of as invalid.
//!
//! Entries and versions are in two places: entries in a Redis that may drop them when it is full, versions where the stream is.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionInfo, RedisError, Value};

use super::link::{Link, Nature, Opener, addresses};
use super::relay::VERSION_OF_ALL;
use super::reply::unexpected;
use crate::config::{SharedCacheConfig, StoreConfig};
use crate::store::StoreError;

/// The way to it.
pub struct SharedCache {
    versions: Link,
    info: ConnectionInfo,
    opener: Opener,
    timeout: Duration,
    /// Made anew after each failure: of a server that went away without a word it would wait for the system to notice.
    entries: RwLock<Option<MultiplexedConnection>>,
}

/// An entry that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedEntry {
    /// As it was kept.
    pub bytes: Vec<u8>,
    /// How long it is still there, in milliseconds.
    pub left_ms: u64,
}

impl SharedCache {
    /// Connects when it is first used.
    ///
    /// # Errors
    /// A URL that is none, or that names several servers.
    pub fn new(store: &StoreConfig, config: &SharedCacheConfig) -> Result<Self, StoreError> {
        let wrong = |reason: String| StoreError::Misconfigured(format!("cache.shared.url: {reason}"));
        let infos = addresses(&config.url).map_err(|error| wrong(error.to_string()))?;
        let [info] = infos.as_slice() else { return Err(wrong("name one server".into())) };
        let timeout = Duration::from_millis(config.timeout_ms);
        let tls = config.secured().map_err(|error| StoreError::Misconfigured(error.to_string()))?;
        let opener = Opener::new("cache.shared", tls.as_ref(), config.tls, timeout)?;
        Ok(Self { versions: Link::new(store)?, info: info.clone(), opener, timeout, entries: RwLock::default() })
    }

    /// The connection; of those who make one at once the last one's stays.
    async fn entries(&self) -> Result<MultiplexedConnection, StoreError> {
        if let Some(entries) = self.entries.read().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(entries);
        }
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(self.timeout));
        // The caller does without it for a while when this fails: it is not tried again here.
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
    /// The Redis of entries does not answer.
    pub async fn find(&self, hash: &str) -> Result<Option<SharedEntry>, StoreError> {
        let key = self.versions.custody.keys.shared(hash);
        let mut pipe = redis::pipe();
        // Both of the same entry.
        pipe.atomic().cmd("GET").arg(&key).cmd("PTTL").arg(&key);
        let (bytes, left_ms): (Option<Vec<u8>>, i64) =
            pipe.query_async(&mut self.entries().await?).await.map_err(|error| self.failed(&error))?;
        // Gone between the two, or kept by somebody else for ever: none.
        let left_ms = u64::try_from(left_ms).ok().filter(|left_ms| *left_ms > 0);
        Ok(bytes.zip(left_ms).map(|(bytes, left_ms)| SharedEntry { bytes, left_ms }))
    }

    /// Keeps an entry.
    ///
    /// # Errors
    /// The Redis of entries does not answer.
    pub async fn keep(&self, hash: &str, bytes: &[u8], life_ms: u64) -> Result<(), StoreError> {
        let mut command = redis::cmd("SET");
        command.arg(self.versions.custody.keys.shared(hash)).arg(bytes).arg("PX").arg(life_ms);
        command.query_async(&mut self.entries().await?).await.map_err(|error| self.failed(&error))
    }

    /// The versions of these groups now, as one text; `None` while there is none of all.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn versions(&self, groups: &[Box<str>]) -> Result<Option<String>, StoreError> {
        let fields = std::iter::once(VERSION_OF_ALL.to_owned()).chain(groups.iter().map(|group| version_field(group)));
        let fields: Vec<String> = fields.collect();
        let arguments = |command: &mut redis::Cmd| {
            command.arg(&fields);
        };
        let keys = [self.versions.custody.keys.versions()];
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

/// Whether a group has a version. Those that requests to an upstream make up have none: they are without number, and no
/// SQL read has one.
pub fn is_versioned(group: &str) -> bool {
    !["uri:", "group:", "upstream:"].iter().any(|prefix| group.starts_with(prefix))
}

/// The field with the version of a group.
pub fn version_field(group: &str) -> String {
    format!("group:{group}")
}
