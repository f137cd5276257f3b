//! Into which store steps a batch goes, and that the rules are asked of each item once.

use std::collections::BTreeMap;
use std::future::Future;

use futures_util::future::join_all;

use weir_core::error::Refusal;
use weir_core::model::{Digest, Partition};
use weir_policy::{Decided, Decider};

/// What the rules said of one item, and which module did. A request keeps it while what the store did not know is loaded:
/// a module that does I/O counts what it is asked, so that each item is decided exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ruled<R> {
    /// What they said.
    pub ruling: R,
    /// The module that decided.
    pub digest: Digest,
}

/// The decisions that the items of a batch have kept; `None` where they have not been decided yet. See [`decided_apart`].
pub fn kept<R>(ruled: impl Iterator<Item = Option<Ruled<R>>>) -> Option<Decided<R>> {
    let ruled: Vec<Ruled<R>> = ruled.collect::<Option<_>>()?;
    let (rules, digests) = ruled.into_iter().map(|ruled| (ruled.ruling, ruled.digest)).unzip();
    Some(Decided { rules, decider: Decider::Each(digests) })
}

/// Runs those of a batch that have been decided before apart from the others, both at once: each run has items of one sort
/// only. Index-aligned with `batch`.
pub async fn decided_apart<I, O, F>(batch: Vec<I>, is_decided: impl Fn(&I) -> bool, run: impl Fn(Vec<I>) -> F) -> Vec<O>
where
    F: Future<Output = Vec<O>>,
{
    let first = batch.first().map(&is_decided);
    if batch.iter().all(|item| Some(is_decided(item)) == first) {
        return run(batch).await;
    }
    let order: Vec<bool> = batch.iter().map(&is_decided).collect();
    let (before, now): (Vec<I>, Vec<I>) = batch.into_iter().partition(is_decided);
    let (before, now) = tokio::join!(run(before), run(now));
    let (mut before, mut now) = (before.into_iter(), now.into_iter());
    order.into_iter().filter_map(|is_before| if is_before { before.next() } else { now.next() }).collect()
}

/// Runs `ops` in one store step, or in several at once: where a canary decided some of them, one for each module, because
/// each journal entry names one module; and where the store is several servers, one for each step of theirs (see
/// [`Store::step_of`]), so that the failure of one fails its own operations only. The order of operations on one target
/// stays: one module decides them all, and they are in one step. Index-aligned with `ops`.
///
/// [`Store::step_of`]: weir_store::Store::step_of
pub async fn in_steps<Op, E, F>(
    decider: Decider,
    ops: Vec<Op>,
    step_of: impl Fn(&Op) -> Partition,
    commit: impl Fn(Digest, Vec<Op>) -> F,
) -> Vec<Result<E, Refusal>>
where
    F: Future<Output = Result<Vec<E>, Refusal>>,
{
    let all = |results: Result<Vec<E>, Refusal>, length: usize| match results {
        Ok(evaluated) => evaluated.into_iter().map(Ok).collect(),
        Err(refusal) => (0..length).map(|_| Err(refusal.clone())).collect(),
    };
    let first = ops.first().map(&step_of);
    let is_one_step = ops.iter().all(|op| Some(step_of(op)) == first);
    let digests = match decider {
        Decider::One(digest) if is_one_step => {
            let length = ops.len();
            return all(commit(digest, ops).await, length);
        }
        Decider::One(digest) => vec![digest; ops.len()],
        Decider::Each(digests) => digests,
    };
    let mut steps: BTreeMap<(Digest, Partition), (Vec<usize>, Vec<Op>)> = BTreeMap::new();
    let mut results: Vec<Option<Result<E, Refusal>>> = (0..ops.len()).map(|_| None).collect();
    for (index, (digest, op)) in digests.iter().zip(ops).enumerate() {
        let (indexes, of_step) = steps.entry((*digest, step_of(&op))).or_default();
        indexes.push(index);
        of_step.push(op);
    }
    let commit = &commit;
    let committed = steps.into_iter().map(|((digest, _), (indexes, ops))| async move {
        let length = indexes.len();
        (indexes, all(commit(digest, ops).await, length))
    });
    for (indexes, evaluated) in join_all(committed).await {
        for (index, result) in indexes.into_iter().zip(evaluated) {
            results[index] = Some(result);
        }
    }
    results.into_iter().map(|result| result.unwrap_or(Err(Refusal::StoreUnavailable))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_decided_before_runs_apart_and_in_its_place() {
        let runs = std::sync::Mutex::new(Vec::new());
        let run = |batch: Vec<i32>| {
            runs.lock().unwrap().push(batch.clone());
            async move { batch.into_iter().map(|item| item * 10).collect::<Vec<_>>() }
        };
        let is_decided = |item: &i32| *item < 0;
        assert_eq!(decided_apart(vec![1, 2], is_decided, run).await, [10, 20]);
        assert_eq!(decided_apart(vec![-1, -2], is_decided, run).await, [-10, -20]);
        assert_eq!(decided_apart(vec![1, -2, 3, -4], is_decided, run).await, [10, -20, 30, -40]);
        assert_eq!(*runs.lock().unwrap(), [vec![1, 2], vec![-1, -2], vec![-2, -4], vec![1, 3]]);
    }

    #[test]
    fn decisions_are_kept_with_who_decided() {
        let ruled = |ruling: u8| Ruled { ruling, digest: Digest([ruling; 32]) };
        let decider = Decider::Each(vec![Digest([1; 32]), Digest([2; 32])]);
        assert_eq!(kept([Some(ruled(1)), Some(ruled(2))].into_iter()), Some(Decided { rules: vec![1, 2], decider }));
        assert_eq!(kept([Some(ruled(1)), None].into_iter()), None);
    }
}
