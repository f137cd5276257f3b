//! Cross-origin resource sharing (the Fetch standard): which pages of other origins may read an answer.
//!
//! Only listed origins are allowed, compared byte by byte. A page of any other origin gets an answer without CORS
//! headers, so its browser withholds the answer from it. CORS headers from a server behind this host are removed: only
//! this host decides.

use hyper::Method;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::Reply;
use super::reply::ReplyBody;
use crate::config::CorsConfig;

const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");
const YES: HeaderValue = HeaderValue::from_static("true");

/// Headers of requests that weir's API knows.
const HEADERS: [&str; 14] = [
    "accept",
    "accept-language",
    "authorization",
    "cache-control",
    "content-language",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "last-event-id",
    "prefer",
    "range",
    "traceparent",
    "tracestate",
];
/// Headers of answers of weir's API that a page cannot read unless it may.
const EXPOSED: [&str; 16] = [
    "accept-patch",
    "age",
    "allow",
    "cache-status",
    "content-range",
    "date",
    "etag",
    "idempotency-replayed",
    "link",
    "location",
    "preference-applied",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "weir-durability",
    "weir-receipt",
];

/// What pages of other origins may do.
#[derive(Debug)]
pub struct Cors {
    /// `None`: every page.
    origins: Option<Vec<Box<[u8]>>>,
    has_credentials: bool,
    /// Names in lower case; `None`: any.
    headers: Option<Vec<String>>,
    private_network: bool,
    allow_headers: HeaderValue,
    expose: HeaderValue,
    max_age: HeaderValue,
}

impl Cors {
    /// `None` where no page may do anything. `own` names a header besides that requests and answers carry.
    pub fn new(config: &CorsConfig, own: Option<&str>) -> Option<Self> {
        if config.origins.is_empty() {
            return None;
        }
        let list = |known: &[&str], more: &[String]| {
            let known = known.iter().copied().chain(own).chain(more.iter().map(String::as_str));
            let mut names: Vec<String> = known.map(str::to_ascii_lowercase).collect();
            names.sort();
            names.dedup();
            names
        };
        let headers = (!config.takes_any_header()).then(|| list(&HEADERS, &config.headers));
        // Names are tokens, which the configuration sees to.
        let line = |names: &[String]| HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static(""));
        let origins = config.origins.iter().map(|origin| origin.as_bytes().into()).collect();
        Some(Self {
            origins: (!config.is_for_all()).then_some(origins),
            has_credentials: config.credentials,
            allow_headers: line(headers.as_deref().unwrap_or_default()),
            headers,
            private_network: config.private_network,
            expose: line(&list(&EXPOSED, &config.expose)),
            max_age: HeaderValue::from(config.max_age_s),
        })
    }

    /// `Access-Control-Allow-Origin` for who asks; `None`: not named.
    fn allowed(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        match &self.origins {
            None => Some(HeaderValue::from_static("*")),
            Some(named) => origin.filter(|origin| named.iter().any(|named| **named == *origin.as_bytes())).cloned(),
        }
    }

    /// What a request says of the page that asks.
    pub fn look(&self, method: &Method, headers: &HeaderMap) -> PageRequest<'_> {
        PageRequest { cors: self, origin: origin(headers).cloned(), is_preflight: is_preflight(method, headers) }
    }

    /// Writes the CORS headers of an answer. `origin` is the request's `Origin`.
    fn write(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        take_out(headers);
        self.vary(headers);
        let Some(allowed) = self.allowed(origin) else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, self.expose.clone());
        if self.has_credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, YES);
        }
    }

    /// If the answer depends on the origin, adds `Vary` for caches, even when this origin is not listed.
    fn vary(&self, headers: &mut HeaderMap) {
        if self.origins.is_none() {
            return;
        }
        let says = |value: &HeaderValue| {
            let mut names = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            names.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"))
        };
        if !headers.get_all(header::VARY).iter().any(says) {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
    }

    /// Answers a preflight: 204 with what is allowed, or without CORS headers if the origin, the method or a header is
    /// not allowed. `allow` names the methods.
    fn preflight(&self, asked: &HeaderMap, allow: &HeaderValue) -> Reply {
        let mut reply = Response::new(ReplyBody::default());
        *reply.status_mut() = StatusCode::NO_CONTENT;
        let headers = reply.headers_mut();
        headers.insert(header::ALLOW, allow.clone());
        self.vary(headers);
        let wants_private = asked.contains_key(REQUEST_PRIVATE_NETWORK);
        let may =
            self.takes_method(asked, allow) && self.takes_headers(asked) && (!wants_private || self.private_network);
        let Some(allowed) = self.allowed(origin(asked)).filter(|_| may) else { return reply };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, allow.clone());
        let wanted = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        let listed = if self.headers.is_some() { Some(&self.allow_headers) } else { wanted };
        if let Some(listed) = listed {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, listed.clone());
        }
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        if self.has_credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, YES);
        }
        if wants_private {
            headers.insert(ALLOW_PRIVATE_NETWORK, YES);
        }
        reply
    }

    fn takes_method(&self, asked: &HeaderMap, allow: &HeaderValue) -> bool {
        let wanted = asked.get(header::ACCESS_CONTROL_REQUEST_METHOD).map(HeaderValue::as_bytes);
        // The names of methods have a case.
        let mut known = allow.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        wanted.is_some_and(|wanted| known.any(|known| known == wanted))
    }

    fn takes_headers(&self, asked: &HeaderMap) -> bool {
        let lines = asked.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter();
        let mut wanted = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
        wanted.all(|wanted| match &self.headers {
            _ if wanted.is_empty() => true,
            Some(known) => known.iter().any(|known| wanted.eq_ignore_ascii_case(known.as_bytes())),
            None => HeaderName::from_bytes(wanted).is_ok(),
        })
    }
}

/// A request as far as it is about pages: which page asks, and who decides what it may.
#[derive(Debug)]
pub struct PageRequest<'a> {
    cors: &'a Cors,
    origin: Option<HeaderValue>,
    is_preflight: bool,
}

impl PageRequest<'_> {
    /// Whether the page may read answers.
    pub fn is_named(&self) -> bool {
        self.cors.allowed(self.origin.as_ref()).is_some()
    }

    /// The answer to a preflight; `None` for any other request. `headers` are the request's, `allow` names the methods.
    pub fn preflight(&self, headers: &HeaderMap, allow: &HeaderValue) -> Option<Reply> {
        self.is_preflight.then(|| self.cors.preflight(headers, allow))
    }

    /// Writes the CORS headers of an answer. The answer to a preflight already has them.
    pub fn write(&self, headers: &mut HeaderMap) {
        if !self.is_preflight {
            self.cors.write(self.origin.as_ref(), headers);
        }
    }
}

/// The one origin that a request names.
fn origin(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut values = headers.get_all(header::ORIGIN).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Whether a browser asks beforehand whether a page may ask.
fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Takes out what an origin behind this host has allowed.
fn take_out(headers: &mut HeaderMap) {
    let is_cors = |name: &HeaderName| name.as_str().starts_with("access-control-");
    if headers.keys().any(is_cors) {
        let names: Vec<HeaderName> = headers.keys().filter(|name| is_cors(name)).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = "https://app.example";
    const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, OPTIONS");

    fn cors(change: impl FnOnce(&mut CorsConfig)) -> Cors {
        let mut config = CorsConfig { origins: vec![APP.into()], ..CorsConfig::default() };
        change(&mut config);
        Cors::new(&config, Some("X-Request-Id")).unwrap()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn written(cors: &Cors, asked: &[(&'static str, &str)], answer: &[(&'static str, &str)]) -> HeaderMap {
        let (asked, mut answer) = (headers(asked), headers(answer));
        cors.write(origin(&asked), &mut answer);
        answer
    }

    fn has_cors(headers: &HeaderMap) -> bool {
        headers.keys().any(|name| name.as_str().starts_with("access-control-"))
    }

    #[test]
    fn who_is_named_may_read() {
        let answer = written(&cors(|_| {}), &[("origin", APP)], &[]);
        assert_eq!(
            (&answer["access-control-allow-origin"], &answer["vary"]),
            (&APP.parse().unwrap(), &"Origin".parse().unwrap())
        );
        let exposed = answer["access-control-expose-headers"].to_str().unwrap();
        for name in
            ["etag", "ratelimit", "ratelimit-policy", "retry-after", "cache-status", "age", "location", "x-request-id"]
        {
            assert!(exposed.split(", ").any(|known| known == name), "{name}: {exposed}");
        }
        assert!(!answer.contains_key("access-control-allow-credentials"));
        let answer = written(&cors(|config| config.credentials = true), &[("origin", APP)], &[]);
        assert_eq!(answer["access-control-allow-credentials"], "true");
    }

    #[test]
    fn who_is_not_named_may_not() {
        for other in [
            "null",
            "https://app.example:443",
            "https://app.example:8443",
            "http://app.example",
            "https://APP.example",
            "https://app.example.evil",
            "https://evil.app.example",
            "https://app.example/",
            "https://app.example ,https://evil.example",
        ] {
            let answer = written(&cors(|_| {}), &[("origin", other)], &[]);
            assert!(!has_cors(&answer) && answer["vary"] == "Origin", "{other}");
        }
        assert!(!has_cors(&written(&cors(|_| {}), &[("origin", APP), ("origin", APP)], &[])));
        assert_eq!(written(&cors(|_| {}), &[], &[])["vary"], "Origin", "of caches, too");
    }

    #[test]
    fn every_page_is_no_matter_of_who_asks() {
        let any = cors(|config| config.origins = vec!["*".into()]);
        for asked in [&[("origin", "null")][..], &[]] {
            let answer = written(&any, asked, &[]);
            assert!(answer["access-control-allow-origin"] == "*" && !answer.contains_key("vary"));
        }
    }

    #[test]
    fn what_an_origin_behind_allows_is_not_doubled() {
        let theirs = [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("vary", "origin, accept"),
        ];
        let answer = written(&cors(|_| {}), &[("origin", APP)], &theirs);
        assert_eq!(answer.get_all("access-control-allow-origin").iter().collect::<Vec<_>>(), [APP]);
        assert!(!answer.contains_key("access-control-allow-credentials"));
        assert_eq!(answer.get_all("vary").iter().count(), 1);
        assert!(!has_cors(&written(&cors(|_| {}), &[("origin", "https://evil.example")], &theirs)));
    }

    fn preflight(cors: &Cors, pairs: &[(&'static str, &str)]) -> HeaderMap {
        let reply = cors.preflight(&headers(pairs), &ALLOW);
        assert_eq!(reply.status(), 204);
        reply.headers().clone()
    }

    #[test]
    fn a_preflight_says_what_is_allowed_or_nothing() {
        let (origin, method) = (("origin", APP), ("access-control-request-method", "POST"));
        let wanted = ("access-control-request-headers", "authorization,Idempotency-Key");
        let answer = preflight(&cors(|_| {}), &[origin, method, wanted]);
        assert_eq!(answer["access-control-allow-origin"], APP);
        assert_eq!(answer["access-control-allow-methods"], ALLOW);
        assert_eq!(answer["access-control-max-age"], "600");
        assert!(answer["access-control-allow-headers"].to_str().unwrap().contains("idempotency-key"));
        for refused in [
            &[("origin", "https://evil.example"), method, wanted][..],
            &[origin, ("access-control-request-method", "PUT")],
            &[origin, ("access-control-request-method", "post")],
            &[origin, method, ("access-control-request-headers", "x-actor-id")],
            &[origin, method, ("access-control-request-private-network", "true")],
            &[("origin", "null"), method],
        ] {
            let answer = preflight(&cors(|_| {}), refused);
            assert!(!has_cors(&answer) && answer["vary"] == "Origin", "{refused:?}");
        }
    }

    #[test]
    fn more_is_allowed_where_it_is_said() {
        let (origin, method) = (("origin", APP), ("access-control-request-method", "POST"));
        let wanted = ("access-control-request-headers", "x-app, x-other");
        assert!(!has_cors(&preflight(
            &cors(|config| config.headers = vec!["X-App".into()]),
            &[origin, method, wanted]
        )));
        let any = preflight(&cors(|config| config.headers = vec!["*".into()]), &[origin, method, wanted]);
        assert_eq!(any["access-control-allow-headers"], "x-app, x-other", "a * would not hold for Authorization");
        let inside = ("access-control-request-private-network", "true");
        let answer = preflight(&cors(|config| config.private_network = true), &[origin, method, inside]);
        assert_eq!(answer["access-control-allow-private-network"], "true");
        assert!(Cors::new(&CorsConfig::default(), None).is_none());
    }
}
