//! Modules are swapped under load: no request fails, nothing is lost or doubled, each reply is decided by one of the two.
//!
//! A short run; `cargo bench -p weir-tests --bench swap` is the long one, with the figures of a release build.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Duration;

use weir_tests::client::Client;
use weir_tests::stand::{Setup, Stand};
use weir_tests::swap::{DEFAULT_BURST, SwapOptions, swap, targets};

async fn run(setup: Setup) {
    let stand = Stand::start(setup, targets()).await;
    let mut config = stand.config();
    config.toggles[0].settings.insert("limit-burst".into(), DEFAULT_BURST.into());
    let host = stand.host(&config);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let options = SwapOptions { connections: 16, activations: 12, time: Duration::from_secs(6) };
    let swapped = swap(host.public(), host.admin(), &root, options).await;
    Client::new(host.admin()).wait_drained(Duration::from_secs(120)).await;
    let difference = swapped.ledger.compare(&stand.database).await;
    println!(
        "swap {}: {} activations, acks={} failed=0 lost={} doubled={} decided by {} and {}",
        setup.name(),
        options.activations,
        swapped.acks,
        difference.lost.len(),
        difference.doubled.len(),
        swapped.deciders.0,
        swapped.deciders.1
    );
    swapped.ledger.assert_holds(&stand.database).await;
    assert!(swapped.deciders.0 > 0 && swapped.deciders.1 > 0, "{:?}", swapped.deciders);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn modules_are_swapped_under_load_on_the_embedded_store() {
    run(Setup::EmbeddedSqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn modules_are_swapped_under_load_on_redis() {
    run(Setup::RedisPostgres).await;
}
