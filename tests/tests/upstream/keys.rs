//! What is kept under a key is what the origin says to just the request that the key is made of.

use weir_tests::origin::{Script, answer, line, lines};

use super::before;

/// Says in which language it was asked, and lets the page that asks read it.
fn negotiated(head: &str) -> String {
    let allowed = match line(head, "origin") {
        "" => String::new(),
        origin => format!("Access-Control-Allow-Origin: {origin}\r\n"),
    };
    let headers = format!("Cache-Control: max-age=60\r\nVary: Accept-Language, Origin, Foo\r\n{allowed}");
    answer("200 OK", &headers, &format!("[{}] [{}]", line(head, "accept-language"), lines(head, "foo").join("|")))
}

/// Ten bytes, or the part of them that is asked for.
fn ten(head: &str) -> String {
    match line(head, "range") {
        "bytes=2-3" => answer("206 Partial Content", "Content-Range: bytes 2-3/10\r\n", "23"),
        _ => answer("200 OK", "Cache-Control: max-age=60\r\n", "0123456789"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_connection_names_is_neither_sent_nor_in_the_key() {
    let mut at = before(Script::With(negotiated), |_| {}).await;
    let hidden =
        [("connection", "accept-language, origin"), ("accept-language", "ko"), ("origin", "https://a.example")];
    let first = at.ask("GET", "/shop/a", &hidden).await;
    assert_eq!((first.text().as_str(), first.header("access-control-allow-origin")), ("[] []", ""));
    let plain = at.ask("GET", "/shop/a", &hidden[1..]).await;
    assert_eq!((plain.text().as_str(), plain.header("access-control-allow-origin")), ("[ko] []", "https://a.example"));
    let none = at.ask("GET", "/shop/a", &[]).await;
    assert_eq!((none.text().as_str(), at.origin.asked()), ("[] []", 2), "it is the first one's answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_alike_in_the_key_is_alike_for_the_origin() {
    let mut at = before(Script::With(negotiated), |_| {}).await;
    let mut told = async |headers: &[(&str, &str)]| at.ask("GET", "/shop/a", headers).await.text();
    assert_eq!(told(&[("foo", "1"), ("foo", "2")]).await, "[] [1, 2]", "one line");
    assert_eq!(told(&[("foo", "1, 2")]).await, "[] [1, 2]");
    assert_eq!(told(&[("foo", "1,2")]).await, "[] [1,2]", "nobody knows that it means the same");
    assert_eq!(told(&[("accept-language", "ko, en")]).await, "[ko,en] []");
    assert_eq!(told(&[("accept-language", "KO,EN")]).await, "[ko,en] []");
    assert_eq!(told(&[("accept-language", "en, ko")]).await, "[en,ko] []", "programs take the first");
    assert_eq!(at.origin.asked(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_and_a_head_are_told_of_the_whole() {
    let mut at = before(Script::With(ten), |_| {}).await;
    let part = at.ask("GET", "/shop/a", &[("range", "bytes=2-3"), ("if-none-match", "\"x\"")]).await;
    assert_eq!((part.status, part.text().as_str(), part.header("content-range")), (206, "23", "bytes 2-3/10"));
    assert_eq!(part.header("cache-status"), "weir; fwd=uri-miss; stored");
    let head = at.origin.last_head();
    assert!(lines(&head, "range").is_empty() && lines(&head, "if-none-match").is_empty(), "{head}");
    assert_eq!(at.get("/shop/a").await.2, "0123456789");
    assert_eq!(at.origin.asked(), 1);
    let head = at.ask("HEAD", "/shop/b", &[]).await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "10", 0));
    assert!(at.origin.last_head().starts_with("GET /shop/b "), "{}", at.origin.last_head());
    assert_eq!((at.get("/shop/b").await.2.as_str(), at.origin.asked()), ("0123456789", 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_what_is_too_large_to_keep_is_the_origins_to_tell() {
    let mut at = before(Script::With(ten), |upstream| upstream.limits.stored_body_bytes_max = 5).await;
    for asked in [2, 3] {
        let part = at.ask("GET", "/shop/a", &[("range", "bytes=2-3")]).await;
        assert_eq!((part.status, part.text().as_str()), (206, "23"));
        assert_eq!(line(&at.origin.last_head(), "range"), "bytes=2-3");
        assert_eq!(at.origin.asked(), asked, "the whole was tried once");
    }
}
