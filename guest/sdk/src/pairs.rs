//! Pairs of target and actor in a list of changes.

use crate::{Entry, Id};

/// Ascending indexes of the last entry of each (target, actor) pair: everything that SQL must learn, and no more. Sorts
/// instead of hashing: no client can choose ids that make it slow.
pub fn last_of_each_pair(entries: &[Entry]) -> Vec<u32> {
    let pair = |index: u32| -> (&Id, &Id) { (&entries[index as usize].target, &entries[index as usize].actor) };
    // A batch has at most 2^32 entries: it comes out of a 32-bit memory.
    let mut order: Vec<u32> = (0..=u32::MAX).take(entries.len()).collect();
    order.sort_unstable_by(|&a, &b| pair(a).cmp(&pair(b)).then(b.cmp(&a)));
    order.dedup_by(|later, first| pair(*later) == pair(*first));
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_each_pair_survives_in_order() {
        assert!(last_of_each_pair(&[]).is_empty());
        let entries = [Entry::add(1, 1), Entry::add("1", 1), Entry::remove(1, 1), Entry::add(1, "1")];
        assert_eq!(last_of_each_pair(&entries), [1, 2, 3]);
        assert_eq!(last_of_each_pair(&vec![Entry::add(1, 1); 1_000]), [999]);
        let distinct: Vec<Entry> = (0..100).rev().map(|target| Entry::add(target, 1)).collect();
        assert_eq!(last_of_each_pair(&distinct), (0..100).collect::<Vec<u32>>());
    }
}
