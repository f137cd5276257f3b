//! A load of creates, single and in lists, and the ledger of what was acknowledged.
//!
//! Every create sends an `Idempotency-Key` and is repeated with it until it is answered, so the ledger is exact: each id that
//! was answered is one document, with as many tracks as were sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{ATTEMPTS_MAX, LoadOptions};
use crate::client::Client;
use crate::database::Database;

/// A running load.
#[derive(Debug)]
pub struct CreateLoad {
    /// Documents that were acknowledged, live.
    pub acks: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<CreateLedger>>,
}

/// What SQL must hold.
#[derive(Debug, Default)]
pub struct CreateLedger {
    /// Each acknowledged document by its title, with its number of tracks.
    pub documents: BTreeMap<String, usize>,
    /// Answers that should not be.
    pub violations: Vec<String>,
}

/// How SQL differs from the ledger.
#[derive(Debug, Default)]
pub struct CreateDifference {
    /// Acknowledged, and not in SQL.
    pub lost: Vec<String>,
    /// More often in SQL than once, or never acknowledged.
    pub doubled: Vec<String>,
    /// With another number of tracks.
    pub torn: Vec<String>,
}

impl CreateLoad {
    /// Starts a load on kind `playlist`; client `n` talks to host `n % hosts`.
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

    /// Ends the load: every create under way is repeated until it is answered, so the host must be well again.
    pub async fn stop(self) -> CreateLedger {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = CreateLedger::default();
        for client in self.clients {
            let ledger = client.await.expect("a client of the load");
            all.documents.extend(ledger.documents);
            all.violations.extend(ledger.violations);
        }
        all
    }
}

impl CreateLedger {
    /// Compares with what is in SQL. Titles are numbers of 18 digits, which SQL is asked for as such.
    pub async fn compare(&self, database: &Database) -> CreateDifference {
        let number = match database {
            Database::MySql(_) => "CAST(title AS SIGNED)",
            _ => "CAST(title AS BIGINT)",
        };
        let rows = database
            .integers(&format!(
                "SELECT {number}, (SELECT COUNT(*) FROM playlist_track WHERE playlist_id = playlist.id) FROM playlist"
            ))
            .await;
        let mut found: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for row in rows {
            found.entry(row[0].to_string()).or_default().push(usize::try_from(row[1]).unwrap());
        }
        let mut difference = CreateDifference::default();
        for (title, tracks) in &self.documents {
            match found.get(title).map(Vec::as_slice) {
                None => difference.lost.push(title.clone()),
                Some([one]) if one == tracks => {}
                Some([_]) => difference.torn.push(title.clone()),
                Some(_) => difference.doubled.push(title.clone()),
            }
        }
        let unknown = found.into_keys().filter(|title| !self.documents.contains_key(title));
        difference.doubled.extend(unknown);
        difference
    }

    /// Panics unless SQL holds exactly what was acknowledged.
    pub async fn assert_holds(&self, database: &Database) {
        assert!(self.violations.is_empty(), "answers that should not be: {:#?}", self.violations);
        let difference = self.compare(database).await;
        let CreateDifference { lost, doubled, torn } = &difference;
        assert!(lost.is_empty() && doubled.is_empty() && torn.is_empty(), "SQL differs: {difference:?}");
    }
}

async fn drive(
    number: i64,
    mut client: Client,
    options: LoadOptions,
    acks: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> CreateLedger {
    let mut rng = StdRng::seed_from_u64(options.seed.wrapping_mul(999_979).wrapping_add(number.cast_unsigned()));
    let mut ledger = CreateLedger::default();
    let actor = (number % options.actors.max(1) + 1).to_string();
    while !stop.load(Ordering::Relaxed) {
        let size = if rng.random_bool(0.3) { rng.random_range(2..=20) } else { 1 };
        let documents: Vec<(String, usize)> = (0..size)
            .map(|_| {
                let title = rng.random_range(100_000_000_000_000_000_i64..1_000_000_000_000_000_000);
                (title.to_string(), rng.random_range(0..4))
            })
            .collect();
        let key = format!("{:032x}", rng.random::<u128>());
        match create(&mut client, &actor, &key, &documents).await {
            Ok(()) => {
                acks.fetch_add(documents.len() as u64, Ordering::Relaxed);
                ledger.documents.extend(documents);
            }
            Err(violation) => ledger.violations.push(violation),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    ledger
}

async fn create(client: &mut Client, actor: &str, key: &str, documents: &[(String, usize)]) -> Result<(), String> {
    let document = |(title, tracks): &(String, usize)| {
        let tracks: Vec<Value> = (0..*tracks).map(|track| json!({ "title": format!("track {track}") })).collect();
        json!({ "title": title, "tracks": tracks })
    };
    let mut all: Vec<Value> = documents.iter().map(document).collect();
    let body = if all.len() == 1 { all.remove(0).to_string() } else { json!(all).to_string() };
    let headers = [("content-type", "application/json"), ("x-actor-id", actor), ("idempotency-key", key)];
    for attempt in 0..ATTEMPTS_MAX {
        match client.request("POST", "/v1/ingest/playlist", &headers, &body).await {
            Ok(reply) if reply.status == 202 => {
                let reply = reply.json();
                let ids = reply["documents"].as_array().map_or(1, Vec::len);
                return if ids == documents.len() { Ok(()) } else { Err(format!("{ids} ids for {}", documents.len())) };
            }
            Ok(reply) if reply.status != 503 => return Err(format!("create: {} {}", reply.status, reply.text())),
            _ => tokio::time::sleep(Duration::from_millis(20 + u64::from(attempt.min(8)) * 10)).await,
        }
    }
    Err("a create was never answered".into())
}
