//! One call, or one for each partition: a single server handles many partitions in one call, a cluster has them on several nodes.
//! The calls go at once, so that those to one node are written together.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::RedisStore;
use crate::{Commit, StoreError};
use weir_core::model::Partition;

/// Indexes of the items of each call.
type Calls = Vec<Vec<usize>>;

impl RedisStore {
    /// Sends `items` in one call, in a cluster in one per partition. `call` answers its items index-aligned, and so does this.
    /// Fails as a whole.
    pub(super) async fn in_calls<T: Clone, R, F>(
        &self,
        items: &[T],
        partition_of: impl Fn(&T) -> Partition,
        call: impl Fn(Vec<T>) -> F,
    ) -> Result<Vec<R>, StoreError>
    where
        F: Future<Output = Result<Vec<R>, StoreError>>,
    {
        let Some(calls) = self.steps(items, partition_of) else { return call(items.to_vec()).await };
        let answers = join_all(calls.iter().map(|indexes| call(pick(items, indexes)))).await;
        let answers: Vec<Vec<R>> = answers.into_iter().collect::<Result<_, _>>()?;
        Ok(in_order(calls.into_iter().zip(answers)))
    }

    /// The steps of a batch whose operations are in several partitions of a cluster; `None` where one step is enough.
    pub(super) fn steps<T>(&self, items: &[T], partition_of: impl Fn(&T) -> Partition) -> Option<Calls> {
        if !self.link.is_cluster() {
            return None;
        }
        let mut by_partition: BTreeMap<Partition, Vec<usize>> = BTreeMap::new();
        for (index, item) in items.iter().enumerate() {
            by_partition.entry(partition_of(item)).or_default().push(index);
        }
        (by_partition.len() > 1).then(|| by_partition.into_values().collect())
    }

    /// Runs a batch in several steps. Fails when one of them does: with an unknown outcome when another one was applied.
    pub(super) async fn in_steps<Op: Clone, R, F>(
        &self,
        ops: &[Op],
        steps: Calls,
        step: impl Fn(Vec<Op>) -> F,
    ) -> Result<Commit<R>, StoreError>
    where
        F: Future<Output = Result<Commit<R>, StoreError>>,
    {
        let commits = join_all(steps.iter().map(|indexes| step(pick(ops, indexes)))).await;
        let is_any_applied = commits.iter().any(|commit| matches!(commit, Ok(_) | Err(StoreError::OutcomeUnknown(_))));
        let commits: Vec<Commit<R>> = commits
            .into_iter()
            .collect::<Result<_, _>>()
            .map_err(|error| if is_any_applied { StoreError::OutcomeUnknown(error.to_string()) } else { error })?;
        let (results, heads): (Vec<_>, Vec<_>) =
            commits.into_iter().map(|commit| (commit.results, commit.heads)).unzip();
        Ok(Commit { results: in_order(steps.into_iter().zip(results)), heads: heads.into_iter().flatten().collect() })
    }
}

fn pick<T: Clone>(items: &[T], indexes: &[usize]) -> Vec<T> {
    indexes.iter().filter_map(|&index| items.get(index)).cloned().collect()
}

/// Puts the answers in the order of the items.
fn in_order<R>(answers: impl Iterator<Item = (Vec<usize>, Vec<R>)>) -> Vec<R> {
    let mut all: Vec<(usize, R)> = answers.flat_map(|(indexes, answers)| indexes.into_iter().zip(answers)).collect();
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, answer)| answer).collect()
}
