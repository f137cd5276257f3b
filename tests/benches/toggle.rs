//! Whole requests per second, as ratios of one run: a bare hyper handler, weir embedded (each reply after fdatasync), weir
//! on Redis. The contenders take turns, so that a noisy neighbour hits all of them; medians of the rounds are printed.
//!
//! `cargo build --release && cargo bench -p weir-tests --bench toggle [-- CONNECTIONS SECONDS ROUNDS]`

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails by panicking")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weir::config::{Config, StoreConfig, StoreType};
use weir_tests::services::{AppendFsync, Host, HostConfig, Redis, RedisOptions, temporary_directory};

const TARGETS: i64 = 1_000;
const ACTORS: i64 = 100_000;
const BARE_REPLY: &str =
    r#"{"liked":true,"likeCount":1,"message":"Liked","timestamp":"2026-01-01T00:00:00.000Z","durability":"journaled"}"#;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if arguments.first().is_some_and(|argument| argument == "bare-server") {
        return runtime.block_on(bare_server());
    }
    let number =
        |index: usize, default: u64| arguments.get(index).map_or(default, |text| text.parse().expect("a number"));
    let (connections, seconds, rounds) = (number(0, 64), number(1, 5), number(2, 3));

    let directories: Vec<_> = (0..3).map(|_| temporary_directory("bench")).collect();
    let (mut bare, bare_address) = start_bare();
    let embedded = start_host(directories[0].path(), None);
    let everysec = Redis::start(RedisOptions { append_fsync: AppendFsync::EverySec, ..RedisOptions::default() });
    let on_everysec = start_host(directories[1].path(), Some(&everysec));
    let always = Redis::start(RedisOptions { append_fsync: AppendFsync::Always, ..RedisOptions::default() });
    let on_always = start_host(directories[2].path(), Some(&always));
    let contenders = [
        ("bare hyper handler, no work", bare_address),
        ("weir, embedded store, fdatasync", embedded.public()),
        ("weir, Redis, appendfsync everysec", on_everysec.public()),
        ("weir, Redis, appendfsync always", on_always.public()),
    ];

    let mut rates: BTreeMap<usize, Vec<(f64, f64)>> = BTreeMap::new();
    for round in 0..rounds {
        for (index, (_, address)) in contenders.iter().enumerate() {
            let measured = runtime.block_on(load(*address, connections, Duration::from_secs(seconds), round));
            rates.entry(index).or_default().push(measured);
        }
    }
    bare.kill().unwrap();
    let _ = bare.wait();

    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!(
        "{connections} connections, {seconds} s, median of {rounds} rounds; load, servers and Redis share this machine"
    );
    println!("{:<36} {:>10} {:>8} {:>10}", "", "requests/s", "ratio", "p99 ms");
    let base = median(rates[&0].iter().map(|(rate, _)| *rate).collect());
    for (index, (name, _)) in contenders.iter().enumerate() {
        let rate = median(rates[&index].iter().map(|(rate, _)| *rate).collect());
        let p99_ms = median(rates[&index].iter().map(|(_, p99)| *p99).collect());
        println!("{name:<36} {rate:>10.0} {:>8.2} {p99_ms:>10.2}", rate / base);
    }
}

/// The demo's schema and kind, without the rate limit, on the given Redis or embedded.
fn start_host(directory: &std::path::Path, redis: Option<&Redis>) -> Host {
    let data = directory.join("weir-data");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut config: Config = runtime.block_on(weir::app::demo::prepare(&data)).unwrap();
    if let Some(redis) = redis {
        config.store = StoreConfig { store_type: StoreType::Redis, url: redis.url(), ..StoreConfig::default() };
    }
    config.toggles[0].settings.insert("limit-burst".into(), "0".into());
    let mut host = Host::start(HostConfig::of(&config), directory);
    host.wait_ready();
    host
}

/// Requests per second, and the 99th percentile of the time of one, in milliseconds.
async fn load(address: SocketAddr, connections: u64, time: Duration, round: u64) -> (f64, f64) {
    let started = Instant::now();
    let clients: Vec<_> = (0..connections)
        .map(|number| tokio::spawn(client(address, started + time, round * connections + number)))
        .collect();
    let mut times_us = Vec::new();
    for client in clients {
        times_us.extend(client.await.unwrap());
    }
    let elapsed = started.elapsed().as_secs_f64();
    times_us.sort_unstable();
    let p99_ms = f64::from(times_us[times_us.len() * 99 / 100]) / 1_000.0;
    (times_us.len() as f64 / elapsed, p99_ms)
}

/// One connection, one request after the other; every answer must be 200. The time of each, in microseconds.
async fn client(address: SocketAddr, until: Instant, seed: u64) -> Vec<u32> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut times_us, mut buffer) = (Vec::new(), vec![0; 4_096]);
    while Instant::now() < until {
        let (target, actor) = (rng.random_range(1..=TARGETS), rng.random_range(1..=ACTORS));
        let request =
            format!("POST /v1/toggles/feed-like/{target} HTTP/1.1\r\nHost: bench\r\nX-Actor-Id: {actor}\r\n\r\n");
        let sent = Instant::now();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut filled = 0;
        loop {
            let read = stream.read(&mut buffer[filled..]).await.unwrap();
            assert!(read > 0, "the server closed the connection");
            filled += read;
            // Replies are one small object, which is the end of the message.
            if buffer[..filled].ends_with(b"}") {
                break;
            }
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..filled]));
        times_us.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    times_us
}

fn start_bare() -> (std::process::Child, SocketAddr) {
    use std::io::BufRead;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("bare-server")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().parse().expect("the bare server prints its address"))
}

/// What HTTP alone costs: reads a request, answers a fixed reply.
async fn bare_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(async move {
            let answer = service_fn(|_| async {
                let reply = Response::new(Full::new(Bytes::from_static(BARE_REPLY.as_bytes())));
                Ok::<_, Infallible>(reply)
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}
