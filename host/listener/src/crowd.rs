//! Which connection makes room when a listener is full, or when the process may open no more files.
//!
//! A connection that only waits for its peer (half a head, or none) costs a place and a file, and may last as long as
//! `header_timeout`. Enough of them would shut everyone else out. So when a new connection arrives, the one that has
//! waited longest is evicted. A connection that is being answered is never evicted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::counter;
use rustix::io::Errno;
use tokio::sync::Notify;

use super::turn::Turn;
use crate::telemetry::ACCEPT_FAILURES_TOTAL;

/// How often the log reports a failing accept.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// The open connections of a listener.
#[derive(Default)]
pub(super) struct Crowd(Mutex<Members>);

#[derive(Default)]
struct Members {
    by_number: BTreeMap<u64, (Arc<Turn>, Arc<Eviction>)>,
    last: u64,
}

#[derive(Default)]
struct Eviction {
    is_told: AtomicBool,
    told: Notify,
}

/// A connection's place in the crowd, until it is dropped.
pub(super) struct Place<'a> {
    crowd: &'a Crowd,
    number: u64,
    eviction: Arc<Eviction>,
}

impl Crowd {
    fn lock(&self) -> MutexGuard<'_, Members> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One connection more.
    pub(super) fn enter(&self, turn: &Arc<Turn>) -> Place<'_> {
        let mut members = self.lock();
        members.last += 1;
        let (number, eviction) = (members.last, Arc::new(Eviction::default()));
        members.by_number.insert(number, (Arc::clone(turn), Arc::clone(&eviction)));
        Place { crowd: self, number, eviction }
    }

    /// Evicts the connection that has waited longest for its peer. Returns whether there was one.
    pub(super) fn evict(&self) -> bool {
        let members = self.lock();
        let waits = |(turn, eviction): &(Arc<Turn>, Arc<Eviction>)| {
            let since_ms = turn.waits_since_ms().filter(|_| !eviction.is_told.load(Ordering::Relaxed))?;
            Some((since_ms, Arc::clone(eviction)))
        };
        let oldest = members.by_number.values().filter_map(waits).min_by_key(|(since_ms, _)| *since_ms);
        let Some((_, eviction)) = oldest else { return false };
        eviction.is_told.store(true, Ordering::Relaxed);
        eviction.told.notify_one();
        true
    }
}

impl Place<'_> {
    /// Whether this connection has to make room.
    pub(super) fn is_evicted(&self) -> bool {
        self.eviction.is_told.load(Ordering::Relaxed)
    }

    /// Waits until this connection has to make room.
    pub(super) async fn evicted(&self) {
        self.eviction.told.notified().await;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.crowd.lock().by_number.remove(&self.number);
    }
}

/// Files that are open for nothing, to be closed for a connection when there are no others; and the word about it.
pub(super) struct Spares {
    files: Vec<File>,
    count: usize,
    said: Option<Instant>,
}

impl Spares {
    pub(super) fn new(count: usize) -> Self {
        let mut spares = Self { files: Vec::with_capacity(count), count, said: None };
        spares.refill();
        spares
    }

    /// Takes back what was given, as far as there are files again.
    pub(super) fn refill(&mut self) {
        while self.files.len() < self.count
            && let Ok(file) = File::open("/dev/null")
        {
            self.files.push(file);
        }
    }

    /// After an accept failed: closes one for the next, where that helps. Counts, and says so now and then.
    pub(super) fn give(&mut self, error: &io::Error) -> bool {
        let errno = Errno::from_io_error(error);
        let (cause, advice) = match errno {
            Some(Errno::MFILE) => {
                ("process-files", "raise the limit of open files (ulimit -n) or lower http.connections_max")
            }
            Some(Errno::NFILE) => ("system-files", "the machine has no more open files: raise fs.file-max"),
            _ => ("other", "the listener goes on"),
        };
        counter!(ACCEPT_FAILURES_TOTAL, "cause" => cause).increment(1);
        if self.said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
            self.said = Some(Instant::now());
            tracing::error!(%error, "cannot accept a connection; {advice}");
        }
        matches!(errno, Some(Errno::MFILE | Errno::NFILE)) && self.files.pop().is_some()
    }
}
