//! Modules that are tried: a canary that fails is rolled back by itself, a shadow shows what it would decide otherwise.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_tests::client::Client;
use weir_tests::guest::Guest;
use weir_tests::load::{Load, LoadOptions};
use weir_tests::operator::{Operator, serving};
use weir_tests::stand::{Setup, Stand};

/// Decides only when a hang is a failure.
const LIMIT: Duration = Duration::from_secs(60);

/// Traps in one call of a hundred.
const ONE_IN_100: &str = "(if (i32.eqz (i32.rem_u (global.get $calls) (i32.const 100))) (then unreachable))";
/// Nothing changes for target 7.
const NOT_TARGET_7: &str = "(if (i64.eq (i64.load offset=8 (local.get $intent)) (i64.const 7))
    (then (i32.store16 (local.get $rule) (i32.const 0x0202))))";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_traps_on_one_call_in_100_is_rolled_back_by_itself() {
    for setup in [Setup::EmbeddedSqlite, Setup::RedisPostgres] {
        let stand = Stand::start(setup, 40).await;
        let mut config = stand.config();
        config.policy.call_deadline_ms = 1_000;
        config.policy.canary.call_p99_ms_max = 60_000;
        // In a debug build on a busy machine a window holds a few hundred calls.
        config.policy.canary.failures_max = 0;
        let mut host = stand.host(&config);
        let mut operator = Operator::new(host.admin());
        let live = serving(&operator.status().await, "toggle");
        let load =
            Load::start(&[host.public()], LoadOptions { clients: 16, actors: 320, targets: 40, seed: rand::random() });
        assert!(load.wait_for_acks(200, LIMIT).await, "{}", host.log());
        let pushed = operator.push(&Guest { before: ONE_IN_100, ..Guest::default() }.component(), "traps", false).await;
        assert_eq!(pushed.status, 201, "{}", pushed.text());
        let begun = operator.command("POST", "/traps/canary?share=0.5").await;
        let since_ms = begun["canary"]["since_ms"].as_u64().expect("since when");
        let event = operator.wait_for_event("canary-rolled-back", "traps").await;
        let took_ms = event["at_ms"].as_u64().unwrap() - since_ms;
        let reason = event["reason"].as_str().unwrap();
        assert!(reason.contains("with trap: "), "{event}");

        let status = operator.status().await;
        assert_eq!((&status["canary"], serving(&status, "toggle")), (&Value::Null, live), "{status:#}");
        let shown = operator.diff("canary").await;
        assert_eq!(shown["failures"]["trap"], json!(1), "{shown:#}");
        assert_eq!(shown["ended"], json!(reason), "{shown:#}");
        assert!(shown["decisions"].as_u64().unwrap() > 0 && shown["differing"] == json!(0), "{shown:#}");
        assert!(load.wait_for_acks(200, LIMIT).await, "{}", host.log());
        let unknown = load.tally.unknown.load(Ordering::Relaxed);
        let ledger = load.stop().await;
        Client::new(host.admin()).wait_drained(LIMIT).await;
        let difference = ledger.compare(&stand.database).await;
        println!(
            "canary {}: rolled back {took_ms} ms after its first window began, at call {} of it; acks={} failed={unknown} \
             lost={} doubled={}",
            setup.name(),
            shown["batches"],
            ledger.acks,
            difference.lost.len(),
            difference.doubled.len()
        );
        ledger.assert_holds(&stand.database).await;
        assert_eq!(unknown, 0, "requests failed");
        // It is written down: a restart does not begin it again.
        host.restart();
        assert_eq!(Operator::new(host.admin()).status().await["canary"], Value::Null);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_reports_exactly_the_decisions_that_differ_and_changes_nothing() {
    for setup in [Setup::EmbeddedSqlite, Setup::RedisPostgres] {
        let stand = Stand::start(setup, 10).await;
        let mut config = stand.config();
        config.policy.call_deadline_ms = 1_000;
        let host = stand.host(&config);
        let (mut client, mut operator) = (Client::new(host.public()), Operator::new(host.admin()));
        // Targets that the store does not know yet are decided once, too: each decision is seen once.
        let before = client.toggle("PUT", 7, 100, None).await.unwrap().like();
        assert_eq!(before, (true, 1));
        let pushed = operator.push(&Guest { each: NOT_TARGET_7, ..Guest::default() }.component(), "not-7", false).await;
        assert_eq!(pushed.status, 201, "{}", pushed.text());
        operator.command("POST", "/not-7/shadow").await;

        let mut expected: BTreeMap<(i64, String), u64> = BTreeMap::new();
        let mut decisions = 0;
        for (method, verb) in [("POST", "toggle"), ("PUT", "set"), ("DELETE", "clear"), ("POST", "toggle")] {
            for target in 1..=10 {
                for actor in [1, 2] {
                    let reply = client.toggle(method, target, actor, None).await.unwrap();
                    // What the live rules say, for target 7 too.
                    assert_eq!(reply.like().0, method != "DELETE", "{method} {target}: {}", reply.text());
                    decisions += 1;
                    if target == 7 {
                        *expected.entry((actor, verb.to_owned())).or_default() += 1;
                    }
                }
            }
        }
        let shown = wait_for_decisions(&mut operator, decisions).await;
        assert_eq!((&shown["skipped"], &shown["differing"]), (&json!(0), &json!(8)), "{shown:#}");
        assert!(shown["failures"].as_object().unwrap().values().all(|count| *count == json!(0)), "{shown:#}");
        let samples = shown["samples"].as_array().unwrap();
        let mut found: BTreeMap<(i64, String), u64> = BTreeMap::new();
        for sample in samples {
            let input = &sample["input"];
            assert_eq!((&sample["interface"], &sample["kind"]), (&json!("toggle"), &json!("feed-like")), "{sample}");
            assert_eq!(input["target"], json!(7), "{sample}");
            assert_eq!(sample["candidate"], json!({"when_absent": "keep", "when_present": "keep"}), "{sample}");
            assert_ne!(sample["live"], sample["candidate"], "{sample}");
            let verb = input["verb"].as_str().unwrap_or("toggle").to_owned();
            let key = (input["actor"].as_i64().unwrap(), verb);
            *found.entry(key).or_default() += sample["times"].as_u64().unwrap();
        }
        assert_eq!(found, expected, "{shown:#}");
        println!(
            "shadow {}: {decisions} decisions, {} of 8 that differ are reported, in {} samples",
            setup.name(),
            shown["differing"],
            samples.len()
        );
        operator.client.wait_drained(LIMIT).await;
        let mut rows: Vec<(i64, i64)> = (1..=10).flat_map(|target| [(target, 1), (target, 2)]).collect();
        rows.push((7, 100));
        assert_eq!(stand.database.likes().await, rows.into_iter().collect());
        stand.database.assert_counts_equal_rows().await;
        assert_eq!(client.toggle("PUT", 7, 100, None).await.unwrap().like(), (true, 3), "the shadow decided");

        // It stays readable when it has ended.
        operator.command("DELETE", "/shadow").await;
        let ended = operator.diff("shadow").await;
        assert!(ended["ended"].is_string() && ended["module"]["name"] == "not-7", "{ended:#}");
    }
}

/// The shadow decides off the reply path: waits until it has seen all.
async fn wait_for_decisions(operator: &mut Operator, decisions: u64) -> Value {
    let began = Instant::now();
    loop {
        let shown = operator.diff("shadow").await;
        if shown["decisions"].as_u64() >= Some(decisions) {
            assert_eq!(shown["decisions"], json!(decisions), "{shown:#}");
            return shown;
        }
        assert!(began.elapsed() < LIMIT, "{decisions} decisions: {shown:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A rule that says for ever: not yet. The host flushes what has waited for `flush.age_ms_max`, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_that_never_flushes_meets_a_bound() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 5).await;
    let mut config = stand.config();
    config.policy.call_deadline_ms = 1_000;
    config.flush.age_ms_max = 1_000;
    let mut host = stand.host(&config);
    let mut operator = Operator::new(host.admin());
    let overdue = ["kind=\"feed-like\""];
    assert!(operator.counter("weir_flush_overdue_total", &overdue).await < 0.5, "it begins at 0");
    let never = Guest { flush: true, planned: "(i32.store8 (i32.const 16) (i32.const 0))", ..Guest::default() };
    assert_eq!(operator.push(&never.component(), "never", true).await.status, 201);
    let mut client = Client::new(host.public());
    assert_eq!(client.like(3, 7).await, (true, 1));
    let began = Instant::now();
    while operator.counter("weir_flush_overdue_total", &overdue).await < 0.5 {
        assert!(began.elapsed() < LIMIT, "never overdue:\n{}", host.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    operator.client.wait_drained(LIMIT).await;
    assert!(stand.database.likes().await.contains(&(3, 7)), "{}", host.log());
    let status = operator.client.get("/admin/v1/flush").await.json();
    let kinds = status["kinds"].as_array().unwrap();
    let kind = kinds.iter().find(|kind| kind["kind"] == "feed-like").unwrap();
    assert_eq!(kind["overdue"], true, "{status:#}");
    assert!(host.log().contains("flush.age_ms_max"), "{}", host.log());
    // A rule that plans a flush again ends it.
    operator.command("POST", "/rollback").await;
    assert_eq!(client.like(4, 7).await, (true, 1));
    operator.client.wait_drained(LIMIT).await;
    let began = Instant::now();
    loop {
        let status = operator.client.get("/admin/v1/flush").await.json();
        let kinds = status["kinds"].as_array().unwrap();
        if kinds.iter().find(|kind| kind["kind"] == "feed-like").unwrap()["overdue"] == false {
            break;
        }
        assert!(began.elapsed() < LIMIT, "{status:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(host.terminate().code(), Some(0), "{}", host.log());
}
