//! Headers that concern one connection and must not go further (RFC 9110, section 7.6), and those that a proxy adds.

use std::net::IpAddr;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::control::{joined, split};

/// Headers that are always of one hop.
const OF_ONE_HOP: [&str; 11] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];
/// What clients may say of themselves to an origin only through a proxy that it trusts: they are not part of a key, and an
/// origin that believes them would let one client choose what others read.
const NOT_TO_BE_BELIEVED: [&str; 6] =
    ["forwarded", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-original-url", "x-rewrite-url"];
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const VIA: HeaderValue = HeaderValue::from_static("1.1 weir");
/// Says to an origin that `Surrogate-Control` is obeyed, and under which name.
const SURROGATE_CAPABILITY: HeaderName = HeaderName::from_static("surrogate-capability");
const CAPABILITY: HeaderValue = HeaderValue::from_static("weir=\"Surrogate/1.0\"");

/// Takes out what is of one hop, also what `Connection` names.
pub(super) fn strip(headers: &mut HeaderMap) {
    let named = joined(headers, &header::CONNECTION);
    for name in split(&named, b',') {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            // A length is of the message, whoever names it.
            if name != header::CONTENT_LENGTH && name != header::HOST {
                headers.remove(name);
            }
        }
    }
    for name in OF_ONE_HOP {
        headers.remove(name);
    }
}

/// What goes to the origin of the headers of a request.
pub(super) fn to_origin(headers: &mut HeaderMap, peer: IpAddr, authority: &HeaderValue) {
    strip(headers);
    for name in NOT_TO_BE_BELIEVED {
        headers.remove(name);
    }
    headers.remove(header::EXPECT);
    headers.insert(header::HOST, authority.clone());
    headers.append(header::VIA, VIA);
    headers.append(SURROGATE_CAPABILITY, CAPABILITY);
    let before = headers.get(X_FORWARDED_FOR).and_then(|value| value.to_str().ok());
    let chain = before.map_or_else(|| peer.to_string(), |before| format!("{before}, {peer}"));
    if let Ok(chain) = HeaderValue::from_str(&chain) {
        headers.insert(X_FORWARDED_FOR, chain);
    }
}

/// What goes to the client of the headers of a response.
pub(super) fn to_client(headers: &mut HeaderMap) {
    strip(headers);
    headers.append(header::VIA, VIA);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_one_hop_goes_no_further() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "a, content-length"),
            ("a", "1"),
            ("te", "trailers"),
            ("content-length", "5"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-for", "10.0.0.1"),
            ("host", "weir"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        to_origin(&mut headers, "127.0.0.1".parse().unwrap(), &HeaderValue::from_static("origin:1"));
        let mut left: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        left.sort();
        let expected = [
            "content-length: 5",
            "host: origin:1",
            "surrogate-capability: weir=\"Surrogate/1.0\"",
            "via: 1.1 weir",
            "x-forwarded-for: 10.0.0.1, 127.0.0.1",
        ];
        assert_eq!(left, expected);
    }
}
