//! Ten thousand members in one look-up, on one Redis: the bare pipeline of the HGETALLs that it replaces, the same one by one,
//! and weir, whose answer is decided by the rules; and the share of its time that is spent in them. Then on a cluster of
//! three masters, against one bare pipeline for each node, all at once.
//!
//! `tests/bench/run lookup [--members 10000] [--rounds 50]`

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use redis::aio::MultiplexedConnection;
use serde_json::json;
use weir::config::{BuiltinRules, StoreConfig, StoreType};
use weir_tests::bench::report::{Aim, Report, machine};
use weir_tests::client::Client;
use weir_tests::database::Database;
use weir_tests::kinds::{self, Kind};
use weir_tests::services::{
    AppendFsync, ClusterOptions, Host, HostConfig, Redis, RedisCluster, RedisOptions, temporary_directory,
};
use weir_tests::swap::quantile;

/// One by one takes a while: it has fewer turns.
const ONE_BY_ONE_EVERY: u64 = 10;
const LOOKUP: &str = "/v1/preferences/notification/lookup";

/// Ten thousand members in one look-up.
#[derive(Debug, Args)]
pub struct Options {
    /// Members of one look-up.
    #[arg(long, default_value_t = 10_000)]
    members: i64,
    /// Turns of each contender; p50 and p99 of them are printed.
    #[arg(long, default_value_t = 50)]
    rounds: u64,
}

/// Does it run?
pub fn smoke() -> Options {
    Options { members: 2_000, rounds: 3 }
}

/// A host whose look-ups are measured.
struct Contender {
    name: &'static str,
    host: Host,
    client: Client,
    times_ms: Vec<f64>,
}

/// Runs it.
pub fn run(options: &Options, report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("{}; load, hosts and Redis share it", machine());
    runtime.block_on(async {
        on_one(options, report).await;
        on_cluster(options, report).await;
    });
}

async fn on_one(options: &Options, report: &mut Report) {
    let redis = Redis::start(RedisOptions { append_fsync: AppendFsync::EverySec, ..RedisOptions::default() });
    let client = redis::Client::open(redis.url_of_database(1)).unwrap();
    let mut bare = client.get_multiplexed_async_connection().await.unwrap();
    let members: Vec<i64> = (1..=options.members).collect();
    fill(&mut bare, &members).await;
    let directories = [temporary_directory("lookup"), temporary_directory("lookup"), temporary_directory("lookup")];
    let contender = async |name, index: usize, share_ms, builtin| {
        let url = redis.url_of_database(u8::try_from(index).unwrap() + 2);
        let store = StoreConfig { store_type: StoreType::Redis, url, ..StoreConfig::default() };
        let host = start(store, options.members, directories[index].path(), share_ms, builtin).await;
        Contender { name, client: Client::new(host.public()), host, times_ms: Vec::new() }
    };
    let mut contenders = [
        contender("weir", 0, 0, BuiltinRules::Component).await,
        contender("weir, rules without WebAssembly", 1, 0, BuiltinRules::Native).await,
        contender("weir, within share_ms of 60 s", 2, 60_000, BuiltinRules::Component).await,
    ];
    let body = json!({ "topic": "social", "members": members }).to_string();
    // The first one makes the members known.
    for contender in &mut contenders {
        for _ in 0..3 {
            look_up(&mut contender.client, &body).await;
        }
    }
    let (mut pipeline_ms, mut single_ms) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        pipeline_ms.push(pipelined(&mut bare, &members).await);
        for contender in &mut contenders {
            let time = look_up(&mut contender.client, &body).await;
            contender.times_ms.push(time);
        }
        if round % ONE_BY_ONE_EVERY == 0 {
            single_ms.push(one_by_one(&mut bare, &members).await);
        }
    }
    pipeline_ms.sort_by(f64::total_cmp);
    single_ms.sort_by(f64::total_cmp);
    let base = quantile(&pipeline_ms, 0.5);
    let section = format!("{} members in one look-up, one Redis (times in ms)", options.members);
    report.section(&section, &["to pipeline", "p50", "p99", "in the rules"]);
    row(report, &section, "bare pipeline of HGETALLs", base, &pipeline_ms, None);
    let single = row(report, &section, "HGETALL one by one", base, &single_ms, None);
    let mut p50s = Vec::new();
    for contender in &mut contenders {
        let share = contender.finish().await;
        p50s.push(row(report, &section, contender.name, base, &contender.times_ms, Some(share)));
    }
    report.aim("weir to the bare pipeline, p50", p50s[0] / base, Aim::AtMost(1.25));
    let usual = report.in_smoke(1.8, 0.84);
    report.usual("weir to the bare pipeline, p50", p50s[0] / base, usual);
    report.aim("one by one to weir, p50", single / p50s[0], Aim::AtLeast(30.0));
    let usual = report.in_smoke(6.0, 26.0);
    report.usual("one by one to weir, p50", single / p50s[0], usual);
    let usual = report.in_smoke(1.0, 0.2);
    report.usual("weir within share_ms to the bare pipeline, p50", p50s[2] / base, usual);
}

impl Contender {
    /// Its times in order, and the share of them that it spent in the rules.
    async fn finish(&mut self) -> f64 {
        self.times_ms.sort_by(f64::total_cmp);
        let mut admin = Client::new(self.host.admin());
        let rules = admin.metric("weir_preference_rule_seconds_sum", &[]).await.unwrap();
        rules / admin.metric("weir_preference_lookup_seconds_sum", &[]).await.unwrap()
    }
}

/// A row of the table; answers its median.
fn row(report: &mut Report, section: &str, name: &str, base: f64, times: &[f64], share: Option<f64>) -> f64 {
    let (p50, p99) = (quantile(times, 0.5), quantile(times, 0.99));
    let columns = [("to pipeline", Some(p50 / base)), ("p50", Some(p50)), ("p99", Some(p99)), ("in the rules", share)];
    report.row(section, name, &columns);
    p50
}

/// Three masters without replicas, each with the HGETALLs of the keys that it has in a pipeline of its own.
async fn on_cluster(options: &Options, report: &mut Report) {
    let cluster = RedisCluster::start(&ClusterOptions { replicas: 0, ..ClusterOptions::default() });
    let mut nodes = Vec::new();
    for seed in cluster.seeds() {
        let client = redis::Client::open(seed).unwrap();
        nodes.push((client.get_multiplexed_async_connection().await.unwrap(), Vec::new()));
    }
    let mut pipe = redis::pipe();
    for n in 1..=options.members {
        pipe.cmd("CLUSTER").arg("KEYSLOT").arg(format!("setting:{n}"));
    }
    let slots: Vec<usize> = pipe.query_async(&mut nodes[0].0).await.unwrap();
    for (n, slot) in (1..).zip(slots) {
        nodes[RedisCluster::first_master_of(slot)].1.push(n);
    }
    for (connection, members) in &mut nodes {
        fill(connection, members).await;
    }
    let directory = temporary_directory("lookup");
    let store = StoreConfig { store_type: StoreType::RedisCluster, url: cluster.url(), ..StoreConfig::default() };
    let host = start(store, options.members, directory.path(), 0, BuiltinRules::Component).await;
    let mut weir = Contender { name: "weir", client: Client::new(host.public()), host, times_ms: Vec::new() };
    let all: Vec<i64> = (1..=options.members).collect();
    let body = json!({ "topic": "social", "members": all }).to_string();
    for _ in 0..3 {
        look_up(&mut weir.client, &body).await;
    }
    let (mut pipelines_ms, mut single_ms) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        let started = Instant::now();
        let of_nodes = nodes.iter_mut().map(|(connection, members)| pipelined(connection, members));
        futures_util::future::join_all(of_nodes).await;
        pipelines_ms.push(milliseconds(started.elapsed()));
        let time = look_up(&mut weir.client, &body).await;
        weir.times_ms.push(time);
        if round % ONE_BY_ONE_EVERY == 0 {
            let started = Instant::now();
            for (connection, members) in &mut nodes {
                one_by_one(connection, members).await;
            }
            single_ms.push(milliseconds(started.elapsed()));
        }
    }
    pipelines_ms.sort_by(f64::total_cmp);
    single_ms.sort_by(f64::total_cmp);
    let base = quantile(&pipelines_ms, 0.5);
    let section = format!("{} members in one look-up, three masters (times in ms)", options.members);
    report.section(&section, &["to pipeline", "p50", "p99", "in the rules"]);
    row(report, &section, "bare pipelines, one a node", base, &pipelines_ms, None);
    row(report, &section, "HGETALL one by one", base, &single_ms, None);
    let share = weir.finish().await;
    let p50 = row(report, &section, weir.name, base, &weir.times_ms, Some(share));
    report.aim("weir to the bare pipelines of three masters, p50", p50 / base, Aim::AtMost(1.5));
    let usual = report.in_smoke(2.5, 0.86);
    report.usual("weir to the bare pipelines of three masters, p50", p50 / base, usual);
}

/// A host on this store, with the same members in SQLite.
async fn start(store: StoreConfig, members: i64, directory: &Path, share_ms: u64, builtin: BuiltinRules) -> Host {
    let url = kinds::sqlite_in(directory);
    let database = Database::connect(&url).await;
    Kind::Notification.create_tables(&database).await;
    let fill = format!(
        "INSERT INTO notification_setting (member_id, enabled, social, event, marketing, quiet_from, quiet_until, \
         app_version) WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {members}) \
         SELECT n, n % 10 <> 0, n % 4 <> 0, n % 5 <> 0, n % 3 = 0, 0, 0, '2.1.0' FROM number"
    );
    database.script(&fill).await;
    let mut config = kinds::config(directory, &url, &[Kind::Notification]);
    config.store = store;
    config.policy.builtin = builtin;
    config.preferences[0].share_ms = share_ms;
    let mut host = Host::start(HostConfig::of(&config), directory);
    host.wait_ready();
    host
}

/// The settings of these members, as an application keeps them.
async fn fill(connection: &mut MultiplexedConnection, members: &[i64]) {
    let mut pipe = redis::pipe();
    for n in members {
        let on = |on: bool| if on { "1" } else { "0" };
        pipe.cmd("HSET").arg(format!("setting:{n}")).arg(&[
            ("enabled", on(n % 10 != 0)),
            ("social", on(n % 4 != 0)),
            ("event", on(n % 5 != 0)),
            ("marketing", on(n % 3 == 0)),
            ("quiet_from", "0"),
            ("quiet_until", "0"),
            ("app_version", "2.1.0"),
        ]);
        pipe.ignore();
    }
    pipe.query_async::<()>(connection).await.unwrap();
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// The pipeline, encoded and answered; nobody looks at the answers.
async fn pipelined(connection: &mut MultiplexedConnection, members: &[i64]) -> f64 {
    let started = Instant::now();
    let mut pipe = redis::pipe();
    for n in members {
        pipe.cmd("HGETALL").arg(format!("setting:{n}"));
    }
    let answers: Vec<redis::Value> = pipe.query_async(connection).await.unwrap();
    assert_eq!(answers.len(), members.len());
    milliseconds(started.elapsed())
}

async fn one_by_one(connection: &mut MultiplexedConnection, members: &[i64]) -> f64 {
    let started = Instant::now();
    for n in members {
        let answer: redis::Value =
            redis::cmd("HGETALL").arg(format!("setting:{n}")).query_async(connection).await.unwrap();
        drop(answer);
    }
    milliseconds(started.elapsed())
}

/// The request, from its first byte to the last of its answer.
async fn look_up(client: &mut Client, body: &str) -> f64 {
    let headers = [("content-type", "application/json")];
    let started = Instant::now();
    let reply = client.request("POST", LOOKUP, &headers, body).await.unwrap();
    let elapsed = milliseconds(started.elapsed());
    assert_eq!(reply.status, 200, "{}", reply.text());
    elapsed
}
