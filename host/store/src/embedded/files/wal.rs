//! The write-ahead log of the database (fjall 3) on disk: files `N.jnl`, each a sequence of batches.
//!
//! ```text
//! batch  1 · items u32 · sequence number u64 │ item … │ 3 · xxh3 of the items u64 · "FJL" 3
//! item   2 · 0 = put, 1 = delete · 0 · keyspace u64 · length of key u16 · of value u32 · the same u32 · key · value
//! ```
//! The database stops at the first batch that it cannot read, and cuts the file there; the bytes behind it must be read before.
//! Pure: reads bytes, touches no file.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use super::batch_header::BatchHeader;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const TRAILER: &[u8] = b"FJL\x03";
/// Bytes of an item before its key.
const ITEM_HEAD: usize = 21;
/// Bytes of the beginning and of the end of a batch.
const FRAME: usize = 13;

/// One write of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Item<'a> {
    pub(in super::super) keyspace: u64,
    pub(in super::super) key: &'a [u8],
    /// `None` deletes the key.
    pub(in super::super) value: Option<&'a [u8]>,
}

/// An intact batch.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Parsed<'a> {
    /// Its bytes in the file.
    pub(in super::super) len: usize,
    pub(in super::super) seqno: u64,
    pub(in super::super) items: Vec<Item<'a>>,
}

impl Parsed<'_> {
    /// The header that weir wrote into the batch.
    pub(in super::super) fn header(&self) -> Option<BatchHeader> {
        self.items.iter().filter(|item| item.key == BatchHeader::KEY).find_map(|item| BatchHeader::decode(item.value?))
    }
}

/// Why bytes are no intact batch, and the items before the fault, which may be damaged, too.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Broken<'a> {
    pub(in super::super) why: &'static str,
    pub(in super::super) items: Vec<Item<'a>>,
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.chunk().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_le_bytes)
    }

    fn item(&mut self) -> Option<Item<'a>> {
        let (tag, what, packed) = (self.u8()?, self.u8()?, self.u8()?);
        let keyspace = self.u64()?;
        let key_len = usize::from(u16::from_le_bytes(self.chunk()?));
        let (len, len_again) = (self.u32()?, self.u32()?);
        if tag != ITEM || what > 1 || packed != 0 || len != len_again || key_len == 0 {
            return None;
        }
        let (key, value) = (self.take(key_len)?, self.take(usize::try_from(len).ok()?)?);
        Some(Item { keyspace, key, value: (what == 0).then_some(value) })
    }
}

/// Reads the batch at the start of `bytes`.
pub(in super::super) fn parse(bytes: &[u8]) -> Result<Parsed<'_>, Broken<'_>> {
    let broken = |why, items| Err(Broken { why, items });
    let mut rest = Bytes(bytes);
    let head = (|| Some((rest.u8()?, rest.u32()?, rest.u64()?)))();
    let Some((START, count, seqno)) = head else { return broken("no batch begins here", Vec::new()) };
    // Never trust the sizes in the bytes: they may be damaged.
    let mut items = Vec::with_capacity((count as usize).min(rest.0.len() / ITEM_HEAD).min(4_096));
    for _ in 0..count {
        match rest.item() {
            Some(item) => items.push(item),
            None => return broken("a write in it cannot be read", items),
        }
    }
    let body = &bytes[FRAME..bytes.len() - rest.0.len()];
    let end = (|| Some((rest.u8()?, rest.u64()?, rest.take(TRAILER.len())?)))();
    match end {
        Some((END, checksum, TRAILER)) if checksum == xxh3_64(body) => {
            Ok(Parsed { len: bytes.len() - rest.0.len(), seqno, items })
        }
        Some((END, _, TRAILER)) => broken("its checksum does not match", items),
        _ => broken("its end cannot be read", items),
    }
}

/// A batch of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Batch {
    /// Where in the file.
    pub(in super::super) range: Range<usize>,
    pub(in super::super) seqno: u64,
    pub(in super::super) header: Option<BatchHeader>,
    /// The keyspaces that it writes to: bit 3 for keyspace 3.
    pub(in super::super) keyspaces: u64,
}

/// Bytes of a file that are no batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Gap {
    pub(in super::super) range: Range<usize>,
    pub(in super::super) why: &'static str,
}

/// A part of a file, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Piece {
    Batch(Batch),
    Gap(Gap),
}

/// Reads a whole file, past unreadable parts. Zeros at its end are no part, because the database allocates more than it needs.
/// Behind a gap only bytes with `salt` count as a batch, so that no user data is taken for one.
pub(in super::super) fn scan(bytes: &[u8], mut salt: Option<u64>) -> Vec<Piece> {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let (mut pieces, mut at) = (Vec::new(), 0);
    while at < end {
        match parse(&bytes[at..]) {
            Ok(parsed) => {
                let batch = batch(&parsed, at);
                salt = salt.or(batch.header.as_ref().map(|header| header.salt));
                at = batch.range.end;
                pieces.push(Piece::Batch(batch));
            }
            Err(Broken { why, .. }) => {
                let next = next_batch(bytes, at + 1..end, salt).unwrap_or(end);
                pieces.push(Piece::Gap(Gap { range: at..next, why }));
                at = next;
            }
        }
    }
    pieces
}

fn batch(parsed: &Parsed<'_>, at: usize) -> Batch {
    let keyspaces = parsed.items.iter().fold(0, |bits, item| bits | 1_u64 << item.keyspace.min(63));
    Batch { range: at..at + parsed.len, seqno: parsed.seqno, header: parsed.header(), keyspaces }
}

/// The start of the next batch.
fn next_batch(bytes: &[u8], range: Range<usize>, salt: Option<u64>) -> Option<usize> {
    range.into_iter().find(|&at| {
        let is_likely = bytes[at] == START && bytes.get(at + FRAME) == Some(&ITEM);
        is_likely
            && parse(&bytes[at..])
                .is_ok_and(|parsed| salt.is_none() || parsed.header().is_some_and(|header| Some(header.salt) == salt))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Keyspace, key, value.
    type Written<'a> = (u64, &'a [u8], Option<&'a [u8]>);

    fn encode(seqno: u64, items: &[Written<'_>]) -> Vec<u8> {
        let mut body = Vec::new();
        for (keyspace, key, value) in items {
            body.extend([ITEM, u8::from(value.is_none()), 0]);
            body.extend(keyspace.to_le_bytes());
            body.extend((key.len() as u16).to_le_bytes());
            let value = value.unwrap_or_default();
            body.extend([(value.len() as u32).to_le_bytes(); 2].concat());
            body.extend([*key, value].concat());
        }
        let mut out = vec![START];
        out.extend((items.len() as u32).to_le_bytes());
        out.extend(seqno.to_le_bytes());
        out.extend(&body);
        out.push(END);
        out.extend(xxh3_64(&body).to_le_bytes());
        out.extend(TRAILER);
        out
    }

    fn with_header(number: u64, salt: u64) -> Vec<u8> {
        let header = BatchHeader { salt, number, synced: number - 1, seqno_min: number, last: vec![0; 8] };
        encode(
            number,
            &[(1, BatchHeader::KEY, Some(&header.encode())), (3, b"key", Some(b"value")), (2, b"gone", None)],
        )
    }

    fn numbers(pieces: &[Piece]) -> Vec<Option<u64>> {
        let number = |piece: &Piece| match piece {
            Piece::Batch(batch) => batch.header.as_ref().map(|header| header.number),
            Piece::Gap(_) => None,
        };
        pieces.iter().map(number).collect()
    }

    #[test]
    fn the_database_writes_what_is_read_here() {
        let directory = tempfile::tempdir().unwrap();
        let database = fjall::Database::builder(directory.path()).open().unwrap();
        let space = database.keyspace("system", fjall::KeyspaceCreateOptions::default).unwrap();
        for number in 1..4_u8 {
            let mut batch = database.batch().durability(Some(fjall::PersistMode::SyncAll));
            batch.insert(&space, [b'k', number], vec![number; 9_000]);
            batch.remove(&space, [b'x']);
            batch.commit().unwrap();
        }
        let bytes = std::fs::read(directory.path().join("0.jnl")).unwrap();
        let pieces = scan(&bytes, None);
        assert_eq!(pieces.len(), 3);
        let Piece::Batch(second) = &pieces[1] else { panic!("{pieces:?}") };
        let parsed = parse(&bytes[second.range.clone()]).unwrap();
        assert_eq!((parsed.items.len(), parsed.items[0].key, parsed.items[1].value), (2, &b"k\x02"[..], None));
        assert_eq!(parsed.items[0].value, Some(&[2; 9_000][..]));
        assert!(second.seqno > 0 && second.keyspaces == 1 << 1);
    }

    #[test]
    fn what_lies_behind_a_gap_is_found_but_not_what_users_wrote() {
        let mut file: Vec<u8> = (1..=5).flat_map(|number| with_header(number, 7)).collect();
        let one = file.len() / 5;
        // A value that looks like a batch, inside a damaged batch.
        let mut forged = encode(6, &[(3, b"key", Some(&with_header(6, 8)))]);
        forged[FRAME + 4] ^= 1;
        file.extend(&forged);
        file.extend(with_header(7, 7));
        file.extend([0; 500]);
        file[one * 2 + 20] ^= 4;
        let pieces = scan(&file, None);
        assert_eq!(numbers(&pieces), [Some(1), Some(2), None, Some(4), Some(5), None, Some(7)]);
        let Piece::Gap(gap) = &pieces[2] else { panic!("{pieces:?}") };
        assert_eq!(gap.range, one * 2..one * 3);
        let Piece::Gap(gap) = &pieces[5] else { panic!("{pieces:?}") };
        assert_eq!(gap.range, one * 5..one * 5 + forged.len());
    }

    proptest! {
        #[test]
        fn a_single_bit_is_noticed_wherever_it_flips(place in 0_usize..10_000, bit in 0_u8..8) {
            let mut bytes = with_header(3, 7);
            let place = place % bytes.len();
            bytes[place] ^= 1 << bit;
            // No checksum covers the sequence number: the headers bound it.
            let is_seqno = (5..FRAME).contains(&place);
            prop_assert_eq!(parse(&bytes).is_err(), !is_seqno);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = scan(&bytes, None);
        }
    }
}
