//! Throughput and memory as targets grow; the count of a target with a million likes against the join that it replaces.
//! Nothing is written behind meanwhile.
//!
//! `tests/bench/run scale [--connections 256] [--seconds 5] [--rounds 3]`

use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::Pid;
use tempfile::TempDir;
use weir::config::BuiltinRules;
use weir_tests::bench::contenders::{HostOptions, cost, start_host, way};
use weir_tests::bench::load::{Toggles, Way, closed_loop, open_loop};
use weir_tests::bench::median;
use weir_tests::bench::report::{Aim, Report, machine};
use weir_tests::database::Database;
use weir_tests::kinds::{self, Kind};
use weir_tests::services::{AppendFsync, Host, MariaDb, Postgres, Redis, RedisOptions, temporary_directory};
use weir_tests::stand::add_targets;

/// What the count is asked at in the open loop, in requests per second.
const COUNT_RATE: f64 = 2_000.0;
/// Likes of the target whose count is asked.
const COUNTED: u64 = 1_000_000;
/// The SQL that a page with a count runs without weir.
const JOIN: &str = "SELECT COUNT(feed_like.user_id) FROM feed LEFT JOIN feed_like ON feed_like.feed_id = feed.id \
                    WHERE feed.id = 1 GROUP BY feed.id";

/// Throughput and memory as targets grow.
#[derive(Debug, Args)]
pub struct Options {
    /// Connections.
    #[arg(long, default_value_t = 256)]
    connections: u64,
    /// Seconds of one turn.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Turns of each contender; medians are printed.
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// Members that there are are divided by this, from a thousand for each target down.
    #[arg(long, default_value_t = 1)]
    divided_by: u64,
}

/// Does it run?
pub fn smoke() -> Options {
    Options { connections: 16, seconds: 1, rounds: 1, divided_by: 100 }
}

/// The case of [`CASES`] with the most members of one target.
const MANY: usize = 2;

/// How many members there are, and who toggles.
#[derive(Clone, Copy)]
struct Case {
    targets: u64,
    members_each: u64,
    actors: u64,
}

impl Case {
    /// What is on how many.
    fn name(self) -> String {
        format!("{} members of {} targets", self.members_each * self.targets, self.targets)
    }

    /// With fewer members, a thousand for a target at least.
    fn divided(self, by: u64) -> Self {
        Self {
            targets: (self.targets / by).max(1),
            members_each: (self.members_each / by).max(1_000),
            actors: self.actors,
        }
    }
}

const CASES: [Case; 4] = [
    Case { targets: 1, members_each: 1_000, actors: 2_000 },
    Case { targets: 1, members_each: 100_000, actors: 50_000 },
    Case { targets: 1, members_each: 10_000_000, actors: 50_000 },
    Case { targets: 1_000, members_each: 1_000, actors: 2_000 },
];

/// A host on its store, and a SQLite file that holds the members.
struct Contender {
    name: String,
    way: Way,
    case: Case,
    host: Vec<Pid>,
    redis: Option<Redis>,
    _host: Host,
    _directory: TempDir,
}

/// Runs it.
pub fn run(options: &Options, report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("{}; load, hosts, Redis and databases share it", machine());
    runtime.block_on(growth(options, report));
    runtime.block_on(counts(options, report));
}

async fn start(case: Case, on_redis: bool) -> Contender {
    let directory = temporary_directory("scale");
    let redis =
        on_redis.then(|| Redis::start(RedisOptions { append_fsync: AppendFsync::EverySec, ..RedisOptions::default() }));
    let with = HostOptions {
        redis: redis.as_ref(),
        tls_ca: None,
        sql_url: None,
        rules: BuiltinRules::Component,
        flushes: false,
    };
    let host = start_host(directory.path(), case.targets, with).await;
    add_members(&Database::connect(&kinds::sqlite_in(directory.path())).await, case.targets, case.members_each).await;
    Contender {
        name: format!("{}, {}", if on_redis { "Redis" } else { "embedded" }, case.name()),
        way: way(&host),
        case,
        host: vec![host.pid()],
        redis,
        _host: host,
        _directory: directory,
    }
}

/// Actors 1 to `each` like each of the targets.
async fn add_members(database: &Database, targets: u64, each: u64) {
    let source = match database {
        Database::Sqlite(_) => format!(
            "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {each}) \
             SELECT feed.id, n, '2026-01-01T00:00:00.000Z' FROM feed CROSS JOIN number"
        ),
        Database::Postgres(_) => {
            format!("SELECT feed.id, n, now() FROM feed CROSS JOIN generate_series(1, {each}) AS n")
        }
        Database::MySql(_) => format!("SELECT feed.id, n.seq, now(3) FROM feed CROSS JOIN seq_1_to_{each} AS n"),
    };
    database.script(&format!("INSERT INTO feed_like (feed_id, user_id, created_at) {source}")).await;
    database.script(&format!("UPDATE feed SET like_count = {each}")).await;
    assert_eq!(database.integer("SELECT COUNT(*) FROM feed_like").await, i64::try_from(targets * each).unwrap());
}

async fn growth(options: &Options, report: &mut Report) {
    let mut contenders = Vec::new();
    for on_redis in [false, true] {
        for case in CASES {
            contenders.push(start(case.divided(options.divided_by), on_redis).await);
        }
    }
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    // The first round makes the targets and pairs known.
    let mut cold = vec![0.0; contenders.len()];
    for round in 0..=options.rounds {
        for (index, contender) in contenders.iter().enumerate() {
            let toggles = Toggles { targets: contender.case.targets, actors: contender.case.actors };
            let met = closed_loop(&contender.way, toggles, options.connections, options.seconds, round + 1);
            match round {
                0 => cold[index] = met.requests / met.seconds,
                _ => rates[index].push(met.requests / met.seconds),
            }
        }
    }
    let section =
        format!("{} connections, {} s, median of {} rounds", options.connections, options.seconds, options.rounds);
    report.section(&section, &["x 1 k", "requests/s", "cold/s", "host MB", "Redis MB"]);
    let rates: Vec<f64> = rates.into_iter().map(median).collect();
    for (index, contender) in contenders.iter().enumerate() {
        let small = rates[index - index % CASES.len()];
        report.row(
            &section,
            &contender.name,
            &[
                ("x 1 k", Some(rates[index] / small)),
                ("requests/s", Some(rates[index])),
                ("cold/s", Some(cold[index])),
                ("host MB", Some(cost(&contender.host).rss_bytes_peak / 1e6)),
                ("Redis MB", contender.redis.as_ref().map(|redis| cost(&[redis.pid()]).rss_bytes_peak / 1e6)),
            ],
        );
        if index % CASES.len() == MANY {
            let what = format!("{} against 1 k", contender.name);
            report.aim(&what, rates[index] / small, Aim::AtLeast(0.85));
            report.usual_of_disk(what, rates[index] / small, 1.0);
        }
    }
}

async fn counts(options: &Options, report: &mut Report) {
    let (mut joins, counted) = (Vec::new(), COUNTED / options.divided_by);
    let (postgres, mariadb, directory) = (Postgres::start(), MariaDb::start(), temporary_directory("scale"));
    for (name, url) in [
        ("SQLite", format!("sqlite://{}", directory.path().join("count.db").display())),
        ("PostgreSQL", postgres.create_database().await),
        ("MariaDB", mariadb.create_database().await),
    ] {
        let database = Database::connect(&url).await;
        Kind::FeedLike.create_tables(&database).await;
        add_targets(&database, 1).await;
        add_members(&database, 1, counted).await;
        if let Database::Postgres(_) = &database {
            database.script("VACUUM ANALYZE feed_like").await;
        }
        joins.push((name, joins_per_second(&database, counted, options.seconds).await));
    }
    let case = Case { targets: 1, members_each: counted, actors: 100 };
    let section = format!("count of a target with {counted} likes");
    report.section(&section, &["per second", "p50 ms", "p99 ms"]);
    for (name, (rate, ms)) in &joins {
        report.row(
            &section,
            &format!("join in {name}"),
            &[("per second", Some(*rate)), ("p50 ms", Some(*ms)), ("p99 ms", None)],
        );
    }
    for on_redis in [false, true] {
        let contender = start(case, on_redis).await;
        let way = Way { method: "GET", ..contender.way.clone() };
        let toggles = Toggles { targets: 1, actors: case.actors };
        let (mut rates, mut p50, mut p99) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=options.rounds {
            let met = closed_loop(&way, toggles, options.connections, options.seconds, round);
            let open = open_loop(&way, toggles, 16, options.seconds, COUNT_RATE);
            if round > 0 {
                rates.push(met.requests / met.seconds);
                p50.push(open.p50_ms);
                p99.push(open.p99_ms);
            }
        }
        let (rate, p99_ms) = (median(rates), median(p99));
        let store = if on_redis { "Redis" } else { "embedded" };
        report.row(
            &section,
            &format!("weir, {store} (times at {COUNT_RATE} requests/s)"),
            &[("per second", Some(rate)), ("p50 ms", Some(median(p50))), ("p99 ms", Some(p99_ms))],
        );
        report.aim(format!("p99 in ms of a count, {store}, at {COUNT_RATE}/s"), p99_ms, Aim::AtMost(1.0));
        for (name, (joins, _)) in &joins {
            let what = format!("counts/s, {store}, against joins/s in {name}");
            report.aim(&what, rate / joins, Aim::AtLeast(1_000.0));
            // A join is the shorter the fewer likes there are.
            let usual = report.in_smoke(15.0, 3_000.0);
            report.usual(what, rate / joins, usual);
        }
    }
}

/// As many joins as two connections get answered, and the median time of one in milliseconds.
async fn joins_per_second(database: &Database, likes: u64, seconds: u64) -> (f64, f64) {
    let started = Instant::now();
    let asker = || {
        let database = database.clone();
        tokio::spawn(async move {
            let mut times_ms = Vec::new();
            while started.elapsed() < Duration::from_secs(seconds) {
                let asked = Instant::now();
                assert_eq!(database.integer(JOIN).await, i64::try_from(likes).unwrap());
                times_ms.push(asked.elapsed().as_secs_f64() * 1e3);
            }
            times_ms
        })
    };
    let (one, two) = (asker(), asker());
    let mut times_ms = one.await.unwrap();
    times_ms.extend(two.await.unwrap());
    (times_ms.len() as f64 / started.elapsed().as_secs_f64(), median(times_ms))
}
