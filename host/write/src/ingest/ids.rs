//! Ids that weir makes: UUIDs of version 7 (RFC 9562), all of one request in one partition.
//!
//! They follow from a seed and a time alone, their partition from the seed. The seed of a request with an `Idempotency-Key`
//! follows from that, so that a repeated request is in the same partition, and is answered with the same ids without their
//! being remembered; any other seed is random.

use sha2::{Digest as _, Sha256};
use uuid::{Builder, Uuid};

use weir_core::model::{Id, Partition, partition_of};

/// What the random part of a request's ids follows from.
pub(super) type Seed = [u8; 16];

/// An unguessable seed.
pub(super) fn random_seed() -> Seed {
    *Uuid::new_v4().as_bytes()
}

/// `count` ids of the time `at_ms`, ascending as far as a counter of 12 bits reaches, and their partition.
pub(super) fn made(seed: &Seed, at_ms: u64, count: usize, partitions: Partition) -> (Partition, Vec<Id>) {
    // Smaller than the number of partitions.
    let partition = (u128::from_be_bytes(*seed) % u128::from(partitions.max(1))) as Partition;
    let is_in_it = |id: &Id| partition_of(id, partitions) == partition;
    // Each tries until it is in the partition: as many times as there are partitions, on average.
    let id = |index| (0..u32::MAX).map(|attempt| one(seed, at_ms, index, attempt)).find(is_in_it);
    (partition, (0..count).filter_map(id).collect())
}

fn one(seed: &Seed, at_ms: u64, index: usize, attempt: u32) -> Id {
    let mut hasher = Sha256::new();
    hasher.update(seed);
    hasher.update((index as u64).to_le_bytes());
    hasher.update(attempt.to_le_bytes());
    let mut random = [0; 10];
    random.copy_from_slice(&hasher.finalize()[..10]);
    // The 12 bits after the version count within the millisecond, so that a request's documents sort as they came.
    [random[0], random[1]] = ((index & 0xfff) as u16).to_be_bytes();
    Id::Uuid(Builder::from_unix_timestamp_millis(at_ms, &random).into_uuid())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_same_seed_and_time_make_the_same_ids() {
        let (partition, ids) = made(&[1; 16], 1_800_000_000_000, 1_000, 16);
        assert_eq!((partition, ids.clone()), made(&[1; 16], 1_800_000_000_000, 1_000, 16));
        assert!(ids.iter().all(|id| partition_of(id, 16) == partition));
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 1_000);
        assert!(ids.is_sorted());
        let Id::Uuid(first) = &ids[0] else { panic!("a UUID") };
        assert_eq!((first.get_version_num(), first.get_variant()), (7, uuid::Variant::RFC4122));
        assert_ne!(ids, made(&[2; 16], 1_800_000_000_000, 1_000, 16).1);
        assert_ne!(ids, made(&[1; 16], 1_800_000_000_001, 1_000, 16).1);
    }

    #[test]
    fn requests_are_spread_over_the_partitions() {
        let of = |_| made(&random_seed(), 5, 1, 8).0;
        assert_eq!((0..1_000).map(of).collect::<HashSet<_>>().len(), 8);
    }
}
