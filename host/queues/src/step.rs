//! One batch: one policy call for all arrivals, one store step for each queue.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;

use super::lottery::rank;
use super::queue::Queue;
use super::shared::Shared;
use weir_core::config::RoomMode;
use weir_core::error::{Refusal, RoomRefusal};
use weir_core::model::{Arrival, Id, Place};
use weir_store::{RoomBatch, RoomCommit, RoomFigures, RoomOp, RoomResult, RoomVerb};

/// Length of a stay in pass-through mode, in milliseconds.
const THROUGH_MS: u64 = 300_000;

/// A request for one person.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum RoomRequest {
    /// A place.
    Join,
    /// An operation on the arrival with this number.
    About(u64, RoomVerb),
}

/// One operation.
#[derive(Clone)]
pub(super) struct RoomStep {
    pub(super) queue: Arc<Queue>,
    pub(super) actor: Id,
    pub(super) request: RoomRequest,
}

/// The result of one operation.
#[derive(Clone, Copy)]
pub(super) struct StepResult {
    pub(super) result: RoomResult,
    pub(super) figures: RoomFigures,
    /// The seed of the queue's life.
    pub(super) seed: [u8; 32],
    pub(super) now_ms: u64,
    /// The rules place arrivals by lottery now; for joins only.
    pub(super) by_lottery: bool,
}

/// The index in the batch, the operation, and the place of a join.
type Placed = (usize, RoomOp, Option<Place>);

/// Runs a batch. The results are index-aligned with it.
pub(super) async fn run(shared: Arc<Shared>, batch: Vec<RoomStep>) -> Vec<Result<StepResult, Refusal>> {
    let now_ms = shared.clock.now_ms();
    let places = match place(&shared, now_ms, &batch).await {
        Ok(places) => places,
        Err(refusal) => return vec![Err(refusal); batch.len()],
    };
    let mut results: Vec<Option<Result<StepResult, Refusal>>> = vec![None; batch.len()];
    let mut by_queue: HashMap<Id, (Arc<Queue>, Vec<Placed>)> = HashMap::new();
    for (index, (step, place)) in batch.into_iter().zip(places).enumerate() {
        let RoomStep { queue, actor, request } = step;
        if place == Some(Place::Refuse) {
            results[index] = Some(Err(Refusal::Denied));
            continue;
        }
        let (number, verb) = match request {
            RoomRequest::Join => (0, RoomVerb::Join { lane: 0, lottery_rank: None, through_ms: None }),
            RoomRequest::About(number, verb) => (number, verb),
        };
        let (_, ops) = by_queue.entry(queue.id.clone()).or_insert_with(|| (queue, Vec::new()));
        ops.push((index, RoomOp { actor, number, verb }, place));
    }
    let steps = by_queue.into_values().map(|(queue, ops)| {
        let shared = &shared;
        async move {
            let (indexes, result) = apply(shared, &queue, now_ms, ops).await;
            indexes.into_iter().zip(result).collect::<Vec<_>>()
        }
    });
    for (index, result) in join_all(steps).await.into_iter().flatten() {
        results[index] = Some(result);
    }
    results.into_iter().map(|result| result.unwrap_or(Err(Refusal::StoreUnavailable))).collect()
}

/// The places of joins; `None` for all other operations.
async fn place(shared: &Shared, now_ms: u64, batch: &[RoomStep]) -> Result<Vec<Option<Place>>, Refusal> {
    let joins = |step: &&RoomStep| step.request == RoomRequest::Join;
    let arrival = |step: &RoomStep| Arrival { queue: step.queue.id.clone(), actor: step.actor.clone() };
    let arrivals: Vec<Arrival> = batch.iter().filter(joins).map(arrival).collect();
    if arrivals.is_empty() {
        return Ok(vec![None; batch.len()]);
    }
    let placed = shared.admission.place(&shared.config.kind, now_ms, &arrivals).await;
    let mut placed = placed.filter(|placed| placed.len() == arrivals.len()).ok_or(Refusal::PolicyFailed)?.into_iter();
    Ok(batch.iter().map(|step| if step.request == RoomRequest::Join { placed.next() } else { None }).collect())
}

/// Applies the operations of one queue, in order.
async fn apply(
    shared: &Shared,
    queue: &Queue,
    now_ms: u64,
    ops_of: Vec<Placed>,
) -> (Vec<usize>, Vec<Result<StepResult, Refusal>>) {
    let indexes: Vec<usize> = ops_of.iter().map(|(index, ..)| *index).collect();
    let length = ops_of.len();
    for _ in 0..2 {
        let seed = queue.seed();
        let ops = ops_of.iter().map(|(_, op, place)| placed(shared, op, *place, &seed)).collect();
        let config = &shared.config;
        let times = shared.times();
        let steady_ms = times.now_ms;
        let batch = RoomBatch { seed, times, waiting_max: config.waiting_max, ops };
        match shared.store.apply_room(&config.kind, &queue.id, batch).await {
            Ok(RoomCommit::Done(results, figures)) => {
                shared.served();
                queue.observe(figures, steady_ms, config.capacity);
                wake(queue, &results, figures, config.capacity);
                let by_lottery = ops_of.iter().map(|(_, _, place)| matches!(place, Some(Place::Draw { .. })));
                let result_of = |(result, by_lottery)| Ok(StepResult { result, figures, seed, now_ms, by_lottery });
                return (indexes, results.into_iter().zip(by_lottery).map(result_of).collect());
            }
            Ok(RoomCommit::OtherLife) => {
                if let Err(refusal) = shared.reopen(queue).await {
                    return (indexes, vec![Err(refusal); length]);
                }
            }
            Err(error) => return (indexes, vec![Err(shared.refusal(&error)); length]),
        }
    }
    (indexes, vec![Err(RoomRefusal::QueueMissing.into()); length])
}

/// The operation, with its place.
fn placed(shared: &Shared, op: &RoomOp, place: Option<Place>, seed: &[u8; 32]) -> RoomOp {
    let through_ms = (shared.config.mode == RoomMode::PassThrough).then_some(THROUGH_MS);
    let verb = match place {
        Some(Place::Line(lane)) => RoomVerb::Join { lane, lottery_rank: None, through_ms },
        Some(Place::Draw(lane)) => RoomVerb::Join { lane, lottery_rank: Some(rank(seed, &op.actor)), through_ms },
        _ => op.verb,
    };
    RoomOp { verb, ..op.clone() }
}

/// Wakes the clock where it can admit at once: after the end of a stay, and after an arrival while there is capacity.
fn wake(queue: &Queue, results: &[RoomResult], figures: RoomFigures, capacity: u64) {
    let matters = |result: &RoomResult| {
        matches!(result, RoomResult::Ended { is_new: true, .. } | RoomResult::Waiting { is_new: true, .. })
    };
    if figures.waiting > 0 && figures.active < capacity && results.iter().any(matters) {
        queue.wake.notify_one();
    }
}
