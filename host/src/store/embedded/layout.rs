//! What lies where on disk: keyspaces, keys and records. Everything here is data format.
//!
//! ```text
//! system    "format" → "4" · "partitions" → u16 · "journal" → its id · all written once; "database" → the id of the database
//!           that the journal belongs to, once it is known · "unproven" → "3": a version wrote it that knew no databases
//! heads     kind 0 partition                → Head
//! journal   kind 0 partition position       → journal entry
//! outcomes  kind 0 key                      → Outcome
//! expiry    time u64 · 'o' | 'm' · key of outcome | key of modules → empty
//! modules   module 0 key                    → GuestRecord: what policy modules keep
//! uniques   kind 0 partition bucket         → slots of the table of windows (see `store/unique`); a short one ends in zeros
//! rooms     waiting rooms: see `room`
//! ```
//! Numbers in keys are big-endian so that they sort; no kind and no name of a module holds a 0 byte. The state of targets
//! is not on disk: see `state`.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Slice, Snapshot};
use uuid::Uuid;

use crate::journal::{Entry, entry};
use crate::model::{Backlog, Incarnation, Partition, Position};
use crate::store::{Head, StoreError, other_partitions};

/// The keyspaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    System,
    Heads,
    Journal,
    Outcomes,
    Expiry,
    Modules,
    Uniques,
    Rooms,
}

/// The data format on disk.
const FORMAT: &[u8] = b"4";
/// The format before. What it lacks is an id, and whose the journal is; all else is as it was.
const EARLIER: &[u8] = b"3";
/// Names on disk, in the order of [`Space`].
const NAMES: [&str; 8] = ["system", "heads", "journal", "outcomes", "expiry", "modules", "uniques", "rooms"];
/// How many keyspaces there are.
pub(super) const SPACES: usize = NAMES.len();
/// Memory for the fresh writes of one keyspace, in bytes.
const MEMTABLE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The open database.
pub(super) struct Spaces {
    pub(super) database: Database,
    keyspaces: Vec<Keyspace>,
}

impl Spaces {
    pub(super) fn open(database: Database) -> Result<Self, StoreError> {
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES_MAX);
        let keyspaces = NAMES.iter().map(|name| database.keyspace(name, options)).collect::<Result<_, _>>();
        Ok(Self { keyspaces: keyspaces.map_err(failed)?, database })
    }

    pub(super) fn of(&self, space: Space) -> &Keyspace {
        &self.keyspaces[space as usize]
    }

    /// The keyspace at `index` in the order of [`Space`].
    pub(super) fn at(&self, index: usize) -> &Keyspace {
        &self.keyspaces[index]
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.database.snapshot()
    }
}

/// What an error of the database means to the callers of the store.
pub(super) fn failed(error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Poisoned => {
            StoreError::Refused("an earlier write to the disk failed; mend the disk and restart weir".into())
        }
        fjall::Error::Io(error) => StoreError::Refused(format!("disk: {error}")),
        other => StoreError::Damaged(other.to_string()),
    }
}

/// What is not as it was written.
pub(super) fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(format!("a record of {what} in the embedded store is not as weir wrote it"))
}

/// An entry of the journal, as it lies on disk.
pub(super) fn decoded(key: &[u8], value: &[u8]) -> Result<Entry, StoreError> {
    let position = position_of(key).ok_or_else(|| damaged("the journal"))?;
    entry::decode(position, value).map_err(|error| StoreError::Damaged(error.to_string()))
}

/// Compares format and number of partitions with what is recorded; records them in a new directory, and brings the format before
/// up to this one.
pub(super) fn check_format(spaces: &Spaces, path: &Path, partitions: Partition) -> Result<(), StoreError> {
    let system = spaces.of(Space::System);
    let format = system.get("format").map_err(failed)?;
    if format.as_deref().is_none_or(|format| format == EARLIER) {
        let mut batch = spaces.database.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(system, "format", FORMAT);
        batch.insert(system, "journal", Uuid::new_v4().into_bytes());
        match format {
            Some(earlier) => batch.insert(system, "unproven", earlier),
            None => batch.insert(system, "partitions", partitions.to_le_bytes()),
        }
        batch.commit().map_err(failed)?;
    }
    check_version(spaces, path)?;
    match recorded_partitions(spaces)? {
        Some(recorded) if recorded == partitions => Ok(()),
        Some(recorded) => Err(other_partitions(&format!("directory {}", path.display()), recorded, partitions)),
        None => Err(damaged("the number of partitions")),
    }
}

/// Refuses what another version wrote, but for what this one can take over.
pub(super) fn check_version(spaces: &Spaces, path: &Path) -> Result<(), StoreError> {
    match spaces.of(Space::System).get("format").map_err(failed)? {
        Some(format) if *format != *FORMAT && *format != *EARLIER => Err(StoreError::Misconfigured(format!(
            "store.path: {} was written by another version of weir (format {}, this one has {}): let that version flush \
             everything, stop it, and start this one with an empty directory",
            path.display(),
            String::from_utf8_lossy(&format),
            String::from_utf8_lossy(FORMAT)
        ))),
        _ => Ok(()),
    }
}

/// The number of partitions that is recorded.
pub(super) fn recorded_partitions(spaces: &Spaces) -> Result<Option<Partition>, StoreError> {
    let recorded = spaces.of(Space::System).get("partitions").map_err(failed)?;
    Ok(recorded.as_deref().and_then(|bytes| bytes.try_into().ok()).map(Partition::from_le_bytes))
}

/// Whether the journal is of a version that knew no databases, and nobody has shown whose it is.
pub(super) fn is_unproven(spaces: &Spaces) -> Result<bool, StoreError> {
    let system = spaces.of(Space::System);
    let is_earlier = system.get("format").map_err(failed)?.is_some_and(|format| *format == *EARLIER);
    Ok(is_earlier || system.get("unproven").map_err(failed)?.is_some())
}

/// An id of 16 bytes among what is recorded.
pub(super) fn recorded_id(spaces: &Spaces, name: &'static str) -> Result<Option<Uuid>, StoreError> {
    let bytes = spaces.of(Space::System).get(name).map_err(failed)?;
    bytes.map(|bytes| Uuid::from_slice(&bytes).map_err(|_| damaged(name))).transpose()
}

/// The kind and the partition that a key of a head names.
pub(super) fn place_of(key: &[u8]) -> Result<(&str, Partition), StoreError> {
    let Some((kind, [0, partition @ ..])) = key.split_last_chunk::<3>() else { return Err(damaged("a head")) };
    let kind = std::str::from_utf8(kind).map_err(|_| damaged("a head"))?;
    Ok((kind, Partition::from_be_bytes(*partition)))
}

/// Reads keys: as of a snapshot, or with the writes of a transaction before it.
pub(super) trait View {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, StoreError>;

    fn head(&self, kind: &str, partition: Partition) -> Result<Option<HeadRecord>, StoreError> {
        let bytes = self.get(Space::Heads, &prefix(kind, partition))?;
        bytes.map(|bytes| HeadRecord::decode(&bytes).ok_or_else(|| damaged("a head"))).transpose()
    }
}

/// Beginning of all keys of a (kind, partition).
pub(super) fn prefix(kind: &str, partition: Partition) -> Vec<u8> {
    let mut key = Vec::with_capacity(kind.len() + 64);
    key.extend_from_slice(kind.as_bytes());
    key.push(0);
    key.extend_from_slice(&partition.to_be_bytes());
    key
}

pub(super) fn journal_key(kind: &str, partition: Partition, position: Position) -> Vec<u8> {
    let mut key = prefix(kind, partition);
    key.extend_from_slice(&position.to_be_bytes());
    key
}

/// The position at the end of a journal key.
pub(super) fn position_of(key: &[u8]) -> Option<Position> {
    key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}

pub(super) fn unique_key(kind: &str, partition: Partition, bucket: u32) -> Vec<u8> {
    let mut key = prefix(kind, partition);
    key.extend_from_slice(&bucket.to_be_bytes());
    key
}

pub(super) fn outcome_key(kind: &str, key: &[u8; 16]) -> Vec<u8> {
    [kind.as_bytes(), &[0], key].concat()
}

pub(super) fn expiry_key(at_ms: u64, what: u8, key: &[u8]) -> Vec<u8> {
    [&at_ms.to_be_bytes()[..], &[what], key].concat()
}

/// Takes fixed-size fields from the front of a record.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn uuid(&mut self) -> Option<Uuid> {
        self.take().map(Uuid::from_bytes)
    }

    fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

/// Head of one (kind, partition).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeadRecord {
    pub(super) incarnation: Incarnation,
    pub(super) last: Position,
    pub(super) flushed: Position,
    pub(super) floor: Position,
    /// What waits above `flushed`.
    pub(super) entries: u64,
    pub(super) bytes: u64,
    /// When the oldest of it was accepted.
    pub(super) oldest_at_ms: u64,
}

impl HeadRecord {
    pub(super) fn fresh(incarnation: Incarnation) -> Self {
        Self { incarnation, last: 0, flushed: 0, floor: 0, entries: 0, bytes: 0, oldest_at_ms: 0 }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(self.incarnation.0.as_bytes());
        for value in [self.last, self.flushed, self.floor, self.entries, self.bytes, self.oldest_at_ms] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let head = Self {
            incarnation: Incarnation(fields.uuid()?),
            last: fields.u64()?,
            flushed: fields.u64()?,
            floor: fields.u64()?,
            entries: fields.u64()?,
            bytes: fields.u64()?,
            oldest_at_ms: fields.u64()?,
        };
        fields.end(head)
    }

    /// As it is told; `targets` wait, as far as the state knows.
    pub(super) fn public(&self, partition: Partition, targets: u64) -> Head {
        let oldest_at_ms = (self.entries > 0).then_some(self.oldest_at_ms);
        Head {
            partition,
            incarnation: self.incarnation,
            last: self.last,
            flushed: self.flushed,
            floor: self.floor,
            backlog: Backlog { entries: self.entries, targets, bytes: self.bytes, oldest_at_ms },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_back_and_cut_ones_are_not() {
        let mut head = HeadRecord::fresh(Incarnation::fresh());
        (head.last, head.flushed, head.floor, head.entries, head.bytes, head.oldest_at_ms) = (9, 8, 7, 6, 5, 4);
        assert_eq!(HeadRecord::decode(&head.encode()), Some(head));
        assert_eq!(HeadRecord::decode(&head.encode()[1..]), None);
    }

    #[test]
    fn keys_sort_by_number() {
        assert!(journal_key("k", 1, 255) < journal_key("k", 1, 256));
        assert_eq!(position_of(&journal_key("k", 1, 77)), Some(77));
    }
}
