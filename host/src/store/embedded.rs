//! The embedded store: state and journal in one directory, in process, crash safe.
//!
//! State, journal and outcomes lie in a log-structured database (fjall), whose write-ahead log is what makes a group
//! of batches atomic and durable. There is no state in memory but the database's own bounded caches and the rate
//! limits: what is read was committed. One thread writes (see `writer`): whatever waits while it syncs is the next
//! group. Reads take a snapshot on the blocking pool and never wait for the writer.
//!
//! - `layout`: keys and records · `transaction`: the writes of a group · `apply`: toggles · `change`: the rest
//! - `guest`: what policy modules keep · `read`: snapshots · `writer`: group commit
//!
//! Never merges data of another partition count, never repairs a damaged record.

mod apply;
mod change;
mod guest;
mod layout;
mod read;
mod transaction;
mod writer;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use fjall::{Database, PersistMode};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use self::apply::Limits;
use self::change::{Terms, Trim};
use self::layout::{Space, Spaces, failed};
use self::read::Reader;
use self::transaction::Transaction;
use self::writer::Job;
use super::{
    Counted, Durability, Head, Hydrated, Hydration, JournalRead, Members, ReadResult, Store, StoreError, ToggleBatch,
    ToggleCommit,
};
use crate::config::StoreConfig;
use crate::model::{Id, Incarnation, KeyEntry, KeyIncrement, Member, Partition, Position};

/// The data format on disk.
const FORMAT: &[u8] = b"1";
/// Memory for blocks read from disk, in bytes.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// See the room's text.
pub struct EmbeddedStore {
    spaces: Arc<Spaces>,
    partitions: Partition,
    terms: Terms,
    idempotency_ttl_ms: u64,
    /// The newest time that the store was told.
    now_ms: Arc<AtomicU64>,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    /// Per kind: who flushes, and until when.
    leases: Mutex<HashMap<String, (String, Instant)>>,
}

impl EmbeddedStore {
    /// Opens the directory `config.path`, which is made when it does not exist.
    ///
    /// # Errors
    /// `Misconfigured` when another process has it open, or when it was made with another number of partitions or
    /// by a later weir; `Damaged` when it cannot be read; `Refused` when the disk fails.
    pub fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        let path = &config.path;
        std::fs::create_dir_all(path).map_err(|error| {
            StoreError::Misconfigured(format!("store.path: cannot create {}: {error}", path.display()))
        })?;
        let database = Database::builder(path).cache_size(CACHE_BYTES).open().map_err(|error| match error {
            fjall::Error::Locked => StoreError::Misconfigured(format!(
                "store.path: {} is in use by another process; an embedded store belongs to one host, stop the other one \
                 or give this one another directory",
                path.display()
            )),
            fjall::Error::Io(error) => {
                StoreError::Misconfigured(format!("store.path: cannot open {}: {error}", path.display()))
            }
            other => failed(other),
        })?;
        let spaces = Arc::new(Spaces::open(database)?);
        check_format(&spaces, path, config.partitions)?;
        let now_ms = Arc::new(AtomicU64::new(0));
        let (sender, receiver) = mpsc::channel(writer::QUEUE_JOBS_MAX);
        let writer = std::thread::Builder::new()
            .name("weir-store".into())
            .spawn({
                let (spaces, now_ms) = (Arc::clone(&spaces), Arc::clone(&now_ms));
                move || writer::run(&spaces, receiver, &now_ms)
            })
            .map_err(|error| StoreError::Refused(format!("cannot start the writer's thread: {error}")))?;
        Ok(Self {
            spaces,
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
        F: FnOnce(&mut Transaction<'_>, &mut Limits) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |transaction, limits| {
            let outcome = work(transaction, limits);
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
        let (spaces, partitions) = (Arc::clone(&self.spaces), self.partitions);
        tokio::task::spawn_blocking(move || work(&Reader::new(&spaces, partitions)))
            .await
            .unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }
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

/// Compares format and number of partitions with what is recorded; records them in a new directory.
fn check_format(spaces: &Spaces, path: &Path, partitions: Partition) -> Result<(), StoreError> {
    let system = spaces.of(Space::System);
    let Some(format) = system.get("format").map_err(failed)? else {
        let mut batch = spaces.database.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(system, "format", FORMAT);
        batch.insert(system, "partitions", partitions.to_le_bytes());
        return batch.commit().map_err(failed);
    };
    if *format != *FORMAT {
        return Err(StoreError::Misconfigured(format!(
            "store.path: {} was written by a later version of weir: upgrade this host",
            path.display()
        )));
    }
    let recorded = system.get("partitions").map_err(failed)?;
    match recorded.as_deref().and_then(|bytes| bytes.try_into().ok()).map(Partition::from_le_bytes) {
        Some(recorded) if recorded == partitions => Ok(()),
        Some(recorded) => Err(super::other_partitions(&format!("directory {}", path.display()), recorded, partitions)),
        None => Err(layout::damaged("the number of partitions")),
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn toggle(&self, kind: &str, batch: ToggleBatch) -> Result<ToggleCommit, StoreError> {
        self.saw(batch.now_ms);
        let (kind, terms) = (kind.to_owned(), (self.partitions, self.idempotency_ttl_ms));
        self.write(move |transaction, limits| apply::toggle(transaction, limits, terms, &kind, &batch)).await
    }

    async fn read(&self, kind: &str, now_ms: u64, pairs: &[(Id, Option<Id>)]) -> Result<Vec<ReadResult>, StoreError> {
        let (kind, pairs) = (kind.to_owned(), pairs.to_vec());
        self.snapshot(move |reader| reader.read(&kind, now_ms, &pairs)).await
    }

    async fn members(
        &self,
        kind: &str,
        now_ms: u64,
        target: &Id,
        before: Option<&Member>,
        limit: usize,
    ) -> Result<Members, StoreError> {
        let (kind, target, before) = (kind.to_owned(), target.clone(), before.cloned());
        self.snapshot(move |reader| reader.members(&kind, now_ms, &target, before.as_ref(), limit)).await
    }

    async fn hydrate(&self, kind: &str, hydrations: Vec<Hydration>) -> Result<Vec<Hydrated>, StoreError> {
        if let Some(first) = hydrations.first() {
            self.saw(first.now_ms);
        }
        let (kind, terms) = (kind.to_owned(), self.terms);
        self.write(move |transaction, _| {
            hydrations.iter().map(|hydration| change::hydrate(transaction, &terms, &kind, hydration)).collect()
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
        self.write(move |transaction, _| {
            let head = |partition: &Partition| Ok(transaction.head_or_fresh(&kind, *partition)?.public(*partition));
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
        if let Some(read) = self.snapshot(read).await? {
            return Ok(read);
        }
        let head = self.heads(kind, &[partition]).await?;
        head.first().map_or_else(
            || Err(StoreError::Unavailable("the head could not be made".into())),
            |head| Ok(JournalRead::OtherIncarnation(*head)),
        )
    }

    async fn trim(
        &self,
        kind: &str,
        partition: Partition,
        incarnation: Incarnation,
        position: Position,
        touched: &[Id],
        invalid: &[Id],
    ) -> Result<(), StoreError> {
        let (kind, terms, now_ms) = (kind.to_owned(), self.terms, self.now_ms.load(Ordering::Relaxed));
        let trim = Trim { partition, incarnation, position, touched: touched.to_vec(), invalid: invalid.to_vec() };
        self.write(move |transaction, _| change::trim(transaction, &terms, &kind, &trim, now_ms)).await
    }

    async fn reset(&self, kind: &str, partition: Partition, than: Incarnation) -> Result<Head, StoreError> {
        let kind = kind.to_owned();
        self.write(move |transaction, _| change::reset(transaction, &kind, partition, than)).await
    }

    async fn wipe_state(&self, kind: &str) -> Result<(), StoreError> {
        let (kind, partitions) = (kind.to_owned(), self.partitions);
        self.write(move |transaction, _| change::wipe_state(transaction, &kind, partitions)).await
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
        self.write(move |transaction, _| guest::set(transaction, &module, now_ms, &entries)).await
    }

    async fn guest_increment(
        &self,
        module: &str,
        now_ms: u64,
        increments: Vec<KeyIncrement>,
    ) -> Result<Counted, StoreError> {
        self.saw(now_ms);
        let module = module.to_owned();
        self.write(move |transaction, _| guest::increment(transaction, &module, now_ms, &increments)).await
    }

    async fn explain(&self, kind: &str, now_ms: u64, target: &Id, actor: &Id) -> Result<serde_json::Value, StoreError> {
        let (kind, target, actor) = (kind.to_owned(), target.clone(), actor.clone());
        self.snapshot(move |reader| reader.explain(&kind, now_ms, &target, &actor)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.write(|_, _| Ok(())).await
    }

    fn durability(&self) -> Durability {
        Durability {
            mode: "fdatasync".into(),
            description: "every acknowledged write has been synced to this host's disk".into(),
            survives_power_loss: true,
        }
    }

    fn partitions(&self) -> Partition {
        self.partitions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{LoadedState, TargetLoad};

    fn keys(store: &EmbeddedStore) -> usize {
        let spaces = [Space::Targets, Space::Members, Space::Outcomes, Space::Expiry];
        spaces.iter().map(|&space| store.spaces.of(space).len().unwrap()).sum()
    }

    async fn load(store: &EmbeddedStore, target: i64, members: i64, now_ms: u64) {
        let target = Id::Int(target);
        let partition = crate::model::partition_of(&target, 1);
        let head = store.heads("k", &[partition]).await.unwrap()[0];
        let state = LoadedState::Whole((0..members).map(|actor| (Id::Int(actor), 7)).collect());
        let (incarnation, position) = (head.incarnation, head.flushed);
        let targets = vec![TargetLoad { target, state }];
        let hydration = Hydration { partition, incarnation, position, targets, pairs: vec![], now_ms };
        assert_eq!(store.hydrate("k", vec![hydration]).await.unwrap(), vec![Hydrated::Accepted]);
    }

    #[tokio::test]
    async fn what_expired_is_swept_from_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let store = EmbeddedStore::open(&StoreConfig { path, partitions: 1, state_ttl_s: 1, ..StoreConfig::default() });
        let store = store.unwrap();
        let mut now_ms = 1_800_000_000_000;
        for target in 0..3 {
            load(&store, target, 3_000, now_ms).await;
        }
        assert!(keys(&store) > 18_000);
        // The sweeper works after each write, on what had expired by then.
        for _ in 0..4 {
            now_ms += 2_000;
            load(&store, 77, 1, now_ms).await;
        }
        for _ in 0..2_000 {
            if keys(&store) < 10 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{} keys are left", keys(&store));
    }
}
