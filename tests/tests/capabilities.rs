//! What modules may import beyond `config` and `log`: refused until the operator grants it, then it works, on the
//! embedded store with SQLite and on Redis with PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use serde_json::json;
use weir::config::{Config, GrantConfig, ParameterType, StatementConfig};
use weir::model::IdType;
use weir_tests::client::Client;
use weir_tests::guest::{Guest, Import};
use weir_tests::operator::Operator;
use weir_tests::services::host::weir;
use weir_tests::services::temporary_directory;
use weir_tests::stand::{Setup, Stand};

const SETUPS: [Setup; 2] = [Setup::EmbeddedSqlite, Setup::RedisPostgres];

/// Counts its calls under the key `calls`, and makes that the burst of each rule.
const COUNTS: Guest<'static> = Guest {
    flush: false,
    counter: false,
    ingest: false,
    import: Import::Redis,
    functions: r#"
        (data (i32.const 128) "calls")
        (global $counted (mut i32) (i32.const 0))
        (func $count (result i32)
          ;; An addition: key, its length, by, ttl-ms.
          (i32.store (i32.const 160) (i32.const 128))
          (i32.store (i32.const 164) (i32.const 5))
          (i64.store (i32.const 168) (i64.const 1))
          (i32.store (i32.const 176) (i32.const 600000))
          (call $increment (i32.const 160) (i32.const 1) (i32.const 200))
          (if (i32.load8_u (i32.const 200)) (then unreachable))
          (i32.wrap_i64 (i64.load (i32.load (i32.const 204)))))"#,
    before: "(global.set $counted (call $count))",
    each: "(i32.store8 offset=4 (local.get $rule) (i32.const 1))
        (i32.store offset=8 (local.get $rule) (i32.add (i32.const 1000) (global.get $counted)))
        (i32.store offset=12 (local.get $rule) (i32.const 60000))",
    counted: "",
    planned: "",
    judged: "",
    coalesced: "",
};

/// The burst that the last rule of this actor had, by the header.
async fn burst(client: &mut Client, target: i64, actor: i64) -> u64 {
    let reply = client.toggle("PUT", target, actor, None).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let policy = reply.header("ratelimit-policy");
    let burst = policy.split(";q=").nth(1).and_then(|rest| rest.split(';').next()).and_then(|text| text.parse().ok());
    burst.unwrap_or_else(|| panic!("no limit in {policy:?}"))
}

fn patient(stand: &Stand) -> Config {
    let mut config = stand.config();
    config.policy.granted_call_deadline_ms = 5_000;
    config.policy.canary.call_p99_ms_max = 60_000;
    config
}

/// Hands in a module that imports what is not granted, and ends the host.
async fn assert_not_granted(stand: &Stand, component: &[u8], name: &str, import: &str) {
    let mut host = stand.host(&patient(stand));
    let reply = Operator::new(host.admin()).push(component, name, true).await;
    assert_eq!((reply.status, &reply.json()["code"]), (422, &json!("import-not-granted")), "{}", reply.text());
    assert!(reply.text().contains(import), "{}", reply.text());
    assert_eq!(host.terminate().code(), Some(0), "{}", host.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_refused_until_granted_and_a_shadow_changes_none() {
    let component = COUNTS.component();
    for setup in SETUPS {
        let stand = Stand::start(setup, 3).await;
        assert_not_granted(&stand, &component, "counts", "weir:policy/redis@0.1.0").await;
        let mut config = patient(&stand);
        config.policy.grants = vec![GrantConfig { module: "counts".into(), redis: true, sql: Vec::new() }];
        let host = stand.host(&config);
        let (mut client, mut operator) = (Client::new(host.public()), Operator::new(host.admin()));
        // Another name has another grant: none.
        assert_eq!(operator.push(&component, "other", true).await.status, 422);
        let pushed = operator.push(&component, "counts", false).await;
        assert_eq!(pushed.status, 201, "{}", pushed.text());

        operator.command("POST", "/counts/shadow").await;
        let mut seen = 0;
        for actor in 1..=5 {
            client.like(1, actor).await;
        }
        for _ in 0..500 {
            let shown = operator.diff("shadow").await;
            seen = shown["differing"].as_u64().unwrap();
            // It sees what it would have counted: always the first.
            let bursts =
                shown["samples"].as_array().unwrap().iter().map(|sample| &sample["candidate"]["limit"]["burst"]);
            assert!(bursts.into_iter().all(|burst| *burst == json!(1_001)), "{shown:#}");
            if seen >= 5 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(seen >= 5, "the shadow saw {seen} decisions");
        operator.command("DELETE", "/shadow").await;

        operator.command("POST", "/counts/activate").await;
        for calls in 1..=5 {
            assert_eq!(burst(&mut client, 1, 10).await, 1_000 + calls, "{}", setup.name());
        }
        // Off the fast path, and without a failure.
        let status = operator.status().await;
        let listed = status["modules"].as_array().unwrap().iter().find(|module| module["name"] == "counts").unwrap();
        assert_eq!((&listed["healthy"], &listed["failures"]), (&json!(true), &json!(0)), "{status:#}");
        println!(
            "capabilities {}: redis refused without a grant, counts with one, a shadow counts nothing",
            setup.name()
        );
    }
}

/// Calls of the live module so far.
async fn calls(operator: &mut Operator, interface: &str) -> f64 {
    let labels = [format!("interface=\"{interface}\""), "role=\"live\"".to_owned()];
    operator.counter("weir_policy_call_seconds_count", &[&labels[0], &labels[1]]).await
}

/// What the store does not know is loaded, and the rules are not asked again: what a module counts, it counts once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_decided_once_where_its_target_is_cold() {
    for setup in SETUPS {
        let stand = Stand::start(setup, 40).await;
        let mut config = stand.full_config();
        config.policy.granted_call_deadline_ms = 5_000;
        config.policy.canary.call_p99_ms_max = 60_000;
        config.policy.grants = vec![GrantConfig { module: "counts".into(), redis: true, sql: Vec::new() }];
        // Ids from outside: whether SQL has them must be asked.
        let ingest = &mut config.ingests[0];
        (ingest.id_field, ingest.schema) = (Some("slug".into()), None);
        (ingest.table.id_type, ingest.table.name) = (IdType::Text, "page".into());
        ingest.table.children.clear();
        ingest.table.columns = [("title".to_owned(), "title".to_owned())].into();
        let time = if setup == Setup::EmbeddedSqlite { "TEXT" } else { "TIMESTAMP" };
        let table = format!(
            "CREATE TABLE page (id TEXT NOT NULL PRIMARY KEY, user_id BIGINT NOT NULL, title VARCHAR(20) NOT NULL, \
             created_at {time} NOT NULL)"
        );
        stand.database.script(&table).await;
        let host = stand.host(&config);
        let (mut client, mut operator) = (Client::new(host.public()), Operator::new(host.admin()));
        let pushed = operator.push(&COUNTS.component(), "counts", true).await;
        assert_eq!(pushed.status, 201, "{}", pushed.text());
        for target in 1..=10 {
            let count = 1_000 + u64::try_from(target).unwrap();
            assert_eq!(burst(&mut client, target, 10).await, count, "{}: target {target} was cold", setup.name());
        }
        assert_eq!(calls(&mut operator, "toggle").await, 10.0, "{}", setup.name());
        for target in 1..=10 {
            let path = format!("/v1/counters/video-view/{target}");
            let reply = client.request("POST", &path, &[("x-actor-id", "7")], "").await.unwrap();
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
        assert_eq!(calls(&mut operator, "counter").await, 10.0, "{}", setup.name());
        for slug in 0..10 {
            let headers = [("content-type", "application/json"), ("x-actor-id", "7")];
            let body = format!("{{\"slug\": \"s{slug}\", \"title\": \"t\"}}");
            let reply = client.request("POST", "/v1/ingest/playlist", &headers, &body).await.unwrap();
            assert_eq!(reply.status, 202, "{}", reply.text());
        }
        assert_eq!(calls(&mut operator, "ingest").await, 10.0, "{}", setup.name());
        println!("capabilities {}: 10 toggles, hits and creates on what was cold, 10 calls each", setup.name());
    }
}

/// Builds a guest of `guest/examples` as a user would.
fn build(example: &str, directory: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest/examples").join(example);
    let file = directory.join(format!("{example}.wasm"));
    let (source, output) = (source.to_str().unwrap(), file.to_str().unwrap());
    let ended = weir(directory, &["policy", "build", source, "--output", output]);
    assert_eq!(ended.code, Some(0), "weir policy build {example}: {ended:?}");
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_come_from_a_granted_statement() {
    let directory = temporary_directory("capabilities");
    let component = std::fs::read(build("tier-limits", directory.path())).unwrap();
    for setup in SETUPS {
        let stand = Stand::start(setup, 3).await;
        let (integer, placeholder) = if setup == Setup::EmbeddedSqlite { ("INTEGER", "?") } else { ("BIGINT", "$1") };
        stand
            .database
            .script(&format!(
                "CREATE TABLE account (id {integer} NOT NULL PRIMARY KEY, tier TEXT);\n\
                 INSERT INTO account (id, tier) VALUES (7, 'gold'), (8, 'silver'), (9, NULL)"
            ))
            .await;
        assert_not_granted(&stand, &component, "tier-limits", "weir:policy/sql@0.1.0").await;
        let mut config = patient(&stand);
        config.policy.statements = vec![StatementConfig {
            name: "tier-of".into(),
            sql: format!("SELECT tier FROM account WHERE id = {placeholder}"),
            parameters: vec![ParameterType::Integer],
            write: false,
            rows_max: 1_000,
            timeout_ms: 5_000,
        }];
        config.policy.grants =
            vec![GrantConfig { module: "tier-limits".into(), redis: false, sql: vec!["tier-of".into()] }];
        let mut host = stand.host(&config);
        let mut operator = Operator::new(host.admin());
        let pushed = operator.push(&component, "tier-limits", true).await;
        assert_eq!(pushed.status, 201, "{}", pushed.text());
        // The vectors that it carries were run, with stubs for the statement.
        assert!(pushed.json()["checks"]["vectors"].as_u64().unwrap() > 0, "{}", pushed.text());
        let mut client = Client::new(host.public());
        let mut bursts = Vec::new();
        for actor in [7, 8, 9, 10] {
            bursts.push(burst(&mut client, 1, actor).await);
        }
        assert_eq!(bursts, [100, 20, 5, 5], "gold, silver, no tier, no account: {}", setup.name());
        // The next batch sees what the table says now; a restart brings the module back, still granted.
        stand.database.script("UPDATE account SET tier = 'gold' WHERE id = 9").await;
        assert_eq!(burst(&mut client, 2, 9).await, 100);
        host.restart();
        host.wait_ready();
        assert_eq!(burst(&mut Client::new(host.public()), 3, 8).await, 20);
        println!("capabilities {}: sql refused without a grant; bursts by tier {bursts:?}", setup.name());
    }
}
