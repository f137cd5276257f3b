//! What TLS to Redis costs: whole requests per second of a like on Redis with and without it, in turns, in one run.
//!
//! `tests/bench/run tls [--connections 64] [--seconds 5] [--rounds 3] [--targets 1000] [--actors 100000]`

use clap::Args;
use rustix::process::Pid;
use tempfile::TempDir;
use weir::config::BuiltinRules;
use weir_tests::bench::contenders::{HostOptions, cost, start_host, way};
use weir_tests::bench::load::{Met, Toggles, Way, closed_loop};
use weir_tests::bench::median;
use weir_tests::bench::report::{Aim, Report, machine};
use weir_tests::certificates::Certificates;
use weir_tests::services::{AppendFsync, Host, Redis, RedisOptions, temporary_directory};

/// A like on Redis with and without TLS.
#[derive(Debug, Args)]
pub struct Options {
    /// Connections of clients.
    #[arg(long, default_value_t = 64)]
    connections: u64,
    /// Seconds of one turn.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Turns of each; medians are printed.
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// Targets that are toggled.
    #[arg(long, default_value_t = 1_000)]
    targets: u64,
    /// Actors that toggle.
    #[arg(long, default_value_t = 100_000)]
    actors: u64,
}

/// Does it run?
pub fn smoke() -> Options {
    Options { connections: 64, seconds: 1, rounds: 1, targets: 1_000, actors: 100_000 }
}

/// A host and its Redis.
struct Contender {
    name: &'static str,
    way: Way,
    host: Vec<Pid>,
    redis: Vec<Pid>,
    _host: Host,
    _redis: Redis,
    _directory: TempDir,
}

/// One turn.
struct Sample {
    met: Met,
    host_us: f64,
    redis_us: f64,
}

/// Runs it.
pub fn run(options: &Options, report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("{}; load, hosts and Redis share it", machine());
    runtime.block_on(compare(options, report));
}

async fn start(options: &Options, certificates: &Certificates, is_tls: bool) -> Contender {
    let directory = temporary_directory("tls");
    let redis = Redis::start(RedisOptions {
        append_fsync: AppendFsync::EverySec,
        certificate: is_tls.then(|| certificates.server.clone()),
        ..RedisOptions::default()
    });
    let host = start_host(
        directory.path(),
        options.targets,
        HostOptions {
            redis: Some(&redis),
            tls_ca: is_tls.then_some(certificates.ca.as_path()),
            sql_url: None,
            rules: BuiltinRules::Component,
            flushes: false,
        },
    )
    .await;
    Contender {
        name: if is_tls { "weir, Redis everysec, over TLS" } else { "weir, Redis everysec, in plain" },
        way: way(&host),
        host: vec![host.pid()],
        redis: vec![redis.pid()],
        _host: host,
        _redis: redis,
        _directory: directory,
    }
}

async fn compare(options: &Options, report: &mut Report) {
    let certificates = Certificates::new();
    let contenders = [start(options, &certificates, false).await, start(options, &certificates, true).await];
    let toggles = Toggles { targets: options.targets, actors: options.actors };
    let mut samples: [Vec<Sample>; 2] = [Vec::new(), Vec::new()];
    // The first round warms up.
    for round in 0..=options.rounds {
        for (contender, samples) in contenders.iter().zip(&mut samples) {
            let (host, redis) = (cost(&contender.host), cost(&contender.redis));
            let seconds = if round == 0 { 1 } else { options.seconds };
            let met = closed_loop(&contender.way, toggles, options.connections, seconds, round + 1);
            let host_us = (cost(&contender.host).cpu_us - host.cpu_us) / met.requests;
            let redis_us = (cost(&contender.redis).cpu_us - redis.cpu_us) / met.requests;
            if round > 0 {
                samples.push(Sample { met, host_us, redis_us });
            }
        }
    }
    let title =
        format!("{} connections, {} s, median of {} rounds", options.connections, options.seconds, options.rounds);
    report.section(&title, &["x plain", "requests/s", "p50 ms", "p99 ms", "host s/M", "Redis s/M"]);
    let middle = |index: usize, of: fn(&Sample) -> f64| median(samples[index].iter().map(of));
    let rates = [0, 1].map(|index| middle(index, |sample| sample.met.requests / sample.met.seconds));
    for (index, contender) in contenders.iter().enumerate() {
        report.row(
            &title,
            contender.name,
            &[
                ("x plain", Some(rates[index] / rates[0])),
                ("requests/s", Some(rates[index])),
                ("p50 ms", Some(middle(index, |sample| sample.met.p50_ms))),
                ("p99 ms", Some(middle(index, |sample| sample.met.p99_ms))),
                ("host s/M", Some(middle(index, |sample| sample.host_us))),
                ("Redis s/M", Some(middle(index, |sample| sample.redis_us))),
            ],
        );
    }
    report.aim("TLS to Redis against plain", rates[1] / rates[0], Aim::AtLeast(0.8));
    report.usual("TLS to Redis against plain", rates[1] / rates[0], 0.97);
}
