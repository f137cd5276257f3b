//! Load: closed loop by wrk, open loop by a client of our own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::services::find_binary;

/// What is asked for: random toggles.
#[derive(Debug, Clone, Copy)]
pub struct Toggles {
    /// Targets, 1 to this.
    pub targets: u64,
    /// Actors, 1 to this.
    pub actors: u64,
}

/// What a load met.
#[derive(Debug, Clone, Copy, Default)]
pub struct Met {
    /// Answers.
    pub requests: f64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Median time of a request, in milliseconds.
    pub p50_ms: f64,
    /// The 99th percentile, in milliseconds.
    pub p99_ms: f64,
}

/// How a toggle is asked for.
#[derive(Debug, Clone)]
pub struct Way {
    /// Where.
    pub address: SocketAddr,
    /// `POST` toggles, `GET` reads.
    pub method: &'static str,
    /// The path before `/TARGET`.
    pub prefix: String,
    /// `/TARGET/ACTOR` instead of a header.
    pub actor_in_path: bool,
}

/// As many requests as are answered, by wrk on one thread. Panics when one failed.
pub fn closed_loop(way: &Way, toggles: Toggles, connections: u64, seconds: u64, seed: u64) -> Met {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/toggle.lua");
    let output = Command::new(find_binary("wrk"))
        .args(["-t1", "--latency", &format!("-c{connections}"), &format!("-d{seconds}s"), "-s"])
        .arg(script)
        .arg(format!("http://{}", way.address))
        .env("METHOD", way.method)
        .env("PREFIX", &way.prefix)
        .env("ACTOR", if way.actor_in_path { "path" } else { "header" })
        .env("TARGETS", toggles.targets.to_string())
        .env("ACTORS", toggles.actors.to_string())
        .env("SEED", seed.to_string())
        .stdin(Stdio::null())
        .output()
        .expect("wrk");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("WEIR ")).unwrap_or_else(|| {
        panic!("wrk said\n{text}{}", String::from_utf8_lossy(&output.stderr));
    });
    let value = |name: &str| -> f64 {
        let found = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no {name} in {line}"))
    };
    assert!(value("failed") == 0.0, "requests to {} failed: {line}\n{text}", way.address);
    Met {
        requests: value("requests"),
        seconds: value("us") / 1e6,
        p50_ms: value("p50") / 1e3,
        p99_ms: value("p99") / 1e3,
    }
}

/// `rate` requests per second, whatever the answers take: the time of each counts from when it was due, so that a stall
/// is not hidden by requests that were never sent. A thread for each connection, because the timers of an asynchronous
/// runtime are a millisecond coarse. Panics when a request failed.
pub fn open_loop(way: &Way, toggles: Toggles, connections: u64, seconds: u64, rate: f64) -> Met {
    let interval = Duration::from_secs_f64(connections as f64 / rate);
    // Connections first: that one takes a while to be made is not what is measured.
    let streams: Vec<TcpStream> =
        (0..connections).map(|_| TcpStream::connect(way.address).expect("a connection")).collect();
    let start = Instant::now() + Duration::from_millis(100);
    let end = start + Duration::from_secs(seconds);
    let mut times_us: Vec<u32> = thread::scope(|scope| {
        let clients: Vec<_> = (0..connections)
            .zip(streams)
            .map(|(number, stream)| {
                let first = start + interval.mul_f64(number as f64 / connections as f64);
                let run = move || client(way, stream, (toggles, number), (first, interval, end));
                thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, run).expect("a thread")
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    });
    times_us.sort_unstable();
    let at = |share: usize| f64::from(times_us[(times_us.len() - 1) * share / 100]) / 1e3;
    Met { requests: times_us.len() as f64, seconds: start.elapsed().as_secs_f64(), p50_ms: at(50), p99_ms: at(99) }
}

/// One connection. A request that is due while the one before it is not answered waits, and its time runs.
fn client(
    way: &Way,
    mut stream: TcpStream,
    (toggles, seed): (Toggles, u64),
    (first, interval, end): (Instant, Duration, Instant),
) -> Vec<u32> {
    let mut rng = StdRng::seed_from_u64(seed);
    stream.set_nodelay(true).expect("nodelay");
    let (mut times_us, mut buffer, mut due) = (Vec::new(), vec![0; 4_096], first);
    while due < end {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let (target, actor) = (rng.random_range(1..=toggles.targets), rng.random_range(1..=toggles.actors));
        let start = format!("{} {}/{target}", way.method, way.prefix);
        let request = match way.actor_in_path {
            true => format!("{start}/{actor} HTTP/1.1\r\nHost: bench\r\n\r\n"),
            false => format!("{start} HTTP/1.1\r\nHost: bench\r\nX-Actor-Id: {actor}\r\n\r\n"),
        };
        stream.write_all(request.as_bytes()).expect("a request is sent");
        let mut filled = 0;
        // Replies are one small object, which is the end of the message.
        while !buffer[..filled].ends_with(b"}") {
            let read = stream.read(&mut buffer[filled..]).expect("an answer");
            assert!(read > 0, "the server closed the connection");
            filled += read;
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..filled]));
        times_us.push(u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX));
        due += interval;
    }
    times_us
}
