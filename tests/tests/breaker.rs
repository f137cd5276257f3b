//! Modules that fail after their probation: a breaker keeps calls from them, the module before them answers, and what breaks a
//! kind's own contract is a failure like every other.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use weir::config::{Config, PolicyFailure};
use weir_tests::client::{Client, Reply};
use weir_tests::guest::Guest;
use weir_tests::operator::{Operator, event, serving};
use weir_tests::stand::{Setup, Stand};

/// Decides as the default rules do, and traps in a call whose first intent is on target 7.
const TRAPS_ON_7: Guest<'static> = Guest {
    flush: false,
    counter: false,
    ingest: false,
    import: weir_tests::guest::Import::Nothing,
    functions: "",
    before: "(if (i64.eq (i64.load offset=8 (local.get $intent)) (i64.const 7)) (then unreachable))",
    each: "",
    counted: "",
    judged: "",
    planned: "",
    coalesced: "",
};

/// Every document becomes one that no kind has.
const BENDS: Guest<'static> = Guest {
    flush: false,
    counter: false,
    ingest: true,
    import: weir_tests::guest::Import::Nothing,
    functions: "(data (i32.const 128) \"{\\22nonsense\\22:1}\")",
    before: "",
    each: "",
    counted: "",
    judged: "(i32.store8 (local.get $verdict) (i32.const 0))
        (i32.store8 offset=4 (local.get $verdict) (i32.const 1))
        (i32.store offset=8 (local.get $verdict) (i32.const 128))
        (i32.store offset=12 (local.get $verdict) (i32.const 14))",
    planned: "",
    coalesced: "",
};

/// One request at a time, calls that may take long on a busy machine, and no probation.
fn config(stand: &Stand) -> Config {
    let mut config = stand.full_config();
    config.policy.call_deadline_ms = 2_000;
    config.policy.canary.call_p99_ms_max = 60_000;
    config.policy.probation_ms = 0;
    config
}

async fn create(client: &mut Client) -> Reply {
    let headers = [("content-type", "application/json"), ("x-actor-id", "7")];
    client.request("POST", "/v1/ingest/playlist", &headers, r#"{"title":"A"}"#).await.unwrap()
}

async fn failures(operator: &mut Operator, interface: &str, cause: &str) -> f64 {
    let labels = [format!("interface=\"{interface}\""), "role=\"live\"".into(), format!("cause=\"{cause}\"")];
    operator.counter("weir_policy_failures_total", &labels.each_ref().map(String::as_str)).await
}

async fn open_breakers(operator: &mut Operator, interface: &str, kind: &str) -> f64 {
    let labels = [format!("interface=\"{interface}\""), format!("kind=\"{kind}\"")];
    operator.counter("weir_policy_breakers_open", &labels.each_ref().map(String::as_str)).await
}

fn listed<'a>(status: &'a Value, module: &str) -> &'a Value {
    let modules = status["modules"].as_array().unwrap();
    modules.iter().find(|listed| listed["name"] == module).unwrap_or_else(|| panic!("{module}: {status:#}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_fails_is_not_called_and_the_one_before_it_answers() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 10).await;
    let mut config = config(&stand);
    // Longer than this test takes until it wants the next call.
    (config.policy.breaker.backoff_ms_min, config.policy.breaker.backoff_ms_max) = (600_000, 600_000);
    let host = stand.host(&config);
    let (mut client, mut operator) = (Client::new(host.public()), Operator::new(host.admin()));
    assert_eq!(operator.push(&Guest::default().component(), "good", true).await.status, 201);
    assert_eq!(operator.push(&TRAPS_ON_7.component(), "bomb", true).await.status, 201);
    assert_eq!(client.like(1, 100).await, (true, 1));
    for actor in 1..=200 {
        assert_eq!(client.toggle("PUT", 7, actor, None).await.unwrap().status, 200, "the good one answers");
    }
    assert_eq!(failures(&mut operator, "toggle", "trap").await, 3.0, "three calls, and none of the other 197");
    let previous = ["kind=\"feed-like\"", "to=\"previous\""];
    assert_eq!(operator.counter("weir_policy_fallbacks_total", &previous).await, 200.0);
    assert_eq!(open_breakers(&mut operator, "toggle", "feed-like").await, 1.0);
    let status = operator.status().await;
    let open = &status["breakers"][0];
    assert_eq!((&open["interface"], &open["kind"]), (&json!("toggle"), &json!("feed-like")), "{status:#}");
    assert_eq!((&open["state"], &open["name"]), (&json!("open"), &json!("bomb")), "{status:#}");
    assert!(open["reason"].as_str().unwrap().contains("3 calls in a row failed, the last with trap"), "{status:#}");
    assert_eq!(listed(&status, "bomb")["healthy"], json!(false), "{status:#}");
    let opened = event(&status, "breaker-opened", "bomb").unwrap_or_else(|| panic!("{status:#}"));
    assert!(opened["reason"].as_str().unwrap().starts_with("toggle.decide of feed-like: "), "{opened}");
    let ready = operator.client.get("/readyz").await;
    assert!(
        ready.status == 200 && ready.text().contains("not called for toggle.decide of feed-like"),
        "{}",
        ready.text()
    );
    let log = host.log();
    assert!(log.contains("breaker-opened"), "{log}");

    // Whoever activates it again wants it to be called.
    let digest = listed(&status, "bomb")["digest"].as_str().unwrap().to_owned();
    operator.command("POST", "/good/activate").await;
    operator.command("POST", &format!("/{digest}/activate")).await;
    assert_eq!(operator.status().await["breakers"], json!([]));
    assert_eq!(open_breakers(&mut operator, "toggle", "feed-like").await, 0.0);
    assert_eq!(client.like(2, 100).await, (true, 1));
    assert_eq!(failures(&mut operator, "toggle", "trap").await, 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_while_one_call_is_tried_and_closes_the_breaker() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 10).await;
    let mut config = config(&stand);
    config.policy.breaker.backoff_ms_min = 200;
    let host = stand.host(&config);
    let (mut client, mut operator) = (Client::new(host.public()), Operator::new(host.admin()));
    assert_eq!(operator.push(&TRAPS_ON_7.component(), "bomb", true).await.status, 201);
    for actor in 1..=5 {
        // Only the built-in rules were before it, and the kind does not want them.
        let refused = client.toggle("PUT", 7, actor, None).await.unwrap();
        assert_eq!((refused.status, refused.header("retry-after").is_empty()), (503, false), "{}", refused.text());
    }
    operator.wait_for_event("breaker-opened", "bomb").await;
    let mut refused = 0;
    while client.toggle("PUT", 8, 100, None).await.unwrap().status == 503 {
        refused += 1;
        assert!(refused < 6_000, "never tried again");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let closed = operator.wait_for_event("breaker-closed", "bomb").await;
    assert_eq!(closed["reason"], json!("toggle.decide of feed-like: a call succeeded"));
    assert_eq!(open_breakers(&mut operator, "toggle", "feed-like").await, 0.0);
    assert_eq!(operator.status().await["breakers"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_breaks_the_shape_of_documents_is_blamed() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let bends = BENDS.component();
    // On probation: no request pays, and it goes.
    let mut watched = config(&stand);
    watched.policy.probation_ms = 600_000;
    let mut host = stand.host(&watched);
    let (mut client, mut operator) = (Client::new(host.public()), Operator::new(host.admin()));
    let before = serving(&operator.status().await, "ingest");
    assert_eq!(operator.push(&bends, "bends", true).await.status, 201);
    for _ in 0..40 {
        let reply = create(&mut client).await;
        assert_eq!(reply.status, 202, "{}", reply.text());
    }
    let event = operator.wait_for_event("rolled-back-by-itself", "bends").await;
    let reason = event["reason"].as_str().unwrap();
    assert!(reason.contains("contract: document 0 is normalised to what is none of its kind"), "{event}");
    assert_eq!(serving(&operator.status().await, "ingest"), before);
    operator.client.wait_drained(std::time::Duration::from_secs(60)).await;
    assert_eq!(host.terminate().code(), Some(0), "{}", host.log());

    // Without one: the kind says, and the host says who is to blame.
    for (on_failure, status) in [(PolicyFailure::Deny, 503), (PolicyFailure::BuiltIn, 202)] {
        let mut config = config(&stand);
        config.ingests[0].on_policy_failure = on_failure;
        config.policy.breaker.backoff_ms_min = 60_000;
        let mut host = stand.host(&config);
        let (mut client, mut operator) = (Client::new(host.public()), Operator::new(host.admin()));
        operator.command("POST", "/bends/activate").await;
        for _ in 0..40 {
            let reply = create(&mut client).await;
            assert_eq!(reply.status, status, "{on_failure:?}: {}", reply.text());
        }
        assert_eq!(failures(&mut operator, "ingest", "contract").await, 3.0, "{on_failure:?}");
        let shown = operator.status().await;
        assert_eq!(listed(&shown, "bends")["healthy"], json!(false), "{shown:#}");
        assert_eq!((&shown["breakers"][0]["kind"]), &json!("playlist"), "{shown:#}");
        let ready = operator.client.get("/readyz").await.text();
        assert!(ready.contains("not called for ingest.validate of playlist"), "{ready}");
        operator.command("POST", "/rollback").await;
        assert_eq!(create(&mut client).await.status, 202);
        operator.client.wait_drained(std::time::Duration::from_secs(60)).await;
        assert_eq!(host.terminate().code(), Some(0), "{}", host.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_and_a_shadow_are_held_to_the_shape_of_documents() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let host = stand.host(&config(&stand));
    let (mut client, mut operator) = (Client::new(host.public()), Operator::new(host.admin()));
    assert_eq!(operator.push(&BENDS.component(), "bends", false).await.status, 201);
    operator.command("POST", "/bends/shadow").await;
    assert_eq!(create(&mut client).await.status, 202);
    for _ in 0..3_000 {
        if operator.diff("shadow").await["failures"]["contract"] == json!(1) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let shown = operator.diff("shadow").await;
    assert_eq!(shown["failures"]["contract"], json!(1), "{shown:#}");
    assert_eq!(operator.status().await["shadow"]["healthy"], json!(false));
    operator.command("DELETE", "/shadow").await;
    operator.command("POST", "/bends/canary?share=1.0").await;
    for _ in 0..10 {
        assert_eq!(create(&mut client).await.status, 202, "no request pays for a trial");
    }
    let event = operator.wait_for_event("canary-rolled-back", "bends").await;
    assert!(event["reason"].as_str().unwrap().contains("none of its kind"), "{event}");
}
