//! Who may talk to the operators' listener.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use hyper::Method;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{NOT_FROM_HERE, TOKEN_REQUIRED};
use weir_listener::head::{bearer_token, one};
use weir_listener::problem::Problem;

const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"weir admin\"");

/// The token, or the rules that apply without one.
pub(super) struct Guard {
    /// All digests have the same length, so comparing them reveals nothing about the token's length.
    token: ArcSwapOption<[u8; 32]>,
}

impl Guard {
    pub(super) fn new(token: Option<&str>) -> Self {
        let guard = Self { token: ArcSwapOption::empty() };
        guard.set_token(token);
        guard
    }

    /// From now on it is this token, or none.
    pub(super) fn set_token(&self, token: Option<&str>) {
        self.token.store(token.map(|token| Arc::new(Sha256::digest(token.as_bytes()).into())));
    }

    /// Without a token: only from loopback, under a loopback name. Always: no write from another origin's page
    /// that is not named.
    pub(super) fn check_origin(&self, head: &Parts, peer: IpAddr, is_named: bool) -> Result<(), Problem> {
        let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if self.token.load().is_none() {
            if !peer.to_canonical().is_loopback() {
                return Err(Problem::new(&NOT_FROM_HERE, "set admin.token to be reached from another machine"));
            }
            // HTTP/1.0 may come without a Host; browsers do not speak it.
            if !host.is_empty() && !is_loopback_name(host) {
                return Err(Problem::new(&NOT_FROM_HERE, "use 127.0.0.1, [::1] or localhost, or set admin.token"));
            }
        }
        let reads = head.method == Method::GET || head.method == Method::HEAD;
        let origin = head.headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
        let same_origin = |origin: &[u8]| {
            let origin_host = origin.strip_prefix(b"http://").or(origin.strip_prefix(b"https://"));
            origin_host.is_some_and(|origin_host| origin_host.eq_ignore_ascii_case(host.as_bytes()))
        };
        if !reads && !is_named && origin.is_some_and(|origin| !same_origin(origin)) {
            return Err(Problem::new(&NOT_FROM_HERE, "a page of another origin cannot do this"));
        }
        Ok(())
    }

    /// The token, where one is configured; compared in constant time.
    pub(super) fn check_token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let token = self.token.load();
        let Some(expected) = token.as_deref() else { return Ok(()) };
        let given = one(headers, &header::AUTHORIZATION).ok().flatten().and_then(bearer_token);
        let right = given.is_some_and(|given| bool::from(Sha256::digest(given.as_bytes())[..].ct_eq(&expected[..])));
        if right {
            return Ok(());
        }
        let problem = Problem::new(&TOKEN_REQUIRED, "send Authorization: Bearer with the token of admin.token");
        Err(problem.header(header::WWW_AUTHENTICATE, CHALLENGE))
    }
}

/// Whether `host`, with or without a port, can only mean this machine.
fn is_loopback_name(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, _)) => name,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn head(method: &str, headers: &[(&'static str, &str)]) -> Parts {
        let mut request = Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn without_a_token_only_loopback_under_its_name() {
        let guard = Guard::new(None);
        let local = IpAddr::from([127, 0, 0, 1]);
        let allowed = |host, peer| guard.check_origin(&head("GET", &[("host", host)]), peer, false).is_ok();
        for name in ["localhost", "LOCALHOST:8081", "127.0.0.1:8081", "127.9.9.9", "[::1]:8081", "[::1]"] {
            assert!(allowed(name, local), "{name}");
        }
        for name in ["weir.example", "localhost.example", "127.0.0.1.example", "10.0.0.1", "[::2]:1", "[::1", "0.0.0.0"]
        {
            assert!(!allowed(name, local), "{name}");
        }
        assert!(!allowed("localhost", IpAddr::from([192, 0, 2, 1])));
    }

    #[test]
    fn with_a_token_any_name_will_do() {
        let guard = Guard::new(Some(TOKEN));
        let elsewhere = IpAddr::from([192, 0, 2, 1]);
        assert!(guard.check_origin(&head("GET", &[("host", "weir.example")]), elsewhere, false).is_ok());
    }

    #[test]
    fn pages_of_other_origins_cannot_write() {
        let local = IpAddr::from([127, 0, 0, 1]);
        let allowed = |method, origin| {
            let head = head(method, &[("host", "127.0.0.1:8081"), ("origin", origin)]);
            Guard::new(None).check_origin(&head, local, false).is_ok()
        };
        assert!(allowed("POST", "http://127.0.0.1:8081"));
        assert!(allowed("GET", "https://evil.example"));
        for origin in ["https://evil.example", "null", "http://127.0.0.1:8080", "http://127.0.0.1:8081.evil.example"] {
            assert!(!allowed("POST", origin), "{origin}");
            assert!(!allowed("DELETE", origin), "{origin}");
        }
    }

    #[test]
    fn only_the_token_opens() {
        let guard = Guard::new(Some(TOKEN));
        let opens = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("authorization", value.parse().unwrap());
            }
            guard.check_token(&headers).is_ok()
        };
        let right = format!("Bearer {TOKEN}");
        assert!(opens(&[&right]));
        for wrong in ["Bearer 0123456789abcdeF", "Bearer 0123456789abcde", "Bearer ", "Basic 0123456789abcdef", TOKEN] {
            assert!(!opens(&[wrong]), "{wrong}");
        }
        assert!(!opens(&[]));
        assert!(!opens(&[&right, &right]));
        assert!(Guard::new(None).check_token(&HeaderMap::new()).is_ok());
    }
}
