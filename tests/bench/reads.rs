//! A cached read against a bare hyper handler, and what a read load does to SQL with and without the cache.
//!
//! `tests/bench/run reads [--connections 64] [--seconds 5] [--rounds 3]`

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;
use weir::config::{Config, ReadConfig, Staleness};
use weir_tests::bench::contenders::Bare;
use weir_tests::bench::median;
use weir_tests::bench::report::{Aim, Report, machine};
use weir_tests::database::Database;
use weir_tests::services::find_binary;
use weir_tests::stand::{Setup, Stand, read};

/// What a hit must reach of a bare handler.
const HIT_SHARE: f64 = 0.85;
/// Connections to SQL that are in use while the cache answers, on average, at most.
const ACTIVE_MAX: f64 = 0.5;

/// A cached read against a bare handler, and against SQL without a cache.
#[derive(Debug, Args)]
pub struct Options {
    /// Connections.
    #[arg(long, default_value_t = 64)]
    connections: u64,
    /// Seconds of one turn.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Turns of each contender; medians are printed.
    #[arg(long, default_value_t = 3)]
    rounds: u64,
}

/// Does it run?
pub fn smoke() -> Options {
    Options { connections: 16, seconds: 1, rounds: 1 }
}

struct Met {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Runs it.
pub fn run(options: &Options, report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("{}; load, host and PostgreSQL share it", machine());
    runtime.block_on(measure(options, report));
}

async fn measure(options: &Options, report: &mut Report) {
    let stand = Stand::start(Setup::EmbeddedPostgres, 100).await;
    // Ten milliseconds of a join that is not there.
    let sql = "SELECT f.id, f.content, f.like_count FROM feed f, pg_sleep(0.01) WHERE f.id = :id";
    let of = |name, class| ReadConfig { timeout_ms: 5_000, ..read(name, sql, class, &["feed"]) };
    let reads = vec![of("kept", Staleness::Hours), of("live", Staleness::Live)];
    let host = stand.host(&Config { reads, ..stand.config() });
    let bare = Bare::start();
    let hit = answer(host.public(), "/v1/reads/kept?id=1");
    let same = Bare::start_with(&hit.1, &hit.0);
    let columns = ["x bare", "requests/s", "p50 ms", "p99 ms"];
    report.section("hits", &columns);
    let url = |address: SocketAddr, path: &str| format!("http://{address}{path}");
    let urls = [
        url(bare.way().address, "/"),
        url(same.way().address, "/v1/reads/kept?id=1"),
        url(host.public(), "/v1/reads/kept?id=1"),
    ];
    let mut turns: [Vec<Met>; 3] = Default::default();
    for _ in 0..options.rounds {
        for (turn, url) in turns.iter_mut().zip(&urls) {
            turn.push(load(url, options.connections, options.seconds));
        }
    }
    let of = |turn: &[Met], value: fn(&Met) -> f64| median(turn.iter().map(value));
    let base = of(&turns[1], |met| met.per_second);
    let names = ["bare hyper handler, no headers", "bare hyper handler, the same request and answer", "weir, a hit"];
    for (name, turn) in names.iter().zip(&turns) {
        let per_second = of(turn, |met| met.per_second);
        report.row(
            "hits",
            name,
            &[
                ("x bare", Some(round2(per_second / base))),
                ("requests/s", Some(per_second.round())),
                ("p50 ms", Some(round2(of(turn, |met| met.p50_ms)))),
                ("p99 ms", Some(round2(of(turn, |met| met.p99_ms)))),
            ],
        );
    }
    report.aim(
        "throughput of hits, of a bare handler's with the same answer",
        of(&turns[2], |met| met.per_second) / base,
        Aim::AtLeast(HIT_SHARE),
    );

    report.usual("hits, of a bare handler's with the same answer", of(&turns[2], |met| met.per_second) / base, 0.91);

    report.section("the same statement, 10 ms", &["requests/s", "p50 ms", "p99 ms", "active"]);
    for (name, path) in [("without the cache (class live)", "/v1/reads/live?id=1"), ("with it", "/v1/reads/kept?id=1")]
    {
        let active = sample(&stand.database, options.seconds);
        let (load_url, connections, seconds) = (url(host.public(), path), options.connections, options.seconds);
        let loaded = tokio::task::spawn_blocking(move || load(&load_url, connections, seconds));
        let (active, met) = tokio::join!(active, loaded);
        let met = met.unwrap();
        report.row(
            "sql",
            name,
            &[
                ("requests/s", Some(met.per_second.round())),
                ("p50 ms", Some(round2(met.p50_ms))),
                ("p99 ms", Some(round2(met.p99_ms))),
                ("active", Some(round2(active))),
            ],
        );
        if path.contains("kept") {
            report.aim("connections to SQL in use while the cache answers", active, Aim::AtMost(ACTIVE_MAX));
        }
    }
}

/// The headers and the body of a hit, as a bare handler has to write them.
fn answer(address: SocketAddr, path: &str) -> (Vec<(String, String)>, String) {
    let mut last = String::new();
    // The first one is read, the second one is kept.
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
        last.clear();
        stream.read_to_string(&mut last).unwrap();
    }
    let (head, body) = last.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("; hit"), "no hit: {head}");
    let headers = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    // These hyper writes itself.
    let headers = headers.filter(|(name, _)| !["date", "content-length", "connection"].contains(name));
    (headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(), body.to_owned())
}

/// Connections that run a statement of weir's, on average.
async fn sample(database: &Database, seconds: u64) -> f64 {
    let (mut sum, mut count) = (0, 0);
    for _ in 0..seconds * 10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        sum += database
            .integer("SELECT COUNT(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()")
            .await;
        count += 1;
    }
    sum as f64 / f64::from(count.max(1))
}

/// As many requests as are answered, by wrk.
fn load(url: &str, connections: u64, seconds: u64) -> Met {
    let output = Command::new(find_binary("wrk"))
        // Two threads: with one, the load is what limits, not the server.
        .args(["-t2", "--latency", &format!("-c{connections}"), &format!("-d{seconds}s"), url])
        .stdin(Stdio::null())
        .output()
        .expect("wrk");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.contains("Non-2xx"), "requests to {url} failed:\n{text}");
    let word = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        line.map(|rest| rest.trim().to_owned()).unwrap_or_else(|| panic!("no {name} in\n{text}"))
    };
    let ms = |text: String| -> f64 {
        let digits: String = text.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let value: f64 = digits.parse().unwrap();
        match &text[digits.len()..] {
            "us" => value / 1e3,
            "s" => value * 1e3,
            _ => value,
        }
    };
    Met { per_second: word("Requests/sec:").parse().unwrap(), p50_ms: ms(word("50%")), p99_ms: ms(word("99%")) }
}

fn round2(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
