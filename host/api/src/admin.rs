//! The operators' listener: whether the host is alive and ready, what waits, what was given up, why a pair is as it is,
//! and which rules serve. Operators also upload new rules here.
//!
//! May use the floor and `listener`. What it shows and does comes through [`Operations`], which `app` implements, in
//! the types of [`weir_core::operators`]; so it never touches store, sql or policy. It is never served on the public
//! listener.
//!
//! With a token, `/admin/` and `/metrics` ask for it. Without, the listener is bound to loopback (the configuration
//! sees to it), peers must be on loopback, and `Host` must be a loopback name, so that a web page cannot reach it under
//! a name of its own; nor may one send it a write from another origin.

mod cache;
mod gate;
mod guard;
mod openapi;
mod operations;
mod policies;
mod query;
mod reply;
mod routes;
mod upload;

pub mod testing;
mod tests;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use matchit::{Params, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use cache::{Purge, PurgeTarget};
pub use gate::Gate;
use guard::Guard;
pub use operations::{ModuleCommand, Operations, OperationsError, Upload};
pub use policies::PolicyLimits;
use policies::PolicyService;
use query::Query;
use reply::{from_error, wrong};
use routes::{PolicyRoute, Route};
use weir_core::config::{AdminConfig, ConfigError};
use weir_core::operators::{Alive, Done, Purged, Ready};
use weir_listener::body::{self, BodyLimits};
use weir_listener::cors::{Cors, PageRequest};
use weir_listener::forwarded::Trust;
use weir_listener::problem::{METHOD_NOT_ALLOWED, Problem, problem_types};
use weir_listener::text::{decode_query_value, decode_segment, query_parts};
use weir_listener::{self, Handler, Handling, Limits, Reply, head};

problem_types! { ADMIN_TYPES:
    BAD_REQUEST = 400 "admin-bad-request" "The request is not understood";
    TOKEN_REQUIRED = 401 "admin-token-required" "The operators' token is required";
    NOT_FROM_HERE = 403 "admin-not-from-here" "Not allowed from here";
    NOT_FOUND = 404 "admin-not-found" "There is nothing at this path";
    CONFLICT = 409 "admin-conflict" "It cannot be done in the present state";
    REFUSED = 422 "admin-module-refused" "The policy module is not good";
    UNAVAILABLE = 503 "admin-unavailable" "What it needs is not available";
}

/// Connections of operators, their tools and probes.
pub const CONNECTIONS_MAX: usize = 64;
/// Bounds of this listener. Operators and their tools are few; a flood is a mistake.
const LIMITS: Limits = Limits {
    connections_max: CONNECTIONS_MAX,
    spare_files: 4,
    header_bytes_max: 8192,
    headers_max: 64,
    // Two ids of the longest text, percent-encoded, and the path.
    uri_bytes_max: 2048,
    header_timeout: Duration::from_secs(10),
    // Of scrapers that come once a minute.
    idle_timeout: Duration::from_secs(75),
    write_timeout: weir_listener::WRITE_TIMEOUT,
    drain_grace: Duration::from_secs(2),
    // The handlers of this listener set timers of their own.
    request_deadline: Duration::from_secs(60),
};
/// The methods allowed to pages of other origins, if any are allowed. The list is the same for every path, since a
/// preflight has no token and must not learn which paths exist.
const METHODS: &str = "GET, HEAD, POST, DELETE";
const BODY_LIMITS: BodyLimits = BodyLimits { bytes_max: 1024, timeout: Duration::from_secs(5) };
/// Time for one operation.
const OPERATION_DEADLINE: Duration = Duration::from_secs(10);
/// Dead letters in one list when the caller does not say, and at most.
const DEAD_LETTERS_LIMIT_DEFAULT: usize = 100;
const DEAD_LETTERS_LIMIT_MAX: usize = 1000;
/// Most arrivals of one page.
const ARRIVALS_LIMIT_MAX: usize = 10_000;

const PAGE: &str = include_str!("admin/dashboard.html");
const SCRIPT: &str = include_str!("admin/dashboard.js");
const STYLE: &str = include_str!("admin/dashboard.css");
/// Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that answers operators.
pub struct AdminState {
    operations: Arc<dyn Operations>,
    policies: PolicyService,
    routes: Router<Route>,
    guard: Guard,
    trust: Trust,
    cors: Option<Cors>,
    openapi: Bytes,
}

impl AdminState {
    /// Reads the token.
    ///
    /// # Errors
    /// A token file that cannot be read or holds too little.
    pub fn new(
        config: &AdminConfig,
        limits: PolicyLimits,
        operations: Arc<dyn Operations>,
    ) -> Result<Self, ConfigError> {
        let routes = routes::router()
            .map_err(|error| ConfigError::Value { field: "admin".into(), reason: format!("routes: {error}") })?;
        let policies = PolicyService::new(Arc::clone(&operations), limits);
        let guard = Guard::new(config.read_token()?.as_deref());
        let cors = Cors::new(&config.cors, None);
        let openapi = openapi::document().to_string().into();
        Ok(Self { operations, policies, routes, guard, trust: Trust::from(config), cors, openapi })
    }

    /// From now on operators need this token, or none.
    pub fn set_token(&self, token: Option<&str>) {
        self.guard.set_token(token);
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        page: Option<&PageRequest<'_>>,
    ) -> Result<Reply, Problem> {
        head::check(&request, LIMITS.uri_bytes_max)?;
        let (head, body) = request.into_parts();
        let peer = SocketAddr::new(self.trust.caller(&head.headers, peer.ip()).client, peer.port());
        if let Some(reply) = page.and_then(|page| page.preflight(&head.headers, &HeaderValue::from_static(METHODS))) {
            return Ok(reply);
        }
        let is_named = page.is_some_and(PageRequest::is_named);
        self.guard.check_origin(&head, peer.ip(), is_named)?;
        let found = self.routes.at(head.uri.path()).ok();
        // An unknown path needs the token like a known one: without it, a caller cannot learn which paths exist.
        if !found.as_ref().is_some_and(|found| found.value.is_open()) {
            self.guard.check_token(&head.headers)?;
        }
        let Some(found) = found else { return Err(Problem::new(&NOT_FOUND, "see / for a page to begin with")) };
        let route = *found.value;
        if !route.takes(&head.method) {
            let problem = Problem::new(&METHOD_NOT_ALLOWED, "use a method that Allow names");
            return Err(problem.header(header::ALLOW, HeaderValue::from_static(route.allow())));
        }
        let params = &found.params;
        let writes = head.method == Method::POST || head.method == Method::DELETE;
        if let (Route::Policy(PolicyRoute::All), true) = (route, writes) {
            return self.policies.upload(&head, body, peer).await;
        }
        if !body.is_end_stream() {
            body::check_says_nothing(&body::read(body, BODY_LIMITS).await?)?;
        }
        if let (Route::Policy(route), true) = (route, writes) {
            return self.policies.command(route, param(params, "module")?, &head, peer).await;
        }
        if (route, writes) == (Route::Flush, true) {
            let query = Query::read(&head, &["kind"])?;
            return answered(self.operations.flush_now(query.get("kind")).await);
        }
        tokio::time::timeout(OPERATION_DEADLINE, self.operation(route, params, &head)).await.unwrap_or_else(|_| {
            Err(Problem::new(&UNAVAILABLE, "no answer within 10 s; what was asked for may have been done"))
        })
    }

    /// Everything but uploads, commands and flushes, which have deadlines of their own.
    async fn operation(&self, route: Route, params: &Params<'_, '_>, head: &Parts) -> Result<Reply, Problem> {
        let operations = &*self.operations;
        let param = |name| param(params, name);
        match route {
            Route::Page => Ok(reply::page(PAGE, "text/html; charset=utf-8")),
            Route::Script => Ok(reply::page(SCRIPT, "text/javascript; charset=utf-8")),
            Route::Style => Ok(reply::page(STYLE, "text/css; charset=utf-8")),
            Route::OpenApi => Ok(reply::page(self.openapi.clone(), "application/json")),
            Route::Metrics => Ok(reply::page(operations.metrics(), METRICS_TYPE)),
            Route::Alive => Ok(alive(operations.stuck())),
            Route::Ready => Ok(ready(operations.readiness().await.into())),
            Route::Policy(route) => self.policies.look(route, head).await,
            Route::DeadLetters => self.dead_letters(head).await,
            Route::DeadLetter => done(operations.drop_dead_letter(dead_letter_id(&param("id")?)?).await),
            Route::Replay => done(operations.replay_dead_letter(dead_letter_id(&param("id")?)?).await),
            Route::Holes => answered(operations.journal_holes(Query::read(head, &["kind"])?.get("kind")).await),
            Route::AcknowledgeHoles => answered(operations.acknowledge_holes(&param("kind")?).await),
            Route::Explain => {
                let (kind, target, actor) = (param("kind")?, param("target")?, param("actor")?);
                answered(operations.explain(&kind, &target, Some(&actor)).await)
            }
            Route::ExplainTarget => answered(operations.explain(&param("kind")?, &param("target")?, None).await),
            Route::Arrivals => {
                let query = Query::read(head, &["skip", "limit"])?;
                let skip = query.get("skip").map_or(Ok(0), str::parse);
                let skip = skip.map_err(|_| wrong("skip must be a number"))?;
                let limit = query.limit("limit", ARRIVALS_LIMIT_MAX, ARRIVALS_LIMIT_MAX)?;
                answered(operations.room_arrivals(&param("kind")?, &param("queue")?, skip, limit).await)
            }
            Route::Flush => answered(operations.flush_status().await),
            Route::Cache => answered(operations.cache().await),
            Route::Purge => {
                let purged = operations.purge_cache(cache::purge(head)?).await;
                answered(purged.map(|()| Purged { purged: true }))
            }
        }
    }

    async fn dead_letters(&self, head: &Parts) -> Result<Reply, Problem> {
        let (mut kind, mut after, mut limit) = (None, 0, DEAD_LETTERS_LIMIT_DEFAULT);
        for (name, value) in query_parts(head.uri.query()) {
            let value = decode_query_value(value).map_err(|error| wrong(format!("{name}: {error}")))?;
            match name {
                "kind" => kind = Some(value),
                "after" => after = value.parse().map_err(|_| wrong("after must be the id of a dead letter"))?,
                "limit" => {
                    let parsed = value.parse().ok().filter(|limit| (1..=DEAD_LETTERS_LIMIT_MAX).contains(limit));
                    limit = parsed.ok_or_else(|| wrong(format!("limit must be from 1 to {DEAD_LETTERS_LIMIT_MAX}")))?;
                }
                _ => return Err(wrong("only kind, after and limit are known here")),
            }
        }
        answered(self.operations.dead_letters(kind.as_deref(), after, limit).await)
    }
}

fn answered<T: Serialize>(answer: Result<T, OperationsError>) -> Result<Reply, Problem> {
    answer.map(|answer| reply::json(StatusCode::OK, &answer)).map_err(|error| from_error(&error))
}

fn done(result: Result<(), OperationsError>) -> Result<Reply, Problem> {
    answered(result.map(|()| Done { done: true }))
}

fn alive(stuck: Option<String>) -> Reply {
    let status = if stuck.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    reply::json(status, &Alive { alive: stuck.is_none(), reason: stuck })
}

fn ready(ready: Ready) -> Reply {
    let status = if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    reply::json(status, &ready)
}

fn param(params: &Params<'_, '_>, name: &str) -> Result<String, Problem> {
    let text = params.get(name).unwrap_or_default();
    decode_segment(text).map(Cow::into_owned).map_err(|error| wrong(format!("{name}: {error}")))
}

fn dead_letter_id(text: &str) -> Result<i64, Problem> {
    text.parse().map_err(|_| wrong("give the number of a dead letter"))
}

impl Handler for AdminState {
    async fn handle(&self, request: Request<Incoming>, peer: SocketAddr, _handling: &Handling) -> Reply {
        let page = self.cors.as_ref().map(|cors| cors.look(request.method(), request.headers()));
        let mut reply = self.answer(request, peer, page.as_ref()).await.unwrap_or_else(Problem::into_reply);
        if let Some(page) = page {
            page.write(reply.headers_mut());
        }
        reply
    }
}

/// Serves operators until `shutdown` holds `true`; from the start on through a [`Gate`].
pub async fn serve<H: Handler>(listener: TcpListener, handler: Arc<H>, shutdown: watch::Receiver<bool>) {
    weir_listener::serve(listener, handler, LIMITS, shutdown).await;
}
