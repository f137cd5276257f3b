//! Which headers of a request go to the origin, and which of them carry an identity. The words in a name decide, not a list of
//! names: no list is ever complete.
//!
//! A client's claims about the request line, its connection or proxies are dropped. They are part of no key and unverified, so one
//! client could choose the answers or the links of others. The words decide: `X-Original-Host`, `X-Forwarded-Prefix`,
//! `True-Client-IP`, and names that are invented later. Names with other characters than letters, digits and hyphens are dropped,
//! too: many programs read `X_Forwarded_Host` or `X.Forwarded.Host` as `X-Forwarded-Host`.

use hyper::header::{HeaderMap, HeaderName};

use weir_core::config::{ConfigError, UpstreamConfig};

/// Headers with such a word that are no such claim.
const NO_CLAIMS: [&str; 3] = ["origin", "max-forwards", "host"];
/// Prefixes of headers that only browsers set, and no script can.
const OF_BROWSERS: [&str; 2] = ["sec-", "access-control-"];

/// The headers that an operator passes or drops.
#[derive(Debug, Clone, Default)]
pub(super) struct HeaderRules {
    pass: Vec<HeaderName>,
    /// Full names, or prefixes with `*` at the end.
    drop: Vec<String>,
}

impl HeaderRules {
    /// # Errors
    /// A name that is not valid for a header.
    pub(super) fn new(config: &UpstreamConfig) -> Result<Self, ConfigError> {
        let name = |text: &String| {
            HeaderName::from_bytes(text.as_bytes()).map_err(|error| ConfigError::Value {
                field: format!("upstream {:?}: pass_headers", config.name),
                reason: format!("{text:?}: {error}"),
            })
        };
        Ok(Self {
            pass: config.pass_headers.iter().map(name).collect::<Result<_, _>>()?,
            drop: config.drop_headers.iter().map(|name| name.to_ascii_lowercase()).collect(),
        })
    }

    /// The headers that pass because the operator says so: they are part of the key.
    pub(super) fn passed(&self) -> &[HeaderName] {
        &self.pass
    }

    /// Removes the headers that do not go to the origin. `identity` is weir's own trusted header: an untrusted client's was removed
    /// before.
    pub(super) fn apply(&self, headers: &mut HeaderMap, identity: Option<&HeaderName>) {
        let stays = |name: &HeaderName| Some(name) == identity || self.lets_pass(name);
        let dropped: Vec<HeaderName> = headers.keys().filter(|name| !stays(name)).cloned().collect();
        for name in dropped {
            headers.remove(name);
        }
    }

    fn lets_pass(&self, name: &HeaderName) -> bool {
        let is_dropped = |pattern: &String| match pattern.strip_suffix('*') {
            Some(begin) => name.as_str().starts_with(begin),
            None => name.as_str() == pattern,
        };
        if self.drop.iter().any(is_dropped) {
            return false;
        }
        self.pass.contains(name) || !is_claim(name.as_str())
    }
}

/// Whether a name makes a claim about the request line, the connection or a proxy, or can be read as one that does.
fn is_claim(name: &str) -> bool {
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return true;
    }
    if NO_CLAIMS.contains(&name) || OF_BROWSERS.iter().any(|begin| name.starts_with(begin)) {
        return false;
    }
    name.split('-').any(|word| {
        ["forward", "origin", "rewrit", "overrid", "prox", "remote"].iter().any(|stem| word.starts_with(stem))
            || matches!(
                word,
                "host"
                    | "hostname"
                    | "httphost"
                    | "server"
                    | "backend"
                    | "upstream"
                    | "port"
                    | "prefix"
                    | "script"
                    | "proto"
                    | "protocol"
                    | "scheme"
                    | "http"
                    | "https"
                    | "ssl"
                    | "tls"
                    | "cert"
                    | "certificate"
                    | "ip"
                    | "clientip"
                    | "realip"
                    | "userip"
                    | "addr"
                    | "address"
                    | "uri"
                    | "url"
                    | "path"
                    | "method"
                    | "accel"
                    | "sendfile"
                    | "envoy"
            )
    })
}

/// Whether a header carries or proves an identity: the answer may be for that person alone. Cookies and `Authorization` are
/// handled elsewhere.
pub(super) fn is_credential(name: &str) -> bool {
    if name == "user-agent" || name.starts_with("sec-") {
        return false;
    }
    name.split('-').any(|word| {
        ["auth", "token", "session", "credential", "apikey"].iter().any(|stem| word.starts_with(stem))
            || matches!(
                word,
                "key"
                    | "secret"
                    | "signature"
                    | "jwt"
                    | "password"
                    | "user"
                    | "userid"
                    | "login"
                    | "account"
                    | "member"
                    | "customer"
                    | "tenant"
                    | "identity"
                    | "sid"
            )
    })
}

/// Whether a header of an answer hands out a credential, as `Set-Cookie` does.
pub(super) fn hands_a_credential(name: &str) -> bool {
    name == "set-cookie"
        || name == "set-cookie2"
        || name == "authorization"
        || name.split('-').any(|word| matches!(word, "token" | "csrf" | "xsrf" | "jwt" | "session" | "sid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIMS: &[&str] = &[
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-scheme",
        "x-forwarded-server",
        "x-forwarded-ssl",
        "x-host",
        "x-original-host",
        "x-original-url",
        "x-rewrite-url",
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "x-http-host-override",
        "x-real-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-scheme",
        "x-url-scheme",
        "front-end-https",
        "x-proxyuser-ip",
        "proxy",
        "x-script-name",
        "base-url",
        "request-uri",
        "x-originating-ip",
        "x-remote-user",
        "x-ssl-client-cert",
        "x-accel-mapping",
        "x-sendfile-type",
        "x-envoy-original-path",
        "x-azure-clientip",
        "x_forwarded_host",
        "x-forwarded_host",
        "x_http_method_override",
        "x.forwarded.host",
        "x_actor_id",
    ];
    const PLAIN: &[&str] = &[
        "host",
        "origin",
        "accept",
        "accept-language",
        "cookie",
        "authorization",
        "user-agent",
        "referer",
        "range",
        "content-type",
        "if-none-match",
        "x-requested-with",
        "x-csrf-token",
        "x-api-key",
        "traceparent",
        "dnt",
        "x-request-id",
        "sec-fetch-site",
        "sec-websocket-protocol",
        "access-control-request-method",
        "priority",
        "idempotency-key",
        "max-forwards",
        "upgrade-insecure-requests",
        "save-data",
        "x-actor-id",
        "foo",
        "depth",
    ];

    #[test]
    fn claims_are_known_by_what_they_say() {
        for claim in CLAIMS {
            assert!(is_claim(claim), "{claim}");
        }
        for plain in PLAIN {
            assert!(!is_claim(plain), "{plain}");
        }
    }

    #[test]
    fn credentials_are_known_by_what_they_say() {
        for credential in ["x-api-key", "x-auth-token", "private-token", "x-session-id", "x-user-id", "x-csrf-token"] {
            assert!(is_credential(credential), "{credential}");
        }
        for plain in ["user-agent", "accept", "x-requested-with", "sec-websocket-key", "x-request-id", "traceparent"] {
            assert!(!is_credential(plain), "{plain}");
        }
        assert!(hands_a_credential("set-cookie") && hands_a_credential("x-csrf-token"));
        assert!(!hands_a_credential("surrogate-key") && !hands_a_credential("etag"));
    }

    #[test]
    fn an_operator_decides_otherwise() {
        let config = UpstreamConfig {
            pass_headers: vec!["X-Amz-Server-Side-Encryption".into()],
            drop_headers: vec!["X-Debug-*".into(), "dnt".into()],
            ..UpstreamConfig::new("shop", "/shop/", "http://127.0.0.1:1")
        };
        let rules = HeaderRules::new(&config).unwrap();
        let mut headers = HeaderMap::new();
        let identity = HeaderName::from_static("x-remote-user");
        for name in ["x-amz-server-side-encryption", "x-amz-server", "x-debug-sql", "dnt", "accept", "x-remote-user"] {
            headers.insert(name, "1".parse().unwrap());
        }
        rules.apply(&mut headers, Some(&identity));
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "x-amz-server-side-encryption", "x-remote-user"]);
    }
}
