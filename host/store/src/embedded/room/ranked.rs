//! An ordered set of scores, each with a slot, and the rank of a score.
//!
//! Two levels: chunks of neighbours, and a Fenwick tree over the sizes of the chunks. A rank is one search among the chunks, one
//! within a chunk, and a sum over log n nodes. Arrivals come in order, so nearly all go to the end of the last chunk; splitting
//! or emptying a chunk rebuilds the tree, once in some hundred changes.

/// Most entries of one chunk.
const CHUNK_MAX: usize = 512;

/// An ordered set of scores.
#[derive(Debug, Default)]
pub(super) struct Ranked {
    chunks: Vec<Vec<(u64, u32)>>,
    /// Fenwick tree over the lengths of `chunks`.
    tree: Vec<u32>,
    length: usize,
}

impl Ranked {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// The chunk of `score`: the last that begins at or below it.
    fn chunk_of(&self, score: u64) -> usize {
        self.chunks.partition_point(|chunk| chunk.first().is_some_and(|(first, _)| *first <= score)).saturating_sub(1)
    }

    pub(super) fn contains(&self, score: u64) -> bool {
        let found = |chunk: &Vec<(u64, u32)>| chunk.binary_search_by_key(&score, |(score, _)| *score).is_ok();
        self.chunks.get(self.chunk_of(score)).is_some_and(found)
    }

    /// Adds a score that is not in the set.
    pub(super) fn insert(&mut self, score: u64, slot: u32) {
        if self.chunks.is_empty() {
            self.chunks.push(Vec::new());
            self.tree.push(0);
        }
        let at = self.chunk_of(score);
        let is_last = at + 1 == self.chunks.len();
        let chunk = &mut self.chunks[at];
        let place = chunk.partition_point(|(other, _)| *other < score);
        self.length += 1;
        if chunk.len() < CHUNK_MAX {
            chunk.insert(place, (score, slot));
            self.add(at, 1);
            return;
        }
        if is_last && place == chunk.len() {
            // At the very end nothing moves, and chunks stay full.
            let mut fresh = Vec::with_capacity(CHUNK_MAX);
            fresh.push((score, slot));
            self.chunks.push(fresh);
            self.append();
            return;
        }
        let mut upper = chunk.split_off(CHUNK_MAX / 2);
        if place < CHUNK_MAX / 2 {
            chunk.insert(place, (score, slot));
        } else {
            upper.insert(place - CHUNK_MAX / 2, (score, slot));
        }
        self.chunks.insert(at + 1, upper);
        self.rebuild();
    }

    /// Removes a score; `false` when it is not in the set.
    pub(super) fn remove(&mut self, score: u64) -> bool {
        let at = self.chunk_of(score);
        let Some(chunk) = self.chunks.get_mut(at) else { return false };
        let Ok(place) = chunk.binary_search_by_key(&score, |(score, _)| *score) else { return false };
        chunk.remove(place);
        let is_empty = chunk.is_empty();
        self.length -= 1;
        if is_empty {
            self.chunks.remove(at);
            self.rebuild();
        } else {
            self.add(at, -1);
        }
        true
    }

    /// The number of scores below `score`.
    pub(super) fn rank(&self, score: u64) -> u64 {
        let at = self.chunk_of(score);
        let Some(chunk) = self.chunks.get(at) else { return 0 };
        self.before(at) + chunk.partition_point(|(other, _)| *other < score) as u64
    }

    /// The slots of the first `count`, in order.
    pub(super) fn first(&self, count: usize) -> Vec<u32> {
        self.chunks.iter().flatten().take(count).map(|(_, slot)| *slot).collect()
    }

    /// Entries in the chunks before `chunk`.
    fn before(&self, chunk: usize) -> u64 {
        let (mut sum, mut at) = (0, chunk);
        while at > 0 {
            sum += u64::from(self.tree[at - 1]);
            at &= at - 1;
        }
        sum
    }

    fn add(&mut self, chunk: usize, by: i32) {
        let mut at = chunk + 1;
        while at <= self.tree.len() {
            self.tree[at - 1] = self.tree[at - 1].wrapping_add_signed(by);
            at += at & at.wrapping_neg();
        }
    }

    /// The node of the last chunk, which is new.
    fn append(&mut self) {
        let at = self.chunks.len();
        let from = at - (at & at.wrapping_neg());
        let sum: usize = self.chunks[from..at].iter().map(Vec::len).sum();
        self.tree.push(u32::try_from(sum).unwrap_or(u32::MAX));
    }

    fn rebuild(&mut self) {
        self.tree.clear();
        self.tree.extend(self.chunks.iter().map(|chunk| chunk.len() as u32));
        for at in 1..=self.tree.len() {
            let above = at + (at & at.wrapping_neg());
            if above <= self.tree.len() {
                self.tree[above - 1] += self.tree[at - 1];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn ranks_are_those_of_a_sorted_set(
            begin in 0_u64..2_000,
            steps in proptest::collection::vec((any::<bool>(), 0_u64..4_000), 1..600),
        ) {
            let (mut ranked, mut model) = (Ranked::default(), BTreeSet::new());
            for score in 0..begin {
                ranked.insert(score * 2, score as u32);
                model.insert(score * 2);
            }
            for (is_insert, score) in steps {
                prop_assert_eq!(ranked.contains(score), model.contains(&score));
                prop_assert_eq!(ranked.rank(score), model.range(..score).count() as u64);
                if is_insert && model.insert(score) {
                    ranked.insert(score, (score / 2) as u32);
                } else if !is_insert {
                    prop_assert_eq!(ranked.remove(score), model.remove(&score));
                }
                prop_assert_eq!(ranked.len(), model.len());
            }
            let first: Vec<u32> = model.iter().take(700).map(|score| (*score / 2) as u32).collect();
            prop_assert_eq!(ranked.first(700), first);
        }
    }
}
