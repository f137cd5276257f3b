//! One read of a key at a time. Who comes second waits for the first; how many wait is bounded, how long is up to them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::telemetry::SHED_TOTAL;

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

/// A place in the reading of a key.
pub enum Seat {
    /// Read it.
    Lead(Lead),
    /// Wait for who does.
    Wait(Wait),
    /// Too many wait.
    Full,
}

type Under = Arc<Mutex<HashMap<Box<str>, watch::Receiver<Option<Flown>>>>>;

/// The reads that are under way.
pub(super) struct Flights {
    under: Under,
    waits: Arc<Semaphore>,
}

/// The right, and the duty, to read a key. Dropped without [`Lead::land`], those who wait are told that it was lost.
pub struct Lead {
    key: Box<str>,
    under: Under,
    landing: watch::Sender<Option<Flown>>,
    has_landed: bool,
}

/// See [`Seat::Wait`].
pub struct Wait {
    landing: watch::Receiver<Option<Flown>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Flights {
    pub(super) fn new(waiters_max: usize) -> Self {
        let waits = Arc::new(Semaphore::new(waiters_max.min(Semaphore::MAX_PERMITS)));
        Self { under: Arc::default(), waits }
    }

    pub(super) fn seat(&self, key: &str) -> Seat {
        let mut under = self.under.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(landing) = under.get(key) {
            return match Arc::clone(&self.waits).try_acquire_owned() {
                Ok(place) => Seat::Wait(Wait { landing: landing.clone(), _place: Some(place) }),
                Err(_) => {
                    counter!(SHED_TOTAL, "limit" => "cache.waiters_max").increment(1);
                    Seat::Full
                }
            };
        }
        let (landing, landed) = watch::channel(None);
        under.insert(key.into(), landed);
        Seat::Lead(Lead { key: key.into(), under: Arc::clone(&self.under), landing, has_landed: false })
    }
}

impl Lead {
    /// Waits for it as the others do: for whoever wants a part of what is read for all. One for each reading, so it takes no
    /// place of those who wait.
    pub fn wait(&self) -> Wait {
        Wait { landing: self.landing.subscribe(), _place: None }
    }

    /// It was read; those who wait go on. What is kept must be in the cache by now.
    pub fn land(mut self, flown: Flown) {
        // Before they hear of it: who comes now begins anew.
        self.leave();
        let _ = self.landing.send(Some(flown));
    }

    fn leave(&mut self) {
        if !self.has_landed {
            self.has_landed = true;
            self.under.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Wait {
    /// How it ended.
    pub async fn landed(mut self) -> Flown {
        match self.landing.wait_for(Option::is_some).await {
            Ok(flown) => flown.unwrap_or(Flown::Lost),
            Err(_) => Flown::Lost,
        }
    }
}
