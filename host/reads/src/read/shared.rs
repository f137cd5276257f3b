//! The read cache that hosts share: looked up before a query, filled after it. A failure of it costs time, never an answer, and
//! never makes an answer wrong: see [`weir_store::SharedCache`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use metrics::counter;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::load::FromSql;
use super::{Body, Read};
use weir_cache::Entry;
use weir_core::clock::Clock;
use weir_core::config::{ReadConfig, SharedCacheConfig, StoreConfig};
use weir_core::telemetry::READ_SHARED_TOTAL;
use weir_listener::text::push_hex;
use weir_store::{SharedCache, SharedEntry, StoreError, is_versioned};

/// Backoff after a failure of the shared cache, in milliseconds.
const BACKOFF_MS: u64 = 1_000;
/// Ends the head of an entry.
const END_OF_HEAD: u8 = b'\n';

/// The cache that hosts share.
pub struct Shared {
    cache: Arc<SharedCache>,
    value_bytes_max: usize,
    timeout: Duration,
    clock: Clock,
    backoff_until_ms: AtomicU64,
}

/// The head of an entry, before its JSON.
#[derive(Debug, Serialize, Deserialize)]
struct EntryHead {
    versions: String,
    id: u64,
    etag: Box<str>,
    empty: bool,
    cost_ms: u64,
    life_ms: u64,
}

/// A valid answer of another host.
pub(super) struct SharedAnswer {
    pub(super) read: FromSql,
    pub(super) id: u64,
    pub(super) cost_ms: u64,
    /// When it was read, by this host's clock.
    pub(super) read_ms: u64,
}

/// The result of a lookup before a load.
#[derive(Default)]
pub(super) struct SharedLookup {
    pub(super) found: Option<SharedAnswer>,
    /// The versions under which the answer of a load that starts now may be shared.
    versions: Option<String>,
}

impl Shared {
    /// Connects when it is first used.
    ///
    /// # Errors
    /// See [`SharedCache::new`].
    pub fn new(store: &StoreConfig, config: &SharedCacheConfig, clock: Clock) -> Result<Self, StoreError> {
        Ok(Self {
            cache: Arc::new(SharedCache::new(store, config)?),
            value_bytes_max: config.value_bytes_max,
            timeout: Duration::from_millis(config.timeout_ms),
            clock,
            backoff_until_ms: AtomicU64::new(0),
        })
    }

    /// Runs a call within its time limit; `None` when it failed. The call runs on a task of its own, which continues after the
    /// limit: a slow connection is then ready for the next call, and a dead one is detected.
    async fn within<T: Send + 'static>(
        &self,
        read: &str,
        call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Option<T> {
        let reason = match tokio::time::timeout(self.timeout, tokio::spawn(call)).await {
            Ok(Ok(Ok(done))) => return Some(done),
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it did not answer within cache.shared.timeout_ms".to_owned(),
        };
        tracing::debug!(read, reason, "the cache that hosts share is left alone for a while");
        self.backoff_until_ms.store(self.clock.steady_ms() + BACKOFF_MS, Ordering::Relaxed);
        count(read, "failed");
        None
    }
}

async fn look_up(
    cache: Arc<SharedCache>,
    (hash, groups): (String, Box<[Box<str>]>),
    finds: bool,
    now_ms: u64,
) -> Result<SharedLookup, StoreError> {
    // The entry before the versions: this host receives the invalidation of any version that is raised after that.
    let entry = if finds { cache.find(&hash).await? } else { None };
    let versions = cache.versions(&groups).await?;
    let found = entry.and_then(|entry| open(&entry, versions.as_deref()?, now_ms));
    Ok(SharedLookup { found, versions })
}

/// The answer in an entry, if it was read under these versions.
fn open(entry: &SharedEntry, versions: &str, now_ms: u64) -> Option<SharedAnswer> {
    let end = entry.bytes.iter().position(|byte| *byte == END_OF_HEAD)?;
    let head: EntryHead = serde_json::from_slice(&entry.bytes[..end]).ok()?;
    if head.versions != versions {
        return None;
    }
    let json = Bytes::copy_from_slice(&entry.bytes[end + 1..]);
    // Redis measures the age of an entry, because the clocks of hosts may differ.
    let read_ms = now_ms.saturating_sub(head.life_ms.saturating_sub(entry.left_ms));
    let read = FromSql { json, etag: head.etag, is_empty: head.empty };
    Some(SharedAnswer { read, id: head.id, cost_ms: head.cost_ms, read_ms })
}

fn count(read: &str, how: &'static str) {
    counter!(READ_SHARED_TOTAL, "read" => read.to_owned(), "how" => how).increment(1);
}

/// The name under which hosts share an answer: the same for all hosts with the same configuration of the read.
fn hash(config: &ReadConfig, key: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(serde_json::to_vec(config).unwrap_or_default());
    hash.update(key);
    let mut text = Vec::new();
    push_hex(&mut text, &hash.finalize());
    String::from_utf8(text).unwrap_or_default()
}

impl Read {
    /// Looks up the shared cache before a query. Take the generation before this. `finds`: an answer of another host will do.
    pub(super) async fn look_up_shared(&self, key: &str, finds: bool) -> SharedLookup {
        let Some(shared) = &self.parts.shared else { return SharedLookup::default() };
        let is_backing_off = shared.backoff_until_ms.load(Ordering::Relaxed) > shared.clock.steady_ms();
        // While an invalidation of this host has not reached the others, their answers may be outdated.
        if is_backing_off || !self.parts.rules.invalidations.is_published() {
            return SharedLookup::default();
        }
        let (hash, groups) = (hash(&self.config, key), self.entry_groups(&self.ruling.rule()));
        if !groups.iter().all(|group| is_versioned(group)) {
            return SharedLookup::default();
        }
        // The time before the lookup: an entry is then never taken for younger than it is.
        let call = look_up(Arc::clone(&shared.cache), (hash, groups), finds, shared.clock.steady_ms());
        let lookup = shared.within(&self.config.name, call).await;
        let Some(lookup) = lookup else { return SharedLookup::default() };
        if finds {
            count(&self.config.name, if lookup.found.is_some() { "hit" } else { "miss" });
        }
        lookup
    }

    /// Shares an answer of SQL with the other hosts. No request waits for it.
    pub(super) fn share(
        self: &Arc<Self>,
        key: &str,
        lookup: SharedLookup,
        (entry, is_empty): (&Arc<Entry<Body>>, bool),
    ) {
        let (Some(shared), Some(versions)) = (&self.parts.shared, lookup.versions) else { return };
        let body = &entry.value;
        let life_ms = entry.times.error_until_ms.saturating_sub(body.read_ms);
        if body.json.len() > shared.value_bytes_max {
            return count(&self.config.name, "too-large");
        }
        if life_ms == 0 {
            return;
        }
        let (id, etag, cost_ms, read_ms) = (body.id, body.etag.clone(), entry.cost_ms, body.read_ms);
        let head = EntryHead { versions, id, etag, empty: is_empty, cost_ms, life_ms };
        let Ok(mut bytes) = serde_json::to_vec(&head) else { return };
        bytes.push(END_OF_HEAD);
        bytes.extend_from_slice(&body.json);
        let (read, shared, hash) = (Arc::clone(self), Arc::clone(shared), hash(&self.config, key));
        tokio::spawn(async move {
            let (name, cache) = (&read.config.name, Arc::clone(&shared.cache));
            let left_ms = life_ms.saturating_sub(shared.clock.steady_ms().saturating_sub(read_ms)).max(1);
            if shared.within(name, async move { cache.put(&hash, &bytes, left_ms).await }).await.is_some() {
                count(name, "kept");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(versions: &str, left_ms: u64) -> SharedEntry {
        let head = EntryHead {
            versions: versions.into(),
            id: 7,
            etag: "\"e\"".into(),
            empty: false,
            cost_ms: 3,
            life_ms: 10_000,
        };
        let mut bytes = serde_json::to_vec(&head).unwrap();
        bytes.extend_from_slice(b"\n{\"rows\":[\n]}");
        SharedEntry { bytes, left_ms }
    }

    #[test]
    fn an_entry_is_valid_under_its_versions() {
        let found = open(&entry("a", 4_000), "a", 50_000).unwrap();
        assert_eq!((&*found.read.json, found.read_ms, found.id), (&b"{\"rows\":[\n]}"[..], 44_000, 7));
        assert!(open(&entry("a", 4_000), "b", 50_000).is_none());
        for broken in [&b""[..], b"\n", b"{}\n{}", b"no head"] {
            assert!(open(&SharedEntry { bytes: broken.to_vec(), left_ms: 1 }, "a", 1).is_none());
        }
    }

    #[test]
    fn only_the_same_read_shares_an_answer() {
        let config = |sql: &str| -> ReadConfig {
            toml::from_str(&format!("name = \"r\"\nsql = \"{sql}\"\nclass = \"seconds\"")).unwrap()
        };
        assert_eq!(hash(&config("x"), "k"), hash(&config("x"), "k"));
        assert_ne!(hash(&config("x"), "k"), hash(&config("y"), "k"), "another statement");
        assert_ne!(hash(&config("x"), "k"), hash(&config("x"), "l"));
        assert_eq!(hash(&config("x"), "k").len(), 64);
    }
}
