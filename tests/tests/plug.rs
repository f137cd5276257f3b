//! A toy capability, written outside of weir: what a capability must say of itself is all that it takes to be decided,
//! journaled, hydrated, waited for and flushed.
//!
//! Applause on a video: each clap is one hand or more, anybody may clap, nobody is asked.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use weir::app::App;
use weir::cache::InvalidationLog;
use weir::capability::{
    Capability, Fit, Fold, Hydrations, Kind, KindContext, KindParts, Load, OtherCapability, Outcomes, Receipt, Settled,
    StepBatch, Written, put_targets,
};
use weir::clock::Clock;
use weir::config::{Config, ConfigError, CounterConfig, CounterTable, DurabilityLevel, KindTable, PolicyFailure};
use weir::error::Refusal;
use weir::flush::{FlushParts, Flusher};
use weir::journal::JournalWatch;
use weir::model::{Change, CountRule, Id, Origin, Partition};
use weir::policy::{Compiler, Decided, Decider, KindPolicy, Policies, PolicySetup, Rules};
use weir::sql::{CountRow, Row, Sql};
use weir::store::{
    Commit, CountBatch, CountOp, CountOutcome, CountResult, Idempotency, LoadedState, Store, StoreError, TargetLoad,
};
use weir_tests::database::Database;
use weir_tests::kinds;
use weir_tests::services::temporary_directory;

/// The kind.
const KIND: &str = "applause";

/// One clap.
struct Clap {
    video: Id,
    hands: u32,
}

/// What is configured of a kind.
#[derive(Clone)]
struct ApplauseConfig {
    kind: String,
    table: CounterTable,
    durability: DurabilityLevel,
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Heard {
    hands: u64,
    durability: DurabilityLevel,
    receipt: Receipt,
}

struct Applause {
    config: ApplauseConfig,
}

struct ApplauseLoad {
    context: Arc<KindContext>,
    table: CounterTable,
}

#[derive(Default)]
struct ApplauseFold {
    rows: HashMap<Id, CountRow>,
}

impl Capability for Applause {
    const NAME: &'static str = "applause";
    const QUEUE: &'static str = "applause";
    const OPERATION: &'static str = "count";
    const OUTCOMES: Outcomes = Outcomes { metric: "applause_total", labels: &["heard", "nowhere", "cold"] };
    const IS_RULED: bool = false;

    type Config = ApplauseConfig;
    type Request = Clap;
    type Prepared = (Id, u32);
    type Subject = (Id, u32);
    type Ruling = ();
    type Op = CountOp;
    type Outcome = CountResult;
    type Done = CountOutcome;
    type Reply = Heard;
    type Refusal = Refusal;
    type Load = ApplauseLoad;

    fn configs(_config: &Config) -> &[ApplauseConfig] {
        &[]
    }

    fn configs_mut(_config: &mut Config) -> &mut [ApplauseConfig] {
        &mut []
    }

    fn kind(config: &ApplauseConfig) -> &str {
        &config.kind
    }

    fn kind_mut(config: &mut ApplauseConfig) -> &mut String {
        &mut config.kind
    }

    fn rules(config: &ApplauseConfig) -> KindPolicy {
        KindPolicy { kind: config.kind.clone(), settings: BTreeMap::new(), on_failure: PolicyFailure::Deny }
    }

    fn start(config: ApplauseConfig, _context: &Arc<KindContext>) -> Result<Self, ConfigError> {
        Ok(Self { config })
    }

    fn config(&self) -> &ApplauseConfig {
        &self.config
    }

    fn durability(&self) -> DurabilityLevel {
        self.config.durability
    }

    fn load(&self, context: &Arc<KindContext>) -> Arc<ApplauseLoad> {
        Arc::new(ApplauseLoad { context: Arc::clone(context), table: self.config.table.clone() })
    }

    async fn check(&self, context: &KindContext, clap: &Clap) -> Result<(), Refusal> {
        context.parts.fit.check(&clap.video, None, Some(clap.hands), true).await
    }

    fn prepare(&self, _context: &KindContext, clap: Clap) -> Result<(Id, u32), Refusal> {
        Ok((clap.video, clap.hands))
    }

    fn subject(&self, _context: &KindContext, clap: (Id, u32)) -> ((Id, u32), Option<Idempotency>) {
        (clap, None)
    }

    async fn decide(&self, context: &KindContext, _at_ms: u64, claps: &[(Id, u32)]) -> Result<Decided<()>, Refusal> {
        let decider = Decider::One(context.parts.policies.delivery_digest());
        Ok(Decided { rules: vec![(); claps.len()], decider })
    }

    fn op(&self, clap: (Id, u32), _: &mut (), idempotency: Option<Idempotency>) -> Result<CountOp, Refusal> {
        let ((target, by), rule) = (clap, CountRule { weight: 1, unique_ms: None, limit: None });
        if by > 100 {
            return Err(Refusal::Denied);
        }
        Ok(CountOp { target, actor: None, by, rule, idempotency })
    }

    fn partition(context: &KindContext, op: &CountOp) -> Partition {
        context.partition(&op.target)
    }

    async fn step(&self, context: &KindContext, batch: StepBatch<CountOp>) -> Result<Commit<CountResult>, StoreError> {
        let StepBatch { digest, at_ms, now_ms, ops } = batch;
        let batch = CountBatch { digest, at_ms, now_ms, keep_actors: false, unique_pairs_max: 1_000, ops };
        context.parts.store.count(context.kind(), batch).await
    }

    fn is_new(outcome: &CountResult) -> bool {
        matches!(outcome, CountResult::Done(_))
    }

    fn outcome(outcome: &CountResult) -> &'static str {
        match outcome {
            CountResult::Done(_) => "heard",
            CountResult::TargetNotLoaded => "cold",
            _ => "nowhere",
        }
    }

    fn settle(&self, context: &KindContext, (video, _): &(Id, u32), _: &mut (), outcome: CountResult) -> Settled<Self> {
        match outcome {
            CountResult::Done(done) => {
                Settled::Done { partition: context.partition(video), position: done.position, done }
            }
            CountResult::TargetNotLoaded => Settled::NotLoaded(vec![video.clone()]),
            _ => Settled::Refused(Refusal::TargetMissing),
        }
    }

    fn reply(written: Written<Self>, durability: DurabilityLevel) -> Heard {
        Heard { hands: written.done.count, durability, receipt: written.receipt }
    }

    fn fold(_table: &KindTable) -> Option<Box<dyn Fold>> {
        Some(Box::<ApplauseFold>::default())
    }
}

impl Load for ApplauseLoad {
    type Miss = Id;

    const NEEDS_STILL_CHECKPOINT: bool = true;

    fn partition(&self, video: &Id) -> Partition {
        self.context.partition(video)
    }

    async fn load(&self, misses: &[&Id], hydrations: &mut Hydrations) -> Result<(), Refusal> {
        let videos: Vec<Id> = misses.iter().map(|video| (*video).clone()).collect();
        let counts = self.context.parts.sql.load_counts(&self.table, &videos).await;
        let counts = counts.map_err(|error| self.context.sql_refusal(&error))?;
        let load = |(target, count): (Id, Option<u64>)| TargetLoad {
            target,
            state: count.map_or(LoadedState::Missing, LoadedState::Count),
        };
        let loads = videos.into_iter().zip(counts).map(load);
        put_targets(&self.context, "video", loads, |video| self.context.partition(video), hydrations);
        Ok(())
    }
}

impl Fold for ApplauseFold {
    fn add(&mut self, origin: Origin, changes: Vec<Change>) -> Result<(), OtherCapability> {
        for change in changes {
            let Change::Count(change) = change else { return Err(OtherCapability) };
            let target = change.target;
            let row = self.rows.entry(target.clone()).or_insert(CountRow { origin, target, by: 0 });
            (row.origin, row.by) = (origin, row.by + change.by);
        }
        Ok(())
    }

    fn rows(self: Box<Self>, _kind: &str, _rules: &Rules) -> Vec<Row> {
        self.rows.into_values().map(Row::Count).collect()
    }
}

/// The kind and its flusher, on the store and the database of a host that knows neither.
async fn started(app: &App, config: &Config, durability: DurabilityLevel) -> (Kind<Applause>, Flusher) {
    let table = CounterConfig::demo().table;
    let applause = ApplauseConfig { kind: KIND.into(), table: table.clone(), durability };
    let (policy, rules) = (config.policy.clone(), vec![Applause::rules(&applause)]);
    let load = tokio::task::spawn_blocking(move || Policies::load(&policy, &rules, PolicySetup::default()));
    let policies = load.await.unwrap().unwrap();
    let table = KindTable::Counter(table);
    let parts = KindParts {
        kind: KIND.into(),
        batch: config.batch.clone(),
        journal: config.journal.clone(),
        deadline_ms: config.http.request_deadline_ms,
        policies: Arc::clone(&policies.rules),
        store: Arc::clone(app.store()),
        sql: Arc::clone(app.sql()),
        fit: Arc::new(Fit::new(KIND, table.clone(), Arc::clone(app.sql()), &config.batch, &config.fit)),
        watch: Arc::new(JournalWatch::new(app.store().partitions(), Clock::Real)),
        clock: Clock::Real,
    };
    let flusher = Flusher::start(FlushParts {
        kind: KIND.into(),
        fold: |table| Applause::fold(table).unwrap(),
        table,
        config: config.flush.clone(),
        owner: "toy".into(),
        policies: Arc::clone(&policies.rules),
        store: Arc::<dyn Store>::clone(app.store()),
        sql: Arc::<dyn Sql>::clone(app.sql()),
        journal: config.journal.clone(),
        watch: Arc::clone(&parts.watch),
        invalidations: Arc::new(InvalidationLog::default()),
        clock: Clock::Real,
        schema_ready: app.schema_ready(),
    });
    (Kind::start(applause, parts).unwrap(), flusher)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capability_from_outside_takes_the_whole_way() {
    let directory = temporary_directory("plug");
    let url = kinds::sqlite_in(directory.path());
    let database = Database::connect(&url).await;
    kinds::Kind::VideoView.create_tables(&database).await;
    database.script("INSERT INTO video (id, view_count) VALUES (1, 40), (2, 0);").await;
    let mut config = kinds::config(directory.path(), &url, &[]);
    config.policy.registry = directory.path().join("policies-of-the-host");
    let app = App::start(config.clone(), Clock::Real, Compiler::InProcess).await.unwrap();
    app.schema_ready().wait_for(|ready| *ready).await.unwrap();
    config.policy.registry = directory.path().join("policies-of-the-toy");
    let (kind, flusher) = started(&app, &config, DurabilityLevel::Stored).await;

    // Loaded from SQL, journaled, flushed, waited for.
    let clap = |video: i64, hands: u32| kind.write(Clap { video: Id::Int(video), hands });
    let first = clap(1, 2).await.unwrap();
    assert_eq!((first.hands, first.durability), (42, DurabilityLevel::Stored));
    assert_eq!(database.integer("SELECT view_count FROM video WHERE id = 1").await, 42);
    assert_eq!(kind.context().is_stored(first.receipt).await, Ok(true));

    // Together: each sees those before it, what is refused keeps its place, and what is not there is not counted.
    let claps =
        futures_util::future::join_all([(2, 1), (2, 101), (2, 1), (3, 1), (2, 1)].map(|(v, h)| clap(v, h))).await;
    let mut heard: Vec<u64> = claps.iter().filter_map(|heard| heard.as_ref().ok().map(|heard| heard.hands)).collect();
    heard.sort_unstable();
    assert_eq!(heard, [1, 2, 3]);
    assert_eq!(claps[1], Err(Refusal::Denied));
    assert_eq!(claps[3], Err(Refusal::TargetMissing));
    assert_eq!(database.integer("SELECT view_count FROM video WHERE id = 2").await, 3);
    flusher.stop(std::time::Duration::from_secs(10)).await;
    app.stop().await;
}
