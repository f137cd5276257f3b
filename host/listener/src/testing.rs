//! A raw client and a served handler, for the tests of both listeners.

#![cfg(any(test, feature = "testing"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Handler, Limits};

/// Waiting for an event that must come; only a failure takes so long.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A handler that is served on a free port of loopback.
pub struct Served {
    /// Where it listens.
    pub address: SocketAddr,
    /// `true` stops it.
    pub stop: watch::Sender<bool>,
    /// Ends when it has stopped.
    pub task: JoinHandle<()>,
}

/// Serves `handler` on a free port.
pub async fn serve<H: Handler>(handler: Arc<H>, limits: Limits) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    Served { address, stop, task: tokio::spawn(super::serve(listener, handler, limits, stopped)) }
}

impl Served {
    /// A connection to it.
    pub async fn client(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), received: Vec::new() }
    }

    /// One request on a connection of its own.
    pub async fn ask(&self, request: &str) -> Answer {
        self.client().await.ask(request).await
    }

    /// Stops it and waits for its end.
    pub async fn stop(self) {
        // Fails when it has ended by itself, which is as good.
        let _ = self.stop.send(true);
        tokio::time::timeout(TIMEOUT, self.task).await.expect("the server ends").unwrap();
    }
}

/// One reply.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    head: String,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Its body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// The last part of the problem's URN; fails unless the reply is a well-formed problem.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{self:?}");
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{self:?}");
        problem["type"].as_str().unwrap().strip_prefix("urn:weir:problem:").unwrap().to_owned()
    }
}

/// A connection.
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    /// Sends the text and ignores a failure.
    pub async fn send(&mut self, text: &str) {
        // The server may already have refused and closed; the reply shows it.
        let _ = self.stream.write_all(text.as_bytes()).await;
    }

    /// Sends it again and again, reading nothing, until the server has closed.
    pub async fn send_until_refused(&mut self, text: &str) {
        let sending = async { while self.stream.write_all(text.as_bytes()).await.is_ok() {} };
        tokio::time::timeout(TIMEOUT, sending).await.expect("the server closes");
    }

    /// Sends a request and takes the reply.
    pub async fn ask(&mut self, request: &str) -> Answer {
        self.send(request).await;
        self.answer(request.starts_with("HEAD ")).await
    }

    /// Takes one reply; of `bodiless` ones only the head.
    pub async fn answer(&mut self, bodiless: bool) -> Answer {
        let head_end = loop {
            if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.receive().await,
                "closed before a reply; received {:?}",
                String::from_utf8_lossy(&self.received)
            );
        };
        let head = String::from_utf8(self.received.drain(..head_end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: String::new() };
        let length: usize = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        if !bodiless {
            while self.received.len() < length {
                assert!(self.receive().await, "closed in the middle of a body");
            }
            answer.body = String::from_utf8(self.received.drain(..length).collect()).unwrap();
        }
        answer
    }

    /// Signals that no more requests come.
    pub async fn half_close(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Waits until the server closes; fails if it sends anything before.
    pub async fn closed(&mut self) {
        assert!(!self.receive().await && self.received.is_empty(), "{:?}", String::from_utf8_lossy(&self.received));
    }

    /// Takes what comes until the server closes.
    pub async fn ended(&mut self) {
        while self.receive().await {}
    }

    /// Takes what comes until it ends with `end`.
    pub async fn until(&mut self, end: &str) -> String {
        while !self.received.ends_with(end.as_bytes()) {
            assert!(self.receive().await, "closed before {end:?}: {:?}", String::from_utf8_lossy(&self.received));
        }
        String::from_utf8(std::mem::take(&mut self.received)).unwrap()
    }

    /// Takes what comes until the server closes, and says what it was.
    pub async fn until_closed(&mut self) -> String {
        self.ended().await;
        String::from_utf8(std::mem::take(&mut self.received)).unwrap()
    }

    /// Whether more came; `false` at the end.
    async fn receive(&mut self) -> bool {
        let reading = self.stream.read_buf(&mut self.received);
        match tokio::time::timeout(TIMEOUT, reading).await.expect("the server answers or closes") {
            Ok(count) => count > 0,
            Err(_) => false,
        }
    }
}
