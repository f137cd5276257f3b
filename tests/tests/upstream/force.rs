//! No client switches off that many who ask at once are one request to the origin.

use std::time::Duration;

use weir_tests::origin::ok;

use super::{before, until};

const CROWD: usize = 30;
const FRESH: &str = "Cache-Control: max-age=60\r\nETag: \"a\"\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_fresh_is_told_to_those_who_want_it_fresher() {
    let mut at = before(ok(FRESH, "kept"), |_| {}).await;
    assert_eq!(at.get("/shop/a").await.2, "kept");
    until(&mut at, "/shop/a", "hit").await;
    for (name, value, detail) in [
        ("cache-control", "no-cache", "; detail=client-may-not-force"),
        ("cache-control", "max-age=0", "; detail=client-may-not-force"),
        ("cache-control", "min-fresh=999", "; detail=client-may-not-force"),
        ("cache-control", "no-store", ""),
        ("pragma", "no-cache", ""),
        ("if-none-match", "\"b\"", ""),
        ("if-modified-since", "Thu, 01 Jan 1970 00:00:00 GMT", ""),
        ("range", "bytes=0-1", ""),
        ("if-range", "\"b\"", ""),
    ] {
        for reply in at.crowd(CROWD, "GET", "/shop/a", &[(name, value)]).await {
            let how = reply.header("cache-status");
            assert!(how.starts_with("weir; hit; ttl=") && how.ends_with(detail), "{name}: {value}: {how}");
            assert_eq!(how.contains("detail"), !detail.is_empty(), "{how}");
        }
    }
    assert_eq!(at.crowd(CROWD, "HEAD", "/shop/a", &[]).await.len(), CROWD);
    assert_eq!(at.origin.asked(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_kept_yet_is_asked_for_once_however_it_is_asked_for() {
    let at = before(ok(FRESH, "kept"), |_| {}).await;
    at.origin.think(Duration::from_millis(200));
    let ways = [
        ("GET", "cache-control", "no-cache"),
        ("GET", "cache-control", "no-store"),
        ("GET", "cache-control", "max-age=0"),
        ("GET", "if-none-match", "\"b\""),
        ("GET", "if-match", "\"b\""),
        ("GET", "range", "bytes=0-1"),
        ("HEAD", "accept", "*/*"),
    ];
    for (place, (method, name, value)) in ways.into_iter().enumerate() {
        let path = format!("/shop/{place}");
        let headers = [(name, value)];
        let (all, plain) = tokio::join!(at.crowd(CROWD, method, &path, &headers), at.crowd(CROWD, "GET", &path, &[]));
        assert!(all.iter().chain(&plain).all(|reply| [200, 206].contains(&reply.status)), "{method} {name}: {value}");
        assert_eq!(at.origin.asked(), place as u64 + 1, "{method} {name}: {value}");
    }
    let sent = at.origin.heads().concat();
    assert!(!sent.contains("no-cache") && !sent.contains("no-store"), "a directive of one goes on for nobody: {sent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_clients_may_force_they_do_so_together() {
    let mut at = before(ok(FRESH, "kept"), |upstream| upstream.clients_may_force = true).await;
    assert_eq!(at.get("/shop/a").await.2, "kept");
    until(&mut at, "/shop/a", "hit").await;
    at.origin.say(ok("Cache-Control: max-age=60\r\nETag: \"b\"\r\n", "new"));
    at.origin.think(Duration::from_millis(300));
    let all = at.crowd(CROWD, "GET", "/shop/a", &[("cache-control", "no-cache")]).await;
    assert!(all.iter().all(|reply| reply.text() == "new"));
    assert_eq!(at.origin.asked(), 2, "one for all who forced it");
    let said = |word: &str| all.iter().filter(|reply| reply.header("cache-status").contains(word)).count();
    assert_eq!((said("weir; fwd=request; fwd-status=200; stored"), said("collapsed")), (1, CROWD - 1));
    at.origin.think(Duration::ZERO);
    let alone = at.ask("GET", "/shop/a", &[("cache-control", "max-age=0")]).await;
    assert!(alone.header("cache-status").starts_with("weir; fwd=request"), "{}", alone.header("cache-status"));
    let unkept = at.ask("GET", "/shop/b", &[("cache-control", "no-store")]).await;
    assert!(unkept.header("cache-status").ends_with("detail=request-no-store"), "{}", unkept.header("cache-status"));
    assert_eq!(at.origin.asked(), 4);
}
