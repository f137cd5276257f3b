//! What stands in front of the API: pages of other origins, tokens whose keys are published elsewhere, passes that others
//! verify, names of requests in replies and logs, the access log, and a real browser.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "front/browser.rs"]
mod browser;
#[path = "front/keys.rs"]
mod keys;
#[path = "front/names.rs"]
mod names;
#[path = "front/pages.rs"]
mod pages;
#[path = "front/passes.rs"]
mod passes;

use std::time::Duration;

use weir_tests::client::{Client, Reply};

/// Waiting for an event that must come; only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(30);
const LIKE: &str = "/v1/toggles/feed-like/3";

async fn ask(client: &mut Client, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    client.request(method, path, headers, "").await.unwrap()
}

/// The names of its headers of CORS.
fn cors(reply: &Reply) -> Vec<&str> {
    let names = reply.headers.keys().map(|name| name.as_str());
    names.filter(|name| name.starts_with("access-control-")).collect()
}
