//! Modules are swapped under load: what it costs, and that nothing is lost, doubled, refused or decided by anybody else.
//!
//! Two sets of rules that replies tell apart by their `RateLimit-Policy`: a small component, and the default rules (60 kB)
//! with a limit set in the configuration. Every second activation is of a component that was never seen before (a number
//! in a custom section makes it another one), so it must be compiled; the others are in the cache.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wasm_encoder::{ComponentSection as _, CustomSection};

use crate::client::Client;
use crate::load::{Ledger, Possible};

/// The limit of the default rules, by the kind's settings.
pub const DEFAULT_BURST: &str = "2000000";
/// The limit of the small component.
const SMALL_BURST: &str = "1000000";
const TARGETS: i64 = 100;
/// Actors of one connection: nobody else acts for them.
const ACTORS_EACH: i64 = 50;

/// How much.
#[derive(Debug, Clone, Copy)]
pub struct SwapOptions {
    /// Connections that send, one request after the other.
    pub connections: i64,
    /// Activations.
    pub activations: u32,
    /// Time over which they are spread.
    pub time: Duration,
}

/// What came of it.
#[derive(Debug)]
pub struct Swapped {
    /// Requests answered 200 by one of the two.
    pub acks: u64,
    /// Time of the whole.
    pub elapsed: Duration,
    /// Times from the upload to the answer that the module is live, in milliseconds, sorted: those that were compiled,
    /// the small one and the default rules.
    pub compiled_ms: [Vec<f64>; 2],
    /// The same for those in the cache.
    pub cached_ms: [Vec<f64>; 2],
    /// Sizes of the two components, in bytes.
    pub bytes: [usize; 2],
    /// Times of requests that met an activation, in microseconds, sorted.
    pub during_us: Vec<u32>,
    /// Times of all others.
    pub without_us: Vec<u32>,
    /// Requests decided by the small component, and by the default rules.
    pub deciders: (u64, u64),
    /// What was acknowledged.
    pub ledger: Ledger,
}

/// The value below which `share` of the sorted values are.
pub fn quantile<T: Copy + Default>(sorted: &[T], share: f64) -> T {
    let index = (sorted.len() as f64 * share) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Loads the host and activates modules meanwhile. Panics at the first answer that is not right.
pub async fn swap(public: SocketAddr, admin: SocketAddr, root: &Path, options: SwapOptions) -> Swapped {
    let stop = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let clients: Vec<_> =
        (0..options.connections).map(|number| tokio::spawn(drive(number, public, Arc::clone(&stop)))).collect();
    let mut operator = Operator::new(admin, root);
    let pause = options.time / (options.activations + 1);
    for number in 0..options.activations {
        let next = pause * (number + 1);
        tokio::time::sleep(next.saturating_sub(began.elapsed())).await;
        operator.activate(number).await;
    }
    tokio::time::sleep(options.time.saturating_sub(began.elapsed())).await;
    stop.store(true, Ordering::Relaxed);
    let mut swapped = Swapped {
        acks: 0,
        elapsed: began.elapsed(),
        compiled_ms: operator.compiled_ms.map(sorted),
        cached_ms: operator.cached_ms.map(sorted),
        bytes: [operator.small.len(), operator.default.len()],
        during_us: Vec::new(),
        without_us: Vec::new(),
        deciders: (0, 0),
        ledger: Ledger { pairs: BTreeMap::new(), acks: 0, unknown: 0, violations: Vec::new() },
    };
    for client in clients {
        swapped.take(client.await.expect("a client"), &operator.windows);
    }
    swapped.during_us.sort_unstable();
    swapped.without_us.sort_unstable();
    swapped
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

impl Swapped {
    fn take(&mut self, driven: Driven, windows: &[(Instant, Instant)]) {
        let met = |from: Instant, to: Instant| windows.iter().any(|window| from <= window.1 && to >= window.0);
        for (sent, took) in driven.times {
            let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
            if met(sent, sent + took) { &mut self.during_us } else { &mut self.without_us }.push(micros);
        }
        self.acks += driven.deciders.0 + driven.deciders.1;
        self.ledger.acks = self.acks;
        self.deciders.0 += driven.deciders.0;
        self.deciders.1 += driven.deciders.1;
        let state = |present: bool| Possible { present, absent: !present };
        self.ledger.pairs.extend(driven.pairs.into_iter().map(|(pair, present)| (pair, state(present))));
    }
}

/// Uploads and activates.
struct Operator {
    client: Client,
    small: Vec<u8>,
    default: Vec<u8>,
    /// Digests of what was uploaded, oldest first: small ones, default ones.
    known: [Vec<String>; 2],
    compiled_ms: [Vec<f64>; 2],
    cached_ms: [Vec<f64>; 2],
    windows: Vec<(Instant, Instant)>,
}

impl Operator {
    fn new(admin: SocketAddr, root: &Path) -> Self {
        let text = std::fs::read_to_string(root.join("tests/policies/limited.wat")).expect("the fixture");
        Self {
            client: Client::new(admin),
            small: wat::parse_str(text.replace("1000000", SMALL_BURST)).expect("a component"),
            default: std::fs::read(root.join("guest/default/policy.wasm")).expect("the default component"),
            known: Default::default(),
            compiled_ms: Default::default(),
            cached_ms: Default::default(),
            windows: Vec::new(),
        }
    }

    /// Small and default in turn; of each, one that is new and then the oldest that is known.
    async fn activate(&mut self, number: u32) {
        let which = (number % 2) as usize;
        let began = Instant::now();
        let is_new = (number / 2).is_multiple_of(2);
        let reply = if is_new {
            let mut component = if which == 0 { self.small.clone() } else { self.default.clone() };
            let data = format!("{number} {}", rand::random::<u64>());
            CustomSection { name: "number".into(), data: data.as_bytes().into() }.append_to_component(&mut component);
            let headers = [("content-type", "application/wasm")];
            self.client.request_bytes("POST", "/admin/v1/policies?activate=true", &headers, component).await
        } else {
            let digest = self.known[which][0].clone();
            self.client.request("POST", &format!("/admin/v1/policies/{digest}/activate"), &[], "").await
        };
        let ended = Instant::now();
        let reply = reply.expect("an answer");
        assert!([200, 201].contains(&reply.status), "{}", reply.text());
        let answer: Value = reply.json();
        self.windows.push((began, ended));
        let took_ms = (ended - began).as_secs_f64() * 1_000.0;
        if is_new {
            self.compiled_ms[which].push(took_ms);
            let digest = answer["digest"].as_str().expect("a digest").to_owned();
            assert_eq!(answer["active"]["toggle"]["digest"].as_str(), Some(digest.as_str()));
            self.known[which].push(digest);
        } else {
            self.cached_ms[which].push(took_ms);
            let oldest = self.known[which].remove(0);
            self.known[which].push(oldest);
        }
    }
}

/// What one connection did.
struct Driven {
    times: Vec<(Instant, Duration)>,
    pairs: BTreeMap<(i64, i64), bool>,
    deciders: (u64, u64),
}

/// One connection: each answer must be 200, of the state that the ledger says, with the limit of one of the two.
async fn drive(number: i64, public: SocketAddr, stop: Arc<AtomicBool>) -> Driven {
    let mut rng = StdRng::seed_from_u64(number.cast_unsigned());
    let mut stream = TcpStream::connect(public).await.expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    let mut driven = Driven { times: Vec::new(), pairs: BTreeMap::new(), deciders: (0, 0) };
    let mut buffer = vec![0; 4_096];
    while !stop.load(Ordering::Relaxed) {
        let actor = 1 + number * ACTORS_EACH + rng.random_range(0..ACTORS_EACH);
        let pair = (rng.random_range(1..=TARGETS), actor);
        let method = ["POST", "POST", "PUT", "DELETE"][rng.random_range(0..4)];
        let present = driven.pairs.entry(pair).or_insert(false);
        *present = match method {
            "PUT" => true,
            "DELETE" => false,
            _ => !*present,
        };
        let request = format!(
            "{method} /v1/toggles/feed-like/{} HTTP/1.1\r\nHost: {public}\r\nX-Actor-Id: {actor}\r\n\r\n",
            pair.0
        );
        let sent = Instant::now();
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut filled = 0;
        // Replies are one small object, which is the end of the message.
        while !buffer[..filled].ends_with(b"}") {
            let read = stream.read(&mut buffer[filled..]).await.expect("an answer");
            assert!(read > 0, "the host closed the connection");
            filled += read;
        }
        driven.times.push((sent, sent.elapsed()));
        let text = std::str::from_utf8(&buffer[..filled]).expect("text");
        assert!(text.starts_with("HTTP/1.1 200"), "{request}{text}");
        assert!(text.contains(if *present { "\"liked\":true" } else { "\"liked\":false" }), "{request}{text}");
        let limited = |burst: &str| text.contains(&format!("\"toggle\";q={burst};w=10"));
        match (limited(SMALL_BURST), limited(DEFAULT_BURST)) {
            (true, false) => driven.deciders.0 += 1,
            (false, true) => driven.deciders.1 += 1,
            _ => panic!("decided by neither: {text}"),
        }
    }
    driven
}

/// Targets that [`swap`] needs.
pub fn targets() -> i64 {
    TARGETS
}

/// Pairs of [`swap`] that must be in SQL, for messages.
pub fn present(ledger: &Ledger) -> BTreeSet<(i64, i64)> {
    ledger.pairs.iter().filter(|(_, possible)| possible.present).map(|(pair, _)| *pair).collect()
}
