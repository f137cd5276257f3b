//! Keys: the requested resource, and the request headers that select a variant (`Vary`, RFC 9111, section 4.1).

use std::fmt::Write;

use hyper::Uri;
use hyper::header::{HeaderMap, HeaderName};

use weir_core::config::UpstreamConfig;

/// The key of a resource, for all its variants.
pub(super) fn primary(upstream: &str, path_and_query: &str) -> String {
    format!("{upstream}:{path_and_query}")
}

/// The common prefix of all keys of an upstream.
pub(super) fn begin(config: &UpstreamConfig) -> String {
    primary(&config.name, if config.strip_prefix { "/" } else { &config.prefix })
}

/// The group that all variants of `primary` belong to.
pub(super) fn uri_group(primary: &str) -> String {
    format!("uri:{primary}")
}

/// The key of `primary` for clients that see it at `origin`: the scheme and host that go to the origin, too. An invalidation or
/// a purge of its path concerns all of them.
pub(super) fn at(primary: &str, origin: &str) -> String {
    format!("{primary}\n@{origin}")
}

/// The key of the single flight of requests that may share a response. A request with an identity does not load for the others:
/// their response may be stored where its own may not.
pub(super) fn flight(key: &str, is_person: bool) -> String {
    format!("{key}\n@@{}", if is_person { "person" } else { "anyone" })
}

/// The key of the variant for these request headers, as they are sent.
pub(super) fn variant(key: &str, vary: &[HeaderName], sent: &HeaderMap) -> String {
    let mut key = key.to_owned();
    for name in vary {
        key.push('\n');
        key.push_str(name.as_str());
        for value in sent.get_all(name) {
            key.push(':');
            push_bytes(&mut key, value.as_bytes());
        }
    }
    key
}

/// Writes bytes injectively: different bytes give different text.
fn push_bytes(key: &mut String, bytes: &[u8]) {
    for byte in bytes {
        match byte {
            b' '..=b'~' if *byte != b'%' => key.push(char::from(*byte)),
            // Writing into a `String` cannot fail.
            _ => drop(write!(key, "%{byte:02x}")),
        }
    }
}

/// Path and query of `location`, resolved against `base`, where it is at the same origin.
pub(super) fn same_origin(location: &str, base: &str, authorities: &[&str]) -> Option<String> {
    let location = location.split('#').next().unwrap_or_default();
    if let Some(rest) = location.strip_prefix("//") {
        return of_authority(rest, authorities);
    }
    if location.starts_with('/') {
        return Some(normal_path(location));
    }
    if let Some((scheme, rest)) = location.split_once("://") {
        let known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
        return if known { of_authority(rest, authorities) } else { None };
    }
    let path = base.split('?').next().unwrap_or_default();
    if location.is_empty() {
        return Some(base.to_owned());
    }
    if location.starts_with('?') {
        return Some(format!("{path}{location}"));
    }
    let directory = &path[..=path.rfind('/')?];
    Some(normal_path(&format!("{directory}{location}")))
}

fn of_authority(rest: &str, authorities: &[&str]) -> Option<String> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let known = authorities.iter().any(|known| known.eq_ignore_ascii_case(authority));
    known.then(|| if path.starts_with('/') { normal_path(path) } else { format!("/{path}") })
}

/// Without `.` and `..`.
fn normal_path(path: &str) -> String {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    let mut normal = format!("/{}", segments.join("/"));
    if let Some(query) = query {
        normal.push('?');
        normal.push_str(query);
    }
    normal
}

/// Whether an origin may read a segment of the path as `.` or `..`: also one that is percent-encoded, stands before
/// an encoded slash or a backslash, or carries parameters (`..;x`).
pub(super) fn has_dot_segment(path: &str) -> bool {
    let plain =
        path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/").replace('\\', "/");
    let name = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    plain.replace("%3b", ";").split('/').any(name)
}

/// Path and query of a request, as the origin sees it.
pub(super) fn path_and_query(uri: &Uri, strip: Option<&str>) -> String {
    let whole = uri.path_and_query().map_or("/", |whole| whole.as_str());
    match strip.and_then(|prefix| whole.strip_prefix(prefix)) {
        // The prefix ends with the slash that the rest begins with.
        Some(rest) => format!("/{rest}"),
        None => whole.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn variants_are_told_apart_by_what_is_sent() {
        let foo = [HeaderName::from_static("foo")];
        let of = |pairs| variant("u:/", &foo, &headers(pairs));
        assert_eq!(of(&[("foo", "1, 2"), ("bar", "x")]), of(&[("foo", "1, 2")]));
        assert_ne!(of(&[("foo", "1")]), of(&[("foo", "2")]));
        assert_ne!(of(&[("foo", "1,2")]), of(&[("foo", "1, 2")]), "nobody knows that it is the same");
        assert_ne!(of(&[("foo", "")]), of(&[]));
        let bytes = |bytes: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert("foo", hyper::header::HeaderValue::from_bytes(bytes).unwrap());
            variant("u:/", &foo, &headers)
        };
        let all = [bytes(b"\xe4"), bytes(b"\xe5"), bytes(b"%e4"), bytes(b"\t")];
        assert_eq!(all, ["u:/\nfoo:%e4", "u:/\nfoo:%e5", "u:/\nfoo:%25e4", "u:/\nfoo:%09"]);
    }

    #[test]
    fn locations_of_the_same_origin() {
        let of = |location| same_origin(location, "/shop/items?x=1", &["a.example:80", "weir"]);
        assert_eq!(of("/b?y=2").as_deref(), Some("/b?y=2"));
        assert_eq!(of("b").as_deref(), Some("/shop/b"));
        assert_eq!(of("../b").as_deref(), Some("/b"));
        assert_eq!(of("").as_deref(), Some("/shop/items?x=1"));
        assert_eq!(of("http://WEIR/b").as_deref(), Some("/b"));
        assert_eq!(of("//a.example:80").as_deref(), Some("/"));
        assert_eq!(of("http://other/b"), None);
        assert_eq!(of("mailto:x"), Some("/shop/mailto:x".into()));
    }

    #[test]
    fn dot_segments_are_seen_however_they_are_written() {
        for path in ["/a/../b", "/a/..", "/a/./b", "/a/%2e%2e/b", "/a/.%2E/b", "/a/..%2fb", "/a/..%5cb", "/a/..;x/b"] {
            assert!(has_dot_segment(path), "{path}");
        }
        for path in ["/", "/a/.well-known", "/a/...", "/a/b..c/x..", "/a/..b", "/a/%252e%252e/b"] {
            assert!(!has_dot_segment(path), "{path}");
        }
    }

    #[test]
    fn the_prefix_is_left_out_where_that_is_said() {
        let uri: Uri = "/shop/items?x=1".parse().unwrap();
        assert_eq!(path_and_query(&uri, None), "/shop/items?x=1");
        assert_eq!(path_and_query(&uri, Some("/shop/")), "/items?x=1");
    }
}
