//! The open database, which can be closed and opened again while the host runs.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use metrics::gauge;

use super::layout::Spaces;
use crate::{Refusing, StoreError};
use weir_core::telemetry::STORE_REFUSING;

/// How long to wait for readers before closing the database.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// Free disk space that reopening the database needs, in bytes: the size of the unwritten data in memory.
const PROBE_BYTES: usize = 8 << 20;
/// File handles that must be available.
const PROBE_FILES: usize = 32;
const PROBE_FILE: &str = "weir.probe";

/// Access to the open database. Between a failure and its recovery there may be none.
#[derive(Clone)]
pub(super) struct DatabaseHandle(Arc<RwLock<Option<Arc<Spaces>>>>);

impl DatabaseHandle {
    pub(super) fn new(spaces: Spaces) -> Self {
        Self(Arc::new(RwLock::new(Some(Arc::new(spaces)))))
    }

    pub(super) fn get(&self) -> Result<Arc<Spaces>, StoreError> {
        let held = self.0.read().unwrap_or_else(PoisonError::into_inner);
        held.clone()
            .ok_or_else(|| StoreError::Refused("the embedded store is being opened again after a failure".into()))
    }

    pub(super) fn put(&self, spaces: Spaces) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(spaces));
    }

    /// Closes the database, once no reader uses it.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        let taken = self.0.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut spaces) = taken else { return Ok(()) };
        let start = Instant::now();
        loop {
            match Arc::try_unwrap(spaces) {
                Ok(only) => {
                    drop(only);
                    return Ok(());
                }
                Err(shared) => spaces = shared,
            }
            if start.elapsed() > CLOSE_WAIT {
                *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(spaces);
                return Err(StoreError::Unavailable("the embedded store is still being read".into()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Whether the disk accepts writes again, and files can be opened. Tested before the old database is given up.
pub(super) fn probe(directory: &Path) -> io::Result<()> {
    let files: Vec<File> = (0..PROBE_FILES).map(|_| File::open(directory)).collect::<io::Result<_>>()?;
    let path = directory.join(PROBE_FILE);
    let written = (|| {
        let mut file = File::create(&path)?;
        // No zeros: a file system may store those as holes.
        file.write_all(&vec![0x5a; PROBE_BYTES])?;
        file.sync_all()
    })();
    drop(files);
    let removed = std::fs::remove_file(&path);
    written.and(removed)
}

/// Since when the store refuses writes, and why.
#[derive(Debug, Clone, Default)]
pub(super) struct Health(Arc<Mutex<Option<Refusing>>>);

impl Health {
    /// The store refuses writes from now on, if it did not before.
    pub(super) fn refuse(&self, reason: &str) {
        let mut refusing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = refusing.as_ref().map_or_else(Instant::now, |refusing| refusing.since);
        *refusing = Some(Refusing { since, reason: reason.into() });
        gauge!(STORE_REFUSING).set(1.0);
    }

    /// The store works again. Returns how long it did not.
    pub(super) fn recover(&self) -> Option<Duration> {
        gauge!(STORE_REFUSING).set(0.0);
        let refusing = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        refusing.map(|refusing| refusing.since.elapsed())
    }

    pub(super) fn refusing(&self) -> Option<Refusing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
