//! The owner of the journal in this Redis, and its format: checked at each connection, when a partition begins a new life, and
//! when a flusher renews its lease.
//!
//! One hash holds the record (see `keys`). A host that finds it empty writes it; the first writer wins, and all others compare.
//! While the database is unknown (SQL has been down since the start), nothing is compared: nothing is flushed then, either.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, Value};
use tokio::time::Instant;
use uuid::Uuid;

use super::keys::{EARLIER_FORMAT, Keys};
use super::link::Nature;
use super::server::Refusal;
use crate::{ForeignJournal, StoreError};
use weir_core::config::Namespace;
use weir_core::journal::Head;
use weir_core::model::{DatabaseId, Incarnation, JournalId, Partition};

/// The data format in Redis. 5: keys have a namespace, and the journal belongs to a database.
pub(super) const FORMAT: &str = "5";
/// The previous format, which is taken over (see `upgrade`).
pub(super) const EARLIER: &str = "4";
/// In [`EARLIER_FORMAT`]: its keys are moving to a namespace, or have moved. Hosts of earlier versions refuse both.
pub(super) const MOVING: &str = "moving to ";
pub(super) const MOVED: &str = "moved to ";
/// Prefix of the name of a kind in the record.
pub(super) const KIND: &str = "kind:";

/// How often a refusal is checked again.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Sends a command to the server of its key.
pub(super) trait Way: Send {
    /// The answer.
    fn ask(&mut self, key: &str, command: Cmd, nature: Nature) -> impl Future<Output = Result<Value, Refusal>> + Send;
}

/// One server.
pub(super) struct OnConnection<'a>(pub(super) &'a mut MultiplexedConnection);

impl Way for OnConnection<'_> {
    async fn ask(&mut self, _key: &str, command: Cmd, _nature: Nature) -> Result<Value, Refusal> {
        Ok(command.query_async(self.0).await?)
    }
}

/// The record.
#[derive(Debug, Default)]
pub(super) struct Record {
    version: Option<String>,
    pub(super) partitions: Option<Partition>,
    pub(super) journal: Option<JournalId>,
    pub(super) database: Option<DatabaseId>,
}

impl Record {
    fn is_whole(&self) -> bool {
        self.version.is_some() && self.partitions.is_some() && self.journal.is_some()
    }
}

/// The expected record of this Redis, and the result of the last check.
pub(super) struct OwnershipGuard {
    pub(super) keys: Keys,
    pub(super) namespace: Namespace,
    pub(super) partitions: Partition,
    database: RwLock<Option<DatabaseId>>,
    is_refused: AtomicBool,
    refusal: RwLock<Option<String>>,
    /// When the refusal was last checked.
    checked: Mutex<Option<Instant>>,
    /// The lives of journals that were checked.
    lives: RwLock<HashMap<String, HashMap<Partition, Incarnation>>>,
}

impl OwnershipGuard {
    pub(super) fn new(namespace: Namespace, partitions: Partition) -> Self {
        Self {
            keys: Keys::new(&namespace),
            namespace,
            partitions,
            database: RwLock::default(),
            is_refused: AtomicBool::new(false),
            refusal: RwLock::default(),
            checked: Mutex::default(),
            lives: RwLock::default(),
        }
    }

    /// From now on the journal must belong to this database.
    pub(super) fn expects(&self, database: DatabaseId) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = Some(database);
    }

    fn expected(&self) -> Option<DatabaseId> {
        *self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses every call while the journal belongs to another database.
    pub(super) fn admit(&self) -> Result<(), StoreError> {
        if !self.is_refused.load(Ordering::Acquire) {
            return Ok(());
        }
        let reason = self.refusal.read().unwrap_or_else(PoisonError::into_inner).clone();
        Err(StoreError::Misconfigured(reason.unwrap_or_default()))
    }

    /// Whether to check a refusal again; true for one caller per interval.
    pub(super) fn is_check_due(&self) -> bool {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = checked.is_none_or(|at| at.elapsed() >= CHECK_INTERVAL);
        if is_due {
            *checked = Some(Instant::now());
        }
        is_due
    }

    fn set_refusal(&self, reason: Option<String>) {
        let is_refused = reason.is_some();
        if is_refused != self.is_refused.load(Ordering::Acquire) {
            match &reason {
                Some(reason) => tracing::error!(reason, "the store is refused"),
                None => tracing::info!("the store's journal is this database's again"),
            }
        }
        *self.refusal.write().unwrap_or_else(PoisonError::into_inner) = reason;
        self.is_refused.store(is_refused, Ordering::Release);
    }

    /// Whether these lives were checked.
    pub(super) fn knows(&self, kind: &str, heads: &[Head]) -> bool {
        let lives = self.lives.read().unwrap_or_else(PoisonError::into_inner);
        let Some(lives) = lives.get(kind) else { return heads.is_empty() };
        heads.iter().all(|head| lives.get(&head.partition) == Some(&head.incarnation))
    }

    /// Records that these lives were checked.
    pub(super) fn learn(&self, kind: &str, heads: &[Head]) {
        let mut lives = self.lives.write().unwrap_or_else(PoisonError::into_inner);
        let lives = lives.entry(kind.to_owned()).or_default();
        lives.extend(heads.iter().map(|head| (head.partition, head.incarnation)));
    }

    /// Reads the record.
    pub(super) async fn read<W: Way>(&self, way: &mut W) -> Result<Record, Refusal> {
        let mut read = redis::cmd("HMGET");
        read.arg(self.keys.format()).arg("version").arg("partitions").arg("journal").arg("database");
        let reply = way.ask(&self.keys.format(), read, Nature::Reads).await?;
        let (version, partitions, journal, database): (_, _, Option<String>, Option<String>) =
            FromRedisValue::from_redis_value(reply).map_err(redis::RedisError::from)?;
        let id = |name: &str, text: Option<String>| {
            let wrong = |text: &str| StoreError::Damaged(format!("{name} in {} is {text:?}", self.keys.format()));
            text.map(|text| text.parse::<Uuid>().map_err(|_| wrong(&text))).transpose()
        };
        let journal = id("journal", journal)?.map(JournalId);
        Ok(Record { version, partitions, journal, database: id("database", database)?.map(DatabaseId) })
    }

    /// Whether the record is complete: the namespace is in use.
    pub(super) fn is_begun(&self, record: &Record) -> bool {
        record.is_whole()
    }

    /// Assigns the journal to `database`, whatever was recorded.
    pub(super) async fn give<W: Way>(&self, way: &mut W, database: DatabaseId) -> Result<(), Refusal> {
        let mut write = redis::cmd("HSET");
        write.arg(self.keys.format()).arg("database").arg(database.to_string());
        way.ask(&self.keys.format(), write, Nature::Writes).await.map(|_| ())
    }

    /// Writes the missing fields, the version last: it marks the record as complete. Another host may be doing the same.
    pub(super) async fn write<W: Way>(&self, way: &mut W) -> Result<(), Refusal> {
        let journal = Uuid::new_v4().hyphenated().to_string();
        let database = self.expected().map(|id| ("database", id.to_string()));
        let fields = [("partitions", self.partitions.to_string()), ("journal", journal)];
        for (field, value) in fields.into_iter().chain(database).chain([("version", FORMAT.to_owned())]) {
            self.note(way, field, &value).await?;
        }
        Ok(())
    }

    /// Records one field, unless it is there.
    pub(super) async fn note<W: Way>(&self, way: &mut W, field: &str, value: &str) -> Result<(), Refusal> {
        let mut write = redis::cmd("HSETNX");
        write.arg(self.keys.format()).arg(field).arg(value);
        way.ask(&self.keys.format(), write, Nature::Writes).await.map(|_| ())
    }

    /// Checks the record; writes it where there is none, with `kind` where one is named. Data of an earlier version must be taken
    /// over first.
    pub(super) async fn check<W: Way>(&self, way: &mut W, kind: Option<&str>) -> Result<(), Refusal> {
        let mut record = self.read(way).await?;
        if !record.is_whole() {
            self.check_earlier(way).await?;
            self.write(way).await?;
            record = self.read(way).await?;
        } else if let (None, Some(database)) = (record.database, self.expected()) {
            self.note(way, "database", &database.to_string()).await?;
            record = self.read(way).await?;
        }
        self.judge(&record)?;
        match kind {
            Some(kind) => self.note(way, &format!("{KIND}{kind}"), "1").await,
            None => Ok(()),
        }
    }

    /// Refuses data of another version, of another number of partitions, or of another database.
    pub(super) fn judge(&self, record: &Record) -> Result<(), StoreError> {
        if record.version.as_deref() != Some(FORMAT) {
            return Err(other_format(record.version.as_deref(), &self.keys.all()));
        }
        match record.partitions {
            Some(recorded) if recorded != self.partitions => {
                return Err(crate::other_partitions("this Redis", recorded, self.partitions));
            }
            _ => {}
        }
        match (record.database, self.expected()) {
            (Some(owner), Some(ours)) if owner != ours => {
                let place = format!("namespace {} of the Redis at store.url", self.namespace);
                let refusal = StoreError::from(ForeignJournal::new(&place, owner, Some(ours)));
                self.set_refusal(Some(refusal.to_string()));
                return Err(refusal);
            }
            (None, Some(_)) => return Err(StoreError::Unavailable("the journal's database was not recorded".into())),
            _ => self.set_refusal(None),
        }
        Ok(())
    }

    /// As [`OwnershipGuard::check`] without a record, but writes nothing.
    pub(super) async fn find_earlier<W: Way>(&self, way: &mut W) -> Result<(), StoreError> {
        self.check_earlier(way).await.map_err(Refusal::into_error)
    }

    /// Without a record: whether an earlier version left data.
    async fn check_earlier<W: Way>(&self, way: &mut W) -> Result<(), Refusal> {
        let mut read = redis::cmd("HGET");
        read.arg(EARLIER_FORMAT).arg("version");
        let version = match way.ask(EARLIER_FORMAT, read, Nature::Reads).await {
            // This user may see the keys of the namespace only: earlier data is not for it.
            Err(refusal) if refusal.is_forbidden() => return Ok(()),
            version => version?,
        };
        let version: Option<String> = FromRedisValue::from_redis_value(version).map_err(redis::RedisError::from)?;
        match version.as_deref() {
            None => Ok(()),
            Some(version) if version.starts_with(MOVED) => Ok(()),
            Some(version) if version == EARLIER || version.starts_with(MOVING) => {
                Err(Refusal::Store(StoreError::Unavailable(format!(
                    "this Redis has data of format {EARLIER}: it is taken over as soon as SQL answers and has shown that \
                     it is this database's"
                ))))
            }
            other => Err(Refusal::Store(other_format(other, "weir:*"))),
        }
    }
}

fn other_format(version: Option<&str>, keys: &str) -> StoreError {
    StoreError::Misconfigured(format!(
        "store.url: the data in this Redis was written by another version of weir (format {}, this one has {FORMAT}): let that \
         version flush everything, stop it, and delete its keys ({keys})",
        version.unwrap_or("unknown")
    ))
}
