//! A small HTTP/1.1 client with one kept-alive connection, and the calls of the toggle and operators' APIs.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long one exchange may take; longer than every deadline of a host with default settings.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(20);

/// Why there is no answer. Whether the host did what was asked is unknown.
#[derive(Debug)]
pub struct NoAnswer(pub String);

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: Bytes,
}

impl Reply {
    /// A header as text; empty when absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON; panics with the body when it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("status {}, not JSON ({error}): {}", self.status, String::from_utf8_lossy(&self.body))
        })
    }

    /// The body as text, for messages.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// `liked` and `likeCount` of an answer of kind `feed-like`; panics with the body unless it is 200 with both.
    pub fn like(&self) -> (bool, i64) {
        assert_eq!(self.status, 200, "{}", self.text());
        let body = self.json();
        let liked = body["liked"].as_bool().unwrap_or_else(|| panic!("no boolean `liked` in {body}"));
        let count = body["likeCount"].as_i64().unwrap_or_else(|| panic!("no integer `likeCount` in {body}"));
        (liked, count)
    }
}

/// One client: at most one request at a time, on one connection that is opened again when it was lost.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// A client of the listener at `address`. Connects at the first request.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, connection: None }
    }

    /// Sends a request and reads the whole answer.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Reply, NoAnswer> {
        self.request_bytes(method, path, headers, body.as_bytes().to_vec()).await
    }

    /// The same with a body of bytes.
    pub async fn request_bytes(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Reply, NoAnswer> {
        let exchange = self.exchange(method, path, headers, body);
        let outcome = match timeout(EXCHANGE_TIMEOUT, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(NoAnswer(format!("{method} {path}: nothing within {EXCHANGE_TIMEOUT:?}"))),
        };
        if outcome.is_err() {
            self.connection = None;
        }
        outcome
    }

    async fn exchange(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Reply, NoAnswer> {
        let lost = |error: &dyn std::fmt::Display| NoAnswer(format!("{method} {path}: {error}"));
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request = request.header("host", self.address.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body)).expect("a well-formed request");
        // A connection that the host closed between two requests is no failure of the next one.
        let mut kept = self.connection.take();
        if let Some(connection) = &mut kept
            && connection.ready().await.is_err()
        {
            kept = None;
        }
        let mut connection = match kept {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect(self.address).await.map_err(|error| lost(&error))?;
                let _ = stream.set_nodelay(true);
                let (sender, driver) = handshake(TokioIo::new(stream)).await.map_err(|error| lost(&error))?;
                tokio::spawn(driver);
                sender
            }
        };
        let response = connection.send_request(request).await.map_err(|error| lost(&error))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| lost(&error))?.to_bytes();
        self.connection = Some(connection);
        Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// GET without headers; panics without an answer.
    pub async fn get(&mut self, path: &str) -> Reply {
        self.request("GET", path, &[], "").await.unwrap_or_else(|NoAnswer(reason)| panic!("{reason}"))
    }

    /// A toggle of kind `feed-like` by `actor` (trusted header) on `target`.
    pub async fn toggle(
        &mut self,
        method: &str,
        target: i64,
        actor: i64,
        idempotency_key: Option<&str>,
    ) -> Result<Reply, NoAnswer> {
        let actor = actor.to_string();
        let mut headers = vec![("x-actor-id", actor.as_str())];
        headers.extend(idempotency_key.map(|key| ("idempotency-key", key)));
        self.request(method, &format!("/v1/toggles/feed-like/{target}"), &headers, "").await
    }

    /// POST of a toggle that must be answered 200: `liked` and `likeCount`.
    pub async fn like(&mut self, target: i64, actor: i64) -> (bool, i64) {
        self.toggle("POST", target, actor, None).await.unwrap_or_else(|NoAnswer(reason)| panic!("{reason}")).like()
    }

    /// What waits in the journals of all kinds, by an operators' listener: the sum of all `backlog_entries`. `None`
    /// when it does not say.
    pub async fn backlog_entries(&mut self) -> Option<u64> {
        let reply = self.request("GET", "/admin/v1/flush", &[], "").await.ok()?;
        if reply.status != 200 {
            return None;
        }
        let mut found = Vec::new();
        collect_numbers(&reply.json(), "backlog_entries", &mut found);
        assert!(!found.is_empty(), "no `backlog_entries` in the answer of /admin/v1/flush: {}", reply.text());
        Some(found.into_iter().sum())
    }

    /// Waits until nothing waits in any journal; panics after `limit`.
    pub async fn wait_drained(&mut self, limit: Duration) {
        let start = tokio::time::Instant::now();
        let mut last = None;
        while start.elapsed() < limit {
            last = self.backlog_entries().await;
            if last == Some(0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("not drained within {limit:?}: backlog {last:?}");
    }

    /// The value of a metric whose line begins with `name` and holds every one of `labels`; `None` when absent.
    pub async fn metric(&mut self, name: &str, labels: &[&str]) -> Option<f64> {
        let text = self.get("/metrics").await.text();
        let line = text.lines().find(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        })?;
        line.rsplit(' ').next()?.parse().ok()
    }
}

/// All numbers under the field `name`, however deep.
fn collect_numbers(value: &Value, name: &str, found: &mut Vec<u64>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_numbers(item, name, found)),
        Value::Object(fields) => {
            for (key, field) in fields {
                match field.as_u64() {
                    Some(number) if key == name => found.push(number),
                    _ => collect_numbers(field, name, found),
                }
            }
        }
        _ => {}
    }
}
