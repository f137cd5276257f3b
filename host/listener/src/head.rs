//! What every request's head must be, whatever it asks for.

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Version};

use super::problem::{BAD_HOST, EXPECTATION_FAILED, METHOD_NOT_ALLOWED, Problem, TARGET_TOO_LONG};

/// Checks what hyper leaves to its user: exactly one well-formed `Host` on HTTP/1.1, no expectation but
/// `100-continue`, no tunnel, and a request target of at most `uri_bytes_max` bytes.
///
/// # Errors
/// The refusal, which closes the connection where the peer's idea of the request is in doubt.
pub fn check<B>(request: &Request<B>, uri_bytes_max: usize) -> Result<(), Problem> {
    let uri = request.uri();
    if request.method() == Method::CONNECT {
        let problem = Problem::new(&METHOD_NOT_ALLOWED, "weir is not a proxy");
        return Err(problem.header(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS")).close());
    }
    if uri.path_and_query().map_or(0, |target| target.as_str().len()) > uri_bytes_max {
        return Err(Problem::new(&TARGET_TOO_LONG, format!("send a request target of at most {uri_bytes_max} bytes")));
    }
    check_host(request)?;
    if let Some(expected) = request.headers().get(header::EXPECT)
        && !expected.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(Problem::new(&EXPECTATION_FAILED, "the only expectation that is met is 100-continue").close());
    }
    Ok(())
}

fn check_host<B>(request: &Request<B>) -> Result<(), Problem> {
    let host = match one(request.headers(), &header::HOST) {
        Ok(Some(host)) => host,
        Ok(None) if request.version() < Version::HTTP_11 => return Ok(()),
        Ok(None) => return Err(Problem::new(&BAD_HOST, "send a Host header").close()),
        Err(Repeated) => return Err(Problem::new(&BAD_HOST, "send exactly one Host header").close()),
    };
    if !is_host(host.as_bytes()) {
        return Err(Problem::new(&BAD_HOST, "Host must be a name or address, with a port where needed").close());
    }
    match request.uri().authority() {
        Some(authority) if !authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {
            Err(Problem::new(&BAD_HOST, "Host and the request target name different hosts").close())
        }
        _ => Ok(()),
    }
}

/// Whether this is a name or address, with or without a port.
pub fn is_host(host: &[u8]) -> bool {
    !host.is_empty() && host.iter().all(|byte| byte.is_ascii_alphanumeric() || b".-_~:[]%!$&'()*+,;=".contains(byte))
}

/// A header that must be given once was given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeated;

/// The one value of a header.
///
/// # Errors
/// [`Repeated`] when there are several.
pub fn one<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Result<Option<&'a HeaderValue>, Repeated> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { Err(Repeated) } else { Ok(first) }
}

/// The token of a `Bearer` header; the scheme's case does not matter.
pub fn bearer_token(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && !token.contains(' ')).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    const URI_BYTES_MAX: usize = 40;

    fn verdict(build: impl FnOnce(hyper::http::request::Builder) -> hyper::http::request::Builder) -> Option<u16> {
        let request = build(Request::builder()).body(()).unwrap();
        check(&request, URI_BYTES_MAX).err().map(|problem| problem.status().as_u16())
    }

    #[test]
    fn host_is_given_once() {
        assert_eq!(verdict(|r| r.header("host", "a.example:8080")), None);
        assert_eq!(verdict(|r| r.header("host", "[::1]:8080")), None);
        assert_eq!(verdict(|r| r), Some(400));
        assert_eq!(verdict(|r| r.version(Version::HTTP_10)), None);
        assert_eq!(verdict(|r| r.header("host", "a").header("host", "a")), Some(400));
        for bad in ["", "a b", "user@a", "a/b", "a\"b"] {
            assert_eq!(verdict(|r| r.header("host", bad)), Some(400), "{bad}");
        }
    }

    #[test]
    fn an_absolute_target_names_the_same_host() {
        assert_eq!(verdict(|r| r.uri("http://a.example/x").header("host", "A.example")), None);
        assert_eq!(verdict(|r| r.uri("http://b.example/x").header("host", "a.example")), Some(400));
    }

    #[test]
    fn tunnels_and_odd_expectations_are_refused() {
        assert_eq!(verdict(|r| r.method("CONNECT").uri("a:443").header("host", "a:443")), Some(405));
        assert_eq!(verdict(|r| r.header("host", "a").header("expect", "banana")), Some(417));
        assert_eq!(verdict(|r| r.header("host", "a").header("expect", "100-Continue")), None);
    }

    #[test]
    fn a_long_target_is_refused() {
        let target = |bytes: usize| format!("/{}", "x".repeat(bytes - 1));
        assert_eq!(verdict(|r| r.uri(target(URI_BYTES_MAX)).header("host", "a")), None);
        assert_eq!(verdict(|r| r.uri(target(URI_BYTES_MAX + 1)).header("host", "a")), Some(414));
    }
}
