//! What an origin and a client say on the wire besides the usual: interim answers, lengths that contradict each other, bodies
//! where none is expected, streams without an end, requests that go round in a circle.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weir_tests::origin::{Script, answer, line, lines, ok};

use super::{Before, before};

const FRESH: &str = "Cache-Control: max-age=60\r\n";
/// Decides only when a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// All that comes for a request on a connection of its own, which ends it.
async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("an end").unwrap();
    String::from_utf8_lossy(&all).into_owned()
}

async fn get(at: &Before, path: &str) -> String {
    raw(at.host.public(), &format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await
}

/// The last part of the type of a problem.
fn problem(answer: &str) -> &str {
    let begin = answer.find("urn:weir:problem:").unwrap_or_else(|| panic!("no problem: {answer}"));
    answer[begin..].split('"').next().unwrap().rsplit(':').next().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_origin_says_before_its_answer_is_passed_on() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x\r\nX: of one hop\r\n\r\n";
    let whole = format!("HTTP/1.1 200 OK\r\n{FRESH}Content-Length: 5\r\n\r\nwhole");
    let said = [hints, "HTTP/1.1 102 Processing\r\n\r\n", &whole].map(str::to_owned);
    let at = before(Script::Slow(said.to_vec(), Duration::from_millis(50)), |_| {}).await;
    let first = get(&at, "/shop/a").await;
    let expected =
        "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK";
    assert!(first.starts_with(expected), "{first}");
    assert!(first.ends_with("\r\n\r\nwhole") && first.contains("; stored"), "{first}");
    let second = get(&at, "/shop/a").await;
    assert!(second.starts_with("HTTP/1.1 200 OK\r\n") && second.ends_with("whole"), "a hint is not kept: {second}");
    assert!(second.contains("weir; hit"), "{second}");
    let old = raw(at.host.public(), "GET /shop/old HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 OK\r\n"), "HTTP/1.0 knows no hints: {old}");
    // Behind an answer on the same connection, and with a body.
    let two = "GET /shop/a HTTP/1.1\r\nHost: a\r\n\r\n\
               POST /shop/b HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let two = raw(at.host.public(), two).await;
    let (kept, passed) = two.split_once("\r\n\r\nwhole").unwrap();
    assert!(kept.starts_with("HTTP/1.1 200 OK\r\n"), "{two}");
    assert!(passed.starts_with(expected) && passed.ends_with("whole"), "{two}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_contradicts_itself_is_told_whole_or_not_at_all() {
    let say = |text: String| Script::Say(text);
    let at = before(ok(FRESH, "sound"), |_| {}).await;
    let chunks = "5\r\nwhole\r\n6\r\n of it\r\n0\r\n\r\n";
    for control in [FRESH, "Cache-Control: no-store\r\n"] {
        at.origin.say(say(format!(
            "HTTP/1.1 200 OK\r\n{control}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
        )));
        for _ in 0..2 {
            let path = format!("/shop/both{}", control.len());
            let mut reply = weir_tests::client::Client::new(at.host.public());
            assert_eq!(reply.get(&path).await.text(), "whole of it", "{control}");
        }
        let path = format!("/shop/three{}", control.len());
        at.origin.say(say(format!("HTTP/1.1 200 OK\r\n{control}Content-Length: 5\r\nContent-Length: 5\r\n\r\nthree")));
        let told = get(&at, &path).await;
        assert!(told.ends_with("three") && told.matches("content-length").count() == 1, "{told}");
        for (name, broken) in [
            ("gzip", format!("HTTP/1.1 200 OK\r\n{control}Transfer-Encoding: gzip, chunked\r\n\r\n{chunks}")),
            (
                "switch",
                format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n{control}\r\n"),
            ),
            ("two", format!("HTTP/1.1 200 OK\r\n{control}Content-Length: 3\r\nContent-Length: 4\r\n\r\nfour")),
        ] {
            at.origin.say(say(broken));
            let told = get(&at, &format!("/shop/{name}{}", control.len())).await;
            assert!(told.starts_with("HTTP/1.1 502 ") && problem(&told) == "origin-broken", "{name}: {told}");
        }
        at.origin.say(say(format!("HTTP/1.1 204 No Content\r\n{control}Content-Length: 5\r\n\r\nwhole")));
        let none = get(&at, &format!("/shop/none{}", control.len())).await;
        assert!(none.starts_with("HTTP/1.1 204 ") && !none.contains("content-length"), "{none}");
        assert!(none.ends_with("\r\n\r\n"), "{none}");
        at.origin.say(ok(control, "sound"));
        assert!(get(&at, &format!("/shop/after{}", control.len())).await.ends_with("sound"));
    }
}

/// An origin that takes one request with its body, to the end of the chunks, and says how it looked.
async fn reader() -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let read = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut all = Vec::new();
        while !(all.ends_with(b"0\r\n\r\n") || all.ends_with(b"known")) {
            assert_ne!(stream.read_buf(&mut all).await.unwrap(), 0, "{}", String::from_utf8_lossy(&all));
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nread").await.unwrap();
        String::from_utf8(all).unwrap()
    });
    (address, read)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_stays_with_its_request_whatever_the_method() {
    for method in ["GET", "HEAD", "DELETE", "POST", "SEARCH"] {
        for (framing, body) in
            [("Transfer-Encoding: chunked", "4\r\nthis\r\n0\r\n\r\n"), ("Content-Length: 5", "known")]
        {
            let (address, read) = reader().await;
            let at = before(Script::Cut, |upstream| upstream.origin = format!("http://{address}")).await;
            let request =
                format!("{method} /shop/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{framing}\r\n\r\n{body}");
            let told = raw(at.host.public(), &request).await;
            assert!(told.starts_with("HTTP/1.1 200 OK\r\n"), "{method} {framing}: {told}");
            let got = tokio::time::timeout(PATIENCE, read).await.expect("it is read").unwrap();
            assert!(got.ends_with(body), "{method} {framing}: {got}");
            let read_by_few = ["GET", "HEAD"].contains(&method);
            assert_eq!(line(&got, "connection") == "close", read_by_few, "what may not be read is the last: {got}");
        }
    }
    // Of its own resources weir says so.
    let at = before(Script::Cut, |_| {}).await;
    let own =
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\nthis\r\n0\r\n\r\n";
    let told = raw(at.host.public(), own).await;
    assert!(told.starts_with("HTTP/1.1 400 ") && told.contains("GET and HEAD take no body"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_goes_round_or_too_far_is_answered_here() {
    let mut at = before(ok(FRESH, "passed"), |_| {}).await;
    let first = at.ask("GET", "/shop/a", &[("via", "1.1 weir, 1.0 other")]).await;
    assert_eq!(first.status, 200);
    let via = lines(&at.origin.last_head(), "via").join(", ");
    let ours = via.strip_prefix("1.1 weir, 1.0 other, ").unwrap_or_else(|| panic!("{via}")).to_owned();
    assert!(ours.starts_with("1.1 weir-"), "{ours}");
    assert_eq!(first.header("via"), ours);
    for seen in [ours.clone(), format!("1.1 x, {ours} (comment), 1.1 y")] {
        let told = at.ask("GET", "/shop/b", &[("via", &seen)]).await;
        assert_eq!(told.status, 508, "{seen}");
        assert!(told.text().contains("urn:weir:problem:loop-detected"), "{}", told.text());
    }
    assert_eq!(at.origin.asked(), 1);
    let traced = at.ask("TRACE", "/shop/a", &[("cookie", "secret=1")]).await;
    assert_eq!((traced.status, traced.header("allow")), (405, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    let here = at.ask("OPTIONS", "/shop/a", &[("max-forwards", "0")]).await;
    assert_eq!((here.status, here.header("allow")), (204, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    assert_eq!(at.origin.asked(), 1);
    assert_eq!(at.ask("OPTIONS", "/shop/a", &[("max-forwards", "7")]).await.text(), "passed");
    assert_eq!(lines(&at.origin.last_head(), "max-forwards"), ["6"]);
    assert_eq!(at.ask("OPTIONS", "/shop/a", &[]).await.text(), "passed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_events_is_told_as_it_comes_however_long_it_is_silent() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: max-age=60\r\nX-Accel-Buffering: no\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let pieces =
        [head.to_owned(), chunk("data: one\n\n"), chunk("data: half"), chunk(" a line\n\n"), "0\r\n\r\n".to_owned()];
    let at = before(Script::Slow(pieces.to_vec(), Duration::from_millis(800)), |upstream| {
        upstream.limits.body_idle_timeout_ms = 200;
        upstream.limits.event_heartbeat_ms = 100;
    })
    .await;
    for asked in [1, 2] {
        let mut client = weir_tests::client::Client::new(at.host.public());
        let told = client.get("/shop/events").await;
        let text = told.text();
        let comments = text.matches(":\n").count();
        assert!(comments > 2, "a silent stream shows that it lives: {text:?}");
        assert_eq!(text.replace(":\n", ""), "data: one\n\ndata: half a line\n\n", "no comment within a line");
        assert!(told.header("cache-status").ends_with("detail=event-stream") || asked == 2, "{told:?}");
        assert_eq!(told.header("x-accel-buffering"), "no");
        assert_eq!(at.origin.asked(), asked, "it is not kept");
    }
    let at = before(Script::Slow(pieces.to_vec(), Duration::from_secs(60)), |upstream| {
        upstream.limits.event_idle_timeout_ms = 300;
    })
    .await;
    let cut = weir_tests::client::Client::new(at.host.public()).request("GET", "/shop/events", &[], "").await;
    assert!(cut.is_err(), "a bound that is set holds: {cut:?}");
}

/// Streams that stay open have places of their own: whoever opens many keeps nobody else from the origin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_events_use_up_no_place_of_a_request() {
    let said: fn(&str) -> String = |head| {
        if head.contains("/events") {
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 90\r\n\r\ndata: one\n\n".to_owned()
        } else {
            answer("200 OK", "Cache-Control: no-store\r\n", "page")
        }
    };
    let at = before(Script::With(said), |upstream| {
        upstream.limits.event_streams_max = 2;
        upstream.limits.requests_max = 1;
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(at.host.public()).await.unwrap();
        stream.write_all(b"GET /shop/events HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut told = Vec::new();
        while !told.ends_with(b"data: one\n\n") {
            let mut piece = [0; 512];
            let bytes = tokio::time::timeout(PATIENCE, stream.read(&mut piece)).await.expect("an event").unwrap();
            assert!(bytes > 0, "{}", String::from_utf8_lossy(&told));
            told.extend_from_slice(&piece[..bytes]);
        }
        open.push(stream);
    }
    let third = get(&at, "/shop/events").await;
    assert!(third.starts_with("HTTP/1.1 503 "), "{third}");
    assert_eq!(problem(&third), "overloaded");
    let page = get(&at, "/shop/a").await;
    assert!(page.starts_with("HTTP/1.1 200 OK") && page.ends_with("page"), "a request has its place: {page}");
    let mut shed = weir_tests::client::Client::new(at.host.admin());
    let shed = shed.metric("weir_shed_total", &["limit=\"upstream.event_streams_max\""]).await;
    assert_eq!(shed, Some(1.0));
    drop(open);
}
