//! The embedded store: the journal on disk, the state in memory, in one process; crash safe.
//!
//! Journal, heads and outcomes lie in a log-structured database (fjall); its write-ahead log makes a group of batches atomic
//! and durable. One thread writes (see `writer`): jobs that arrive during a sync form the next group. The state of targets is
//! a cache, kept in memory only, within `store.memory_bytes_max`: after a restart the capabilities load it from SQL again, and
//! the store lays the journal's tail over it. No caller learns of a change before it is on disk.
//!
//! - `roles`: what the store offers. `files`: checks of the files. `headers` of batches. `layout`: keys and records.
//! - In memory: `state` with each `target`, the journal's `tail` and `pending` documents. `handle`: the open database.
//! - `writer`: group commit. `transaction`: the writes of a group. `batch`: what all batches share, with `limits` and
//!   `outcome`. `toggle`, `count`, `create`, `settings`, `hydrate`, `change`: one kind of write each.
//! - `read`: reads. `guest`: policy modules' keys. `room`: waiting rooms. `inventory`: contents and owner.
//!
//! Never merges data of another partition count, never repairs a damaged record.

mod batch;
mod batch_headers;
mod by_id;
mod change;
mod count;
mod create;
mod files;
mod guest;
mod handle;
mod hydrate;
pub(crate) mod inventory;
mod layout;
mod limits;
mod outcome;
mod pending;
mod read;
mod roles;
mod room;
mod settings;
mod state;
mod tail;
mod target;
mod tests;
mod toggle;
mod transaction;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use fjall::Database;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub use self::files::salvage::{DirectoryReport, salvage, verify};

use self::change::Terms;
use self::handle::{DatabaseHandle, Health};
use self::inventory::DirectoryCopy;
use self::layout::{Spaces, failed};
use self::limits::Limits;
use self::read::{Reader, Seen};
use self::room::{Rooms, SharedRooms};
use self::state::State;
use self::transaction::Transaction;
use self::writer::{Desk, Job, Progress, Writer};
use super::{Durability, StoreError};
use weir_core::config::StoreConfig;
use weir_core::model::Partition;

/// Memory for blocks read from disk, in bytes.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// Most tables that stay open.
const CACHED_FILES: usize = 128;
/// Most files that the store has open, for the limit of the process: tables, also during compaction, and the log.
pub const FILES_MAX: u64 = 2 * CACHED_FILES as u64;

/// A store in a directory of its own, for one host. See the module's text.
pub struct EmbeddedStore {
    spaces: DatabaseHandle,
    health: Health,
    path: PathBuf,
    state: Arc<RwLock<State>>,
    progress: watch::Receiver<Progress>,
    partitions: Partition,
    terms: Terms,
    idempotency_ttl_ms: u64,
    /// The newest time that a caller passed to the store.
    now_ms: Arc<AtomicU64>,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    /// The lease of each kind: its owner, and when it ends.
    leases: Mutex<HashMap<String, (String, Instant)>>,
    rooms: SharedRooms,
    /// The directory, where it is a copy. The last field: it is removed after everything has closed it.
    copy: Option<DirectoryCopy>,
}

impl EmbeddedStore {
    /// Opens a copy of the directory `config.path`. Repairs at opening, and later changes, stay in the copy, which is removed
    /// with the value.
    ///
    /// # Errors
    /// As [`EmbeddedStore::open`]; `Misconfigured` where no store was begun.
    pub fn open_copy(config: &StoreConfig) -> Result<Self, StoreError> {
        let path = &config.path;
        let nothing = || StoreError::Misconfigured(format!("store.path: there is no store in {}", path.display()));
        let copy = inventory::copy_of(path)?.ok_or_else(nothing)?;
        let mut store = Self::open(&StoreConfig { path: copy.0.clone(), ..config.clone() })?;
        store.copy = Some(copy);
        Ok(store)
    }

    /// Opens the directory `config.path`, and creates it when it does not exist.
    ///
    /// # Errors
    /// `InUse` when another process has it open; `Misconfigured` when it has another number of partitions or a later format;
    /// `Damaged` when it cannot be read; `Refused` when the disk fails.
    pub fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        let path = &config.path;
        std::fs::create_dir_all(path).map_err(|error| {
            StoreError::Misconfigured(format!("store.path: cannot create {}: {error}", path.display()))
        })?;
        let Opened { spaces, state, rooms } = open_all(path, config.partitions, config.memory_bytes_max)?;
        let (now_ms, health) = (Arc::new(AtomicU64::new(0)), Health::default());
        let (spaces, state) = (DatabaseHandle::new(spaces), Arc::new(RwLock::new(state)));
        let rooms = SharedRooms::new(Mutex::new(rooms));
        let (progress, watched) = watch::channel(Progress::default());
        let (sender, receiver) = mpsc::channel(writer::QUEUE_JOBS_MAX);
        let writer = Writer {
            spaces: spaces.clone(),
            state: Arc::clone(&state),
            rooms: Arc::clone(&rooms),
            progress,
            health: health.clone(),
            now_ms: Arc::clone(&now_ms),
            path: path.clone(),
            partitions: config.partitions,
            memory_bytes_max: config.memory_bytes_max,
        };
        let writer = std::thread::Builder::new()
            .name("weir-store".into())
            .spawn(move || writer.run(receiver))
            .map_err(|error| StoreError::Refused(format!("cannot start the writer's thread: {error}")))?;
        Ok(Self {
            spaces,
            health,
            path: path.clone(),
            state,
            progress: watched,
            partitions: config.partitions,
            terms: Terms {
                state_ttl_ms: config.state_ttl_s.saturating_mul(1_000),
                absent_ttl_ms: config.absent_ttl_s.saturating_mul(1_000),
                huge_pairs_max: config.huge_pairs_max,
            },
            idempotency_ttl_ms: config.idempotency_ttl_s.saturating_mul(1_000),
            now_ms,
            jobs: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(writer)),
            leases: Mutex::default(),
            rooms,
            copy: None,
        })
    }

    /// Accepts no further writes, and returns when the waiting ones are on disk. Dropping the store does the same, and releases
    /// the directory.
    pub async fn close(&self) {
        self.lock(&self.jobs).take();
        let writer = self.lock(&self.writer).take();
        if let Some(writer) = writer {
            // A thread that panicked has dropped its callers, which answers them.
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }

    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> std::sync::MutexGuard<'a, T> {
        // The values in the mutexes are consistent at every moment.
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saw(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Runs `work` on the writer's transaction; returns when its group is on the disk.
    async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Transaction<'_>, &mut State, &mut Limits) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |desk| {
            let outcome = match desk {
                Some(Desk { transaction, state, limits }) => work(transaction, state, limits),
                None => Err(StoreError::Refused("refused before it was looked at".into())),
            };
            let keep = outcome.is_ok();
            let answer = move |committed: Result<(), StoreError>| {
                // The caller may be gone; its job has run all the same.
                let _ = reply.send(committed.and(outcome));
            };
            (keep, Box::new(answer))
        });
        let jobs = self.lock(&self.jobs).clone();
        let closed = || StoreError::Unavailable("the embedded store is closed".into());
        jobs.ok_or_else(closed)?.send(job).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(StoreError::OutcomeUnknown("the writer's thread has ended".into())))
    }

    /// Runs `work` on a snapshot, on the blocking pool.
    async fn snapshot<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (spaces, state) = (self.spaces.get()?, Arc::clone(&self.state));
        tokio::task::spawn_blocking(move || work(&Reader::new(&spaces, &state)))
            .await
            .unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }

    /// Runs `work` on the database, on the blocking pool.
    async fn on_disk<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Spaces, &Path) -> Result<T, StoreError> + Send + 'static,
    {
        let (spaces, path) = (self.spaces.get()?, self.path.clone());
        let done = tokio::task::spawn_blocking(move || work(&spaces, &path)).await;
        done.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }

    /// The state. The writer locks it for microseconds; never hold it across an await.
    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a value once the writes that it rests on are on disk.
    async fn once_written<T>(&self, seen: Seen<T>) -> Result<T, StoreError> {
        let mut progress = self.progress.clone();
        let decided = progress.wait_for(|progress| progress.is_written(seen.group).is_some()).await;
        let is_written = decided.is_ok_and(|progress| progress.is_written(seen.group) == Some(true));
        if is_written { Ok(seen.value) } else { Err(failed(fjall::Error::Poisoned)) }
    }
}

/// Which losses an acknowledged write survives.
pub(super) fn durability() -> Durability {
    Durability {
        mode: "fdatasync".into(),
        description: "every acknowledged write has been synced to this host's disk".into(),
        survives_power_loss: true,
    }
}

/// Opens the database of a directory, after its files have passed the checks.
fn open_spaces(path: &Path) -> Result<Spaces, StoreError> {
    let log = files::prepare(path)?;
    let builder = Database::builder(path).cache_size(CACHE_BYTES).max_cached_files(Some(CACHED_FILES));
    let database = builder.open().map_err(|error| match error {
        fjall::Error::Locked => files::in_use(path),
        fjall::Error::Io(error) => files::unreadable(path, &error),
        other => failed(other),
    })?;
    Spaces::open(database, path, log)
}

/// The database, and the state in memory.
struct Opened {
    spaces: Spaces,
    state: State,
    rooms: Rooms,
}

/// Opens the database of a directory, and loads the state that must be in memory.
fn open_all(path: &Path, partitions: Partition, memory_bytes_max: usize) -> Result<Opened, StoreError> {
    let spaces = open_spaces(path)?;
    layout::check_format(&spaces, path, partitions)?;
    let mut state = State::new(partitions, memory_bytes_max);
    hydrate::read_tails(&spaces, &mut state)?;
    let rooms = room::restore(&spaces)?;
    Ok(Opened { spaces, state, rooms })
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.lock(&self.jobs).take();
        let writer = self.lock(&self.writer).take();
        if let Some(writer) = writer {
            let _ = writer.join();
        }
    }
}
