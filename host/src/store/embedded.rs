//! The embedded store: the journal on disk, the state in memory, in one process; crash safe.
//!
//! Journal, heads and outcomes lie in a log-structured database (fjall), whose write-ahead log is what makes a group of
//! batches atomic and durable. One thread writes (see `writer`): whatever waits while it syncs is the next group. The
//! state of targets is a cache, so it is kept in memory and nowhere else, within `store.memory_bytes_max`: what a
//! restart forgets is read from SQL again, with the journal's tail laid over it. Nobody is told of a change before it
//! is on the disk.
//!
//! - `files`: are they whole · `stamps` of batches · `layout`: keys and records · `state`: what is known, in memory: each `target`, the journal's `tail`, documents that are
//!   `pending` · `transaction`: the writes of a group · `batch`: what all batches have in common, with `limits` and
//!   `outcome` · `toggle`, `count`, `create`, `settings` · `hydrate` · `change`: the rest · `guest`: what policy modules
//!   keep · `read` · `writer`: group commit · `room`: waiting rooms · `holdings`: what lies there, and whose it is
//!
//! Never merges data of another partition count, never repairs a damaged record.

mod batch;
mod by_id;
mod change;
mod count;
mod create;
mod files;
mod guest;
mod holder;
pub(in crate::store) mod holdings;
mod hydrate;
mod layout;
mod limits;
mod outcome;
mod pending;
mod read;
mod room;
mod settings;
mod stamps;
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
use std::time::Duration;

use async_trait::async_trait;
use fjall::Database;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub use self::files::salvage::{DirectoryReport, salvage, verify};

use self::change::{Terms, Trim};
use self::holder::{Health, Holder};
use self::holdings::Copied;
use self::hydrate::Prepared;
use self::layout::{Spaces, failed};
use self::limits::Limits;
use self::read::{Reader, Seen};
use self::room::{Rooms, SharedRooms};
use self::state::State;
use self::transaction::Transaction;
use self::writer::{Desk, Job, Progress, Writer};
use super::page::page;
use super::{
    Binding, Commit, CountBatch, CountResult, Counted, CreateBatch, CreateResult, Durability, Head, Holdings, Hydrated,
    Hydration, JournalRead, MemberRead, Members, PendingDocument, ReadResult, Refusing, RoomStore, SettingsBatch,
    SettingsResult, Store, StoreError, ToggleBatch, ToggleResult, explain,
};
use crate::config::StoreConfig;
use crate::journal::{Hole, Mark};
use crate::model::{Id, Incarnation, KeyEntry, KeyIncrement, Member, Partition, Position, partition_of};

/// Memory for blocks read from disk, in bytes.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// Tables that are kept open at most.
const CACHED_FILES: usize = 128;
/// Files that the store has open at most, for the limit of the process: tables, while they are compacted too, and the log.
pub const FILES_MAX: u64 = 2 * CACHED_FILES as u64;

/// See the room's text.
pub struct EmbeddedStore {
    spaces: Holder,
    health: Health,
    path: PathBuf,
    state: Arc<RwLock<State>>,
    progress: watch::Receiver<Progress>,
    partitions: Partition,
    terms: Terms,
    idempotency_ttl_ms: u64,
    /// The newest time that the store was told.
    now_ms: Arc<AtomicU64>,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    /// Per kind: who flushes, and until when.
    leases: Mutex<HashMap<String, (String, Instant)>>,
    rooms: SharedRooms,
    /// The directory, where it is a copy. Last: it goes when nobody has it open any more.
    copy: Option<Copied>,
}

impl EmbeddedStore {
    /// Opens a copy of the directory `config.path`: what opening mends, and what is done to the store, stays in the copy, which
    /// goes with the value.
    ///
    /// # Errors
    /// As [`EmbeddedStore::open`]; `Misconfigured` where no store was begun.
    pub fn open_to_look(config: &StoreConfig) -> Result<Self, StoreError> {
        let path = &config.path;
        let nothing = || StoreError::Misconfigured(format!("store.path: there is no store in {}", path.display()));
        let copy = holdings::copied(path)?.ok_or_else(nothing)?;
        let mut store = Self::open(&StoreConfig { path: copy.0.clone(), ..config.clone() })?;
        store.copy = Some(copy);
        Ok(store)
    }

    /// Opens the directory `config.path`, which is made when it does not exist.
    ///
    /// # Errors
    /// `InUse` when another process has it open; `Misconfigured` when it was made with another number of partitions or
    /// by a later weir; `Damaged` when it cannot be read; `Refused` when the disk fails.
    pub fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        let path = &config.path;
        std::fs::create_dir_all(path).map_err(|error| {
            StoreError::Misconfigured(format!("store.path: cannot create {}: {error}", path.display()))
        })?;
        let Opened { spaces, state, rooms } = open_all(path, config.partitions, config.memory_bytes_max)?;
        let (now_ms, health) = (Arc::new(AtomicU64::new(0)), Health::default());
        let (spaces, state) = (Holder::new(spaces), Arc::new(RwLock::new(state)));
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

    /// Takes no more writes and returns when those that wait are on the disk. Dropping the store does the same, and
    /// gives the directory back.
    pub async fn close(&self) {
        self.lock(&self.jobs).take();
        let writer = self.lock(&self.writer).take();
        if let Some(writer) = writer {
            // A thread that panicked has answered its callers by dropping them.
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }

    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> std::sync::MutexGuard<'a, T> {
        // What the mutexes hold is whole at every moment.
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
                // The caller may have gone; what it asked for is done all the same.
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

    /// Runs `work` on what lies on the disk, on the blocking pool.
    async fn on_disk<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Spaces, &Path) -> Result<T, StoreError> + Send + 'static,
    {
        let (spaces, path) = (self.spaces.get()?, self.path.clone());
        let done = tokio::task::spawn_blocking(move || work(&spaces, &path)).await;
        done.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }

    /// What is known. Held for microseconds by the writer, and never across an await.
    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what was seen when the writes that it rests on are on the disk.
    async fn once_written<T>(&self, seen: Seen<T>) -> Result<T, StoreError> {
        let mut progress = self.progress.clone();
        let decided = progress.wait_for(|progress| progress.is_written(seen.group).is_some()).await;
        let is_written = decided.is_ok_and(|progress| progress.is_written(seen.group) == Some(true));
        if is_written { Ok(seen.value) } else { Err(failed(fjall::Error::Poisoned)) }
    }
}

/// What an acknowledged write survives.
pub(super) fn durability() -> Durability {
    Durability {
        mode: "fdatasync".into(),
        description: "every acknowledged write has been synced to this host's disk".into(),
        survives_power_loss: true,
    }
}

/// Opens the database of a directory, once its files have been found to be whole.
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

/// The database, and what is in memory.
struct Opened {
    spaces: Spaces,
    state: State,
    rooms: Rooms,
}

/// Opens the database of a directory and reads what has to be in memory.
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

#[async_trait]
impl Store for EmbeddedStore {
    fn lays_tails(&self) -> bool {
        true
    }

    async fn toggle(&self, kind: &str, batch: ToggleBatch) -> Result<Commit<ToggleResult>, StoreError> {
        self.saw(batch.now_ms);
        let (kind, terms) = (kind.to_owned(), (self.partitions, self.idempotency_ttl_ms));
        self.write(move |transaction, state, limits| toggle::toggle(transaction, state, limits, terms, &kind, &batch))
            .await
    }

    async fn count(&self, kind: &str, batch: CountBatch) -> Result<Commit<CountResult>, StoreError> {
        self.saw(batch.now_ms);
        let (kind, terms) = (kind.to_owned(), (self.partitions, self.idempotency_ttl_ms));
        self.write(move |transaction, state, limits| count::count(transaction, state, limits, terms, &kind, &batch))
            .await
    }

    async fn create(&self, kind: &str, batch: CreateBatch) -> Result<Commit<CreateResult>, StoreError> {
        self.saw(batch.now_ms);
        let (kind, terms) = (kind.to_owned(), (self.partitions, self.idempotency_ttl_ms));
        self.write(move |transaction, state, _| create::create(transaction, state, terms, &kind, &batch)).await
    }

    async fn documents(&self, kind: &str, ids: &[(Partition, Id)]) -> Result<Vec<Option<PendingDocument>>, StoreError> {
        let seen = read::places(&self.state(), kind, ids);
        let places = self.once_written(seen).await?;
        if places.iter().all(Option::is_none) {
            return Ok(vec![None; places.len()]);
        }
        let kind = kind.to_owned();
        self.snapshot(move |reader| reader.documents(&kind, places)).await
    }

    async fn documents_of(&self, kind: &str, actor: &Id, limit: usize) -> Result<Vec<PendingDocument>, StoreError> {
        let seen = read::places_of(&self.state(), (kind, self.partitions), actor, limit);
        let (kind, places) = (kind.to_owned(), self.once_written(seen).await?);
        let found = self.snapshot(move |reader| reader.documents(&kind, read::newest(places, limit))).await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn put_settings(&self, kind: &str, batch: SettingsBatch) -> Result<Commit<SettingsResult>, StoreError> {
        self.saw(batch.now_ms);
        let (kind, terms) = (kind.to_owned(), (self.partitions, self.idempotency_ttl_ms));
        self.write(move |transaction, state, _| settings::put(transaction, state, terms, &kind, &batch)).await
    }

    async fn settings(&self, kind: &str, now_ms: u64, members: &[Id]) -> Vec<Result<MemberRead, StoreError>> {
        let seen = read::settings(&self.state(), (kind, self.partitions), now_ms, members);
        match self.once_written(seen).await {
            Ok(found) => found.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); members.len()],
        }
    }

    async fn read(&self, kind: &str, now_ms: u64, pairs: &[(Id, Option<Id>)]) -> Result<Vec<ReadResult>, StoreError> {
        let seen = read::pairs(&self.state(), (kind, self.partitions), now_ms, pairs);
        self.once_written(seen).await
    }

    async fn members(
        &self,
        kind: &str,
        now_ms: u64,
        target: &Id,
        before: Option<&Member>,
        limit: usize,
    ) -> Result<Members, StoreError> {
        let seen = read::members(&self.state(), (kind, partition_of(target, self.partitions)), now_ms, target);
        match self.once_written(seen).await? {
            Members::Whole(all) => {
                let page = page(all, before, limit).await;
                page.map(Members::Whole).ok_or_else(|| StoreError::Unavailable("the host is stopping".into()))
            }
            other => Ok(other),
        }
    }

    async fn hydrate(&self, kind: &str, hydrations: Vec<Hydration>) -> Result<Vec<Hydrated>, StoreError> {
        if let Some(first) = hydrations.first() {
            self.saw(first.now_ms);
        }
        let (kind, terms) = (kind.to_owned(), self.terms);
        let prepare =
            move || hydrations.into_iter().map(|hydration| Prepared::new(hydration, &terms)).collect::<Vec<_>>();
        let prepared = tokio::task::spawn_blocking(prepare).await;
        let prepared = prepared.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        self.write(move |transaction, state, _| {
            prepared.into_iter().map(|hydration| hydrate::hydrate(transaction, state, &kind, hydration)).collect()
        })
        .await
    }

    async fn heads(&self, kind: &str, partitions: &[Partition]) -> Result<Vec<Head>, StoreError> {
        let (kind, partitions) = (kind.to_owned(), partitions.to_vec());
        let (kind, partitions, found) = self
            .snapshot(move |reader| {
                let found = reader.heads(&kind, &partitions)?;
                Ok((kind, partitions, found))
            })
            .await?;
        if let Some(heads) = found {
            return Ok(heads);
        }
        self.write(move |transaction, state, _| {
            let head = |&partition: &Partition| {
                let head = transaction.head_or_fresh(&kind, partition)?;
                Ok(head.public(partition, state.waiting(&kind, partition)))
            };
            partitions.iter().map(head).collect()
        })
        .await
    }

    async fn read_journal(
        &self,
        kind: &str,
        partition: Partition,
        incarnation: Incarnation,
        position: Position,
        changes_max: usize,
    ) -> Result<JournalRead, StoreError> {
        let owned = kind.to_owned();
        let read = move |reader: &Reader<'_>| reader.journal(&owned, partition, incarnation, position, changes_max);
        let has_tails = self.state().has_tails(kind, partition);
        if let Some(read) = self.snapshot(read).await? {
            if let JournalRead::Entries(entries) = &read
                && let Some(newest) = entries.last()
                && has_tails
            {
                let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
                state.note_read(kind, partition, newest.position);
            }
            return Ok(read);
        }
        let head = self.heads(kind, &[partition]).await?;
        head.first().map_or_else(
            || Err(StoreError::Unavailable("the head could not be made".into())),
            |head| Ok(JournalRead::OtherIncarnation(*head)),
        )
    }

    async fn trim_to(
        &self,
        kind: &str,
        partition: Partition,
        incarnation: Incarnation,
        upto: Mark,
        touched: &[Id],
        invalid: &[Id],
    ) -> Result<(), StoreError> {
        let (kind, terms, now_ms) = (kind.to_owned(), self.terms, self.now_ms.load(Ordering::Relaxed));
        let trim = Trim { partition, incarnation, upto, touched: touched.to_vec(), invalid: invalid.to_vec() };
        self.write(move |transaction, state, _| change::trim(transaction, state, &terms, &kind, trim, now_ms)).await
    }

    async fn lost_targets(
        &self,
        kind: &str,
        partition: Partition,
        hole: &Hole,
        targets_max: usize,
    ) -> Result<Vec<String>, StoreError> {
        Ok(self.state().changed_between((kind, partition), (hole.after, hole.last), targets_max))
    }

    async fn reset(&self, kind: &str, partition: Partition, than: Incarnation) -> Result<Head, StoreError> {
        let kind = kind.to_owned();
        self.write(move |transaction, state, _| change::reset(transaction, state, &kind, partition, than)).await
    }

    async fn wipe_state(&self, kind: &str) -> Result<(), StoreError> {
        let (kind, partitions) = (kind.to_owned(), self.partitions);
        self.write(move |transaction, state, _| change::wipe_state(transaction, state, &kind, partitions)).await
    }

    async fn lease(&self, kind: &str, owner: &str, ttl_ms: u64) -> Result<bool, StoreError> {
        let now = Instant::now();
        let mut leases = self.lock(&self.leases);
        if leases.get(kind).is_some_and(|(holder, until)| holder != owner && now < *until) {
            return Ok(false);
        }
        leases.insert(kind.to_owned(), (owner.to_owned(), now + Duration::from_millis(ttl_ms)));
        Ok(true)
    }

    async fn release(&self, kind: &str, owner: &str) -> Result<(), StoreError> {
        let mut leases = self.lock(&self.leases);
        if leases.get(kind).is_some_and(|(holder, _)| holder == owner) {
            leases.remove(kind);
        }
        Ok(())
    }

    async fn guest_get(&self, module: &str, now_ms: u64, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| guest::key(module, key)).collect();
        self.snapshot(move |reader| keys.iter().map(|key| guest::get(&reader.view(), key, now_ms)).collect()).await
    }

    async fn guest_set(&self, module: &str, now_ms: u64, entries: Vec<KeyEntry>) -> Result<(), StoreError> {
        self.saw(now_ms);
        let module = module.to_owned();
        self.write(move |transaction, _, _| guest::set(transaction, &module, now_ms, &entries)).await
    }

    async fn guest_increment(
        &self,
        module: &str,
        now_ms: u64,
        increments: Vec<KeyIncrement>,
    ) -> Result<Counted, StoreError> {
        self.saw(now_ms);
        let module = module.to_owned();
        self.write(move |transaction, _, _| guest::increment(transaction, &module, now_ms, &increments)).await
    }

    fn rooms(&self) -> &dyn RoomStore {
        self
    }

    async fn explain(
        &self,
        kind: &str,
        now_ms: u64,
        (partition, target): (Partition, &Id),
        actor: Option<&Id>,
    ) -> Result<serde_json::Value, StoreError> {
        let (owned, pair) = (kind.to_owned(), (target.clone(), actor.cloned()));
        let read = move |reader: &Reader<'_>| reader.explain((&owned, partition), &pair.0, pair.1.as_ref());
        let found = self.snapshot(read).await?;
        let flushed = found.as_ref().map_or(0, |(head, _)| head.flushed);
        let state = read::explain(&self.state(), (kind, partition), now_ms, (target, actor), flushed);
        let (head, journal) = found.map(|(head, journal)| (explain::head(&head), journal)).unzip();
        Ok(json!({ "partition": partition, "state": state, "head": head, "journal": journal.unwrap_or_default() }))
    }

    async fn holdings(&self) -> Result<Holdings, StoreError> {
        self.on_disk(holdings::read).await
    }

    async fn bind(&self, binding: &Binding) -> Result<(), StoreError> {
        let binding = binding.clone();
        self.on_disk(move |spaces, path| holdings::bind(spaces, path, &binding)).await
    }

    async fn check_binding(&self) -> Result<(), StoreError> {
        // The directory is locked: nobody else can give it to another database.
        Ok(())
    }

    async fn drop_kind(&self, kind: &str) -> Result<(), StoreError> {
        let kind = kind.to_owned();
        self.on_disk(move |spaces, _| holdings::drop_kind(spaces, &kind)).await
    }

    async fn drop_all(&self) -> Result<(), StoreError> {
        self.on_disk(|spaces, _| holdings::drop_all(spaces)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.write(|_, _, _| Ok(())).await
    }

    fn refusing(&self) -> Option<Refusing> {
        self.health.refusing()
    }

    fn durability(&self) -> Durability {
        durability()
    }

    fn partitions(&self) -> Partition {
        self.partitions
    }
}
