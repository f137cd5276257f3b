//! `[http]`, `[admin]` and `[auth]`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigError, CorsConfig, JwtConfig, Networks, TraceConfig, all, at_least, ensure, one_of, secret};

/// Shortest token of operators, in bytes.
const TOKEN_BYTES_MIN: usize = 16;

/// The public listener and its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Address to listen on. Port 0 picks a free one, which is printed.
    #[serde(deserialize_with = "super::address::deserialize")]
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Whose word is taken for who asks, by which scheme and for which host: proxies before this listener. All others are
    /// clients themselves, whatever they say.
    pub trusted_proxies: Networks,
    /// In which headers those proxies say it.
    pub proxy_headers: ProxyHeaders,
    /// Open connections. For a further one the connection goes that has waited longest for a head; where all are being answered
    /// it waits in the system's accept queue.
    pub connections_max: usize,
    /// Requests under way; a further one is answered 503 with Retry-After.
    pub requests_max: usize,
    /// Size of request line and headers, in bytes; beyond: 431.
    pub header_bytes_max: usize,
    /// Number of headers; beyond: 431.
    pub headers_max: usize,
    /// Length of the request target, in bytes; beyond: 414.
    pub uri_bytes_max: usize,
    /// Time for the whole head of a request, in milliseconds; then the connection is closed.
    pub header_timeout_ms: u64,
    /// Time between an answer and the next request on a connection, in milliseconds; then it is closed. Clients are told it in
    /// `Keep-Alive`. Proxies before this listener should keep idle connections for less.
    pub idle_timeout_ms: u64,
    /// Size of a request body, in bytes; beyond: 413.
    pub body_bytes_max: usize,
    /// Time for the whole body, in milliseconds; beyond: 408 and the connection is closed.
    pub body_timeout_ms: u64,
    /// Time for an answer, in milliseconds; beyond: 503 with Retry-After.
    pub request_deadline_ms: u64,
    /// Targets in one `?targets=` list; beyond: 400.
    pub targets_max: usize,
    /// Largest `limit` of a list of actors.
    pub actors_limit_max: usize,
    /// Time for what is in flight when the host is told to stop, in milliseconds.
    pub drain_grace_ms: u64,
    /// Which pages of other origins may read answers.
    pub cors: CorsConfig,
    /// How requests are named in replies, logs and what goes to origins.
    pub trace: TraceConfig,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            trusted_proxies: Networks::default(),
            proxy_headers: ProxyHeaders::default(),
            connections_max: 10_000,
            requests_max: 4_096,
            header_bytes_max: 16 * 1024,
            headers_max: 64,
            uri_bytes_max: 8 * 1024,
            header_timeout_ms: 10_000,
            idle_timeout_ms: 75_000,
            body_bytes_max: 64 * 1024,
            body_timeout_ms: 10_000,
            request_deadline_ms: 5_000,
            targets_max: 200,
            actors_limit_max: 200,
            drain_grace_ms: 10_000,
            cors: CorsConfig::default(),
            trace: TraceConfig::default(),
        }
    }
}

impl HttpConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        all([
            at_least("http.connections_max", self.connections_max, 1),
            at_least("http.requests_max", self.requests_max, 1),
            // hyper's smallest buffer.
            at_least("http.header_bytes_max", self.header_bytes_max, 8192),
            at_least("http.headers_max", self.headers_max, 8),
            at_least("http.header_timeout_ms", self.header_timeout_ms, 1),
            at_least("http.idle_timeout_ms", self.idle_timeout_ms, 1),
            at_least("http.request_deadline_ms", self.request_deadline_ms, 1),
            at_least("http.targets_max", self.targets_max, 1),
            at_least("http.actors_limit_max", self.actors_limit_max, 1),
            self.cors.validate("http.cors"),
            self.trace.validate(),
        ])
    }
}

/// The headers in which proxies say who asked them. One language, not both: a proxy that sets one passes the other on as a
/// client wrote it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyHeaders {
    /// `X-Forwarded-For`, `-Proto` and `-Host`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The operators' listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Address to listen on, as `http.listen`. Without a token it must be a loopback address.
    #[serde(deserialize_with = "super::address::deserialize")]
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Proxies before this listener whose word is taken for who asks: what is only for loopback is refused to whom they ask for,
    /// and the audit log names that one.
    pub trusted_proxies: Networks,
    /// In which headers those proxies say it.
    pub proxy_headers: ProxyHeaders,
    /// Bearer token that `/admin/` and `/metrics` ask for (compared in constant time). Prefer `token_file`.
    #[schemars(extend("x-weir-secret" = "whole"))]
    pub token: Option<String>,
    /// File whose trimmed content is the token.
    pub token_file: Option<PathBuf>,
    /// Which pages of other origins may use this listener; only with a token.
    pub cors: CorsConfig,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            trusted_proxies: Networks::default(),
            proxy_headers: ProxyHeaders::default(),
            token: None,
            token_file: None,
            cors: CorsConfig::default(),
        }
    }
}

impl AdminConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let has_token = self.token.is_some() || self.token_file.is_some();
        all([
            one_of("admin.token", self.token.is_some(), self.token_file.is_some()),
            ensure(
                self.token.as_deref().is_none_or(|token| token.len() >= TOKEN_BYTES_MIN),
                "admin.token",
                "must have at least 16 characters",
            ),
            ensure(
                has_token || self.listen.ip().is_loopback(),
                "admin.listen",
                "must be a loopback address unless admin.token or admin.token_file is set",
            ),
            ensure(
                has_token || !self.cors.is_on(),
                "admin.cors.origins",
                "needs admin.token or admin.token_file: pages would need no proof",
            ),
            ensure(
                !self.cors.is_for_all() && self.cors.kinds.is_empty(),
                "admin.cors.origins",
                "names each origin, for the whole listener",
            ),
            self.cors.validate("admin.cors"),
        ])
    }

    /// The token, read from its file where that is configured.
    pub fn read_token(&self) -> Result<Option<String>, ConfigError> {
        let Some(path) = &self.token_file else { return Ok(self.token.clone()) };
        let token = secret::text_of("admin.token_file", path)?.trim().to_owned();
        ensure(token.len() >= TOKEN_BYTES_MIN, "admin.token_file", "must hold at least 16 characters")?;
        Ok(Some(token))
    }
}

/// Who the actor of a request is. Without any of both, every request that needs an actor is answered 401.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// Accept `Authorization: Bearer` JSON Web Tokens; a claim (`sub`) is the actor.
    pub jwt: Option<JwtConfig>,
    /// Name of a header that carries the actor, set by a proxy that you trust. Ignored when absent here.
    pub trusted_header: Option<String>,
    /// From whom the trusted header is accepted.
    pub trusted_header_from: TrustedHeaderFrom,
    /// Where `jwt` is configured, too: the trusted header is enough without a token. Otherwise it is only compared with it.
    pub trusted_header_alone: bool,
}

/// From whom the trusted header is accepted: `"loopback"`, `"any"`, or a list of networks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "TrustedHeaderFromText", into = "TrustedHeaderFromText")]
pub enum TrustedHeaderFrom {
    /// Only from peers on a loopback address.
    #[default]
    Loopback,
    /// From every peer: only where nothing but your proxy can reach the listener.
    Any,
    /// From peers in these networks.
    Networks(Networks),
}

/// As it is written.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum TrustedHeaderFromText {
    Word(String),
    List(Vec<String>),
}

impl TrustedHeaderFrom {
    /// Whether this peer is one of them.
    pub fn includes(&self, peer: IpAddr) -> bool {
        match self {
            Self::Loopback => peer.to_canonical().is_loopback(),
            Self::Any => true,
            Self::Networks(networks) => networks.contains(peer),
        }
    }
}

impl TryFrom<TrustedHeaderFromText> for TrustedHeaderFrom {
    type Error = String;

    fn try_from(text: TrustedHeaderFromText) -> Result<Self, String> {
        match text {
            TrustedHeaderFromText::Word(word) if word == "loopback" => Ok(Self::Loopback),
            TrustedHeaderFromText::Word(word) if word == "any" => Ok(Self::Any),
            TrustedHeaderFromText::Word(word) => {
                Err(format!("{word:?} must be \"loopback\", \"any\" or a list of networks, such as [\"10.0.0.0/8\"]"))
            }
            TrustedHeaderFromText::List(list) => Networks::try_from(list).map(Self::Networks),
        }
    }
}

impl From<TrustedHeaderFrom> for TrustedHeaderFromText {
    fn from(from: TrustedHeaderFrom) -> Self {
        match from {
            TrustedHeaderFrom::Loopback => Self::Word("loopback".into()),
            TrustedHeaderFrom::Any => Self::Word("any".into()),
            TrustedHeaderFrom::Networks(networks) => Self::List(networks.into()),
        }
    }
}

impl AuthConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let names_nobody =
            matches!(&self.trusted_header_from, TrustedHeaderFrom::Networks(networks) if networks.is_empty());
        let header = self.trusted_header.as_deref();
        all([
            self.jwt.as_ref().map_or(Ok(()), JwtConfig::validate),
            ensure(
                header.is_none_or(|name| !name.eq_ignore_ascii_case("authorization")),
                "auth.trusted_header",
                "cannot be Authorization",
            ),
            ensure(
                header.is_some() || !self.trusted_header_alone,
                "auth.trusted_header_alone",
                "needs auth.trusted_header",
            ),
            ensure(
                !names_nobody,
                "auth.trusted_header_from",
                "names no network: leave trusted_header out to trust nobody",
            ),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trusted_header_is_taken_from_a_word_or_a_list() {
        let from = |text: &str| {
            let config: AuthConfig =
                toml::from_str(&format!("trusted_header_from = {text}")).map_err(|error| error.to_string())?;
            assert_eq!(toml::from_str::<AuthConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
            Ok::<_, String>(config.trusted_header_from)
        };
        let [inside, loopback]: [IpAddr; 2] = ["10.1.2.3".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        let includes = |text| from(text).map(|from| (from.includes(inside), from.includes(loopback)));
        assert_eq!(includes("\"loopback\""), Ok((false, true)));
        assert_eq!(includes("\"any\""), Ok((true, true)));
        assert_eq!(includes("[\"10.0.0.0/8\"]"), Ok((true, false)));
        assert_eq!(includes("[\"10.0.0.0/8\", \"loopback\"]"), Ok((true, true)));
        assert!(from("\"all\"").unwrap_err().contains("\"loopback\", \"any\" or a list of networks"));
        assert!(from("[\"10.0.0.1/8\"]").unwrap_err().contains("write 10.0.0.0/8"));
        let empty = AuthConfig { trusted_header_from: from("[]").unwrap(), ..AuthConfig::default() };
        assert!(empty.validate().is_err());
    }
}
