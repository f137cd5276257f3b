//! Counts of requests, with handles looked up once: the hot path adds to its core's line and hashes nothing.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::{Method, StatusCode};
use metrics::{Gauge, counter, gauge};

use super::route::{ROUTES, Route};
use weir_core::telemetry::tally::{Tally, Timer};
use weir_core::telemetry::{HTTP_CONNECTIONS, HTTP_REQUEST_SECONDS, HTTP_REQUESTS_TOTAL};

/// Methods counted separately. Any other counts as `other`, so that a caller cannot create new series.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"];
/// Statuses that are answered with. An upstream's others are counted by how they came (`weir_reads_total`).
const STATUSES: [u16; 26] = [
    200, 201, 202, 204, 206, 304, 400, 401, 403, 404, 405, 408, 409, 410, 413, 414, 415, 417, 422, 429, 431, 500, 502,
    503, 504, 508,
];
/// The routes, [`Route::Upstream`] and [`Route::Unknown`].
const ROUTE_COUNT: usize = ROUTES.len() + 2;

/// The handles. Make it after the recorder is installed.
pub(super) struct Meter {
    requests: Vec<OnceLock<Arc<Tally<1>>>>,
    seconds: Vec<Arc<Timer>>,
    connections: Gauge,
}

impl Meter {
    pub(super) fn new() -> Self {
        let routes = ROUTES.into_iter().chain([Route::Upstream, Route::Unknown]);
        Self {
            requests: (0..ROUTE_COUNT * METHODS.len() * STATUSES.len()).map(|_| OnceLock::new()).collect(),
            seconds: routes.map(|route| Timer::new(HTTP_REQUEST_SECONDS, route.pattern())).collect(),
            connections: gauge!(HTTP_CONNECTIONS),
        }
    }

    /// A request was answered. `method` is the place of [`method_index`].
    pub(super) fn answered(&self, route: Route, method: usize, status: StatusCode, time: Option<Duration>) {
        let status = STATUSES.iter().position(|known| *known == status.as_u16());
        // Every status that is answered with is known; a test checks it.
        let Some(status) = status else { return };
        let place = (route.index() * METHODS.len() + method) * STATUSES.len() + status;
        if let Some(requests) = self.requests.get(place) {
            let register = || {
                Tally::new([counter!(
                    HTTP_REQUESTS_TOTAL,
                    "method" => METHODS[method],
                    "route" => route.pattern(),
                    "status" => STATUSES[status].to_string()
                )])
            };
            requests.get_or_init(register).add(0, 1);
        }
        if let (Some(time), Some(seconds)) = (time, self.seconds.get(route.index())) {
            seconds.record(time);
        }
    }

    pub(super) fn connections(&self, change: f64) {
        self.connections.increment(change);
    }
}

/// The place of `method` in the table.
pub(super) fn method_index(method: &Method) -> usize {
    METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(OTHER_METHOD)
}

/// The place of `GET`.
pub(super) const GET_METHOD: usize = 0;
/// The place of a method that is not known, or was not read.
pub(super) const OTHER_METHOD: usize = METHODS.len() - 1;

#[cfg(test)]
mod tests {
    use super::super::problem::API_TYPES;
    use super::super::route::SHARED_STATUSES;
    use super::*;
    use weir_listener::problem::LISTENER_TYPES;

    #[test]
    fn every_status_is_counted() {
        let documented = ROUTES.iter().flat_map(|route| route.methods().iter().flat_map(|m| route.statuses(m)));
        let problems = API_TYPES.iter().chain(LISTENER_TYPES).map(|kind| &kind.status);
        for status in documented.chain(problems).chain(&SHARED_STATUSES) {
            assert!(STATUSES.contains(status), "{status}");
        }
    }

    #[test]
    fn methods_are_told_apart() {
        assert_eq!(method_index(&Method::GET), GET_METHOD);
        assert_eq!(method_index(&Method::TRACE), OTHER_METHOD);
        assert_eq!(method_index(&Method::from_bytes(b"other").unwrap()), OTHER_METHOD);
    }
}
