//! A load of changes of settings, and the ledger of what was acknowledged.
//!
//! Each client has members of its own, and sends each change until it is answered: it says what holds afterwards, so that
//! repeating it is harmless. At the end SQL must hold the last value of each field of each member, and each member once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::task::JoinHandle;

use super::{ATTEMPTS_MAX, LoadOptions};
use crate::client::Client;
use crate::database::Database;

/// A running load.
#[derive(Debug)]
pub struct SettingsLoad {
    /// Changes that were acknowledged, live.
    pub acks: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<SettingsLedger>>,
}

/// What SQL must hold.
#[derive(Debug, Default)]
pub struct SettingsLedger {
    /// By member: `quiet_from`, `quiet_until`; `None` where the field was never set.
    pub fields: BTreeMap<i64, [Option<i64>; 2]>,
    /// Answers that should not be.
    pub violations: Vec<String>,
}

impl SettingsLoad {
    /// Starts a load on kind `notification`, `targets` members a client; client `n` talks to host `n % hosts`.
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

    /// Ends the load: every change under way is repeated until it is answered, so the host must be well again.
    pub async fn stop(self) -> SettingsLedger {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = SettingsLedger::default();
        for client in self.clients {
            let ledger = client.await.expect("a client of the load");
            all.fields.extend(ledger.fields);
            all.violations.extend(ledger.violations);
        }
        all
    }
}

impl SettingsLedger {
    /// Members of which SQL holds something else, as (member, what it holds, what was acknowledged).
    pub async fn compare(&self, database: &Database) -> Vec<(i64, Vec<i64>, Vec<i64>)> {
        let text = "SELECT member_id, quiet_from, quiet_until FROM notification_setting ORDER BY member_id";
        let rows: BTreeMap<i64, Vec<i64>> =
            database.integers(text).await.into_iter().map(|row| (row[0], row[1..].to_vec())).collect();
        let expected = |fields: &[Option<i64>; 2]| fields.map(|field| field.unwrap_or(0)).to_vec();
        self.fields
            .iter()
            .map(|(member, fields)| (*member, rows.get(member).cloned().unwrap_or_default(), expected(fields)))
            .filter(|(_, found, expected)| found != expected)
            .collect()
    }

    /// Panics unless SQL holds what was acknowledged.
    pub async fn assert_holds(&self, database: &Database) {
        assert!(self.violations.is_empty(), "answers that should not be: {:#?}", self.violations);
        let wrong = self.compare(database).await;
        assert!(wrong.is_empty(), "settings differ from what was acknowledged (member, in SQL, expected): {wrong:?}");
    }
}

async fn drive(
    number: i64,
    mut client: Client,
    options: LoadOptions,
    acks: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> SettingsLedger {
    let mut rng = StdRng::seed_from_u64(options.seed.wrapping_mul(777_767).wrapping_add(number.cast_unsigned()));
    let mut ledger = SettingsLedger::default();
    while !stop.load(Ordering::Relaxed) {
        let member = number * 1_000 + rng.random_range(1..=options.targets);
        let (place, value) = (rng.random_range(0..2_usize), rng.random_range(1..=1_000_000_i64));
        match put(&mut client, member, ["quiet_from", "quiet_until"][place], value).await {
            Ok(()) => {
                acks.fetch_add(1, Ordering::Relaxed);
                ledger.fields.entry(member).or_default()[place] = Some(value);
            }
            Err(violation) => ledger.violations.push(violation),
        }
    }
    ledger
}

async fn put(client: &mut Client, member: i64, field: &str, value: i64) -> Result<(), String> {
    let actor = member.to_string();
    let headers = [("content-type", "application/json"), ("x-actor-id", actor.as_str())];
    let (path, body) = (format!("/v1/preferences/notification/{member}"), json!({ field: value }).to_string());
    for attempt in 0..ATTEMPTS_MAX {
        match client.request("PUT", &path, &headers, &body).await {
            Ok(reply) if reply.status == 200 => return Ok(()),
            Ok(reply) if reply.status != 503 => return Err(format!("{path}: {} {}", reply.status, reply.text())),
            _ => tokio::time::sleep(Duration::from_millis(20 + u64::from(attempt.min(8)) * 10)).await,
        }
    }
    Err(format!("{path} was never answered"))
}
