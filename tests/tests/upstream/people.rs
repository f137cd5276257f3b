//! What is for one person is told to nobody else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weir_tests::origin::{Script, answer, line, ok};

use super::{before, until};

/// A page that says for whom it is, with a lifetime and nothing else.
fn page(head: &str) -> String {
    let who = ["cookie", "authorization", "x-api-key", "x-actor-id"].map(|name| line(head, name)).concat();
    answer("200 OK", "Cache-Control: max-age=60\r\n", &format!("page of {who}"))
}

/// The same, that an origin calls public.
fn public_page(head: &str) -> String {
    page(head).replace("max-age", "public, max-age")
}

/// An answer with a cookie of its own, in spite of all that says that it may be kept.
fn with_cookie(_: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::SeqCst);
    answer("200 OK", &format!("Cache-Control: public, s-maxage=60\r\nSet-Cookie: s={number}\r\n"), "body")
}

/// An answer for one, each another.
fn private(_: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::SeqCst);
    answer("200 OK", "Cache-Control: private, max-age=60\r\n", &number.to_string())
}

/// Stale at once; validated with a cookie.
fn validated_with_a_cookie(head: &str) -> String {
    let headers = "Cache-Control: max-age=0\r\nETag: \"a\"\r\n";
    match line(head, "if-none-match") {
        "" => answer("200 OK", headers, "kept"),
        _ => format!("HTTP/1.1 304 Not Modified\r\n{headers}Set-Cookie: s=of-one\r\n\r\n"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_one_person_is_told_to_nobody_else() {
    let mut at = before(Script::With(page), |_| {}).await;
    for name in ["cookie", "authorization", "x-api-key", "x-actor-id"] {
        let path = format!("/shop/{name}");
        for who in ["7", "8"] {
            let own = at.ask("GET", &path, &[(name, who)]).await;
            assert_eq!(own.text(), format!("page of {who}"), "{name}");
            let why = if name == "cookie" { "detail=cookie" } else { "detail=authorization" };
            assert!(own.header("cache-status").ends_with(why), "{name}: {}", own.header("cache-status"));
        }
        assert_eq!(at.get(&path).await.2, "page of ", "{name}: and nobody is told a person's");
        let kept = at.get(&path).await;
        assert!(kept.1.starts_with("weir; hit"), "{name}: what is for nobody is kept: {}", kept.1);
    }
    at.origin.say(Script::With(public_page));
    assert_eq!(at.ask("GET", "/shop/all", &[("cookie", "7")]).await.text(), "page of 7");
    assert_eq!(at.ask("GET", "/shop/all", &[("cookie", "8")]).await.text(), "page of 7", "the origin says: for all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cookie_is_told_once() {
    let mut at = before(Script::With(with_cookie), |_| {}).await;
    let mut told = Vec::new();
    for _ in 0..3 {
        let reply = at.ask("GET", "/shop/a", &[]).await;
        assert_eq!(reply.header("cache-status").rsplit('=').next(), Some("set-cookie"));
        told.push(reply.header("set-cookie").to_owned());
    }
    // Also where many wait for the answer to one.
    at.origin.think(Duration::from_millis(200));
    for reply in at.crowd(20, "GET", "/shop/b", &[]).await {
        told.push(reply.header("set-cookie").to_owned());
    }
    at.origin.think(Duration::ZERO);
    let all = told.len();
    assert!(told.iter().all(|cookie| cookie.starts_with("s=")), "{told:?}");
    told.sort();
    told.dedup();
    assert_eq!(told.len(), all, "each was told to one");
    // And where it comes with the word that what is kept is still so.
    at.origin.say(Script::With(validated_with_a_cookie));
    assert_eq!(at.get("/shop/c").await.2, "kept");
    let validated = at.ask("GET", "/shop/c", &[]).await;
    assert_eq!((validated.text().as_str(), validated.header("set-cookie")), ("kept", "s=of-one"));
    at.origin.say(Script::Cut);
    assert_ne!(at.get("/shop/c").await.0, 200, "it is gone, also where the origin fails");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waited_for_an_answer_that_is_for_one_asks_for_his_own() {
    let at = before(Script::With(private), |_| {}).await;
    at.origin.think(Duration::from_millis(200));
    let mut told: Vec<String> = at.crowd(20, "GET", "/shop/a", &[]).await.iter().map(super::Reply::text).collect();
    told.sort();
    told.dedup();
    assert_eq!((told.len(), at.origin.asked()), (20, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_says_who_he_is_does_not_read_for_the_others() {
    let at = before(Script::With(page), |_| {}).await;
    at.origin.think(Duration::from_millis(300));
    let (own, others) =
        tokio::join!(at.crowd(10, "GET", "/shop/a", &[("cookie", "7")]), at.crowd(30, "GET", "/shop/a", &[]));
    assert!(
        own.iter().all(|reply| reply.text() == "page of 7") && others.iter().all(|reply| reply.text() == "page of ")
    );
    assert_eq!(at.origin.asked(), 11, "one for all who say nothing, however many say something");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_guessed_is_not_told_to_somebody() {
    let old = "Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n";
    let mut at = before(ok(old, "of nobody"), |_| {}).await;
    assert_eq!(at.get("/shop/a").await.2, "of nobody");
    assert!(until(&mut at, "/shop/a", "hit").await.contains("ttl="));
    at.origin.say(ok(old, "of 7"));
    for _ in 0..2 {
        let own = at.ask("GET", "/shop/a", &[("cookie", "7")]).await;
        assert_eq!(own.text(), "of 7");
        assert!(own.header("cache-status").ends_with("detail=cookie"), "{}", own.header("cache-status"));
    }
    assert_eq!(at.get("/shop/a").await.2, "of nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_may_let_more_be_kept_but_no_cookie() {
    let mut at = before(Script::With(with_cookie), |upstream| {
        upstream.keep_asked_with_cookie = true;
        upstream.keep_set_cookie = true;
    })
    .await;
    let first = at.ask("GET", "/shop/a", &[("cookie", "7")]).await;
    assert!(first.header("set-cookie").starts_with("s=") && first.header("cache-status").ends_with("stored"));
    assert!(until(&mut at, "/shop/a", "hit").await.starts_with("weir; hit"));
    let second = at.ask("GET", "/shop/a", &[("cookie", "8")]).await;
    assert_eq!((second.text().as_str(), second.header("set-cookie"), at.origin.asked()), ("body", "", 1));
    at.origin.say(Script::With(page));
    assert_eq!(at.ask("GET", "/shop/b", &[("cookie", "7")]).await.text(), "page of 7");
    assert_eq!(at.ask("GET", "/shop/b", &[("cookie", "8")]).await.text(), "page of 7");
    assert_eq!(at.ask("GET", "/shop/b", &[("cookie", "8"), ("x-api-key", "8")]).await.text(), "page of 7");
    assert_eq!(at.ask("GET", "/shop/c", &[("authorization", "7")]).await.text(), "page of 7");
    assert_eq!(at.ask("GET", "/shop/c", &[("authorization", "8")]).await.text(), "page of 8");
}
