//! One batch: one policy call for those who arrive, one store step for each queue.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;

use super::draw::lot;
use super::queue::Queue;
use super::shared::Shared;
use crate::config::RoomMode;
use crate::error::{Refusal, RoomRefusal};
use crate::model::{Arrival, Id, Place};
use crate::store::{RoomBatch, RoomCommit, RoomFigures, RoomOp, RoomResult, RoomVerb};

/// How long somebody stays who passes through, in milliseconds.
const THROUGH_MS: u64 = 300_000;

/// What is asked for somebody.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Ask {
    /// A place.
    Join,
    /// Something about the arrival with this number.
    About(u64, RoomVerb),
}

/// One operation.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) queue: Arc<Queue>,
    pub(super) actor: Id,
    pub(super) ask: Ask,
}

/// What came of it.
#[derive(Clone, Copy)]
pub(super) struct Told {
    pub(super) result: RoomResult,
    pub(super) figures: RoomFigures,
    /// The queue's life that it is of.
    pub(super) seed: [u8; 32],
    pub(super) now_ms: u64,
    /// The rules place whoever arrives now by lot; of joins.
    pub(super) by_lot: bool,
}

/// Its index in the batch, the operation, and the place of whoever joins.
type Placed = (usize, RoomOp, Option<Place>);

/// Index-aligned with the batch.
pub(super) async fn run(shared: Arc<Shared>, batch: Vec<Asked>) -> Vec<Result<Told, Refusal>> {
    let now_ms = shared.clock.now_ms();
    let places = match place(&shared, now_ms, &batch).await {
        Ok(places) => places,
        Err(refusal) => return vec![Err(refusal); batch.len()],
    };
    let mut results: Vec<Option<Result<Told, Refusal>>> = vec![None; batch.len()];
    let mut by_queue: HashMap<Id, (Arc<Queue>, Vec<Placed>)> = HashMap::new();
    for (index, (asked, place)) in batch.into_iter().zip(places).enumerate() {
        let Asked { queue, actor, ask } = asked;
        if place == Some(Place::Refuse) {
            results[index] = Some(Err(Refusal::Denied));
            continue;
        }
        let (number, verb) = match ask {
            Ask::Join => (0, RoomVerb::Join { lane: 0, lot: None, through_ms: None }),
            Ask::About(number, verb) => (number, verb),
        };
        let (_, ops) = by_queue.entry(queue.id.clone()).or_insert_with(|| (queue, Vec::new()));
        ops.push((index, RoomOp { actor, number, verb }, place));
    }
    let steps = by_queue.into_values().map(|(queue, ops)| {
        let shared = &shared;
        async move {
            let (indexes, told) = apply(shared, &queue, now_ms, ops).await;
            indexes.into_iter().zip(told).collect::<Vec<_>>()
        }
    });
    for (index, told) in join_all(steps).await.into_iter().flatten() {
        results[index] = Some(told);
    }
    results.into_iter().map(|told| told.unwrap_or(Err(Refusal::StoreUnavailable))).collect()
}

/// Where those who join are placed; `None` for everybody else.
async fn place(shared: &Shared, now_ms: u64, batch: &[Asked]) -> Result<Vec<Option<Place>>, Refusal> {
    let joins = |asked: &&Asked| asked.ask == Ask::Join;
    let arrival = |asked: &Asked| Arrival { queue: asked.queue.id.clone(), actor: asked.actor.clone() };
    let arrivals: Vec<Arrival> = batch.iter().filter(joins).map(arrival).collect();
    if arrivals.is_empty() {
        return Ok(vec![None; batch.len()]);
    }
    let placed = shared.admission.place(&shared.config.kind, now_ms, &arrivals).await;
    let mut placed = placed.filter(|placed| placed.len() == arrivals.len()).ok_or(Refusal::PolicyFailed)?.into_iter();
    Ok(batch.iter().map(|asked| if asked.ask == Ask::Join { placed.next() } else { None }).collect())
}

/// The operations of one queue, in order.
async fn apply(
    shared: &Shared,
    queue: &Queue,
    now_ms: u64,
    ops_of: Vec<Placed>,
) -> (Vec<usize>, Vec<Result<Told, Refusal>>) {
    let indexes: Vec<usize> = ops_of.iter().map(|(index, ..)| *index).collect();
    let length = ops_of.len();
    for _ in 0..2 {
        let seed = queue.seed();
        let ops = ops_of.iter().map(|(_, op, place)| placed(shared, op, *place, &seed)).collect();
        let config = &shared.config;
        let times = shared.times();
        let steady_ms = times.now_ms;
        let batch = RoomBatch { seed, times, waiting_max: config.waiting_max, ops };
        match shared.store.rooms().apply_room(&config.kind, &queue.id, batch).await {
            Ok(RoomCommit::Done(results, figures)) => {
                shared.served();
                queue.observe(figures, steady_ms, config.capacity);
                wake(queue, &results, figures, config.capacity);
                let by_lot = ops_of.iter().map(|(_, _, place)| matches!(place, Some(Place::Draw { .. })));
                let told = |(result, by_lot)| Ok(Told { result, figures, seed, now_ms, by_lot });
                return (indexes, results.into_iter().zip(by_lot).map(told).collect());
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
        Some(Place::Line(lane)) => RoomVerb::Join { lane, lot: None, through_ms },
        Some(Place::Draw(lane)) => RoomVerb::Join { lane, lot: Some(lot(seed, &op.actor)), through_ms },
        _ => op.verb,
    };
    RoomOp { verb, ..op.clone() }
}

/// A stay that ended is given on at once, and whoever comes while there is space is let in at once.
fn wake(queue: &Queue, results: &[RoomResult], figures: RoomFigures, capacity: u64) {
    let matters = |result: &RoomResult| {
        matches!(result, RoomResult::Ended { is_new: true, .. } | RoomResult::Waiting { is_new: true, .. })
    };
    if figures.waiting > 0 && figures.active < capacity && results.iter().any(matters) {
        queue.wake.notify_one();
    }
}
