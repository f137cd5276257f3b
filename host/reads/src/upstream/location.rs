//! Locations in answers: an origin's own address is rewritten to the one that the client sees, so that clients stay at weir.

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use weir_core::config::UpstreamConfig;
use weir_listener::forwarded::Caller;

/// Headers that are one URL.
const OF_ONE_URL: [HeaderName; 2] = [header::LOCATION, header::CONTENT_LOCATION];
/// `5; url=/there`.
const REFRESH: HeaderName = HeaderName::from_static("refresh");

/// Rewrites URLs of the origin to those that the client sees.
pub(super) fn rewrite(headers: &mut HeaderMap, config: &UpstreamConfig, caller: &Caller) {
    for name in OF_ONE_URL {
        let url = headers.get(&name).and_then(|value| value.to_str().ok()).and_then(|url| public(url, config, caller));
        if let Some(value) = url.and_then(|url| HeaderValue::from_str(&url).ok()) {
            headers.insert(name, value);
        }
    }
    let refresh = headers.get(REFRESH).and_then(|value| value.to_str().ok());
    if let Some(value) = refresh.and_then(|value| refreshed(value, config, caller)) {
        headers.insert(REFRESH, value);
    }
}

fn refreshed(value: &str, config: &UpstreamConfig, caller: &Caller) -> Option<HeaderValue> {
    let at = value.to_ascii_lowercase().find("url=")? + "url=".len();
    let (before, url) = value.split_at(at);
    let (quote, url) = match url.chars().next() {
        Some(quote @ ('"' | '\'')) => (&value[at..at + 1], url[1..].strip_suffix(quote).unwrap_or(&url[1..])),
        _ => ("", url),
    };
    let url = public(url.trim(), config, caller)?;
    HeaderValue::from_str(&format!("{before}{quote}{url}{quote}")).ok()
}

/// The URL for the client; `None` where it stays as it is.
fn public(url: &str, config: &UpstreamConfig, caller: &Caller) -> Option<String> {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) if is_web(scheme) => (Some(scheme), Some(rest)),
        _ => (None, url.strip_prefix("//")),
    };
    let Some(rest) = rest else {
        // A path at the origin.
        return url.starts_with('/').then(|| path_of(url, config)).flatten();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let own = config.authority();
    let is_public = caller.host.as_deref().is_some_and(|host| is_same(authority, scheme, host));
    if !is_same(authority, scheme, own) && !is_public {
        return None;
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let path = path_of(&path, config).unwrap_or(path);
    let Some(host) = &caller.host else { return Some(path) };
    match scheme {
        // The origin built it from weir's own request.
        Some(scheme) if !is_public && scheme.eq_ignore_ascii_case(config.scheme()) => {
            Some(format!("{}://{host}{path}", caller.scheme.as_str()))
        }
        Some(scheme) => Some(format!("{scheme}://{host}{path}")),
        None => Some(format!("//{host}{path}")),
    }
}

/// The path under which the client finds it; `None` where that is the same, or where the origin already added the prefix
/// (`X-Forwarded-Prefix`).
fn path_of(path: &str, config: &UpstreamConfig) -> Option<String> {
    let rest = path.strip_prefix('/').filter(|_| config.strip_prefix && !path.starts_with(&config.prefix))?;
    Some(format!("{}{rest}", config.prefix))
}

fn is_web(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// Whether two name the same host and port; a scheme's own port need not be written.
fn is_same(authority: &str, scheme: Option<&str>, known: &str) -> bool {
    let port = if scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) { ":443" } else { ":80" };
    let bare = |host: &str| host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
    bare(authority) == bare(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::config::{HttpConfig, ProxyHeaders};
    use weir_listener::forwarded::Trust;

    fn caller(host: Option<&str>, scheme: &str) -> Caller {
        let config = HttpConfig {
            trusted_proxies: vec!["loopback".to_owned()].try_into().unwrap(),
            proxy_headers: ProxyHeaders::XForwarded,
            ..HttpConfig::default()
        };
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(header::HOST, host.parse().unwrap());
        }
        headers.insert("x-forwarded-proto", scheme.parse().unwrap());
        Trust::from(&config).caller(&headers, "127.0.0.1".parse().unwrap())
    }

    fn config(strip_prefix: bool) -> UpstreamConfig {
        UpstreamConfig { strip_prefix, ..UpstreamConfig::new("shop", "/shop/", "http://10.0.0.5:9000") }
    }

    fn rewritten(name: &'static str, value: &str, strip_prefix: bool, caller: &Caller) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        rewrite(&mut headers, &config(strip_prefix), caller);
        headers[name].to_str().unwrap().to_owned()
    }

    #[test]
    fn the_origins_own_address_becomes_the_clients() {
        let caller = caller(Some("shop.example"), "https");
        let of = |url| rewritten("location", url, false, &caller);
        assert_eq!(of("http://10.0.0.5:9000/shop/a?b#c"), "https://shop.example/shop/a?b#c");
        assert_eq!(of("https://10.0.0.5:9000/shop/a"), "https://shop.example/shop/a");
        assert_eq!(of("//10.0.0.5:9000"), "//shop.example/");
        for same in [
            "/shop/a",
            "a",
            "?x",
            "https://shop.example/shop/a",
            "http://shop.example/shop/a",
            "https://login.example/",
            "mailto:a@b",
        ] {
            assert_eq!(of(same), same);
        }
        assert_eq!(
            rewritten("content-location", "http://10.0.0.5:9000/shop/a", false, &caller),
            "https://shop.example/shop/a"
        );
    }

    #[test]
    fn a_redirect_to_tls_stays_one() {
        let caller = caller(Some("shop.example"), "http");
        assert_eq!(
            rewritten("location", "https://10.0.0.5:9000/shop/a", false, &caller),
            "https://shop.example/shop/a"
        );
        assert_eq!(rewritten("location", "https://shop.example/shop/a", false, &caller), "https://shop.example/shop/a");
    }

    #[test]
    fn a_prefix_that_the_origin_does_not_see_comes_back() {
        let caller = caller(Some("shop.example"), "http");
        let of = |url| rewritten("location", url, true, &caller);
        assert_eq!(of("/login?x"), "/shop/login?x");
        assert_eq!(of("http://10.0.0.5:9000/login"), "http://shop.example/shop/login");
        assert_eq!(
            of("http://shop.example/login"),
            "http://shop.example/shop/login",
            "it knows its host, not its prefix"
        );
        assert_eq!(of("/shop/login"), "/shop/login", "it knows its prefix");
        assert_eq!(of("login"), "login");
        assert_eq!(of("https://login.example/x"), "https://login.example/x");
    }

    #[test]
    fn a_refresh_is_one_too_and_without_a_host_the_path_is_left() {
        let named = caller(Some("shop.example"), "http");
        let of = |value| rewritten("refresh", value, false, &named);
        assert_eq!(of("0; URL=http://10.0.0.5:9000/shop/a"), "0; URL=http://shop.example/shop/a");
        assert_eq!(of("0;url='http://10.0.0.5:9000/shop/a'"), "0;url='http://shop.example/shop/a'");
        assert_eq!(of("5"), "5");
        assert_eq!(rewritten("location", "http://10.0.0.5:9000/shop/a", false, &caller(None, "http")), "/shop/a");
    }
}
