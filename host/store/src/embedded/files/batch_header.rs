//! The header of each batch, which reveals a missing batch: its number, and how far the disk had got when it was written. And the
//! mark: the same beside the log, for its end.
//!
//! A missing batch was acknowledged if there is proof that it was synced: a later batch, or the mark. The mark is written after
//! each sync and before any caller gets an answer, but it is not synced itself. After a kill it is exact; after a power cut it
//! may be old, and then it proves less, never too much.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use super::super::layout::Fields;

/// The numbers that one batch carries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in super::super) struct BatchHeader {
    /// A random number of the directory.
    pub(in super::super) salt: u64,
    /// The number of the batch: the one before it, plus one.
    pub(in super::super) number: u64,
    /// All batches up to this number had been synced.
    pub(in super::super) synced: u64,
    /// The database gave the batch no smaller sequence number.
    pub(in super::super) seqno_min: u64,
    /// For each keyspace `seqno_min` of the last earlier batch that wrote to it; 0 where there is none.
    pub(in super::super) last: Vec<u64>,
}

impl BatchHeader {
    /// Its key in the keyspace `system`.
    pub(in super::super) const KEY: &'static [u8] = b"stamp";

    pub(in super::super) fn encode(&self) -> Vec<u8> {
        let fixed = [self.salt, self.number, self.synced, self.seqno_min];
        fixed.iter().chain(&self.last).flat_map(|value| value.to_le_bytes()).collect()
    }

    pub(in super::super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let mut header = Self {
            salt: fields.u64()?,
            number: fields.u64()?,
            synced: fields.u64()?,
            seqno_min: fields.u64()?,
            last: Vec::new(),
        };
        while !fields.0.is_empty() {
            header.last.push(fields.u64()?);
        }
        Some(header)
    }
}

/// The file of the mark.
pub(in super::super) const MARK_FILE: &str = "weir.synced";
/// Bytes of one of its two slots, which are written in turns.
const PLACE_BYTES: usize = 512;
const MAGIC: &[u8; 8] = b"weirsync";

/// The content of the mark: a header that covers all synced batches.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Mark {
    /// There is none, or it was deleted.
    Missing,
    /// Both slots are damaged.
    Unreadable,
    /// All up to `number` has been synced; `last` is as after it.
    Synced(BatchHeader),
}

impl Mark {
    pub(in super::super) fn header(&self) -> Option<&BatchHeader> {
        if let Self::Synced(header) = self { Some(header) } else { None }
    }
}

fn encode_place(header: &BatchHeader) -> [u8; PLACE_BYTES] {
    let record = header.encode();
    let mut place = [0; PLACE_BYTES];
    let filled = MAGIC.iter().copied().chain((record.len() as u64).to_le_bytes()).chain(record);
    for (to, from) in place.iter_mut().zip(filled) {
        *to = from;
    }
    let checksum = xxh3_64(&place[..PLACE_BYTES - 8]);
    place[PLACE_BYTES - 8..].copy_from_slice(&checksum.to_le_bytes());
    place
}

fn decode_place(place: &[u8]) -> Option<BatchHeader> {
    let (record, checksum) = place.split_last_chunk::<8>()?;
    if xxh3_64(record) != u64::from_le_bytes(*checksum) {
        return None;
    }
    let mut fields = Fields(record.strip_prefix(MAGIC)?);
    let len = usize::try_from(fields.u64()?).ok()?;
    BatchHeader::decode(fields.0.get(..len)?)
}

/// Reads the mark of a directory.
pub(in super::super) fn read_mark(directory: &Path) -> io::Result<Mark> {
    let bytes = match std::fs::read(directory.join(MARK_FILE)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Mark::Missing),
        Err(error) => return Err(error),
    };
    let newest = bytes.chunks(PLACE_BYTES).filter_map(decode_place).max_by_key(|header| header.number);
    Ok(newest.map_or(Mark::Unreadable, Mark::Synced))
}

/// The mark of an open store.
#[derive(Debug)]
pub(in super::super) struct MarkFile {
    file: File,
    is_odd: bool,
}

impl MarkFile {
    /// Opens the mark, and writes `header` to both slots.
    pub(in super::super) fn open(directory: &Path, header: &BatchHeader) -> io::Result<Self> {
        let options = OpenOptions::new().write(true).create(true).truncate(false).open(directory.join(MARK_FILE));
        let mark = Self { file: options?, is_odd: false };
        let place = encode_place(header);
        // One slot after the other, so that one of them is intact at every moment.
        for at in [0, PLACE_BYTES as u64] {
            mark.file.write_all_at(&place, at)?;
            mark.file.sync_all()?;
        }
        File::open(directory)?.sync_all()?;
        Ok(mark)
    }

    /// Records that all batches up to the number of `header` are synced. Needs no sync of its own, and no new space.
    pub(in super::super) fn write(&mut self, header: &BatchHeader) -> io::Result<()> {
        self.is_odd = !self.is_odd;
        self.file.write_all_at(&encode_place(header), if self.is_odd { PLACE_BYTES as u64 } else { 0 })
    }

    pub(in super::super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_outlives_damage_of_one_place() {
        let directory = tempfile::tempdir().unwrap();
        let read = || read_mark(directory.path()).unwrap();
        assert_eq!(read(), Mark::Missing);
        let header = |number| BatchHeader { salt: 9, number, synced: number, seqno_min: 3, last: vec![1; 8] };
        let mut mark = MarkFile::open(directory.path(), &header(4)).unwrap();
        assert_eq!(read(), Mark::Synced(header(4)));
        for number in 5..8 {
            mark.write(&header(number)).unwrap();
            assert_eq!(read(), Mark::Synced(header(number)));
        }
        let path = directory.path().join(MARK_FILE);
        let whole = std::fs::read(&path).unwrap();
        for place in [600, 8] {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert!(matches!(read(), Mark::Synced(BatchHeader { number: 6 | 7, .. })));
            bytes[place ^ 512] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(read(), Mark::Unreadable);
        }
    }

    #[test]
    fn stamps_are_read_back_and_cut_ones_are_not() {
        let header = BatchHeader { salt: 1, number: 2, synced: 3, seqno_min: 4, last: vec![5, 6] };
        assert_eq!(BatchHeader::decode(&header.encode()), Some(header.clone()));
        assert_eq!(BatchHeader::decode(&header.encode()[1..]), None);
    }
}
