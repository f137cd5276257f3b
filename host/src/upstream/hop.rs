//! Headers that concern one connection and must not go further (RFC 9110, section 7.6), and what a proxy adds to answers.

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
const VIA: HeaderValue = HeaderValue::from_static("1.1 weir");

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
        for (name, value) in
            [("connection", "a, content-length"), ("a", "1"), ("te", "trailers"), ("content-length", "5"), ("b", "2")]
        {
            headers.append(name, value.parse().unwrap());
        }
        strip(&mut headers);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["content-length", "b"]);
    }
}
