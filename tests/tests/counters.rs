//! Counters end to end: sums are exact on every engine, windows of uniqueness and limits hold, cold counters are hydrated.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use weir_tests::client::{Client, Reply};
use weir_tests::stand::{Setup, Stand};

const DRAIN_LIMIT: Duration = Duration::from_secs(60);

async fn hit(client: &mut Client, target: i64, actor: Option<i64>, key: Option<&str>, body: &str) -> Reply {
    let actor = actor.map(|actor| actor.to_string());
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(actor.as_deref().map(|actor| ("x-actor-id", actor)));
    headers.extend(key.map(|key| ("idempotency-key", key)));
    client.request("POST", &format!("/v1/counters/video-view/{target}"), &headers, body).await.unwrap()
}

fn count_of(reply: &Reply) -> (u64, Option<bool>) {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let json = reply.json();
    (json["count"].as_u64().unwrap(), json["counted"].as_bool())
}

async fn sums_are_exact(setup: Setup) {
    const CLIENTS: i64 = 100;
    const EACH: i64 = 300;
    let stand = Stand::start(setup, 10).await;
    let mut config = stand.full_config();
    config.counters[0].settings.insert("flush-age-ms".into(), "1000".into());
    let host = stand.host(&config);
    let public = host.public();
    let clients = (0..CLIENTS).map(|number| {
        tokio::spawn(async move {
            let (mut client, mut rng) = (Client::new(public), StdRng::seed_from_u64(number.cast_unsigned()));
            let mut sums = [0_i64; 10];
            for _ in 0..EACH {
                let (target, by) = (rng.random_range(1..=10_i64), rng.random_range(1..=5_i64));
                let reply = hit(&mut client, target, Some(number), None, &format!("{{\"by\":{by}}}")).await;
                assert_eq!(count_of(&reply).1, Some(true));
                sums[usize::try_from(target).unwrap() - 1] += by;
            }
            sums
        })
    });
    let mut expected = [0_i64; 10];
    for client in clients.collect::<Vec<_>>() {
        let sums = client.await.unwrap();
        expected.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
    }
    let mut admin = Client::new(host.admin());
    admin.wait_drained(DRAIN_LIMIT).await;
    let statements = admin.metric("weir_flush_statements_total", &["kind=\"video-view\""]).await.unwrap();
    let rows = stand.database.integers("SELECT id, view_count FROM video ORDER BY id").await;
    let found: Vec<i64> = rows.iter().map(|row| row[1]).collect();
    println!(
        "counters {}: increments={} sum={} in SQL={} statements={statements}",
        setup.name(),
        CLIENTS * EACH,
        expected.iter().sum::<i64>(),
        found.iter().sum::<i64>(),
    );
    assert_eq!(found, expected);
    assert!(statements < 1_000.0, "sums are written, not increments: {statements} statements");
    let many = Client::new(public).get("/v1/counters/video-view?targets=1,2,3,99").await.json();
    let counts: Vec<Value> = many["targets"].as_array().unwrap().iter().map(|of| of["count"].clone()).collect();
    assert_eq!(counts, [Value::from(expected[0]), Value::from(expected[1]), Value::from(expected[2]), Value::Null]);
    assert_eq!(many["targets"][3]["exists"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_thousand_increments_in_sqlite() {
    sums_are_exact(Setup::EmbeddedSqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_thousand_increments_in_postgres() {
    sums_are_exact(Setup::RedisPostgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_thousand_increments_in_mariadb() {
    sums_are_exact(Setup::RedisMariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_thousand_increments_in_mysql() {
    sums_are_exact(Setup::RedisMySql).await;
}

async fn a_counter_begins_where_sql_is(setup: Setup) {
    let stand = Stand::start(setup, 2).await;
    stand.database.script("UPDATE video SET view_count = 500000 WHERE id = 1").await;
    let host = stand.host(&stand.full_config());
    let mut client = Client::new(host.public());
    assert_eq!(client.get("/v1/counters/video-view/1").await.json()["count"], 500_000);
    assert_eq!(count_of(&hit(&mut client, 1, None, None, "").await), (500_001, Some(true)));
    assert_eq!(count_of(&hit(&mut client, 1, None, None, "{\"by\":1000}").await), (501_001, Some(true)));
    assert_eq!(hit(&mut client, 3, None, None, "").await.status, 404);
    assert_eq!(client.get("/v1/counters/video-view/3").await.status, 404);
    Client::new(host.admin()).wait_drained(DRAIN_LIMIT).await;
    assert_eq!(stand.database.integer("SELECT view_count FROM video WHERE id = 1").await, 501_001);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_counter_is_hydrated_embedded() {
    a_counter_begins_where_sql_is(Setup::EmbeddedSqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_counter_is_hydrated_on_redis() {
    a_counter_begins_where_sql_is(Setup::RedisPostgres).await;
}

async fn a_view_counts_once(setup: Setup) {
    let stand = Stand::start(setup, 2).await;
    let mut config = stand.full_config();
    config.counters[0].settings.extend([
        ("unique-ms".to_owned(), "3600000".to_owned()),
        ("limit-burst".to_owned(), "5".to_owned()),
        ("limit-period-ms".to_owned(), "3600000".to_owned()),
    ]);
    let mut host = stand.host(&config);
    let mut client = Client::new(host.public());
    assert_eq!(count_of(&hit(&mut client, 1, Some(7), None, "").await), (1, Some(true)));
    assert_eq!(count_of(&hit(&mut client, 1, Some(7), None, "").await), (1, Some(false)));
    assert_eq!(count_of(&hit(&mut client, 2, Some(7), None, "").await), (1, Some(true)));
    assert_eq!(count_of(&hit(&mut client, 1, Some(8), None, "").await), (2, Some(true)));
    // Of somebody unknown nothing can be remembered.
    assert_eq!(count_of(&hit(&mut client, 1, None, None, "").await), (3, Some(true)));
    assert_eq!(count_of(&hit(&mut client, 1, None, None, "").await), (4, Some(true)));
    let first = hit(&mut client, 1, Some(9), Some("key"), "").await;
    assert_eq!(count_of(&first), (5, Some(true)));
    let again = hit(&mut client, 1, Some(9), Some("key"), "").await;
    assert_eq!((count_of(&again), again.header("idempotency-replayed")), ((5, Some(true)), "true"));
    assert_eq!(hit(&mut client, 1, Some(9), Some("key"), "{\"by\":2}").await.status, 422);
    for _ in 0..3 {
        assert_eq!(count_of(&hit(&mut client, 1, Some(7), None, "").await), (5, Some(false)));
    }
    let limited = hit(&mut client, 1, Some(7), None, "").await;
    assert_eq!(limited.status, 429, "a repetition counts for the limit");
    assert!(!limited.header("retry-after").is_empty());
    // The window holds over a crash.
    host.kill();
    host.restart();
    host.wait_ready();
    let mut client = Client::new(host.public());
    assert_eq!(count_of(&hit(&mut client, 1, Some(8), None, "").await), (5, Some(false)));
    assert_eq!(count_of(&hit(&mut client, 1, Some(10), None, "").await), (6, Some(true)));
    Client::new(host.admin()).wait_drained(DRAIN_LIMIT).await;
    assert_eq!(stand.database.integer("SELECT view_count FROM video WHERE id = 1").await, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_counts_once_in_its_window_embedded() {
    a_view_counts_once(Setup::EmbeddedSqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_counts_once_in_its_window_on_redis() {
    a_view_counts_once(Setup::RedisMariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_understood_counts_nothing() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let host = stand.host(&stand.full_config());
    let mut client = Client::new(host.public());
    for body in
        ["{\"by\":0}", "{\"by\":1001}", "{\"by\":1,\"by\":2}", "{\"n\":1}", "[]", "{", "{\"by\":1.5}", "nonsense"]
    {
        let reply = hit(&mut client, 1, None, None, body).await;
        assert_eq!(reply.status, 400, "{body}: {}", reply.text());
    }
    let form = client.request("POST", "/v1/counters/video-view/1", &[], "by=1").await.unwrap();
    assert_eq!(form.status, 415);
    for path in ["/v1/counters/video-view/x", "/v1/counters/video-view/01", "/v1/counters/video-view?targets=1,x"] {
        assert_eq!(client.get(path).await.status, 400, "{path}");
    }
    assert_eq!(client.get("/v1/counters/feed-like/1").await.status, 404, "a toggle is no counter");
    assert_eq!(client.get("/v1/counters/video-view/1").await.json()["count"], 0);
}

/// A target whose row is deleted behind weir's back is a dead letter, and its neighbours are counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_that_vanished_is_a_dead_letter() {
    let stand = Stand::start(Setup::RedisPostgres, 3).await;
    let host = stand.host(&stand.full_config());
    let mut client = Client::new(host.public());
    for target in 1..=3 {
        client.get(&format!("/v1/counters/video-view/{target}")).await;
    }
    stand.database.script("DELETE FROM video WHERE id = 2").await;
    for target in 1..=3 {
        count_of(&hit(&mut client, target, None, None, "{\"by\":5}").await);
    }
    let mut admin = Client::new(host.admin());
    admin.wait_drained(DRAIN_LIMIT).await;
    let rows = stand.database.integers("SELECT id, view_count FROM video ORDER BY id").await;
    assert_eq!(rows, [[1, 5], [3, 5]]);
    let letters = admin.get("/admin/v1/dead-letters").await.json();
    let letters = letters["dead_letters"].as_array().unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0]["target"], &letters[0]["action"]), (&Value::from("2"), &Value::from("count")));
    // It comes back, and its views with it.
    stand.database.script("INSERT INTO video (id, view_count) VALUES (2, 0)").await;
    let replay = format!("/admin/v1/dead-letters/{}/replay", letters[0]["id"]);
    let replayed = admin.request("POST", &replay, &[], "").await.unwrap();
    assert_eq!(replayed.status, 200, "{}", replayed.text());
    assert_eq!(stand.database.integer("SELECT view_count FROM video WHERE id = 2").await, 5);
}
