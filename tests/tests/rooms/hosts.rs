//! Two hosts before one queue: whoever comes to a queue where nobody is gets in at once, whichever host has its clock. And
//! hosts that stand still: that is charged to nobody.

use std::time::{Duration, Instant};

use weir_tests::client::Client;
use weir_tests::services::{Host, HostConfig};
use weir_tests::stand::{Setup, Stand};

use crate::{config, join, joined, poll, room, text, until_active};

/// Much less than an idle queue's tick and than half of a lease, and no measure of speed.
const SOON: Duration = Duration::from_millis(2_500);

/// Hosts of one stand, each in its own directory.
fn hosts(stand: &Stand, config: &weir::config::Config) -> Vec<Host> {
    let start = |number: usize| {
        let directory = stand.directory.path().join(format!("host-{number}"));
        std::fs::create_dir_all(&directory).unwrap();
        let mut host = Host::start(HostConfig::of(config), &directory);
        host.wait_ready();
        host
    };
    (0..2).map(start).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_queue_lets_in_at_once_through_either_host() {
    let stand = Stand::start(Setup::RedisPostgres, 1).await;
    let mut room = room(1);
    room.lease_ms = 8_000;
    let hosts = hosts(&stand, &config(&stand, room));
    let mut clients: Vec<Client> = hosts.iter().map(|host| Client::new(host.public())).collect();
    let mut longest = Duration::ZERO;
    for (round, host) in [0, 1, 0, 1, 1, 0].into_iter().enumerate() {
        let client = &mut clients[host];
        let token = text(&joined(client, round as i64 + 1).await, "token").to_owned();
        let began = Instant::now();
        until_active(client, &token).await;
        longest = longest.max(began.elapsed());
        let path = format!("/v1/rooms/concert/1/tokens/{token}/complete");
        assert_eq!(client.request("POST", &path, &[], "").await.unwrap().status, 200);
        // The queue's clock sees that nobody is there.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
    }
    println!("idle queue, two hosts: the longest of six waits was {} ms", longest.as_millis());
    assert!(longest < SOON, "{longest:?}");
}

/// Longer than anybody may be silent in these tests.
const STANDSTILL: Duration = Duration::from_millis(4_000);

/// A room where nobody may be silent for longer than 1.5 s.
fn impatient(capacity: u64) -> weir::config::RoomConfig {
    let mut room = room(capacity);
    (room.poll_ms_min, room.grace_ms, room.claim_ms) = (300, 1_500, 1_500);
    room
}

async fn status(client: &mut Client, token: &str) -> String {
    text(&poll(client, token).await.json(), "status").to_owned()
}

/// Polls for all of them; panics unless each is as it was.
async fn all_are_there(client: &mut Client, tokens: &[String], after: &str) {
    for (index, token) in tokens.iter().enumerate() {
        let expected = if index == 0 { "active" } else { "waiting" };
        assert_eq!(status(client, token).await, expected, "person {index} after {after}");
    }
}

/// One is let in, three wait.
async fn four(client: &mut Client) -> Vec<String> {
    let mut tokens = Vec::new();
    for actor in 1..=4 {
        tokens.push(text(&joined(client, actor).await, "token").to_owned());
        if actor == 1 {
            until_active(client, &tokens[0]).await;
        }
    }
    tokens
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standstill_expires_nobody_and_silence_does() {
    for setup in [Setup::EmbeddedSqlite, Setup::RedisPostgres] {
        let stand = Stand::start(setup, 1).await;
        let config = config(&stand, impatient(1));
        let mut host = Host::start_with_clock(HostConfig::of(&config), stand.directory.path());
        host.wait_ready();
        let tokens = four(&mut Client::new(host.public())).await;
        host.pause();
        tokio::time::sleep(STANDSTILL).await;
        host.resume();
        all_are_there(&mut Client::new(host.public()), &tokens, "a stopped process").await;
        for ahead_s in [10, -3_600] {
            host.set_clock(ahead_s);
            tokio::time::sleep(Duration::from_millis(300)).await;
            all_are_there(&mut Client::new(host.public()), &tokens, "a clock that was set").await;
        }
        if let Some(redis) = &stand.redis {
            redis.stop_signal();
            tokio::time::sleep(STANDSTILL).await;
            redis.cont();
            host.wait_ready();
            all_are_there(&mut Client::new(host.public()), &tokens, "a store that stood still").await;
        }
        host.terminate();
        tokio::time::sleep(STANDSTILL).await;
        host.restart();
        host.wait_ready();
        let client = &mut Client::new(host.public());
        all_are_there(client, &tokens, "a planned restart").await;
        // Two go on asking, one does not.
        let start = Instant::now();
        loop {
            all_are_there(client, &tokens[..3], "a while").await;
            let view = client.get("/v1/rooms/concert/1").await.json();
            if view["waiting"] == 2 {
                break;
            }
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "{}: whoever is gone keeps the place: {view}",
                setup.name()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(status(client, &tokens[3]).await, "expired", "{}", setup.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_hosts_that_stands_still_expires_nobody_and_lets_nobody_in_twice() {
    let stand = Stand::start(Setup::RedisPostgres, 1).await;
    let hosts = hosts(&stand, &config(&stand, impatient(1)));
    let mut clients: Vec<Client> = hosts.iter().map(|host| Client::new(host.public())).collect();
    let tokens = four(&mut clients[0]).await;
    // The other host takes the queue's clock over while those who ask through the first cannot.
    let other = text(&join(&mut clients[1], "1", 9).await.json(), "token").to_owned();
    hosts[0].pause();
    let start = Instant::now();
    while start.elapsed() < STANDSTILL {
        assert_eq!(status(&mut clients[1], &other).await, "waiting");
        let view = clients[1].get("/v1/rooms/concert/1").await.json();
        assert_eq!(view["active"], 1, "{view}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    hosts[0].resume();
    all_are_there(&mut Client::new(hosts[0].public()), &tokens, "one host stood still").await;
    assert_eq!(status(&mut clients[1], &other).await, "waiting");
}
