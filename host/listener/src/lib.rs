//! Bounded HTTP/1 connections: accept, frame strictly, time out, drain. What both listeners stand on.
//!
//! Uses `weir-core` alone. Knows no route and no actor: a [`Handler`] answers, this module keeps everything else
//! bounded: connections, bytes and number of headers, length of the request target, time for a head, bytes and time of
//! a body. Every refusal is `application/problem+json`, also those that hyper makes by itself (see `wire`). Never lets
//! a request through whose end a proxy before it could see elsewhere (see `framing`).

pub mod body;
pub mod cors;
mod crowd;
pub mod forwarded;
mod framing;
pub mod head;
mod interim;
pub mod problem;
pub mod reply;
pub mod text;
mod turn;
mod wire;

pub mod testing;
mod tests;

use std::convert::Infallible;
use std::future::{Future, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::Either;
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use metrics::counter;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crowd::{Crowd, Spares};
pub use interim::Interim;
use problem::{Problem, TOO_MANY_HEADERS};
use reply::ReplyBody;
pub use turn::Handling;
use turn::{End, Times, Turn};
use weir_core::config::HttpConfig;
use weir_core::telemetry::SHED_TOTAL;
use weir_core::{config, telemetry};
use wire::Wire;

/// An answer. Most bodies are small and whole, so that a reply is one write.
pub type Reply = Response<ReplyBody>;

/// Pause after a failed accept (no file descriptors left, say), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// See [`Limits::write_timeout`]. Replies are small: who takes none of one for so long has gone, or means to stay.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Headers that hyper takes by itself. With another number it allocates and clears their array twice for each request:
/// a tenth of a microsecond. So a smaller one is kept here.
const HYPER_HEADERS_MAX: usize = 100;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// `Keep-Alive` is of the connection, so it is named there.
const CONNECTION_STAYS: HeaderValue = HeaderValue::from_static("keep-alive");

/// hyper's smallest read buffer.
const BUFFER_BYTES_MIN: usize = 8192;

/// Bounds of a listener's connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections. A further one evicts the connection that has waited longest for a head, half sent or not
    /// begun. If all are being answered, it waits in the system's accept queue.
    pub connections_max: usize,
    /// Files held in reserve for when the process may open no more, so that a few connections can still be served.
    pub spare_files: usize,
    /// Size of request line and headers, in bytes; beyond: 431.
    pub header_bytes_max: usize,
    /// Number of headers; beyond: 431.
    pub headers_max: usize,
    /// Length of the request target, in bytes; beyond: 414.
    pub uri_bytes_max: usize,
    /// Time for a head; then the connection is closed.
    pub header_timeout: Duration,
    /// Time between a reply and the next request; then the connection is closed. `Keep-Alive` announces it to clients.
    pub idle_timeout: Duration,
    /// Time without progress in which a peer does not take its replies; then the connection is closed.
    pub write_timeout: Duration,
    /// Time to finish the requests in flight at shutdown.
    pub drain_grace: Duration,
    /// Once a request has taken this long, its handler's future is polled repeatedly (see `turn`), so a deadline of
    /// this length needs no timer.
    pub request_deadline: Duration,
}

impl From<&HttpConfig> for Limits {
    fn from(config: &HttpConfig) -> Self {
        Self {
            connections_max: config.connections_max,
            spare_files: 0,
            header_bytes_max: config.header_bytes_max,
            headers_max: config.headers_max,
            uri_bytes_max: config.uri_bytes_max,
            header_timeout: Duration::from_millis(config.header_timeout_ms),
            idle_timeout: Duration::from_millis(config.idle_timeout_ms),
            write_timeout: WRITE_TIMEOUT,
            drain_grace: Duration::from_millis(config.drain_grace_ms),
            request_deadline: Duration::from_millis(config.request_deadline_ms),
        }
    }
}

/// Answers the requests of a listener. Total: every failure is a reply.
pub trait Handler: Send + Sync + 'static {
    /// Answers requests that need no waiting, as [`Handler::handle`] would, but without a future: the future would cost
    /// as much as the answer.
    fn handle_at_once(&self, _request: &Request<Incoming>, _peer: SocketAddr, _handling: &Handling) -> Option<Reply> {
        None
    }

    /// Answers one request that passed the framing checks.
    fn handle(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        handling: &Handling,
    ) -> impl Future<Output = Reply> + Send;

    /// A request was refused with `status` before it could be handled.
    fn refused(&self, _status: StatusCode) {}

    /// The number of open connections changed by `change`.
    fn connections(&self, _change: f64) {}
}

/// Serves `listener` until `shutdown` holds `true`; then stops accepting, closes idle connections, and gives those with
/// a request in flight the grace period. A dropped sender counts as `true`.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    handler: Arc<H>,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
) {
    // The semaphore counts to u32::MAX at most in `acquire_many`, far above any number of file descriptors.
    let connections_max = u32::try_from(limits.connections_max).unwrap_or(u32::MAX);
    let slots = Arc::new(Semaphore::new(connections_max as usize));
    let crowd = Arc::new(Crowd::default());
    let server = Arc::new(Server {
        builder: builder(&limits),
        keep_alive: keep_alive(limits.idle_timeout),
        handler,
        limits,
        shutdown: shutdown.clone(),
        crowd: Arc::clone(&crowd),
    });
    let mut spares = Spares::new(limits.spare_files);
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                // One file is needed: of those that are kept, or of the connection that needs it least.
                if !spares.give(&error) && !crowd.evict() {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        spares.refill();
        let slot = tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            slot = free_slot(&slots, &crowd) => slot,
        };
        tokio::spawn(Arc::clone(&server).connection(stream, peer, slot));
    }
    drop(listener);
    // All slots are free when the last connection has ended; each ends within the grace period by itself.
    drop(slots.acquire_many(connections_max).await);
}

/// Waits for a free slot. If none is free at once, counts that and evicts a connection that only waits for its peer.
async fn free_slot(slots: &Arc<Semaphore>, crowd: &Crowd) -> Option<OwnedSemaphorePermit> {
    if let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
        return Some(slot);
    }
    counter!(SHED_TOTAL, "limit" => "connections_max").increment(1);
    loop {
        crowd.evict();
        // A connection that is being answered now may be idle, and so evictable, a moment later.
        if let Ok(slot) = tokio::time::timeout(ACCEPT_PAUSE, Arc::clone(slots).acquire_owned()).await {
            return slot.ok();
        }
    }
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone. Nothing could stop us later, so stop now.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

fn builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // The time for a head is kept by `turn`.
        .header_read_timeout(None)
        .max_header_size(limits.header_bytes_max)
        .max_buf_size(limits.header_bytes_max.max(BUFFER_BYTES_MIN))
        // A client may say that it has no more to ask before it reads the answer. And what was begun for one that
        // went away is finished, not torn off.
        .half_close(true);
    if limits.headers_max > HYPER_HEADERS_MAX {
        builder.max_headers(limits.headers_max);
    }
    builder
}

/// Whether a client keeps its connection without a `Connection` header; then `Keep-Alive` may announce for how long.
fn stays(request: &Request<Incoming>) -> bool {
    request.version() == Version::HTTP_11 && !request.headers().contains_key(header::CONNECTION)
}

/// `Keep-Alive`, as far as it can be said: in whole seconds.
fn keep_alive(idle_timeout: Duration) -> Option<HeaderValue> {
    let idle_s = Some(idle_timeout.as_secs()).filter(|idle_s| *idle_s > 0)?;
    // One text for the life of the process: a value that is shared by counting would be counted by all threads at once.
    Some(HeaderValue::from_static(format!("timeout={idle_s}").leak()))
}

struct Server<H> {
    builder: http1::Builder,
    /// The `Keep-Alive` value that announces how long a connection may idle.
    keep_alive: Option<HeaderValue>,
    handler: Arc<H>,
    limits: Limits,
    shutdown: watch::Receiver<bool>,
    crowd: Arc<Crowd>,
}

impl<H: Handler> Server<H> {
    fn too_many_headers(&self) -> Reply {
        let problem = Problem::new(&TOO_MANY_HEADERS, wire::TOO_MANY_HEADERS_DETAIL).close();
        self.handler.refused(problem.status());
        problem.into_reply()
    }

    /// Adds to a reply how long the connection may idle, if it stays open.
    fn say_how_long(&self, stays: bool, reply: &mut Reply) {
        // hyper says itself that the last answer is the last.
        let stays = stays && !self.shutdown.has_changed().unwrap_or(true);
        let headers = reply.headers_mut();
        if let Some(keep_alive) =
            self.keep_alive.as_ref().filter(|_| stays && !headers.contains_key(header::CONNECTION))
        {
            headers.insert(header::CONNECTION, CONNECTION_STAYS);
            headers.insert(KEEP_ALIVE, keep_alive.clone());
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, slot: Option<OwnedSemaphorePermit>) {
        let _open = Open::count(Arc::clone(&self.handler));
        // Replies are one write each: waiting to fill a segment only adds latency.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let turn = Arc::new(Turn::new());
        let wire = Wire::new(stream, Arc::clone(&self.handler), &self.limits, Arc::clone(&turn));
        let service = service_fn(|request: Request<Incoming>| {
            let handling = Turn::handle(&turn, request.version() == Version::HTTP_11);
            if request.headers().len() > self.limits.headers_max {
                return Either::Left(ready(Ok::<_, Infallible>(self.too_many_headers())));
            }
            if let Some(mut reply) = self.handler.handle_at_once(&request, peer, &handling) {
                self.say_how_long(stays(&request), &mut reply);
                return Either::Left(ready(Ok(reply)));
            }
            // In a box: hyper moves the future, and what is long would make the short one long, too.
            Either::Right(Box::pin(async {
                let (handling, request) = (handling, request);
                let stays = stays(&request);
                let mut reply = self.handler.handle(request, peer, &handling).await;
                handling.answered();
                self.say_how_long(stays, &mut reply);
                reply.body_mut().hold(handling);
                Ok(reply)
            }))
        });
        let connection = std::pin::pin!(self.builder.serve_connection(TokioIo::new(wire), service));
        let ended = self.drive(connection, |connection| connection.graceful_shutdown(), &turn).await;
        if let End::Connection(Err(error)) = &ended {
            tracing::debug!(%peer, %error, "connection ended");
        }
        note_end(&ended, &turn);
        drop(slot);
    }

    /// Drives a connection to its end: its own, that of its time, or that of the listener, then within the grace period
    /// that `shut_down` begins.
    async fn drive<C: Future>(
        &self,
        mut connection: Pin<&mut C>,
        shut_down: impl FnOnce(Pin<&mut C>),
        turn: &Arc<Turn>,
    ) -> End<C::Output> {
        let times = Times {
            head: self.limits.header_timeout,
            idle: self.limits.idle_timeout,
            request: self.limits.request_deadline,
        };
        let mut timer = std::pin::pin!(tokio::time::sleep(self.limits.header_timeout));
        let (mut shutdown, looks) = (self.shutdown.clone(), self.shutdown.clone());
        let place = self.crowd.enter(turn);
        // An error means that the sender is gone, which is a stop, too.
        let stop = async {
            tokio::select! {
                () = stopped(&mut shutdown) => {}
                () = place.evicted() => {}
            }
        };
        let stop = (stop, || place.is_evicted() || looks.has_changed().unwrap_or(true));
        match turn::drive(connection.as_mut(), stop, (turn, times), timer.as_mut()).await {
            // Unless it has begun to be answered since.
            End::Event if place.is_evicted() && turn.waits_since_ms().is_some() => End::Evicted,
            End::Event => {
                shut_down(connection.as_mut());
                let grace = (tokio::time::sleep(self.limits.drain_grace), || true);
                let last = turn::drive(connection, grace, (turn, times), timer).await;
                if matches!(last, End::Event) {
                    counter!(SHED_TOTAL, "limit" => "drain_grace_ms").increment(1);
                }
                last
            }
            ended => ended,
        }
    }
}

/// Counts what a bound has ended. An idle connection that timed out was not refused anything; one with half a head was.
fn note_end<T>(ended: &End<T>, turn: &Turn) {
    let limit = match ended {
        End::Late if turn.is_in_head() => "header_timeout_ms",
        End::Evicted => "connections_evicted",
        _ => return,
    };
    counter!(SHED_TOTAL, "limit" => limit).increment(1);
}

/// Counts a connection for as long as it is open.
struct Open<H: Handler>(Arc<H>);

impl<H: Handler> Open<H> {
    fn count(handler: Arc<H>) -> Self {
        handler.connections(1.0);
        Self(handler)
    }
}

impl<H: Handler> Drop for Open<H> {
    fn drop(&mut self) {
        self.0.connections(-1.0);
    }
}
