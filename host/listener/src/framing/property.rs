//! Guard and hyper over the same bytes, generated and cut at every byte: what is handled is what the guard saw, wherever
//! the cuts are, and nothing after a doubt. Also holds for the next version of hyper, whatever that is lenient about.

#![cfg(test)]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use proptest::sample::select;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;
use crate::body::{self, BodyLimits};
use crate::reply::ReplyBody;
use crate::wire::Wire;
use crate::{Handler, Handling, Limits, Reply, builder, head};

const TIMEOUT: Duration = Duration::from_secs(60);
const URI_BYTES_MAX: usize = 1024;
/// A request that must never be handled where it lies in the body of another.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

fn limits() -> Limits {
    Limits {
        connections_max: 1,
        spare_files: 0,
        header_bytes_max: 8192,
        headers_max: 64,
        uri_bytes_max: URI_BYTES_MAX,
        header_timeout: TIMEOUT,
        idle_timeout: TIMEOUT,
        write_timeout: TIMEOUT,
        drain_grace: TIMEOUT,
        request_deadline: TIMEOUT,
    }
}

/// A stream that arrives in the given pieces and then ends.
struct Pieces {
    to_come: VecDeque<Vec<u8>>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(mut piece) = self.to_come.pop_front() {
            let later = piece.split_off(piece.len().min(buffer.remaining()));
            buffer.put_slice(&piece);
            if !later.is_empty() {
                self.to_come.push_front(later);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Nobody;

impl Handler for Nobody {
    async fn handle(&self, _: Request<Incoming>, _: SocketAddr, _: &Handling) -> Reply {
        Response::new(ReplyBody::default())
    }
}

/// What became of a stream of bytes.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    /// Targets and bodies of the requests that were handled; of one that leaves its body unread, none.
    handled: Vec<(String, Option<Vec<u8>>)>,
    /// Heads that a handler was given.
    begun: usize,
    /// Status of the last reply.
    last: u16,
}

/// Handles `pieces` as the listener does, or, for comparison, by hyper alone.
async fn serve(pieces: &[&[u8]], is_guarded: bool) -> Outcome {
    let seen = Arc::new(Mutex::new(Outcome::default()));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            seen.lock().unwrap().begun += 1;
            let target = request.uri().to_string();
            if request.method() == hyper::Method::CONNECT {
                // As the listeners do: hyper takes a success for the beginning of a tunnel.
                return Ok::<_, Infallible>(head::check(&request, URI_BYTES_MAX).unwrap_err().into_reply());
            }
            if target == "/unread" {
                seen.lock().unwrap().handled.push((target, None));
                return Ok(Response::new(ReplyBody::default()));
            }
            match body::read(request.into_body(), BodyLimits { bytes_max: 1 << 20, timeout: TIMEOUT }).await {
                Ok(bytes) => {
                    seen.lock().unwrap().handled.push((target, Some(bytes.to_vec())));
                    Ok(Response::new(ReplyBody::default()))
                }
                Err(problem) => Ok(problem.into_reply()),
            }
        }
    });
    let written = Arc::new(Mutex::new(Vec::new()));
    let stream = Pieces { to_come: pieces.iter().map(|piece| piece.to_vec()).collect(), written: Arc::clone(&written) };
    // An error is an end like others: what counts is what was handled before.
    let _ = if is_guarded {
        let wire = Wire::new(stream, Arc::new(Nobody), &limits(), Arc::new(crate::turn::Turn::new()));
        builder(&limits()).serve_connection(TokioIo::new(wire), service).await
    } else {
        builder(&limits()).serve_connection(TokioIo::new(stream), service).await
    };
    let mut outcome = std::mem::take(&mut *seen.lock().unwrap());
    let written = String::from_utf8_lossy(&written.lock().unwrap()).into_owned();
    let status = |(at, _): (usize, &str)| written.get(at + 9..at + 12)?.parse().ok();
    outcome.last = written.rmatch_indices("HTTP/1.").find_map(status).unwrap_or_default();
    outcome
}

/// What the guard takes `bytes` for: the bodies of the requests that are whole, and the doubt.
fn guarded(bytes: &[u8]) -> (Vec<Vec<u8>>, Option<Doubt>) {
    let (mut framing, mut whole, mut body) = (Framing::new(URI_BYTES_MAX), Vec::new(), Vec::new());
    for byte in bytes {
        let before = framing.state;
        if let (_, Some(doubt)) = framing.observe(&[*byte]) {
            return (whole, Some(doubt));
        }
        if matches!(before, State::Body(_) | State::ChunkData(_)) {
            body.push(*byte);
        }
        if before != State::Start && framing.state == State::Start {
            whole.push(std::mem::take(&mut body));
        }
    }
    (whole, None)
}

/// Checks one stream, whole and cut in two at every byte.
fn check(bytes: &[u8]) {
    let (whole, doubt) = guarded(bytes);
    let text = String::from_utf8_lossy(bytes);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for cut in 0..bytes.len() {
        let pieces = if cut == 0 { vec![bytes] } else { vec![&bytes[..cut], &bytes[cut..]] };
        let outcome = runtime.block_on(serve(&pieces, true));
        let at = format!("cut at {cut}, doubt {doubt:?}, {outcome:?}: {text:?}");
        assert!(outcome.handled.len() <= whole.len() + usize::from(outcome.begun > whole.len()), "{at}");
        assert!(outcome.begun <= whole.len() + 1, "{at}");
        if doubt.is_some_and(|doubt| doubt.is_in_head) {
            assert!(outcome.begun <= whole.len(), "{at}");
        }
        for (index, (_, body)) in outcome.handled.iter().enumerate() {
            // What leaves its body unread may be handled before that is broken.
            let Some(body) = body else { continue };
            assert_eq!(Some(body), whole.get(index), "{at}");
        }
        let is_closed_before = ["close", "HTTP/1.0", "/unread", "CONNECT"].iter().any(|mark| text.contains(mark));
        if doubt.is_some() && !is_closed_before && outcome.handled.len() == whole.len() {
            assert!((400..500).contains(&outcome.last), "{at}");
        }
        if doubt.is_none() && !["/unread", "CONNECT"].iter().any(|mark| text.contains(mark)) {
            assert_eq!(outcome.handled, runtime.block_on(serve(&pieces, false)).handled, "{at}");
        }
    }
}

/// Chunked requests and others that leave the next bytes in doubt: hyper alone goes on, and hands over what is hidden.
#[test]
fn known_attacks_end_at_the_doubt() {
    let long = "x".repeat(2 * CHUNK_LINE_BYTES_MAX);
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n";
    let both = format!("{chunked}Content-Length: 5\r\n\r\n0\r\n\r\n{SMUGGLED}");
    let twice = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n{SMUGGLED}");
    for attack in [
        format!("{chunked}\r\n0;{long}\r\n\r\n{both}"),
        format!("{chunked}\r\n1;{long}\r\na\r\n0\r\n\r\n{twice}"),
        format!("{chunked}\r\n1 \r\na\r\n0\r\n\r\n{SMUGGLED}"),
        format!("{chunked}\r\n0000000000000001\r\na\r\n0\r\n\r\n{SMUGGLED}"),
        format!("POST / HTTP/1.1\r\nHost: a\nContent-Length: 0\r\n\r\n{SMUGGLED}"),
        both,
        twice,
    ] {
        check(attack.as_bytes());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let run = |is_guarded| runtime.block_on(serve(&[attack.as_bytes()], is_guarded));
        let is_smuggled = |outcome: &Outcome| outcome.handled.iter().any(|(target, _)| target == "/smuggled");
        assert!(run(false).handled.len() > run(true).handled.len(), "no attack: {attack:?}");
        assert!(!is_smuggled(&run(true)) && run(true).last == 400, "{attack:?}");
    }
}

/// Bytes that hyper refuses, too, but in the middle of a body, where a spoilt byte of its head would be ignored.
#[test]
fn nothing_passes_after_a_line_feed_in_an_extension() {
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for chunk in ["1;a\nb\r\na\r\n0\r\n\r\n", "0;a\nb\r\n\r\n", "0\r\nT: a\nU: b\r\n\r\n", "0\r\n\n\r\n\r\n"] {
        check(format!("{chunked}{chunk}{SMUGGLED}").as_bytes());
        let attack = format!("{chunked}{chunk}{SMUGGLED}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(serve(&[attack.as_bytes()], true));
        assert_eq!((outcome.handled.len(), outcome.begun, outcome.last), (0, 1, 400), "{attack:?}");
    }
}

/// Mostly the first, sometimes one of the others.
fn mostly(usual: &'static str, others: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![8 => Just(usual.to_owned()), 1 => select(others).prop_map(str::to_owned)]
}

fn line_end() -> impl Strategy<Value = String> {
    prop_oneof![30 => Just("\r\n"), 1 => select(&["\n", "\r", "\r\r\n", " \r\n", "\n\r\n", "\0\r\n"][..])]
        .prop_map(str::to_owned)
}

fn header() -> impl Strategy<Value = String> {
    const PLAIN: &[&str] =
        &["X: y", "Expect: 100-continue", "Upgrade: h2c", "Connection: upgrade", "TE: trailers", "X:"];
    const ODD: &[&str] = &[
        "Content-Length: 3",
        "Content-Length: 0",
        "Content-Length: 3, 3",
        "Content-Length: +3",
        "Content-Length: 0x3",
        "Content-Length : 3",
        "Content-Length:\t3 ",
        "Content-Length: 003",
        "Content-Length: 3\u{b}",
        "Content-Length: \u{c}3",
        "Content-Length:",
        "content-length: 18446744073709551615",
        "Content-Length: 18446744073709551617",
        "Content-Length:                                                                            3",
        "Content_Length: 3",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding:\tChunked\t",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: chunked;q=1",
        " Transfer-Encoding: chunked",
        "\tfolded",
        "X: a\rTransfer-Encoding: chunked",
        "X: a\nTransfer-Encoding: chunked",
        "Connection: close",
        "X: y\0z",
        "no colon",
        ": nameless",
    ];
    (prop_oneof![2 => select(PLAIN), 1 => select(ODD)], line_end()).prop_map(|(header, end)| format!("{header}{end}"))
}

fn chunk() -> impl Strategy<Value = String> {
    const SIZES: &[&str] = &["03", "3 ", " 3", "+3", "0x3", "0000000000000003", "fffffffffffffff3", "-1", "", "2", "4"];
    const EXTENSIONS: &[&str] = &[";a=b", ";a\nb", ";a\rb", "; \"q\\\"\"", ";\0", ";;", ";\r\n3"];
    let long = select(&[200_usize, 253, 254, 255, 256, 300][..]).prop_map(|bytes| format!(";{}", "x".repeat(bytes)));
    let extension = prop_oneof![20 => mostly("", EXTENSIONS), 1 => long];
    (mostly("3", SIZES), extension, line_end(), mostly("abc", &["\r\nx", "GET", "0\r\n"]), line_end())
        .prop_map(|(size, extension, end, data, after)| format!("{size}{extension}{end}{data}{after}"))
}

fn chunked() -> impl Strategy<Value = String> {
    const TRAILERS: &[&str] =
        &["T: 1\r\n", "T: 1\n", "\n", "\r", "Content-Length: 9\r\n", " folded\r\n", "T: 1\rU: 2\r\n"];
    let last = (mostly("0", &["000", "0;x", "0;x\ny", "0 ", "-0"]), line_end(), mostly("", TRAILERS), line_end())
        .prop_map(|(size, end, trailer, after)| format!("{size}{end}{trailer}{after}"));
    (prop::collection::vec(chunk(), 0..3), last).prop_map(|(chunks, last)| chunks.concat() + &last)
}

fn request() -> impl Strategy<Value = String> {
    let framed = prop_oneof![
        2 => Just((String::new(), String::new())),
        2 => Just(("Content-Length: 3\r\n".to_owned(), "a\nb".to_owned())),
        1 => Just((format!("Content-Length: {}\r\n", SMUGGLED.len()), SMUGGLED.to_owned())),
        3 => chunked().prop_map(|body| ("Transfer-Encoding: chunked\r\n".to_owned(), body)),
    ];
    let line = (
        mostly("", &["\r\n", "\n", "\r", " ", "\r\n\r\n"]),
        mostly("POST", &["GET", "HEAD", "PUT", "CONNECT", "PRI", "G T"]),
        mostly("/", &["/unread", "*", "http://a/", "/a b", "/\u{e9}", "a:1"]),
        mostly("HTTP/1.1", &["HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", ""]),
        line_end(),
    );
    let headers = prop::collection::vec(header(), 0..3);
    (line, headers, framed, line_end()).prop_map(
        |((before, method, target, version, end), headers, (length, body), over)| {
            let headers = headers.concat();
            format!("{before}{method} {target} {version}{end}Host: a\r\n{headers}{length}{over}{body}")
        },
    )
}

/// A few requests one after the other, and a few bytes spoilt.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let spoil = (any::<prop::sample::Index>(), 0..3_u8, select(&b"\r\n;: \t0a,+\0"[..]));
    (prop::collection::vec(request(), 1..3), prop::collection::vec(spoil, 0..3)).prop_map(|(requests, spoils)| {
        let mut bytes = (requests.concat() + SMUGGLED).into_bytes();
        for (index, how, byte) in spoils {
            let at = index.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_is_handled_is_what_the_guard_saw(bytes in stream()) {
        check(&bytes);
    }
}
