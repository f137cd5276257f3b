//! What stands around every answer: who may read it (CORS), how it is named (request id, trace), and its line in the
//! access log. What is off costs a look at an `Option`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::HttpState;
use super::access::{AccessLog, Entry};
use super::route::{Found, Route};
use weir_core::clock::Clock;
use weir_core::config::{ConfigError, CorsConfig, HttpConfig};
use weir_core::telemetry::request::Tag;
use weir_listener::Reply;
use weir_listener::cors::{Cors, PageRequest};
use weir_listener::problem::Problem;
use weir_listener::text::decode_segment;

/// Lines about failed requests in a second; further ones are counted.
const FAILURES_MAX: u64 = 10;

/// What is on.
pub(super) struct Front {
    cors: Option<Box<Origins>>,
    ids: Option<Ids>,
    pub(super) access: Option<Arc<AccessLog>>,
}

/// Who may read answers.
struct Origins {
    all: Option<Cors>,
    /// Of one kind, in place of the above.
    kinds: BTreeMap<String, Option<Cors>>,
}

impl Origins {
    /// Whose pages may read an answer of this kind.
    fn of(&self, kind: Option<&str>) -> Option<&Cors> {
        let own = kind.and_then(|kind| self.kinds.get(kind));
        own.map_or(self.all.as_ref(), Option::as_ref)
    }
}

/// How requests are named.
struct Ids {
    header: HeaderName,
    sampled_share: f64,
}

/// What is known of a request before it is answered.
pub(super) struct Visit<'a> {
    tag: Option<Tag>,
    header: Option<&'a HeaderName>,
    page: Option<Box<PageRequest<'a>>>,
    entry: Option<Box<Entry>>,
}

impl Front {
    /// # Errors
    /// When a header name is invalid.
    pub(super) fn new(config: &HttpConfig) -> Result<Self, ConfigError> {
        let name = config.trace.request_id_header.as_str();
        // One text for the life of the process: a name that is shared by counting would be counted by all threads at
        // once.
        let known = HeaderName::from_bytes(name.as_bytes());
        let known = known.map(|known| HeaderName::from_static(known.as_str().to_owned().leak()));
        let header = known.map_err(|_| ConfigError::Value {
            field: "http.trace.request_id_header".into(),
            reason: format!("{name:?} is not a header name"),
        });
        let ids = match name {
            "" => None,
            _ => Some(Ids { header: header?, sampled_share: config.trace.sampled_share }),
        };
        let own = Some(name).filter(|name| !name.is_empty());
        let of = |cors: &CorsConfig| Cors::new(cors, own);
        let kinds = config.cors.kinds.iter().map(|(kind, cors)| (kind.clone(), of(cors))).collect();
        let origins = config.cors.is_on().then(|| Box::new(Origins { all: of(&config.cors), kinds }));
        Ok(Self { cors: origins, ids, access: None })
    }

    fn tag(&self, headers: &HeaderMap, is_trusted: bool) -> Option<Tag> {
        let ids = self.ids.as_ref()?;
        let is_sampled = ids.sampled_share >= 1.0 || rand::random::<f64>() < ids.sampled_share;
        Some(Tag::of(headers, &ids.header, is_trusted, is_sampled))
    }
}

impl Visit<'_> {
    /// The request's name.
    pub(super) fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The answer to a browser that asks beforehand, where that is answered here. `allow` names the methods.
    pub(super) fn preflight(&self, headers: &HeaderMap, allow: &HeaderValue) -> Option<Reply> {
        self.page.as_ref().and_then(|page| page.preflight(headers, allow))
    }

    /// Names the request to an origin.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        if let (Some(tag), Some(name)) = (&self.tag, self.header) {
            tag.write(name, headers);
        }
    }

    /// A refusal, with the request's name.
    pub(super) fn refuse(&self, problem: Problem) -> Reply {
        match &self.tag {
            Some(tag) => problem.member("requestId", tag.id()).into_reply(),
            None => problem.into_reply(),
        }
    }
}

impl HttpState {
    /// Looks at a request before it is answered. `found` is what its path leads to, if it is one of weir's own.
    pub(super) fn enter(
        &self,
        request: &Request<Incoming>,
        found: Option<&Found<'_>>,
        peer: IpAddr,
        begun: Instant,
    ) -> Visit<'_> {
        let (headers, front) = (request.headers(), &self.front);
        let has_kinds = front.cors.as_deref().is_some_and(|origins| !origins.kinds.is_empty());
        let kind = if has_kinds || front.access.is_some() { self.kind_of(request, found, peer) } else { None };
        let cors = front.cors.as_deref().and_then(|origins| origins.of(kind.as_deref()));
        Visit {
            tag: front.tag(headers, self.trust.is_proxy(peer)),
            header: front.ids.as_ref().map(|ids| &ids.header),
            page: cors.map(|cors| Box::new(cors.look(request.method(), headers))),
            entry: front.access.as_ref().map(|_| Box::new(self.entry(request, kind, peer, begun))),
        }
    }

    /// Adds to an answer what stands around it, and writes its line.
    pub(super) fn leave(&self, visit: Visit<'_>, actor: Option<String>, reply: &mut Reply) {
        let Visit { tag, header, page, entry } = visit;
        if let (Some(tag), Some(name)) = (&tag, header) {
            reply.headers_mut().insert(name.clone(), tag.header());
        }
        if let Some(page) = page {
            page.write(reply.headers_mut());
        }
        if let (Some(entry), Some(access)) = (entry, &self.front.access) {
            access.write(*entry, tag, actor, reply);
        }
    }

    /// The kind, read or upstream that a request is for.
    fn kind_of(&self, request: &Request<Incoming>, found: Option<&Found<'_>>, peer: IpAddr) -> Option<String> {
        match found {
            Some(found) if found.kind.is_empty() => None,
            Some(found) => decode_segment(found.kind).ok().map(|kind| kind.into_owned()),
            None => {
                let host = self.trust.caller(request.headers(), peer).host;
                let upstream = self.upstreams.find(request.uri().path(), host.as_deref());
                upstream.map(|upstream| format!("upstream:{}", upstream.name()))
            }
        }
    }

    fn entry(&self, request: &Request<Incoming>, kind: Option<String>, peer: IpAddr, begun: Instant) -> Entry {
        let path = request.uri().path();
        // A token of a waiting room is a key to a place in it, also where the rest of the path leads nowhere.
        let path = match path.split_once("/tokens/").filter(|_| path.starts_with("/v1/rooms/")) {
            Some((room, after)) => {
                let rest = after.split_once('/').map_or(String::new(), |(_, rest)| format!("/{rest}"));
                format!("{room}/tokens/***{rest}")
            }
            None => path.to_owned(),
        };
        let client = self.trust.caller(request.headers(), peer).client;
        Entry::new(request, path, kind, client, self.shared.clock.now_ms(), begun)
    }
}

/// Says in the log that a request failed: where a client has only the id of its reply, this is what it leads to. Of
/// many in a second some are said, the rest is counted.
pub(super) fn note_failure(problem: &Problem, route: Route, clock: &Clock) {
    static SECOND: AtomicU64 = AtomicU64::new(0);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let (status, name, route) = (problem.status(), problem.name(), route.pattern());
    if !status.is_server_error() {
        tracing::debug!(status = status.as_u16(), problem = name, route, "a request was refused");
        return;
    }
    let second = clock.steady_ms() / 1_000;
    let unsaid = match SECOND.swap(second, Ordering::Relaxed) {
        same if same == second => 0,
        _ => COUNT.swap(0, Ordering::Relaxed).saturating_sub(FAILURES_MAX),
    };
    if unsaid > 0 {
        tracing::warn!(unsaid, "further requests failed since the last of these lines");
    }
    if COUNT.fetch_add(1, Ordering::Relaxed) < FAILURES_MAX {
        tracing::warn!(status = status.as_u16(), problem = name, route, "a request failed");
    }
}
