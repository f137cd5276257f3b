//! The lottery: people who arrive before a queue opens get random places, and anyone can verify them afterwards.
//!
//! A queue's seed is made with the queue. Its SHA-256 is public from the beginning; the seed itself becomes public once
//! someone has been admitted. So no one can choose the seed late, or choose an id that suits it. A rank is the first 44
//! bits of SHA-256(seed, then the actor's id as text); when it is taken, the next free one.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use weir_core::model::Id;
use weir_store::LANE_SCORES;

/// The rank of a person.
pub fn rank(seed: &[u8; 32], actor: &Id) -> u64 {
    let hash = Sha256::new().chain_update(seed).chain_update(actor.to_string()).finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    u64::from_be_bytes(first) % LANE_SCORES
}

/// The public part of a seed before the lottery.
pub fn commitment(seed: &[u8; 32]) -> String {
    hex(&Sha256::digest(seed))
}

/// The places of `arrivals` under a seed. `arrivals` are in the order of their arrival.
pub fn order(seed: &[u8; 32], arrivals: &[Id]) -> Vec<Id> {
    let mut taken: BTreeSet<u64> = BTreeSet::new();
    let mut ranked: Vec<(u64, &Id)> = Vec::with_capacity(arrivals.len());
    for actor in arrivals {
        let mut rank = rank(seed, actor);
        while !taken.insert(rank) {
            rank += 1;
        }
        ranked.push((rank, actor));
    }
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, actor)| actor.clone()).collect()
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A seed from 64 hexadecimal digits.
pub fn seed_of(text: &str) -> Option<[u8; 32]> {
    let mut seed = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in seed.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_follows_from_the_seed_and_who_arrived() {
        let seed = [7; 32];
        let arrivals: Vec<Id> = (1..=100).map(Id::Int).collect();
        let drawn = order(&seed, &arrivals);
        assert_ne!(drawn, arrivals);
        let backwards: Vec<Id> = arrivals.iter().rev().cloned().collect();
        assert_eq!(order(&seed, &backwards), drawn, "the order of arrival does not matter");
        assert_ne!(order(&[8; 32], &arrivals), drawn);
        assert_eq!(seed_of(&hex(&seed)), Some(seed));
        assert_eq!(seed_of("zz"), None);
        assert_eq!(commitment(&seed).len(), 64);
    }
}
