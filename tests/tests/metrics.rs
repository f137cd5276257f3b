//! `/metrics` of a host with every capability, as Prometheus' own checker reads it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::process::{Command, Stdio};

use weir::config::{Config, ReadConfig, RoomAlgorithm, RoomConfig, RoomKeyConfig, Staleness, UpstreamConfig};
use weir_tests::client::Client;
use weir_tests::origin::{Origin, ok};
use weir_tests::stand::{Setup, Stand, read};

const JSON: (&str, &str) = ("content-type", "application/json");

/// What `promtool check metrics` says of a text; nothing where it is clean.
fn check(metrics: &str) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("promtool: {error}: apt-get install prometheus (it holds promtool)"));
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { said } else { format!("{}: {said}", output.status) }
}

fn room() -> RoomConfig {
    let key = RoomKeyConfig {
        kid: "first".into(),
        algorithm: RoomAlgorithm::HS256,
        key: Some("a secret of at least thirty-two bytes".into()),
        key_file: None,
    };
    RoomConfig { keys: vec![key], ..RoomConfig::demo("unused".into()) }
}

fn config(stand: &Stand, origin: &Origin) -> Config {
    let count = "SELECT COUNT(*) AS likes FROM feed_like WHERE feed_id = :id";
    let reads: Vec<ReadConfig> = vec![read("likes", count, Staleness::Minutes, &["feed_like"])];
    let upstream = UpstreamConfig::new("shop", "/shop/", &format!("http://{}", origin.address));
    Config { rooms: vec![room()], reads, upstreams: vec![upstream], ..stand.full_config() }
}

async fn use_everything(client: &mut Client) {
    let actor = ("x-actor-id", "7");
    for (method, path, body, expected) in [
        ("POST", "/v1/toggles/feed-like/1", "", 200),
        ("POST", "/v1/counters/video-view/1", "", 200),
        ("POST", "/v1/ingest/playlist", r#"{"title":"a"}"#, 202),
        ("PUT", "/v1/preferences/notification/7", r#"{"social":false}"#, 200),
        ("POST", "/v1/preferences/notification/lookup", r#"{"topic":"social","members":[7]}"#, 200),
        ("GET", "/v1/reads/likes?id=1", "", 200),
        ("GET", "/v1/reads/likes?id=1", "", 200),
        ("GET", "/shop/a", "", 200),
        ("GET", "/shop/a", "", 200),
        ("GET", "/nothing", "", 404),
    ] {
        let headers = if body.is_empty() { vec![actor] } else { vec![actor, JSON] };
        let reply = client.request(method, path, &headers, body).await.unwrap();
        assert_eq!(reply.status, expected, "{method} {path}: {}", reply.text());
    }
    for queue in 1..=20 {
        let path = format!("/v1/rooms/concert/{queue}/tokens");
        assert_eq!(client.request("POST", &path, &[actor], "").await.unwrap().status, 201);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_has_nothing_to_say() {
    let bad = check("# TYPE weir_a_microseconds counter\nweir_a_microseconds 1\n");
    assert!(bad.contains("no help text") && bad.contains("base unit"), "the checker checks: {bad}");
    for setup in [Setup::EmbeddedSqlite, Setup::RedisPostgres] {
        let stand = Stand::start(setup, 3).await;
        let origin = Origin::start(ok("Cache-Control: max-age=60\r\n", "answer")).await;
        let host = stand.host(&config(&stand, &origin));
        use_everything(&mut Client::new(host.public())).await;
        let mut admin = Client::new(host.admin());
        admin.wait_drained(std::time::Duration::from_secs(60)).await;
        // The clocks of twenty queues tell once in a while.
        while admin.metric("weir_room_people_total", &["admitted"]).await.unwrap_or_default() < 20.0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let metrics = admin.get("/metrics").await.text();
        assert_eq!(check(&metrics), "", "{}", setup.name());
        assert!(!metrics.contains("queue=\"20\""), "a queue is no label: there may be any number of them");
        let series = metrics.lines().filter(|line| line.starts_with("weir_room_active{")).count();
        assert_eq!(series, 1, "one for the kind");
        assert_eq!(admin.metric("weir_room_active", &["kind=\"concert\""]).await, Some(20.0), "over all queues");
        assert!(metrics.contains("weir_read_saved_seconds_total{read=\"likes\"} "), "{metrics}");
    }
}
