//! `kill -9` of host, Redis and SQL at random moments under a load of toggles, increments, creates and settings, on real processes.
//!
//! At the end, after a drain: every acknowledged outcome is in SQL, no other row is, counts equal rows, counters hold the sum
//! of what was acknowledged, each document is there once with its tracks, settings are the last ones; meanwhile counts equal rows in every snapshot of
//! SQL that could be taken. One line per setup: acks, kills, lost, doubled.
//!
//! `WEIR_CRASH_KILLS` sets the number of kills over all setups together (32), `WEIR_CRASH_SETUPS` among how many they are
//! divided, `WEIR_CRASH_SEED` what is sent and killed; the moments are the machine's. `tests/run crash --kills 200` is the long
//! run, `tests/run crash --kills 50 --on mysql` one of a single setup.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use weir_tests::client::Client;
use weir_tests::database::Database;
use weir_tests::load::{CountLoad, CreateLoad, Difference, Ledger, Load, LoadOptions, SettingsLoad};
use weir_tests::services::Host;
use weir_tests::stand::{Setup, Stand};

/// One setup at a time: a crash test wants the machine for itself.
static TURN: Mutex<()> = Mutex::const_new(());

const SETUPS: u64 = 4;
const KILLS_DEFAULT: u64 = 32;
const DRAIN_LIMIT: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Host,
    Redis,
    Sql,
}

#[derive(Debug, Default)]
struct Kills {
    host: u64,
    redis: u64,
    sql: u64,
}

impl Kills {
    fn total(&self) -> u64 {
        self.host + self.redis + self.sql
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_and_sqlite() {
    crash(Setup::EmbeddedSqlite, &[Victim::Host]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_and_postgres() {
    crash(Setup::RedisPostgres, &[Victim::Host, Victim::Redis, Victim::Sql]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_and_mariadb() {
    crash(Setup::RedisMariaDb, &[Victim::Host, Victim::Redis, Victim::Sql]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_and_mysql() {
    crash(Setup::RedisMySql, &[Victim::Host, Victim::Redis, Victim::Sql]).await;
}

async fn crash(setup: Setup, victims: &'static [Victim]) {
    let _turn = TURN.lock().await;
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let setups = number("WEIR_CRASH_SETUPS").unwrap_or(SETUPS);
    let kills_wanted = number("WEIR_CRASH_KILLS").unwrap_or(KILLS_DEFAULT).div_ceil(setups);
    let seed = number("WEIR_CRASH_SEED").unwrap_or_else(|| rand::random_range(0..1_000_000));
    println!("{}: {kills_wanted} kills, WEIR_CRASH_SEED={seed}", setup.name());

    let stand = Stand::start(setup, 5).await;
    let host = stand.host(&stand.full_config());
    let (public, admin) = (host.public(), host.admin());
    let database = stand.database.clone();
    let load = Load::start(&[public], LoadOptions { clients: 32, actors: 200, targets: 5, seed });
    let counts = CountLoad::start(&[public], LoadOptions { clients: 12, actors: 1, targets: 5, seed });
    let creates = CreateLoad::start(&[public], LoadOptions { clients: 8, actors: 4, targets: 0, seed });
    let settings = SettingsLoad::start(&[public], LoadOptions { clients: 6, actors: 0, targets: 5, seed });
    assert!(load.wait_for_acks(200, DRAIN_LIMIT).await, "the load does not get going:\n{}", host.log());
    let snapshots = Snapshots::start(database.clone());

    let rng = StdRng::seed_from_u64(seed);
    let storm = tokio::task::spawn_blocking(move || kill_at_random(stand, host, victims, kills_wanted, rng));
    let (stand, mut host, kills) = storm.await.expect("the killing thread");
    host.wait_ready();
    // What was taken after the last kill must work too.
    assert!(load.wait_for_acks(200, DRAIN_LIMIT).await, "no acknowledgements after the last kill:\n{}", host.log());
    let (ledger, counts_acked) = (load.stop().await, counts.acks.load(Ordering::Relaxed));
    let (counts, creates) = (counts.stop().await, creates.stop().await);
    let (settings_acked, settings) = (settings.acks.load(Ordering::Relaxed), settings.stop().await);
    Client::new(admin).wait_drained(DRAIN_LIMIT).await;
    let (taken, torn) = snapshots.stop().await;

    let difference = ledger.compare(&database).await;
    report(setup, seed, &ledger, &kills, &difference, taken);
    let (wrong, torn_documents) = (counts.compare(&database).await, creates.compare(&database).await);
    println!(
        "crash {}: increments={counts_acked} wrong-counters={} documents={} lost={} doubled={} torn={}",
        setup.name(),
        wrong.len(),
        creates.documents.len(),
        torn_documents.lost.len(),
        torn_documents.doubled.len(),
        torn_documents.torn.len(),
    );
    let wrong = settings.compare(&database).await.len();
    println!("crash {}: settings={settings_acked} of {} members, wrong={wrong}", setup.name(), settings.fields.len());
    assert!(kills.total() >= kills_wanted, "{kills:?}");
    assert!(taken > 0, "no snapshot of SQL was taken");
    assert!(torn.is_empty(), "counts differ from rows in a snapshot (target, count, rows): {torn:?}");
    ledger.assert_holds(&database).await;
    counts.assert_holds(&database).await;
    creates.assert_holds(&database).await;
    settings.assert_holds(&database).await;
    check_answers(public, &database).await;
    assert_eq!(host.terminate().code(), Some(0), "{}", host.log());
    drop(stand);
}

fn report(setup: Setup, seed: u64, ledger: &Ledger, kills: &Kills, difference: &Difference, snapshots: u64) {
    println!(
        "crash {}: acks={} unknown={} kills={} (host {}, redis {}, sql {}) lost={} doubled={} wrong-answers={} \
         snapshots={snapshots} seed={seed}",
        setup.name(),
        ledger.acks,
        ledger.unknown,
        kills.total(),
        kills.host,
        kills.redis,
        kills.sql,
        difference.lost.len(),
        difference.doubled.len(),
        ledger.violations.len(),
    );
}

/// Kills one victim or two at a time, leaves them dead for a while, starts them again.
fn kill_at_random(
    mut stand: Stand,
    mut host: Host,
    victims: &[Victim],
    wanted: u64,
    mut rng: StdRng,
) -> (Stand, Host, Kills) {
    let mut kills = Kills::default();
    let pause =
        |rng: &mut StdRng, longest_ms| std::thread::sleep(Duration::from_millis(rng.random_range(0..longest_ms)));
    while kills.total() < wanted {
        pause(&mut rng, 1_500);
        let mut chosen = victims.to_vec();
        chosen.shuffle(&mut rng);
        chosen.truncate(if rng.random_bool(0.25) { 2 } else { 1 });
        for victim in &chosen {
            match victim {
                Victim::Host => {
                    host.kill();
                    kills.host += 1;
                }
                Victim::Redis => {
                    stand.redis().kill();
                    kills.redis += 1;
                }
                Victim::Sql => {
                    stand.sql.kill();
                    kills.sql += 1;
                }
            }
        }
        pause(&mut rng, 1_200);
        // A host needs its Redis at start, to see how it is configured. SQL may come before it or after.
        if chosen.contains(&Victim::Redis) {
            stand.redis().restart();
        }
        let sql_first = rng.random_bool(0.5);
        if sql_first && chosen.contains(&Victim::Sql) {
            stand.sql.restart();
        }
        if chosen.contains(&Victim::Host) {
            host.restart();
        }
        if !sql_first && chosen.contains(&Victim::Sql) {
            stand.sql.restart();
        }
    }
    (stand, host, kills)
}

/// Counts and rows of all targets, looked at all the time.
struct Snapshots {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(u64, Vec<Vec<i64>>)>,
}

impl Snapshots {
    fn start(database: Database) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let (mut taken, mut torn) = (0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                // An error is a database that was killed: there is no snapshot then.
                if let Ok(mismatched) = database.mismatched_counts().await {
                    taken += 1;
                    torn.extend(mismatched);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            (taken, torn)
        });
        Self { stop, task }
    }

    async fn stop(self) -> (u64, Vec<Vec<i64>>) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the task that takes snapshots")
    }
}

/// What the host answers is what SQL holds.
async fn check_answers(public: std::net::SocketAddr, database: &Database) {
    let rows = database.integers("SELECT feed_id, COUNT(*) FROM feed_like GROUP BY feed_id ORDER BY feed_id").await;
    let mut client = Client::new(public);
    for row in rows {
        let reply = client.get(&format!("/v1/toggles/feed-like/{}", row[0])).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.json()["likeCount"].as_i64(), Some(row[1]), "target {}", row[0]);
    }
}
