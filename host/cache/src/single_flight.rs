//! Single flight: one load of a key at a time. The leader loads; the waiters share its result, and may follow the load while it
//! goes on. The number of waiters is bounded; they decide how long they wait.
//!
//! No failed load ends in a stampede: waiters that must load for themselves after all go a few at a time, and each one that
//! has its answer releases a few more. A crowd is through after a few answers of the origin, and the origin never gets more
//! requests than it shows it can answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use weir_core::telemetry::SHED_TOTAL;

/// Waiters that go first after a load that they cannot use.
const TURNS_FIRST: usize = 4;
/// Further waiters that each of them releases.
const TURNS_MORE: usize = 2;

/// How a load ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadResult {
    /// The result is in the cache: look again.
    Cached,
    /// The result is for its reader only: every waiter loads for itself.
    Private,
    /// The load failed.
    Failed,
    /// The leader was dropped.
    Abandoned,
}

/// What waiters see of a load.
#[derive(Debug, Clone)]
pub enum Progress<S> {
    /// The result has begun to arrive.
    Streaming(S),
    /// The load has ended.
    Done(LoadResult),
}

/// The caller's part in the load of a key. `S` is what the leader publishes while the load goes on.
pub enum Join<S = ()> {
    /// Load it.
    Leader(Leader<S>),
    /// Another caller loads it: wait.
    Waiter(Waiter<S>),
    /// Too many callers wait.
    Full,
}

/// One load: `None` until the leader publishes something.
struct Load<S> {
    progress: watch::Receiver<Option<Progress<S>>>,
    turns: Arc<Semaphore>,
}

type Loads<S> = Arc<Mutex<HashMap<Box<str>, Load<S>>>>;

/// The loads in flight.
pub(super) struct SingleFlight<S> {
    loads: Loads<S>,
    waiters: Arc<Semaphore>,
}

/// The right, and the duty, to load a key. When it is dropped without [`Leader::finish`], the waiters learn that the load was
/// abandoned.
pub struct Leader<S = ()> {
    slot: Slot<S>,
    progress: watch::Sender<Option<Progress<S>>>,
}

/// See [`Join::Waiter`].
pub struct Waiter<S = ()> {
    slot: Slot<S>,
    progress: watch::Receiver<Option<Progress<S>>>,
    is_early: bool,
    _permit: Option<OwnedSemaphorePermit>,
}

/// Where a load is registered.
struct Slot<S> {
    key: Box<str>,
    loads: Loads<S>,
    /// Identifies the load: no other load has the same.
    turns: Arc<Semaphore>,
}

/// The turn of one waiter to load for itself; releases a few more when it is dropped.
pub struct Turn(Arc<Semaphore>);

impl<S> Clone for Slot<S> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), loads: Arc::clone(&self.loads), turns: Arc::clone(&self.turns) }
    }
}

impl<S> Slot<S> {
    /// Unregisters the load: the next caller starts a new one.
    fn release(&self) {
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        if loads.get(&self.key).is_some_and(|load| Arc::ptr_eq(&load.turns, &self.turns)) {
            loads.remove(&self.key);
        }
    }
}

impl<S: Clone> SingleFlight<S> {
    pub(super) fn new(waiters_max: usize) -> Self {
        let waiters = Arc::new(Semaphore::new(waiters_max.min(Semaphore::MAX_PERMITS)));
        Self { loads: Arc::default(), waiters }
    }

    pub(super) fn join(&self, key: &str) -> Join<S> {
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(load) = loads.get(key) {
            return match Arc::clone(&self.waiters).try_acquire_owned() {
                Ok(permit) => Join::Waiter(Waiter {
                    is_early: load.progress.borrow().is_none(),
                    progress: load.progress.clone(),
                    slot: Slot { key: key.into(), loads: Arc::clone(&self.loads), turns: Arc::clone(&load.turns) },
                    _permit: Some(permit),
                }),
                Err(_) => {
                    counter!(SHED_TOTAL, "limit" => "cache.waiters_max").increment(1);
                    Join::Full
                }
            };
        }
        let (sender, progress) = watch::channel(None);
        let turns = Arc::new(Semaphore::new(TURNS_FIRST));
        loads.insert(key.into(), Load { progress, turns: Arc::clone(&turns) });
        Join::Leader(Leader { slot: Slot { key: key.into(), loads: Arc::clone(&self.loads), turns }, progress: sender })
    }
}

impl<S> Leader<S> {
    /// Waits for this load as the others do, for a caller that wants only a part of the result. There is one per load, so it
    /// does not count as a waiter.
    pub fn subscribe(&self) -> Waiter<S> {
        Waiter { slot: self.slot.clone(), progress: self.progress.subscribe(), is_early: true, _permit: None }
    }

    /// The result begins to arrive: waiters may be served what there is, and the rest as it comes.
    pub fn publish(&self, streaming: S) {
        // `send_replace` also reaches later subscribers.
        self.progress.send_replace(Some(Progress::Streaming(streaming)));
    }

    /// The load has ended; the waiters go on. A result to be cached must be in the cache by now.
    pub fn finish(self, result: LoadResult) {
        // Release before publishing: a caller that comes now starts a new load.
        self.slot.release();
        self.progress.send_replace(Some(Progress::Done(result)));
    }
}

impl<S> Drop for Leader<S> {
    fn drop(&mut self) {
        self.slot.release();
    }
}

impl<S: Clone> Waiter<S> {
    /// Whether it began to wait before the result began to arrive: the result is then not older than its request.
    pub fn is_early(&self) -> bool {
        self.is_early
    }

    /// The first progress, as soon as there is some.
    pub async fn progress(&mut self) -> Progress<S> {
        match self.progress.wait_for(Option::is_some).await {
            Ok(progress) => progress.clone().unwrap_or(Progress::Done(LoadResult::Abandoned)),
            Err(_) => Progress::Done(LoadResult::Abandoned),
        }
    }

    /// How the load ended.
    pub async fn result(&mut self) -> LoadResult {
        match self.progress.wait_for(|progress| matches!(progress, Some(Progress::Done(_)))).await.as_deref() {
            Ok(Some(Progress::Done(result))) => *result,
            _ => LoadResult::Abandoned,
        }
    }

    /// Unregisters the load, because its result is of no use to later callers: the next one starts a new load.
    pub fn release(&self) {
        self.slot.release();
    }

    /// Waits for the turn to load for itself, after a load that it cannot use.
    pub async fn turn(&self) -> Turn {
        if let Ok(permit) = self.slot.turns.acquire().await {
            permit.forget();
        }
        Turn(Arc::clone(&self.slot.turns))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.add_permits(TURNS_MORE);
    }
}
