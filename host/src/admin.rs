//! The operators' listener: is it alive, is it ready, what waits, what was given up, why is a pair as it is, and which
//! rules serve; new ones come in here.
//!
//! Tier 4: imports tiers 0 and 1 (`listener`). What it shows and does comes through [`Operations`], which `app`
//! implements; so it never touches store, sql or policy. It is never served on the public listener.
//!
//! With a token, `/admin/` and `/metrics` ask for it. Without, the listener is bound to loopback (the configuration
//! sees to it), peers must be on loopback, and `Host` must be a loopback name, so that a web page cannot reach it under
//! a name of its own; nor may one send it a write from another origin.

mod cache;
mod gate;
mod guard;
mod policies;
mod query;
mod reply;
mod routes;
mod upload;

pub(crate) mod testing;
mod tests;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use matchit::{Params, Router};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::{AdminConfig, ConfigError};
use crate::listener::body::{self, BodyLimits};
use crate::listener::cors::{self, Cors};
use crate::listener::forwarded::Trust;
use crate::listener::problem::{METHOD_NOT_ALLOWED, Problem, problem_types};
use crate::listener::text::{decode_query_value, decode_segment, query_parts};
use crate::listener::{self, Handler, Handling, Limits, Reply, head};
pub use cache::{Purge, Purged};
pub use gate::Gate;
use guard::Guard;
use policies::PolicyDesk;
pub use policies::PolicyLimits;
use query::Query;
use reply::{from_error, wrong};
use routes::{PolicyRoute, Route};

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
    write_timeout: listener::WRITE_TIMEOUT,
    drain_grace: Duration::from_secs(2),
    // The handlers of this listener set timers of their own.
    request_deadline: Duration::from_secs(60),
};
/// What pages of other origins may do where they may do something: a preflight has no token, and learns nothing of paths.
const METHODS: &str = "GET, HEAD, POST, DELETE";
const BODY_LIMITS: BodyLimits = BodyLimits { bytes_max: 1024, timeout: Duration::from_secs(5) };
/// Time for one operation.
const OPERATION_DEADLINE: Duration = Duration::from_secs(10);
/// Dead letters in one list when the caller does not say, and at most.
const LETTERS_LIMIT_DEFAULT: usize = 100;
const LETTERS_LIMIT_MAX: usize = 1000;
/// Most arrivals of one page.
const ARRIVALS_LIMIT_MAX: usize = 10_000;

const PAGE: &str = include_str!("admin/dashboard.html");
const SCRIPT: &str = include_str!("admin/dashboard.js");
const STYLE: &str = include_str!("admin/dashboard.css");
/// Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One thing that must hold before the host is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name, such as `store` or `sql`.
    pub name: String,
    /// Whether it holds.
    pub ready: bool,
    /// What is wrong, or how it is.
    pub detail: String,
}

/// Why an operation was not done. The text reaches the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperationsError {
    /// No such kind, letter or id: 404.
    #[error("{0}")]
    NotFound(String),
    /// An id or number that is none: 400.
    #[error("{0}")]
    Invalid(String),
    /// It still cannot be done, such as a dead letter that SQL refuses again: 409.
    #[error("{0}")]
    Conflict(String),
    /// A policy module that is not good: 422, with the word as `code`.
    #[error("{reason}")]
    Refused {
        /// A stable word, such as `trap` or `unknown-import`.
        code: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Store or SQL is away, or too much is going on: 503.
    #[error("{0}")]
    Unavailable(String),
}

/// A component that an operator hands in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upload {
    /// The component.
    pub bytes: Bytes,
    /// Its name; else the one that it carries, else `unnamed`.
    pub name: Option<String>,
    /// Its version; else the one that it carries.
    pub version: Option<String>,
    /// Text of a file of test vectors, run besides those that it carries.
    pub vectors: Option<String>,
    /// Activate it, when it is good.
    pub activate: bool,
}

/// What can be done with modules that were uploaded. `module` is a digest, the beginning of one (6 digits or more), a
/// name (the youngest with it), or `name@version`.
#[derive(Debug, Clone, PartialEq)]
pub enum ModuleCommand {
    /// It serves everything that it exports, or only `interfaces` if any are named.
    Activate {
        /// The module.
        module: String,
        /// Such as `toggle`.
        interfaces: Vec<String>,
    },
    /// It decides besides, and only what differs is noted.
    Shadow {
        /// The module.
        module: String,
        /// Share of the batches, above 0, at most 1.
        share: f64,
    },
    /// It serves a share of the targets, until it is activated, ended, or rolled back because it failed.
    Canary {
        /// The module.
        module: String,
        /// Share of the targets, above 0, at most 1.
        share: f64,
    },
    /// The shadow ends; its report stays until another begins.
    EndShadow,
    /// The canary ends; its report stays until another begins.
    EndCanary,
    /// The set before the last activation serves again.
    Rollback,
    /// It is removed from the registry. One that serves, or would after a rollback, is not: 409.
    Delete {
        /// The module.
        module: String,
    },
}

/// What operators can see and do. Every method is bounded by a deadline of this room. Uploads and commands run on a task
/// of their own: beyond their deadline, or when the caller has gone, they go on to their end.
#[async_trait]
pub trait Operations: Send + Sync + 'static {
    /// Why only a restart may help; nothing while the host works, or mends itself.
    fn stuck(&self) -> Option<String> {
        None
    }
    /// Every check, those that hold too. Ready is when all hold.
    async fn readiness(&self) -> Vec<Check>;
    /// `{"kinds":[{"kind":…,"backlog":{"entries":…,"bytes":…,"oldest_age_ms":…},"lease":…,"dead_letters":…,
    /// "checkpoints":[{"partition":…,"incarnation":…,"epoch":…,"position":…}]}]}`. The dashboard shows every plain field
    /// of a kind, and of an object in it, as a column. `entries` stands once per kind: callers add it up.
    async fn flush_status(&self) -> Result<Value, OperationsError>;
    /// Which module serves which interface, what is being tried, and the registry; see `host/docs/rules.md`.
    async fn policies(&self) -> Result<Value, OperationsError>;
    /// Flushes now all that waits of a kind, or of all: `{"kinds":[{"kind":…,"flushed":…}]}`. Bounds its own time.
    async fn flush_now(&self, kind: Option<&str>) -> Result<Value, OperationsError>;
    /// Takes a component into the registry if it is good. `by` says who asks.
    async fn upload_policy(&self, by: &str, upload: Upload) -> Result<Value, OperationsError>;
    /// Does it, and says what holds afterwards.
    async fn command_policy(&self, by: &str, command: ModuleCommand) -> Result<Value, OperationsError>;
    /// What shadow and canary have shown so far.
    async fn policy_diff(&self) -> Result<Value, OperationsError>;
    /// The last `limit` lines of the audit log, newest first: `{"audit":[…]}`.
    async fn policy_audit(&self, limit: usize) -> Result<Value, OperationsError>;
    /// Dead letters of a kind or of all, oldest first, with an id above `after`: `{"dead_letters":[…]}`.
    async fn dead_letters(&self, kind: Option<&str>, after: i64, limit: usize) -> Result<Value, OperationsError>;
    /// Tries to store one again; it is gone afterwards.
    async fn replay_dead_letter(&self, id: i64) -> Result<(), OperationsError>;
    /// Drops one.
    async fn drop_dead_letter(&self, id: i64) -> Result<(), OperationsError>;
    /// What journals of a kind or of all have lost before it was in SQL, newest first: `{"holes":[…]}`.
    async fn journal_holes(&self, kind: Option<&str>) -> Result<Value, OperationsError>;
    /// Takes note of the holes of a kind, which end to keep the host from being ready: `{"acknowledged":n}`.
    async fn acknowledge_holes(&self, kind: &str) -> Result<Value, OperationsError>;
    /// Everything known of one pair.
    async fn explain(&self, kind: &str, target: &str, actor: Option<&str>) -> Result<Value, OperationsError>;
    /// Every read: its rule, requests, hit ratio, costs; and the memory of the caches.
    async fn cache(&self) -> Result<Value, OperationsError>;
    /// Invalidates what is kept, on all hosts.
    async fn purge_cache(&self, purge: Purge) -> Result<Value, OperationsError>;
    /// Who takes part in the draw of a queue, in the order of arrival, from the `skip`th, at most `limit`:
    /// `{"arrivals":[…]}`.
    async fn room_arrivals(&self, kind: &str, queue: &str, skip: u64, limit: usize) -> Result<Value, OperationsError>;
    /// The metrics in Prometheus' text format.
    fn metrics(&self) -> String;
}

/// Everything that answers operators.
pub struct AdminState {
    operations: Arc<dyn Operations>,
    policies: PolicyDesk,
    routes: Router<Route>,
    guard: Guard,
    trust: Trust,
    cors: Option<Cors>,
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
        let policies = PolicyDesk::new(Arc::clone(&operations), limits);
        let guard = Guard::new(config.read_token()?.as_deref());
        let cors = Cors::new(&config.cors, None);
        Ok(Self { operations, policies, routes, guard, trust: Trust::from(config), cors })
    }

    /// From now on operators need this token, or none.
    pub fn set_token(&self, token: Option<&str>) {
        self.guard.set_token(token);
    }

    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Result<Reply, Problem> {
        head::check(&request, LIMITS.uri_bytes_max)?;
        let (head, body) = request.into_parts();
        let peer = SocketAddr::new(self.trust.caller(&head.headers, peer.ip()).client, peer.port());
        let is_named = self.cors.as_ref().is_some_and(|cors| cors.names(cors::origin(&head.headers)));
        if let Some(cors) = self.cors.as_ref().filter(|_| cors::is_preflight(&head.method, &head.headers)) {
            return Ok(cors.preflight(&head.headers, &HeaderValue::from_static(METHODS)));
        }
        self.guard.check_origin(&head, peer.ip(), is_named)?;
        let found = self.routes.at(head.uri.path()).ok();
        // What is not there is answered like what is: without the token nobody learns which is which.
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
            let flushed = self.operations.flush_now(query.get("kind")).await;
            return flushed.map(|value| reply::json(StatusCode::OK, &value)).map_err(|error| from_error(&error));
        }
        tokio::time::timeout(OPERATION_DEADLINE, self.operation(route, params, &head)).await.unwrap_or_else(|_| {
            Err(Problem::new(&UNAVAILABLE, "no answer within 10 s; what was asked for may have been done"))
        })
    }

    /// Everything but uploads, commands and flushes, which have deadlines of their own.
    async fn operation(&self, route: Route, params: &Params<'_, '_>, head: &Parts) -> Result<Reply, Problem> {
        let param = |name| param(params, name);
        let answer = match route {
            Route::Page => return Ok(reply::page(PAGE, "text/html; charset=utf-8")),
            Route::Script => return Ok(reply::page(SCRIPT, "text/javascript; charset=utf-8")),
            Route::Style => return Ok(reply::page(STYLE, "text/css; charset=utf-8")),
            Route::Alive => match self.operations.stuck() {
                None => Ok(json!({ "alive": true })),
                Some(reason) => {
                    let body = json!({ "alive": false, "reason": reason });
                    return Ok(reply::json(StatusCode::SERVICE_UNAVAILABLE, &body));
                }
            },
            Route::Metrics => return Ok(reply::page(self.operations.metrics(), METRICS_TYPE)),
            Route::Ready => return Ok(self.ready().await),
            Route::Policy(route) => self.policies.look(route, head).await?,
            Route::Letters => self.letters(head).await?,
            Route::Letter => self.operations.drop_dead_letter(letter_id(&param("id")?)?).await.map(done),
            Route::Replay => self.operations.replay_dead_letter(letter_id(&param("id")?)?).await.map(done),
            Route::Holes => self.operations.journal_holes(Query::read(head, &["kind"])?.get("kind")).await,
            Route::AcknowledgeHoles => self.operations.acknowledge_holes(&param("kind")?).await,
            Route::Explain => {
                let (kind, target, actor) = (param("kind")?, param("target")?, param("actor")?);
                self.operations.explain(&kind, &target, Some(&actor)).await
            }
            Route::ExplainTarget => self.operations.explain(&param("kind")?, &param("target")?, None).await,
            Route::Arrivals => {
                let query = Query::read(head, &["skip", "limit"])?;
                let skip = query.get("skip").map_or(Ok(0), str::parse);
                let skip = skip.map_err(|_| wrong("skip must be a number"))?;
                let limit = query.limit("limit", ARRIVALS_LIMIT_MAX, ARRIVALS_LIMIT_MAX)?;
                self.operations.room_arrivals(&param("kind")?, &param("queue")?, skip, limit).await
            }
            Route::Flush => self.operations.flush_status().await,
            Route::Cache | Route::Purge => cache::answer(&*self.operations, head).await?,
        };
        answer.map(|value| reply::json(StatusCode::OK, &value)).map_err(|error| from_error(&error))
    }

    async fn ready(&self) -> Reply {
        let checks = self.operations.readiness().await;
        let not_ready: Vec<&str> = checks.iter().filter(|check| !check.ready).map(|check| &*check.name).collect();
        let status = if not_ready.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        reply::json(status, &json!({ "ready": not_ready.is_empty(), "not_ready": not_ready, "checks": checks }))
    }

    async fn letters(&self, head: &Parts) -> Result<Result<Value, OperationsError>, Problem> {
        let (mut kind, mut after, mut limit) = (None, 0, LETTERS_LIMIT_DEFAULT);
        for (name, value) in query_parts(head.uri.query()) {
            let value = decode_query_value(value).map_err(|error| wrong(format!("{name}: {error}")))?;
            match name {
                "kind" => kind = Some(value),
                "after" => after = value.parse().map_err(|_| wrong("after must be the id of a dead letter"))?,
                "limit" => {
                    let parsed = value.parse().ok().filter(|limit| (1..=LETTERS_LIMIT_MAX).contains(limit));
                    limit = parsed.ok_or_else(|| wrong(format!("limit must be from 1 to {LETTERS_LIMIT_MAX}")))?;
                }
                _ => return Err(wrong("only kind, after and limit are known here")),
            }
        }
        Ok(self.operations.dead_letters(kind.as_deref(), after, limit).await)
    }
}

fn param(params: &Params<'_, '_>, name: &str) -> Result<String, Problem> {
    let text = params.get(name).unwrap_or_default();
    decode_segment(text).map(Cow::into_owned).map_err(|error| wrong(format!("{name}: {error}")))
}

fn letter_id(text: &str) -> Result<i64, Problem> {
    text.parse().map_err(|_| wrong("give the number of a dead letter"))
}

fn done((): ()) -> Value {
    json!({ "done": true })
}

impl Handler for AdminState {
    async fn handle(&self, request: Request<Incoming>, peer: SocketAddr, _handling: &Handling) -> Reply {
        let Some(cors) = &self.cors else {
            return self.answer(request, peer).await.unwrap_or_else(Problem::into_reply);
        };
        let origin = cors::origin(request.headers()).cloned();
        let is_preflight = cors::is_preflight(request.method(), request.headers());
        let mut reply = self.answer(request, peer).await.unwrap_or_else(Problem::into_reply);
        if !is_preflight {
            cors.write(origin.as_ref(), reply.headers_mut());
        }
        reply
    }
}

/// Serves operators until `shutdown` holds `true`; from the start on through a [`Gate`].
pub async fn serve<H: Handler>(listener: TcpListener, handler: Arc<H>, shutdown: watch::Receiver<bool>) {
    listener::serve(listener, handler, LIMITS, shutdown).await;
}
