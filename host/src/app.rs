//! Composition: opens what the configuration names, checks it, starts the modules, and stops them in order.
//!
//! May use everything. Holds no logic of its own. Drain order: listeners first, then the flushers (so that what
//! was acknowledged last is flushed too), then the pools.
//!
//! - [`schema`]: weir's own tables and the self-checks, at once or as soon as SQL answers.
//! - [`custody`]: whose the journal is, and whether all of it has somebody who flushes it.
//! - [`holdings`]: what operators do with a store when no host runs.
//! - [`grants`]: what stands behind the imports `redis` and `sql` of policy modules.
//! - [`relay`]: invalidations between hosts.
//! - [`reload`]: what changes while the host runs.
//! - `holes`: what journals have lost.
//! - `purge`: what a purge of an operator invalidates.
//! - [`operations`]: what operators may ask and do, with a running host or without.
//! - [`waiting`]: how long a start waits for SQL and the store.
//! - [`serve`](mod@serve): the host as a process: listeners, metrics, signals.

pub mod custody;
pub mod demo;
pub mod eligibility;
pub mod grants;
pub mod holdings;
mod holes;
pub mod operations;
mod purge;
pub mod relay;
pub mod reload;
pub mod schema;
pub mod serve;
pub mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::cache::{InvalidationLog, Rules};
use crate::capability::{Fit, KindParts};
use crate::clock::Clock;
use crate::config::{Config, ConfigError, KindTable, PolicyFailure};
use crate::flush::{FlushError, FlushParts, FlushStatus, Flusher};
use crate::http::Kinds;
use crate::journal::JournalWatch;
use crate::policy::{Compiler, KindPolicy, LoadError, Policies, PolicySetup};
use crate::read::{ReadParts, Reads, Shared};
use crate::room::{RoomKind, RoomParts};
use crate::sql::{Sql, SqlError};
use crate::store::{Store, StoreError};
use crate::upstream::Upstreams;
use eligibility::ByPolicy;
use relay::Relays;
use schema::{KindFinding, Schema};

/// Why the host does not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// See [`ConfigError`].
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The policy component is refused.
    #[error(transparent)]
    Policy(#[from] LoadError),
    /// The store is misconfigured or damaged.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// SQL refuses, for a reason that waiting does not mend.
    #[error("sql: {0}")]
    Sql(#[from] SqlError),
    /// The number of partitions is part of the data.
    #[error(
        "store.partitions is {configured}, but this database was written with {recorded}: set store.partitions = \
         {recorded}. (To change it: drain, stop every host, empty the store, delete the rows of weir_checkpoint and \
         the row \"partitions\" of weir_meta.)"
    )]
    Partitions {
        /// What the configuration says.
        configured: u16,
        /// What the database says.
        recorded: u16,
    },
    /// The schema self-check found what weir must not start with.
    #[error("{}", schema::describe(.0))]
    Schema(Vec<KindFinding>),
    /// What a start waited for has not come, and the configuration says that this is the end.
    #[error("waited {waited_s} s for {missing}: start it, or let weir go on without (start.on_timeout = \"serve\")")]
    Waited {
        /// How long, in seconds.
        waited_s: u64,
        /// What, with its address and the cause.
        missing: String,
    },
    /// A listener or the runtime.
    #[error("{what}: {reason}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        reason: String,
    },
}

/// A running host, without its listeners.
pub struct App {
    config: Config,
    clock: Clock,
    store: Arc<dyn Store>,
    sql: Arc<dyn Sql>,
    policies: Arc<Policies>,
    kinds: Kinds,
    flushers: BTreeMap<String, Flusher>,
    schema: Schema,
    invalidations: Arc<InvalidationLog>,
    relays: Relays,
}

impl App {
    /// Opens, checks and starts everything. With SQL or Redis away it starts all the same and is not ready.
    ///
    /// # Errors
    /// Whatever waiting does not mend: see [`AppError`].
    pub async fn start(config: Config, clock: Clock, compiler: Compiler) -> Result<Self, AppError> {
        let config = config.with_namespace();
        config.validate()?;
        crate::write::check(&config)?;
        let store = crate::store::open(&config.store).await?;
        let sql = crate::sql::open(&config.sql).await?;
        let granted = grants::capabilities(Arc::<dyn Store>::clone(&store), sql.clone(), &config.policy, clock.clone());
        let setup = PolicySetup {
            compiler,
            capabilities: Some((granted, Handle::current())),
            clock: clock.clone(),
            is_look: false,
        };
        let policies = load_policies(&config, setup).await?;
        policies.registry.watch()?;
        let schema = Schema::start(&config, Arc::clone(&store), Arc::clone(&sql)).await?;

        let invalidations = Arc::new(InvalidationLog::default());
        let owner = format!("{}-{}", std::process::id(), uuid::Uuid::new_v4().simple());
        let (mut served, mut flushers) = (Kinds::default(), BTreeMap::new());
        let parts = |kind: &str, table: KindTable| KindParts {
            fit: Arc::new(Fit::new(kind, table, Arc::clone(&sql), &config.batch, &config.fit)),
            kind: kind.to_owned(),
            batch: config.batch.clone(),
            journal: config.journal.clone(),
            deadline_ms: config.http.request_deadline_ms,
            policies: Arc::clone(&policies.rules),
            store: Arc::clone(&store),
            sql: Arc::clone(&sql),
            watch: Arc::new(JournalWatch::new(store.partitions(), clock.clone())),
            clock: clock.clone(),
        };
        let kinds: BTreeMap<String, KindParts> =
            config.kinds().into_iter().map(|(kind, table)| (kind.to_owned(), parts(kind, table))).collect();
        learn_limits(&kinds, &schema).await;
        for (kind, table) in config.kinds() {
            let flusher = flusher(&config, table, &kinds[kind], (&owner, &invalidations), schema.ready());
            flushers.insert(kind.to_owned(), flusher);
        }
        served.written = crate::write::start(&config, &kinds)?;
        for room in &config.rooms {
            let parts = RoomParts {
                batch: config.batch.clone(),
                store: Arc::<dyn Store>::clone(&store),
                admission: Arc::new(Arc::clone(&policies.rules)),
                clock: clock.clone(),
                owner: owner.clone(),
            };
            served.rooms.kinds.insert(room.kind.clone(), Arc::new(RoomKind::start(room.clone(), parts)?));
        }
        let relays = Relays::start(&config, &owner, &invalidations)?;
        let rules = Rules {
            eligibility: Arc::new(ByPolicy { policies: Arc::clone(&policies.rules), clock: clock.clone() }),
            invalidations: Arc::clone(&invalidations),
        };
        let shared = config.cache.shared.as_ref().map(|shared| Shared::new(&config.store, shared, clock.clone()));
        let shared = shared.transpose()?.map(Arc::new);
        let read_parts = ReadParts { sql: Arc::clone(&sql), rules: rules.clone(), clock: clock.clone(), shared };
        served.reads = Reads::start(&config.reads, &config.cache, &read_parts).await?;
        served.upstreams = Upstreams::start(&config.upstreams, (&config.cache, &config.auth), &rules, &clock).await?;
        Ok(Self { config, clock, store, sql, policies, kinds: served, flushers, schema, invalidations, relays })
    }

    /// The configuration it was started with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// All kinds.
    pub fn kinds(&self) -> &Kinds {
        &self.kinds
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// SQL.
    pub fn sql(&self) -> &Arc<dyn Sql> {
        &self.sql
    }

    /// What was invalidated of all that is kept of reads.
    pub fn invalidations(&self) -> &Arc<InvalidationLog> {
        &self.invalidations
    }

    /// Flushes everything of `kind` that waits now; how many changes that were.
    ///
    /// # Errors
    /// See [`FlushError`]; an unknown kind has no flusher that could answer.
    pub async fn flush_now(&self, kind: &str) -> Result<u64, FlushError> {
        match self.flushers.get(kind) {
            Some(flusher) => flusher.flush_now(Duration::from_millis(self.config.flush.drain_grace_ms)).await,
            None => Err(FlushError::Stopped),
        }
    }

    /// The state of each flusher.
    pub fn flush_statuses(&self) -> Vec<FlushStatus> {
        self.flushers.values().map(Flusher::status).collect()
    }

    /// Becomes `true` when the schema was checked and fits.
    pub fn schema_ready(&self) -> watch::Receiver<bool> {
        self.schema.ready()
    }

    /// Why the host must end although it has started; never, where that is not so.
    pub async fn ended(&self) -> AppError {
        self.schema.ended().await
    }

    /// Flushes what waits within the configured grace, gives back the leases, closes the pools.
    pub async fn stop(&self) {
        let grace = Duration::from_millis(self.config.flush.drain_grace_ms);
        self.schema.stop();
        futures_util::future::join_all(self.kinds.rooms.kinds.values().map(|room| room.leave())).await;
        self.kinds.reads.stop();
        futures_util::future::join_all(self.flushers.values().map(|flusher| flusher.stop(grace))).await;
        if *self.schema.ready().borrow()
            && let Err(error) = custody::close(&self.config, &*self.store, &*self.sql).await
        {
            tracing::warn!(%error, "that the journal is empty could not be noted: another store would be refused");
        }
        self.relays.stop(&self.invalidations).await;
        let registry = Arc::clone(&self.policies.registry);
        let _ = tokio::task::spawn_blocking(move || registry.close()).await;
        self.sql.close().await;
    }

    /// Ends as a crash would: nothing is flushed, no lease is given back.
    pub fn abort(&self) {
        self.schema.stop();
        self.kinds.rooms.kinds.values().for_each(|room| room.stop());
        self.flushers.values().for_each(Flusher::abort);
    }
}

/// Lets kinds know what fits into their tables: before the first request where SQL answers, and from then on.
async fn learn_limits(kinds: &BTreeMap<String, KindParts>, schema: &Schema) {
    if *schema.ready().borrow() {
        for (kind, parts) in kinds {
            if let Err(error) = parts.fit.learn().await {
                tracing::warn!(kind, %error, "it is not known yet what fits into its tables: SQL judges alone until then");
            }
        }
    }
    kinds.values().for_each(|parts| Fit::keep_learning(&parts.fit));
}

/// The flusher of a kind.
fn flusher(
    config: &Config,
    table: KindTable,
    parts: &KindParts,
    (owner, invalidations): (&str, &Arc<InvalidationLog>),
    schema_ready: watch::Receiver<bool>,
) -> Flusher {
    Flusher::start(FlushParts {
        kind: parts.kind.clone(),
        table,
        fold: crate::write::fold,
        config: config.flush.clone(),
        owner: owner.to_owned(),
        invalidations: Arc::clone(invalidations),
        policies: Arc::clone(&parts.policies),
        store: Arc::<dyn Store>::clone(&parts.store),
        sql: parts.sql.clone(),
        journal: parts.journal.clone(),
        watch: Arc::clone(&parts.watch),
        clock: parts.clock.clone(),
        schema_ready,
    })
}

/// Loads the rules on a thread that may wait: compiling takes long, and a module's start may do I/O.
pub(crate) async fn load_policies(config: &Config, setup: PolicySetup) -> Result<Arc<Policies>, AppError> {
    let (policy, kinds) = (config.policy.clone(), kind_policies(config));
    let loaded = tokio::task::spawn_blocking(move || Policies::load(&policy, &kinds, setup)).await;
    let ended = |error: tokio::task::JoinError| AppError::System {
        what: "load the policy modules".into(),
        reason: error.to_string(),
    };
    Ok(loaded.map_err(ended)??)
}

/// What the policy room needs to know of each kind.
pub(crate) fn kind_policies(config: &Config) -> Vec<KindPolicy> {
    let of = |kind: &str, settings: BTreeMap<String, String>, on_failure: PolicyFailure| KindPolicy {
        kind: kind.to_owned(),
        settings,
        on_failure,
    };
    let rooms = config.rooms.iter().map(|kind| of(&kind.kind, kind.settings.clone(), kind.on_policy_failure));
    let reads = config.reads.iter().map(|read| of(&read.name, read.settings.clone(), PolicyFailure::BuiltIn));
    let upstreams = config
        .upstreams
        .iter()
        .map(|upstream| of(&format!("upstream:{}", upstream.name), upstream.settings.clone(), PolicyFailure::BuiltIn));
    crate::write::rules(config).into_iter().chain(rooms).chain(reads).chain(upstreams).collect()
}
