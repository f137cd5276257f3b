//! The windows of uniqueness: which pairs were counted, and until when that is remembered, in a table of fixed size.
//!
//! A slot is 8 bytes: a fingerprint of (target, actor), and the Unix second in which it expires, 4 bytes each, little endian.
//! Sixteen slots form a bucket; a pair has one bucket. A table has two slots per pair that it must remember, so a bucket holds
//! eight on average, and fewer than two in a thousand are full: then the pair that expires first is evicted, and may count again
//! too early. Two pairs of the same bucket collide once in 2^32, and then the later one does not count. Within these bounds the
//! window is exact.
//!
//! Everything here is data format, the same in both stores.

use weir_core::model::Id;

/// Slots of a bucket.
pub(super) const BUCKET_SLOTS: usize = 16;
/// Size of a slot, in bytes.
pub(super) const SLOT_BYTES: usize = 8;
/// Size of a bucket, in bytes.
pub(super) const BUCKET_BYTES: usize = BUCKET_SLOTS * SLOT_BYTES;
/// Most buckets of the table of one partition: 512 MiB, the longest string of Redis.
const BUCKETS_MAX: u64 = (512 << 20) / BUCKET_BYTES as u64;

/// The place and the fingerprint of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Number of its bucket.
    pub(super) bucket: u32,
    /// The content of its slot.
    pub(super) fingerprint: [u8; 4],
}

/// Buckets of the table of one partition, when a kind remembers `pairs_max` pairs over `partitions`. Another number of buckets
/// gives every pair another place: the old windows are lost, and their remains expire.
pub(super) fn buckets(pairs_max: u64, partitions: u16) -> u32 {
    let slots = (pairs_max / u64::from(partitions.max(1))).saturating_mul(2);
    u32::try_from(slots.div_ceil(BUCKET_SLOTS as u64).clamp(1, BUCKETS_MAX)).unwrap_or(u32::MAX)
}

/// The place of (target, actor) in a table of `buckets` buckets.
pub(super) fn mark(target: &Id, actor: &Id, buckets: u32) -> Mark {
    let hash = mixed(fnv(&[target.to_string().as_bytes(), &[0], actor.to_string().as_bytes()]));
    let [b0, b1, b2, b3, f0, f1, f2, f3] = hash.to_le_bytes();
    let spread = u32::from_le_bytes([b0, b1, b2, b3]);
    // Multiply and shift: uniform over the buckets.
    let bucket = ((u64::from(spread) * u64::from(buckets.max(1))) >> 32) as u32;
    Mark { bucket, fingerprint: [f0, f1, f2, f3] }
}

/// The Unix second in which a mark set at `now_ms` expires: no earlier than the window ends.
pub(super) fn expires_s(now_ms: u64, unique_ms: u32) -> u32 {
    u32::try_from(now_ms.saturating_add(u64::from(unique_ms)).div_ceil(1_000)).unwrap_or(u32::MAX)
}

/// The slot to write in a bucket, which may be shorter than its full size; `None` when the mark is there and valid.
pub(super) fn slot(bucket: &[u8], fingerprint: [u8; 4], now_ms: u64) -> Option<usize> {
    let now_s = u32::try_from(now_ms / 1_000).unwrap_or(u32::MAX);
    let (mut first_to_go, mut earliest_s) = (0, u32::MAX);
    for index in 0..BUCKET_SLOTS {
        let (known, expires_s) = read(bucket, index);
        let holds = expires_s > now_s;
        if known == fingerprint {
            // The same pair: its own slot, valid or not.
            return if holds { None } else { Some(index) };
        }
        let rank_s = if holds { expires_s } else { 0 };
        if rank_s < earliest_s {
            (first_to_go, earliest_s) = (index, rank_s);
        }
    }
    Some(first_to_go)
}

/// Writes a mark that is valid until `expires_s` into its slot of a full bucket.
pub(super) fn write(bucket: &mut [u8; BUCKET_BYTES], index: usize, fingerprint: [u8; 4], expires_s: u32) {
    let [e0, e1, e2, e3] = expires_s.to_le_bytes();
    let [f0, f1, f2, f3] = fingerprint;
    if let Some(slot) = bucket.get_mut(index * SLOT_BYTES..).and_then(<[u8]>::first_chunk_mut::<SLOT_BYTES>) {
        *slot = [f0, f1, f2, f3, e0, e1, e2, e3];
    }
}

fn read(bucket: &[u8], index: usize) -> ([u8; 4], u32) {
    let at = index * SLOT_BYTES;
    let part = |from: usize| bucket.get(from..).and_then(<[u8]>::first_chunk::<4>).copied().unwrap_or_default();
    (part(at), u32::from_le_bytes(part(at + 4)))
}

/// FNV-1a, 64 bit.
fn fnv(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The finalizer of MurmurHash3: every bit of the input affects every bit of the output.
fn mixed(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table in memory, as in both stores.
    struct Table(Vec<[u8; BUCKET_BYTES]>);

    impl Table {
        fn new(pairs_max: u64) -> Self {
            Self(vec![[0; BUCKET_BYTES]; buckets(pairs_max, 1) as usize])
        }

        /// Whether the pair is seen for the first time within the window.
        fn see(&mut self, target: i64, actor: i64, now_ms: u64, unique_ms: u32) -> bool {
            let mark = mark(&Id::Int(target), &Id::Int(actor), self.0.len() as u32);
            let bucket = &mut self.0[mark.bucket as usize];
            let Some(index) = slot(bucket, mark.fingerprint, now_ms) else { return false };
            write(bucket, index, mark.fingerprint, expires_s(now_ms, unique_ms));
            true
        }
    }

    #[test]
    fn the_format_is_pinned() {
        assert_eq!(buckets(1_000, 8), 16);
        assert_eq!((buckets(0, 8), buckets(u64::MAX, 1)), (1, 4 << 20));
        assert_eq!(mark(&Id::Int(3), &Id::Int(7), 16), Mark { bucket: 8, fingerprint: [132, 72, 103, 119] });
    }

    #[test]
    fn a_pair_counts_once_within_the_window_and_again_after_it() {
        let mut table = Table::new(1_000);
        assert!(table.see(1, 7, 10_000, 60_000));
        assert!(!table.see(1, 7, 10_001, 60_000));
        assert!(table.see(1, 8, 10_001, 60_000) && table.see(2, 7, 10_001, 60_000));
        assert!(!table.see(1, 7, 69_999, 60_000));
        assert!(table.see(1, 7, 70_000, 60_000), "a repetition does not prolong the window");
    }

    #[test]
    fn what_is_too_much_is_forgotten_first_of_what_goes_first() {
        let pairs = 100_000;
        let mut table = Table::new(pairs as u64);
        let first = (0..pairs).filter(|actor| table.see(1, *actor, 1_000, 60_000)).count();
        let again = (0..pairs).filter(|actor| table.see(1, *actor, 2_000, 60_000)).count();
        assert_eq!(first, pairs as usize, "nobody is taken for another");
        assert!(again < pairs as usize / 500, "{again} of {pairs} were forgotten at the bound");
        // Ten times the bound: memory stays the same, and evicted pairs count again.
        let beyond = (0..pairs * 10).filter(|actor| table.see(2, *actor, 3_000, 60_000)).count();
        assert_eq!(beyond, pairs as usize * 10);
    }
}
