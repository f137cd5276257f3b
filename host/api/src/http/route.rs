//! Which paths there are, which methods they take, and which statuses they answer with: one table, which the router,
//! the `Allow` header, the metrics and the OpenAPI document all read.

use hyper::Method;
use hyper::header::HeaderValue;
use matchit::Router;

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// One target of a toggle kind.
    Toggle,
    /// Many targets of a toggle kind.
    ToggleMany,
    /// The actors on a target.
    ToggleActors,
    /// How durable a write is by now.
    ToggleStatus,
    /// One target of a counter kind.
    Counter,
    /// Many targets of a counter kind.
    CounterMany,
    /// How durable a hit is by now.
    CounterStatus,
    /// Creates of an ingest kind, and the list of one's own documents.
    Ingest,
    /// One document of an ingest kind.
    IngestDocument,
    /// Who of many members has a topic enabled.
    PreferenceLookup,
    /// The settings of one member.
    Preference,
    /// How durable a change of settings is by now.
    PreferenceStatus,
    /// A queue of a waiting room.
    Room,
    /// Arrivals at a queue.
    RoomTokens,
    /// How it stands with many.
    RoomStatus,
    /// How it stands with one; leaving.
    RoomToken,
    /// The end of a stay.
    RoomComplete,
    /// A longer stay.
    RoomExtend,
    /// Whether a token is good, for a service that asks.
    RoomVerify,
    /// The public keys of passes.
    Jwks,
    /// A named SQL read.
    Read,
    /// The OpenAPI document.
    OpenApi,
    /// Where to begin.
    Root,
    /// What belongs to an origin behind weir: no path of weir's own.
    Upstream,
    /// No route: for metrics.
    Unknown,
}

/// Every route of the API, in the order of the OpenAPI document.
pub(super) const ROUTES: [Route; 23] = [
    Route::Toggle,
    Route::ToggleMany,
    Route::ToggleActors,
    Route::ToggleStatus,
    Route::Counter,
    Route::CounterMany,
    Route::CounterStatus,
    Route::Ingest,
    Route::IngestDocument,
    Route::PreferenceLookup,
    Route::Preference,
    Route::PreferenceStatus,
    Route::Room,
    Route::RoomTokens,
    Route::RoomStatus,
    Route::RoomToken,
    Route::RoomComplete,
    Route::RoomExtend,
    Route::RoomVerify,
    Route::Jwks,
    Route::Read,
    Route::OpenApi,
    Route::Root,
];

impl Route {
    /// Its path pattern; also its name in metrics.
    pub(super) const fn pattern(self) -> &'static str {
        match self {
            Self::Toggle => "/v1/toggles/{kind}/{target}",
            Self::ToggleMany => "/v1/toggles/{kind}",
            Self::ToggleActors => "/v1/toggles/{kind}/{target}/actors",
            Self::ToggleStatus => "/v1/toggles/{kind}/{target}/status",
            Self::Counter => "/v1/counters/{kind}/{target}",
            Self::CounterMany => "/v1/counters/{kind}",
            Self::CounterStatus => "/v1/counters/{kind}/{target}/status",
            Self::Ingest => "/v1/ingest/{kind}",
            Self::IngestDocument => "/v1/ingest/{kind}/{target}",
            Self::PreferenceLookup => "/v1/preferences/{kind}/lookup",
            Self::Preference => "/v1/preferences/{kind}/{target}",
            Self::PreferenceStatus => "/v1/preferences/{kind}/{target}/status",
            Self::Room => "/v1/rooms/{kind}/{target}",
            Self::RoomTokens => "/v1/rooms/{kind}/{target}/tokens",
            Self::RoomStatus => "/v1/rooms/{kind}/{target}/status",
            Self::RoomToken => "/v1/rooms/{kind}/{target}/tokens/{token}",
            Self::RoomComplete => "/v1/rooms/{kind}/{target}/tokens/{token}/complete",
            Self::RoomExtend => "/v1/rooms/{kind}/{target}/tokens/{token}/extend",
            Self::RoomVerify => "/v1/rooms/{kind}/verify",
            Self::Jwks => "/.well-known/jwks.json",
            Self::Read => "/v1/reads/{kind}",
            Self::OpenApi => "/openapi.json",
            Self::Root => "/",
            Self::Upstream => "upstream",
            Self::Unknown => "none",
        }
    }

    /// The value of `Allow`.
    pub(super) const fn allow(self) -> HeaderValue {
        match self {
            Self::Toggle => HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS"),
            Self::Counter | Self::Ingest => HeaderValue::from_static("GET, HEAD, POST, OPTIONS"),
            Self::PreferenceLookup => HeaderValue::from_static("POST, OPTIONS"),
            Self::Preference => HeaderValue::from_static("GET, HEAD, PUT, PATCH, OPTIONS"),
            Self::RoomTokens | Self::RoomStatus | Self::RoomComplete | Self::RoomExtend | Self::RoomVerify => {
                HeaderValue::from_static("POST, OPTIONS")
            }
            Self::RoomToken => HeaderValue::from_static("GET, HEAD, DELETE, OPTIONS"),
            _ => HeaderValue::from_static("GET, HEAD, OPTIONS"),
        }
    }

    /// The methods that do something of their own; `HEAD` is `GET`, `OPTIONS` says `Allow`.
    pub(super) const fn methods(self) -> &'static [Method] {
        match self {
            Self::Toggle => &[Method::GET, Method::POST, Method::PUT, Method::DELETE],
            Self::Counter | Self::Ingest => &[Method::GET, Method::POST],
            Self::PreferenceLookup => &[Method::POST],
            Self::Preference => &[Method::GET, Method::PUT, Method::PATCH],
            Self::RoomTokens | Self::RoomStatus | Self::RoomComplete | Self::RoomExtend | Self::RoomVerify => {
                &[Method::POST]
            }
            Self::RoomToken => &[Method::GET, Method::DELETE],
            _ => &[Method::GET],
        }
    }

    /// Every status that a method of this route can be answered with, besides those of malformed HTTP (405, 414, 417,
    /// 431), which every route shares.
    pub(super) fn statuses(self, method: &Method) -> &'static [u16] {
        match (self, method) {
            (Self::Toggle, &Method::GET) => &[200, 400, 401, 404, 503],
            (Self::Toggle, _) => &[200, 400, 401, 403, 404, 408, 413, 415, 422, 429, 503],
            (Self::ToggleMany, _) => &[200, 400, 401, 404, 503],
            (Self::ToggleActors, _) => &[200, 400, 401, 404, 503],
            (Self::ToggleStatus, _) => &[200, 400, 401, 404, 503],
            (Self::Counter, &Method::GET) => &[200, 400, 404, 503],
            (Self::Counter, _) => &[200, 400, 401, 404, 408, 409, 413, 415, 422, 429, 503],
            (Self::CounterMany | Self::CounterStatus, _) => &[200, 400, 404, 503],
            (Self::Ingest, &Method::GET) => &[200, 400, 401, 404, 503],
            (Self::Ingest, _) => &[201, 202, 400, 401, 404, 408, 409, 413, 415, 422, 503],
            (Self::IngestDocument, _) => &[200, 400, 401, 404, 503],
            (Self::PreferenceLookup, _) => &[200, 400, 404, 408, 413, 415, 422, 503],
            (Self::Preference, &Method::GET) => &[200, 400, 404, 503],
            (Self::Preference, _) => &[200, 400, 401, 403, 404, 408, 413, 415, 422, 503],
            (Self::PreferenceStatus, _) => &[200, 400, 404, 503],
            (Self::Room, _) => &[200, 400, 404, 503],
            (Self::RoomTokens, _) => &[200, 201, 400, 401, 403, 404, 408, 413, 415, 503],
            (Self::RoomStatus, _) => &[200, 400, 404, 408, 413, 415, 503],
            (Self::RoomToken, _) => &[200, 400, 403, 404, 410, 503],
            (Self::RoomComplete | Self::RoomExtend, _) => &[200, 400, 403, 404, 408, 409, 410, 413, 415, 503],
            (Self::RoomVerify, _) => &[200, 400, 403, 404, 408, 410, 413, 415, 503],
            (Self::Read, _) => &[200, 304, 400, 404, 503],
            _ => &[200, 400, 503],
        }
    }

    /// Its place in tables.
    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

/// Statuses that a request can meet on any path: they concern HTTP itself.
pub(super) const SHARED_STATUSES: [u16; 4] = [405, 414, 417, 431];

/// What a path led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found<'path> {
    pub(super) route: Route,
    /// Still percent-encoded; empty where the route has none.
    pub(super) kind: &'path str,
    /// Still percent-encoded; empty where the route has none.
    pub(super) target: &'path str,
    /// The token of a waiting room; empty where the route has none.
    pub(super) token: &'path str,
}

/// The same as places in the path, for those who have it at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FoundAt {
    route: Route,
    kind: Span,
    target: Span,
    token: Span,
}

/// From where to where; a path is far shorter than this can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    from: u32,
    to: u32,
}

impl Span {
    /// Of a part of `path`, or of the empty text.
    fn of(path: &str, part: &str) -> Self {
        let from = (part.as_ptr() as usize).checked_sub(path.as_ptr() as usize).filter(|_| !part.is_empty());
        let from = from.and_then(|from| u32::try_from(from).ok()).unwrap_or_default();
        Self { from, to: from.saturating_add(u32::try_from(part.len()).unwrap_or_default()) }
    }

    fn within(self, path: &str) -> &str {
        path.get(self.from as usize..self.to as usize).unwrap_or_default()
    }
}

impl FoundAt {
    fn new(path: &str, found: &Found<'_>) -> Self {
        let span = |part| Span::of(path, part);
        Self { route: found.route, kind: span(found.kind), target: span(found.target), token: span(found.token) }
    }

    /// In the path that it was found in.
    pub(super) fn within(self, path: &str) -> Found<'_> {
        let Self { route, kind, target, token } = self;
        Found { route, kind: kind.within(path), target: target.within(path), token: token.within(path) }
    }
}

/// The name of the read, still percent-encoded, where the path is that of [`Route::Read`].
pub(super) fn read_name(path: &str) -> Option<&str> {
    path.strip_prefix("/v1/reads/").filter(|name| !name.is_empty() && !name.contains('/'))
}

/// Finds routes.
pub(super) struct Routes(Router<Route>);

impl Routes {
    pub(super) fn new() -> Result<Self, matchit::InsertError> {
        let mut router = Router::new();
        for route in ROUTES {
            router.insert(route.pattern(), route)?;
        }
        Ok(Self(router))
    }

    /// As [`Routes::find`], for a path that moves.
    pub(super) fn find_at(&self, path: &str) -> Option<FoundAt> {
        self.find(path).map(|found| FoundAt::new(path, &found))
    }

    pub(super) fn find<'path>(&self, path: &'path str) -> Option<Found<'path>> {
        let found = self.0.at(path).ok()?;
        let param = |name| found.params.get(name).unwrap_or_default();
        Some(Found { route: *found.value, kind: param("kind"), target: param("target"), token: param("token") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_exactly() {
        let routes = Routes::new().unwrap();
        let route = |path| routes.find(path).map(|found| found.route);
        assert_eq!(route("/"), Some(Route::Root));
        assert_eq!(route("/openapi.json"), Some(Route::OpenApi));
        assert_eq!(route("/v1/toggles/feed-like"), Some(Route::ToggleMany));
        assert_eq!(route("/v1/toggles/feed-like/3"), Some(Route::Toggle));
        assert_eq!(route("/v1/toggles/feed-like/3/actors"), Some(Route::ToggleActors));
        assert_eq!(route("/v1/toggles/feed-like/3/status"), Some(Route::ToggleStatus));
        assert_eq!(route("/v1/counters/video-view/3"), Some(Route::Counter));
        assert_eq!(route("/v1/ingest/playlist"), Some(Route::Ingest));
        assert_eq!(route("/v1/ingest/playlist/3"), Some(Route::IngestDocument));
        assert_eq!(route("/v1/preferences/notification/lookup"), Some(Route::PreferenceLookup));
        assert_eq!(route("/v1/preferences/notification/3"), Some(Route::Preference));
        assert_eq!(route("/v1/rooms/concert/1"), Some(Route::Room));
        assert_eq!(route("/v1/rooms/concert/verify"), Some(Route::RoomVerify));
        assert_eq!(route("/v1/rooms/concert/1/tokens"), Some(Route::RoomTokens));
        assert_eq!(route("/v1/rooms/concert/1/tokens/a.b.c"), Some(Route::RoomToken));
        assert_eq!(route("/v1/rooms/concert/1/tokens/a.b.c/extend"), Some(Route::RoomExtend));
        assert_eq!(route("/v1/reads/concert-dates"), Some(Route::Read));
        for unknown in
            ["", "*", "//", "/v1", "/v1/toggles", "/v1/toggles/", "/v1/toggles//3", "/v1/toggles/k/3/", "/V1"]
        {
            assert_eq!(route(unknown), None, "{unknown}");
        }
        for path in ["/v1/reads/concert-dates", "/v1/reads/a%2Fb", "/v1/reads/", "/v1/reads/a/b", "/v1/reads"] {
            let found = routes.find(path).filter(|found| found.route == Route::Read);
            assert_eq!(read_name(path), found.map(|found| found.kind), "{path}");
        }
        for path in
            ["/", "/v1/toggles/a%2Fb/c%20d/actors", "/v1/rooms/concert/1/tokens/a.b.c", "/v1/rooms/concert/verify"]
        {
            let moved = path.to_owned();
            assert_eq!(routes.find_at(path).unwrap().within(&moved), routes.find(path).unwrap(), "{path}");
        }
        let found = routes.find("/v1/toggles/a%2Fb/c%20d").unwrap();
        assert_eq!((found.kind, found.target), ("a%2Fb", "c%20d"));
    }

    #[test]
    fn allow_names_the_methods() {
        for route in ROUTES {
            let allow = route.allow();
            let allowed: Vec<_> = allow.to_str().unwrap().split(", ").collect();
            for method in route.methods() {
                assert!(allowed.contains(&method.as_str()), "{route:?} {method}");
            }
            let besides = if route.methods().contains(&Method::GET) { 2 } else { 1 };
            assert_eq!(allowed.len(), route.methods().len() + besides, "OPTIONS besides, and HEAD where GET is");
        }
    }
}
