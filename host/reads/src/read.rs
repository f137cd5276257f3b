//! Read: named SQL reads, cached where a rule says so.
//!
//! Uses `weir-cache`, `weir-sql` and `weir-store`. Never writes, never answers HTTP. When the measurements of a read
//! have moved, the rule sees them (`cache`) and says whether and for how long answers are cached. A `live` read is never
//! cached and never shared, whatever the rule says.
//!
//! - `answer`: one request. `reply`: its answer.
//! - `statement`: parameters, and the statement in the engine's syntax. `rows`: rows as JSON.
//! - `load`: loading for all waiters, and refreshing before anybody waits. `shared`: the cache that hosts share.

mod answer;
mod load;
mod reply;
mod rows;
mod shared;
pub mod statement;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

pub(crate) use reply::Body;
pub use reply::{ReadError, ReadFailure, ReadReply};
pub use shared::Shared;
use weir_cache::{Cache, CacheLimits, Rules, Ruling, Subject, Totals};
use weir_core::clock::Clock;
use weir_core::config::{CacheConfig, ConfigError, ReadConfig, StatementConfig};
use weir_core::model::SqlValue;
use weir_core::operators::{CacheMemory, ReadCache};
use weir_sql::Sql;

/// All reads.
#[derive(Clone, Default)]
pub struct Reads {
    reads: Arc<BTreeMap<String, Arc<Read>>>,
}

/// What all reads share.
#[derive(Clone)]
pub struct ReadParts {
    /// The database.
    pub sql: Arc<dyn Sql>,
    /// The rule, and invalidations, shared by all caches.
    pub rules: Rules,
    /// The time.
    pub clock: Clock,
    /// The cache that hosts share, where there is one.
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
    /// After a failure of SQL, stale answers are served without a query until then, in milliseconds.
    backoff_until_ms: AtomicU64,
    /// The last load that failed: its key, and why, for its waiters.
    failed: Mutex<Option<(String, ReadError)>>,
    /// The keys that are refreshed on time, with their parameters.
    refreshed: Mutex<HashMap<String, Vec<SqlValue>>>,
    refresher: Mutex<Option<JoinHandle<()>>>,
}

impl Reads {
    /// Prepares every read; sends nothing to SQL yet.
    ///
    /// # Errors
    /// Parameters that the statement does not name, or the other way round.
    pub async fn start(configs: &[ReadConfig], cache: &CacheConfig, parts: &ReadParts) -> Result<Self, ConfigError> {
        let limits = CacheLimits { bytes_max: cache.reads_bytes_max, waiters_max: cache.waiters_max };
        let cached = Arc::new(Cache::new("reads", limits, Arc::clone(&parts.rules.invalidations)));
        let totals = Arc::new(Totals::default());
        let open = |config: &ReadConfig| {
            let (statement, order) = statement::prepare(config, parts.sql.engine())?;
            let read = Arc::new(Read {
                config: config.clone(),
                statement,
                order,
                columns: tokio::sync::OnceCell::new(),
                cache: Arc::clone(&cached),
                parts: parts.clone(),
                ruling: Ruling::new(subject(config), parts.rules.clone(), Arc::clone(&totals)),
                wait: Duration::from_millis(cache.wait_ms),
                backoff_until_ms: AtomicU64::new(0),
                failed: Mutex::default(),
                refreshed: Mutex::default(),
                refresher: Mutex::default(),
            });
            Ok((config.name.clone(), read))
        };
        let reads: BTreeMap<String, Arc<Read>> = configs.iter().map(open).collect::<Result<_, ConfigError>>()?;
        for read in reads.values() {
            let _ = read.ask_rule_aside().await;
            read.start_refreshing();
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
    pub fn states(&self) -> Vec<ReadCache> {
        self.reads.values().map(|read| read.state()).collect()
    }

    /// The size of the cache: entries, and their memory in bytes.
    pub fn memory(&self) -> CacheMemory {
        self.reads.values().next().map(|read| read.cache.memory()).unwrap_or_default()
    }

    /// Whether an answer of some read can have this key.
    pub fn has_key(&self, key: &str) -> bool {
        self.configs().any(|config| statement::is_key(config, key))
    }

    /// Whether keys of some read can start with this prefix.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.configs().any(|config| statement::is_key_prefix(config, prefix))
    }

    /// Whether answers of some read belong to this group, by the groups that rules name now.
    pub fn has_group(&self, group: &str) -> bool {
        self.reads.values().any(|read| read.groups().iter().any(|known| known == group))
    }

    /// Stops all refreshes.
    pub fn stop(&self) {
        for read in self.reads.values() {
            if let Some(refresher) = read.refresher.lock().unwrap_or_else(PoisonError::into_inner).take() {
                refresher.abort();
            }
        }
    }
}

/// The group of all answers that depend on a table.
pub fn table_group(table: &str) -> String {
    format!("table:{}", table.to_ascii_lowercase())
}

impl Read {
    /// Its configuration.
    pub fn config(&self) -> &ReadConfig {
        &self.config
    }

    fn ask_rule_in_time(self: &Arc<Self>, now_ms: u64) {
        if self.ruling.is_due(now_ms) {
            // No request waits for the rule.
            drop(self.ask_rule_aside());
        }
    }

    /// Shows the profile to the rule, on a thread that may wait for a module's grants.
    fn ask_rule_aside(self: &Arc<Self>) -> JoinHandle<()> {
        let read = Arc::clone(self);
        tokio::task::spawn_blocking(move || read.ruling.ask(read.parts.clock.steady_ms()))
    }

    fn state(&self) -> ReadCache {
        ReadCache {
            name: self.config.name.clone(),
            usage: self.ruling.state(),
            key: statement::key_form(&self.config),
            groups: self.groups(),
        }
    }

    /// The groups of its answers: its own, the rule's, and one per table.
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
