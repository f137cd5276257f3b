//! Store and database that went back in time by themselves: a Redis that lost its newest entries, a database that was
//! restored from an old backup. The other side is believed, and what is accepted afterwards is stored.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;
#[path = "rewind/custody.rs"]
mod custody;

use std::time::Duration;

use weir::config::{Config, StoreConfig, StoreType};
use weir_tests::client::Client;
use weir_tests::database::Database;
use weir_tests::kinds::{self, Kind};
use weir_tests::services::{AppendFsync, Host, HostConfig, Redis, RedisOptions, temporary_directory};
use weir_tests::stand::add_targets;

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
