//! Whole requests per second of a like toggle, as ratios of one run; CPU, memory; times at half of the peak.
//!
//! `tests/bench/run toggle [--connections 64,256] [--seconds 5] [--rounds 3] [--targets 1000] [--actors 100000]`

use std::time::Duration;

use clap::Args;
use rustix::process::Pid;
use tempfile::TempDir;
use weir::config::BuiltinRules;
use weir_tests::bench::contenders::{Bare, HostOptions, Nginx, cost, start_host, way};
use weir_tests::bench::load::{Met, Toggles, Way, closed_loop, open_loop};
use weir_tests::bench::median;
use weir_tests::bench::report::{Aim, Report, machine};
use weir_tests::client::Client;
use weir_tests::services::{AppendFsync, Host, Postgres, Redis, RedisOptions, temporary_directory};

/// How long a host may write behind after a load. Generous: it only decides when a hang is a failure.
const DRAIN_LIMIT: Duration = Duration::from_secs(300);

/// Whole requests per second of a like toggle.
#[derive(Debug, Args)]
pub struct Options {
    /// Connections, one table each; the aims are those of the last.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 256])]
    connections: Vec<u64>,
    /// Seconds of one turn.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Turns of each contender; medians are printed.
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// Targets that are toggled.
    #[arg(long, default_value_t = 1_000)]
    targets: u64,
    /// Actors that toggle.
    #[arg(long, default_value_t = 100_000)]
    actors: u64,
    /// Only these contenders, by letter, besides the bare handler.
    #[arg(long, default_value = "abcdefghij")]
    only: String,
}

/// One of the table.
struct Contender {
    letter: char,
    name: &'static str,
    way: Way,
    server: Vec<Pid>,
    redis: Vec<Pid>,
    /// Operators' address of a host that writes behind: it must be done before the next one is measured.
    drains: Option<std::net::SocketAddr>,
    is_host: bool,
}

/// What lives as long as the contenders do.
#[derive(Default)]
struct Servers {
    hosts: Vec<Host>,
    redis: Vec<Redis>,
    nginx: Vec<Nginx>,
    postgres: Vec<Postgres>,
    directories: Vec<TempDir>,
}

/// One turn.
#[derive(Clone, Copy)]
struct Sample {
    met: Met,
    server_us: f64,
    redis_us: f64,
}

/// Does it run?
pub fn smoke() -> Options {
    let only = "abcdefghij".to_owned();
    Options { connections: vec![64], seconds: 1, rounds: 1, targets: 1_000, actors: 100_000, only }
}

/// Runs it.
pub fn run(options: &Options, report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let bare = Bare::start();
    let mut servers = Servers::default();
    let contenders = runtime.block_on(contenders(options, &bare, &mut servers));
    println!("{}; load, servers, Redis and databases share it", machine());
    let mut peaks = Vec::new();
    for &connections in &options.connections {
        peaks = runtime.block_on(table(options, &contenders, connections, report));
    }
    let connections = options.connections.last().copied().unwrap_or(256);
    runtime.block_on(at_half(options, &contenders, &peaks, connections, report));
}

async fn contenders(options: &Options, bare: &Bare, servers: &mut Servers) -> Vec<Contender> {
    let mut all = vec![Contender {
        letter: 'a',
        name: "a  bare hyper handler, no work",
        way: bare.way(),
        server: bare.pids(),
        redis: Vec::new(),
        drains: None,
        is_host: false,
    }];
    let (component, native) = (BuiltinRules::Component, BuiltinRules::Native);
    let (always, everysec) = (Some(AppendFsync::Always), Some(AppendFsync::EverySec));
    for (letter, name, redis, rules, flushes) in [
        ('b', "b  weir embedded (each reply after fdatasync)", None, component, false),
        ('c', "c  the same, native rules", None, native, false),
        ('d', "d  weir, Redis everysec", everysec, component, false),
        ('e', "e  the same, native rules", everysec, native, false),
        ('f', "f  weir, Redis always", always, component, false),
        ('i', "i  weir embedded, writing behind to SQLite", None, component, true),
        ('j', "j  weir, Redis everysec, to PostgreSQL", everysec, component, true),
    ] {
        if options.only.contains(letter) {
            let started = host(options, servers, (letter, name), redis, rules, flushes).await;
            all.push(started);
        }
    }
    for (letter, name, location) in [
        ('g', "g  nginx + Lua, one script (/script)", "/script"),
        ('h', "h  nginx + Lua, usual way (/common)", "/common"),
    ] {
        if options.only.contains(letter) {
            let redis = Redis::start(RedisOptions { append_fsync: AppendFsync::EverySec, ..RedisOptions::default() });
            let nginx = Nginx::start(&redis);
            let (way, server, redis_pids) = (nginx.way(location), nginx.pids(), vec![redis.pid()]);
            all.push(Contender { letter, name, way, server, redis: redis_pids, drains: None, is_host: false });
            servers.nginx.push(nginx);
            servers.redis.push(redis);
        }
    }
    all.sort_by_key(|contender| contender.letter);
    all
}

async fn host(
    options: &Options,
    servers: &mut Servers,
    (letter, name): (char, &'static str),
    append_fsync: Option<AppendFsync>,
    rules: BuiltinRules,
    flushes: bool,
) -> Contender {
    let directory = temporary_directory("bench");
    let redis = append_fsync.map(|fsync| Redis::start(RedisOptions { append_fsync: fsync, ..RedisOptions::default() }));
    let postgres = (flushes && redis.is_some()).then(Postgres::start);
    let url = match &postgres {
        Some(postgres) => Some(postgres.create_database().await),
        None => None,
    };
    let with = HostOptions { redis: redis.as_ref(), tls_ca: None, sql_url: url.as_deref(), rules, flushes };
    let host = start_host(directory.path(), options.targets, with).await;
    let contender = Contender {
        letter,
        name,
        way: way(&host),
        server: vec![host.pid()],
        redis: redis.iter().map(Redis::pid).collect(),
        drains: flushes.then(|| host.admin()),
        is_host: true,
    };
    servers.hosts.push(host);
    servers.redis.extend(redis);
    servers.postgres.extend(postgres);
    servers.directories.push(directory);
    contender
}

/// One table; the peak of each contender, in requests per second.
async fn table(options: &Options, contenders: &[Contender], connections: u64, report: &mut Report) -> Vec<f64> {
    let toggles = Toggles { targets: options.targets, actors: options.actors };
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); contenders.len()];
    // The first round warms up: cold targets, pools, connections.
    for round in 0..=options.rounds {
        for (contender, samples) in contenders.iter().zip(&mut samples) {
            let (server, redis) = (cost(&contender.server), cost(&contender.redis));
            let seconds = if round == 0 { 1 } else { options.seconds };
            let met = closed_loop(&contender.way, toggles, connections, seconds, round + 1);
            let per_request = |before: f64, after: f64| (after - before) / met.requests;
            let sample = Sample {
                met,
                server_us: per_request(server.cpu_us, cost(&contender.server).cpu_us),
                redis_us: per_request(redis.cpu_us, cost(&contender.redis).cpu_us),
            };
            if round > 0 {
                samples.push(sample);
            }
            drain(contender).await;
        }
    }
    let section = format!("{connections} connections, {} s, median of {} rounds", options.seconds, options.rounds);
    report.section(&section, &["x bare", "requests/s", "p50 ms", "p99 ms", "server s/M", "Redis s/M", "peak MB"]);
    let middle = |index: usize, of: fn(&Sample) -> f64| median(samples[index].iter().map(of));
    let rates: Vec<f64> =
        (0..contenders.len()).map(|index| middle(index, |s| s.met.requests / s.met.seconds)).collect();
    for (index, contender) in contenders.iter().enumerate() {
        let memory = cost(&contender.server).rss_bytes_peak / 1e6;
        report.row(
            &section,
            contender.name,
            &[
                ("x bare", Some(rates[index] / rates[0])),
                ("requests/s", Some(rates[index])),
                ("p50 ms", Some(middle(index, |sample| sample.met.p50_ms))),
                ("p99 ms", Some(middle(index, |sample| sample.met.p99_ms))),
                ("server s/M", Some(middle(index, |sample| sample.server_us))),
                ("Redis s/M", (!contender.redis.is_empty()).then(|| middle(index, |sample| sample.redis_us))),
                ("peak MB", contender.is_host.then_some(memory)),
            ],
        );
    }
    if options.connections.last() == Some(&connections) {
        aims(contenders, &rates, report);
    }
    rates
}

/// Waits until a host that writes behind is done, so that it does not work while the next one is measured.
async fn drain(contender: &Contender) {
    if let Some(admin) = contender.drains {
        Client::new(admin).wait_drained(DRAIN_LIMIT).await;
    }
}

fn aims(contenders: &[Contender], rates: &[f64], report: &mut Report) {
    let rate = |letter: char| {
        let index = contenders.iter().position(|contender| contender.letter == letter)?;
        Some(rates[index])
    };
    for (what, of, to, least, usual) in [
        ("embedded against the bare handler", 'b', 'a', 0.75, 0.55),
        ("Redis everysec against the bare handler", 'd', 'a', 0.65, 0.46),
        ("Redis everysec against nginx /script", 'd', 'g', 2.3, 1.9),
        ("Redis everysec against nginx /common", 'd', 'h', 9.0, 5.0),
        ("Redis always against everysec", 'f', 'd', 0.7, 0.83),
        ("component against native rules, embedded", 'b', 'c', 0.97, 1.0),
        ("component against native rules, Redis", 'd', 'e', 0.97, 1.0),
        ("writing behind to SQLite against not", 'i', 'b', 0.5, 0.66),
        ("writing behind to PostgreSQL against not", 'j', 'd', 0.5, 0.77),
    ] {
        if let (Some(of), Some(to)) = (rate(of), rate(to)) {
            report.aim(what, of / to, Aim::AtLeast(least));
            report.usual_of_disk(what, of / to, usual);
        }
    }
    for contender in contenders.iter().filter(|contender| contender.drains.is_some()) {
        let memory = cost(&contender.server).rss_bytes_peak / 1e6;
        report.aim(format!("peak memory in MB: {}", &contender.name[3..]), memory, Aim::AtMost(150.0));
    }
}

/// Open loop at half of the peak. Without a warm-up: it is warm.
async fn at_half(options: &Options, contenders: &[Contender], peaks: &[f64], connections: u64, report: &mut Report) {
    let toggles = Toggles { targets: options.targets, actors: options.actors };
    let section = format!("open loop at half of the peak, {connections} connections, median of {}", options.rounds);
    report.section(&section, &["requests/s", "p50 ms", "p99 ms"]);
    let chosen: Vec<(&Contender, f64)> = contenders
        .iter()
        .zip(peaks)
        .filter(|(contender, _)| "abdij".contains(contender.letter))
        .map(|(contender, peak)| (contender, peak / 2.0))
        .collect();
    let mut all: Vec<Vec<Met>> = vec![Vec::new(); chosen.len()];
    for _ in 0..options.rounds {
        for ((contender, rate), met) in chosen.iter().zip(&mut all) {
            met.push(open_loop(&contender.way, toggles, connections, options.seconds, *rate));
            drain(contender).await;
        }
    }
    for ((contender, rate), met) in chosen.iter().zip(&all) {
        let p99_ms = median(met.iter().map(|met| met.p99_ms));
        report.row(
            &section,
            contender.name,
            &[
                ("requests/s", Some(*rate)),
                ("p50 ms", Some(median(met.iter().map(|met| met.p50_ms)))),
                ("p99 ms", Some(p99_ms)),
            ],
        );
        match contender.letter {
            'b' | 'i' => report.aim(format!("p99 in ms at half: {}", &contender.name[3..]), p99_ms, Aim::AtMost(10.0)),
            'd' | 'j' => report.aim(format!("p99 in ms at half: {}", &contender.name[3..]), p99_ms, Aim::AtMost(5.0)),
            _ => {}
        }
    }
}
