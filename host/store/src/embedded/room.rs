//! Waiting rooms of the embedded store: all in memory, every change of a place on disk before a reply.
//!
//! ```text
//! rooms  'q' kind 0 queue 0            → seed, number, draws, totals
//!        'p' kind 0 queue 0 actor      → person
//!        'd' kind 0 queue 0 place      → actor of the draw, tagged
//! ```
//! Ids are tagged texts, which hold no 0 byte. The times at which people were seen, and the reasons of ended places, are in
//! memory only: after a restart everybody has the whole grace period again. The queue's own time stands still while no host runs.
//!
//! - `queue`: one queue. `ranked`: places and ranks. `record`: records on disk.

mod queue;
mod ranked;
mod record;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use fjall::Readable;

use self::queue::{Changes, Queue};
use super::EmbeddedStore;
use super::layout::{Space, Spaces, damaged, failed};
use super::read::Seen;
use super::transaction::Transaction;
use crate::StoreError;
use crate::queues::{Opened, Opening, Queues, RoomBatch, RoomCommit, RoomResult, RoomTick, Ticked};
use crate::text::untagged;
use weir_core::model::Id;

/// All queues, by kind.
#[derive(Default)]
pub(super) struct Rooms(HashMap<String, BTreeMap<Id, Queue>>);

/// Shared by the writer's jobs and by readers.
pub(super) type SharedRooms = Arc<Mutex<Rooms>>;

impl Rooms {
    fn queue(&mut self, kind: &str, queue: &Id) -> Option<&mut Queue> {
        self.0.get_mut(kind)?.get_mut(queue)
    }

    /// Of that life.
    fn of_life(&mut self, (kind, queue): (&str, &Id), seed: [u8; 32]) -> Option<&mut Queue> {
        self.queue(kind, queue).filter(|queue| queue.seed == seed)
    }
}

/// Held for microseconds, and never across an await.
fn lock(rooms: &SharedRooms) -> MutexGuard<'_, Rooms> {
    rooms.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads the queues from disk. A waiting person counts as seen when the queue is first used.
pub(super) fn restore(spaces: &Spaces) -> Result<Rooms, StoreError> {
    let mut rooms = Rooms::default();
    let snapshot = spaces.snapshot();
    let space = spaces.of(Space::Rooms);
    for guard in snapshot.prefix(space, b"q") {
        let (key, value) = guard.into_inner().map_err(failed)?;
        let ((kind, queue), _) = record::parts(&key).ok_or_else(|| damaged("a queue"))?;
        let read = record::decode_queue(&value).ok_or_else(|| damaged("a queue"))?;
        rooms.0.entry(kind).or_default().insert(queue, read);
    }
    for guard in snapshot.prefix(space, b"p") {
        let (key, value) = guard.into_inner().map_err(failed)?;
        let ((kind, queue), rest) = record::parts(&key).ok_or_else(|| damaged("a person in a queue"))?;
        let person = untagged(rest).and_then(|actor| record::decode_person(actor, &value));
        let person = person.ok_or_else(|| damaged("a person in a queue"))?;
        rooms.queue(&kind, &queue).ok_or_else(|| damaged("a queue"))?.restore(person);
    }
    Ok(rooms)
}

/// Writes the changes of a queue.
fn write(transaction: &mut Transaction<'_>, (kind, id): (&str, &Id), queue: &mut Queue, changes: Changes) {
    queue.note_written();
    for (actor, person) in &changes.people {
        let key = record::person_key(kind, id, actor);
        match person {
            Some(person) => transaction.put(Space::Rooms, key, &record::encode_person(person)),
            None => transaction.delete(Space::Rooms, key),
        }
    }
    for (place, actor) in &changes.draws {
        transaction.put(Space::Rooms, record::draw_key(kind, id, *place), &record::actor(actor));
    }
    transaction.put(Space::Rooms, record::queue_key(kind, id), &record::encode_queue(queue));
}

/// Deletes an empty queue and its remains from disk.
fn forget(transaction: &mut Transaction<'_>, kind: &str, id: &Id) -> Result<(), StoreError> {
    let (spaces, snapshot) = transaction.committed();
    for what in [b'p', b'd'] {
        for guard in snapshot.prefix(spaces.of(Space::Rooms), record::prefix(what, kind, id)) {
            let key = guard.key().map_err(failed)?;
            transaction.delete(Space::Rooms, key.to_vec());
        }
    }
    transaction.delete(Space::Rooms, record::queue_key(kind, id));
    Ok(())
}

/// See [`Queues::open_room`].
fn open(
    transaction: &mut Transaction<'_>,
    rooms: &SharedRooms,
    (kind, id): (&str, &Id),
    opening: Opening,
) -> Result<Opened, StoreError> {
    let mut rooms = lock(rooms);
    let queues = rooms.0.entry(kind.to_owned()).or_default();
    if let Some(known) = queues.get_mut(id) {
        known.used_ms = known.used_ms.max(opening.now_ms);
        return Ok(Opened::Open(known.seed));
    }
    if queues.len() >= opening.queues_max {
        let idle = |queue: &Queue| {
            let figures = queue.figures();
            figures.waiting + figures.active == 0 && queue.used_ms.saturating_add(opening.idle_ms) <= opening.now_ms
        };
        let unused = queues.iter().filter(|(_, queue)| idle(queue)).min_by_key(|(_, queue)| queue.used_ms);
        let Some(unused) = unused.map(|(id, _)| id.clone()) else {
            return Ok(Opened::Full);
        };
        forget(transaction, kind, &unused)?;
        queues.remove(&unused);
    }
    let mut queue = Queue::new(opening.seed);
    queue.used_ms = opening.now_ms;
    write(transaction, (kind, id), &mut queue, Changes::default());
    queues.insert(id.clone(), queue);
    Ok(Opened::Open(opening.seed))
}

/// Answers a batch that needs no write; `None` where it does.
fn peek(rooms: &SharedRooms, (kind, id): (&str, &Id), batch: &RoomBatch) -> Option<Seen<RoomCommit>> {
    let mut rooms = lock(rooms);
    let Some(queue) = rooms.of_life((kind, id), batch.seed) else {
        return Some(Seen { value: RoomCommit::OtherLife, group: 0 });
    };
    let now_ms = queue.pass(&batch.times).now_ms;
    let one = |op: &crate::RoomOp| queue.peek((&op.actor, op.number, op.verb), now_ms);
    let results: Vec<RoomResult> = batch.ops.iter().map(one).collect::<Option<_>>()?;
    // Show a place at once: a crash can only improve it. Show an end only once it is on disk.
    let all_wait = results.iter().all(|result| matches!(result, RoomResult::Waiting { .. }));
    let group = if all_wait { 0 } else { queue.group };
    Some(Seen { value: RoomCommit::Done(results, queue.figures()), group })
}

#[async_trait]
impl Queues for EmbeddedStore {
    async fn open_room(&self, kind: &str, queue: &Id, opening: Opening) -> Result<Opened, StoreError> {
        self.saw(opening.now_ms);
        let (kind, queue, rooms) = (kind.to_owned(), queue.clone(), Arc::clone(&self.rooms));
        self.write(move |transaction, _, _| open(transaction, &rooms, (&kind, &queue), opening)).await
    }

    async fn room_queues(&self, kind: &str) -> Result<Vec<Id>, StoreError> {
        Ok(lock(&self.rooms).0.get(kind).map(|queues| queues.keys().cloned().collect()).unwrap_or_default())
    }

    async fn apply_room(&self, kind: &str, queue: &Id, batch: RoomBatch) -> Result<RoomCommit, StoreError> {
        self.saw(batch.times.now_ms);
        if let Some(seen) = peek(&self.rooms, (kind, queue), &batch) {
            return self.once_written(seen).await;
        }
        let (kind, id, rooms) = (kind.to_owned(), queue.clone(), Arc::clone(&self.rooms));
        self.write(move |transaction, state, _| {
            let mut rooms = lock(&rooms);
            let Some(queue) = rooms.of_life((&kind, &id), batch.seed) else {
                return Ok(RoomCommit::OtherLife);
            };
            let times = queue.pass(&batch.times);
            let mut changes = Changes::default();
            let one = |op: &crate::RoomOp| {
                queue.apply((&op.actor, op.number, op.verb), times, batch.waiting_max, &mut changes)
            };
            let results = batch.ops.iter().map(one).collect();
            if !changes.is_empty() {
                queue.group = state.group;
                queue.used_ms = queue.used_ms.max(batch.times.now_ms);
                write(transaction, (&kind, &id), queue, changes);
            }
            Ok(RoomCommit::Done(results, queue.figures()))
        })
        .await
    }

    async fn tick_room(&self, kind: &str, queue: &Id, tick: RoomTick) -> Result<Ticked, StoreError> {
        self.saw(tick.times.now_ms);
        let (kind, id, rooms) = (kind.to_owned(), queue.clone(), Arc::clone(&self.rooms));
        self.write(move |transaction, state, _| {
            let mut rooms = lock(&rooms);
            let Some(queue) = rooms.of_life((&kind, &id), tick.seed) else {
                return Ok(Ticked::OtherLife);
            };
            let mut changes = Changes::default();
            let (admitted, is_more) = queue.tick(&tick, &mut changes);
            if !changes.is_empty() {
                queue.group = state.group;
                queue.used_ms = queue.used_ms.max(tick.times.now_ms);
            }
            if !changes.is_empty() || queue.is_time_to_write() {
                write(transaction, (&kind, &id), queue, changes);
            }
            Ok(Ticked::Done { admitted, is_more, figures: queue.figures() })
        })
        .await
    }

    async fn room_entrants(&self, kind: &str, queue: &Id, skip: u64, limit: usize) -> Result<Vec<Id>, StoreError> {
        let (from, prefix) = (record::draw_key(kind, queue, skip), record::prefix(b'd', kind, queue));
        let spaces = self.spaces.get()?;
        let read = move || {
            let until = [&prefix[..], &[0xff; 9]].concat();
            let snapshot = spaces.snapshot();
            let range = snapshot.range(spaces.of(Space::Rooms), from..until).take(limit);
            range
                .map(|guard| {
                    let (_, value) = guard.into_inner().map_err(failed)?;
                    untagged(&value).ok_or_else(|| damaged("a draw"))
                })
                .collect()
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }
}
