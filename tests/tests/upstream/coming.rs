//! Those who ask for what another is just being told are told it, too, while it comes; and no wait ends in a herd.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weir_tests::client::{Client, NoAnswer, Reply};
use weir_tests::origin::{Script, answer, line, ok, slow};

use super::{Before, before, before_with};

const CROWD: usize = 40;
const FRESH: &str = "Cache-Control: max-age=60\r\nETag: \"a\"\r\n";
/// As long as an answer is waited for, where it cannot be told while it comes: shorter than the answers here take.
const WAIT_MS: u64 = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// A host that gives up waiting soon.
async fn impatient(script: Script) -> Before {
    before_with(script, |config| config.cache.wait_ms = WAIT_MS).await
}

async fn until_asked(at: &Before, count: u64) {
    while at.origin.asked() < count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_at_a_slow_body_is_one_request() {
    let at = impatient(slow(FRESH, "0123456789", 20, PAUSE)).await;
    let whole = "0123456789".repeat(20);
    let early = at.crowd(CROWD, "GET", "/shop/a", &[]);
    let late = async {
        until_asked(&at, 1).await;
        tokio::time::sleep(PAUSE * 5).await;
        let parts = at.crowd(CROWD, "GET", "/shop/a", &[("range", "bytes=5-14")]);
        tokio::join!(
            at.crowd(CROWD, "GET", "/shop/a", &[]),
            parts,
            at.crowd(CROWD, "HEAD", "/shop/a", &[]),
            at.crowd(CROWD, "GET", "/shop/a", &[("if-none-match", "\"a\"")]),
        )
    };
    let (early, (late, parts, heads, same)) = tokio::join!(early, late);
    assert!(early.iter().chain(&late).all(|reply| reply.text() == whole));
    assert!(parts.iter().all(|part| (part.status, part.text().as_str()) == (206, "5678901234")), "{:?}", parts[0]);
    assert!(heads.iter().all(|head| head.header("content-length") == "200" && head.body.is_empty()), "{:?}", heads[0]);
    assert!(same.iter().all(|reply| reply.status == 304));
    println!("upstream slow body: readers={} origin calls={}", 5 * CROWD, at.origin.asked());
    assert_eq!(at.origin.asked(), 1);
    let stored =
        |replies: &[Reply]| replies.iter().filter(|reply| !reply.header("cache-status").contains("collapsed")).count();
    assert_eq!((stored(&early), stored(&late)), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_at_a_slow_head_is_one_request() {
    let at = impatient(ok(FRESH, "answer")).await;
    at.origin.think(Duration::from_millis(20 * WAIT_MS));
    let all = at.crowd(CROWD, "GET", "/shop/a", &[]).await;
    assert!(all.iter().all(|reply| reply.text() == "answer"));
    assert_eq!(at.origin.asked(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_made_since_they_asked_is_new_enough_for_all() {
    // Nothing says for how long it is good: who asks later validates it.
    let mut at = impatient(slow("ETag: \"a\"\r\n", "0123456789", 10, PAUSE * 3)).await;
    let all = at.crowd(CROWD, "GET", "/shop/a", &[]).await;
    assert!(all.iter().all(|reply| reply.text() == "0123456789".repeat(10)));
    assert_eq!(at.origin.asked(), 1);
    at.origin.say(Script::Say("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n".into()));
    assert_eq!(at.get("/shop/a").await.2, "0123456789".repeat(10));
    assert_eq!(at.origin.asked(), 2);
}

/// An answer that no other may be told, each another.
fn own(_: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::SeqCst);
    answer("200 OK", "Cache-Control: no-store\r\n", &number.to_string())
}

/// The same, told to whom it is for.
fn personal(head: &str) -> String {
    answer("200 OK", "Cache-Control: private, max-age=60\r\n", &format!("of {}", line(head, "cookie")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_for_one_is_asked_for_by_each_and_not_by_all_at_once() {
    let at = impatient(Script::With(own)).await;
    at.origin.think(Duration::from_millis(200));
    let all = at.crowd(CROWD, "GET", "/shop/a", &[]).await;
    let mut told: Vec<String> = all.iter().map(Reply::text).collect();
    told.sort();
    told.dedup();
    assert_eq!(told.len(), CROWD, "nobody is told what another was");
    println!(
        "upstream not to be kept: readers={CROWD} origin calls={} at once={}",
        at.origin.asked(),
        at.origin.peak()
    );
    assert_eq!(at.origin.asked(), CROWD as u64);
    assert!(at.origin.peak() <= 30, "{} at once: they go a few at a time", at.origin.peak());

    let at = impatient(Script::With(personal)).await;
    at.origin.think(Duration::from_millis(200));
    let address = at.host.public();
    let one = |number: usize| async move {
        let cookie = format!("s={number}");
        let reply = Client::new(address).request("GET", "/shop/me", &[("cookie", &cookie)], "").await.unwrap();
        assert_eq!(reply.text(), format!("of {cookie}"));
    };
    futures_util::future::join_all((0..CROWD).map(one)).await;
    assert_eq!(at.origin.asked(), CROWD as u64);
}

/// Answers of which each language has its own, slowly enough that all wait.
fn negotiated(head: &str) -> String {
    let headers = "Cache-Control: max-age=60\r\nVary: Accept-Language\r\n";
    answer("200 OK", headers, line(head, "accept-language"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_variant_is_one_request() {
    let at = impatient(Script::With(negotiated)).await;
    at.origin.think(Duration::from_millis(5 * WAIT_MS));
    let (german, french) = tokio::join!(
        at.crowd(CROWD, "GET", "/shop/a", &[("accept-language", "de")]),
        at.crowd(CROWD, "GET", "/shop/a", &[("accept-language", "fr")]),
    );
    assert!(german.iter().all(|reply| reply.text() == "de") && french.iter().all(|reply| reply.text() == "fr"));
    assert_eq!(at.origin.asked(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cut_short_is_whole_for_nobody() {
    let mut at = impatient(slow(FRESH, "0123456789", 10, PAUSE)).await;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n{FRESH}\r\nhalf");
    // Long enough for all to have asked.
    at.origin.think(PAUSE * 20);
    at.origin.say(Script::SayAndCut(head));
    let address = at.host.public();
    let one = |_| async move { Client::new(address).request("GET", "/shop/cut", &[], "").await };
    let all: Vec<Result<Reply, NoAnswer>> = futures_util::future::join_all((0..CROWD).map(one)).await;
    // Who had been told nothing yet may hear of it in words.
    let is_told = |reply: &Result<Reply, NoAnswer>| {
        reply.as_ref().is_err() || reply.as_ref().is_ok_and(|reply| reply.status == 502)
    };
    assert!(all.iter().all(is_told), "an answer that was cut short must not look whole: {all:?}");
    at.origin.think(Duration::ZERO);
    assert_eq!(at.origin.asked(), 1);
    at.origin.say(ok(FRESH, "whole"));
    assert_eq!(at.get("/shop/cut").await.2, "whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_invalidated_while_it_comes_is_told_to_nobody_who_asks_later() {
    let mut at = impatient(slow(FRESH, "0123456789", 20, PAUSE)).await;
    let address = at.host.public();
    let first = tokio::spawn(async move { Client::new(address).get("/shop/a").await });
    until_asked(&at, 1).await;
    tokio::time::sleep(PAUSE * 3).await;
    at.origin.say(ok(FRESH, "new"));
    assert_eq!(at.ask("POST", "/shop/a", &[]).await.status, 200);
    let later = at.crowd(CROWD, "GET", "/shop/a", &[]).await;
    assert!(later.iter().all(|reply| reply.text() == "new"));
    assert_eq!(at.origin.asked(), 3, "the slow one, the POST, one for all later ones");
    assert_eq!(first.await.unwrap().text(), "0123456789".repeat(20), "who asked before is told it to its end");
    assert_eq!(at.get("/shop/a").await.2, "new");
    assert_eq!(at.origin.asked(), 3, "and it does not take the place of what is newer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_at_what_grows_too_large_is_told_it_by_one_request() {
    let at = before_with(slow("", "", 0, PAUSE), |config| {
        config.cache.wait_ms = WAIT_MS;
        config.upstreams[0].limits.stored_body_bytes_max = 10_000;
    })
    .await;
    // Without a length: that it is too large is found out when all are being told it.
    let piece = "x".repeat(4_000);
    let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{FRESH}\r\n");
    let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
    let pieces = [head].into_iter().chain(std::iter::repeat_n(chunk, 20)).chain(["0\r\n\r\n".to_owned()]);
    at.origin.say(Script::Slow(pieces.collect(), Duration::from_millis(20)));
    let all = at.crowd(CROWD, "GET", "/shop/large", &[]).await;
    assert!(all.iter().all(|reply| reply.body.len() == 20 * piece.len()));
    assert_eq!(at.origin.asked(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_at_an_origin_in_trouble_is_no_herd() {
    let at = before(Script::Say("HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n".into()), |_| {}).await;
    at.origin.think(Duration::from_millis(100));
    let all = at.crowd(CROWD, "GET", "/shop/a", &[]).await;
    assert!(all.iter().all(|reply| reply.status == 503));
    assert!(at.origin.peak() <= 30, "{} at once: they go a few at a time", at.origin.peak());
}
