//! The layout on disk: keyspaces, keys and records. Everything here is data format.
//!
//! ```text
//! system    "format" → "4" · "partitions" → u16 · "journal" → its id · all written once; "database" → the id of the database
//!           that the journal belongs to, once it is known · "unproven" → "3": a version wrote it that knew no databases ·
//!           "stamp" → BatchHeader, in every batch
//! heads     kind 0 partition                → Head
//! journal   kind 0 partition position       → journal entry
//! outcomes  kind 0 key                      → Outcome
//! expiry    time u64 · 'o' | 'm' · key of outcome | key of modules → empty
//! modules   module 0 key                    → GuestRecord: what policy modules keep
//! uniques   kind 0 partition bucket         → slots of the table of windows (see `unique`); a short one ends in zeros
//! rooms     waiting rooms: see `room`
//! ```
//! Numbers in keys are big-endian so that they sort; no kind and no name of a module holds a 0 byte. The state of targets
//! is not on disk: see `state`. The key "stamp" of other keyspaces says only how far they are in tables: see `BEACONS`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Slice, Snapshot};
use uuid::Uuid;

use super::batch_headers::BatchHeaders;
use super::files::Log;
use super::files::batch_header::BatchHeader;
use crate::{Head, StoreError, other_partitions};
use weir_core::journal::chain::Chain;
use weir_core::journal::{Entry, entry};
use weir_core::model::{Backlog, Incarnation, Partition, Position};

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
/// The format before. It lacks an id and an owner of the journal; everything else is the same.
const EARLIER: &[u8] = b"3";
/// Names on disk, in the order of [`Space`].
pub(super) const NAMES: [&str; 8] = ["system", "heads", "journal", "outcomes", "expiry", "modules", "uniques", "rooms"];
/// How many keyspaces there are.
pub(super) const SPACES: usize = NAMES.len();
/// Keyspaces where every batch writes a key of its own, which is never deleted: so compaction never drops the newest write, which
/// shows how far the keyspace has been written to tables. Modules' keys are no promise; in `system` the header is that key.
pub(super) const BEACONS: [Space; 5] = [Space::Heads, Space::Journal, Space::Outcomes, Space::Uniques, Space::Rooms];
/// Memory for the fresh writes of one keyspace, in bytes.
const MEMTABLE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Writes by keyspace; `None` deletes.
pub(super) type Writes = [HashMap<Vec<u8>, Option<Slice>>; SPACES];

/// The open database.
pub(super) struct Spaces {
    pub(super) database: Database,
    keyspaces: Vec<Keyspace>,
    headers: Mutex<BatchHeaders>,
}

impl Spaces {
    /// `log` is the state of the log in `directory` before it was opened.
    pub(super) fn open(database: Database, directory: &Path, log: Log) -> Result<Self, StoreError> {
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES_MAX);
        let keyspaces = NAMES.iter().map(|name| database.keyspace(name, options)).collect::<Result<Vec<_>, _>>();
        let keyspaces = keyspaces.map_err(failed)?;
        let in_tables = keyspaces[Space::System as usize].get(BatchHeader::KEY).map_err(failed)?;
        let headers = BatchHeaders::open(directory, log, in_tables.as_deref().and_then(BatchHeader::decode))?;
        Ok(Self { keyspaces, database, headers: Mutex::new(headers) })
    }

    /// One atomic write; with `sync`, returns when it is on disk.
    pub(super) fn commit(&self, writes: Writes, sync: bool) -> fjall::Result<()> {
        let mut headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        let header = headers.next(self.database.seqno());
        let mode = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut batch = self.database.batch().durability(Some(mode));
        batch.insert(self.of(Space::System), BatchHeader::KEY, header.encode());
        let is_touched = |space: &&Space| !writes[**space as usize].is_empty();
        let touched: Vec<Space> = BEACONS.iter().filter(is_touched).copied().collect();
        for space in &touched {
            batch.insert(self.of(*space), BatchHeader::KEY, b"");
        }
        for (keyspace, layer) in self.keyspaces.iter().zip(writes) {
            for (key, value) in layer {
                match value {
                    Some(value) => batch.insert(keyspace, key, value),
                    None => batch.remove(keyspace, key),
                }
            }
        }
        batch.commit()?;
        headers.written(header, &touched, sync);
        Ok(())
    }

    /// Whether it accepts writes: a background write may have failed.
    pub(super) fn check(&self) -> fjall::Result<()> {
        self.database.persist(PersistMode::Buffer)
    }

    /// Syncs the mark of the synced batches to disk.
    pub(super) fn sync_mark(&self) {
        self.headers.lock().unwrap_or_else(PoisonError::into_inner).sync();
    }

    pub(super) fn of(&self, space: Space) -> &Keyspace {
        &self.keyspaces[space as usize]
    }

    /// The keyspace at `index` in the order of [`Space`].
    #[cfg(test)]
    pub(super) fn at(&self, index: usize) -> &Keyspace {
        &self.keyspaces[index]
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.database.snapshot()
    }
}

/// The store error for an error of the database.
pub(super) fn failed(error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Poisoned => StoreError::Refused(
            "an earlier write to the disk failed; writes are taken again when the disk takes them".into(),
        ),
        fjall::Error::Io(error) => StoreError::Refused(format!("disk: {error}")),
        other => StoreError::Damaged(other.to_string()),
    }
}

/// The error for data that is not as it was written.
pub(super) fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(format!("a record of {what} in the embedded store is not as weir wrote it"))
}

/// An entry of the journal on disk.
pub(super) fn decoded(key: &[u8], value: &[u8]) -> Result<Entry, StoreError> {
    let position = position_of(key).ok_or_else(|| damaged("the journal"))?;
    entry::decode(position, value).map_err(|error| StoreError::Damaged(error.to_string()))
}

/// Compares format and number of partitions with the record; records them in a new directory, and upgrades the format before.
pub(super) fn check_format(spaces: &Spaces, path: &Path, partitions: Partition) -> Result<(), StoreError> {
    let system = spaces.of(Space::System);
    let format = system.get("format").map_err(failed)?;
    if format.as_deref().is_none_or(|format| format == EARLIER) {
        let mut first = vec![("format", FORMAT.to_vec()), ("journal", Uuid::new_v4().into_bytes().to_vec())];
        first.push(match format {
            Some(earlier) => ("unproven", earlier.to_vec()),
            None => ("partitions", partitions.to_le_bytes().to_vec()),
        });
        let mut writes = Writes::default();
        writes[Space::System as usize].extend(first.into_iter().map(|(key, value)| (key.into(), Some(value.into()))));
        spaces.commit(writes, true).map_err(failed)?;
    }
    check_version(spaces, path)?;
    match recorded_partitions(spaces)? {
        Some(recorded) if recorded == partitions => Ok(()),
        Some(recorded) => Err(other_partitions(&format!("directory {}", path.display()), recorded, partitions)),
        None => Err(damaged("the number of partitions")),
    }
}

/// Refuses the data of another version, except of those that this one can upgrade.
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

/// The recorded number of partitions.
pub(super) fn recorded_partitions(spaces: &Spaces) -> Result<Option<Partition>, StoreError> {
    let recorded = spaces.of(Space::System).get("partitions").map_err(failed)?;
    Ok(recorded.as_deref().and_then(|bytes| bytes.try_into().ok()).map(Partition::from_le_bytes))
}

/// Whether the journal is of a version that recorded no database, and its owner was not proved yet.
pub(super) fn is_unproven(spaces: &Spaces) -> Result<bool, StoreError> {
    let system = spaces.of(Space::System);
    let is_earlier = system.get("format").map_err(failed)?.is_some_and(|format| *format == *EARLIER);
    Ok(is_earlier || system.get("unproven").map_err(failed)?.is_some())
}

/// A recorded id of 16 bytes.
pub(super) fn recorded_id(spaces: &Spaces, name: &'static str) -> Result<Option<Uuid>, StoreError> {
    let bytes = spaces.of(Space::System).get(name).map_err(failed)?;
    bytes.map(|bytes| Uuid::from_slice(&bytes).map_err(|_| damaged(name))).transpose()
}

/// The kind and the partition in a key of a head.
pub(super) fn place_of(key: &[u8]) -> Result<(&str, Partition), StoreError> {
    let Some((kind, [0, partition @ ..])) = key.split_last_chunk::<3>() else { return Err(damaged("a head")) };
    let kind = std::str::from_utf8(kind).map_err(|_| damaged("a head"))?;
    Ok((kind, Partition::from_be_bytes(*partition)))
}

/// Reads keys: of a snapshot, or with the writes of a transaction on top of it.
pub(super) trait View {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, StoreError>;

    fn head(&self, kind: &str, partition: Partition) -> Result<Option<HeadRecord>, StoreError> {
        let bytes = self.get(Space::Heads, &prefix(kind, partition))?;
        bytes.map(|bytes| HeadRecord::decode(&bytes).ok_or_else(|| damaged("a head"))).transpose()
    }
}

/// The prefix of all keys of a (kind, partition).
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
    /// The backlog above `flushed`.
    pub(super) entries: u64,
    pub(super) bytes: u64,
    /// When its oldest change was accepted.
    pub(super) oldest_at_ms: u64,
    /// The last position that was trimmed, in any life.
    pub(super) gone: Position,
    /// Changes ever appended.
    pub(super) changes: u64,
    /// The sum of their amounts (see [`weir_core::model::Change::amount`]), since entries name the one before them.
    pub(super) amount: u64,
    /// The same for trimmed changes; [`UNKNOWN`] while entries of the format before are not trimmed.
    pub(super) amount_gone: u64,
}

/// An unknown amount.
pub(super) const UNKNOWN: u64 = u64::MAX;

impl HeadRecord {
    pub(super) fn fresh(incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            last: 0,
            flushed: 0,
            floor: 0,
            entries: 0,
            bytes: 0,
            oldest_at_ms: 0,
            gone: 0,
            changes: 0,
            amount: 0,
            amount_gone: 0,
        }
    }

    /// The entry that the next one names: the newest, even when it is trimmed.
    pub(super) fn newest(&self) -> Position {
        self.last.max(self.gone)
    }

    /// Its part of the chain of entries.
    pub(super) fn chain(&self) -> Chain {
        Chain {
            trimmed: (self.gone, self.changes.saturating_sub(self.entries)),
            trimmed_amount: (self.amount_gone != UNKNOWN).then_some(self.amount_gone),
            last: self.last,
            changes: self.changes,
            amount: self.amount,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(self.incarnation.0.as_bytes());
        let waiting = [self.entries, self.bytes, self.oldest_at_ms];
        let chain = [self.gone, self.changes, self.amount, self.amount_gone];
        for value in [self.last, self.flushed, self.floor].into_iter().chain(waiting).chain(chain) {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let mut head = Self {
            incarnation: Incarnation(fields.uuid()?),
            last: fields.u64()?,
            flushed: fields.u64()?,
            floor: fields.u64()?,
            entries: fields.u64()?,
            bytes: fields.u64()?,
            oldest_at_ms: fields.u64()?,
            gone: 0,
            changes: 0,
            amount: 0,
            amount_gone: 0,
        };
        if fields.0.is_empty() {
            // Before entries named the one before them, a head ended here.
            (head.gone, head.changes) = (head.flushed, head.entries);
            head.amount_gone = if head.entries > 0 { UNKNOWN } else { 0 };
        } else {
            (head.gone, head.changes) = (fields.u64()?, fields.u64()?);
            (head.amount, head.amount_gone) = (fields.u64()?, fields.u64()?);
        }
        fields.end(head)
    }

    /// The public head; `targets` are the dirty targets that the state knows.
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
        (head.gone, head.changes, head.amount, head.amount_gone) = (10, 11, 12, 13);
        assert_eq!(HeadRecord::decode(&head.encode()), Some(head));
        assert_eq!(HeadRecord::decode(&head.encode()[1..]), None);
        let before = HeadRecord { gone: 8, changes: 6, amount: 0, amount_gone: UNKNOWN, ..head };
        assert_eq!(HeadRecord::decode(&head.encode()[..64]), Some(before), "of the format before");
    }

    #[test]
    fn keys_sort_by_number() {
        assert!(journal_key("k", 1, 255) < journal_key("k", 1, 256));
        assert_eq!(position_of(&journal_key("k", 1, 77)), Some(77));
    }
}
