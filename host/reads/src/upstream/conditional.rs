//! Validation: a stored response answers a client's conditions, weir sends conditions of its own to the origin, and merges a 304
//! into the stored response (RFC 9110, section 13; RFC 9111, section 4.3).

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::control::{joined, split};
use super::stored::date_ms;

/// Headers of a request that make it conditional.
pub(super) const CONDITIONS: [HeaderName; 5] =
    [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_MATCH, header::IF_UNMODIFIED_SINCE, header::IF_RANGE];
/// Headers that a 304 does not change: they describe the stored body.
const OF_THE_BODY: [HeaderName; 5] = [
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::ETAG,
    HeaderName::from_static("content-md5"),
];

/// Whether the client already has the response with these headers, and gets 304.
pub(super) fn is_not_modified(request: &HeaderMap, stored: &HeaderMap) -> bool {
    if request.contains_key(header::IF_NONE_MATCH) {
        let wanted = joined(request, &header::IF_NONE_MATCH);
        let Some(etag) = stored.get(header::ETAG) else { return false };
        let etag = String::from_utf8_lossy(etag.as_bytes()).into_owned();
        return split(&wanted, b',').into_iter().any(|tag| tag == "*" || weakly(tag) == weakly(&etag));
    }
    let since = request.get(header::IF_MODIFIED_SINCE).and_then(|value| value.to_str().ok()).and_then(date_ms);
    let Some(since_ms) = since else { return false };
    let of = |name: HeaderName| stored.get(name).and_then(|value| value.to_str().ok()).and_then(date_ms);
    of(header::LAST_MODIFIED).or_else(|| of(header::DATE)).is_some_and(|modified_ms| modified_ms <= since_ms)
}

/// A tag without its weakness prefix.
fn weakly(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// Whether an answer has the validators of the stored response, and so does not change it.
pub(super) fn is_same(stored: &HeaderMap, fresh: &HeaderMap) -> bool {
    let name = if stored.contains_key(header::ETAG) { header::ETAG } else { header::LAST_MODIFIED };
    stored.get(&name).is_some_and(|known| fresh.get(&name) == Some(known))
}

/// Adds conditions that ask the origin whether the stored response is still current.
pub(super) fn put_conditions(request: &mut HeaderMap, stored: &HeaderMap) {
    if let Some(etag) = stored.get(header::ETAG) {
        request.insert(header::IF_NONE_MATCH, etag.clone());
    }
    if let Some(modified) = stored.get(header::LAST_MODIFIED) {
        request.insert(header::IF_MODIFIED_SINCE, modified.clone());
    }
}

/// The stored headers after a 304.
pub(super) fn merged(stored: &HeaderMap, fresh: &HeaderMap) -> HeaderMap {
    let mut merged = stored.clone();
    for name in fresh.keys() {
        if OF_THE_BODY.contains(name) && stored.contains_key(name) || *name == header::CONTENT_LENGTH {
            continue;
        }
        merged.remove(name);
        for value in fresh.get_all(name) {
            merged.append(name.clone(), value.clone());
        }
    }
    // Without an age in the 304, the stored one is that of the first answer.
    if !fresh.contains_key(header::AGE) {
        merged.remove(header::AGE);
    }
    merged
}

/// The stored headers that a 304 to the client carries (RFC 9110, section 15.4.5).
pub(super) fn not_modified_headers(headers: &HeaderMap) -> HeaderMap {
    let mut left = headers.clone();
    for name in [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_TYPE, header::CONTENT_RANGE] {
        left.remove(name);
    }
    left
}

/// Whether `If-Range` allows a range of the stored response.
pub(super) fn if_range_holds(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let Some(wanted) = request.get(header::IF_RANGE) else { return true };
    let same = |name: HeaderName| stored.get(name).is_some_and(|value: &HeaderValue| value == wanted);
    // Only a strong tag identifies bytes.
    (same(header::ETAG) && !wanted.as_bytes().starts_with(b"W/")) || same(header::LAST_MODIFIED)
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
    fn tags_come_before_dates() {
        let stored = headers(&[("etag", "\"b\""), ("last-modified", "Wed, 01 Jan 2020 00:00:00 GMT")]);
        let is = |pairs| is_not_modified(&headers(pairs), &stored);
        assert!(is(&[("if-none-match", "\"a\", W/\"b\"")]));
        assert!(is(&[("if-none-match", "*")]));
        assert!(!is(&[("if-none-match", "\"a\""), ("if-modified-since", "Wed, 01 Jan 2025 00:00:00 GMT")]));
        assert!(is(&[("if-modified-since", "Wednesday, 01-Jan-20 00:00:00 GMT")]));
        assert!(!is(&[("if-modified-since", "Tue, 31 Dec 2019 00:00:00 GMT")]));
        assert!(!is(&[]));
    }

    #[test]
    fn a_304_changes_all_but_the_body() {
        let stored = headers(&[("etag", "\"a\""), ("x", "1"), ("x", "2"), ("content-length", "5"), ("age", "9")]);
        let fresh = headers(&[("etag", "\"b\""), ("x", "3"), ("y", "4"), ("content-length", "0")]);
        let expected = headers(&[("etag", "\"a\""), ("x", "3"), ("y", "4"), ("content-length", "5")]);
        assert_eq!(merged(&stored, &fresh), expected);
    }

    #[test]
    fn a_part_is_of_the_same_whole() {
        let stored = headers(&[("etag", "\"a\"")]);
        assert!(if_range_holds(&headers(&[]), &stored));
        assert!(if_range_holds(&headers(&[("if-range", "\"a\"")]), &stored));
        assert!(!if_range_holds(&headers(&[("if-range", "\"b\"")]), &stored));
    }
}
