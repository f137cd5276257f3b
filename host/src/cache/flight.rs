//! One read of a key at a time. Who comes second waits for the first, and may be told what has come so far; how many wait is
//! bounded, how long is up to them.
//!
//! Nobody's wait ends in a herd: those who must read for themselves after all go a few at a time, and each that has its
//! answer lets a few more go. So a crowd is through after a few answers of the origin, which never has more to do than it
//! shows it can do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::telemetry::SHED_TOTAL;

/// How many go at first of those who have waited in vain.
const TURNS_FIRST: usize = 4;
/// How many more each of them lets go.
const TURNS_MORE: usize = 2;

/// How a read ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flown {
    /// What was read is in the cache: look again.
    Kept,
    /// It is for one reader only: everybody reads for himself.
    Unshared,
    /// It could not be read.
    Failed,
    /// Whoever read was dropped.
    Lost,
}

/// What is to be seen of a read by those who wait for it.
#[derive(Debug, Clone)]
pub enum Seen<S> {
    /// It has begun to come, and goes on.
    Coming(S),
    /// It has ended.
    Landed(Flown),
}

/// A place in the reading of a key. `S` is what a read shows while it goes on.
pub enum Seat<S = ()> {
    /// Read it.
    Lead(Lead<S>),
    /// Wait for who does.
    Wait(Wait<S>),
    /// Too many wait.
    Full,
}

/// One reading: `None` until there is something to be seen.
struct Flight<S> {
    seen: watch::Receiver<Option<Seen<S>>>,
    turns: Arc<Semaphore>,
}

type Under<S> = Arc<Mutex<HashMap<Box<str>, Flight<S>>>>;

/// The reads that are under way.
pub(super) struct Flights<S> {
    under: Under<S>,
    waits: Arc<Semaphore>,
}

/// The right, and the duty, to read a key. Dropped without [`Lead::land`], those who wait are told that it was lost.
pub struct Lead<S = ()> {
    place: Place<S>,
    show: watch::Sender<Option<Seen<S>>>,
}

/// See [`Seat::Wait`].
pub struct Wait<S = ()> {
    place: Place<S>,
    seen: watch::Receiver<Option<Seen<S>>>,
    is_early: bool,
    _permit: Option<OwnedSemaphorePermit>,
}

/// Where a reading stands.
struct Place<S> {
    key: Box<str>,
    under: Under<S>,
    /// No other reading has the same.
    turns: Arc<Semaphore>,
}

/// The turn of one who has waited in vain; a few more go when it is dropped.
pub struct Turn(Arc<Semaphore>);

impl<S> Clone for Place<S> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), under: Arc::clone(&self.under), turns: Arc::clone(&self.turns) }
    }
}

impl<S> Place<S> {
    /// Who comes now begins anew.
    fn leave(&self) {
        let mut under = self.under.lock().unwrap_or_else(PoisonError::into_inner);
        if under.get(&self.key).is_some_and(|flight| Arc::ptr_eq(&flight.turns, &self.turns)) {
            under.remove(&self.key);
        }
    }
}

impl<S: Clone> Flights<S> {
    pub(super) fn new(waiters_max: usize) -> Self {
        let waits = Arc::new(Semaphore::new(waiters_max.min(Semaphore::MAX_PERMITS)));
        Self { under: Arc::default(), waits }
    }

    pub(super) fn seat(&self, key: &str) -> Seat<S> {
        let mut under = self.under.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = under.get(key) {
            return match Arc::clone(&self.waits).try_acquire_owned() {
                Ok(permit) => Seat::Wait(Wait {
                    is_early: flight.seen.borrow().is_none(),
                    seen: flight.seen.clone(),
                    place: Place { key: key.into(), under: Arc::clone(&self.under), turns: Arc::clone(&flight.turns) },
                    _permit: Some(permit),
                }),
                Err(_) => {
                    counter!(SHED_TOTAL, "limit" => "cache.waiters_max").increment(1);
                    Seat::Full
                }
            };
        }
        let (show, seen) = watch::channel(None);
        let turns = Arc::new(Semaphore::new(TURNS_FIRST));
        under.insert(key.into(), Flight { seen, turns: Arc::clone(&turns) });
        Seat::Lead(Lead { place: Place { key: key.into(), under: Arc::clone(&self.under), turns }, show })
    }
}

impl<S> Lead<S> {
    /// Waits for it as the others do: for whoever wants a part of what is read for all. One for each reading, so it takes no
    /// place of those who wait.
    pub fn wait(&self) -> Wait<S> {
        Wait { place: self.place.clone(), seen: self.show.subscribe(), is_early: true, _permit: None }
    }

    /// It begins to come: those who wait may be told what there is, and what follows.
    pub fn show(&self, coming: S) {
        // Whoever comes now finds it, too.
        self.show.send_replace(Some(Seen::Coming(coming)));
    }

    /// It was read; those who wait go on. What is kept must be in the cache by now.
    pub fn land(self, flown: Flown) {
        // Before they hear of it: who comes now begins anew.
        self.place.leave();
        self.show.send_replace(Some(Seen::Landed(flown)));
    }
}

impl<S> Drop for Lead<S> {
    fn drop(&mut self) {
        self.place.leave();
    }
}

impl<S: Clone> Wait<S> {
    /// Whether it began to wait before anything was to be seen: what comes was read after it asked.
    pub fn is_early(&self) -> bool {
        self.is_early
    }

    /// What is to be seen as soon as there is something.
    pub async fn seen(&mut self) -> Seen<S> {
        match self.seen.wait_for(Option::is_some).await {
            Ok(seen) => seen.clone().unwrap_or(Seen::Landed(Flown::Lost)),
            Err(_) => Seen::Landed(Flown::Lost),
        }
    }

    /// How it ended.
    pub async fn landed(&mut self) -> Flown {
        match self.seen.wait_for(|seen| matches!(seen, Some(Seen::Landed(_)))).await.as_deref() {
            Ok(Some(Seen::Landed(flown))) => *flown,
            _ => Flown::Lost,
        }
    }

    /// What comes is good for nobody who asks now: they begin anew.
    pub fn unseat(&self) {
        self.place.leave();
    }

    /// The turn to read by oneself, after a wait in vain.
    pub async fn turn(&self) -> Turn {
        if let Ok(permit) = self.place.turns.acquire().await {
            permit.forget();
        }
        Turn(Arc::clone(&self.place.turns))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.add_permits(TURNS_MORE);
    }
}
