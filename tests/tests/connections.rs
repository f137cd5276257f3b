//! How a host gets to its servers: encrypted, to the one that takes writes, as a user with few rights. On real servers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "connections/failover.rs"]
mod failover;
#[path = "connections/tls.rs"]
mod tls;
#[path = "connections/users.rs"]
mod users;

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// One at a time: each starts several servers.
static TURN: Mutex<()> = Mutex::const_new(());

/// Decides only when a hang is a failure.
const LIMIT: Duration = Duration::from_secs(60);

/// Repeats the condition until it holds; panics after [`LIMIT`] with `what`.
async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
