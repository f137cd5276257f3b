//! How requests are named: in replies, problems, log lines, at origins, and in the access log.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::Value;
use weir::config::{AccessLogConfig, AccessLogFormat, Config, RoomConfig, UpstreamConfig};
use weir_tests::client::{Client, Reply};
use weir_tests::origin::{Origin, Script, line, ok};
use weir_tests::services::Host;
use weir_tests::stand::{Setup, Stand};

use crate::{LIKE, PATIENCE, ask};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn before(stand: &Stand, origin: &Origin) -> Config {
    let mut config = stand.config();
    config.upstreams.push(UpstreamConfig::new("shop", "/shop/", &format!("http://{}", origin.address)));
    config
}

fn id(reply: &Reply) -> String {
    let id = reply.header("x-request-id").to_owned();
    assert!(!id.is_empty(), "{reply:?}");
    id
}

/// The lines of the log with this text, once there is one.
async fn logged(host: &Host, text: &str) -> Vec<String> {
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            let log = host.log();
            let lines: Vec<String> = log.lines().filter(|line| line.contains(text)).map(str::to_owned).collect();
            if !lines.is_empty() {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("{text} is not in the log:\n{}", host.log()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_request_is_found_in_the_log_by_the_id_of_its_reply() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 5).await;
    let origin = Origin::start(Script::Cut).await;
    let host = stand.host(&before(&stand, &origin));
    let mut client = Client::new(host.public());
    let failed = ask(&mut client, "GET", "/shop/a", &[]).await;
    let problem = failed.json();
    assert_eq!((failed.status, &problem["requestId"]), (502, &id(&failed).into()), "{problem}");
    let lines = logged(&host, &format!("request={} ", id(&failed))).await;
    assert!(
        lines.len() == 1 && lines[0].contains("a request failed") && lines[0].contains("origin-broken"),
        "{lines:?}"
    );
    println!("request id: {} finds: {}", id(&failed), lines[0]);

    // A line that is written deep down, on a task of its own, says it, too.
    origin.say(Script::Say(
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n".into(),
    ));
    let mended = ask(&mut client, "GET", "/shop/b", &[]).await;
    assert_eq!((mended.status, mended.text().as_str()), (200, "four"));
    let lines = logged(&host, "does not say well where it ends").await;
    assert!(lines[0].contains(&format!("request={}", id(&mended))), "{lines:?}");

    let ids: BTreeSet<String> = [id(&failed), id(&mended), id(&ask(&mut client, "GET", LIKE, &[]).await)].into();
    assert!(ids.len() == 3 && ids.iter().all(|id| id.len() == 32), "{ids:?}");
    let refused = ask(&mut client, "POST", LIKE, &[]).await;
    assert_eq!(refused.json()["requestId"], id(&refused));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_taken_from_trusted_proxies_and_handed_on() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 5).await;
    let origin = Origin::start(ok("Cache-Control: no-store\r\n", "hello")).await;
    let mut config = before(&stand, &origin);
    let given = [("x-request-id", "abc-1"), ("traceparent", PARENT), ("tracestate", "vendor=1")];
    {
        let host = stand.host(&config);
        let mut client = Client::new(host.public());
        let reply = ask(&mut client, "GET", "/shop/a", &given).await;
        let head = origin.last_head();
        assert!(id(&reply) != "abc-1" && line(&head, "x-request-id") == id(&reply), "nobody is trusted: {head}");
        assert!(!line(&head, "traceparent").contains(&PARENT[3..35]) && line(&head, "tracestate").is_empty(), "{head}");
        assert!(line(&head, "traceparent").ends_with("-01"), "an origin records what begins here: {head}");
    }
    config.http.trusted_proxies = vec!["loopback".to_owned()].try_into().unwrap();
    config.http.trace.request_id_header = "X-Correlation-Id".into();
    let host = stand.host(&config);
    let mut client = Client::new(host.public());
    let given = [("x-correlation-id", "abc-1"), given[1], given[2]];
    let reply = ask(&mut client, "GET", "/shop/a", &given).await;
    assert_eq!((reply.header("x-correlation-id"), reply.header("x-request-id")), ("abc-1", ""));
    let head = origin.last_head();
    let parent = line(&head, "traceparent");
    assert!(
        parent.starts_with(&PARENT[..36]) && parent.ends_with("-01") && !parent.contains(&PARENT[36..52]),
        "{head}"
    );
    assert_eq!((line(&head, "tracestate"), line(&head, "x-correlation-id")), ("vendor=1", "abc-1"));
    for hostile in ["a b", "a\" onerror=1", "<script>", "a\u{e9}", &"x".repeat(200)] {
        let reply = ask(&mut client, "GET", LIKE, &[("x-correlation-id", hostile)]).await;
        let echoed = reply.header("x-correlation-id");
        assert!(reply.status == 200 && echoed.len() == 32, "{hostile}: {reply:?}");
    }
    drop(host);

    config.http.trace.request_id_header = String::new();
    let host = stand.host(&config);
    let mut client = Client::new(host.public());
    let reply = ask(&mut client, "GET", "/shop/a", &given).await;
    assert!(reply.headers.keys().all(|name| !name.as_str().ends_with("-id")), "{reply:?}");
    assert_eq!(line(&origin.last_head(), "traceparent"), PARENT, "it is none of weir's business");
}

/// The lines of the access log, once there are so many.
async fn lines(path: &Path, count: usize) -> Vec<String> {
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if text.matches('\n').count() >= count {
                return text.lines().map(str::to_owned).collect();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("{count} lines are not in {}", path.display()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_access_log_has_a_line_for_each_request_and_no_secret() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 5).await;
    let slow = weir_tests::origin::slow("Cache-Control: no-store\r\n", "piece", 3, Duration::from_millis(20));
    let origin = Origin::start(slow).await;
    let path = stand.directory.path().join("access.log");
    let mut host = stand.host(&with_access_log(&stand, &origin, &path));
    let mut client = Client::new(host.public());

    let forwarded = ("x-forwarded-for", "192.0.2.7");
    let liked = ask(&mut client, "POST", LIKE, &[("x-actor-id", "7"), forwarded]).await;
    let agent = ("user-agent", "evil\"} \\ {\"status\":200");
    let secret = [("authorization", "Bearer secret-1"), ("cookie", "sid=secret-2"), agent];
    let read = ask(&mut client, "GET", "/shop/a?token=secret-3", &secret).await;
    let joined = ask(&mut client, "POST", "/v1/rooms/concert/1/tokens", &[("x-actor-id", "8")]).await;
    let token = joined.json()["token"].as_str().unwrap().to_owned();
    let polled = ask(&mut client, "GET", &format!("/v1/rooms/concert/1/tokens/{token}"), &[]).await;
    let missing = ask(&mut client, "HEAD", "/v1/toggles/none/%0a%1b[2J", &[]).await;
    assert_eq!((liked.status, read.status, polled.status, missing.status), (200, 200, 200, 404));

    let written = lines(&path, 5).await;
    let values: Vec<Value> = written.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |reply: &Reply| {
        values.iter().find(|value| value["request"] == id(reply)).unwrap_or_else(|| panic!("{written:?}"))
    };
    let like = of(&liked);
    assert_eq!(
        (&like["client"], &like["actor"], &like["method"], &like["path"]),
        (&"192.0.2.7".into(), &"7".into(), &"POST".into(), &LIKE.into())
    );
    assert_eq!(
        (&like["status"], &like["kind"], &like["level"]),
        (&200.into(), &"feed-like".into(), &"journaled".into())
    );
    assert_eq!(like["bytes"], liked.body.len());
    assert!(like["duration_ms"].as_f64().is_some_and(|time| time > 0.0) && like["trace"].as_str().unwrap().len() == 32);
    let shop = of(&read);
    assert_eq!(
        (&shop["path"], &shop["kind"], &shop["bytes"]),
        (&"/shop/a".into(), &"upstream:shop".into(), &15.into())
    );
    assert!(shop["cache"].as_str().unwrap().contains("fwd=") && shop.get("actor").is_none(), "{shop}");
    assert!(shop["duration_ms"].as_f64().unwrap() > 40.0, "until all is sent: {shop}");
    assert_eq!(of(&polled)["path"], "/v1/rooms/concert/1/tokens/***");
    assert_eq!((&of(&missing)["bytes"], &of(&missing)["status"]), (&0.into(), &404.into()));
    let all = written.join("\n");
    assert!(!all.contains("secret") && !all.contains(&token) && !all.contains("evil"), "{all}");

    opened_again(&host, &mut client, &path).await;
    ask(&mut client, "GET", LIKE, &[]).await;
    host.terminate();
    assert_eq!(lines(&path, 2).await.len(), 2, "what waits is written before the end");
}

/// Everything that a line may name, and a waiting room.
fn with_access_log(stand: &Stand, origin: &Origin, path: &Path) -> Config {
    let mut config = before(stand, origin);
    config.http.trusted_proxies = vec!["loopback".to_owned()].try_into().unwrap();
    let to = path.to_str().unwrap().to_owned();
    config.log.access =
        AccessLogConfig { format: AccessLogFormat::Json, to, actor: true, ..AccessLogConfig::default() };
    config.rooms.push(RoomConfig::demo(stand.directory.path().join("room.pem")));
    config.rooms[0].keys[0].key_file = None;
    config.rooms[0].keys[0].algorithm = weir::config::RoomAlgorithm::HS256;
    config.rooms[0].keys[0].key = Some("a secret of at least thirty-two bytes".into());
    config
}

/// Moved away, and opened again.
async fn opened_again(host: &Host, client: &mut Client, path: &Path) {
    let moved = path.with_extension("log.1");
    for signal in [Signal::USR1, Signal::HUP] {
        std::fs::rename(path, &moved).unwrap();
        kill_process(host.pid(), signal).unwrap();
        let before = lines(&moved, 1).await.len();
        let opened = tokio::time::timeout(PATIENCE, async {
            while !path.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        opened.await.expect("the file is there again");
        ask(client, "GET", LIKE, &[]).await;
        assert_eq!((lines(path, 1).await.len(), lines(&moved, 1).await.len()), (1, before));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_combined_form_names_nobody_unless_it_is_asked_to() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 5).await;
    let mut config = stand.config();
    config.log.access.format = AccessLogFormat::Combined;
    let host = stand.host(&config);
    let mut client = Client::new(host.public());
    let headers =
        [("x-actor-id", "7"), ("user-agent", "curl/8 \"x\""), ("referer", "https://app.example/?token=secret")];
    let liked = ask(&mut client, "PUT", LIKE, &headers).await;
    let end = format!(
        "\"PUT {LIKE} HTTP/1.1\" 200 {} \"https://app.example/\" \"curl/8 \\x22x\\x22\" {}",
        liked.body.len(),
        id(&liked)
    );
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(line) = host.stdout().lines().find(|line| line.ends_with(&end)) {
                return line.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let line = found.await.unwrap_or_else(|_| panic!("{end} is not in\n{}", host.stdout()));
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    println!("access log: {line}");
}
