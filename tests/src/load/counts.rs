//! A load of increments by many clients on few counters, and the ledger of what was acknowledged.
//!
//! Most increments send an `Idempotency-Key` and are repeated with it until they are answered: their ledger is exact. Every
//! fourth client sends no key: an increment of unknown outcome may have counted or not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;

use super::{ATTEMPTS_MAX, LoadOptions};
use crate::client::Client;
use crate::database::Database;

/// A running load.
#[derive(Debug)]
pub struct CountLoad {
    /// Increments that were acknowledged, live.
    pub acks: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<CountLedger>>,
}

/// What counters must hold: between the two sums, both included.
#[derive(Debug, Default)]
pub struct CountLedger {
    /// By target: acknowledged, and that with what may have counted.
    pub sums: BTreeMap<i64, (i64, i64)>,
    /// Answers that should not be.
    pub violations: Vec<String>,
}

impl CountLoad {
    /// Starts a load on kind `video-view`; client `n` talks to host `n % hosts`.
    pub fn start(hosts: &[SocketAddr], options: LoadOptions) -> Self {
        let (acks, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let clients = (0..options.clients)
            .map(|number| {
                let client = Client::new(hosts[usize::try_from(number).unwrap() % hosts.len()]);
                tokio::spawn(drive(number, client, options, Arc::clone(&acks), Arc::clone(&stop)))
            })
            .collect();
        Self { acks, stop, clients }
    }

    /// Ends the load: every increment under way is repeated until it is answered, so the host must be well again.
    pub async fn stop(self) -> CountLedger {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = CountLedger::default();
        for client in self.clients {
            let ledger = client.await.expect("a client of the load");
            for (target, (least, most)) in ledger.sums {
                let sums = all.sums.entry(target).or_default();
                *sums = (sums.0 + least, sums.1 + most);
            }
            all.violations.extend(ledger.violations);
        }
        all
    }
}

impl CountLedger {
    /// Targets whose count in SQL is not what was acknowledged, as (target, count, least, most).
    pub async fn compare(&self, database: &Database) -> Vec<(i64, i64, i64, i64)> {
        let rows = database.integers("SELECT id, view_count FROM video ORDER BY id").await;
        rows.iter()
            .filter_map(|row| {
                let (least, most) = self.sums.get(&row[0]).copied().unwrap_or_default();
                (!(least..=most).contains(&row[1])).then_some((row[0], row[1], least, most))
            })
            .collect()
    }

    /// Panics unless SQL holds what was acknowledged.
    pub async fn assert_holds(&self, database: &Database) {
        assert!(self.violations.is_empty(), "answers that should not be: {:#?}", self.violations);
        let wrong = self.compare(database).await;
        assert!(wrong.is_empty(), "counts differ from what was acknowledged (target, count, least, most): {wrong:?}");
    }
}

async fn drive(
    number: i64,
    mut client: Client,
    options: LoadOptions,
    acks: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> CountLedger {
    let mut rng = StdRng::seed_from_u64(options.seed.wrapping_mul(999_983).wrapping_add(number.cast_unsigned()));
    let mut ledger = CountLedger::default();
    while !stop.load(Ordering::Relaxed) {
        let (target, by) = (rng.random_range(1..=options.targets), rng.random_range(1..=3));
        let key = (number % 4 != 0).then(|| format!("{:032x}", rng.random::<u128>()));
        let sums = ledger.sums.entry(target).or_default();
        match increment(&mut client, target, by, key.as_deref()).await {
            Ok(Some(())) => {
                acks.fetch_add(1, Ordering::Relaxed);
                *sums = (sums.0 + by, sums.1 + by);
            }
            // Sent without a key, and not answered.
            Ok(None) => {
                sums.1 += by;
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            Err(violation) => ledger.violations.push(violation),
        }
    }
    ledger
}

async fn increment(client: &mut Client, target: i64, by: i64, key: Option<&str>) -> Result<Option<()>, String> {
    let mut headers = vec![("content-type", "application/json"), ("x-actor-id", "7")];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    let (path, body) = (format!("/v1/counters/video-view/{target}"), format!("{{\"by\":{by}}}"));
    for attempt in 0..ATTEMPTS_MAX {
        match client.request("POST", &path, &headers, &body).await {
            Ok(reply) if reply.status == 200 => return Ok(Some(())),
            Ok(reply) if reply.status != 503 => return Err(format!("{path}: {} {}", reply.status, reply.text())),
            _ if key.is_none() => return Ok(None),
            _ => tokio::time::sleep(Duration::from_millis(20 + u64::from(attempt.min(8)) * 10)).await,
        }
    }
    Err(format!("{path} was never answered"))
}
