//! The cache that hosts share, on real servers: what one host has read the others need not; nothing that was invalidated is
//! told from it; without it everything goes on.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use weir::config::{CacheConfig, Config, ReadConfig, SharedCacheConfig, Staleness};
use weir_tests::client::Client;
use weir_tests::services::{Host, Redis, RedisOptions};
use weir_tests::stand::{Setup, Stand, read};

const POST: &str = "/v1/reads/post?id=3";

fn post(class: Staleness) -> ReadConfig {
    read("post", "SELECT id, content, like_count AS likes FROM feed WHERE id = :id", class, &["feed"])
}

fn config(stand: &Stand, shared: &Redis, class: Staleness) -> Config {
    let shared =
        SharedCacheConfig { value_bytes_max: 64 << 10, timeout_ms: 1_000, ..SharedCacheConfig::new(&shared.url()) };
    let cache = CacheConfig { shared: Some(shared), ..CacheConfig::default() };
    Config { reads: vec![post(class)], cache, ..stand.config() }
}

/// How often SQL was asked.
async fn readings(host: &Host) -> f64 {
    let labels = ["read=\"post\""];
    Client::new(host.admin()).metric("weir_read_origin_seconds_count", &labels).await.unwrap_or(0.0)
}

async fn looks(host: &Host, how: &str) -> f64 {
    let labels = ["read=\"post\"", &format!("how=\"{how}\"")];
    Client::new(host.admin()).metric("weir_read_shared_total", &labels).await.unwrap_or(0.0)
}

async fn wait_kept(host: &Host, count: f64) {
    let begun = Instant::now();
    while looks(host, "kept").await < count {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is not kept for the others");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_host_has_read_the_others_need_not() {
    let stand = Stand::start(Setup::RedisPostgres, 10).await;
    let shared = Redis::start(RedisOptions::default());
    let config = config(&stand, &shared, Staleness::Minutes);
    let first = stand.host(&config);
    let read = Client::new(first.public()).get(POST).await;
    assert_eq!(read.header("cache-status"), "weir; fwd=uri-miss; stored");
    wait_kept(&first, 1.0).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;

    let mut second = stand.host(&config);
    for restarted in [false, true] {
        let mut client = Client::new(second.public());
        let told = client.get(POST).await;
        let status = told.header("cache-status");
        assert!(status.starts_with("weir; hit; ttl=") && status.ends_with("; detail=shared"), "{restarted}: {status}");
        assert_eq!((told.header("etag"), told.text()), (read.header("etag"), read.text()));
        assert!(told.header("age").parse::<u64>().unwrap() >= 1, "as old as it is: {}", told.header("age"));
        let again = client.get(POST).await;
        assert!(!again.header("cache-status").contains("shared"), "it is kept here now");
        assert_eq!((readings(&second).await, looks(&second, "hit").await), (0.0, 1.0));
        second.restart();
        second.wait_ready();
    }
    let mut other = config.clone();
    other.reads[0].sql = "SELECT id, content FROM feed WHERE id = :id".into();
    let other = stand.host(&other);
    let told = Client::new(other.public()).get(POST).await;
    assert_eq!(told.header("cache-status"), "weir; fwd=uri-miss; stored", "another statement is another read");
}

/// Everybody reads as fast as they can: both hosts read anew as soon as they know.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_that_was_invalidated_is_told_from_it() {
    invalidated([0; 8]).await;
}

/// Some wait a little: one host has read when the other one asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_read_after_an_invalidation_is_shared() {
    assert!(invalidated([25, 30, 35, 40, 80, 90, 100, 110]).await > 0.0, "both read each time");
}

/// Likes are flushed while four readers of each of two hosts read with these pauses: what they are told never goes back, and
/// every flush is told in the end. Returns how often a host took over what the other one had read.
async fn invalidated(pauses_ms: [u64; 8]) -> f64 {
    const ROUNDS: i64 = 40;
    let stand = Stand::start(Setup::RedisPostgres, 10).await;
    let shared = Redis::start(RedisOptions::default());
    let config = config(&stand, &shared, Staleness::Hours);
    let hosts = [stand.host(&config), stand.host(&config)];
    let over = Arc::new(AtomicBool::new(false));
    let readers = hosts.iter().flat_map(|host| [host.public(); 4]).zip(pauses_ms).map(|(address, pause_ms)| {
        let over = Arc::clone(&over);
        tokio::spawn(async move {
            let (mut client, mut newest, mut answers) = (Client::new(address), 0, 0_u64);
            while !over.load(Ordering::Relaxed) {
                let told = client.get(POST).await;
                assert_eq!(told.status, 200, "{}", told.text());
                let likes = told.json()["rows"][0]["likes"].as_i64().unwrap();
                assert!(likes >= newest, "{likes} after {newest}: {}", told.header("cache-status"));
                newest = likes;
                answers += 1;
                if pause_ms > 0 {
                    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                }
            }
            (newest, answers)
        })
    });
    let readers: Vec<_> = readers.collect();
    let mut client = Client::new(hosts[0].public());
    let mut admin = Client::new(hosts[0].admin());
    for round in 1..=ROUNDS {
        assert_eq!(client.like(3, round).await, (true, round));
        admin.wait_drained(Duration::from_secs(30)).await;
        for host in &hosts {
            let (mut client, begun) = (Client::new(host.public()), Instant::now());
            while client.get(POST).await.json()["rows"][0]["likes"] != round {
                assert!(begun.elapsed() < Duration::from_secs(20), "round {round}: not invalidated");
                tokio::time::sleep(Duration::from_millis(pauses_ms[7] / 2)).await;
            }
        }
    }
    over.store(true, Ordering::Relaxed);
    let answers: u64 = join_all(readers).await.into_iter().map(|reader| reader.unwrap().1).sum();
    let (sql, hits) = (
        readings(&hosts[0]).await + readings(&hosts[1]).await,
        looks(&hosts[0], "hit").await + looks(&hosts[1], "hit").await,
    );
    println!("shared cache: answers={answers} rounds={ROUNDS} readings={sql} taken over from the other host={hits}");
    assert!(sql >= ROUNDS as f64);
    hits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_reaches_it() {
    let stand = Stand::start(Setup::RedisPostgres, 10).await;
    let shared = Redis::start(RedisOptions::default());
    let config = config(&stand, &shared, Staleness::Hours);
    let hosts = [stand.host(&config), stand.host(&config)];
    let mut kept = 0.0;
    let purges = ["key=read:post%3Fid%3D3", "group=read:post", "group=table:feed", "prefix=read:post", "all=1"];
    let likes = AtomicI64::new(0);
    for purge in purges {
        kept += 1.0;
        assert_eq!(Client::new(hosts[0].public()).get(POST).await.status, 200);
        wait_kept(&hosts[0], kept).await;
        let next = likes.fetch_add(1, Ordering::Relaxed) + 1;
        stand.database.script(&format!("UPDATE feed SET like_count = {next} WHERE id = 3;")).await;
        let mut admin = Client::new(hosts[0].admin());
        let purged = admin.request("POST", &format!("/admin/v1/cache/purge?{purge}"), &[], "").await.unwrap();
        assert_eq!(purged.status, 200, "{purge}: {}", purged.text());
        let told = Client::new(hosts[0].public()).get(POST).await;
        assert_eq!(told.json()["rows"][0]["likes"], next, "{purge}: the host that purged knows at once");
        let begun = Instant::now();
        while Client::new(hosts[1].public()).get(POST).await.json()["rows"][0]["likes"] != next {
            assert!(begun.elapsed() < Duration::from_secs(20), "{purge}: the other one does not hear of it");
        }
        // Whether the first host could keep its reading depends on whether it had told the other one by then.
        tokio::time::sleep(Duration::from_millis(200)).await;
        kept = looks(&hosts[0], "kept").await;
        let all = admin.request("POST", "/admin/v1/cache/purge?all=1", &[], "").await.unwrap();
        assert_eq!(all.status, 200);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_it_everything_goes_on() {
    let mut stand = Stand::start(Setup::RedisPostgres, 10).await;
    let mut shared = Redis::start(RedisOptions::default());
    let mut config = config(&stand, &shared, Staleness::Seconds);
    if let Some(shared) = &mut config.cache.shared {
        shared.timeout_ms = 100;
    }
    let hosts = [stand.host(&config), stand.host(&config)];
    let mut client = Client::new(hosts[0].public());
    shared.stop_signal();
    assert_eq!(client.get("/v1/reads/post?id=1").await.header("cache-status"), "weir; fwd=uri-miss; stored");
    assert!(looks(&hosts[0], "failed").await >= 1.0);
    shared.cont();
    shared.kill();
    for id in 2..=9 {
        let told = client.get(&format!("/v1/reads/post?id={id}")).await;
        assert_eq!((told.status, told.header("cache-status")), (200, "weir; fwd=uri-miss; stored"));
    }
    shared.restart();
    let begun = Instant::now();
    while looks(&hosts[0], "kept").await < 1.0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is not used again");
        tokio::time::sleep(Duration::from_millis(300)).await;
        client.get(POST).await;
    }
    // What has become stale there is told when SQL is away, also by a host that never read it.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    stand.sql.kill();
    let told = Client::new(hosts[1].public()).get(POST).await;
    let status = told.header("cache-status");
    assert!(told.status == 200 && status.starts_with("weir; hit; ttl=-"), "{} {status}", told.status);
    assert!(status.ends_with("; detail=sql-failed"), "{status}");
    let missing = Client::new(hosts[1].public()).get("/v1/reads/post?id=10").await;
    assert_eq!(missing.status, 503);
}
