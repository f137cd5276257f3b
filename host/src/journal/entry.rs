//! What an entry is: everything that one batch changed in one partition, packed.
//!
//! ```text
//! entry   = format u8 (=1) · digest 32 bytes · at_ms u64 LE · records
//! records = record*
//! record  = action u8 ('+' add, '-' remove) · pair
//! pair    = id(target) · id(actor)
//! id      = 'i' i64 LE | 'u' 16 bytes | 't' length u16 LE · UTF-8
//! ```
//!
//! A store keeps the head (format, digest, time) and the records apart or together, as suits it: on Redis the script
//! knows the outcome and joins `action` with the `pair` bytes that the host prepared. Integrity is the medium's
//! (the embedded store checksums its blocks; Redis checks its AOF); the decoder refuses whatever does not fit.

use std::sync::Arc;

use uuid::Uuid;

use crate::model::{Action, Digest, Id, Position, ToggleChange};

/// The only format so far. A host refuses a greater one, with the request to upgrade.
pub const FORMAT: u8 = 1;

/// First byte of a record that adds.
pub const ADD: u8 = b'+';
/// First byte of a record that removes.
pub const REMOVE: u8 = b'-';

/// Length of what stands before the records, in bytes.
const HEAD_BYTES: usize = 41;

/// A pair that its operation left as it was.
pub const UNCHANGED: u8 = b'0';

/// A packed entry, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the journal.
    pub position: Position,
    /// The policy module that decided the batch.
    pub digest: Digest,
    /// The changes; those of one target in the order of acceptance. Never empty.
    pub changes: Vec<ToggleChange>,
}

/// Why bytes are not an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Written by a later version of weir.
    #[error("journal entry format {0} is newer than this host understands (1): upgrade weir")]
    NewerFormat(u8),
    /// Cut short, or not an entry at all.
    #[error("journal entry is damaged at byte {0}")]
    Damaged(usize),
}

/// Appends the `pair` bytes of (target, actor).
pub fn encode_pair(out: &mut Vec<u8>, target: &Id, actor: &Id) {
    encode_id(out, target);
    encode_id(out, actor);
}

fn encode_id(out: &mut Vec<u8>, id: &Id) {
    match id {
        Id::Int(value) => {
            out.push(b'i');
            out.extend_from_slice(&value.to_le_bytes());
        }
        Id::Uuid(value) => {
            out.push(b'u');
            out.extend_from_slice(value.as_bytes());
        }
        Id::Text(value) => {
            out.push(b't');
            // Text ids are at most ID_TEXT_BYTES_MAX bytes; longer ones are refused at the door.
            let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(&value.as_bytes()[..usize::from(length)]);
        }
    }
}

/// Packs `changes`, all accepted at `at_ms` under the module `digest`.
pub fn encode(digest: &Digest, at_ms: u64, changes: &[ToggleChange]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + changes.len() * 19);
    encode_head(&mut out, digest, at_ms);
    for change in changes {
        encode_record(&mut out, change.action, &change.target, &change.actor);
    }
    out
}

/// Begins an entry; records follow.
pub fn encode_head(out: &mut Vec<u8>, digest: &Digest, at_ms: u64) {
    out.push(FORMAT);
    out.extend_from_slice(&digest.0);
    out.extend_from_slice(&at_ms.to_le_bytes());
}

/// Appends one record to an entry.
pub fn encode_record(out: &mut Vec<u8>, action: Action, target: &Id, actor: &Id) {
    out.push(match action {
        Action::Add => ADD,
        Action::Remove => REMOVE,
    });
    encode_pair(out, target, actor);
}

/// Reads a whole entry that [`encode`] wrote.
pub fn decode(position: Position, bytes: &[u8]) -> Result<Entry, EntryError> {
    let mut reader = Reader { bytes, at: 0 };
    let format = reader.take::<1>()?[0];
    if format > FORMAT {
        return Err(EntryError::NewerFormat(format));
    }
    if format != FORMAT {
        return Err(EntryError::Damaged(0));
    }
    let digest = Digest(reader.take::<32>()?);
    let at_ms = u64::from_le_bytes(reader.take::<8>()?);
    let changes = reader.records(at_ms)?;
    Ok(Entry { position, digest, changes })
}

/// Reads an entry of which the store keeps the head, the pairs, and what became of each pair apart: one byte a pair, [`ADD`],
/// [`REMOVE`] or [`UNCHANGED`].
pub fn decode_pairs(
    position: Position,
    digest: Digest,
    at_ms: u64,
    (kinds, pairs): (&[u8], &[u8]),
) -> Result<Entry, EntryError> {
    let mut reader = Reader { bytes: pairs, at: 0 };
    let mut changes = Vec::with_capacity(kinds.len());
    for kind in kinds {
        let at = reader.at;
        let (target, actor) = (reader.id()?, reader.id()?);
        let action = match *kind {
            ADD => Action::Add,
            REMOVE => Action::Remove,
            UNCHANGED => continue,
            _ => return Err(EntryError::Damaged(at)),
        };
        changes.push(ToggleChange { target, actor, action, at_ms });
    }
    if reader.at != pairs.len() || changes.is_empty() {
        return Err(EntryError::Damaged(reader.at));
    }
    Ok(Entry { position, digest, changes })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn slice(&mut self, length: usize) -> Result<&[u8], EntryError> {
        let end = self.at.checked_add(length).ok_or(EntryError::Damaged(self.at))?;
        let slice = self.bytes.get(self.at..end).ok_or(EntryError::Damaged(self.at))?;
        self.at = end;
        Ok(slice)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], EntryError> {
        let at = self.at;
        self.slice(N)?.try_into().map_err(|_| EntryError::Damaged(at))
    }

    fn records(&mut self, at_ms: u64) -> Result<Vec<ToggleChange>, EntryError> {
        let mut changes = Vec::new();
        while self.at < self.bytes.len() {
            let at = self.at;
            let action = match self.take::<1>()?[0] {
                ADD => Action::Add,
                REMOVE => Action::Remove,
                _ => return Err(EntryError::Damaged(at)),
            };
            let (target, actor) = (self.id()?, self.id()?);
            changes.push(ToggleChange { target, actor, action, at_ms });
        }
        if changes.is_empty() { Err(EntryError::Damaged(self.at)) } else { Ok(changes) }
    }

    fn id(&mut self) -> Result<Id, EntryError> {
        let at = self.at;
        match self.take::<1>()?[0] {
            b'i' => Ok(Id::Int(i64::from_le_bytes(self.take::<8>()?))),
            b'u' => Ok(Id::Uuid(Uuid::from_bytes(self.take::<16>()?))),
            b't' => {
                let length = u16::from_le_bytes(self.take::<2>()?);
                let text =
                    std::str::from_utf8(self.slice(usize::from(length))?).map_err(|_| EntryError::Damaged(at))?;
                Ok(Id::Text(Arc::from(text)))
            }
            _ => Err(EntryError::Damaged(at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_id() -> impl Strategy<Value = Id> {
        prop_oneof![
            any::<i64>().prop_map(Id::Int),
            any::<u128>().prop_map(|bits| Id::Uuid(Uuid::from_u128(bits))),
            "[a-zæøå0-9 ]{1,40}".prop_map(|text| Id::Text(Arc::from(text.as_str()))),
        ]
    }

    fn any_changes() -> impl Strategy<Value = Vec<ToggleChange>> {
        let change = (any_id(), any_id(), any::<bool>()).prop_map(|(target, actor, add)| ToggleChange {
            target,
            actor,
            action: if add { Action::Add } else { Action::Remove },
            at_ms: 1_700_000_000_123,
        });
        proptest::collection::vec(change, 1..20)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(changes in any_changes()) {
            let bytes = encode(&Digest([7; 32]), 1_700_000_000_123, &changes);
            let entry = decode(9, &bytes).unwrap();
            prop_assert_eq!(&entry.changes, &changes);
            // Pairs apart, one that nothing became of among them.
            let (mut kinds, mut pairs) = (vec![UNCHANGED], Vec::new());
            encode_pair(&mut pairs, &Id::Int(1), &Id::Int(2));
            for change in &changes {
                kinds.push(if change.action == Action::Add { ADD } else { REMOVE });
                encode_pair(&mut pairs, &change.target, &change.actor);
            }
            let read = |kinds: &[u8]| decode_pairs(9, Digest([7; 32]), 1_700_000_000_123, (kinds, &pairs));
            prop_assert_eq!(read(&kinds).unwrap(), entry);
            prop_assert!(read(&kinds[1..]).is_err());
        }

        #[test]
        fn a_torn_entry_never_reads_as_another_whole_one(changes in any_changes(), cut in 0usize..400) {
            let bytes = encode(&Digest([7; 32]), 5, &changes);
            if cut < bytes.len() {
                match decode(9, &bytes[..cut]) {
                    // A cut between two records is a shorter entry: the medium's checksum is what detects it.
                    Ok(entry) => prop_assert!(entry.changes.len() < changes.len()),
                    Err(error) => prop_assert!(matches!(error, EntryError::Damaged(_))),
                }
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(1, &bytes);
        }
    }

    #[test]
    fn the_format_is_pinned() {
        let change =
            ToggleChange { target: Id::Int(3), actor: Id::Text(Arc::from("bo")), action: Action::Add, at_ms: 258 };
        let bytes = encode(&Digest([0xab; 32]), 258, &[change]);
        let mut expected = vec![1];
        expected.extend([0xab; 32]);
        expected.extend([2, 1, 0, 0, 0, 0, 0, 0]);
        expected.extend(b"+i\x03\0\0\0\0\0\0\0t\x02\0bo");
        assert_eq!(bytes, expected);
        assert_eq!(decode(1, &[2]), Err(EntryError::NewerFormat(2)));
    }
}
