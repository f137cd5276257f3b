//! `kill -9` of a host while modules are activated under load: after each restart the active set is the one that was
//! acknowledged last or the one that was on its way, never another and never none; and nothing is lost or doubled.
//!
//! `WEIR_ACTIVATION_ROUNDS` sets the number of kills (20), `WEIR_ACTIVATION_SEED` when they come and what is sent.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::task::JoinHandle;
use weir_tests::client::Client;
use weir_tests::guest::{Guest, with_section};
use weir_tests::load::{Load, LoadOptions};
use weir_tests::operator::{Operator, serving};
use weir_tests::stand::{Setup, Stand};

const ROUNDS_DEFAULT: u64 = 20;
const LIMIT: Duration = Duration::from_secs(120);
/// Of so many activations one is of a module that is uploaded with it.
const UPLOAD_EVERY: u64 = 3;
/// Longest time from the first activation of a round to the kill, in milliseconds.
const KILL_AFTER_MS: u64 = 150;

/// A module that decides as the others do: only its digest differs.
fn module(name: &str) -> Vec<u8> {
    with_section(Guest::default().component(), "weir:name", name)
}

/// What the operator knows when the host dies.
#[derive(Debug, Clone, Default)]
struct Known {
    /// Name of the module that was acknowledged last.
    acknowledged: String,
    /// Name of the module whose activation was not answered.
    in_flight: Option<String>,
    /// Activations that were acknowledged.
    activations: u64,
    /// Modules that were uploaded besides.
    uploads: u64,
}

/// Activates A and B in turn, and sometimes a module that is new, until it is stopped or the host dies.
fn activate(admin: SocketAddr, mut known: Known, stop: Arc<AtomicBool>) -> JoinHandle<Known> {
    tokio::spawn(async move {
        let mut operator = Operator::new(admin);
        while !stop.load(Ordering::Relaxed) {
            let turn = known.activations + 1;
            let uploads = turn.is_multiple_of(UPLOAD_EVERY);
            let next = if uploads {
                known.uploads += 1;
                format!("new-{}", known.uploads)
            } else if known.acknowledged == "a" {
                "b".into()
            } else {
                "a".into()
            };
            known.in_flight = Some(next.clone());
            let reply = if uploads {
                operator.try_push(&module(&next), &next, true).await
            } else {
                operator.try_command("POST", &format!("/{next}/activate")).await
            };
            // The host is dead: it may have done it or not.
            let Ok(reply) = reply else { break };
            assert!([200, 201].contains(&reply.status), "{next}: {}", reply.text());
            known = Known { acknowledged: next, in_flight: None, activations: turn, ..known };
        }
        known
    })
}

/// Whether the set after a restart may be: the name that serves.
fn check_set(status: &Value, known: &Known, directory: &Path) -> String {
    let serves = status["active"]["toggle"]["name"].as_str().unwrap_or_default().to_owned();
    let allowed = [Some(&known.acknowledged), known.in_flight.as_ref()];
    assert!(allowed.contains(&Some(&serves)), "{serves} serves, {known:?}: {status:#}");
    assert_eq!(status["active"]["flush"]["name"], "built-in", "{status:#}");
    let watched = status["probation"]["digests"]
        .as_array()
        .is_some_and(|digests| digests.contains(&status["active"]["toggle"]["digest"]));
    assert!(watched, "watched no more: {status:#}");
    let modules = status["modules"].as_array().unwrap();
    let find = |name: &str| modules.iter().find(|module| module["name"] == name);
    for name in ["a", "b", &serves] {
        let listed = find(name).unwrap_or_else(|| panic!("{name} is not listed: {status:#}"));
        let digest = listed["digest"].as_str().unwrap();
        assert!(directory.join(format!("modules/{digest}.wasm")).is_file(), "{name} has no file");
    }
    assert_eq!(find(&serves).unwrap()["digest"], serving(status, "toggle").as_str());
    let parts = std::fs::read_dir(directory.join("modules")).unwrap().flatten();
    let parts: Vec<_> =
        parts.map(|entry| entry.file_name()).filter(|name| name.display().to_string().ends_with(".part")).collect();
    assert!(parts.is_empty(), "left over: {parts:?}");
    serves
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_during_an_activation_the_set_is_the_old_or_the_new_one() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let rounds = number("WEIR_ACTIVATION_ROUNDS").unwrap_or(ROUNDS_DEFAULT);
    let seed = number("WEIR_ACTIVATION_SEED").unwrap_or_else(|| rand::random_range(0..1_000_000));
    println!("{rounds} kills, WEIR_ACTIVATION_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let stand = Stand::start(Setup::EmbeddedSqlite, 5).await;
    let mut config = stand.config();
    config.policy.call_deadline_ms = 1_000;
    config.policy.canary.call_p99_ms_max = 60_000;
    config.policy.modules_max = 10_000;
    let registry = stand.directory.path().join(&config.policy.registry);
    let mut host = stand.host(&config);
    let (public, admin) = (host.public(), host.admin());
    let load = Load::start(&[public], LoadOptions { clients: 8, actors: 100, targets: 5, seed });
    let mut operator = Operator::new(admin);
    for name in ["b", "a"] {
        assert_eq!(operator.push(&module(name), name, true).await.status, 201);
    }
    let mut known = Known { acknowledged: "a".into(), ..Known::default() };
    let (mut old, mut new, mut cut) = (0, 0, 0);
    for _ in 0..rounds {
        let stop = Arc::new(AtomicBool::new(false));
        let activating = activate(admin, known, Arc::clone(&stop));
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..KILL_AFTER_MS * 1_000))).await;
        host.kill();
        stop.store(true, Ordering::Relaxed);
        known = activating.await.expect("the activations");
        host.restart();
        host.wait_ready();
        let serves = check_set(&Operator::new(admin).status().await, &known, &registry);
        cut += u64::from(known.in_flight.is_some());
        new += u64::from(known.in_flight.as_ref() == Some(&serves));
        old += u64::from(known.acknowledged == serves);
        known = Known { acknowledged: serves, in_flight: None, ..known };
        assert!(load.wait_for_acks(20, LIMIT).await, "no answers after a restart:\n{}", host.log());
    }
    let ledger = load.stop().await;
    Client::new(admin).wait_drained(LIMIT).await;
    let difference = ledger.compare(&stand.database).await;
    println!(
        "activation: kills={rounds} activations={} in-flight={cut} old-set={old} new-set={new} neither=0 acks={} lost={} \
         doubled={} seed={seed}",
        known.activations,
        ledger.acks,
        difference.lost.len(),
        difference.doubled.len(),
    );
    ledger.assert_holds(&stand.database).await;
    assert!(cut > 0, "no kill met an activation");
    assert_eq!(host.terminate().code(), Some(0), "{}", host.log());
}
