//! What a request costs in instructions and page faults: counted, not timed, so that a busy machine counts the same.
//!
//! A host on one worker thread is asked the same things each time; what valgrind (callgrind) counts between two marks, or
//! the kernel of page faults, is divided by how many there were. Nothing here looks at a clock. Both are of the build that the
//! tests have made anyway: the host's own code is not optimised there, and weighs more than in what is distributed, what it
//! stands on is.
//!
//! - `host`: the process that is counted; `served`: what it does under valgrind.
//! - `bounds`: what was recorded, and whether it still holds.

pub mod bounds;
mod host;
pub mod served;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::services::{AppendFsync, Redis, RedisOptions};
use bounds::Counts;
use host::{CountedHost, Meter};

/// Targets that are toggled.
const TARGETS: i64 = 1_000;
/// Actors that toggle.
const ACTORS: i64 = 100_000;
/// Changes of the flush.
const FLUSHED: usize = 10_000;
/// Connections: those of the largest batch.
const CONNECTIONS: usize = 256;

/// How often each of the things is done. Under valgrind a hundredth of the speed is left.
struct Turns {
    warm_up: usize,
    /// Parts of the counting; see [`least`].
    parts: usize,
    /// Requests of a part.
    requests: usize,
    /// Batches of a part.
    batches: usize,
    /// Flushes, each by a host of its own.
    flushes: usize,
}

/// Counts everything, on both stores: instructions under valgrind, page faults of the `weir` binary.
pub async fn count() -> Vec<Counts> {
    let mut all = Vec::new();
    for on_redis in [false, true] {
        let store = if on_redis { "Redis" } else { "embedded" };
        let few = Turns { warm_up: 20, parts: 8, requests: 10, batches: 1, flushes: 2 };
        let instructions = scenario(Meter::Instructions, on_redis, &few).await;
        let many = Turns { warm_up: 200, parts: 8, requests: 100, batches: 20, flushes: 2 };
        let faults = scenario(Meter::PageFaults, on_redis, &many).await;
        for ((what, instructions), (_, page_faults)) in instructions.into_iter().zip(faults) {
            all.push(Counts { name: format!("{what}, {store}"), instructions, page_faults });
        }
    }
    all
}

/// One host from its start to its end: what was counted, by name, for one of each.
async fn scenario(meter: Meter, on_redis: bool, turns: &Turns) -> Vec<(&'static str, f64)> {
    let redis =
        on_redis.then(|| Redis::start(RedisOptions { append_fsync: AppendFsync::EverySec, ..RedisOptions::default() }));
    let mut host = CountedHost::start(meter, redis.as_ref(), TARGETS).await;
    let mut rng = StdRng::seed_from_u64(33);
    let mut pairs = move || (rng.random_range(1..=TARGETS), rng.random_range(1..=ACTORS));
    let mut clients = host.connect(CONNECTIONS);
    // Targets, connections and pools that are warm, and memory that is as it stays.
    for target in 1..=TARGETS {
        clients[0].ask((target, 1));
    }
    for _ in 0..turns.warm_up {
        host.ask_at_once(&mut clients, &mut pairs);
    }
    let mut counted = Vec::new();
    host.begin();
    let request = least(&mut host, turns.parts, turns.requests, |_| clients[0].ask(pairs()));
    counted.push(("one request", request));
    for (what, size) in [("a batch of 64", 64), ("a batch of 256", CONNECTIONS)] {
        host.ask_at_once(&mut clients[..size], &mut pairs);
        host.mark();
        let batch = |host: &CountedHost| host.ask_at_once(&mut clients[..size], &mut pairs);
        counted.push((what, least(&mut host, turns.parts, turns.batches, batch)));
    }
    drop((host, clients, redis));
    if !on_redis {
        let mut least = f64::INFINITY;
        for _ in 0..turns.flushes {
            least = least.min(flush(meter).await);
        }
        counted.push(("a flush of 10,000", least));
    }
    counted
}

/// What one of `times` costs in the part that costs least: what else a host does comes by the clock, and so the slower the
/// machine, the more of it is counted with the others.
fn least(host: &mut CountedHost, parts: usize, times: usize, mut once: impl FnMut(&CountedHost)) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..parts {
        for _ in 0..times {
            once(host);
        }
        least = least.min(host.mark() / times as f64);
    }
    least
}

/// A host that is told to stop with as many changes in its journal, all of different pairs.
async fn flush(meter: Meter) -> f64 {
    let mut host = CountedHost::start(meter, None, TARGETS).await;
    let mut pairs: Vec<_> = (0..FLUSHED as i64).map(|number| (number % TARGETS + 1, number / TARGETS + 1)).collect();
    pairs.shuffle(&mut StdRng::seed_from_u64(33));
    let mut clients = host.connect(CONNECTIONS);
    let mut next = pairs.into_iter();
    for size in std::iter::repeat_n(CONNECTIONS, FLUSHED / CONNECTIONS).chain([FLUSHED % CONNECTIONS]) {
        host.ask_at_once(&mut clients[..size], || next.next().expect("a pair"));
    }
    drop(clients);
    host.begin();
    let counted = host.stop();
    assert_eq!(host.rows().await, FLUSHED as i64, "everything must have been written");
    counted
}
