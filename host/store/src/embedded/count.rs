//! A batch of hits on counters: evaluates limits and windows in order, adds, appends the entries.
//!
//! Where the kind has no table of events, the hits on one target are one record with their sum.

use std::collections::HashMap;

use super::batch::{self, Work, Works};
use super::layout::{Space, View, damaged, unique_key};
use super::limits::{Limited, Limits};
use super::outcome::{Before, Outcome, Outcomes};
use super::state::State;
use super::target::{Mode, Target};
use super::transaction::Transaction;
use crate::count::COUNT_MAX;
use crate::unique::{self, BUCKET_BYTES, Mark};
use crate::{Commit, CountBatch, CountOp, CountOutcome, CountResult, StoreError};
use weir_core::journal::entry;
use weir_core::model::{Id, Partition, Position, RateState, partition_of};

/// A bucket of the table of windows, and whether the batch changed it.
type Bucket = ([u8; BUCKET_BYTES], bool);

struct Apply<'a> {
    state: &'a mut State,
    limits: &'a mut Limits,
    kind: usize,
    batch: &'a CountBatch,
    works: Works,
    outcomes: Outcomes,
    /// Every bucket that an operation reads.
    buckets: HashMap<(Partition, u32), Bucket>,
    /// The sum added to each target, in the order of the first hits that count.
    sums: Vec<(Partition, &'a Id, u64)>,
    sum_of: HashMap<&'a Id, usize>,
}

/// An operation, and the place of its window, if it has one.
#[derive(Clone, Copy)]
struct Placed<'a> {
    op: &'a CountOp,
    partition: Partition,
    window: Option<(u32, Mark)>,
}

/// Applies `batch`. See [`crate::State::count`].
pub(super) fn count(
    transaction: &mut Transaction<'_>,
    state: &mut State,
    limits: &mut Limits,
    (partitions, idempotency_ttl_ms): (Partition, u64),
    kind: &str,
    batch: &CountBatch,
) -> Result<Commit<CountResult>, StoreError> {
    let now_ms = batch.now_ms;
    let size = unique::buckets(batch.unique_pairs_max, partitions);
    let placed: Vec<Placed<'_>> = batch.ops.iter().map(|op| place(op, partitions, size)).collect();
    let works = batch::enter(transaction, kind, placed.iter().map(|op| op.partition), now_ms)?;
    let keys = batch.ops.iter().filter_map(|op| op.idempotency.as_ref());
    let outcomes = Outcomes::read(transaction, kind, (now_ms, idempotency_ttl_ms), keys)?;
    let buckets = read_buckets(transaction, kind, &placed)?;

    // Nothing fails from here on.
    let (place, sums, sum_of) = (state.kind(kind), Vec::new(), HashMap::new());
    let mut apply = Apply { state, limits, kind: place, batch, works, outcomes, buckets, sums, sum_of };
    let mut results = Vec::with_capacity(batch.ops.len());
    for placed in placed {
        let result = apply.one(placed);
        if let Some(idempotency) = &placed.op.idempotency
            && let Some(outcome) = remembered(&result)
        {
            apply.outcomes.remember(transaction, kind, idempotency, outcome);
        }
        results.push(result);
    }
    let Apply { state, mut works, buckets, sums, .. } = apply;
    for (partition, target, sum) in sums {
        if let Some(work) = works.get_mut(&partition) {
            append(work, batch, (target, None), sum);
        }
    }
    for ((partition, bucket), (bytes, is_changed)) in buckets {
        if is_changed {
            transaction.put(Space::Uniques, unique_key(kind, partition, bucket), &bytes);
        }
    }
    Ok(Commit { results, heads: batch::leave(transaction, state, kind, works, batch.at_ms) })
}

fn place(op: &CountOp, partitions: Partition, buckets: u32) -> Placed<'_> {
    let window = op.window().map(|(actor, unique_ms)| (unique_ms, unique::mark(&op.target, actor, buckets)));
    Placed { op, partition: partition_of(&op.target, partitions), window }
}

fn read_buckets(
    transaction: &Transaction<'_>,
    kind: &str,
    placed: &[Placed<'_>],
) -> Result<HashMap<(Partition, u32), Bucket>, StoreError> {
    let mut buckets = HashMap::new();
    for op in placed {
        let Some((_, mark)) = op.window else { continue };
        if let std::collections::hash_map::Entry::Vacant(place) = buckets.entry((op.partition, mark.bucket)) {
            let mut bucket = [0; BUCKET_BYTES];
            if let Some(bytes) = transaction.get(Space::Uniques, &unique_key(kind, op.partition, mark.bucket))? {
                bucket.get_mut(..bytes.len()).ok_or_else(|| damaged("windows"))?.copy_from_slice(&bytes);
            }
            place.insert((bucket, false));
        }
    }
    Ok(buckets)
}

impl<'a> Apply<'a> {
    fn one(&mut self, placed: Placed<'a>) -> CountResult {
        let Placed { op, partition, window } = placed;
        match self.outcomes.before(op.idempotency.as_ref()) {
            Before::New => {}
            Before::Again(first) => return replayed(first),
            Before::Conflict => return CountResult::IdempotencyConflict,
        }
        let Some(work) = self.works.get_mut(&partition) else { return CountResult::TargetNotLoaded };
        let (limits, batch, kind, group) = (&mut *self.limits, self.batch, self.kind, self.state.group);
        let bucket = window
            .and_then(|(unique_ms, mark)| Some((unique_ms, mark, self.buckets.get_mut(&(partition, mark.bucket))?)));
        let evaluated = self.state.with((kind, partition), &op.target, |target| {
            evaluate(target, op, work, (limits, kind, batch.now_ms), bucket, group)
        });
        let result = evaluated.unwrap_or(CountResult::TargetNotLoaded);
        if matches!(result, CountResult::Done(CountOutcome { counted: true, .. })) {
            if batch.keep_actors {
                append(work, batch, (&op.target, op.actor.as_ref()), op.added());
            } else {
                self.sum(partition, op);
            }
        }
        result
    }

    fn sum(&mut self, partition: Partition, op: &'a CountOp) {
        let place = *self.sum_of.entry(&op.target).or_insert(self.sums.len());
        match self.sums.get_mut(place) {
            Some((_, _, sum)) => *sum += op.added(),
            None => self.sums.push((partition, &op.target, op.added())),
        }
    }
}

/// One operation on its target.
fn evaluate(
    target: &mut Target,
    op: &CountOp,
    work: &Work,
    (limits, kind, now_ms): (&mut Limits, usize, u64),
    window: Option<(u32, Mark, &mut Bucket)>,
    group: u64,
) -> CountResult {
    if !target.is_known(now_ms) {
        return CountResult::TargetNotLoaded;
    }
    match target.mode {
        Mode::Missing => return CountResult::TargetMissing,
        Mode::Count => {}
        Mode::Whole | Mode::Huge | Mode::Exists | Mode::Settings => return CountResult::TargetNotLoaded,
    }
    let limited = |actor| limits.check((kind, now_ms), (&op.target, actor), op.rule.limit, true);
    let rate = match op.actor.as_ref().map_or(Ok(None), limited) {
        Ok(rate) => rate,
        Err(Limited { retry_after_ms, rate }) => return CountResult::Limited { retry_after_ms, rate },
    };
    let uncounted = done(target.count, false, target.position(work.head.flushed), rate);
    let added = op.added();
    if added == 0 {
        return uncounted;
    }
    let slot = match &window {
        None => None,
        Some((_, mark, bucket)) => match unique::slot(&bucket.0, mark.fingerprint, now_ms) {
            None => return uncounted,
            slot => slot,
        },
    };
    let Some(count) = target.count.checked_add(added).filter(|count| *count <= COUNT_MAX) else {
        return CountResult::Overflow;
    };
    if let (Some((unique_ms, mark, bucket)), Some(slot)) = (window, slot) {
        unique::write(&mut bucket.0, slot, mark.fingerprint, unique::expires_s(now_ms, unique_ms));
        bucket.1 = true;
    }
    target.count = count;
    target.touch(work.position, group);
    done(count, true, work.position, rate)
}

fn append(work: &mut Work, batch: &CountBatch, (target, actor): (&Id, Option<&Id>), by: u64) {
    let entry = work.record(&batch.digest, batch.at_ms, by);
    entry.push(entry::COUNT);
    entry::encode_count(entry, target, actor, by);
}

/// The part of a result that an idempotency key remembers; `None` where a repetition is evaluated again.
fn remembered(result: &CountResult) -> Option<Outcome> {
    match result {
        CountResult::Done(CountOutcome { count, counted, position, rate, replayed: false }) => Some(Outcome {
            denied: false,
            active: false,
            changed: *counted,
            number: *count,
            position: *position,
            rate: *rate,
        }),
        _ => None,
    }
}

/// The result of a repetition.
fn replayed(first: Outcome) -> CountResult {
    let Outcome { changed, number, position, rate, .. } = first;
    CountResult::Done(CountOutcome { count: number, counted: changed, position, rate, replayed: true })
}

fn done(count: u64, counted: bool, position: Position, rate: Option<RateState>) -> CountResult {
    CountResult::Done(CountOutcome { count, counted, position, rate, replayed: false })
}
