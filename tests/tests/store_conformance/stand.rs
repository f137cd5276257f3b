//! A store to test, on a real server or a real disk, with a hand-moved clock and a little SQL in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use weir::config::{Namespace, StoreConfig, StoreType};
use weir::journal::Entry;
use weir::model::{
    Action, Change, Digest, Effect, Id, Incarnation, PairState, Partition, Position, RateLimit, ToggleChange,
    ToggleRule, partition_of,
};
use weir::store::{
    Head, Hydrated, Hydration, Idempotency, JournalRead, LoadedState, PairLoad, ReadResult, Store, StoreError,
    TargetLoad, ToggleBatch, ToggleOp, ToggleOutcome, ToggleResult,
};
use weir_tests::certificates::Certificates;
use weir_tests::services::{ClusterOptions, Redis, RedisCluster, RedisOptions, RedisRelease, temporary_directory};

/// The kind that most tests use.
pub const KIND: &str = "feed-like";
/// The namespace in Redis.
pub const NAMESPACE: &str = "test";
/// Where the clock starts.
pub const START_MS: u64 = 1_800_000_000_000;
/// The module that decides.
pub const DIGEST: Digest = Digest([0xd1; 32]);
/// Present becomes absent and the other way round.
pub const TOGGLE: ToggleRule = ToggleRule { when_absent: Effect::Add, when_present: Effect::Remove, limit: None };

/// A namespace of a configuration.
pub fn namespace(name: &str) -> Option<Namespace> {
    Some(Namespace::try_from(name.to_owned()).unwrap())
}

/// Where a store keeps its data.
pub trait Backend: Send + Sync + Sized {
    /// Whether the state of targets outlives a crash; where not, it is read from SQL again, and the journal's tail lies
    /// over it.
    const STATE_SURVIVES: bool;
    /// Random histories, and the steps of each. Where a crash takes seconds, fewer.
    const HISTORIES: (u64, usize) = (4, 250);
    /// Its name and version.
    fn version(&self) -> String;
    /// Starts what it needs, and says how to configure a store on it.
    fn start() -> (Self, StoreConfig);
    /// The data is lost. The store is closed meanwhile where it must be.
    fn lose_all(&mut self);
    /// The power goes and comes back.
    fn crash(&mut self);
}

/// A directory.
pub struct Embedded(pub TempDir);

impl Backend for Embedded {
    const STATE_SURVIVES: bool = false;

    fn version(&self) -> String {
        format!("embedded store {}", env!("CARGO_PKG_VERSION"))
    }

    fn start() -> (Self, StoreConfig) {
        let directory = temporary_directory("store");
        let config = StoreConfig { path: directory.path().join("store"), ..StoreConfig::default() };
        (Self(directory), config)
    }

    fn lose_all(&mut self) {
        std::fs::remove_dir_all(self.0.path().join("store")).unwrap();
    }

    fn crash(&mut self) {}
}

/// A server that speaks the language of Redis, with `appendfsync always`.
pub struct OnServer<const RELEASE: usize>(pub Redis);

/// The Redis that the machine has.
pub type OnRedis = OnServer<0>;
/// Redis 8.
pub type OnRedis8 = OnServer<1>;
/// Valkey.
pub type OnValkey = OnServer<2>;

const RELEASES: [RedisRelease; 3] = [RedisRelease::Installed, RedisRelease::Redis8, RedisRelease::Valkey];
/// Their names, and the oldest that each may be.
const LEAST: [(&str, u32); 3] = [("Redis", 7), ("Redis", 8), ("Valkey", 9)];

impl<const RELEASE: usize> OnServer<RELEASE> {
    /// On a Redis with these options.
    pub fn with(options: RedisOptions) -> (Self, StoreConfig) {
        let redis = Redis::start(RedisOptions { release: RELEASES[RELEASE], ..options });
        let config = StoreConfig {
            store_type: StoreType::Redis,
            url: redis.url(),
            namespace: namespace(NAMESPACE),
            ..StoreConfig::default()
        };
        (Self(redis), config)
    }
}

impl<const RELEASE: usize> Backend for OnServer<RELEASE> {
    const STATE_SURVIVES: bool = true;

    fn version(&self) -> String {
        let version = version(&self.0);
        let major = version.split([' ', '.']).nth(1).and_then(|major| major.parse::<u32>().ok()).unwrap_or_default();
        let (name, least) = LEAST[RELEASE];
        assert!(version.starts_with(name) && major >= least, "another server than was meant: {version}");
        version
    }

    fn start() -> (Self, StoreConfig) {
        Self::with(RedisOptions::default())
    }

    fn lose_all(&mut self) {
        self.0.command::<()>(&["FLUSHALL"]);
    }

    fn crash(&mut self) {
        self.0.restart();
    }
}

/// The same over TLS, where both sides show certificates.
pub struct OnTls {
    redis: Redis,
    _certificates: Certificates,
}

impl Backend for OnTls {
    const STATE_SURVIVES: bool = true;

    fn version(&self) -> String {
        format!("{} over TLS", version(&self.redis))
    }

    fn start() -> (Self, StoreConfig) {
        let certificates = Certificates::new();
        let certificate = Some(certificates.server.clone());
        let options = RedisOptions { certificate, wants_client_certificate: true, ..RedisOptions::default() };
        let (OnServer(redis), config) = OnRedis::with(options);
        let config = StoreConfig {
            url: redis.tls_url(),
            tls_ca_file: Some(certificates.ca.clone()),
            tls_client_certificate_file: Some(certificates.client.certificate.clone()),
            tls_client_key_file: Some(certificates.client.key.clone()),
            ..config
        };
        (Self { redis, _certificates: certificates }, config)
    }

    fn lose_all(&mut self) {
        self.redis.command::<()>(&["FLUSHALL"]);
    }

    fn crash(&mut self) {
        self.redis.restart();
    }
}

/// A Redis Cluster whose nodes sync each write, and of which a replica must have received it. Starting one takes seconds,
/// so that tests hand it on, empty.
pub struct OnCluster(Option<RedisCluster>);

/// Those that no test needs now.
static CLUSTERS: Mutex<Vec<RedisCluster>> = Mutex::new(Vec::new());

impl OnCluster {
    /// The cluster.
    pub fn cluster(&mut self) -> &mut RedisCluster {
        self.0.as_mut().unwrap()
    }
}

impl Backend for OnCluster {
    const STATE_SURVIVES: bool = true;
    const HISTORIES: (u64, usize) = (1, 60);

    fn version(&self) -> String {
        format!("{} as a cluster", version(&Redis::start(RedisOptions::default())))
    }

    fn start() -> (Self, StoreConfig) {
        let left = CLUSTERS.lock().unwrap().pop();
        // Longer than a slow machine may keep a node from answering: nothing fails over here.
        let options = ClusterOptions { node_timeout_ms: 10_000, ..ClusterOptions::default() };
        let cluster = left.unwrap_or_else(|| RedisCluster::start(&options));
        let url = cluster.url();
        let config = StoreConfig {
            store_type: StoreType::RedisCluster,
            url,
            namespace: namespace(NAMESPACE),
            ..StoreConfig::default()
        };
        (Self(Some(cluster)), StoreConfig { replicas_min: 1, replicas_timeout_ms: 5_000, ..config })
    }

    fn lose_all(&mut self) {
        self.cluster().flush_all();
    }

    fn crash(&mut self) {
        self.cluster().restart();
    }
}

impl Drop for OnCluster {
    fn drop(&mut self) {
        if let Some(cluster) = self.0.take()
            && !std::thread::panicking()
        {
            cluster.flush_all();
            CLUSTERS.lock().unwrap().push(cluster);
        }
    }
}

fn version(redis: &Redis) -> String {
    let info: String = redis.command(&["INFO", "server"]);
    let of = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    match of("valkey_version") {
        Some(version) => format!("Valkey {version}"),
        None => format!("Redis {}", of("redis_version").unwrap()),
    }
}

/// Says on which server, of which version, so many tests run.
pub fn says_its_version<B: Backend>(tests: usize) {
    let (backend, _config) = B::start();
    let version = backend.version();
    assert!(version.chars().any(|c| c.is_ascii_digit()), "{version}");
    println!("conformance: {version} ({tests} tests)");
}

/// A store under test.
pub struct Stand<B> {
    pub backend: B,
    pub config: StoreConfig,
    store: Option<Arc<dyn Store>>,
    now_ms: AtomicU64,
}

impl<B: Backend> Stand<B> {
    pub async fn new() -> Self {
        Self::tuned(|_| {}).await
    }

    pub async fn tuned(tune: impl FnOnce(&mut StoreConfig)) -> Self {
        let (backend, config) = B::start();
        Self::on(backend, config, tune).await
    }

    pub async fn on(backend: B, mut config: StoreConfig, tune: impl FnOnce(&mut StoreConfig)) -> Self {
        config.response_timeout_ms = 10_000;
        config.is_time_told = true;
        tune(&mut config);
        let mut stand = Self { backend, config, store: None, now_ms: AtomicU64::new(START_MS) };
        stand.open().await;
        stand
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        self.store.as_ref().unwrap()
    }

    pub fn close(&mut self) {
        self.store = None;
    }

    pub async fn open(&mut self) {
        self.store = Some(weir::store::open(&self.config).await.unwrap());
    }

    /// The power goes and comes back, and the host starts again.
    pub async fn crash(&mut self) {
        self.close();
        self.backend.crash();
        self.open().await;
    }

    /// The data is lost.
    pub async fn lose_all(&mut self) {
        self.close();
        self.backend.lose_all();
        self.open().await;
    }

    pub fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    pub fn advance_ms(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }

    pub fn partition(&self, target: i64) -> Partition {
        partition_of(&Id::Int(target), self.config.partitions)
    }

    pub async fn head(&self, partition: Partition) -> Head {
        self.store().heads(KIND, &[partition]).await.unwrap()[0]
    }

    pub async fn try_toggle(&self, ops: Vec<ToggleOp>) -> Result<Vec<ToggleResult>, StoreError> {
        let batch = ToggleBatch { digest: DIGEST, at_ms: self.now_ms(), now_ms: self.now_ms(), ops };
        self.store().toggle(KIND, batch).await.map(|commit| commit.results)
    }

    pub async fn toggle(&self, ops: Vec<ToggleOp>) -> Vec<ToggleResult> {
        self.try_toggle(ops).await.unwrap()
    }

    pub async fn one(&self, op: ToggleOp) -> ToggleResult {
        self.toggle(vec![op]).await.remove(0)
    }

    /// Toggles one pair, which must be evaluated.
    pub async fn done(&self, target: i64, actor: i64) -> ToggleOutcome {
        outcome(&self.one(op(target, actor, TOGGLE)).await)
    }

    pub async fn read(&self, target: i64, actor: i64) -> ReadResult {
        let pair = (Id::Int(target), Some(Id::Int(actor)));
        self.store().read(KIND, self.now_ms(), &[pair]).await.unwrap().remove(0)
    }

    /// What SQL says of targets, as of the newest checkpoint there can be.
    pub async fn load(&self, loads: Vec<(i64, LoadedState)>) {
        for (target, state) in loads {
            let partition = self.partition(target);
            let load = TargetLoad { target: Id::Int(target), state };
            assert_eq!(self.hydrate(partition, vec![load], vec![]).await, Hydrated::Accepted, "target {target}");
        }
    }

    /// Loads a target with these members, each added at its own number.
    pub async fn load_whole(&self, target: i64, members: &[i64]) {
        let members = members.iter().map(|&actor| (Id::Int(actor), actor.unsigned_abs())).collect();
        self.load(vec![(target, LoadedState::Whole(members))]).await;
    }

    pub async fn load_pair(&self, target: i64, actor: i64, since_ms: Option<u64>) {
        let pair = PairLoad { target: Id::Int(target), actor: Id::Int(actor), present_since_ms: since_ms };
        assert_eq!(self.hydrate(self.partition(target), vec![], vec![pair]).await, Hydrated::Accepted);
    }

    /// Hydrates as of the checkpoint at `flushed`.
    pub async fn hydrate(&self, partition: Partition, targets: Vec<TargetLoad>, pairs: Vec<PairLoad>) -> Hydrated {
        let head = self.head(partition).await;
        self.hydrate_at(partition, (head.incarnation, head.flushed), targets, pairs).await
    }

    pub async fn hydrate_at(
        &self,
        partition: Partition,
        (incarnation, position): (Incarnation, Position),
        targets: Vec<TargetLoad>,
        pairs: Vec<PairLoad>,
    ) -> Hydrated {
        let now_ms = self.now_ms();
        let hydration = Hydration { partition, incarnation, position, aside: None, targets, pairs, now_ms };
        self.store().hydrate(KIND, vec![hydration]).await.unwrap().remove(0)
    }

    /// Toggles above `flushed`, in pages of `changes_max` changes.
    pub async fn changes(&self, partition: Partition, changes_max: usize) -> Vec<(Position, ToggleChange)> {
        let toggle = |(position, change)| match change {
            Change::Toggle(change) => (position, change),
            other => panic!("{other:?}"),
        };
        self.records(partition, changes_max).await.into_iter().map(toggle).collect()
    }

    /// Changes above `flushed` with the places of their entries, in pages of `changes_max` changes.
    pub async fn records(&self, partition: Partition, changes_max: usize) -> Vec<(Position, Change)> {
        let changes_of = |Entry { position, changes, .. }| changes.into_iter().map(move |change| (position, change));
        self.entries(partition, changes_max).await.into_iter().flat_map(changes_of).collect()
    }

    /// Entries above `flushed`, in pages of `changes_max` changes.
    pub async fn entries(&self, partition: Partition, changes_max: usize) -> Vec<Entry> {
        let head = self.head(partition).await;
        let (mut position, mut found) = (head.flushed, Vec::new());
        loop {
            let read = self.store().read_journal(KIND, partition, head.incarnation, position, changes_max).await;
            let JournalRead::Entries(entries) = read.unwrap() else { panic!("the journal must be readable") };
            let Some(newest) = entries.last() else { return found };
            position = newest.position;
            assert!(entries.iter().all(|entry| entry.digest == DIGEST));
            found.extend(entries);
        }
    }

    /// The changes of these entries, and when each was accepted.
    pub async fn changes_of(&self, positions: &[Position]) -> Vec<(ToggleChange, u64)> {
        let head = self.head(0).await;
        let read = self.store().read_journal(KIND, 0, head.incarnation, 0, 1_000).await.unwrap();
        let JournalRead::Entries(entries) = read else { panic!("{read:?}") };
        let entries = entries.into_iter().filter(|entry| positions.contains(&entry.position));
        let toggle = |change| if let Change::Toggle(change) = change { change } else { panic!("{change:?}") };
        let changes_of = |Entry { changes, at_ms, .. }| changes.into_iter().map(move |change| (toggle(change), at_ms));
        entries.flat_map(changes_of).collect()
    }

    /// Writes what can be read of partition 0 into `sql`, up to a hole, and trims it.
    pub async fn flush_readable(&self, sql: &mut Sql) {
        let head = self.head(0).await;
        let read = self.store().read_journal(KIND, 0, head.incarnation, 0, 1_000).await.unwrap();
        let JournalRead::Entries(entries) = read else { panic!("{read:?}") };
        let mark = entries.last().expect("something to flush").into();
        for entry in &entries {
            sql.apply_entry(entry);
        }
        self.store().trim_to(KIND, 0, head.incarnation, mark, &[], &[]).await.unwrap();
    }

    /// Loads target 1 anew once all that waits is flushed, and makes so many entries with a change each: their places.
    pub async fn done_after_load(&self, entries: i64) -> Vec<Position> {
        self.flush(&mut Sql::default()).await;
        self.load_whole(1, &[]).await;
        let mut positions = Vec::new();
        for actor in 0..entries {
            positions.push(self.done(1, 9_000 + actor).await.position);
        }
        positions
    }

    /// Writes all that waits into `sql` and trims it.
    pub async fn flush(&self, sql: &mut Sql) {
        for partition in 0..self.config.partitions {
            self.flush_partition(sql, partition).await;
        }
    }

    pub async fn flush_partition(&self, sql: &mut Sql, partition: Partition) {
        let head = self.head(partition).await;
        let entries = self.entries(partition, 100).await;
        let Some(position) = entries.last().map(|entry| entry.position) else { return };
        let changes = entries.iter().flat_map(|entry| &entry.changes);
        let touched: BTreeSet<Id> = changes.map(|change| change.target().clone()).collect();
        for entry in &entries {
            sql.apply_entry(entry);
        }
        let touched: Vec<Id> = touched.into_iter().collect();
        self.store().trim(KIND, partition, head.incarnation, position, &touched, &[]).await.unwrap();
    }

    /// Lets time pass until `done` says yes: the hand-moved clock for the embedded store, real time for Redis.
    pub async fn until(&self, what: &str, mut done: impl AsyncFnMut() -> bool) {
        for _ in 0..1_200 {
            if done().await {
                return;
            }
            self.advance_ms(100);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never: {what}");
    }
}

/// What SQL would hold.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Sql(pub BTreeMap<Id, BTreeMap<Id, u64>>);

impl Sql {
    /// Applies the toggles of an entry.
    pub fn apply_entry(&mut self, entry: &Entry) {
        for change in &entry.changes {
            let Change::Toggle(change) = change else { panic!("{change:?}") };
            self.apply(change, entry.at_ms);
        }
    }

    /// Applies a toggle that was accepted at `at_ms`.
    pub fn apply(&mut self, change: &ToggleChange, at_ms: u64) {
        let rows = self.0.entry(change.target.clone()).or_default();
        match change.action {
            Action::Add => {
                rows.entry(change.actor.clone()).or_insert(at_ms);
            }
            Action::Remove => {
                rows.remove(&change.actor);
            }
        }
    }

    pub fn members(&self, target: &Id) -> Vec<(Id, u64)> {
        let rows = self.0.get(target).into_iter().flatten();
        rows.map(|(actor, since_ms)| (actor.clone(), *since_ms)).collect()
    }
}

pub fn op(target: i64, actor: i64, rule: ToggleRule) -> ToggleOp {
    ToggleOp { target: Id::Int(target), actor: Id::Int(actor), rule, idempotency: None }
}

pub fn rule(when_absent: Effect, when_present: Effect) -> ToggleRule {
    ToggleRule { when_absent, when_present, limit: None }
}

pub fn limited(burst: u32, period_ms: u32) -> ToggleRule {
    ToggleRule { limit: Some(RateLimit { burst, period_ms }), ..TOGGLE }
}

pub fn keyed(op: ToggleOp, key: u8, fingerprint: u8) -> ToggleOp {
    ToggleOp { idempotency: Some(Idempotency { key: [key; 16], fingerprint: [fingerprint; 16] }), ..op }
}

pub fn outcome(result: &ToggleResult) -> ToggleOutcome {
    match result {
        ToggleResult::Done(outcome) => *outcome,
        other => panic!("not evaluated: {other:?}"),
    }
}

pub fn state(active: bool, count: u64) -> PairState {
    PairState { active, count }
}

pub fn known(active: bool, count: u64) -> ReadResult {
    ReadResult::Known(state(active, count))
}
