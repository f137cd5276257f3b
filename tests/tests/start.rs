//! The order of a start: SQL and Redis may come later than weir, what is wrong for good ends it, and probes are answered all the while.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

use weir::config::{Config, OnTimeout, StoreType};
use weir_tests::client::Client;
use weir_tests::database::Database;
use weir_tests::kinds::{self, Kind};
use weir_tests::services::host::get;
use weir_tests::services::{
    Host, HostConfig, MariaDb, Postgres, Redis, RedisOptions, START_TIMEOUT, free_port, temporary_directory, wait_until,
};
use weir_tests::stand;

fn config(directory: &Path, sql: &str, redis: &str) -> Config {
    let mut config = kinds::config(directory, sql, &[Kind::FeedLike]);
    config.store.store_type = StoreType::Redis;
    config.store.url = redis.to_owned();
    config
}

/// Lines of the log that say what is waited for.
fn waits(host: &Host) -> Vec<String> {
    host.log().lines().filter(|line| line.contains("waiting for ")).map(ToOwned::to_owned).collect()
}

fn wait_for_line(host: &Host, part: &str) {
    let said = wait_until(START_TIMEOUT, || waits(host).iter().any(|line| line.contains(part)));
    assert!(said, "nobody says that it waits for {part:?}\n{}", host.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_and_redis_may_come_later() {
    let directory = temporary_directory("late");
    let (mut postgres, mut redis) = (Postgres::start(), Redis::start(RedisOptions::default()));
    let url = postgres.create_database().await;
    let database = Database::connect(&url).await;
    Kind::FeedLike.create_tables(&database).await;
    stand::add_targets(&database, 3).await;
    drop(database);
    postgres.kill();
    redis.kill();

    let mut host = Host::start(HostConfig::of(&config(directory.path(), &url, &redis.url())), directory.path());
    let (sql_at, redis_at) = (format!("127.0.0.1:{}", postgres.port()), format!("127.0.0.1:{}", redis.port()));
    assert!(wait_until(START_TIMEOUT, || waits(&host).len() >= 3), "{}", host.log());
    for line in waits(&host) {
        assert!(line.contains(&sql_at) && line.contains(&redis_at) && line.contains("connection refused"), "{line}");
    }
    println!("{}", waits(&host)[0]);
    assert_eq!(get(host.admin(), "/livez").unwrap().0, 200);
    let (status, ready) = get(host.admin(), "/readyz").unwrap();
    assert!(status == 503 && ready.contains(&sql_at) && ready.contains("onnection refused"), "{ready}");

    redis.restart();
    assert!(
        wait_until(START_TIMEOUT, || waits(&host).last().is_some_and(|line| !line.contains(&redis_at))),
        "{}",
        host.log()
    );
    postgres.restart();
    host.wait_ready();
    assert_eq!(Client::new(host.public()).like(1, 7).await, (true, 1));
    assert!(host.terminate().success());
    assert_eq!(Database::connect(&url).await.integer("SELECT count(*) FROM feed_like").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_for_good_ends_a_start_also_late() {
    let directory = temporary_directory("wrong");
    let (mut postgres, mut mariadb) = (Postgres::start(), MariaDb::start());
    for (url, said) in [
        (postgres.url("nowhere"), "database \"nowhere\" does not exist"),
        (mariadb.url("nowhere"), "Unknown database 'nowhere'"),
        (mariadb.url("nowhere").replace("weir@", "nobody:s3cret@"), "Access denied for user 'nobody'"),
    ] {
        let config = kinds::config(directory.path(), &url, &[Kind::FeedLike]);
        // At once.
        let ended = Host::start_refused(HostConfig::of(&config), directory.path());
        assert!(ended.code == Some(3) && ended.stderr.contains(said), "{ended:?}");
        assert!(!ended.stderr.contains("waiting for") && !ended.stderr.contains("s3cret"), "{ended:?}");
        // By a server that comes late.
        postgres.kill();
        mariadb.kill();
        let host = Host::start(HostConfig::of(&config), directory.path());
        wait_for_line(&host, "connection refused");
        postgres.restart();
        mariadb.restart();
        assert!(wait_until(START_TIMEOUT, || host.log().contains("weir: sql: ")), "{}", host.log());
        assert!(host.log().contains(said) && get(host.admin(), "/livez").is_none(), "{}", host.log());
        println!("{}", host.log().lines().last().unwrap_or_default());
    }
}

#[test]
fn a_wait_has_a_bound() {
    let directory = temporary_directory("bound");
    let address = format!("127.0.0.1:{}", free_port());
    let mut config = kinds::config(directory.path(), &format!("postgres://weir@{address}/shop"), &[Kind::FeedLike]);
    config.start.wait_ms_max = 1_500;
    config.start.on_timeout = OnTimeout::Exit;
    let host = Host::start(HostConfig::of(&config), directory.path());
    let said =
        format!("connection refused at {address}: start it, or let weir go on without (start.on_timeout = \"serve\")");
    assert!(wait_until(START_TIMEOUT, || host.log().contains(&said)), "{}", host.log());
    let log = host.log();
    let last = log.lines().last().unwrap_or_default();
    assert!(last.starts_with("weir: waited ") && last.contains(" s for sql: "), "{log}");
    println!("{last}");
    // Without that it goes on.
    config.start.on_timeout = OnTimeout::Serve;
    let host = Host::start(HostConfig::of(&config), directory.path());
    assert!(wait_until(START_TIMEOUT, || host.log().contains("going on without sql: ")), "{}", host.log());
    assert_eq!(get(host.admin(), "/livez").unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_there_and_cannot_serve_yet_is_waited_for() {
    let directory = temporary_directory("loading");
    let database = Database::connect(&format!("{}?mode=rwc", kinds::sqlite_in(directory.path()))).await;
    Kind::FeedLike.create_tables(&database).await;
    // Each key takes 2 ms to be read again; every thousand keys the server looks whether anybody asks something.
    let more = ["--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024"];
    let more = more.iter().map(ToString::to_string).collect();
    let mut redis = Redis::start(RedisOptions { more, ..RedisOptions::default() });
    let keys = "for i = 1, 5000 do redis.call('SET', 'other:' .. i, string.rep('x', 100)) end";
    redis.command::<redis::Value>(&["EVAL", keys, "0"]);
    redis.kill();
    let config = config(directory.path(), &kinds::sqlite_in(directory.path()), &redis.url());
    let mut host = Host::start(HostConfig::of(&config), directory.path());
    wait_for_line(&host, "store: ");
    let loading = std::thread::spawn(move || {
        redis.restart();
        redis
    });
    wait_for_line(&host, "LOADING");
    let redis = loading.join().unwrap();
    host.wait_ready();
    host.kill();

    // A replica whose master has gone.
    let master = free_port().to_string();
    redis.command::<redis::Value>(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    redis.command::<redis::Value>(&["REPLICAOF", "127.0.0.1", &master]);
    host.restart();
    wait_for_line(&host, "it is a replica of 127.0.0.1");
    redis.command::<redis::Value>(&["REPLICAOF", "NO", "ONE"]);
    host.wait_ready();
}
