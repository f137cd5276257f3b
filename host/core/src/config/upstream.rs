//! `[[upstream]]`: origins behind weir, what goes on to them, and what may be cached of their answers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kind::check_kind;
use super::read::Staleness;
use super::tls::{TlsConfig, TlsMode, UrlTls, is_yes, tls_settings, yes};
use super::{ConfigError, all, at_least, ensure};

/// Headers that weir writes for origins itself.
const OWN_HEADERS: [&str; 6] =
    ["host", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-prefix"];

/// One origin behind weir.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// Its name in metrics.
    pub name: String,
    /// What the paths of its requests begin with, such as `/shop/`. weir's own paths come first; of several prefixes
    /// the longest.
    pub prefix: String,
    /// `https://host:port`, or `http://host:port`.
    #[schemars(extend("x-weir-secret" = "url"))]
    pub origin: String,
    /// File that holds the origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin_file: Option<PathBuf>,
    /// `required` or `off`; left out: required, except to loopback addresses and sockets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsMode>,
    /// Certificates of authorities that are trusted besides the system's, as PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca_file: Option<PathBuf>,
    /// Our own certificate, as PEM, where the server asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_client_certificate_file: Option<PathBuf>,
    /// Its key, as PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_client_key_file: Option<PathBuf>,
    /// Whether the certificate must be for the name that is connected to. `false` only with `tls_ca_file`.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub tls_verify_name: bool,
    /// The name that the certificate must be for, where it is not that of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<String>,
    /// The origin does not see the prefix; it is told in `X-Forwarded-Prefix`.
    #[serde(default)]
    pub strip_prefix: bool,
    /// The hosts that it answers for, such as `shop.example` or `*.shop.example`; left out, all. What is kept is kept for each
    /// by itself.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// The origin is asked under the host that the client asks for, instead of its own address.
    #[serde(default)]
    pub preserve_host: bool,
    /// Headers of requests that go on although their names say something of the request, its connection or a proxy. They are
    /// part of the key.
    #[serde(default)]
    pub pass_headers: Vec<String>,
    /// Headers of requests that do not go on; a `*` at the end stands for any rest.
    #[serde(default)]
    pub drop_headers: Vec<String>,
    /// What was asked for with a cookie is kept for all also where the answer says neither `public` nor `s-maxage`.
    #[serde(default)]
    pub keep_asked_with_cookie: bool,
    /// An answer with `Set-Cookie` is kept; without it. Otherwise it is not kept.
    #[serde(default)]
    pub keep_set_cookie: bool,
    /// Clients may have asked anew for what is kept (`Cache-Control: no-cache`, `no-store`, `max-age`, `min-fresh`).
    #[serde(default)]
    pub clients_may_force: bool,
    /// How old an answer may be; left out, as old as the origin says. `live`: nothing is kept.
    #[serde(default)]
    pub class: Option<Staleness>,
    /// The times of the rule take the place of those that a response has, also of one that says `no-store` (needs a class).
    /// Otherwise a rule can only shorten them.
    #[serde(default)]
    pub may_loosen: bool,
    /// What a rule may read.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// Bounds, and what caching may do beyond what the origin says.
    #[serde(default)]
    pub limits: UpstreamLimits,
}

/// Bounds of an upstream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamLimits {
    /// Time to connect, in milliseconds; beyond: stale, or 502.
    pub connect_timeout_ms: u64,
    /// Time until the head of the answer, in milliseconds; beyond: stale, or 504.
    pub head_timeout_ms: u64,
    /// Time in which nothing of a body comes, in milliseconds; then the answer is cut off.
    pub body_idle_timeout_ms: u64,
    /// The same of a `text/event-stream`; 0: no bound.
    pub event_idle_timeout_ms: u64,
    /// So often a comment is put into a `text/event-stream` while nothing happens, in milliseconds; 0: never.
    pub event_heartbeat_ms: u64,
    /// Event streams of the origin that are open at once, beside its requests.
    pub event_streams_max: usize,
    /// Requests to the origin at once; a further one is answered 503 with Retry-After.
    pub requests_max: usize,
    /// Idle connections that are kept.
    pub idle_connections_max: usize,
    /// Size of a request's body, in bytes; beyond: 413.
    pub request_body_bytes_max: u64,
    /// Size of the head of an answer, in bytes; beyond: 502.
    pub header_bytes_max: usize,
    /// Number of headers of an answer; beyond: 502.
    pub headers_max: usize,
    /// Size of a body that is kept, in bytes; larger ones are passed on.
    pub stored_body_bytes_max: u64,
    /// How long a stale answer is told when the origin fails, in milliseconds, where the origin does not say.
    pub stale_if_error_ms: u64,
    /// Longest time that a heuristic (a tenth of the age of `Last-Modified`) keeps an answer fresh, in milliseconds.
    pub heuristic_max_ms: u64,
}

impl Default for UpstreamLimits {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 1_000,
            head_timeout_ms: 10_000,
            body_idle_timeout_ms: 10_000,
            event_idle_timeout_ms: 3_600_000,
            event_heartbeat_ms: 15_000,
            event_streams_max: 256,
            requests_max: 1_024,
            idle_connections_max: 256,
            request_body_bytes_max: 16 << 20,
            header_bytes_max: 64 << 10,
            headers_max: 128,
            stored_body_bytes_max: 4 << 20,
            stale_if_error_ms: 3_600_000,
            heuristic_max_ms: 86_400_000,
        }
    }
}

impl UpstreamConfig {
    /// An upstream with the default bounds.
    pub fn new(name: &str, prefix: &str, origin: &str) -> Self {
        Self {
            name: name.into(),
            prefix: prefix.into(),
            origin: origin.into(),
            origin_file: None,
            tls: None,
            tls_ca_file: None,
            tls_client_certificate_file: None,
            tls_client_key_file: None,
            tls_verify_name: true,
            tls_server_name: None,
            strip_prefix: false,
            hosts: Vec::new(),
            preserve_host: false,
            pass_headers: Vec::new(),
            drop_headers: Vec::new(),
            keep_asked_with_cookie: false,
            keep_set_cookie: false,
            clients_may_force: false,
            class: None,
            may_loosen: false,
            settings: BTreeMap::new(),
            limits: UpstreamLimits::default(),
        }
    }

    pub(super) fn validate(&self, index: usize) -> Result<(), ConfigError> {
        let field = |name: &str| format!("upstream[{index}].{name}");
        let prefix = self.prefix.as_str();
        let authority = self.authority();
        let is_bounded = self.class.is_some_and(|class| class != Staleness::Live);
        all([
            check_kind(&field("name"), &self.name),
            ensure(
                prefix.starts_with('/') && prefix.ends_with('/') && !prefix.contains(['?', '#']),
                field("prefix"),
                "must begin and end with a slash, such as /shop/",
            ),
            ensure(
                !authority.is_empty() && !authority.contains(['/', '?', '#', '@']),
                field("origin"),
                "must be https://host:port or http://host:port, without a path",
            ),
            self.secured(&format!("upstream[{index}]")).map(drop),
            self.validate_names(&field),
            ensure(
                is_bounded || !self.may_loosen,
                field("may_loosen"),
                "needs class = \"seconds\", \"minutes\" or \"hours\", which bounds how long the rule may keep an answer",
            ),
            // hyper's smallest buffer.
            at_least(&field("limits.header_bytes_max"), self.limits.header_bytes_max, 8_192),
            at_least(&field("limits.headers_max"), self.limits.headers_max, 8),
            at_least(&field("limits.requests_max"), self.limits.requests_max, 1),
            at_least(&field("limits.event_streams_max"), self.limits.event_streams_max, 1),
            at_least(&field("limits.head_timeout_ms"), self.limits.head_timeout_ms, 1),
            at_least(&field("limits.connect_timeout_ms"), self.limits.connect_timeout_ms, 1),
            at_least(&field("limits.body_idle_timeout_ms"), self.limits.body_idle_timeout_ms, 1),
        ])
    }

    /// Host and port of the origin, as written; nothing where it is no origin.
    pub fn authority(&self) -> &str {
        ["https://", "http://"].iter().find_map(|scheme| self.origin.strip_prefix(scheme)).unwrap_or_default()
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> &str {
        self.origin.split_once("://").map_or("http", |(scheme, _)| scheme)
    }

    /// How connections to the origin are encrypted; `None`: they are not. `place` is where the settings stand.
    ///
    /// # Errors
    /// Contradictions, and plain connections to other machines that nobody has asked for.
    pub fn secured(&self, place: &str) -> Result<Option<TlsConfig>, ConfigError> {
        let url = if self.origin.starts_with("https://") {
            UrlTls::Required { word: "https://" }
        } else {
            UrlTls::Plain { word: "http://", instead: "https://" }
        };
        let authority = self.authority();
        let host = match authority.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => name,
            _ => authority,
        };
        let config = tls_settings!(self);
        Ok(config.decide(place, url, &[host])?.then_some(config))
    }

    /// Names of hosts and headers.
    fn validate_names(&self, field: &dyn Fn(&str) -> String) -> Result<(), ConfigError> {
        let is_host = |host: &String| {
            let name = host.strip_prefix("*.").unwrap_or(host);
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
        };
        let is_token =
            |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        let is_ours = |name: &str| OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name));
        let hosts = self.hosts.iter().map(|host| {
            let reason = format!("{host:?} must be a host, such as shop.example, shop.example:8443 or *.shop.example");
            ensure(is_host(host), field("hosts"), reason)
        });
        let passes = self.pass_headers.iter().flat_map(|name| {
            let ours = format!("weir writes {name:?} itself, from what http.trusted_proxies say");
            [
                ensure(is_token(name), field("pass_headers"), format!("{name:?} is not the name of a header")),
                ensure(!is_ours(name), field("pass_headers"), ours),
            ]
        });
        let drops = self.drop_headers.iter().map(|name| {
            let plain = name.strip_suffix('*').unwrap_or(name);
            ensure(is_token(plain), field("drop_headers"), format!("{name:?} is not the name of a header"))
        });
        all(hosts.chain(passes).chain(drops))
    }
}
