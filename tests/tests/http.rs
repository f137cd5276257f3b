//! The public API of the real binary, byte by byte: what is wrong gets its documented status and changes nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir::config::{Config, JwtConfig};
use weir_tests::client::Client;
use weir_tests::services::Host;
use weir_tests::stand::{Setup, Stand};

/// Waiting for an event that must come; only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(30);
const TARGETS: i64 = 20;
const LIKE: &str = "/v1/toggles/feed-like/3";

const JWT_KEY: &str = "0123456789abcdef0123456789abcdef";
/// `{"sub":"7","exp":4102444800}` (the year 2100), signed with HS256 and the key above.
const JWT_GOOD: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiI3IiwiZXhwIjo0MTAyNDQ0ODAwfQ.\
                        xlTaZj-ff-pRj9TbJIfAQuoO-gGl-GKrhQzQ9KwrXcA";
/// The same with an `exp` in 2001.
const JWT_EXPIRED: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiI3IiwiZXhwIjoxMDAwMDAwMDAwfQ.\
                           -nqAZeZ1bvhXq_x1356pmGxa54Ba5xSuZbGueVjOqBs";
/// The same without `exp`.
const JWT_ENDLESS: &str =
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiI3In0.Upi2r-BrjBso9w1lxexVHqT0LCsGSvEw42_8hSvfEdg";
/// A `sub` that is no actor of the kind.
const JWT_OTHER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJzZXZlbiIsImV4cCI6NDEwMjQ0NDgwMH0.\
                         l_qGv4xBzSFmSDCNcddXvu8nuxBRIzKL7Y3Kpim3V2g";
/// `{"alg":"none","typ":"JWT"}` over the good claims.
const JWT_UNSIGNED: &str = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiI3IiwiZXhwIjo0MTAyNDQ0ODAwfQ.";

/// A host on the embedded store and SQLite, with short time limits.
async fn start(change: impl FnOnce(&mut Config)) -> (Stand, Host) {
    let stand = Stand::start(Setup::EmbeddedSqlite, TARGETS).await;
    let mut config = stand.config();
    config.http.body_timeout_ms = 500;
    config.http.header_timeout_ms = 1_000;
    change(&mut config);
    let host = stand.host(&config);
    (stand, host)
}

/// One reply of a raw connection.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status and name of a well-formed problem.
    fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{self:?}");
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{self:?}");
        let name = problem["type"].as_str().unwrap().strip_prefix("urn:weir:problem:").unwrap();
        (self.status, name.to_owned())
    }
}

/// A connection that says what it is told to.
struct Raw {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Raw {
    async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), received: Vec::new() }
    }

    async fn send(&mut self, text: &str) {
        // The host may have refused and closed already: the reply tells.
        let _ = self.stream.write_all(text.as_bytes()).await;
    }

    async fn receive(&mut self) -> bool {
        let reading = self.stream.read_buf(&mut self.received);
        match tokio::time::timeout(PATIENCE, reading).await.expect("the host answers or closes") {
            Ok(count) => count > 0,
            Err(_) => false,
        }
    }

    async fn answer(&mut self) -> Answer {
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.receive().await, "closed before a reply");
        };
        let head = String::from_utf8(self.received.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: String::new() };
        let length: usize = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        while self.received.len() < length {
            assert!(self.receive().await, "closed in the middle of a body");
        }
        answer.body = String::from_utf8(self.received.drain(..length).collect()).unwrap();
        answer
    }

    async fn ask(&mut self, request: &str) -> Answer {
        self.send(request).await;
        self.answer().await
    }

    /// Waits for the end; fails if another reply comes before it.
    async fn closed(&mut self) {
        assert!(!self.receive().await && self.received.is_empty(), "{:?}", String::from_utf8_lossy(&self.received));
    }
}

async fn ask(host: &Host, request: &str) -> Answer {
    Raw::connect(host.public()).await.ask(request).await
}

/// A request of actor 7, with more headers (each with its CR LF) and a body.
fn request(method: &str, target: &str, headers: &str, body: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: weir\r\nX-Actor-Id: 7\r\n{headers}\r\n{body}")
}

/// A POST of actor 7 with a JSON body.
fn with_json(target: &str, body: &str) -> String {
    let headers = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    request("POST", target, &headers, body)
}

/// Nobody likes anything, in the store and in SQL, and the host is well.
async fn assert_nothing_changed(stand: &Stand, host: &Host) {
    let mut admin = Client::new(host.admin());
    assert_eq!(admin.get("/livez").await.status, 200);
    admin.wait_drained(PATIENCE).await;
    assert!(stand.database.likes().await.is_empty());
    let targets: Vec<String> = (1..=TARGETS).map(|target| target.to_string()).collect();
    let states = Client::new(host.public()).get(&format!("/v1/toggles/feed-like?targets={}", targets.join(","))).await;
    for state in states.json()["targets"].as_array().unwrap() {
        assert_eq!(state["likeCount"], 0, "{state}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_gets_its_status_and_changes_nothing() {
    let (stand, host) = start(|_| {}).await;
    let large = format!("{{\"x\":\"{}\"}}", "y".repeat(100_000));
    let (chunked, typed) = ("Transfer-Encoding: chunked\r\n", "Content-Type: application/json\r\n");
    let chunks = format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    let key = |value: &str| request("POST", LIKE, &format!("Idempotency-Key: {value}\r\n"), "");
    for (sent, status, name) in [
        (with_json(LIKE, "{"), 400, "bad-body"),
        (with_json(LIKE, "[]"), 400, "bad-body"),
        (with_json(LIKE, "{\"liked\":true}"), 400, "bad-body"),
        (with_json(LIKE, &"[".repeat(60_000)), 400, "bad-body"),
        (with_json(LIKE, "{\"a\":NaN}"), 400, "bad-body"),
        (with_json(LIKE, &large), 413, "body-too-large"),
        (request("POST", LIKE, &format!("{chunked}{typed}"), &chunks), 413, "body-too-large"),
        (request("POST", LIKE, "Content-Length: 2\r\n", "{}"), 415, "unsupported-body"),
        (request("POST", LIKE, "Content-Type: text/xml\r\nContent-Length: 4\r\n", "<a/>"), 415, "unsupported-body"),
        (request("GET", LIKE, "Content-Length: 2\r\n", "{}"), 400, "bad-body"),
        (request("POST", "/v1/toggles/feed-like/three", "", ""), 400, "bad-id"),
        (request("POST", "/v1/toggles/feed-like/03", "", ""), 400, "bad-id"),
        (request("POST", "/v1/toggles/feed-like/9223372036854775808", "", ""), 400, "bad-id"),
        (request("POST", "/v1/toggles/feed-like/3%00", "", ""), 400, "bad-id"),
        (request("POST", "/v1/toggles/feed-like/%ff", "", ""), 400, "bad-id"),
        (request("GET", "/v1/toggles/feed-like?targets=1,x", "", ""), 400, "bad-id"),
        (request("POST", "/v1/toggles/feed-like/3?force=1", "", ""), 400, "bad-query"),
        (request("GET", "/v1/toggles/feed-like", "", ""), 400, "bad-query"),
        (request("GET", "/v1/toggles/feed-like/3/actors?limit=0", "", ""), 400, "bad-query"),
        (request("GET", "/v1/toggles/feed-like/3/actors?before=x", "", ""), 400, "bad-query"),
        (request("GET", "/v1/toggles/feed-like/3/status?position=1", "", ""), 400, "bad-query"),
        (request("POST", "/v1/toggles/video-like/3", "", ""), 404, "kind-missing"),
        (request("POST", "/v1/toggles/feed-like/3/", "", ""), 404, "route-missing"),
        (request("GET", "/livez", "", ""), 404, "route-missing"),
        (request("POST", "/v1/toggles/feed-like/1001", "", ""), 404, "target-missing"),
        (request("GET", "/v1/toggles/feed-like/1001", "", ""), 404, "target-missing"),
        (request("GET", "/v1/toggles/feed-like/1001/actors", "", ""), 404, "target-missing"),
        (format!("POST {LIKE} HTTP/1.1\r\nHost: weir\r\n\r\n"), 401, "unauthenticated"),
        (format!("POST {LIKE} HTTP/1.1\r\nHost: weir\r\nX-Actor-Id: me\r\n\r\n"), 401, "unauthenticated"),
        (request("POST", LIKE, "X-Actor-Id: 7\r\n", ""), 400, "bad-header"),
        (key(""), 400, "bad-header"),
        (key("a b"), 400, "bad-header"),
        (key(&"k".repeat(256)), 400, "bad-header"),
        (key("a\r\nIdempotency-Key: a"), 400, "bad-header"),
        (request("PATCH", LIKE, "", ""), 405, "method-not-allowed"),
        (request("TRACE", LIKE, "", ""), 405, "method-not-allowed"),
        (request("POST", LIKE, &"X-Flood: x\r\n".repeat(200), ""), 431, "too-many-headers"),
        (request("POST", LIKE, &format!("X-Flood: {}\r\n", "x".repeat(1_000_000)), ""), 431, "too-many-headers"),
        (request("POST", &format!("{LIKE}?{}", "x".repeat(9_000)), "", ""), 414, "target-too-long"),
        (request("POST", &format!("/{}", "x".repeat(70_000)), "", ""), 414, "target-too-long"),
        (request("POST", LIKE, "Expect: banana\r\n", ""), 417, "expectation-failed"),
    ] {
        let answer = ask(&host, &sent).await;
        assert_eq!(answer.problem(), (status, name.to_owned()), "{:?}", &sent[..sent.len().min(200)]);
        assert_eq!(answer.header("allow").is_some(), status == 405, "{answer:?}");
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{answer:?}");
    }
    assert_nothing_changed(&stand, &host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_hides_in_another() {
    let (stand, host) = start(|_| {}).await;
    let hidden = request("POST", LIKE, "", "");
    let length = hidden.len();
    let read = request("GET", LIKE, "", "");
    for doubtful in [
        request("POST", "/", &format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"), "0\r\n\r\n"),
        request("POST", "/", &format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"), "0\r\n\r\n"),
        request("POST", "/", &format!("Content-Length: 0\r\nContent-Length: {length}\r\n"), ""),
        request("POST", "/", "Content-Length: 0\r\nContent-Length: 0\r\n", ""),
        request("POST", "/", "Content-Length: 0, 0\r\n", ""),
        request("POST", "/", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"),
        request("POST", "/", "Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"),
        request("POST", "/", "Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        request("GET", "/", "X: a\n", ""),
        request("GET", "/", "X: a\r\n b\r\n", ""),
        request("GET", "/", "Host: other\r\n", ""),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\nHost: weir\n\n".to_owned(),
        "GET http://other/ HTTP/1.1\r\nHost: weir\r\n\r\n".to_owned(),
    ] {
        let mut raw = Raw::connect(host.public()).await;
        raw.send(&format!("{read}{doubtful}{hidden}")).await;
        assert_eq!(raw.answer().await.status, 200, "the request before it is answered");
        assert_eq!(raw.answer().await.problem().0, 400, "{doubtful:?}");
        raw.closed().await;
    }
    assert_nothing_changed(&stand, &host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_ended_and_others_served() {
    let (stand, host) = start(|config| config.http.connections_max = 40).await;
    let half_body = "Content-Type: application/json\r\nContent-Length: 10\r\n";
    let mut slow_bodies = Vec::new();
    let mut slow_heads = Vec::new();
    for _ in 0..15 {
        let mut body = Raw::connect(host.public()).await;
        body.send(&request("POST", LIKE, half_body, "{")).await;
        slow_bodies.push(body);
        let mut head = Raw::connect(host.public()).await;
        head.send(&format!("POST {LIKE} HTTP/1.1\r\nHost: weir\r\nX-Actor-Id: 7\r\nX-Slow:")).await;
        slow_heads.push(head);
    }
    let answer = ask(&host, &request("GET", LIKE, "", "")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    for mut slow in slow_bodies {
        assert_eq!(slow.answer().await.problem(), (408, "body-timeout".to_owned()));
        slow.closed().await;
    }
    for mut slow in slow_heads {
        slow.closed().await;
    }
    assert_nothing_changed(&stand, &host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_kept_through_refusals_and_pipelining() {
    let (_stand, host) = start(|_| {}).await;
    let mut raw = Raw::connect(host.public()).await;
    for (sent, status) in [
        (request("POST", "/v1/toggles/feed-like/x", "", ""), 400),
        (format!("POST {LIKE} HTTP/1.1\r\nHost: weir\r\n\r\n"), 401),
        (request("POST", "/v1/toggles/feed-like/1001", "", ""), 404),
        (request("PATCH", LIKE, "", ""), 405),
        (with_json(LIKE, "[]"), 400),
        (with_json(LIKE, "{}"), 200),
    ] {
        assert_eq!(raw.ask(&sent).await.status, status, "{sent:?}");
    }
    let of = |actor: u32| format!("POST {LIKE} HTTP/1.1\r\nHost: weir\r\nX-Actor-Id: {actor}\r\n\r\n");
    raw.send(&format!("{}{}{}", of(8), of(9), of(7))).await;
    let mut states = Vec::new();
    for _ in 0..3 {
        let body = raw.answer().await.json();
        states.push((body["liked"].as_bool().unwrap(), body["likeCount"].as_i64().unwrap()));
    }
    assert_eq!(states, [(true, 2), (true, 3), (false, 2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_answered_with_its_receipt_and_can_be_awaited() {
    let (stand, host) = start(|_| {}).await;
    let liked = ask(&host, &request("PUT", LIKE, "", "")).await;
    assert_eq!((liked.status, liked.header("weir-durability")), (200, Some("journaled")));
    let receipt = liked.header("weir-receipt").unwrap();
    let status = format!("{LIKE}/status?position={receipt}");
    let mut level = Value::Null;
    for _ in 0..PATIENCE.as_secs() {
        let answer = ask(&host, &request("GET", &status, "Prefer: wait=2\r\n", "")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        level = answer.json()["durability"].clone();
        if level == "stored" {
            break;
        }
    }
    assert_eq!(level, "stored");
    assert_eq!(stand.database.likes().await, [(3, 7)].into());
    let again = ask(&host, &request("PUT", LIKE, "", "")).await.json();
    assert_eq!((&again["liked"], &again["likeCount"]), (&json!(true), &json!(1)), "PUT is idempotent");
    for _ in 0..2 {
        let cleared = ask(&host, &request("DELETE", LIKE, "", "")).await.json();
        assert_eq!((&cleared["liked"], &cleared["likeCount"]), (&json!(false), &json!(0)), "DELETE is idempotent");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotency_key_answers_the_first_outcome_again() {
    let (_stand, host) = start(|_| {}).await;
    let keyed = |target: &str| request("POST", target, "Idempotency-Key: k-1\r\n", "");
    let first = ask(&host, &keyed(LIKE)).await;
    let second = ask(&host, &keyed(LIKE)).await;
    assert_eq!((first.status, second.status), (200, 200));
    assert_eq!(first.json()["liked"], second.json()["liked"]);
    assert_eq!((first.header("idempotency-replayed"), second.header("idempotency-replayed")), (None, Some("true")));
    let other = ask(&host, &request("PUT", LIKE, "Idempotency-Key: k-1\r\n", "")).await;
    assert_eq!(other.problem(), (422, "idempotency-conflict".to_owned()));
    let elsewhere = ask(&host, &keyed("/v1/toggles/feed-like/4")).await;
    assert_eq!((elsewhere.status, elsewhere.header("idempotency-replayed")), (200, None), "a key is the target's own");
    assert_eq!(ask(&host, &request("GET", LIKE, "", "")).await.json()["likeCount"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_says_what_is_left_and_when_to_come_back() {
    let limits = [("limit-burst", "2"), ("limit-period-ms", "600000")];
    let (_stand, host) = start(|config| {
        config.toggles[0].settings.extend(limits.map(|(name, value)| (name.to_owned(), value.to_owned())));
    })
    .await;
    for left in [1, 0] {
        let answer = ask(&host, &request("POST", LIKE, "", "")).await;
        assert_eq!(answer.header("ratelimit-policy"), Some("\"toggle\";q=2;w=600"), "{answer:?}");
        assert!(answer.header("ratelimit").unwrap().starts_with(&format!("\"toggle\";r={left};t=")), "{answer:?}");
    }
    let limited = ask(&host, &request("POST", LIKE, "", "")).await;
    assert_eq!(limited.problem(), (429, "rate-limited".to_owned()));
    let wait_s: u64 = limited.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=300).contains(&wait_s), "{wait_s}");
    assert!(limited.header("ratelimit").unwrap().starts_with("\"toggle\";r=0;t="), "{limited:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actors_are_listed_newest_first_page_by_page() {
    let (_stand, host) = start(|_| {}).await;
    let mut client = Client::new(host.public());
    for actor in 1..=5 {
        client.like(3, actor).await;
        // Of two likes in one millisecond none is newer.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (mut found, mut pages, mut next) = (Vec::new(), 0, Value::Null);
    loop {
        let before = next.as_str().map(|cursor| format!("&before={cursor}")).unwrap_or_default();
        let page = client.get(&format!("{LIKE}/actors?limit=2{before}")).await.json();
        found.extend(page["actors"].as_array().unwrap().iter().map(|member| member["actor"].as_i64().unwrap()));
        pages += 1;
        next = page["next"].clone();
        if next.is_null() {
            break;
        }
    }
    assert_eq!((found, pages), (vec![5, 4, 3, 2, 1], 3));
    let many = client.get("/v1/toggles/feed-like?targets=3,1001,4").await.json();
    let expected = json!([
        { "target": 3, "liked": false, "likeCount": 5 },
        { "target": 1001, "exists": false },
        { "target": 4, "liked": false, "likeCount": 0 },
    ]);
    assert_eq!(many["targets"], expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_good_token_names_an_actor() {
    let (stand, host) = start(|config| {
        // Configured beside tokens, but not asked for.
        assert_eq!(config.auth.trusted_header.as_deref(), Some("X-Actor-Id"));
        config.auth.jwt =
            Some(JwtConfig { algorithm: "HS256".into(), key: Some(JWT_KEY.into()), ..JwtConfig::default() });
    })
    .await;
    let with = |method: &str, token: &str| {
        format!("{method} {LIKE} HTTP/1.1\r\nHost: weir\r\nAuthorization: Bearer {token}\r\n\r\n")
    };
    for bad in [JWT_EXPIRED, JWT_ENDLESS, JWT_OTHER, JWT_UNSIGNED, "x", &"x".repeat(5_000)] {
        for method in ["POST", "GET"] {
            assert_eq!(ask(&host, &with(method, bad)).await.problem(), (401, "unauthenticated".to_owned()), "{bad}");
        }
    }
    let untrusted = ask(&host, &request("POST", LIKE, "", "")).await;
    assert_eq!(untrusted.problem().0, 401, "the trusted header alone is not enough where tokens are");
    assert_nothing_changed(&stand, &host).await;
    assert_eq!(ask(&host, &with("POST", JWT_GOOD)).await.json()["liked"], true);
    assert_eq!(ask(&host, &with("GET", JWT_GOOD)).await.json()["liked"], true);
    let anonymous = ask(&host, &format!("GET {LIKE} HTTP/1.1\r\nHost: weir\r\n\r\n")).await.json();
    assert_eq!((&anonymous["liked"], &anonymous["likeCount"]), (&json!(false), &json!(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_are_not_served_to_pages_of_others() {
    let (_stand, host) = start(|_| {}).await;
    let ask_admin = async |text: &str| Raw::connect(host.admin()).await.ask(text).await;
    let ready = ask_admin("GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &json!(true)));
    for path in ["/", "/livez", "/metrics", "/admin/v1/flush", "/admin/v1/policies", "/admin/v1/explain/feed-like/3/7"]
    {
        let answer = ask_admin(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let rebound = ask_admin(&format!("GET {path} HTTP/1.1\r\nHost: rebound.example\r\n\r\n")).await;
        assert_eq!(rebound.problem(), (403, "admin-not-from-here".to_owned()), "{path}");
    }
    let from_a_page = "Host: localhost\r\nOrigin: https://other.example\r\n";
    let answer = ask_admin(&format!("POST /admin/v1/dead-letters/1/replay HTTP/1.1\r\n{from_a_page}\r\n")).await;
    assert_eq!(answer.problem().0, 403);
}
