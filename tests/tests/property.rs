//! Random operations, flushes, crashes, restarts and store wipes against an oracle, in process, on both stores.
//!
//! The oracle is a set of pairs. Every answer must be the oracle's, and after each flush and at the end SQL must hold
//! exactly the oracle's pairs, with counts equal to rows. `PROPTEST_CASES` sets the number of cases per store (16).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config as RunnerConfig, TestRunner};
use tempfile::TempDir;
use weir::app::App;
use weir::clock::Clock;
use weir::config::{AuthConfig, Config, SqlConfig, StoreConfig, StoreType, ToggleConfig};
use weir::error::Refusal;
use weir::model::{Id, Verb};
use weir::policy::Compiler;
use weir::toggle::{Toggle, ToggleKind, ToggleReply, ToggleRequest};
use weir_tests::database::Database;
use weir_tests::services::{AppendFsync, Redis, RedisOptions, temporary_directory};
use weir_tests::stand::{add_targets, create_tables};

const KIND: &str = "feed-like";
const TARGETS: i64 = 3;
const ACTORS: i64 = 5;
const CASES_DEFAULT: u32 = 16;

/// One step of a case.
#[derive(Debug, Clone)]
enum Step {
    /// One operation; with a key, it is sent a second time at once and must answer the same.
    One { verb: Verb, target: i64, actor: i64, keyed: bool },
    /// The last operation with a key again, whatever happened since.
    Again,
    /// One operation by each actor on one target, at the same time.
    Burst { verb: Verb, target: i64 },
    /// So many toggles of one pair at the same time.
    Storm { target: i64, actor: i64, toggles: usize },
    /// State and count of all targets.
    Read { actor: i64 },
    /// The members of a target.
    Members { target: i64 },
    /// A target that does not exist.
    Missing { actor: i64 },
    /// Everything that waits goes to SQL.
    Flush,
    /// The host's objects are dropped as they are, and made again.
    Crash,
    /// An orderly stop with its drain, and a start.
    Restart,
    /// The store loses everything while nothing waits in its journal.
    Wipe,
}

fn any_step() -> impl Strategy<Value = Step> {
    let verb = || prop_oneof![3 => Just(Verb::Toggle), 1 => Just(Verb::Set), 1 => Just(Verb::Clear)];
    let (target, actor) = (|| 1..=TARGETS, || 1..=ACTORS);
    prop_oneof![
        12 => (verb(), target(), actor(), any::<bool>())
            .prop_map(|(verb, target, actor, keyed)| Step::One { verb, target, actor, keyed }),
        2 => Just(Step::Again),
        3 => (verb(), target()).prop_map(|(verb, target)| Step::Burst { verb, target }),
        2 => (target(), actor(), 2usize..6).prop_map(|(target, actor, toggles)| Step::Storm { target, actor, toggles }),
        2 => actor().prop_map(|actor| Step::Read { actor }),
        2 => target().prop_map(|target| Step::Members { target }),
        1 => actor().prop_map(|actor| Step::Missing { actor }),
        3 => Just(Step::Flush),
        3 => Just(Step::Crash),
        1 => Just(Step::Restart),
        2 => Just(Step::Wipe),
    ]
}

#[test]
fn embedded_store_and_sqlite_hold_what_the_oracle_holds() {
    run("embedded+sqlite", None);
}

#[test]
fn redis_and_sqlite_hold_what_the_oracle_holds() {
    // Nothing is killed here, so the file is not what is tested.
    let options = RedisOptions { append_fsync: AppendFsync::EverySec, ..RedisOptions::default() };
    run("redis+sqlite", Some(&Redis::start(options)));
}

fn run(name: &str, redis: Option<&Redis>) {
    let cases = std::env::var("PROPTEST_CASES").map_or(CASES_DEFAULT, |text| text.parse().expect("a number"));
    let settings = RunnerConfig { cases, failure_persistence: None, max_shrink_iters: 100, ..RunnerConfig::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = TestRunner::new(settings).run(&vec(any_step(), 10..60), |steps| {
        runtime.block_on(async {
            let mut case = Case::start(redis).await;
            for step in &steps {
                case.take(step).await;
            }
            case.finish().await;
        });
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{name}: {error}");
    }
    println!("property {name}: {cases} cases hold");
}

/// What is remembered of an operation with a key.
struct Keyed {
    request: ToggleRequest,
    answer: (bool, u64),
}

/// One case: a host in this process, its store and database, and the oracle.
struct Case<'a> {
    directory: TempDir,
    redis: Option<&'a Redis>,
    database: Database,
    app: Option<App>,
    oracle: BTreeSet<(i64, i64)>,
    last_keyed: Option<Keyed>,
    keys: u32,
    /// How often the embedded store was lost. Each has its own directory: threads of the host before write into theirs a
    /// little longer.
    wipes: u32,
}

impl<'a> Case<'a> {
    async fn start(redis: Option<&'a Redis>) -> Self {
        if let Some(redis) = redis {
            redis.command::<()>(&["FLUSHALL"]);
        }
        let directory = temporary_directory("property");
        let database = Database::connect(&database_url(directory.path())).await;
        create_tables(&database, "").await;
        add_targets(&database, TARGETS).await;
        let oracle = BTreeSet::new();
        let mut case = Self { directory, redis, database, app: None, oracle, last_keyed: None, keys: 0, wipes: 0 };
        case.open().await;
        case
    }

    async fn open(&mut self) {
        // Tasks of the host before let go of its directory in their own time.
        let start = std::time::Instant::now();
        loop {
            match App::start(self.config(), Clock::Real, Compiler::InProcess).await {
                Ok(app) => break self.app = Some(app),
                Err(error) => {
                    let is_in_use = error.to_string().contains("is in use by another process");
                    let is_over = start.elapsed() > std::time::Duration::from_secs(20);
                    assert!(is_in_use && !is_over, "the host does not start: {error}");
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    fn config(&self) -> Config {
        // Flushes of five at a time come by themselves, so that crashes meet them; the rest waits for the step.
        let settings = [("limit-burst", "0"), ("flush-entries", "5"), ("flush-age-ms", "600000")];
        let settings: BTreeMap<String, String> =
            settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let store = match self.redis {
            Some(redis) => StoreConfig { store_type: StoreType::Redis, url: redis.url(), ..StoreConfig::default() },
            None => StoreConfig {
                path: self.directory.path().join(format!("store-{}", self.wipes)),
                ..StoreConfig::default()
            },
        };
        let mut config = Config {
            auth: AuthConfig { trusted_header: Some("X-Actor-Id".into()), ..AuthConfig::default() },
            store: StoreConfig { partitions: 2, ..store },
            sql: SqlConfig { url: database_url(self.directory.path()), ..SqlConfig::default() },
            toggles: vec![ToggleConfig { settings, ..ToggleConfig::demo() }],
            ..Config::default()
        };
        config.http.listen.set_port(0);
        config.admin.listen.set_port(0);
        // A crash leaves the lease behind; who comes next must not wait long for it.
        config.flush.lease_ms = 200;
        config
    }

    fn app(&self) -> &App {
        self.app.as_ref().expect("a running host")
    }

    fn kind(&self) -> Arc<ToggleKind> {
        self.app().kinds().written.get::<Toggle>(KIND).expect("the kind is configured")
    }

    fn count(&self, target: i64) -> u64 {
        self.oracle.iter().filter(|(of, _)| *of == target).count() as u64
    }

    /// Changes the oracle as `verb` says; whether the pair is present then.
    fn expect(&mut self, verb: Verb, pair: (i64, i64)) -> bool {
        let present = match verb {
            Verb::Toggle => !self.oracle.contains(&pair),
            Verb::Set => true,
            Verb::Clear => false,
        };
        if present {
            self.oracle.insert(pair);
        } else {
            self.oracle.remove(&pair);
        }
        present
    }

    async fn take(&mut self, step: &Step) {
        match *step {
            Step::One { verb, target, actor, keyed } => self.one(verb, (target, actor), keyed).await,
            Step::Again => self.again().await,
            Step::Burst { verb, target } => self.burst(verb, target).await,
            Step::Storm { target, actor, toggles } => self.storm((target, actor), toggles).await,
            Step::Read { actor } => self.read(actor).await,
            Step::Members { target } => self.members(target).await,
            Step::Missing { actor } => {
                let outcome = self.kind().write(request(Verb::Toggle, (TARGETS + 1, actor), None)).await;
                assert_eq!(outcome.map(|reply| reply.state), Err(Refusal::TargetMissing));
            }
            Step::Flush => self.flush().await,
            Step::Crash => {
                self.app.take().expect("a running host").abort();
                self.open().await;
            }
            Step::Restart => {
                self.app.take().expect("a running host").stop().await;
                self.compare().await;
                self.open().await;
            }
            Step::Wipe => self.wipe().await,
        }
    }

    async fn one(&mut self, verb: Verb, pair: (i64, i64), keyed: bool) {
        self.keys += 1;
        let key = keyed.then(|| format!("key-{}", self.keys));
        let request = request(verb, pair, key);
        let reply = answered(self.kind().write(request.clone()).await);
        let present = self.expect(verb, pair);
        assert_eq!((reply.state.active, reply.state.count), (present, self.count(pair.0)), "{request:?}");
        assert!(!reply.replayed);
        if keyed {
            self.last_keyed = Some(Keyed { request, answer: (reply.state.active, reply.state.count) });
            self.again().await;
        }
    }

    async fn again(&mut self) {
        let Some(keyed) = &self.last_keyed else { return };
        let reply = answered(self.kind().write(keyed.request.clone()).await);
        assert_eq!((reply.state.active, reply.state.count), keyed.answer, "the first outcome must be answered again");
        assert!(reply.replayed);
        // The same key with another request for the target is refused.
        let mut other = keyed.request.clone();
        other.verb = if other.verb == Verb::Set { Verb::Clear } else { Verb::Set };
        assert_eq!(self.kind().write(other).await.map(|reply| reply.state), Err(Refusal::IdempotencyConflict));
    }

    async fn burst(&mut self, verb: Verb, target: i64) {
        let kind = self.kind();
        let replies = join_all((1..=ACTORS).map(|actor| kind.write(request(verb, (target, actor), None)))).await;
        for (actor, reply) in (1..=ACTORS).zip(replies) {
            let present = self.expect(verb, (target, actor));
            assert_eq!(answered(reply).state.active, present, "{verb:?} of {target} by {actor} in a burst");
        }
        self.read(1).await;
    }

    async fn storm(&mut self, pair: (i64, i64), toggles: usize) {
        let kind = self.kind();
        let replies = join_all((0..toggles).map(|_| kind.write(request(Verb::Toggle, pair, None)))).await;
        let present = replies.into_iter().filter(|reply| answered(reply.clone()).state.active).count();
        let expected = (0..toggles).filter(|_| self.expect(Verb::Toggle, pair)).count();
        assert_eq!(present, expected, "{toggles} toggles of {pair:?} at once do not alternate");
    }

    async fn read(&mut self, actor: i64) {
        let targets: Vec<Id> = (1..=TARGETS + 1).map(Id::Int).collect();
        let states = self.kind().read(&targets, Some(&Id::Int(actor))).await.expect("a read");
        for (target, state) in (1..=TARGETS).zip(&states) {
            let state = state.expect("the target exists");
            let expected = (self.oracle.contains(&(target, actor)), self.count(target));
            assert_eq!((state.active, state.count), expected, "a read of {target} by {actor}");
        }
        assert_eq!(states.last(), Some(&None), "a target that does not exist");
    }

    async fn members(&mut self, target: i64) {
        let members = self.kind().members(&Id::Int(target), None, 100).await.expect("the members");
        assert!(members.is_sorted_by(|newer, older| newer.since_ms >= older.since_ms), "newest first: {members:?}");
        let actors: BTreeSet<Id> = members.iter().map(|member| member.actor.clone()).collect();
        assert_eq!(actors.len(), members.len(), "a member twice: {members:?}");
        let expected = self.oracle.iter().filter(|(of, _)| *of == target).map(|(_, actor)| Id::Int(*actor)).collect();
        assert_eq!(actors, expected, "members of {target}");
    }

    async fn flush(&mut self) {
        self.app().flush_now(KIND).await.unwrap_or_else(|error| panic!("a flush: {error}"));
        self.compare().await;
    }

    /// The store's loss is harmless when nothing waits in its journal; idempotency keys are lost with it.
    async fn wipe(&mut self) {
        self.flush().await;
        self.last_keyed = None;
        if let Some(redis) = self.redis {
            redis.command::<()>(&["FLUSHALL"]);
        } else {
            self.app.take().expect("a running host").abort();
            self.wipes += 1;
            self.open().await;
        }
    }

    async fn compare(&self) {
        assert_eq!(self.database.likes().await, self.oracle, "rows in SQL");
        self.database.assert_counts_equal_rows().await;
        assert_eq!(self.database.dead_letters().await, 0, "dead letters");
    }

    async fn finish(&mut self) {
        for target in 1..=TARGETS {
            self.members(target).await;
        }
        self.app.take().expect("a running host").stop().await;
        self.compare().await;
    }
}

fn database_url(directory: &Path) -> String {
    format!("sqlite://{}", directory.join("feed.db").display())
}

fn request(verb: Verb, (target, actor): (i64, i64), idempotency_key: Option<String>) -> ToggleRequest {
    ToggleRequest { verb, target: Id::Int(target), actor: Id::Int(actor), idempotency_key }
}

fn answered(outcome: Result<ToggleReply, Refusal>) -> ToggleReply {
    outcome.unwrap_or_else(|refusal| panic!("refused: {refusal}"))
}
