//! Two hosts before one queue: whoever comes to a queue where nobody is gets in at once, whichever host has its clock.

use std::time::{Duration, Instant};

use weir_tests::client::Client;
use weir_tests::services::{Host, HostConfig};
use weir_tests::stand::{Setup, Stand};

use crate::{config, joined, room, text, until_active};

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
