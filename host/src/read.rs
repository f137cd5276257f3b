//! Read: named SQL reads, kept where a rule says so.
//!
//! Tier 3: imports tiers 0 to 2 (`cache`, `sql`, `store`, `policy`). Never writes, never answers HTTP. What is measured of a read is
//! shown to a rule when it has moved (`cache`); the rule says whether and for how long answers are kept. A `live` read is
//! never kept and never shared, whatever the rule says.
//!
//! - `statement`: parameters, and the statement as the engine wants it. `rows`: rows as JSON.
//! - `load`: reading for all who wait, refreshing before anybody waits. `shared`: what hosts share of it.

mod load;
mod rows;
mod shared;
pub mod statement;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::task::JoinHandle;

use crate::cache::{
    Cache, CacheLimits, CacheMemory, CacheStatus, Entry, Flown, Forwarded, Freshness, Rules, Ruling, RulingState, Seat,
    Subject, Totals,
};
use crate::clock::Clock;
use crate::config::{CacheConfig, ConfigError, ReadConfig, Staleness, StatementConfig};
use crate::error::Refusal;
use crate::listener::reply;
use crate::model::SqlValue;
use crate::sql::Sql;
use load::{FromSql, Loaded, Source};
pub use shared::Shared;

/// How long SQL is left alone after a read failed, where there is something stale to tell, in milliseconds.
const HOLD_MS: u64 = 1_000;
/// How often a request looks again after it has waited for another's.
const LOOKS_MAX: usize = 3;

thread_local! {
    /// Where keys are written that nobody keeps.
    static KEY: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Why a read has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// SQL is away, or too many wait.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The statement does not work.
    #[error("the read cannot be done: {0}")]
    Invalid(String),
    /// It finds more than it may.
    #[error("the read finds more than {limit} = {max}")]
    TooLarge {
        /// The limit's name.
        limit: &'static str,
        /// Its value.
        max: usize,
    },
}

/// A read without an answer, and what the cache did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct ReadFailure {
    /// Why.
    pub error: ReadError,
    status: CacheStatus,
}

impl ReadFailure {
    fn after(error: impl Into<ReadError>, why: Forwarded) -> Self {
        Self { error: error.into(), status: CacheStatus::unanswered(Some(why)) }
    }

    /// `Cache-Status`, with this reason.
    pub fn cache_status(&self, detail: &'static str) -> String {
        self.status.because(detail).text()
    }
}

impl<E: Into<ReadError>> From<E> for ReadFailure {
    /// SQL was not asked, or it is not known whether.
    fn from(error: E) -> Self {
        Self { error: error.into(), status: CacheStatus::unanswered(None) }
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct ReadReply {
    answer: Answer,
    /// How old it is, in seconds.
    pub age_s: u64,
    /// What the cache did.
    pub status: CacheStatus,
    /// The reason in words that a rule chose, where it did.
    pub reason: Option<String>,
    /// It must not be kept by anybody.
    pub live: bool,
}

/// Where an answer stands. One that is kept is shared by all who are told it: each count of its owners that is moved
/// is a cache line that all cores fight for, so there is one.
#[derive(Debug, Clone)]
enum Answer {
    Kept(Arc<Entry<Body>>),
    Own(FromSql),
}

impl ReadReply {
    /// JSON: what is left of an answer when its head is written.
    pub fn into_json(self) -> reply::Shared {
        match self.answer {
            Answer::Kept(entry) => entry,
            Answer::Own(read) => Arc::new(read.json),
        }
    }

    /// Its entity tag, quotes included.
    pub fn etag(&self) -> &str {
        match &self.answer {
            Answer::Kept(entry) => &entry.value.etag,
            Answer::Own(read) => &read.etag,
        }
    }
}

/// What is kept of a read.
#[derive(Debug)]
pub(crate) struct Body {
    json: Bytes,
    etag: Box<str>,
    /// Tells this reading from all others, also of other hosts.
    id: u64,
    read_ms: u64,
    /// When it was last asked for, as Unix time; kept only for reads that are read anew on time.
    used_ms: AtomicU64,
}

impl AsRef<[u8]> for Entry<Body> {
    fn as_ref(&self) -> &[u8] {
        &self.value.json
    }
}

/// All reads.
#[derive(Clone, Default)]
pub struct Reads {
    reads: Arc<BTreeMap<String, Arc<Read>>>,
}

/// What all reads stand on.
#[derive(Clone)]
pub struct ReadParts {
    /// The database.
    pub sql: Arc<dyn Sql>,
    /// The rule, and invalidations, shared by all caches.
    pub rules: Rules,
    /// The time.
    pub clock: Clock,
    /// What hosts share, where they do.
    pub shared: Option<Arc<Shared>>,
}

/// One read.
pub struct Read {
    config: ReadConfig,
    statement: StatementConfig,
    order: Vec<usize>,
    columns: tokio::sync::OnceCell<rows::Columns>,
    cache: Arc<Cache<Body>>,
    parts: ReadParts,
    ruling: Ruling,
    wait: Duration,
    /// SQL has just failed: what is stale is told without asking until then, as Unix time.
    held_until_ms: AtomicU64,
    /// The last reading that failed: its key, and why, for those who waited for it.
    failed: Mutex<Option<(String, ReadError)>>,
    /// What is read anew on time: the parameters by key.
    followed: Mutex<HashMap<String, Vec<SqlValue>>>,
    follower: Mutex<Option<JoinHandle<()>>>,
}

/// What operators see of a read.
#[derive(Debug, Clone, Serialize)]
pub struct ReadState {
    /// Its name.
    pub name: String,
    /// What was measured of it, and what the rule makes of that.
    #[serde(flatten)]
    pub ruling: RulingState,
    /// How its keys look.
    pub key: String,
    /// The groups that its answers belong to.
    pub groups: Vec<String>,
}

impl Reads {
    /// Prepares every read; asks SQL for nothing yet.
    ///
    /// # Errors
    /// Parameters that the statement does not have, or the other way round.
    pub async fn start(configs: &[ReadConfig], cache: &CacheConfig, parts: &ReadParts) -> Result<Self, ConfigError> {
        let limits = CacheLimits { bytes_max: cache.reads_bytes_max, waiters_max: cache.waiters_max };
        let kept = Arc::new(Cache::new("reads", limits, Arc::clone(&parts.rules.ledger)));
        let totals = Arc::new(Totals::default());
        let open = |config: &ReadConfig| {
            let (statement, order) = statement::prepare(config, parts.sql.engine())?;
            let read = Arc::new(Read {
                config: config.clone(),
                statement,
                order,
                columns: tokio::sync::OnceCell::new(),
                cache: Arc::clone(&kept),
                parts: parts.clone(),
                ruling: Ruling::new(subject(config), parts.rules.clone(), Arc::clone(&totals)),
                wait: Duration::from_millis(cache.wait_ms),
                held_until_ms: AtomicU64::new(0),
                failed: Mutex::default(),
                followed: Mutex::default(),
                follower: Mutex::default(),
            });
            Ok((config.name.clone(), read))
        };
        let reads: BTreeMap<String, Arc<Read>> = configs.iter().map(open).collect::<Result<_, ConfigError>>()?;
        for read in reads.values() {
            let _ = read.ask_rule_aside().await;
            read.follow();
        }
        Ok(Self { reads: Arc::new(reads) })
    }

    /// One read.
    pub fn get(&self, name: &str) -> Option<&Arc<Read>> {
        self.reads.get(name)
    }

    /// Their names.
    pub fn names(&self) -> Vec<&str> {
        self.reads.keys().map(String::as_str).collect()
    }

    /// Every read's configuration.
    pub fn configs(&self) -> impl Iterator<Item = &ReadConfig> {
        self.reads.values().map(|read| &read.config)
    }

    /// What operators see.
    pub fn states(&self) -> Vec<ReadState> {
        self.reads.values().map(|read| read.state()).collect()
    }

    /// What is kept: entries, and their memory in bytes.
    pub fn memory(&self) -> CacheMemory {
        self.reads.values().next().map(|read| read.cache.memory()).unwrap_or_default()
    }

    /// Whether an answer of some read can have this key.
    pub fn has_key(&self, key: &str) -> bool {
        self.configs().any(|config| statement::is_key(config, key))
    }

    /// Whether keys of some read can begin so.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.configs().any(|config| statement::is_key_prefix(config, prefix))
    }

    /// Whether answers of some read belong to this group, as far as rules name groups now.
    pub fn has_group(&self, group: &str) -> bool {
        self.reads.values().any(|read| read.groups().iter().any(|known| known == group))
    }

    /// Ends what is read anew on time.
    pub fn stop(&self) {
        for read in self.reads.values() {
            if let Some(follower) = read.follower.lock().unwrap_or_else(PoisonError::into_inner).take() {
                follower.abort();
            }
        }
    }
}

/// The group of what depends on a table.
pub fn table_group(table: &str) -> String {
    format!("table:{}", table.to_ascii_lowercase())
}

impl Read {
    /// Its configuration.
    pub fn config(&self) -> &ReadConfig {
        &self.config
    }

    /// Answers for these values of the parameters, in the order of their names, where that needs no waiting: what most
    /// requests get. `None`: see [`Read::answer`].
    pub fn answer_at_once(self: &Arc<Self>, values: &[SqlValue]) -> Option<ReadReply> {
        let now_ms = self.parts.clock.now_ms();
        self.ask_rule_in_time(now_ms);
        if self.config.class == Staleness::Live {
            return None;
        }
        if self.ruling.bypasses().is_some() {
            return None;
        }
        let (found, status) = KEY.with_borrow_mut(|key| {
            key.clear();
            statement::push_key(key, &self.config, values);
            let found = self.cache.get(key, now_ms)?;
            let status = self.may_tell(key, values, &found, now_ms)?;
            Some((found, status))
        })?;
        Some(self.tell(found.0, status, now_ms))
    }

    /// Answers for values that there is no answer at once for.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn answer(self: &Arc<Self>, values: Vec<SqlValue>) -> Result<ReadReply, ReadFailure> {
        let now_ms = self.parts.clock.now_ms();
        self.ask_rule_in_time(now_ms);
        if self.config.class == Staleness::Live {
            return self.bypass(&values, "live", None).await;
        }
        if let Some(reason) = self.ruling.bypasses() {
            return self.bypass(&values, "rule", Some(reason)).await;
        }
        let key = statement::key(&self.config, &values);
        self.answer_shared(key, values, now_ms).await
    }

    /// Answers from what is kept, or reads for all who ask now.
    async fn answer_shared(
        self: &Arc<Self>,
        key: String,
        values: Vec<SqlValue>,
        mut now_ms: u64,
    ) -> Result<ReadReply, ReadFailure> {
        let mut collapsed = false;
        for _ in 0..LOOKS_MAX {
            let found = self.cache.get(&key, now_ms);
            let status = found.as_ref().and_then(|found| self.may_tell(&key, &values, found, now_ms));
            let found = match (status, found) {
                (Some(status), Some((entry, _))) => {
                    return Ok(self.tell(entry, CacheStatus { collapsed, ..status }, now_ms));
                }
                (_, found) => found,
            };
            let why = if found.is_some() { Forwarded::Stale } else { Forwarded::UriMiss };
            match self.cache.seat(&key) {
                Seat::Lead(lead) => {
                    let (read, of) = (Arc::clone(self), key.clone());
                    // On a task of its own: others wait for it, also when this client goes away.
                    let task = tokio::spawn(async move { read.load((&of, values), lead, Source::Any).await });
                    return match task.await {
                        Ok(Ok(Loaded { entry, is_shared })) => {
                            let now_ms = self.parts.clock.now_ms();
                            let status = if is_shared {
                                CacheStatus::hit(ttl_ms(&entry, now_ms)).because("shared")
                            } else {
                                CacheStatus { stored: true, ..CacheStatus::forwarded(why) }
                            };
                            Ok(self.tell(entry, status, now_ms))
                        }
                        Ok(Err(error)) => {
                            // Another host's may have come meanwhile, too stale to be told for any other reason.
                            let found = found.or_else(|| self.cache.get(&key, now_ms));
                            self.tell_on_error(found, ReadFailure::after(error, why))
                        }
                        Err(_) => Err(ReadFailure::after(Refusal::SqlUnavailable, why)),
                    };
                }
                Seat::Wait(wait) => match tokio::time::timeout(self.wait, wait.landed()).await {
                    Ok(Flown::Kept) => collapsed = true,
                    Ok(Flown::Failed) => {
                        let mut failure = ReadFailure::after(self.why_failed(&key), why);
                        failure.status.collapsed = true;
                        return self.tell_on_error(found, failure);
                    }
                    Ok(Flown::Lost | Flown::Unshared) => {}
                    Err(_) => return Err(Refusal::Overloaded { queue: "cache.wait_ms" }.into()),
                },
                Seat::Full => return Err(Refusal::Overloaded { queue: "cache.waiters_max" }.into()),
            }
            now_ms = self.parts.clock.now_ms();
        }
        Err(Refusal::Overloaded { queue: "cache.wait_ms" }.into())
    }

    /// Whether what is kept may be told without waiting; begins to read it anew where that is time.
    fn may_tell(
        self: &Arc<Self>,
        key: &str,
        values: &[SqlValue],
        (entry, freshness): &(Arc<Entry<Body>>, Freshness),
        now_ms: u64,
    ) -> Option<CacheStatus> {
        let (refresh, detail) = match freshness {
            Freshness::Fresh => {
                let lifetime_ms = entry.times.fresh_until_ms.saturating_sub(entry.value.read_ms);
                (entry.is_due_early(now_ms, lifetime_ms), None)
            }
            Freshness::Stale => (true, Some("stale-while-revalidate")),
            Freshness::OnError if self.held_until_ms.load(Ordering::Relaxed) > now_ms => (false, Some("sql-failed")),
            _ => return None,
        };
        if refresh && let Some(lead) = self.cache.lead(key) {
            let (read, key, values) = (Arc::clone(self), key.to_owned(), values.to_vec());
            tokio::spawn(async move { drop(read.load((&key, values), lead, Source::Any).await) });
        }
        let hit = CacheStatus::hit(ttl_ms(entry, now_ms));
        Some(CacheStatus { detail, ..if *freshness == Freshness::Fresh { hit } else { hit.stale() } })
    }

    fn tell(&self, entry: Arc<Entry<Body>>, status: CacheStatus, now_ms: u64) -> ReadReply {
        let body = &entry.value;
        if self.config.refresh_ms > 0 {
            body.used_ms.store(now_ms, Ordering::Relaxed);
        }
        self.ruling.told(status, body.json.len());
        let age_s = now_ms.saturating_sub(body.read_ms) / 1_000;
        ReadReply { answer: Answer::Kept(entry), age_s, status, reason: None, live: false }
    }

    fn tell_on_error(
        &self,
        found: Option<(Arc<Entry<Body>>, Freshness)>,
        failure: ReadFailure,
    ) -> Result<ReadReply, ReadFailure> {
        match found {
            Some((entry, freshness)) if freshness < Freshness::Spent => {
                let now_ms = self.parts.clock.now_ms();
                self.held_until_ms.store(now_ms + HOLD_MS, Ordering::Relaxed);
                let status = CacheStatus::hit(ttl_ms(&entry, now_ms)).stale();
                Ok(self.tell(entry, status.because("sql-failed"), now_ms))
            }
            _ => {
                self.ruling.profile().failed();
                Err(failure)
            }
        }
    }

    /// Why the reading that others waited for has failed.
    fn why_failed(&self, key: &str) -> ReadError {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let of_key = failed.as_ref().filter(|(of, _)| of == key);
        of_key.map_or_else(|| Refusal::SqlUnavailable.into(), |(_, error)| error.clone())
    }

    /// Reads for this request alone.
    async fn bypass(
        &self,
        values: &[SqlValue],
        detail: &'static str,
        reason: Option<String>,
    ) -> Result<ReadReply, ReadFailure> {
        let read = self.read_sql(values).await.inspect_err(|_| self.ruling.profile().failed());
        let read = read.map_err(|error| ReadFailure::after(error, Forwarded::Bypass))?;
        let status = CacheStatus::forwarded(Forwarded::Bypass).because(detail);
        self.ruling.told(status, read.json.len());
        Ok(ReadReply { answer: Answer::Own(read), age_s: 0, status, reason, live: true })
    }

    fn ask_rule_in_time(self: &Arc<Self>, now_ms: u64) {
        if self.ruling.is_due(now_ms) {
            // Nobody waits for it.
            drop(self.ask_rule_aside());
        }
    }

    /// Shows the profile to the rule, on a thread that may wait for what a module was granted.
    fn ask_rule_aside(self: &Arc<Self>) -> JoinHandle<()> {
        let read = Arc::clone(self);
        tokio::task::spawn_blocking(move || read.ruling.ask(read.parts.clock.now_ms()))
    }

    fn state(&self) -> ReadState {
        ReadState {
            name: self.config.name.clone(),
            ruling: self.ruling.state(),
            key: statement::key_form(&self.config),
            groups: self.groups(),
        }
    }

    /// The groups of its answers: its own, those that the rule names now, and those of its tables.
    fn groups(&self) -> Vec<String> {
        let mut groups = self.ruling.groups();
        groups.extend(self.config.tables.iter().map(|table| table_group(table)));
        groups
    }
}

fn subject(config: &ReadConfig) -> Subject {
    Subject { name: config.name.clone(), class: Some(config.class), group: read_group(&config.name), of_origin: false }
}

/// The group of all answers of a read.
fn read_group(name: &str) -> String {
    format!("read:{name}")
}

fn ttl_ms(entry: &Entry<Body>, now_ms: u64) -> i64 {
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    signed(entry.times.fresh_until_ms) - signed(now_ms)
}
