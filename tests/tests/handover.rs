//! What a host of an earlier tree left when it was killed opens, and goes on: state and journal.
//!
//! `fixtures/0.1-embedded.tar.gz` and `fixtures/0.1-redis.tar.gz` were written by the tree before the host became several crates
//! (commit a4464b1): in SQL a like, a count of 5 and a playlist; in the journal, not flushed, seven changes of all four
//! capabilities.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use weir_tests::client::Client;
use weir_tests::database::Database;
use weir_tests::services::{AppendFsync, Host, HostConfig, Redis, RedisOptions, temporary_directory};

const LIMIT: Duration = Duration::from_secs(60);

fn unpack(name: &str, directory: &Path) {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let unpacked = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(directory).status().unwrap();
    assert!(unpacked.success(), "{}", archive.display());
}

/// The configuration that it was written with; what waits is flushed at once.
fn config(directory: &Path, redis: Option<&Redis>) -> HostConfig {
    let text = fs::read_to_string(directory.join("weir.toml")).unwrap();
    let port = redis.map(|redis| redis.port().to_string()).unwrap_or_default();
    HostConfig::Text(text.replace("@REDIS@", &port).replace("@ENTRIES@", "1").replace("@AGE@", "50"))
}

async fn goes_on(directory: &Path, config: HostConfig) {
    let mut host = Host::start(config, directory);
    host.wait_ready();
    let database = Database::connect(&format!("sqlite://{}", directory.join("weir.db").display())).await;
    let mut client = Client::new(host.public());

    // State that was not in SQL is known.
    assert_eq!(client.like(1, 4).await, (true, 2), "1 took its like back, 2 likes");
    Client::new(host.admin()).wait_drained(LIMIT).await;

    assert_eq!(database.likes().await, [(1, 2), (1, 4), (2, 3)].into());
    database.assert_counts_equal_rows().await;
    assert_eq!(database.integer("SELECT view_count FROM video WHERE id = 1").await, 8);
    assert_eq!(database.integer("SELECT view_count FROM video WHERE id = 2").await, 2);
    assert_eq!(
        database.integer("SELECT COUNT(*) FROM playlist WHERE id IN ('first', 'second') AND user_id = 7").await,
        2
    );
    assert_eq!(database.integer("SELECT COUNT(*) FROM playlist_track WHERE playlist_id = 'second'").await, 2);
    assert_eq!(database.integer("SELECT social FROM notification_setting WHERE member_id = 1").await, 1);
    assert_eq!(database.dead_letters().await, 0);
    assert_eq!(host.terminate().code(), Some(0), "{}", host.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_an_earlier_tree_goes_on() {
    let directory = temporary_directory("handover");
    unpack("0.1-embedded.tar.gz", directory.path());
    goes_on(directory.path(), config(directory.path(), None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_of_an_earlier_tree_goes_on() {
    let directory = temporary_directory("handover");
    unpack("0.1-redis.tar.gz", directory.path());
    let data = directory.path().join("redis").display().to_string();
    let options =
        RedisOptions { append_fsync: AppendFsync::Off, more: vec!["--dir".into(), data], ..RedisOptions::default() };
    let redis = Redis::start(options);
    goes_on(directory.path(), config(directory.path(), Some(&redis))).await;
}
