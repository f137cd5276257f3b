//! Rows per second from the journal into SQL, against the engine's own bulk statements run bare and one statement per
//! action, as ratios of one run.
//!
//! `tests/bench/run flush [--changes 200000] [--rounds 3]`

use std::time::{Duration, Instant};

use clap::Args;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use weir::app::App;
use weir::clock::Clock;
use weir::config::Config;
use weir::model::{Digest, Effect, Id, ToggleRule, partition_of};
use weir::policy::Compiler;
use weir::store::{Hydration, LoadedState, TargetLoad, ToggleBatch, ToggleOp};
use weir_tests::bench::contenders::hold_back;
use weir_tests::bench::engines::Server;
use weir_tests::bench::median;
use weir_tests::bench::report::{Aim, Report, machine};
use weir_tests::database::Database;
use weir_tests::kinds::{self, Kind};
use weir_tests::services::temporary_directory;
use weir_tests::stand::add_targets;

const KIND: &str = "feed-like";
const TARGETS: i64 = 1_000;
const ACTORS: i64 = 1_000_000;
const AT_MS: u64 = 1_790_000_000_000;
const AT_TEXT: &str = "2026-09-21 13:33:20.000";
const ADD: ToggleRule = ToggleRule { when_absent: Effect::Add, when_present: Effect::Keep, limit: None };

/// Rows per second from the journal into SQL.
#[derive(Debug, Args)]
pub struct Options {
    /// Changes that wait in the journal; all of different pairs, so that nothing is coalesced.
    #[arg(long, default_value_t = 200_000)]
    changes: usize,
    /// Rounds; medians are printed.
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// Seconds of one transaction per action.
    #[arg(long, default_value_t = 3)]
    single_seconds: u64,
}

/// Does it run?
pub fn smoke() -> Options {
    Options { changes: 100_000, rounds: 1, single_seconds: 1 }
}

/// A pair to be stored.
type Pair = (i64, i64);

/// URL of a new database with the tables and the targets.
async fn database(server: &Server) -> (String, Database) {
    let (url, database) = server.database().await;
    Kind::FeedLike.create_tables(&database).await;
    add_targets(&database, TARGETS).await;
    (url, database)
}

/// Runs it.
pub fn run(options: &Options, report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        println!("{}; {} changes, median of {} rounds", machine(), options.changes, options.rounds);
        report.section("journal to SQL", &["x bulk", "x single", "weir rows/s", "bulk rows/s", "single/s"]);
        for server in Server::all() {
            let (mut weir, mut bulk, mut single) = (Vec::new(), Vec::new(), Vec::new());
            for round in 0..options.rounds {
                let pairs = pairs(options.changes, round);
                weir.push(flushed(&server, &pairs).await);
                bulk.push(in_bulk(&server, &pairs).await);
                single.push(one_by_one(&server, &pairs, options.single_seconds).await);
            }
            let (weir, bulk, single) = (median(weir), median(bulk), median(single));
            report.row(
                "journal to SQL",
                server.name(),
                &[
                    ("x bulk", Some(weir / bulk)),
                    ("x single", Some(weir / single)),
                    ("weir rows/s", Some(weir)),
                    ("bulk rows/s", Some(bulk)),
                    ("single/s", Some(single)),
                ],
            );
            let name = server.name();
            let (to_bulk, to_single) = usual(&server);
            let what = format!("flush into {name} against its bulk statements");
            report.aim(&what, weir / bulk, Aim::AtLeast(0.8));
            report.usual(what, weir / bulk, to_bulk);
            let what = format!("flush into {name} against a statement per action");
            report.aim(&what, weir / single, Aim::AtLeast(20.0));
            report.usual_of_disk(what, weir / single, to_single);
        }
    });
}

/// What `host/docs/speed.md` says: against bulk statements, and against a transaction for each action.
fn usual(server: &Server) -> (f64, f64) {
    match server {
        Server::Sqlite(_) => (0.61, 108.0),
        Server::Postgres(_) => (1.01, 146.0),
        Server::MariaDb(_) => (0.74, 115.0),
    }
}

/// Different pairs in random order.
fn pairs(count: usize, seed: u64) -> Vec<Pair> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut found = std::collections::HashSet::with_capacity(count);
    while found.len() < count {
        found.insert((rng.random_range(1..=TARGETS), rng.random_range(1..=ACTORS)));
    }
    let mut pairs: Vec<Pair> = found.into_iter().collect();
    pairs.sort_unstable();
    pairs.shuffle(&mut rng);
    pairs
}

/// weir's whole way from the journal: read, coalesce by the component, one transaction after the other, trim.
async fn flushed(server: &Server, pairs: &[Pair]) -> f64 {
    let (url, database) = database(server).await;
    let directory = temporary_directory("flush");
    let mut config = kinds::config(directory.path(), &url, &[Kind::FeedLike]);
    config.flush.drain_grace_ms = 600_000;
    hold_back(&mut config);
    let app = App::start(config, Clock::Real, Compiler::InProcess).await.unwrap();
    let mut ready = app.schema_ready();
    ready.wait_for(|ready| *ready).await.unwrap();
    fill(&app, pairs).await;

    let started = Instant::now();
    app.flush_now(KIND).await.unwrap();
    let elapsed = started.elapsed();

    app.stop().await;
    check(&database, pairs.len()).await;
    pairs.len() as f64 / elapsed.as_secs_f64()
}

/// Accepts all pairs into the journal.
async fn fill(app: &App, pairs: &[Pair]) {
    let (store, partitions) = (app.store(), app.store().partitions());
    let all: Vec<_> = (0..partitions).collect();
    let heads = store.heads(KIND, &all).await.unwrap();
    let hydrations = heads.iter().map(|head| Hydration {
        partition: head.partition,
        incarnation: head.incarnation,
        position: head.flushed,
        aside: None,
        targets: (1..=TARGETS)
            .map(Id::Int)
            .filter(|target| partition_of(target, partitions) == head.partition)
            .map(|target| TargetLoad { target, state: LoadedState::Whole(Vec::new()) })
            .collect(),
        pairs: Vec::new(),
        now_ms: AT_MS,
    });
    store.hydrate(KIND, hydrations.collect()).await.unwrap();
    for chunk in pairs.chunks(512) {
        let ops = chunk.iter().map(|&(target, actor)| ToggleOp {
            target: Id::Int(target),
            actor: Id::Int(actor),
            rule: ADD,
            idempotency: None,
        });
        let batch = ToggleBatch { at_ms: AT_MS, now_ms: AT_MS, digest: Digest([7; 32]), ops: ops.collect() };
        store.toggle(KIND, batch).await.unwrap();
    }
}

/// The same effect by the engine's fastest plain statements, in transactions as large as weir's.
async fn in_bulk(server: &Server, pairs: &[Pair]) -> f64 {
    let (_, database) = database(server).await;
    let chunk_max = Config::default().flush.batch_changes_max;
    let started = Instant::now();
    for chunk in pairs.chunks(chunk_max) {
        let mut chunk = chunk.to_vec();
        chunk.sort_unstable();
        bulk(&database, &chunk).await;
    }
    let elapsed = started.elapsed();
    check(&database, pairs.len()).await;
    pairs.len() as f64 / elapsed.as_secs_f64()
}

async fn bulk(database: &Database, chunk: &[Pair]) {
    let (targets, actors): (Vec<i64>, Vec<i64>) = chunk.iter().copied().unzip();
    let mut deltas: Vec<Pair> = Vec::new();
    for &(target, _) in chunk {
        match deltas.last_mut() {
            Some((last, count)) if *last == target => *count += 1,
            _ => deltas.push((target, 1)),
        }
    }
    match database {
        Database::Postgres(pool) => {
            let mut transaction = pool.begin().await.unwrap();
            let insert = "INSERT INTO feed_like (feed_id, user_id, created_at) \
                          SELECT t, a, $3::timestamptz FROM unnest($1::bigint[], $2::bigint[]) AS u (t, a) \
                          ON CONFLICT DO NOTHING";
            let query = sqlx::query(insert).bind(&targets).bind(&actors).bind(AT_TEXT);
            query.execute(&mut *transaction).await.unwrap();
            let (ids, counts): (Vec<i64>, Vec<i64>) = deltas.into_iter().unzip();
            let update = "UPDATE feed SET like_count = like_count + d FROM unnest($1::bigint[], $2::bigint[]) AS u (t, d) \
                          WHERE id = t";
            sqlx::query(update).bind(ids).bind(counts).execute(&mut *transaction).await.unwrap();
            transaction.commit().await.unwrap();
        }
        Database::Sqlite(pool) => {
            // Rows one by one are slower by far: each goes through the driver.
            let json = |rows: &[Pair]| serde_json::to_string(rows).unwrap();
            let mut transaction = pool.begin().await.unwrap();
            let insert = "INSERT INTO feed_like (feed_id, user_id, created_at) \
                          SELECT value ->> 0, value ->> 1, ?2 FROM json_each(?1) WHERE true ON CONFLICT DO NOTHING";
            sqlx::query(insert).bind(json(chunk)).bind(AT_TEXT).execute(&mut *transaction).await.unwrap();
            let update = "UPDATE feed SET like_count = like_count + u.d \
                          FROM (SELECT value ->> 0 AS t, value ->> 1 AS d FROM json_each(?)) AS u WHERE id = u.t";
            sqlx::query(update).bind(json(&deltas)).execute(&mut *transaction).await.unwrap();
            transaction.commit().await.unwrap();
        }
        Database::MySql(pool) => {
            let mut transaction = pool.begin().await.unwrap();
            for rows in chunk.chunks(2_000) {
                let values: Vec<String> = rows.iter().map(|(t, a)| format!("({t},{a},'{AT_TEXT}')")).collect();
                let insert =
                    format!("INSERT IGNORE INTO feed_like (feed_id, user_id, created_at) VALUES {}", values.join(","));
                sqlx::raw_sql(sqlx::AssertSqlSafe(insert)).execute(&mut *transaction).await.unwrap();
            }
            let rows: Vec<String> = deltas.iter().map(|(t, d)| format!("SELECT {t} AS t, {d} AS d")).collect();
            let update = format!(
                "UPDATE feed JOIN ({}) AS u ON feed.id = u.t SET like_count = like_count + u.d",
                rows.join(" UNION ALL ")
            );
            sqlx::raw_sql(sqlx::AssertSqlSafe(update)).execute(&mut *transaction).await.unwrap();
            transaction.commit().await.unwrap();
        }
    }
}

/// As it is written by hand: for each action a transaction of one insert and one count.
async fn one_by_one(server: &Server, pairs: &[Pair], seconds: u64) -> f64 {
    let (_, database) = database(server).await;
    let (started, mut done) = (Instant::now(), 0);
    for chunk in pairs.chunks(1) {
        bulk(&database, chunk).await;
        done += 1;
        if started.elapsed() > Duration::from_secs(seconds) {
            break;
        }
    }
    let rate = f64::from(done) / started.elapsed().as_secs_f64();
    check(&database, done as usize).await;
    rate
}

/// A benchmark of writes that did not happen would be a fast one.
async fn check(database: &Database, rows: usize) {
    let rows = i64::try_from(rows).unwrap();
    assert_eq!(database.integer("SELECT COUNT(*) FROM feed_like").await, rows);
    database.assert_counts_equal_rows().await;
}
