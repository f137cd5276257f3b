//! Policy modules' values and counters with a time to live, under keys of each module's own.
//!
//! The writer handles them like everything else, which makes increments atomic, but no call waits for the disk: a crash may lose
//! the latest ones. Reads skip expired values, and the sweeper deletes them. Touches no keyspaces but those of modules and of
//! expiries.

use super::layout::{Fields, Space, View, damaged, expiry_key};
use super::transaction::Transaction;
use crate::{Counted, StoreError};
use weir_core::model::{KeyEntry, KeyIncrement};

/// Most disk space of the values of all modules, in bytes; beyond, writes are refused until some have expired. Measured when
/// memory is flushed, so the real size may be slightly larger.
const DISK_BYTES_MAX: u64 = 1 << 30;

/// The content of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Value(Vec<u8>),
    Counter(i64),
}

/// `time u64 · 'v' bytes | 'c' i64`: the expiry, and the content.
#[derive(Debug, Clone, PartialEq, Eq)]
struct GuestRecord {
    expires_ms: u64,
    content: Content,
}

impl GuestRecord {
    fn encode(&self) -> Vec<u8> {
        let (tag, bytes) = match &self.content {
            Content::Value(value) => (b'v', &value[..]),
            Content::Counter(count) => (b'c', &count.to_le_bytes()[..]),
        };
        [&self.expires_ms.to_le_bytes()[..], &[tag], bytes].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let (expires_ms, tag) = (fields.u64()?, fields.u8()?);
        let content = match tag {
            b'v' => Content::Value(fields.0.to_vec()),
            b'c' => Content::Counter(i64::from_le_bytes(fields.0.try_into().ok()?)),
            _ => return None,
        };
        Some(Self { expires_ms, content })
    }
}

/// A key on disk. Module names hold no 0 byte, so no key starts with another module's prefix.
pub(super) fn key(module: &str, key: &str) -> Vec<u8> {
    [module.as_bytes(), &[0], key.as_bytes()].concat()
}

/// The record, expired or not.
fn record(view: &impl View, key: &[u8]) -> Result<Option<GuestRecord>, StoreError> {
    let bytes = view.get(Space::Modules, key)?;
    bytes.map(|bytes| GuestRecord::decode(&bytes).ok_or_else(|| damaged("a policy module"))).transpose()
}

/// See [`crate::ModuleKeys::guest_get`].
pub(super) fn get(view: &impl View, key: &[u8], now_ms: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let found = record(view, key)?.filter(|record| now_ms < record.expires_ms);
    Ok(found.map(|record| match record.content {
        Content::Value(value) => value,
        Content::Counter(count) => count.to_string().into_bytes(),
    }))
}

/// See [`crate::ModuleKeys::guest_set`].
pub(super) fn set(
    transaction: &mut Transaction<'_>,
    module: &str,
    now_ms: u64,
    entries: &[KeyEntry],
) -> Result<(), StoreError> {
    let (spaces, _) = transaction.committed();
    if spaces.of(Space::Modules).disk_space() > DISK_BYTES_MAX {
        return Err(StoreError::Refused(format!(
            "what policy modules keep takes more than {DISK_BYTES_MAX} bytes of the disk; let some of it expire"
        )));
    }
    for entry in entries {
        let expires_ms = now_ms.saturating_add(u64::from(entry.ttl_ms));
        let record = GuestRecord { expires_ms, content: Content::Value(entry.value.clone()) };
        put(transaction, &key(module, &entry.key), &record)?;
    }
    Ok(())
}

/// See [`crate::ModuleKeys::guest_increment`]. Checks every increment before it writes any.
pub(super) fn increment(
    transaction: &mut Transaction<'_>,
    module: &str,
    now_ms: u64,
    increments: &[KeyIncrement],
) -> Result<Counted, StoreError> {
    let (mut counters, mut totals) = (std::collections::HashMap::new(), Vec::with_capacity(increments.len()));
    for (index, increment) in increments.iter().enumerate() {
        let key = key(module, &increment.key);
        if !counters.contains_key(&key)
            && let Some(found) = record(transaction, &key)?.filter(|record| now_ms < record.expires_ms)
        {
            counters.insert(key.clone(), found);
        }
        let total = match counters.get_mut(&key) {
            Some(GuestRecord { content: Content::Value(_), .. }) => return Ok(Counted::NotACounter(index)),
            Some(GuestRecord { content: Content::Counter(count), .. }) => {
                let Some(total) = count.checked_add(increment.by) else { return Ok(Counted::Overflow(index)) };
                *count = total;
                total
            }
            None if increment.by == 0 => 0,
            None => {
                let expires_ms = now_ms.saturating_add(u64::from(increment.ttl_ms));
                counters.insert(key, GuestRecord { expires_ms, content: Content::Counter(increment.by) });
                increment.by
            }
        };
        totals.push(total);
    }
    for (key, record) in &counters {
        put(transaction, key, record)?;
    }
    Ok(Counted::Totals(totals))
}

/// Writes a record, and replaces the expiry of the one before it.
fn put(transaction: &mut Transaction<'_>, key: &[u8], new: &GuestRecord) -> Result<(), StoreError> {
    let old_ms = record(transaction, key)?.map(|old| old.expires_ms);
    if old_ms != Some(new.expires_ms) {
        if let Some(old_ms) = old_ms {
            transaction.delete(Space::Expiry, expiry_key(old_ms, b'm', key));
        }
        transaction.put(Space::Expiry, expiry_key(new.expires_ms, b'm', key), &[]);
    }
    transaction.put(Space::Modules, key.to_vec(), &new.encode());
    Ok(())
}

/// Deletes a key that expired at `at_ms`, unless it was set again.
pub(super) fn sweep(transaction: &mut Transaction<'_>, key: &[u8], at_ms: u64) -> Result<(), StoreError> {
    if record(transaction, key)?.is_some_and(|record| record.expires_ms == at_ms) {
        transaction.delete(Space::Modules, key.to_vec());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ModuleKeys as _;
    use crate::embedded::EmbeddedStore;
    use weir_core::config::StoreConfig;

    #[test]
    fn records_are_read_back_and_cut_ones_are_not() {
        for content in [Content::Value(Vec::new()), Content::Value(vec![0, 1, 255]), Content::Counter(i64::MIN)] {
            let record = GuestRecord { expires_ms: 7, content };
            assert_eq!(GuestRecord::decode(&record.encode()), Some(record));
        }
        assert_eq!(GuestRecord::decode(b"12345678"), None);
        assert_eq!(GuestRecord::decode(b"12345678c1234567"), None);
        assert_eq!(GuestRecord::decode(b"12345678x"), None);
    }

    #[tokio::test]
    async fn what_modules_keep_is_swept_from_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let store = EmbeddedStore::open(&StoreConfig { path, ..StoreConfig::default() }).unwrap();
        let keys = |space: Space| store.spaces.get().unwrap().of(space).len().unwrap();
        let entry = |key: String, ttl_ms| KeyEntry { key, value: vec![7; 100], ttl_ms };
        let start_ms = 1_800_000_000_000;
        // A key that is set repeatedly leaves one expiry behind, not one per write.
        for now_ms in start_ms..start_ms + 100 {
            store.guest_set("m", now_ms, vec![entry("same".into(), 60_000)]).await.unwrap();
        }
        assert_eq!((keys(Space::Modules), keys(Space::Expiry)), (1, 1));
        let many = (0..3_000).map(|n| entry(format!("key-{n}"), 1_000)).collect();
        store.guest_set("m", start_ms, many).await.unwrap();
        let counted = KeyIncrement { key: "counter".into(), by: 1, ttl_ms: 1_000 };
        store.guest_increment("m", start_ms, vec![counted]).await.unwrap();
        assert_eq!((keys(Space::Modules), keys(Space::Expiry)), (3_002, 3_002));
        for round in 0..2_000 {
            // The sweeper works after each write, on what had expired by then.
            let now_ms = start_ms + 2_000 + round * 5;
            store.guest_set("m", now_ms, vec![entry("same".into(), 60_000)]).await.unwrap();
            if (keys(Space::Modules), keys(Space::Expiry)) == (1, 1) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("{} keys and {} expiries are left", keys(Space::Modules), keys(Space::Expiry));
    }
}
