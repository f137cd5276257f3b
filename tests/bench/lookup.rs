//! Ten thousand members in one look-up, on one Redis: the bare pipeline of the HGETALLs that it replaces, the same one by one,
//! and weir, whose answer is decided by the rules; and the share of its time that is spent in them.
//!
//! `tests/bench/run lookup [--members 10000] [--rounds 50]`

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails by panicking")]

use std::time::{Duration, Instant};

use clap::Parser;
use redis::aio::MultiplexedConnection;
use serde_json::json;
use weir::config::{BuiltinRules, Config, PreferenceConfig};
use weir_tests::bench::report::{Aim, Report, machine};
use weir_tests::client::Client;
use weir_tests::services::{AppendFsync, Host, HostConfig, Redis, RedisOptions, temporary_directory};
use weir_tests::swap::quantile;

/// One by one takes a while: it has fewer turns.
const ONE_BY_ONE_EVERY: u64 = 10;
const LOOKUP: &str = "/v1/preferences/notification/lookup";

/// Ten thousand members in one look-up.
#[derive(Debug, Parser)]
struct Options {
    /// Members of one look-up.
    #[arg(long, default_value_t = 10_000)]
    members: i64,
    /// Turns of each contender; p50 and p99 of them are printed.
    #[arg(long, default_value_t = 50)]
    rounds: u64,
    #[arg(long, hide = true)]
    bench: bool,
}

/// A host whose look-ups are measured.
struct Contender {
    name: &'static str,
    host: Host,
    client: Client,
    times_ms: Vec<f64>,
}

fn main() {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("{}; load, hosts and Redis share it", machine());
    let mut report = Report::default();
    runtime.block_on(run(&options, &mut report));
    report.finish("lookup");
}

async fn run(options: &Options, report: &mut Report) {
    let redis = Redis::start(RedisOptions { append_fsync: AppendFsync::EverySec, ..RedisOptions::default() });
    let client = redis::Client::open(redis.url_of_database(1)).unwrap();
    let mut bare = client.get_multiplexed_async_connection().await.unwrap();
    fill(&mut bare, options.members).await;
    let directories = [temporary_directory("lookup"), temporary_directory("lookup"), temporary_directory("lookup")];
    let contender = |name, index: usize, share_ms, builtin| {
        let host = start(&redis, directories[index].path(), u8::try_from(index).unwrap() + 2, share_ms, builtin);
        Contender { name, client: Client::new(host.public()), host, times_ms: Vec::new() }
    };
    let mut contenders = [
        contender("weir", 0, 0, BuiltinRules::Component),
        contender("weir, rules without WebAssembly", 1, 0, BuiltinRules::Native),
        contender("weir, within share_ms of 60 s", 2, 60_000, BuiltinRules::Component),
    ];
    let members: Vec<i64> = (1..=options.members).collect();
    let body = json!({ "topic": "social", "members": members }).to_string();
    // The first one makes the members known.
    for contender in &mut contenders {
        for _ in 0..3 {
            look_up(&mut contender.client, &body).await;
        }
    }
    let (mut pipeline_ms, mut single_ms) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        pipeline_ms.push(pipelined(&mut bare, options.members).await);
        for contender in &mut contenders {
            let time = look_up(&mut contender.client, &body).await;
            contender.times_ms.push(time);
        }
        if round % ONE_BY_ONE_EVERY == 0 {
            single_ms.push(one_by_one(&mut bare, options.members).await);
        }
    }
    pipeline_ms.sort_by(f64::total_cmp);
    single_ms.sort_by(f64::total_cmp);
    let base = quantile(&pipeline_ms, 0.5);
    let section = format!("{} members in one look-up, one Redis (times in ms)", options.members);
    report.section(&section, &["to pipeline", "p50", "p99", "in the rules"]);
    let mut row = |name: &str, times: &[f64], share: Option<f64>| {
        let (p50, p99) = (quantile(times, 0.5), quantile(times, 0.99));
        report.row(
            &section,
            name,
            &[("to pipeline", Some(p50 / base)), ("p50", Some(p50)), ("p99", Some(p99)), ("in the rules", share)],
        );
        p50
    };
    row("bare pipeline of HGETALLs", &pipeline_ms, None);
    let single = row("HGETALL one by one", &single_ms, None);
    let mut p50s = Vec::new();
    for contender in &mut contenders {
        contender.times_ms.sort_by(f64::total_cmp);
        let mut admin = Client::new(contender.host.admin());
        let rules = admin.metric("weir_preference_rule_seconds_sum", &[]).await.unwrap();
        let all = admin.metric("weir_preference_lookup_seconds_sum", &[]).await.unwrap();
        p50s.push(row(contender.name, &contender.times_ms, Some(rules / all)));
    }
    report.aim("weir to the bare pipeline, p50", p50s[0] / base, Aim::AtMost(1.25));
    report.aim("one by one to weir, p50", single / p50s[0], Aim::AtLeast(30.0));
}

/// A host on a database of this Redis, with the demo's members in SQLite.
fn start(redis: &Redis, directory: &std::path::Path, database: u8, share_ms: u64, builtin: BuiltinRules) -> Host {
    // The demo makes the tables.
    let mut demo = Host::start(HostConfig::Demo, directory);
    demo.wait_ready();
    demo.terminate();
    let mut config = Config::demo(std::path::Path::new("weir-data"));
    config.store.store_type = weir::config::StoreType::Redis;
    config.store.url = redis.url_of_database(database);
    config.policy.builtin = builtin;
    config.preferences = vec![PreferenceConfig { share_ms, ..PreferenceConfig::demo() }];
    let mut host = Host::start(HostConfig::of(&config), directory);
    host.wait_ready();
    host
}

/// The settings of the demo's members, as an application keeps them.
async fn fill(connection: &mut MultiplexedConnection, members: i64) {
    let mut pipe = redis::pipe();
    for n in 1..=members {
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
async fn pipelined(connection: &mut MultiplexedConnection, members: i64) -> f64 {
    let started = Instant::now();
    let mut pipe = redis::pipe();
    for n in 1..=members {
        pipe.cmd("HGETALL").arg(format!("setting:{n}"));
    }
    let answers: Vec<redis::Value> = pipe.query_async(connection).await.unwrap();
    assert_eq!(answers.len(), usize::try_from(members).unwrap());
    milliseconds(started.elapsed())
}

async fn one_by_one(connection: &mut MultiplexedConnection, members: i64) -> f64 {
    let started = Instant::now();
    for n in 1..=members {
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
