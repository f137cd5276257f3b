//! Load: closed loop by wrk, open loop by a client of our own.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::event::{Timespec, epoll};

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
/// is not hidden by requests that were never sent. One thread that sleeps to the microsecond: the timers of an asynchronous
/// runtime are a millisecond coarse, and a thread for each connection costs more than the server. Panics when a request
/// failed.
pub fn open_loop(way: &Way, toggles: Toggles, connections: u64, seconds: u64, rate: f64) -> Met {
    let mut rng = StdRng::seed_from_u64(rand::random());
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
    // Connections first: that one takes a while to be made is not what is measured.
    let mut clients: Vec<Client> = (0..connections).map(|number| Client::connect(way, &poll, number)).collect();
    let (start, total) = (Instant::now() + Duration::from_millis(100), (rate * seconds as f64) as usize);
    let due_at = |request: usize| start + Duration::from_secs_f64(request as f64 / rate);
    let (mut asked, mut times_us) = (0, Vec::with_capacity(total));
    let mut events: Vec<epoll::Event> = Vec::with_capacity(1_024);
    while times_us.len() < total {
        while asked < total && due_at(asked) <= Instant::now() {
            let client = asked % clients.len();
            clients[client].due.push_back(due_at(asked));
            clients[client].send(way, toggles, &mut rng);
            asked += 1;
        }
        let pause = if asked < total {
            due_at(asked).saturating_duration_since(Instant::now())
        } else {
            Duration::from_secs(10)
        };
        let timeout = Timespec::try_from(pause).expect("a short time");
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)).expect("epoll");
        assert!(!events.is_empty() || asked < total, "no answer from {} for {pause:?}", way.address);
        for event in &events {
            let client = &mut clients[usize::try_from(event.data.u64()).expect("a number of a client")];
            if let Some(time) = client.receive() {
                times_us.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
                client.send(way, toggles, &mut rng);
            }
        }
    }
    times_us.sort_unstable();
    let at = |share: usize| f64::from(times_us[(times_us.len() - 1) * share / 100]) / 1e3;
    Met { requests: times_us.len() as f64, seconds: start.elapsed().as_secs_f64(), p50_ms: at(50), p99_ms: at(99) }
}

/// One connection of the open loop. A request that is due while the one before it is not answered waits, and its time
/// runs.
struct Client {
    stream: TcpStream,
    /// When the requests were due that are not answered yet; the first is under way when `is_asking`.
    due: VecDeque<Instant>,
    is_asking: bool,
    buffer: Vec<u8>,
    filled: usize,
}

impl Client {
    fn connect(way: &Way, poll: &OwnedFd, number: u64) -> Self {
        let stream = TcpStream::connect(way.address).expect("a connection");
        stream.set_nodelay(true).expect("nodelay");
        epoll::add(poll, &stream, epoll::EventData::new_u64(number), epoll::EventFlags::IN).expect("epoll");
        Self { stream, due: VecDeque::new(), is_asking: false, buffer: vec![0; 4_096], filled: 0 }
    }

    /// Sends the next request that is due, unless one is under way.
    fn send(&mut self, way: &Way, toggles: Toggles, rng: &mut StdRng) {
        if self.is_asking || self.due.is_empty() {
            return;
        }
        let (target, actor) = (rng.random_range(1..=toggles.targets), rng.random_range(1..=toggles.actors));
        let start = format!("{} {}/{target}", way.method, way.prefix);
        let request = match way.actor_in_path {
            true => format!("{start}/{actor} HTTP/1.1\r\nHost: bench\r\n\r\n"),
            false => format!("{start} HTTP/1.1\r\nHost: bench\r\nX-Actor-Id: {actor}\r\n\r\n"),
        };
        self.stream.write_all(request.as_bytes()).expect("a request is sent");
        self.is_asking = true;
    }

    /// Takes what has come; the time of the request when its answer is whole.
    fn receive(&mut self) -> Option<Duration> {
        let read = self.stream.read(&mut self.buffer[self.filled..]).expect("an answer");
        assert!(read > 0, "the server closed the connection");
        self.filled += read;
        let answer = &self.buffer[..self.filled];
        // Replies are one small object, which is the end of the message.
        if !answer.ends_with(b"}") {
            return None;
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(answer));
        (self.filled, self.is_asking) = (0, false);
        self.due.pop_front().map(|due| due.elapsed())
    }
}
