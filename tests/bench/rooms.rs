//! A waiting room with a million people in one queue: joins, status, memory, on both stores.
//!
//! `tests/bench/run rooms [--people 1000000] [--seconds 10]`

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::Args;
use weir::config::{RoomAlgorithm, RoomConfig, RoomKeyConfig, RoomMode, StoreConfig, StoreType};
use weir::model::Id;
use weir::room::lottery::commitment;
use weir::room::token::{Claims, Keyring, Use};
use weir::store::{Opened, Opening, RoomBatch, RoomCommit, RoomOp, RoomTimes, RoomVerb};
use weir_tests::bench::report::{Aim, Report, machine};
use weir_tests::kinds::{self, Kind};
use weir_tests::services::{AppendFsync, Host, HostConfig, Redis, RedisOptions, find_binary, temporary_directory};

const SEED: [u8; 32] = [5; 32];
const TOKENS: i64 = 20_000;

/// A waiting room with many people.
#[derive(Debug, Args)]
pub struct Options {
    /// People who wait.
    #[arg(long, default_value_t = 1_000_000)]
    people: i64,
    /// Seconds of one load.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

/// Does it run?
pub fn smoke() -> Options {
    Options { people: 20_000, seconds: 1 }
}

/// One load by wrk: requests a second, median and 99th percentile in milliseconds.
fn load(host: &Host, mode: &[(&str, String)], connections: u64, seconds: u64) -> (f64, f64, f64) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/rooms.lua");
    let output = Command::new(find_binary("wrk"))
        .args(["-t1", "--latency", &format!("-c{connections}"), &format!("-d{seconds}s"), "-s"])
        .arg(script)
        .arg(format!("http://{}", host.public()))
        .env("SEED", "7")
        .envs(mode.iter().map(|(name, value)| (*name, value.as_str())))
        .stdin(Stdio::null())
        .output()
        .expect("wrk");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("WEIR ")).unwrap_or_else(|| panic!("wrk said\n{text}"));
    let value = |name: &str| -> f64 {
        let found = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no {name} in {line}"))
    };
    assert!(value("failed") == 0.0, "requests failed: {line}\n{text}");
    (value("requests") / (value("us") / 1e6), value("p50") / 1e3, value("p99") / 1e3)
}

/// Fills the queue through the store itself; how many a second.
async fn fill(config: &StoreConfig, people: i64, now_ms: u64) -> f64 {
    let store = weir::store::open(config).await.unwrap();
    let (rooms, queue) = (&store, Id::Int(1));
    let opening = Opening { seed: SEED, now_ms, queues_max: 10, idle_ms: 1_000 };
    assert_eq!(rooms.open_room("concert", &queue, opening).await, Ok(Opened::Open(SEED)));
    let began = Instant::now();
    for first in (1..=people).step_by(500) {
        let join = RoomVerb::Join { lane: 128, lottery_rank: None, through_ms: None };
        let last = (first + 500).min(people + 1);
        let ops = (first..last).map(|actor| RoomOp { actor: Id::Int(actor), number: 0, verb: join }).collect();
        let times = RoomTimes {
            at_ms: now_ms,
            now_ms,
            pause_ms_max: u64::MAX,
            owner: "bench".into(),
            grace_ms: 86_400_000,
            ended_ttl_ms: 1_000,
        };
        let batch = RoomBatch { seed: SEED, times, waiting_max: 100_000_000, ops };
        let commit = rooms.apply_room("concert", &queue, batch).await.unwrap();
        assert!(matches!(commit, RoomCommit::Done(..)));
    }
    people as f64 / began.elapsed().as_secs_f64()
}

fn tokens(room: &RoomConfig, people: i64, now_ms: u64, file: &Path) {
    let keyring = Keyring::new(room).unwrap();
    let step = (people / TOKENS).max(1);
    let token = |actor: i64| {
        let claims = Claims {
            of: Use::Ticket,
            actor: Id::Int(actor),
            number: actor.unsigned_abs(),
            life: commitment(&SEED)[..16].to_owned(),
            expires_s: now_ms / 1_000 + 86_400,
            expected_ms: None,
            by_lottery: false,
        };
        keyring.sign(&Id::Int(1), &claims, now_ms).unwrap()
    };
    let lines: Vec<String> = (1..=people).step_by(step.unsigned_abs() as usize).map(token).collect();
    std::fs::write(file, lines.join("\n")).unwrap();
}

async fn measure(report: &mut Report, name: &str, redis: Option<&Redis>, options: &Options) {
    let directory = temporary_directory("rooms");
    let mut config = kinds::config(directory.path(), &kinds::sqlite_in(directory.path()), &[Kind::Concert]);
    if let Some(redis) = redis {
        config.store = StoreConfig { store_type: StoreType::Redis, url: redis.url(), ..StoreConfig::default() };
    }
    let room = &mut config.rooms[0];
    room.keys = vec![RoomKeyConfig {
        kid: "bench".into(),
        algorithm: RoomAlgorithm::HS256,
        key: Some("a secret of at least thirty-two bytes".into()),
        key_file: None,
    }];
    (room.mode, room.grace_ms, room.waiting_max) = (RoomMode::QueueAll, 86_400_000, 100_000_000);
    let now_ms = weir::clock::Clock::Real.now_ms();
    let file = directory.path().join("tokens.txt");
    tokens(room, options.people, now_ms, &file);
    let memory = |host: &Host| match redis {
        None => host.rss_bytes() as f64,
        Some(redis) => {
            let info: String = redis.command(&["INFO", "memory"]);
            info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap()
        }
    };
    let mut host = Host::start(HostConfig::of(&config), directory.path());
    host.wait_ready();
    let empty = memory(&host);
    host.terminate();
    let filled = fill(&config.clone().with_namespace().store, options.people, now_ms).await;
    host.restart();
    host.wait_ready();
    let each = (memory(&host) - empty) / options.people as f64;
    let first = (options.people + 1).to_string();
    let joins = load(&host, &[("MODE", "join".into()), ("FIRST", first)], 256, options.seconds);
    let status_mode = [("MODE", "status".into()), ("TOKENS", file.display().to_string())];
    let peak = load(&host, &status_mode, 256, options.seconds);
    // With few connections the rate is about half of the peak.
    let half = load(&host, &status_mode, 8, options.seconds);
    let section = "one queue";
    for (what, (rate, p50, p99)) in
        [("joins", joins), ("status, 256 connections", peak), ("status, 8 connections", half)]
    {
        let values =
            [("requests/s", Some(rate.round())), ("p50 ms", Some(p50)), ("p99 ms", Some(p99)), ("bytes each", None)];
        report.row(section, &format!("{name}: {what}"), &values);
    }
    let values =
        [("requests/s", Some(filled.round())), ("p50 ms", None), ("p99 ms", None), ("bytes each", Some(each.round()))];
    report.row(section, &format!("{name}: filled through the store alone"), &values);
    report.usual(format!("{name}: bytes each"), each, if redis.is_some() { 322.0 } else { 217.0 });
    report.usual(format!("{name}: joins to status"), joins.0 / peak.0, if redis.is_some() { 0.96 } else { 0.66 });
    report.aim(format!("{name}: joins/s"), joins.0, Aim::AtLeast(10_000.0));
    report.aim(
        format!("{name}: status, 99th percentile, ms, at {:.0} % of the peak", half.0 / peak.0 * 100.0),
        half.2,
        Aim::AtMost(5.0),
    );
}

/// Runs it.
pub fn run(options: &Options, report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("{}", machine());
    let title = format!("{} people wait in one queue", options.people);
    report.section(&title, &["requests/s", "p50 ms", "p99 ms", "bytes each"]);
    runtime.block_on(async {
        measure(report, "embedded", None, options).await;
        let redis = Redis::start(RedisOptions { append_fsync: AppendFsync::EverySec, ..RedisOptions::default() });
        measure(report, "Redis everysec", Some(&redis), options).await;
    });
}
