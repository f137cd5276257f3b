//! The public API: parse, bound, authenticate, route; map every cause to its one status.
//!
//! May use the floor, `listener`, `tls` and the capabilities. Never uses store, sql, policy or batcher, decides
//! no rule, and holds no state of a capability. What a connection may do at all is [`weir_listener`]'s; what a cause
//! becomes is `problem`'s; which paths there are is `route`'s, from which `openapi` is written.
//!
//! Strict where leniency hides mistakes: an unknown query parameter, a repeated header, a body with fields, a second
//! spelling of an id are 400. A request that is given up at its deadline may still be applied: only an
//! `Idempotency-Key` makes it safe to send again.

mod access;
mod counter;
mod front;
mod identity;
mod ingest;
mod json;
mod meter;
mod openapi;
mod preference;
mod problem;
mod query;
mod read;
mod reply;
mod room;
mod route;
mod shared;
mod toggle;
mod underway;

mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use metrics::counter;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use access::AccessLog;
use counter::CounterView;
use front::{Front, Visit};
use identity::Authenticator;
use ingest::IngestView;
use meter::{GET_METHOD, Meter, OTHER_METHOD, method_index};
use openapi::KindConfig;
use preference::PreferenceView;
use problem::{BAD_PATH, KIND_MISSING, ROUTE_MISSING, Repeatable, from_refusal, from_upstream};
use room::{Place, RoomView};
use route::{Found, FoundAt, Route, Routes};
use shared::Shared;
use toggle::KindView;
use underway::Underway;
use weir_core::clock::Clock;
use weir_core::config::{AuthConfig, ConfigError, HttpConfig};
use weir_core::error::Refusal;
use weir_core::model::Verb;
use weir_core::telemetry::{SHED_TOTAL, request};
use weir_listener::body::{self, BodyLimits};
use weir_listener::forwarded::Trust;
use weir_listener::head;
use weir_listener::problem::{BAD_BODY, METHOD_NOT_ALLOWED, Problem};
use weir_listener::text::decode_segment;
use weir_listener::{self, Handler, Handling, Limits, Reply};
use weir_queues::Rooms;
use weir_reads::read::Reads;
use weir_reads::upstream::{UPSTREAM_METHODS, Upstreams};
use weir_write::capability::{Capability, Kind, WrittenKinds};
use weir_write::counter::Counter;
use weir_write::ingest::Ingest;
use weir_write::preference::Preference;
use weir_write::toggle::Toggle;

/// `Allow` for `OPTIONS *`.
const ALLOW_ANYWHERE: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
/// What `PATCH` takes: both mean the same here.
const PATCH_TYPES: HeaderValue = HeaderValue::from_static("application/merge-patch+json, application/json");

/// All kinds, by capability.
#[derive(Clone, Default)]
pub struct Kinds {
    /// Those that are written behind.
    pub written: WrittenKinds,
    /// Waiting rooms.
    pub rooms: Rooms,
    /// SQL reads.
    pub reads: Reads,
    /// Origins behind weir.
    pub upstreams: Upstreams,
}

/// One kind of whatever capability. A name is configured once.
enum View {
    Toggle(KindView),
    Counter(CounterView),
    Ingest(IngestView),
    Preference(PreferenceView),
    Room(Arc<RoomView>),
}

/// Everything that answers requests. Make it after the metrics recorder is installed.
pub struct HttpState {
    limits: Limits,
    body_limits: ArcSwap<BodyLimits>,
    trust: Trust,
    requests: Underway,
    routes: Routes,
    kinds: BTreeMap<String, View>,
    reads: Reads,
    upstreams: Upstreams,
    shared: Shared,
    openapi: Bytes,
    root: Bytes,
    meter: Meter,
    front: Front,
}

impl HttpState {
    /// Reads keys and prepares what replies need.
    ///
    /// # Errors
    /// A key that cannot be read or does not fit its algorithm; a trusted header that is not a header name.
    pub fn new(config: &HttpConfig, auth: &AuthConfig, kinds: Kinds, clock: Clock) -> Result<Self, ConfigError> {
        let routes = Routes::new()
            .map_err(|error| ConfigError::Value { field: "http".into(), reason: format!("routes: {error}") })?;
        let Kinds { written, rooms, reads, upstreams } = kinds;
        let (toggles, counters) = (written.of::<Toggle>(), written.of::<Counter>());
        let (ingests, preferences) = (written.of::<Ingest>(), written.of::<Preference>());
        let root = serde_json::json!({
            "service": "weir",
            "version": env!("CARGO_PKG_VERSION"),
            "openapi": Route::OpenApi.pattern(),
            "toggles": names(&toggles),
            "counters": names(&counters),
            "ingest": names(&ingests),
            "preferences": names(&preferences),
            "rooms": rooms.kinds.keys().collect::<Vec<_>>(),
            "reads": reads.names(),
            "upstreams": upstreams.prefixes(),
        });
        let of_toggles = toggles.iter().map(|kind| KindConfig::Toggle(kind.config()));
        let of_counters = counters.iter().map(|kind| KindConfig::Counter(kind.config()));
        let of_ingests = ingests.iter().map(|kind| KindConfig::Ingest(kind.config()));
        let of_preferences = preferences.iter().map(|kind| KindConfig::Preference(kind.config()));
        let of_rooms = rooms.kinds.values().map(|kind| KindConfig::Room(kind.config()));
        let of_reads = reads.configs().map(KindConfig::Read);
        let configs: Vec<_> = of_toggles
            .chain(of_counters)
            .chain(of_ingests)
            .chain(of_preferences)
            .chain(of_rooms)
            .chain(of_reads)
            .collect();
        let openapi = openapi::document(&configs, config, auth).to_string().into();
        let of_toggles = named(toggles).map(|(name, kind)| (name, View::Toggle(KindView::new(kind))));
        let of_counters = named(counters).map(|(name, kind)| (name, View::Counter(CounterView::new(kind))));
        let of_ingests = named(ingests).map(|(name, kind)| (name, View::Ingest(IngestView::new(kind))));
        let of_preferences = named(preferences).map(|(name, kind)| (name, View::Preference(PreferenceView::new(kind))));
        let of_rooms = rooms.kinds.into_iter().map(|(name, kind)| (name, View::Room(Arc::new(RoomView::new(kind)))));
        let kinds: BTreeMap<_, _> =
            of_toggles.chain(of_counters).chain(of_ingests).chain(of_preferences).chain(of_rooms).collect();
        Ok(Self {
            limits: Limits::from(config),
            body_limits: ArcSwap::from_pointee(body_limits(config)),
            trust: Trust::from(config),
            requests: Underway::new(config.requests_max),
            routes,
            openapi,
            root: root.to_string().into(),
            shared: Shared::new(config, Authenticator::new(auth, clock.clone())?, clock),
            kinds,
            reads,
            upstreams,
            meter: Meter::new(),
            front: Front::new(config)?,
        })
    }

    /// With a line in this log for each request.
    #[must_use]
    pub fn with_access_log(mut self, log: Option<Arc<AccessLog>>) -> Self {
        if log.as_ref().is_some_and(|log| log.names_actors) {
            self.shared.authenticator.note_actors();
        }
        self.front.access = log;
        self
    }

    /// Reads published keys of tokens now, and from then on when they are due.
    pub async fn begin(&self) {
        self.shared.authenticator.begin().await;
    }

    /// Whether the published token keys are known, with details; `None` if no published keys are configured.
    pub fn check_keys(&self) -> Option<(bool, String)> {
        self.shared.authenticator.check()
    }

    fn body_limits(&self) -> BodyLimits {
        **self.body_limits.load()
    }

    /// What a reload can change, read anew: nothing holds until it is taken over.
    ///
    /// # Errors
    /// As [`HttpState::new`].
    pub fn prepare(config: &HttpConfig, auth: &AuthConfig, clock: Clock) -> Result<Reload, ConfigError> {
        let authenticator = Authenticator::new(auth, clock)?;
        Ok(Reload { authenticator, body_limits: body_limits(config), requests_max: config.requests_max })
    }

    /// Applies the reload from now on. Requests that have begun continue with the old settings.
    pub fn take_over(&self, reload: &Reload) {
        self.shared.authenticator.take_key(&reload.authenticator);
        self.body_limits.store(Arc::new(reload.body_limits));
        self.requests.set_max(reload.requests_max);
    }

    /// `head` has been checked. `found` is the match for its path. This function stores the route in `shown`.
    async fn answer(
        &self,
        head: &mut Parts,
        body: Incoming,
        (peer, handling): (SocketAddr, &Handling),
        (visit, shown): (&Visit<'_>, &OnceLock<Route>),
        found: Option<FoundAt>,
    ) -> Result<Reply, Problem> {
        let Some(_one) = self.requests.begin() else {
            counter!(SHED_TOTAL, "limit" => "requests_max").increment(1);
            return Err(from_refusal(&Refusal::Overloaded { queue: "http.requests_max" }, Repeatable::Yes));
        };
        let path = head.uri.path();
        if head.method == Method::OPTIONS && path == "*" {
            return Ok(reply::options(ALLOW_ANYWHERE));
        }
        let Some(found) = found.map(|found| found.within(path)) else {
            if let Some(reply) = visit.preflight(&head.headers, &HeaderValue::from_static(UPSTREAM_METHODS)) {
                return Ok(reply);
            }
            let caller = self.trust.caller(&head.headers, peer.ip());
            if let Some(upstream) = self.upstreams.find(path, caller.host.as_deref()) {
                let _ = shown.set(Route::Upstream);
                self.shared.authenticator.drop_untrusted(&mut head.headers, peer.ip());
                visit.write(&mut head.headers);
                let (nothing, ()) = Request::new(()).into_parts();
                let head = std::mem::replace(head, nothing);
                let answered = Box::pin(upstream.handle(head, body, caller, handling.interim())).await;
                return answered.map_err(|failure| from_upstream(&failure));
            }
            return Err(Problem::new(&ROUTE_MISSING, "see /openapi.json for the paths that there are"));
        };
        let route = found.route;
        let _ = shown.set(route);
        if head.method == Method::OPTIONS {
            if let Some(reply) = visit.preflight(&head.headers, &route.allow()) {
                return Ok(reply);
            }
            let mut reply = reply::options(route.allow());
            if route.methods().contains(&Method::PATCH) {
                reply.headers_mut().insert(ACCEPT_PATCH, PATCH_TYPES);
            }
            return Ok(reply);
        }
        let reads = head.method == Method::GET || head.method == Method::HEAD;
        let asked = if reads { &Method::GET } else { &head.method };
        if !route.methods().contains(asked) {
            let problem = Problem::new(&METHOD_NOT_ALLOWED, "use a method that Allow names");
            return Err(problem.header(header::ALLOW, route.allow()));
        }
        if reads && !body.is_end_stream() {
            return Err(Problem::new(&BAD_BODY, "GET and HEAD take no body").close());
        }
        match found.route {
            Route::OpenApi => Ok(reply::json(self.openapi.clone())),
            Route::Root => Ok(reply::json(self.root.clone())),
            Route::Jwks => Ok(reply::json(room_keys(&self.kinds))),
            Route::Read => Box::pin(read::answer(&self.reads, &self.shared, found.kind, head)).await,
            _ => {
                if let Some(unknown) = self.shared.authenticator.unknown_key(&head.headers) {
                    Box::pin(self.shared.authenticator.learn(&unknown)).await?;
                }
                self.of_kind(&found, head, body, peer.ip()).await
            }
        }
    }

    async fn of_kind(&self, found: &Found<'_>, head: &Parts, body: Incoming, peer: IpAddr) -> Result<Reply, Problem> {
        let kind = decode_segment(found.kind).map_err(|error| Problem::new(&BAD_PATH, format!("kind: {error}")))?;
        match (self.kinds.get(kind.as_ref()), found.route) {
            (
                Some(View::Toggle(view)),
                Route::Toggle | Route::ToggleMany | Route::ToggleActors | Route::ToggleStatus,
            ) => self.toggle(view, found, head, body, peer).await,
            (Some(View::Counter(view)), Route::Counter | Route::CounterMany | Route::CounterStatus) => {
                Box::pin(self.counter(view, found, head, body, peer)).await
            }
            (Some(View::Ingest(view)), Route::Ingest | Route::IngestDocument) => {
                Box::pin(self.ingest(view, found, head, body, peer)).await
            }
            (Some(View::Preference(view)), Route::Preference | Route::PreferenceLookup | Route::PreferenceStatus) => {
                Box::pin(self.preference(view, found, head, body, peer)).await
            }
            (
                Some(View::Room(view)),
                Route::Room
                | Route::RoomTokens
                | Route::RoomStatus
                | Route::RoomToken
                | Route::RoomComplete
                | Route::RoomExtend
                | Route::RoomVerify,
            ) => Box::pin(self.room(view, found, head, body, peer)).await,
            _ => Err(Problem::new(&KIND_MISSING, "see / for the kinds that there are")),
        }
    }

    async fn toggle(
        &self,
        view: &KindView,
        found: &Found<'_>,
        head: &Parts,
        body: Incoming,
        peer: IpAddr,
    ) -> Result<Reply, Problem> {
        let (shared, target) = (&self.shared, found.target);
        let verb = match (found.route, &head.method) {
            (Route::ToggleMany, _) => return Box::pin(view.read_many(shared, head, peer)).await,
            (Route::ToggleActors, _) => return Box::pin(view.actors(shared, head, peer, target)).await,
            (Route::ToggleStatus, _) => return Box::pin(view.status(shared, head, peer, target)).await,
            (_, &Method::POST) => Verb::Toggle,
            (_, &Method::PUT) => Verb::Set,
            (_, &Method::DELETE) => Verb::Clear,
            _ => return Box::pin(view.read(shared, head, peer, target)).await,
        };
        let write = view.read_write(shared, head, peer, verb, target)?;
        if !body.is_end_stream() {
            let bytes = body::read(body, self.body_limits()).await?;
            if !bytes.is_empty() {
                body::check_json_type(&head.headers)?;
                body::check_says_nothing(&bytes)?;
            }
        }
        view.write(shared, write).await
    }

    async fn counter(
        &self,
        view: &CounterView,
        found: &Found<'_>,
        head: &Parts,
        body: Incoming,
        peer: IpAddr,
    ) -> Result<Reply, Problem> {
        match (found.route, &head.method) {
            (Route::CounterMany, _) => view.read_many(&self.shared, head).await,
            (Route::CounterStatus, _) => view.status(&self.shared, head, found.target).await,
            (_, &Method::POST) => {
                let hit = view.read_hit(&self.shared, head, peer, found.target)?;
                let bytes = body::read(body, self.body_limits()).await?;
                if !bytes.is_empty() {
                    body::check_json_type(&head.headers)?;
                }
                view.count(&self.shared, hit, &bytes).await
            }
            _ => view.read(&self.shared, head, found.target).await,
        }
    }

    async fn ingest(
        &self,
        view: &IngestView,
        found: &Found<'_>,
        head: &Parts,
        body: Incoming,
        peer: IpAddr,
    ) -> Result<Reply, Problem> {
        match (found.route, &head.method) {
            (Route::IngestDocument, _) => view.read(&self.shared, head, peer, found.target).await,
            (_, &Method::POST) => {
                let create = view.read_create(&self.shared, head, peer)?;
                body::check_json_type(&head.headers)?;
                let limits = view.body_limits(self.body_limits());
                let announced = body.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok());
                let bytes_held = announced.unwrap_or(limits.bytes_max).min(limits.bytes_max);
                let _held = view
                    .kind()
                    .reserve(bytes_held)
                    .map_err(|refusal| from_refusal(&refusal, Repeatable::Yes).close())?;
                let bytes = body::read(body, limits).await?;
                view.create(&self.shared, create, bytes).await
            }
            _ => view.list(&self.shared, head, peer).await,
        }
    }
}

impl HttpState {
    async fn preference(
        &self,
        view: &PreferenceView,
        found: &Found<'_>,
        head: &Parts,
        body: Incoming,
        peer: IpAddr,
    ) -> Result<Reply, Problem> {
        match (found.route, &head.method) {
            (Route::PreferenceLookup, _) => view.lookup(&self.shared, head, body, self.body_limits()).await,
            (Route::PreferenceStatus, _) => view.status(&self.shared, head, found.target).await,
            (_, method @ (&Method::PUT | &Method::PATCH)) => {
                let put = view.read_put(&self.shared, head, peer, found.target)?;
                if method == Method::PATCH && preference::is_merge_patch(&head.headers) {
                    body::check_uncoded(&head.headers)?;
                } else {
                    body::check_json_type(&head.headers)?;
                }
                let bytes = body::read(body, self.body_limits()).await?;
                view.put(&self.shared, put, &bytes).await
            }
            _ => view.read(&self.shared, head, found.target).await,
        }
    }
}

impl HttpState {
    async fn room(
        &self,
        view: &Arc<RoomView>,
        found: &Found<'_>,
        head: &Parts,
        body: Incoming,
        peer: IpAddr,
    ) -> Result<Reply, Problem> {
        let place = Place { route: found.route, queue: found.target, token: found.token };
        if head.method == Method::GET && found.route == Route::RoomToken && room::wants_events(&head.headers) {
            return view.events(&self.shared, place).await;
        }
        let limits = self.body_limits();
        let bytes_max = room::body_bytes_max(found.route, self.shared.targets_max, limits.bytes_max);
        let bytes = body::read(body, BodyLimits { bytes_max, ..limits }).await?;
        if !bytes.is_empty() {
            body::check_json_type(&head.headers)?;
        }
        view.answer(&self.shared, place, head, &bytes, peer).await
    }
}

/// The names of kinds.
fn names<C: Capability>(kinds: &[Arc<Kind<C>>]) -> Vec<&str> {
    kinds.iter().map(|kind| C::kind(kind.config())).collect()
}

/// Kinds with their names.
fn named<C: Capability>(kinds: Vec<Arc<Kind<C>>>) -> impl Iterator<Item = (String, Arc<Kind<C>>)> {
    kinds.into_iter().map(|kind| (C::kind(kind.config()).to_owned(), kind))
}

/// The public keys of all waiting rooms, as a JSON Web Key Set.
fn room_keys(kinds: &BTreeMap<String, View>) -> Bytes {
    let mut keys: Vec<serde_json::Value> = Vec::new();
    for view in kinds.values() {
        if let View::Room(view) = view {
            keys.extend(view.keys());
        }
    }
    let mut distinct: Vec<serde_json::Value> = Vec::new();
    for key in keys {
        if !distinct.contains(&key) {
            distinct.push(key);
        }
    }
    serde_json::json!({ "keys": distinct }).to_string().into()
}

impl Handler for HttpState {
    fn handle_at_once(&self, request: &Request<Incoming>, peer: SocketAddr, handling: &Handling) -> Option<Reply> {
        if request.method() != Method::GET || !request.body().is_end_stream() {
            return None;
        }
        let name = route::read_name(request.uri().path())?;
        // What is refused is refused by `answer`, with its reason.
        head::check(request, self.limits.uri_bytes_max).ok()?;
        let _one = self.requests.begin()?;
        let mut reply = read::answer_at_once(&self.reads, name, (request.uri().query(), request.headers()))?;
        self.meter.answered(Route::Read, GET_METHOD, reply.status(), Some(handling.end()));
        let found = Found { route: Route::Read, kind: name, target: "", token: "" };
        let visit = self.enter(request, Some(&found), peer.ip(), handling.begun());
        self.leave(visit, None, &mut reply);
        Some(reply)
    }

    // What is done at once is done before there is a future, which would hold what it needs for it as long as it lives.
    fn handle(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        handling: &Handling,
    ) -> impl Future<Output = Reply> + Send {
        let method = method_index(request.method());
        let path = request.uri().path();
        let found = self.routes.find_at(path);
        let in_path = found.map(|found| found.within(path));
        let visit = self.enter(&request, in_path.as_ref(), peer.ip(), handling.begun());
        let checked = head::check(&request, self.limits.uri_bytes_max).map_err(Box::new);
        let (mut head, body) = request.into_parts();
        async move {
            let shown = OnceLock::new();
            let route = || shown.get().copied().unwrap_or(Route::Unknown);
            let (answered, actor) = match checked {
                Err(problem) => (Err(*problem), None),
                Ok(()) => {
                    // In its place: moved into another future it would be there twice.
                    let answering = pin!(self.answer(&mut head, body, (peer, handling), (&visit, &shown), found));
                    request::scope(visit.tag().cloned(), answering, |answered| {
                        if let Err(problem) = answered {
                            front::note_failure(problem, route(), &self.shared.clock);
                        }
                    })
                    .await
                }
            };
            let route = route();
            let mut reply = answered.unwrap_or_else(|problem| visit.refuse(problem));
            self.meter.answered(route, method, reply.status(), Some(handling.end()));
            self.leave(visit, actor, &mut reply);
            reply
        }
    }

    fn refused(&self, status: StatusCode) {
        let limit = match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Some("http.header_bytes_max"),
            StatusCode::URI_TOO_LONG => Some("http.uri_bytes_max"),
            _ => None,
        };
        if let Some(limit) = limit {
            counter!(SHED_TOTAL, "limit" => limit).increment(1);
        }
        self.meter.answered(Route::Unknown, OTHER_METHOD, status, None);
    }

    fn connections(&self, change: f64) {
        self.meter.connections(change);
    }
}

/// What a reload changes of the public API: the key of tokens, and limits of requests.
pub struct Reload {
    authenticator: Authenticator,
    body_limits: BodyLimits,
    requests_max: usize,
}

fn body_limits(config: &HttpConfig) -> BodyLimits {
    BodyLimits { bytes_max: config.body_bytes_max, timeout: Duration::from_millis(config.body_timeout_ms) }
}

/// Serves the public API until `shutdown` holds `true`, then drains within `http.drain_grace_ms`.
pub async fn serve(listener: TcpListener, state: Arc<HttpState>, shutdown: watch::Receiver<bool>) {
    let limits = state.limits;
    weir_listener::serve(listener, state, limits, shutdown).await;
}
