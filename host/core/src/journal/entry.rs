//! What an entry is: everything that one batch changed in one partition, packed.
//!
//! ```text
//! entry    = format u8 (=2) · digest 32 bytes · at_ms u64 LE · link · record*
//! link     = previous u64 LE · before u64 LE · amount u64 LE   the entry before it; the changes ever appended before it, and
//!                                                          what these amounted to
//! record   = '+' pair | '-' pair | 'c' count | 'd' document | 's' settings
//! pair     = id(target) · id(actor)                        a toggle: added, removed
//! count    = id(target) · (id(actor) | 'n') · by u64 LE    an increment and its actor where the kind keeps events;
//!                                                          otherwise a batch's increments, summed
//! document = id · id(actor) · length u32 LE · UTF-8        a create
//! settings = id(member) · length u32 LE · packed           fields of a member and what they hold afterwards
//! id       = 'i' i64 LE | 'u' 16 bytes | 't' length u16 LE · UTF-8
//! ```
//!
//! Format 1 has no link. A store keeps the head (format, digest, time, link) and the records apart or together, as suits it: on Redis the script
//! knows the outcome, and keeps one tag for each record apart from the bytes that the host prepared. Integrity of an
//! entry is the medium's (the embedded store checksums its blocks; Redis checks its AOF), that none is missing the chain's
//! (see `chain`); the decoder refuses whatever does not fit.

use std::sync::Arc;

use uuid::Uuid;

use super::chain::Link;
use crate::model::{
    Action, Change, CountChange, Digest, DocumentChange, Id, Origin, Partition, Position, Settings, SettingsChange,
    ToggleChange,
};

/// The format that is written. A host refuses a greater one, with the request to upgrade.
pub const FORMAT: u8 = 2;
/// The format before: without a link.
const FORMAT_UNLINKED: u8 = 1;

/// A pair that was added.
pub const ADD: u8 = b'+';
/// A pair that was removed.
pub const REMOVE: u8 = b'-';
/// A pair that its operation left as it was. Only among tags that are kept apart.
pub const UNCHANGED: u8 = b'0';
/// An increment.
pub const COUNT: u8 = b'c';
/// A hit that counted nothing. Only among tags that are kept apart.
pub const UNCOUNTED: u8 = b'x';
/// A document.
pub const DOCUMENT: u8 = b'd';

/// Fields of a member.
pub const SETTINGS: u8 = b's';
/// Fields of a member that were not taken. Only among tags that are kept apart.
pub const UNSET: u8 = b'z';

/// Stands for an actor that is not kept.
const NOBODY: u8 = b'n';
/// Length of what stands before the records, in bytes.
const HEAD_BYTES: usize = 65;
/// The same of the format before.
const HEAD_BYTES_UNLINKED: usize = 41;

/// A packed entry, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the journal.
    pub position: Position,
    /// The policy module that decided the batch.
    pub digest: Digest,
    /// When it was accepted, in Unix milliseconds, by the host's clock.
    pub at_ms: u64,
    /// What it says of those before it.
    pub link: Link,
    /// The changes; those of one target in the order of acceptance. Never empty.
    pub changes: Vec<Change>,
}

impl Entry {
    /// Where its changes come from, in the journal of `partition`.
    pub fn origin(&self, partition: Partition) -> Origin {
        Origin { partition, position: self.position, digest: self.digest, at_ms: self.at_ms }
    }
}

/// What stands before the records of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryHead {
    /// The policy module that decided the batch.
    pub digest: Digest,
    /// When it was accepted, in Unix milliseconds.
    pub at_ms: u64,
    /// What it says of those before it.
    pub link: Link,
}

/// Why bytes are not an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Written by a later version of weir.
    #[error("journal entry format {0} is newer than this host understands (2): upgrade weir")]
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

/// Appends the `count` bytes of an increment.
pub fn encode_count(out: &mut Vec<u8>, target: &Id, actor: Option<&Id>, by: u64) {
    encode_id(out, target);
    match actor {
        Some(actor) => encode_id(out, actor),
        None => out.push(NOBODY),
    }
    out.extend_from_slice(&by.to_le_bytes());
}

/// Appends the `document` bytes of a create.
pub fn encode_document(out: &mut Vec<u8>, id: &Id, actor: &Id, body: &str) {
    encode_pair(out, id, actor);
    // Bodies are far smaller than this: their limit is the configuration's.
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&body.as_bytes()[..length as usize]);
}

/// Appends the `settings` bytes of a change.
pub fn encode_settings(out: &mut Vec<u8>, member: &Id, settings: &Settings) {
    encode_id(out, member);
    let bytes = settings.as_bytes();
    // A kind's fields and their values are far smaller than this.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&bytes[..length as usize]);
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

/// Packs `changes`, all accepted at `at_ms` under the module `digest`. Without a `link` it is of the format before.
pub fn encode(digest: &Digest, at_ms: u64, link: Option<Link>, changes: &[Change]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + changes.len() * 19);
    encode_head(&mut out, digest, at_ms, link);
    for change in changes {
        match change {
            Change::Toggle(change) => encode_record(&mut out, change.action, &change.target, &change.actor),
            Change::Count(change) => {
                out.push(COUNT);
                encode_count(&mut out, &change.target, change.actor.as_ref(), change.by);
            }
            Change::Document(change) => {
                out.push(DOCUMENT);
                encode_document(&mut out, &change.id, &change.actor, &change.body);
            }
            Change::Settings(change) => {
                out.push(SETTINGS);
                encode_settings(&mut out, &change.member, &change.settings);
            }
        }
    }
    out
}

/// Begins an entry; records follow. Without a `link` it is of the format before.
pub fn encode_head(out: &mut Vec<u8>, digest: &Digest, at_ms: u64, link: Option<Link>) {
    out.push(if link.is_some() { FORMAT } else { FORMAT_UNLINKED });
    out.extend_from_slice(&digest.0);
    out.extend_from_slice(&at_ms.to_le_bytes());
    if let Some(Link { previous, before, amount }) = link {
        for number in [previous, before, amount] {
            out.extend_from_slice(&number.unwrap_or_default().to_le_bytes());
        }
    }
}

/// Appends the record of a toggle.
pub fn encode_record(out: &mut Vec<u8>, action: Action, target: &Id, actor: &Id) {
    out.push(match action {
        Action::Add => ADD,
        Action::Remove => REMOVE,
    });
    encode_pair(out, target, actor);
}

/// Reads a whole entry that [`encode`] wrote.
pub fn decode(position: Position, bytes: &[u8]) -> Result<Entry, EntryError> {
    let (mut reader, EntryHead { digest, at_ms, link }) = Reader::of(bytes)?;
    let mut changes = Vec::new();
    while let Some((_, change)) = reader.tagged()? {
        changes.push(change);
    }
    if changes.is_empty() {
        return Err(EntryError::Damaged(reader.at));
    }
    Ok(Entry { position, digest, at_ms, link, changes })
}

/// The changes of a whole entry, each with the place of its record in it, in bytes.
pub fn decode_places(bytes: &[u8]) -> Result<Vec<(usize, Change)>, EntryError> {
    let (mut reader, _) = Reader::of(bytes)?;
    let mut changes = Vec::new();
    while let Some(change) = reader.tagged()? {
        changes.push(change);
    }
    Ok(changes)
}

/// When a whole entry was accepted, in Unix milliseconds.
pub fn decode_at_ms(bytes: &[u8]) -> Result<u64, EntryError> {
    decode_head(bytes).map(|head| head.at_ms)
}

/// What stands before the records of a whole entry, without reading these.
pub fn decode_head(bytes: &[u8]) -> Result<EntryHead, EntryError> {
    Reader::of(bytes).map(|(_, head)| head)
}

/// The document whose record is at `place` in a whole entry, without reading those before it.
pub fn decode_document(bytes: &[u8], place: usize) -> Result<DocumentChange, EntryError> {
    let (mut reader, _) = Reader::of(bytes)?;
    reader.at = place;
    match reader.tagged()? {
        Some((_, Change::Document(document))) => Ok(document),
        _ => Err(EntryError::Damaged(place)),
    }
}

/// Whether a whole entry holds documents. All changes of an entry are of one kind, and with it of one case.
pub fn is_of_documents(bytes: &[u8]) -> bool {
    let head = if bytes.first() == Some(&FORMAT_UNLINKED) { HEAD_BYTES_UNLINKED } else { HEAD_BYTES };
    bytes.get(head) == Some(&DOCUMENT)
}

/// Reads an entry of which the store keeps the head, the records without their tags, and one tag for each record
/// apart, also for those that changed nothing.
pub fn decode_records(position: Position, head: EntryHead, tags: &[u8], records: &[u8]) -> Result<Entry, EntryError> {
    let EntryHead { digest, at_ms, link } = head;
    let mut reader = Reader { bytes: records, at: 0 };
    let mut changes = Vec::with_capacity(tags.len());
    for tag in tags {
        changes.extend(reader.record(*tag)?);
    }
    if reader.at != records.len() || changes.is_empty() {
        return Err(EntryError::Damaged(reader.at));
    }
    Ok(Entry { position, digest, at_ms, link, changes })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// At the first record of a whole entry; what stands before it.
    fn of(bytes: &'a [u8]) -> Result<(Self, EntryHead), EntryError> {
        let mut reader = Self { bytes, at: 0 };
        let format = reader.take::<1>()?[0];
        if format > FORMAT {
            return Err(EntryError::NewerFormat(format));
        }
        if format != FORMAT && format != FORMAT_UNLINKED {
            return Err(EntryError::Damaged(0));
        }
        let digest = Digest(reader.take::<32>()?);
        let at_ms = u64::from_le_bytes(reader.take::<8>()?);
        let link = if format == FORMAT {
            let mut number = || reader.take::<8>().map(u64::from_le_bytes);
            Link::after(number()?, number()?, number()?)
        } else {
            Link::default()
        };
        Ok((reader, EntryHead { digest, at_ms, link }))
    }

    /// The next record with its tag before it, and its place; `None` at the end.
    fn tagged(&mut self) -> Result<Option<(usize, Change)>, EntryError> {
        let at = self.at;
        if at >= self.bytes.len() {
            return Ok(None);
        }
        let tag = self.take::<1>()?[0];
        // What changed nothing has no record here.
        let change = if matches!(tag, UNCHANGED | UNCOUNTED | UNSET) { None } else { self.record(tag)? };
        change.map(|change| Some((at, change))).ok_or(EntryError::Damaged(at))
    }

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

    /// What follows a tag; nothing where it changed nothing.
    fn record(&mut self, tag: u8) -> Result<Option<Change>, EntryError> {
        let at = self.at;
        let change = match tag {
            ADD | REMOVE | UNCHANGED => {
                let (target, actor) = (self.id()?, self.id()?);
                let action = if tag == ADD { Action::Add } else { Action::Remove };
                Change::Toggle(ToggleChange { target, actor, action })
            }
            COUNT | UNCOUNTED => {
                let target = self.id()?;
                let actor = if self.bytes.get(self.at) == Some(&NOBODY) {
                    self.at += 1;
                    None
                } else {
                    Some(self.id()?)
                };
                let by = u64::from_le_bytes(self.take::<8>()?);
                Change::Count(CountChange { target, actor, by })
            }
            DOCUMENT => {
                let (id, actor) = (self.id()?, self.id()?);
                let length = u32::from_le_bytes(self.take::<4>()?);
                let body = self.text(length as usize)?;
                Change::Document(DocumentChange { id, actor, body })
            }
            SETTINGS | UNSET => {
                let member = self.id()?;
                let length = u32::from_le_bytes(self.take::<4>()?);
                let settings = Settings::from_bytes(self.slice(length as usize)?).ok_or(EntryError::Damaged(at))?;
                Change::Settings(SettingsChange { member, settings })
            }
            _ => return Err(EntryError::Damaged(at)),
        };
        Ok((!matches!(tag, UNCHANGED | UNCOUNTED | UNSET)).then_some(change))
    }

    fn text(&mut self, length: usize) -> Result<Arc<str>, EntryError> {
        let at = self.at;
        std::str::from_utf8(self.slice(length)?).map(Arc::from).map_err(|_| EntryError::Damaged(at))
    }

    fn id(&mut self) -> Result<Id, EntryError> {
        let at = self.at;
        match self.take::<1>()?[0] {
            b'i' => Ok(Id::Int(i64::from_le_bytes(self.take::<8>()?))),
            b'u' => Ok(Id::Uuid(Uuid::from_bytes(self.take::<16>()?))),
            b't' => {
                let length = u16::from_le_bytes(self.take::<2>()?);
                self.text(usize::from(length)).map(Id::Text)
            }
            _ => Err(EntryError::Damaged(at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Setting;
    use proptest::prelude::*;

    const AT_MS: u64 = 1_700_000_000_123;

    fn any_id() -> impl Strategy<Value = Id> {
        prop_oneof![
            any::<i64>().prop_map(Id::Int),
            any::<u128>().prop_map(|bits| Id::Uuid(Uuid::from_u128(bits))),
            "[a-zæøå0-9 ]{1,40}".prop_map(|text| Id::Text(Arc::from(text.as_str()))),
        ]
    }

    fn any_changes() -> impl Strategy<Value = Vec<Change>> {
        let toggle = (any_id(), any_id(), any::<bool>()).prop_map(|(target, actor, add)| {
            let action = if add { Action::Add } else { Action::Remove };
            Change::Toggle(ToggleChange { target, actor, action })
        });
        let count = (any_id(), proptest::option::of(any_id()), any::<u64>())
            .prop_map(|(target, actor, by)| Change::Count(CountChange { target, actor, by }));
        let document = (any_id(), any_id(), "[{}a-zé\"]{0,60}").prop_map(|(id, actor, body)| {
            Change::Document(DocumentChange { id, actor, body: Arc::from(body.as_str()) })
        });
        let settings = (any_id(), any::<bool>(), any::<i64>(), "[a-zé]{0,9}").prop_map(|(member, on, number, text)| {
            let values = [Setting::Bool(on), Setting::Int(number), Setting::Text(text.as_str().into())];
            let settings = Settings::of(["a", "b", "c"].into_iter().zip(&values));
            Change::Settings(SettingsChange { member, settings })
        });
        proptest::collection::vec(prop_oneof![toggle, count, document, settings], 1..20)
    }

    /// Records without their tags, each after one that changed nothing.
    fn apart(changes: &[Change]) -> (Vec<u8>, Vec<u8>) {
        let (mut tags, mut records) = (Vec::new(), Vec::new());
        for change in changes {
            tags.extend([UNCHANGED, UNCOUNTED, UNSET]);
            encode_pair(&mut records, &Id::Int(1), &Id::Int(2));
            encode_count(&mut records, &Id::Int(1), None, 3);
            encode_settings(&mut records, &Id::Int(1), &Settings::of([("a", &Setting::Bool(true))]));
            match change {
                Change::Toggle(change) => {
                    tags.push(if change.action == Action::Add { ADD } else { REMOVE });
                    encode_pair(&mut records, &change.target, &change.actor);
                }
                Change::Count(change) => {
                    tags.push(COUNT);
                    encode_count(&mut records, &change.target, change.actor.as_ref(), change.by);
                }
                Change::Document(change) => {
                    tags.push(DOCUMENT);
                    encode_document(&mut records, &change.id, &change.actor, &change.body);
                }
                Change::Settings(change) => {
                    tags.push(SETTINGS);
                    encode_settings(&mut records, &change.member, &change.settings);
                }
            }
        }
        (tags, records)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(changes in any_changes()) {
            let link = Link::after(8, 77, 99);
            let entry = decode(9, &encode(&Digest([7; 32]), AT_MS, Some(link), &changes)).unwrap();
            prop_assert_eq!((&entry.changes, entry.link), (&changes, link));
            let unlinked = decode(9, &encode(&Digest([7; 32]), AT_MS, None, &changes)).unwrap();
            prop_assert_eq!((&unlinked.changes, unlinked.link), (&changes, Link::default()));
            let (tags, records) = apart(&changes);
            let head = EntryHead { digest: Digest([7; 32]), at_ms: AT_MS, link };
            let read = |tags: &[u8]| decode_records(9, head, tags, &records);
            prop_assert_eq!(read(&tags).unwrap(), entry);
            prop_assert!(read(&tags[1..]).is_err());
        }

        #[test]
        fn a_document_is_found_by_its_place(changes in any_changes(), is_linked: bool) {
            let bytes = encode(&Digest([7; 32]), AT_MS, is_linked.then(|| Link::after(8, 77, 99)), &changes);
            let places = decode_places(&bytes).unwrap();
            prop_assert_eq!(is_of_documents(&bytes), matches!(changes[0], Change::Document(_)));
            prop_assert_eq!(places.len(), changes.len());
            for ((place, found), change) in places.into_iter().zip(changes) {
                prop_assert_eq!(&found, &change);
                match change {
                    Change::Document(document) => prop_assert_eq!(decode_document(&bytes, place), Ok(document)),
                    _ => prop_assert!(decode_document(&bytes, place).is_err()),
                }
            }
            prop_assert!(decode_document(&bytes, bytes.len()).is_err());
        }

        #[test]
        fn a_torn_entry_never_reads_as_another_whole_one(changes in any_changes(), cut in 0usize..400) {
            let bytes = encode(&Digest([7; 32]), 5, Some(Link::after(8, 77, 99)), &changes);
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
        let bo = Id::Text(Arc::from("bo"));
        let changes = [
            Change::Toggle(ToggleChange { target: Id::Int(3), actor: bo.clone(), action: Action::Add }),
            Change::Count(CountChange { target: Id::Int(4), actor: None, by: 5 }),
            Change::Document(DocumentChange { id: Id::Int(6), actor: bo, body: Arc::from("{}") }),
        ];
        let records = [
            &b"+i\x03\0\0\0\0\0\0\0t\x02\0bo"[..],
            b"ci\x04\0\0\0\0\0\0\0n\x05\0\0\0\0\0\0\0",
            b"di\x06\0\0\0\0\0\0\0t\x02\0bo\x02\0\0\0{}",
        ]
        .concat();
        let head = [&[0xab; 32][..], &[2, 1, 0, 0, 0, 0, 0, 0]].concat();
        let link = [[4, 3, 0, 0, 0, 0, 0, 0], [6, 5, 0, 0, 0, 0, 0, 0], [8, 7, 0, 0, 0, 0, 0, 0]].concat();
        let linked = encode(&Digest([0xab; 32]), 258, Some(Link::after(772, 1286, 1800)), &changes);
        assert_eq!(linked, [&[2][..], &head, &link, &records].concat());
        // What earlier versions wrote is still read.
        let unlinked = encode(&Digest([0xab; 32]), 258, None, &changes);
        assert_eq!(unlinked, [&[1][..], &head, &records].concat());
        for (bytes, link) in [(linked, Link::after(772, 1286, 1800)), (unlinked, Link::default())] {
            let entry = Entry { position: 1, digest: Digest([0xab; 32]), at_ms: 258, link, changes: changes.to_vec() };
            assert_eq!(decode(1, &bytes), Ok(entry));
        }
        assert_eq!(decode(1, &[3]), Err(EntryError::NewerFormat(3)));
    }
}
