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
pub(super) const ROUTES: [Route; 12] = [
    Route::Toggle,
    Route::ToggleMany,
    Route::ToggleActors,
    Route::ToggleStatus,
    Route::Counter,
    Route::CounterMany,
    Route::CounterStatus,
    Route::Ingest,
    Route::IngestDocument,
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
            _ => HeaderValue::from_static("GET, HEAD, OPTIONS"),
        }
    }

    /// The methods that do something of their own; `HEAD` is `GET`, `OPTIONS` says `Allow`.
    pub(super) const fn methods(self) -> &'static [Method] {
        match self {
            Self::Toggle => &[Method::GET, Method::POST, Method::PUT, Method::DELETE],
            Self::Counter | Self::Ingest => &[Method::GET, Method::POST],
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
            (Self::Ingest, _) => &[202, 400, 401, 404, 408, 409, 413, 415, 422, 503],
            (Self::IngestDocument, _) => &[200, 400, 401, 404, 503],
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
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found<'path> {
    pub(super) route: Route,
    /// Still percent-encoded; empty where the route has none.
    pub(super) kind: &'path str,
    /// Still percent-encoded; empty where the route has none.
    pub(super) target: &'path str,
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

    pub(super) fn find<'path>(&self, path: &'path str) -> Option<Found<'path>> {
        let found = self.0.at(path).ok()?;
        let param = |name| found.params.get(name).unwrap_or_default();
        Some(Found { route: *found.value, kind: param("kind"), target: param("target") })
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
        assert_eq!(route("/v1/reads/concert-dates"), Some(Route::Read));
        for unknown in
            ["", "*", "//", "/v1", "/v1/toggles", "/v1/toggles/", "/v1/toggles//3", "/v1/toggles/k/3/", "/V1"]
        {
            assert_eq!(route(unknown), None, "{unknown}");
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
            assert_eq!(allowed.len(), route.methods().len() + 2, "HEAD and OPTIONS besides");
        }
    }
}
