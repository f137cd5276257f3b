//! The listener over real sockets, with a handler that answers the length of what it was sent.

#![cfg(test)]

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::body::BodyLimits;
use super::testing::{Served, serve};
use super::*;

const BODY_LIMITS: BodyLimits = BodyLimits { bytes_max: 100, timeout: Duration::from_millis(200) };

fn limits() -> Limits {
    Limits {
        connections_max: 16,
        spare_files: 0,
        header_bytes_max: 8192,
        headers_max: 16,
        uri_bytes_max: 1024,
        header_timeout: Duration::from_secs(20),
        idle_timeout: Duration::from_secs(20),
        write_timeout: Duration::from_secs(20),
        drain_grace: Duration::from_secs(20),
        request_deadline: Duration::from_secs(20),
    }
}

#[derive(Default)]
struct Length {
    handled: AtomicUsize,
    refused: AtomicUsize,
    open: AtomicUsize,
    /// A request for `/wait` is answered after this.
    go: Notify,
    arrived: Notify,
}

impl Handler for Length {
    async fn handle(&self, request: Request<Incoming>, _peer: SocketAddr, _handling: &Handling) -> Reply {
        self.handled.fetch_add(1, Ordering::SeqCst);
        if let Err(problem) = head::check(&request, limits().uri_bytes_max) {
            return problem.into_reply();
        }
        if request.uri().path() == "/wait" {
            self.arrived.notify_one();
            self.go.notified().await;
        }
        if request.uri().path() == "/large" {
            return Response::new(ReplyBody::whole(&[b'x'; 1 << 16][..]));
        }
        if request.uri().path() == "/drops" {
            // Five drops, a while apart; the second client gets a torn answer.
            let is_torn = request.uri().query().is_some();
            let drops = futures_util::stream::unfold(0, move |count| async move {
                tokio::time::sleep(Duration::from_millis(60)).await;
                match count {
                    3 if is_torn => Some((Err(reply::CutShort("on purpose".into())), 9)),
                    0..5 => Some((Ok(bytes::Bytes::from_static(b"drop")), count + 1)),
                    _ => None,
                }
            });
            return Response::new(ReplyBody::stream(drops, None));
        }
        match body::read(request.into_body(), BODY_LIMITS).await {
            Ok(bytes) => Response::new(ReplyBody::whole(bytes.len().to_string())),
            Err(problem) => problem.into_reply(),
        }
    }

    fn refused(&self, _status: StatusCode) {
        self.refused.fetch_add(1, Ordering::SeqCst);
    }

    fn connections(&self, change: f64) {
        if change > 0.0 {
            self.open.fetch_add(1, Ordering::SeqCst);
        } else {
            self.open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

async fn length() -> (Served, Arc<Length>) {
    let handler = Arc::new(Length::default());
    (serve(Arc::clone(&handler), limits()).await, handler)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (served, _) = length().await;
    let mut client = served.client().await;
    let post = |text: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    client.send(&format!("{}{GET}{}", post("abc"), post("abcdefgh"))).await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(client.answer(false).await.body);
    }
    assert_eq!(answers, ["3", "0", "8"]);
    assert_eq!(client.ask(GET).await.status, 200, "the connection is kept");
}

#[tokio::test]
async fn doubtful_framing_is_a_problem_and_the_end() {
    let (served, handler) = length().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for (request, status, name) in [
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "malformed",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            400,
            "malformed",
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", 400, "malformed"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\n", 400, "malformed"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "malformed",
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400, "malformed"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, "malformed"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx", 400, "malformed"),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "malformed"),
        ("GET / HTTP/1.1\nHost: a\n\n", 400, "malformed"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b\n\r\n", 400, "malformed"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400, "malformed"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b\0\r\n\r\n", 400, "malformed"),
        ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400, "malformed"),
        ("GET / HTTP/3.1\r\nHost: a\r\n\r\n", 400, "malformed"),
        ("GET /\u{1} HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "bad-host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "bad-host"),
        ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400, "bad-host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: banana\r\n\r\n", 417, "expectation-failed"),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405, "method-not-allowed"),
    ] {
        let handled = handler.handled.load(Ordering::SeqCst);
        let mut client = served.client().await;
        client.send(&format!("{GET}{request}{smuggled}")).await;
        assert_eq!(client.answer(false).await.status, 200, "the request before {request:?} is answered");
        let answer = client.answer(false).await;
        assert_eq!((answer.status, answer.problem().as_str()), (status, name), "{request:?}");
        client.closed().await;
        assert!(handler.handled.load(Ordering::SeqCst) - handled <= 2, "{request:?} let the next one through");
    }
    assert!(handler.refused.load(Ordering::SeqCst) > 0, "refusals of hyper's own are counted");
}

#[tokio::test]
async fn broken_chunks_are_a_problem_and_the_end() {
    let (served, _) = length().await;
    for chunks in
        ["x\r\n", "1 \r\na\r\n0\r\n\r\n", "1\r\nab\r\n0\r\n\r\n", "0x1\r\na\r\n0\r\n\r\n", "1\na\r\n0\r\n\r\n"]
    {
        let mut client = served.client().await;
        client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{GET}")).await;
        let answer = client.answer(false).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "malformed"), "{chunks:?}");
        client.closed().await;
    }
}

#[tokio::test]
async fn a_guard_that_loses_its_place_ends_the_connection() {
    let (served, handler) = length().await;
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = "x".repeat(300);
    for packets in [
        vec!["1;a\nb\r\na\r\n0\r\n\r\n"],
        vec!["1;a", "\n", "b\r\na\r\n0\r\n\r\n"],
        vec!["1;", &long, "\r\na\r\n0\r\n\r\n"],
        vec!["0;", &long[..200], &long[200..], "\r\n\r\n"],
        vec!["1\r\na\r\n0\r\nT: a\n", "U: b\r\n\r\n"],
    ] {
        let handled = handler.handled.load(Ordering::SeqCst);
        let mut client = served.client().await;
        client.send(chunked).await;
        for packet in &packets {
            // Each is a packet: what was sent before has been answered, or is not going to be.
            client.send(packet).await;
            tokio::task::yield_now().await;
        }
        for hidden in ["Content-Length: 0\r\nContent-Length: 0", "Content-Length: 5\r\nTransfer-Encoding: chunked"] {
            client.send(&format!("POST /smuggled HTTP/1.1\r\nHost: a\r\n{hidden}\r\n\r\n0\r\n\r\n{GET}")).await;
        }
        let answer = client.answer(false).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "malformed"), "{packets:?}");
        assert!(!answer.body.contains("ended early"), "the reason is told: {}", answer.body);
        client.closed().await;
        assert_eq!(handler.handled.load(Ordering::SeqCst) - handled, 1, "{packets:?} let the next one through");
    }
}

#[tokio::test]
async fn floods_are_refused_with_their_reply_readable() {
    let (served, _) = length().await;
    let many = "X: y\r\n".repeat(17);
    let long = "x".repeat(100_000);
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 431),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", &long[..1030]), 414),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", &long[..5000]), 414),
        (format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{long}"), 413),
        (format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n186A0\r\n{long}\r\n0\r\n\r\n"), 413),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n".to_owned(), 413),
    ] {
        let answer = served.ask(&request).await;
        assert_eq!(answer.status, status, "{:?}", &request[..60]);
        answer.problem();
    }
    assert_eq!(served.ask(GET).await.status, 200, "others are served");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_a_timeout() {
    let (served, _) = length().await;
    let mut client = served.client().await;
    let answer = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await;
    assert_eq!((answer.status, answer.problem().as_str()), (408, "body-timeout"));
    client.closed().await;
}

#[tokio::test]
async fn a_client_may_close_its_half_before_the_answer() {
    let (served, handler) = length().await;
    let mut client = served.client().await;
    client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.half_close().await;
    handler.arrived.notified().await;
    handler.go.notify_one();
    assert_eq!(client.answer(false).await.status, 200);
    client.closed().await;
}

#[tokio::test]
async fn the_server_closes_when_no_more_is_to_come() {
    let (served, _) = length().await;
    for sent in ["", GET, "GET / HT", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf"] {
        let mut client = served.client().await;
        client.send(sent).await;
        client.half_close().await;
        client.ended().await;
    }
}

#[tokio::test]
async fn a_body_that_ends_early_is_a_problem() {
    let (served, _) = length().await;
    let mut client = served.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").await;
    client.half_close().await;
    assert_eq!(client.answer(false).await.problem(), "malformed");
    client.closed().await;
}

#[tokio::test]
async fn a_head_that_does_not_come_is_closed() {
    let handler = Arc::new(Length::default());
    let limits = Limits { header_timeout: Duration::from_millis(200), ..limits() };
    let served = serve(Arc::clone(&handler), limits).await;
    for begun in ["", "GET / HTTP/1.1\r\nHost: a\r\nX:"] {
        let mut client = served.client().await;
        client.send(begun).await;
        client.closed().await;
    }
    assert_eq!(handler.handled.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_connection_may_idle_for_longer_than_a_head_may_take() {
    let limits =
        Limits { header_timeout: Duration::from_millis(200), idle_timeout: Duration::from_secs(2), ..limits() };
    let served = serve(Arc::new(Length::default()), limits).await;
    let mut client = served.client().await;
    let first = client.ask(GET).await;
    assert_eq!((first.header("connection"), first.header("keep-alive")), (Some("keep-alive"), Some("timeout=2")));
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(client.ask(GET).await.body, "0", "it idles");
    // A head that has begun has its own time, and so has one that began while the request before was answered.
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX:").await;
    client.closed().await;
    let mut client = served.client().await;
    client.send(&format!("{GET}GET / HTTP/1.1\r\nHost: a\r\nX:")).await;
    assert_eq!(client.answer(false).await.body, "0");
    client.closed().await;
    for (request, stays) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", Some("close")),
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", None),
    ] {
        let answer = served.ask(request).await;
        assert_eq!((answer.header("connection"), answer.header("keep-alive")), (stays, None), "{request}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_ended() {
    let served = serve(Arc::new(Length::default()), Limits { write_timeout: Duration::from_millis(200), ..limits() });
    let mut client = served.await.client().await;
    client.send_until_refused("GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
}

#[tokio::test]
async fn over_the_bound_who_only_waits_makes_room_and_who_is_answered_does_not() {
    let handler = Arc::new(Length::default());
    let served = serve(Arc::clone(&handler), Limits { connections_max: 2, ..limits() }).await;
    let mut busy = served.client().await;
    busy.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    handler.arrived.notified().await;
    let mut half = served.client().await;
    half.send("GET / HTTP/1.1\r\nHost:").await;
    // The half head has waited longest of those that wait at all.
    let mut second = served.client().await;
    assert_eq!(second.ask(GET).await.status, 200);
    half.ended().await;
    // And then the one that has been answered and idles.
    let mut third = served.client().await;
    third.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    handler.arrived.notified().await;
    second.ended().await;
    // No connection only waits for its peer, so the next one waits for a free slot.
    let mut fourth = served.client().await;
    fourth.send(GET).await;
    handler.go.notify_one();
    assert_eq!(fourth.answer(false).await.status, 200);
}

#[tokio::test]
async fn a_stop_lets_finish_what_is_under_way() {
    let (served, handler) = length().await;
    let mut idle = served.client().await;
    assert_eq!(idle.ask(GET).await.status, 200);
    let mut busy = served.client().await;
    busy.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    handler.arrived.notified().await;
    served.stop.send(true).unwrap();
    idle.closed().await;
    handler.go.notify_one();
    let answer = busy.answer(false).await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    busy.closed().await;
    served.stop().await;
    assert_eq!(handler.open.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let handler = Arc::new(Length::default());
    let served = serve(Arc::clone(&handler), Limits { drain_grace: Duration::from_millis(100), ..limits() }).await;
    let mut busy = served.client().await;
    busy.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    handler.arrived.notified().await;
    served.stop().await;
    busy.closed().await;
}

#[tokio::test]
async fn a_stream_may_take_longer_than_a_head_and_is_whole_or_torn() {
    let timeouts = Duration::from_millis(150);
    let timeouts = Limits { header_timeout: timeouts, idle_timeout: timeouts, ..limits() };
    let served = serve(Arc::new(Length::default()), timeouts).await;
    let mut client = served.client().await;
    client.send("GET /drops HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let text = client.until("\r\n0\r\n\r\n").await;
    assert_eq!(text.matches("drop").count(), 5, "{text}");
    // The connection is good for another request, and then its time to idle begins.
    assert_eq!(client.ask(GET).await.body, "0");
    client.closed().await;
    let mut client = served.client().await;
    client.send("GET /drops?torn HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let text = client.until_closed().await;
    assert!(text.matches("drop").count() == 3 && !text.ends_with("0\r\n\r\n"), "{text}");
    served.stop().await;
}
