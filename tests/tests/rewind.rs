//! Store and database that went back in time by themselves: a Redis that lost its newest entries, a database that was
//! restored from an old backup. The other side is believed, and what is accepted afterwards is stored. And journals out of
//! which an operator takes entries under load: what was lost is said exactly, and everything else is stored.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "rewind/custody.rs"]
mod custody;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use weir::config::{Config, StoreConfig, StoreType};
use weir_tests::client::Client;
use weir_tests::database::Database;
use weir_tests::kinds::{self, Kind};
use weir_tests::services::host::weir;
use weir_tests::services::{AppendFsync, Host, HostConfig, Redis, RedisOptions, temporary_directory};
use weir_tests::stand::{Setup, Stand, add_targets};

const LIMIT: Duration = Duration::from_secs(60);

/// Waits until `actor` sees this on target 3.
async fn wait_for(client: &mut Client, actor: i64, expected: (bool, i64), host: &Host) {
    let start = tokio::time::Instant::now();
    let mut last = None;
    while start.elapsed() < LIMIT {
        if let Ok(reply) = client.toggle("GET", 3, actor, None).await
            && reply.status == 200
        {
            last = Some(reply.like());
            if last == Some(expected) {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("actor {actor} sees {last:?}, not {expected:?}:\n{}", host.log());
}

async fn like(client: &mut Client, actor: i64, host: &Host) {
    let start = tokio::time::Instant::now();
    while start.elapsed() < LIMIT {
        if let Ok(reply) = client.toggle("PUT", 3, actor, None).await
            && reply.status == 200
        {
            return assert!(reply.like().0);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no answer to {actor}:\n{}", host.log());
}

/// Kind `feed-like` on the embedded store and a SQLite file in `data`, flushed at once, and targets 1 to 3.
async fn prepare(data: &Path) -> Config {
    std::fs::create_dir_all(data).unwrap();
    let mut config = kinds::config(data, &kinds::sqlite_in(data), &[Kind::FeedLike]);
    config.toggles[0].settings.insert("flush-age-ms".into(), "50".into());
    let database = Database::connect(&config.sql.url).await;
    Kind::FeedLike.create_tables(&database).await;
    add_targets(&database, 3).await;
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_lost_its_newest_entries_is_noticed() {
    let mut redis = Redis::start(RedisOptions { append_fsync: AppendFsync::Off, ..RedisOptions::default() });
    let directory = temporary_directory("rewind");
    let mut config = prepare(&directory.path().join("data")).await;
    config.store = StoreConfig { store_type: StoreType::Redis, url: redis.url(), ..StoreConfig::default() };
    config.flush.lease_ms = 500;
    let url = config.sql.url.clone();
    let mut host = Host::start(HostConfig::of(&config), directory.path());
    host.wait_ready();
    let (mut client, mut admin) = (Client::new(host.public()), Client::new(host.admin()));
    like(&mut client, 7, &host).await;
    admin.wait_drained(LIMIT).await;
    redis.command::<()>(&["SAVE"]);
    like(&mut client, 8, &host).await;
    admin.wait_drained(LIMIT).await;

    redis.kill();
    redis.restart();
    // Redis remembers one like, SQL holds two.
    wait_for(&mut client, 8, (true, 2), &host).await;
    assert!(host.log().contains("the journal has lost entries"), "{}", host.log());
    like(&mut client, 9, &host).await;
    admin.wait_drained(LIMIT).await;
    let database = Database::connect(&url).await;
    assert_eq!(database.likes().await, [(3, 7), (3, 8), (3, 9)].into());
    database.assert_counts_equal_rows().await;
    host.wait_ready();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_from_an_old_backup_is_believed() {
    let directory = temporary_directory("rewind");
    let data = directory.path().join("data");
    let config = prepare(&data).await;
    let mut host = Host::start(HostConfig::of(&config), directory.path());
    host.wait_ready();
    like(&mut Client::new(host.public()), 7, &host).await;
    assert_eq!(host.terminate().code(), Some(0), "{}", host.log());
    let (file, backup) = (data.join("application.db"), data.join("backup.db"));
    std::fs::copy(&file, &backup).unwrap();
    host.restart();
    like(&mut Client::new(host.public()), 8, &host).await;
    assert_eq!(host.terminate().code(), Some(0), "{}", host.log());

    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(data.join(format!("application.db{suffix}")));
    }
    std::fs::copy(&backup, &file).unwrap();
    host.restart();
    host.wait_ready();
    let (mut client, mut admin) = (Client::new(host.public()), Client::new(host.admin()));
    wait_for(&mut client, 8, (false, 1), &host).await;
    assert!(host.log().contains("SQL holds less"), "{}", host.log());
    like(&mut client, 9, &host).await;
    admin.wait_drained(LIMIT).await;
    let database = Database::connect(&config.sql.url).await;
    assert_eq!(database.likes().await, [(3, 7), (3, 9)].into());
    database.assert_counts_equal_rows().await;
}

const TARGETS: i64 = 20;

/// The keys of all journals of a kind.
fn journals(redis: &Redis, kind: &str) -> Vec<String> {
    redis.command(&["KEYS", &format!("*{{*{kind}:*}}:j")])
}

/// Hits counters and toggles until `stop`: the increments that were acknowledged for each target.
async fn load(public: std::net::SocketAddr, number: i64, stop: Arc<AtomicBool>) -> Vec<i64> {
    let (mut client, mut rng) = (Client::new(public), StdRng::seed_from_u64(number.cast_unsigned()));
    let mut sums = vec![0; usize::try_from(TARGETS).unwrap()];
    while !stop.load(Ordering::SeqCst) {
        let (target, by) = (rng.random_range(1..=TARGETS), rng.random_range(1..=9_i64));
        let headers = [("content-type", "application/json"), ("x-actor-id", "1")];
        let path = format!("/v1/counters/video-view/{target}");
        let reply = client.request("POST", &path, &headers, &format!("{{\"by\":{by}}}")).await.unwrap();
        assert_eq!(reply.status, 200, "the host goes on serving: {}", reply.text());
        sums[usize::try_from(target).unwrap() - 1] += by;
        let reply = client.toggle("POST", target, rng.random_range(1..=50), None).await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    sums
}

/// What `weir journal holes` says of a kind.
fn holes(host: &Host, kind: &str) -> Vec<serde_json::Value> {
    let config = host.config_path().unwrap();
    let arguments = ["journal", "holes", "--json", "--kind", kind, "--config", config.to_str().unwrap()];
    let ended = weir(host.directory(), &arguments);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

/// Takes entries out of the journals while they are written, and looks at what is said and what is stored.
async fn entries_are_taken_out(setup: Setup, take_out: impl AsyncFn(&Redis, &str)) {
    let mut stand = Stand::start(setup, TARGETS).await;
    let redis = stand.redis.take().unwrap_or_else(|| Redis::start(RedisOptions::default()));
    let mut config = stand.full_config();
    config.store = StoreConfig { store_type: StoreType::Redis, url: redis.url(), ..StoreConfig::default() };
    for settings in [&mut config.counters[0].settings, &mut config.toggles[0].settings] {
        settings.insert("flush-age-ms".into(), "400".into());
        settings.insert("flush-entries".into(), "100000".into());
    }
    let mut host = stand.host(&config);
    let (stop, public) = (Arc::new(AtomicBool::new(false)), host.public());
    let clients: Vec<_> = (0..6).map(|number| tokio::spawn(load(public, number, Arc::clone(&stop)))).collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        for journal in [journals(&redis, "video-view"), journals(&redis, "feed-like")].concat() {
            take_out(&redis, &journal).await;
        }
    }
    stop.store(true, Ordering::SeqCst);
    let mut acknowledged = vec![0; usize::try_from(TARGETS).unwrap()];
    for client in clients {
        acknowledged.iter_mut().zip(client.await.unwrap()).for_each(|(total, sum)| *total += sum);
    }
    let mut admin = Client::new(host.admin());
    admin.wait_drained(LIMIT).await;

    // What is not in SQL is what is said to be lost.
    let counts = stand.database.integers("SELECT id, view_count FROM video ORDER BY id").await;
    let stored: i64 = counts.iter().map(|row| row[1]).sum();
    let lost = acknowledged.iter().sum::<i64>() - stored;
    let of_kind = holes(&host, "video-view");
    let said: i64 = of_kind.iter().map(|hole| hole["amount"].as_i64().unwrap()).sum();
    println!(
        "{}: acknowledged={} in SQL={stored} lost={lost} said={said} holes={}",
        setup.name(),
        lost + stored,
        of_kind.len()
    );
    assert!(lost > 0, "nothing was lost: the test shows nothing");
    assert_eq!(said, lost, "{of_kind:#?}\n{}", host.log());
    assert!(of_kind.iter().all(|hole| hole["is_exact"] == true), "{of_kind:#?}");
    let metric = admin.metric("weir_journal_lost_changes_total", &["kind=\"video-view\""]).await;
    assert_eq!(metric.map(|lost| lost.to_string()), Some(lost.to_string()));
    assert!(host.log().contains("the journal has lost accepted changes"), "{}", host.log());

    answers_are_what_sql_holds(&stand, &host, &counts).await;
    not_ready_until_acknowledged(&mut host, of_kind.len()).await;
}

/// The answers are what SQL holds, and what is accepted now is stored.
async fn answers_are_what_sql_holds(stand: &Stand, host: &Host, counts: &[Vec<i64>]) {
    let mut client = Client::new(host.public());
    for row in counts {
        let answer = client.get(&format!("/v1/counters/video-view/{}", row[0])).await.json();
        assert_eq!(answer["count"].as_i64(), Some(row[1]), "video {}", row[0]);
    }
    for row in stand.database.integers("SELECT id, like_count FROM feed ORDER BY id").await {
        let answer = client.toggle("GET", row[0], 1, None).await.unwrap();
        assert_eq!(answer.like().1, row[1], "post {}", row[0]);
    }
    stand.database.assert_counts_equal_rows().await;
    let headers = [("content-type", "application/json"), ("x-actor-id", "1")];
    client.request("POST", "/v1/counters/video-view/1", &headers, "{\"by\":1000}").await.unwrap();
    Client::new(host.admin()).wait_drained(LIMIT).await;
    let after = stand.database.integer("SELECT view_count FROM video WHERE id = 1").await;
    assert_eq!(after, counts[0][1] + 1_000);
}

/// It is not ready until an operator has taken note, also after a restart.
async fn not_ready_until_acknowledged(host: &mut Host, of_views: usize) {
    host.kill();
    host.restart();
    let mut admin = Client::new(host.admin());
    let expected = serde_json::json!(["journal:feed-like", "journal:video-view"]);
    let start = tokio::time::Instant::now();
    loop {
        let ready = admin.get("/readyz").await;
        assert_eq!(ready.status, 503, "{}", ready.text());
        if ready.json()["not_ready"] == expected {
            break;
        }
        assert!(start.elapsed() < LIMIT, "{}", ready.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let config_path = host.config_path().unwrap();
    let explained = weir(host.directory(), &["explain", "video-view", "1", "--config", config_path.to_str().unwrap()]);
    assert!(explained.stdout.contains("holes in the journal of its partition"), "{}", explained.stdout);
    for kind in ["video-view", "feed-like"] {
        let arguments = ["journal", "acknowledge", kind, "--config", config_path.to_str().unwrap()];
        let ended = weir(host.directory(), &arguments);
        assert!(
            ended.code == Some(0) && ended.stdout.contains("holes acknowledged"),
            "{}{}",
            ended.stdout,
            ended.stderr
        );
    }
    host.wait_ready();
    assert_eq!(holes(host, "video-view").len(), of_views, "they stay on record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_deleted_under_load_are_said_to_be_lost() {
    entries_are_taken_out(Setup::RedisPostgres, async |redis, journal| redis.command::<()>(&["DEL", journal])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_trimmed_under_load_are_said_to_be_lost() {
    entries_are_taken_out(Setup::RedisMariaDb, async |redis, journal| {
        redis.command::<()>(&["XTRIM", journal, "MAXLEN", "=", "2"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_are_deleted_under_load_are_said_to_be_lost() {
    entries_are_taken_out(Setup::EmbeddedSqlite, async |redis, journal| {
        let entries: Vec<(String, Vec<Vec<u8>>)> = redis.command(&["XRANGE", journal, "-", "+"]);
        for (id, _) in entries.iter().skip(entries.len() / 3).take(3) {
            redis.command::<()>(&["XDEL", journal, id]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_renamed_away_and_back_under_load_are_said_to_be_lost() {
    entries_are_taken_out(Setup::EmbeddedSqlite, async |redis, journal| {
        let away = format!("{journal}-away");
        if redis.try_command::<()>(&["RENAME", journal, &away]).is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            redis.command::<()>(&["RENAME", &away, journal]);
        }
    })
    .await;
}
