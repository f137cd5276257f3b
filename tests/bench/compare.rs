//! Two binaries in turns (A B A B …), with the same load and the same configuration: how fast, at which cost, and how far
//! apart the turns are. The ratio is taken of turns that stand beside each other, so that a busy machine hits both.
//!
//! `tests/bench/run compare REV [--connections 256] [--seconds 5] [--rounds 5]`

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Args;
use weir_tests::bench::contenders::cost;
use weir_tests::bench::load::{Toggles, Way, closed_loop};
use weir_tests::bench::median;
use weir_tests::bench::plain::{PlainHost, PlainOptions, minor_faults};
use weir_tests::bench::report::{Report, machine};
use weir_tests::client::Client;
use weir_tests::services::{AppendFsync, Redis, RedisOptions};

/// How long a host may write behind after a load. Generous: it only decides when a hang is a failure.
const DRAIN_LIMIT: Duration = Duration::from_secs(300);
const COLUMNS: [&str; 5] = ["requests/s", "CPU us", "faults", "p99 ms", "RSS MB"];

/// Two binaries in turns.
#[derive(Debug, Args)]
pub struct Options {
    /// The binary that is compared with.
    #[arg(long)]
    base: PathBuf,
    /// The binary that is looked at.
    #[arg(long)]
    weir: PathBuf,
    /// Connections.
    #[arg(long, default_value_t = 256)]
    connections: u64,
    /// Seconds of one turn.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Turns of each.
    #[arg(long, default_value_t = 5)]
    rounds: u64,
}

/// The cells of a row, by column.
type Cells = Vec<(&'static str, Option<f64>)>;
/// One turn, in the order of [`COLUMNS`].
type Turn = [f64; COLUMNS.len()];

/// Runs it.
pub fn run(options: &Options, report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("{}; load, hosts and Redis share it", machine());
    for on_redis in [false, true] {
        runtime.block_on(compare(options, on_redis, report));
    }
}

async fn compare(options: &Options, on_redis: bool, report: &mut Report) {
    // One after the other on the same kind of files; each has its own Redis.
    let mut hosts = Vec::new();
    for weir in [&options.base, &options.weir] {
        let redis = on_redis
            .then(|| Redis::start(RedisOptions { append_fsync: AppendFsync::EverySec, ..RedisOptions::default() }));
        let with = PlainOptions { redis: redis.as_ref(), flushes: !on_redis, is_slow: false, targets: 1_000 };
        let host = PlainHost::start(|_: &Path| Command::new(weir), with).await;
        hosts.push((host, redis));
    }
    let mut turns: [Vec<Turn>; 2] = Default::default();
    // The first round warms up.
    for round in 0..=options.rounds {
        for ((host, _), turns) in hosts.iter().zip(&mut turns) {
            let turn = turn(host, options, round).await;
            if round > 0 {
                turns.push(turn);
            }
        }
    }
    let store = if on_redis { "Redis everysec, nothing written behind" } else { "embedded, writing behind to SQLite" };
    let section = format!(
        "{store}: {} connections, {} s, {} turns of each",
        options.connections, options.seconds, options.rounds
    );
    report.section(&section, &COLUMNS);
    let row =
        |value: &dyn Fn(usize) -> f64| COLUMNS.iter().enumerate().map(|(n, name)| (*name, Some(value(n)))).collect();
    let rows: [(&str, Cells); 2] = [
        ("A  the base", row(&|n| median(turns[0].iter().map(|turn| turn[n])))),
        ("B  this", row(&|n| median(turns[1].iter().map(|turn| turn[n])))),
    ];
    for (name, values) in &rows {
        report.row(&section, name, values);
    }
    let ratios = |n: usize| -> Vec<f64> {
        let mut ratios: Vec<f64> = turns[0].iter().zip(&turns[1]).map(|(a, b)| b[n] / a[n].max(1e-9)).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    };
    report.row(&section, "B / A, median of turns", &row(&|n| median(ratios(n))));
    report.row(&section, "       least", &row(&|n| ratios(n).first().copied().unwrap_or_default()));
    report.row(&section, "       most", &row(&|n| ratios(n).last().copied().unwrap_or_default()));
}

async fn turn(host: &PlainHost, options: &Options, round: u64) -> Turn {
    let way =
        Way { address: host.public, method: "POST", prefix: "/v1/toggles/feed-like".into(), actor_in_path: false };
    let toggles = Toggles { targets: 1_000, actors: 100_000 };
    let (cpu_us, faults) = (cost(&[host.pid()]).cpu_us, minor_faults(host.pid()));
    let seconds = if round == 0 { 1 } else { options.seconds };
    let met = closed_loop(&way, toggles, options.connections, seconds, round + 1);
    // What is written behind belongs to it, and must not run in the turn of the other.
    drain(host).await;
    let each = |sum: f64| sum / met.requests;
    [
        met.requests / met.seconds,
        each(cost(&[host.pid()]).cpu_us - cpu_us),
        each(minor_faults(host.pid()) - faults),
        met.p99_ms,
        rss_bytes(host) / 1e6,
    ]
}

async fn drain(host: &PlainHost) {
    if host.flushes {
        Client::new(host.admin).wait_drained(DRAIN_LIMIT).await;
    }
}

fn rss_bytes(host: &PlainHost) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap() * 1_024.0
}
