//! The queues that this host serves: their seeds, their flow, and the tasks that run their clocks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::clock;
use super::flow::Flow;
use super::lottery::hex;
use super::shared::Shared;
use weir_core::error::{Refusal, RoomRefusal};
use weir_core::model::Id;
use weir_store::{Opened, Opening, RoomFigures};

/// Pause before the next attempt to list the queues of the store, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// One queue.
pub(super) struct Queue {
    pub(super) id: Id,
    seed: Mutex<[u8; 32]>,
    flow: Mutex<Flow>,
    /// Notified on a change that the clock can act on at once.
    pub(super) wake: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    pub(super) fn seed(&self) -> [u8; 32] {
        *lock(&self.seed)
    }

    pub(super) fn flow(&self) -> Flow {
        lock(&self.flow).clone()
    }

    pub(super) fn observe(&self, figures: RoomFigures, now_ms: u64, capacity: u64) {
        lock(&self.flow).observe(figures, now_ms, capacity);
    }
}

/// The name of a life in tokens: the beginning of the seed's hash, which reveals nothing of the seed.
pub(super) fn life(seed: &[u8; 32]) -> String {
    hex(&Sha256::digest(seed)[..8])
}

/// A queue and the task that runs its clock.
type Clocked = (Arc<Queue>, JoinHandle<()>);

/// The queues of a kind on this host, and the tasks that run their clocks. Bounded by the kind's `queues_max`: the clock of a
/// queue that the store no longer has notices that, and ends.
#[derive(Default)]
pub(super) struct LocalQueues {
    known: Arc<Mutex<HashMap<Id, Clocked>>>,
}

impl LocalQueues {
    /// The queue. Creates it in the store, and starts its clock, where this host does not know it yet.
    pub(super) async fn get(&self, shared: &Arc<Shared>, id: &Id) -> Result<Arc<Queue>, Refusal> {
        if let Some((queue, _)) = lock(&self.known).get(id) {
            return Ok(Arc::clone(queue));
        }
        if !shared.config.has_queue(id) {
            return Err(RoomRefusal::QueueMissing.into());
        }
        let seed = shared.open(id).await?;
        let mut known = lock(&self.known);
        let make = || {
            let queue =
                Arc::new(Queue { id: id.clone(), seed: Mutex::new(seed), flow: Mutex::default(), wake: Notify::new() });
            let task = tokio::spawn(run_clock(Arc::clone(shared), Arc::clone(&queue), Arc::downgrade(&self.known)));
            (queue, task)
        };
        Ok(Arc::clone(&known.entry(id.clone()).or_insert_with(make).0))
    }

    /// The queue, if this host knows it.
    pub(super) fn known(&self, id: &Id) -> Option<Arc<Queue>> {
        lock(&self.known).get(id).map(|(queue, _)| Arc::clone(queue))
    }

    /// Stops the clocks, and returns their queues. The leases expire by themselves.
    pub(super) fn stop(&self) -> Vec<Id> {
        let all: Vec<(Id, Clocked)> = lock(&self.known).drain().collect();
        all.into_iter().map(|(id, (_, task))| (task.abort(), id).1).collect()
    }
}

/// Runs a queue's clock, and forgets the queue when the store no longer has it. The next request opens it again.
async fn run_clock(shared: Arc<Shared>, queue: Arc<Queue>, known: Weak<Mutex<HashMap<Id, Clocked>>>) {
    clock::run(shared, Arc::clone(&queue)).await;
    let Some(known) = known.upgrade() else { return };
    let mut known = lock(&known);
    if known.get(&queue.id).is_some_and(|(known, _)| Arc::ptr_eq(known, &queue)) {
        known.remove(&queue.id);
    }
}

impl Shared {
    /// Opens a queue in the store.
    pub(super) async fn open(&self, id: &Id) -> Result<[u8; 32], Refusal> {
        let config = &self.config;
        let opening = Opening {
            seed: rand::random(),
            now_ms: self.clock.steady_ms(),
            queues_max: config.queues_max,
            idle_ms: config.queue_idle_ms.min(config.grace_ms),
        };
        match self.store.open_room(&config.kind, id, opening).await {
            Ok(Opened::Open(seed)) => Ok(seed),
            Ok(Opened::Full) => Err(RoomRefusal::TooManyQueues.into()),
            Err(error) => Err(self.refusal(&error)),
        }
    }

    /// Takes the seed of the new life, after the store has found another life of the queue.
    pub(super) async fn reopen(&self, queue: &Queue) -> Result<(), Refusal> {
        let seed = self.open(&queue.id).await?;
        *lock(&queue.seed) = seed;
        *lock(&queue.flow) = Flow::default();
        Ok(())
    }
}

/// Starts the clocks of the queues that the store knows: they must run even without requests.
pub(super) async fn resume(shared: Arc<Shared>, queues: Arc<LocalQueues>) {
    loop {
        if let Ok(ids) = shared.store.room_queues(&shared.config.kind).await {
            let mut is_whole = true;
            for id in ids.iter().filter(|id| shared.config.has_queue(id)) {
                is_whole &= queues.get(&shared, id).await.is_ok();
            }
            if is_whole {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(RETRY_MS)).await;
    }
}
