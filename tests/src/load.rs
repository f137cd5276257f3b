//! A load of toggles by many actors on few targets, and the ledger of what was acknowledged.
//!
//! Each (target, actor) pair is driven by one client at most, one operation after the other, so that the ledger knows
//! what must hold. Most pairs send an `Idempotency-Key` and repeat an operation of unknown outcome with the same key
//! until it is answered: their ledger is exact. Every fourth actor sends no key and uses only PUT and DELETE: after an
//! unknown outcome either state is right, until the next answer.

mod counts;
mod creates;
mod settings;

pub use counts::{CountLedger, CountLoad};
pub use creates::{CreateLedger, CreateLoad};
pub use settings::{SettingsLedger, SettingsLoad};

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::database::Database;

/// How often one operation is repeated before the host is said to hang. With the pauses: some minutes.
const ATTEMPTS_MAX: u32 = 2_000;

/// Size and seed of a load.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// Clients that send at the same time.
    pub clients: i64,
    /// Actors 1 to this.
    pub actors: i64,
    /// Targets 1 to this.
    pub targets: i64,
    /// Seed of what is sent.
    pub seed: u64,
}

/// What every client of a load counts.
#[derive(Debug, Default)]
pub struct Tally {
    /// Operations answered 200.
    pub acks: AtomicU64,
    /// Attempts that were answered 503 or not at all.
    pub unknown: AtomicU64,
    stop: AtomicBool,
    violations: Mutex<Vec<String>>,
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    /// Its counters, live.
    pub tally: Arc<Tally>,
    clients: Vec<JoinHandle<BTreeMap<(i64, i64), Possible>>>,
}

/// The states of a pair that the acknowledgements allow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Possible {
    /// It may be present.
    pub present: bool,
    /// It may be absent.
    pub absent: bool,
}

/// What was acknowledged, when the load is over.
#[derive(Debug)]
pub struct Ledger {
    /// Each pair that was ever asked for.
    pub pairs: BTreeMap<(i64, i64), Possible>,
    /// Operations answered 200.
    pub acks: u64,
    /// Attempts that were answered 503 or not at all.
    pub unknown: u64,
    /// Answers that contradict the ones before them.
    pub violations: Vec<String>,
}

/// How SQL differs from the ledger.
#[derive(Debug, Default)]
pub struct Difference {
    /// Acknowledged as present, and not in SQL.
    pub lost: Vec<(i64, i64)>,
    /// In SQL, and acknowledged as absent or never asked for.
    pub doubled: Vec<(i64, i64)>,
}

impl Load {
    /// Starts a load; client `n` talks to host `n % hosts`.
    pub fn start(hosts: &[SocketAddr], options: LoadOptions) -> Self {
        let tally = Arc::new(Tally::default());
        let clients = (0..options.clients)
            .map(|number| {
                let host = hosts[usize::try_from(number).unwrap() % hosts.len()];
                tokio::spawn(drive(number, Client::new(host), options, Arc::clone(&tally)))
            })
            .collect();
        Self { tally, clients }
    }

    /// Waits until `count` more operations were acknowledged; `false` when that takes longer than `limit`.
    pub async fn wait_for_acks(&self, count: u64, limit: Duration) -> bool {
        let goal = self.tally.acks.load(Ordering::Relaxed) + count;
        let start = tokio::time::Instant::now();
        while self.tally.acks.load(Ordering::Relaxed) < goal {
            if start.elapsed() > limit {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }

    /// Ends the load: every operation under way is repeated until it is answered, so the host must be well again.
    pub async fn stop(self) -> Ledger {
        self.tally.stop.store(true, Ordering::Relaxed);
        let mut pairs = BTreeMap::new();
        for client in self.clients {
            pairs.extend(client.await.expect("a client of the load"));
        }
        let violations = self.tally.violations.lock().unwrap().clone();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ledger { pairs, acks: read(&self.tally.acks), unknown: read(&self.tally.unknown), violations }
    }
}

impl Ledger {
    /// Compares with what is in SQL.
    pub async fn compare(&self, database: &Database) -> Difference {
        let rows: BTreeSet<(i64, i64)> = database.likes().await;
        let lost = self.pairs.iter().filter(|(pair, possible)| !possible.absent && !rows.contains(pair));
        let allowed = |pair: &(i64, i64)| self.pairs.get(pair).is_some_and(|possible| possible.present);
        Difference {
            lost: lost.map(|(pair, _)| *pair).collect(),
            doubled: rows.iter().filter(|pair| !allowed(pair)).copied().collect(),
        }
    }

    /// Panics unless SQL holds exactly what was acknowledged, the counts equal the rows, no answer contradicted
    /// another one, and nothing is in the dead letters.
    pub async fn assert_holds(&self, database: &Database) {
        let difference = self.compare(database).await;
        assert!(self.violations.is_empty(), "answers contradict each other: {:#?}", self.violations);
        assert!(
            difference.lost.is_empty() && difference.doubled.is_empty(),
            "SQL differs from what was acknowledged: {difference:?}"
        );
        database.assert_counts_equal_rows().await;
        assert_eq!(database.dead_letters().await, 0, "dead letters");
    }
}

/// One client: until it is told to stop, one operation after the other on the pairs that are its own.
async fn drive(
    number: i64,
    mut client: Client,
    options: LoadOptions,
    tally: Arc<Tally>,
) -> BTreeMap<(i64, i64), Possible> {
    let mut rng = StdRng::seed_from_u64(options.seed.wrapping_mul(1_000_003).wrapping_add(number.cast_unsigned()));
    let actors: Vec<i64> = (1..=options.actors).filter(|actor| actor % options.clients == number).collect();
    let mut pairs = BTreeMap::new();
    while !actors.is_empty() && !tally.stop.load(Ordering::Relaxed) {
        let actor = actors[rng.random_range(0..actors.len())];
        let target = rng.random_range(1..=options.targets);
        let before = pairs.entry((target, actor)).or_insert(Possible { present: false, absent: true });
        let violation = if actor % 4 == 0 {
            let method = if rng.random_bool(0.5) { "PUT" } else { "DELETE" };
            unkeyed(&mut client, &tally, method, (target, actor), before).await
        } else {
            let method = ["POST", "POST", "POST", "PUT", "DELETE"][rng.random_range(0..5)];
            let key = format!("{:016x}{:016x}", rng.random::<u64>(), rng.random::<u64>());
            keyed(&mut client, &tally, method, &key, (target, actor), before).await
        };
        if let Err(violation) = violation {
            tally.violations.lock().unwrap().push(violation);
        }
    }
    pairs
}

/// One operation with an `Idempotency-Key`, repeated with the same key until it is answered.
async fn keyed(
    client: &mut Client,
    tally: &Tally,
    method: &str,
    key: &str,
    (target, actor): (i64, i64),
    state: &mut Possible,
) -> Result<(), String> {
    let expected = match method {
        "PUT" => true,
        "DELETE" => false,
        _ => !state.present,
    };
    for attempt in 0..ATTEMPTS_MAX {
        match answer(client, tally, method, (target, actor), Some(key)).await? {
            Some(liked) => {
                *state = Possible { present: liked, absent: !liked };
                if liked == expected {
                    return Ok(());
                }
                return Err(format!(
                    "{method} of target {target} by {actor}, attempt {attempt}: liked is {liked}, must be {expected}"
                ));
            }
            None => tokio::time::sleep(Duration::from_millis(20 + u64::from(attempt.min(8)) * 10)).await,
        }
    }
    Err(format!("{method} of target {target} by {actor} was never answered"))
}

/// One absolute operation without a key, sent once.
async fn unkeyed(
    client: &mut Client,
    tally: &Tally,
    method: &str,
    (target, actor): (i64, i64),
    state: &mut Possible,
) -> Result<(), String> {
    let expected = method == "PUT";
    match answer(client, tally, method, (target, actor), None).await? {
        Some(liked) => {
            *state = Possible { present: liked, absent: !liked };
            if liked == expected {
                return Ok(());
            }
            Err(format!("{method} of target {target} by {actor}: liked is {liked}"))
        }
        None => {
            state.present |= expected;
            state.absent |= !expected;
            tokio::time::sleep(Duration::from_millis(30)).await;
            Ok(())
        }
    }
}

/// Sends once. `Some(liked)` for an answer 200, `None` for an unknown outcome, an error for every other answer.
async fn answer(
    client: &mut Client,
    tally: &Tally,
    method: &str,
    (target, actor): (i64, i64),
    key: Option<&str>,
) -> Result<Option<bool>, String> {
    let Ok(reply) = client.toggle(method, target, actor, key).await else {
        tally.unknown.fetch_add(1, Ordering::Relaxed);
        return Ok(None);
    };
    let named = || format!("{method} of target {target} by {actor}: {} {}", reply.status, reply.text());
    match reply.status {
        200 => {
            let (liked, count) = reply.like();
            tally.acks.fetch_add(1, Ordering::Relaxed);
            if count < i64::from(liked) {
                return Err(format!("{} (a count below what it counts)", named()));
            }
            Ok(Some(liked))
        }
        503 => {
            tally.unknown.fetch_add(1, Ordering::Relaxed);
            if reply.header("retry-after").is_empty() {
                Err(format!("{} without Retry-After", named()))
            } else {
                Ok(None)
            }
        }
        _ => Err(named()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::temporary_directory;
    use crate::stand::{add_targets, create_tables};

    #[tokio::test]
    async fn a_ledger_finds_what_is_lost_and_what_is_doubled() {
        let directory = temporary_directory("ledger");
        let database = Database::connect(&format!("sqlite://{}", directory.path().join("feed.db").display())).await;
        create_tables(&database, "").await;
        add_targets(&database, 2).await;
        database
            .script(
                "INSERT INTO feed_like VALUES (1, 1, ''), (1, 3, ''), (1, 9, ''); UPDATE feed SET like_count = 3 WHERE id = 1",
            )
            .await;
        let known = |present| Possible { present, absent: !present };
        let either = Possible { present: true, absent: true };
        let pairs = [((1, 1), known(true)), ((1, 2), known(true)), ((1, 3), known(false)), ((1, 4), known(false))];
        let pairs = pairs.into_iter().chain([((2, 5), either)]).collect();
        let ledger = Ledger { pairs, acks: 0, unknown: 0, violations: Vec::new() };
        let difference = ledger.compare(&database).await;
        assert_eq!(difference.lost, [(1, 2)]);
        assert_eq!(difference.doubled, [(1, 3), (1, 9)]);

        assert!(database.mismatched_counts().await.unwrap().is_empty());
        database.script("UPDATE feed SET like_count = 4 WHERE id = 1").await;
        assert_eq!(database.mismatched_counts().await.unwrap(), [[1, 4, 3]]);
    }
}
