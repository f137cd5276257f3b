//! A host as a reverse proxy before a real origin that answers well and badly. What is correct by RFC 9111 is proved by
//! the public suite (`tests/http-cache/run`); here is what that suite does not ask.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tempfile::TempDir;
use weir::config::{Config, Staleness, UpstreamConfig};
use weir_tests::client::{Client, Reply};
use weir_tests::guest::{keeps_for, keeps_nothing};
use weir_tests::kinds;
use weir_tests::operator::Operator;
use weir_tests::origin::{Origin, Script, ok};
use weir_tests::services::{Host, HostConfig, temporary_directory};

#[path = "upstream/coming.rs"]
mod coming;
#[path = "upstream/force.rs"]
mod force;
#[path = "upstream/keys.rs"]
mod keys;
#[path = "upstream/people.rs"]
mod people;
#[path = "upstream/trust.rs"]
mod trust;
#[path = "upstream/wire.rs"]
mod wire;

struct Before {
    origin: Origin,
    host: Host,
    client: Client,
    _directory: TempDir,
}

/// A host before an origin.
async fn before(script: Script, change: impl FnOnce(&mut UpstreamConfig)) -> Before {
    before_with(script, |config| change(&mut config.upstreams[0])).await
}

/// The same, with other settings of the host, too.
async fn before_with(script: Script, change: impl FnOnce(&mut Config)) -> Before {
    let origin = Origin::start(script).await;
    let directory = temporary_directory("upstream");
    let upstream = UpstreamConfig::new("shop", "/shop/", &format!("http://{}", origin.address));
    // Nothing but the proxy.
    let without = kinds::config(directory.path(), &kinds::sqlite_in(directory.path()), &[]);
    let mut config = Config { upstreams: vec![upstream], ..without };
    change(&mut config);
    let host = Host::start(HostConfig::of(&config), directory.path());
    let client = Client::new(host.public());
    Before { origin, host, client, _directory: directory }
}

impl Before {
    async fn get(&mut self, path: &str) -> (u16, String, String) {
        let reply = self.client.get(path).await;
        (reply.status, reply.header("cache-status").to_owned(), reply.text())
    }

    async fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.client.request(method, path, headers, "").await.unwrap()
    }

    /// So many at once, each on a connection of its own.
    async fn crowd(&self, size: usize, method: &str, path: &str, headers: &[(&str, &str)]) -> Vec<Reply> {
        let address = self.host.public();
        let one = |_| async move { Client::new(address).request(method, path, headers, "").await.unwrap() };
        join_all((0..size).map(one)).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_kept_told_and_invalidated() {
    let mut at = before(ok("Cache-Control: max-age=60\r\nETag: \"a\"\r\n", "one"), |_| {}).await;
    let first = at.get("/shop/items/1").await;
    assert_eq!((first.0, first.2.as_str()), (200, "one"));
    assert!(first.1.starts_with("weir; fwd=uri-miss; fwd-status=200; stored"), "{}", first.1);
    assert!(at.origin.last_head().contains("GET /shop/items/1 HTTP/1.1"), "{}", at.origin.last_head());
    at.origin.say(ok("Cache-Control: max-age=60\r\n", "two"));
    let second = at.get("/shop/items/1").await;
    assert_eq!((second.2.as_str(), at.origin.asked()), ("one", 1));
    assert!(second.1.starts_with("weir; hit; ttl="), "{}", second.1);
    let same = at.client.request("GET", "/shop/items/1", &[("if-none-match", "\"a\"")], "").await.unwrap();
    assert_eq!((same.status, same.body.len(), at.origin.asked()), (304, 0, 1));
    let part = at.client.request("GET", "/shop/items/1", &[("range", "bytes=1-")], "").await.unwrap();
    assert_eq!((part.status, part.text().as_str(), part.header("content-range")), (206, "ne", "bytes 1-2/3"));
    assert_eq!(at.client.request("POST", "/shop/items/1", &[], "").await.unwrap().status, 200);
    assert_eq!(at.get("/shop/items/1").await.2, "two", "an unsafe request invalidates");

    // By operators: a group of the answer, hard; the key, soft.
    at.origin.say(ok("Cache-Control: max-age=60\r\nCache-Groups: \"fruit\"\r\n", "three"));
    assert_eq!(at.get("/shop/items/2").await.2, "three");
    at.origin.say(ok("Cache-Control: max-age=60, stale-while-revalidate=60\r\n", "four"));
    let mut admin = Client::new(at.host.admin());
    let purge = |query: &str| format!("/admin/v1/cache/purge?{query}");
    assert_eq!(admin.request("POST", &purge("group=group:shop:fruit"), &[], "").await.unwrap().status, 200);
    assert_eq!(at.get("/shop/items/2").await.2, "four");
    at.origin.say(ok("Cache-Control: max-age=60\r\n", "five"));
    let soft = purge("prefix=shop:/shop/items/&mode=soft");
    assert_eq!(admin.request("POST", &soft, &[], "").await.unwrap().status, 200);
    let stale = at.get("/shop/items/2").await;
    assert_eq!(stale.2, "four");
    assert!(stale.1.ends_with("detail=stale-while-revalidate"), "{}", stale.1);
    while at.get("/shop/items/2").await.2 != "five" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_at_once_are_one_request() {
    let mut at = before(ok("Cache-Control: max-age=60\r\n", "answer"), |_| {}).await;
    at.origin.think(Duration::from_millis(300));
    let address = at.host.public();
    let readers = (0..1_000).map(|_| async move {
        let mut client = Client::new(address);
        for _ in 0..10 {
            assert_eq!(client.get("/shop/hot").await.text(), "answer");
        }
    });
    join_all(readers).await;
    println!("upstream stampede: readers=1000 requests=10000 origin calls={}", at.origin.asked());
    assert_eq!(at.origin.asked(), 1);
    assert_eq!(at.get("/livez-of-nobody").await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_origin_is_answered_for_and_nothing_half_is_kept() {
    let fresh = "Cache-Control: max-age=60\r\n";
    let mut at = before(Script::Cut, |upstream| {
        upstream.limits.head_timeout_ms = 500;
        upstream.limits.body_idle_timeout_ms = 500;
    })
    .await;
    let problem = |reply: &(u16, String, String)| {
        let body: serde_json::Value = serde_json::from_str(&reply.2).unwrap();
        (reply.0, body["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned())
    };
    let cut = at.get("/shop/cut").await;
    assert_eq!(problem(&cut), (502, "origin-broken".into()));
    assert_eq!(cut.1, "weir; fwd=uri-miss; detail=origin-broken");
    at.origin.say(Script::Silent(Duration::from_secs(5)));
    let silent = at.get("/shop/silent").await;
    assert_eq!(problem(&silent), (504, "origin-late".into()));
    assert_eq!(silent.1, "weir; fwd=uri-miss; detail=origin-late");
    let kept = at.client.request("GET", "/shop/silent", &[("cache-control", "only-if-cached")], "").await.unwrap();
    assert_eq!((kept.status, kept.header("cache-status")), (504, "weir; detail=not-kept"));
    at.origin.say(Script::Say(format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(10 << 20))));
    assert_eq!(problem(&at.get("/shop/head").await), (502, "origin-broken".into()));
    at.origin.say(Script::Say("ICMP/1.1 what\r\n\r\n".into()));
    assert_eq!(problem(&at.get("/shop/nonsense").await), (502, "origin-broken".into()));

    // Half a body, by length and by chunks, and a body that stands still.
    for (path, script) in [
        ("/shop/half", Script::SayAndCut(format!("HTTP/1.1 200 OK\r\n{fresh}Content-Length: 100\r\n\r\nhalf"))),
        (
            "/shop/chunk",
            Script::SayAndCut(format!("HTTP/1.1 200 OK\r\n{fresh}Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")),
        ),
        ("/shop/still", Script::Say(format!("HTTP/1.1 200 OK\r\n{fresh}Content-Length: 100\r\n\r\nhalf"))),
    ] {
        at.origin.say(script);
        let cut = Client::new(at.host.public()).request("GET", path, &[], "").await;
        assert!(cut.is_err(), "{path}: an answer that was cut short must not look whole: {cut:?}");
        at.origin.say(ok(fresh, "whole"));
        assert_eq!(at.get(path).await.2, "whole", "{path}");
        assert_eq!(at.get(path).await.2, "whole", "{path}");
    }

    // A length that is too small: the rest belongs to nobody.
    at.origin.say(Script::Say(format!("HTTP/1.1 200 OK\r\n{fresh}Content-Length: 4\r\n\r\nonlymore")));
    assert_eq!(at.get("/shop/short").await.2, "only");
    at.origin.say(ok(fresh, "whole"));
    assert_eq!(at.get("/shop/after").await.2, "whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stale_is_told_when_the_origin_fails() {
    let mut at = before(ok("Cache-Control: max-age=1, stale-if-error=60\r\n", "kept"), |_| {}).await;
    assert_eq!(at.get("/shop/a").await.2, "kept");
    at.origin.say(ok("Cache-Control: max-age=1, must-revalidate\r\n", "strict"));
    assert_eq!(at.get("/shop/b").await.2, "strict");
    while !at.get("/shop/a").await.1.contains("fwd=stale") {
        at.origin.say(ok("Cache-Control: max-age=1, stale-if-error=60\r\n", "kept"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for failure in [Script::Cut, Script::Say("HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n".into())] {
        at.origin.say(failure);
        let told = at.get("/shop/a").await;
        assert_eq!((told.0, told.2.as_str()), (200, "kept"));
        assert!(told.1.ends_with("detail=origin-failed") && told.1.contains("ttl=-"), "{}", told.1);
        assert_ne!(at.get("/shop/b").await.0, 200, "must-revalidate");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_bounded_and_large_ones_pass() {
    let large = "x".repeat(3 << 20);
    let mut at = before(ok("Cache-Control: max-age=60\r\n", &large), |upstream| {
        upstream.limits.stored_body_bytes_max = 1 << 20;
        upstream.limits.request_body_bytes_max = 1 << 10;
    })
    .await;
    for _ in 0..2 {
        let passed = at.get("/shop/large").await;
        assert_eq!(passed.2.len(), large.len());
        assert!(passed.1.contains("detail=too-large"), "{}", passed.1);
    }
    // Without a length it is found out on the way.
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n",
        large.len()
    );
    at.origin.say(Script::Say(chunked));
    let asked = at.origin.asked();
    for _ in 0..2 {
        assert_eq!(at.get("/shop/chunked").await.2.len(), large.len());
    }
    assert_eq!(at.origin.asked(), asked + 2, "it is not kept");
    let sent = Client::new(at.host.public()).request("POST", "/shop/x", &[], &"y".repeat(2 << 10)).await.unwrap();
    assert_eq!(sent.status, 413);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_actor_is_told_is_not_told_to_another() {
    let mut at = before(ok("Cache-Control: max-age=60\r\n", "of 7"), |_| {}).await;
    let mut get = async |path: &str, actor: &str| {
        let reply = at.client.request("GET", path, &[("x-actor-id", actor)], "").await.unwrap();
        (reply.text(), reply.header("cache-status").to_owned())
    };
    let first = get("/shop/me", "7").await;
    assert_eq!(first.0, "of 7");
    assert!(first.1.ends_with("detail=authorization"), "{}", first.1);
    at.origin.say(ok("Cache-Control: max-age=60\r\n", "of 8"));
    assert_eq!(get("/shop/me", "8").await.0, "of 8");
    at.origin.say(ok("Cache-Control: public, max-age=60\r\n", "of all"));
    assert_eq!(get("/shop/all", "7").await.0, "of all");
    at.origin.say(ok("Cache-Control: public, max-age=60\r\n", "never asked for"));
    assert_eq!(get("/shop/all", "8").await.0, "of all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_cannot_be_left() {
    let mut at = before(ok("Cache-Control: max-age=60\r\n", "secret"), |_| {}).await;
    for path in ["/shop/../secret", "/shop/%2e%2e/secret", "/shop/.%2E/secret", "/shop/a/./b", "/shop/..%2fsecret"] {
        let told = at.get(path).await;
        assert_eq!(told.0, 400, "{path}");
        assert!(told.2.contains("urn:weir:problem:dot-segment"), "{path}: {}", told.2);
    }
    assert_eq!(at.origin.asked(), 0);
    assert_eq!(at.get("/shop/.well-known/x?a=/../b").await.0, 200, "a query is not a path");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_of_what_cannot_be_kept_is_refused() {
    let mut at = before(ok("Cache-Control: max-age=60\r\nVary: Accept-Language\r\n", "one"), |_| {}).await;
    let mut admin = Client::new(at.host.admin());
    let mut purge = async |query: &str| {
        admin.request("POST", &format!("/admin/v1/cache/purge?{query}"), &[], "").await.unwrap().status
    };
    for (query, status) in [
        ("all=0", 400),
        ("all=", 400),
        ("prefix=", 400),
        ("key=shop:/items", 404),
        ("key=upstream:shop:/shop/items", 404),
        ("key=read:nothing", 404),
        ("prefix=/shop/", 404),
        ("group=shop", 404),
        ("group=upstream:other", 404),
        ("group=group:other:fruit", 404),
        ("group=upstream:shop", 200),
        ("group=group:shop:fruit", 200),
        ("group=table:seat", 200),
        ("prefix=shop:", 200),
        ("key=shop:/shop/items%3Fa=1", 200),
    ] {
        assert_eq!(purge(query).await, status, "{query}");
    }
    let mut get = async |language: &str| {
        at.client.request("GET", "/shop/a", &[("accept-language", language)], "").await.unwrap().text()
    };
    assert_eq!([get("de").await, get("en").await], ["one", "one"]);
    at.origin.say(ok("Cache-Control: max-age=60\r\nVary: Accept-Language\r\n", "two"));
    assert_eq!(purge("key=shop:/shop/a").await, 200);
    assert_eq!([get("de").await, get("en").await], ["two", "two"], "a key is that of all variants");
    // Soft, of everything: it is told once more.
    assert_eq!(purge("all=1&mode=soft").await, 200);
    at.origin.say(ok("Cache-Control: max-age=60\r\nVary: Accept-Language\r\n", "three"));
    assert_eq!(get("de").await, "two");
}

/// Asks until `Cache-Status` says so; every answer must be 200.
async fn until(at: &mut Before, path: &str, word: &str) -> String {
    let begun = Instant::now();
    loop {
        let (status, how, _) = at.get(path).await;
        assert_eq!(status, 200, "{how}");
        if how.contains(word) {
            return how;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{how} is not {word}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_tightens_what_an_origin_allows() {
    let mut at = before(ok("Cache-Control: max-age=600\r\nETag: \"a\"\r\n", "one"), |_| {}).await;
    assert_eq!(at.get("/shop/a").await.0, 200);
    // "collapsed": who is told a body while it is being kept may ask again before it is.
    let kept = at.get("/shop/a").await.1;
    assert!(kept.starts_with("weir; hit; ttl=599"), "the built-in rule leaves that to the origin: {kept}");
    let mut operator = Operator::new(at.host.admin());
    let pushed = operator.try_push(&keeps_for(5_000), "five", true).await.unwrap();
    assert!([200, 201].contains(&pushed.status), "{} {}", pushed.status, pushed.text());
    until(&mut at, "/shop/a", "hit; ttl=4").await;
    assert!([200, 201].contains(&operator.try_push(&keeps_nothing("not-now"), "nothing", true).await.unwrap().status));
    assert_eq!(until(&mut at, "/shop/a", "bypass").await, "weir; fwd=bypass; detail=rule-not-now");
    let asked = at.origin.asked();
    assert_eq!(at.client.request("GET", "/shop/a", &[("range", "bytes=0-0")], "").await.unwrap().status, 200);
    assert_eq!(at.origin.asked(), asked + 1, "also a part is the origin's to tell");
    let state = Client::new(at.host.admin()).get("/admin/v1/cache").await.json();
    assert_eq!(state["upstreams"][0]["rule"], "bypass: not-now");
    // A rule cannot keep what the origin forbids to keep.
    at.origin.say(ok("Cache-Control: no-store\r\n", "two"));
    assert!([200, 201].contains(&operator.try_push(&keeps_for(6_000), "six", true).await.unwrap().status));
    until(&mut at, "/shop/b", "detail=no-store").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_loosens_what_an_origin_forbids_where_the_operator_says_so() {
    let never = "Cache-Control: no-cache, no-store, max-age=0, must-revalidate\r\nExpires: 0\r\n";
    let mut at = before(ok(never, "one"), |upstream| {
        upstream.class = Some(Staleness::Minutes);
        upstream.may_loosen = true;
    })
    .await;
    assert_eq!(at.get("/shop/a").await.1, "weir; fwd=uri-miss; fwd-status=200; stored");
    let hit = at.get("/shop/a").await;
    assert!(hit.1.starts_with("weir; hit; ttl=59"), "the built-in rule keeps minutes for one: {}", hit.1);
    assert_eq!(hit.2, "one");
    at.origin.say(ok(never, "of one client"));
    for personal in ["cookie", "authorization"] {
        let own = at.client.request("GET", "/shop/a", &[(personal, "session=1")], "").await.unwrap();
        assert_eq!(own.text(), "of one client", "{personal}");
        assert_eq!(own.header("cache-status"), "weir; fwd=request; fwd-status=200; detail=no-store");
    }
    assert_eq!(at.get("/shop/a").await.2, "one", "and what all may see is still kept");
    at.origin.say(ok("Cache-Control: private, max-age=60\r\n", "private"));
    assert!(at.get("/shop/b").await.1.ends_with("detail=private"));
    at.origin.say(ok("Cache-Control: no-store\r\nSet-Cookie: a=b\r\n", "cookie"));
    assert!(at.get("/shop/c").await.1.ends_with("detail=no-store"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_upstream_is_never_kept_and_only_reads_are_measured() {
    let live = |upstream: &mut UpstreamConfig| upstream.class = Some(Staleness::Live);
    let mut at = before(ok("Cache-Control: max-age=600\r\n", "one"), live).await;
    for _ in 0..2 {
        assert_eq!(at.get("/shop/a").await.1, "weir; fwd=bypass; detail=live");
    }
    assert_eq!(at.client.request("POST", "/shop/a", &[], "").await.unwrap().status, 200);
    assert_eq!(at.get("/shop/%2e%2e/a").await.0, 400);
    let state = Client::new(at.host.admin()).get("/admin/v1/cache").await.json();
    let upstream = &state["upstreams"][0];
    assert_eq!((&upstream["requests"], &upstream["failed"], &upstream["entries"]), (&2.into(), &0.into(), &0.into()));
    assert_eq!(at.origin.asked(), 3);
}
