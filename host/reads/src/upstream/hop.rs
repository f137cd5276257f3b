//! Headers of one connection, which must not be forwarded (RFC 9110, section 7.6), and those that a proxy adds to answers.

use hyper::Version;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use rand::RngExt;

use super::control::{joined, split};

/// Headers that always belong to one hop.
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

/// Removes the headers of one hop, including those that `Connection` names.
pub(super) fn strip(headers: &mut HeaderMap) {
    let named = joined(headers, &header::CONNECTION);
    for name in split(&named, b',') {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            // Length and host belong to the message, even when `Connection` names them.
            if name != header::CONTENT_LENGTH && name != header::HOST {
                headers.remove(name);
            }
        }
    }
    for name in OF_ONE_HOP {
        headers.remove(name);
    }
}

/// Prepares the headers of a response, which came through `via`, for the client.
pub(super) fn to_client(headers: &mut HeaderMap, via: HeaderValue) {
    strip(headers);
    headers.append(header::VIA, via);
}

/// How often a request may be forwarded, where it says so (RFC 9110, section 7.6.2); the forwarded request says one less.
/// `Some(0)`: it may not be forwarded.
pub(super) fn forwards_left(headers: &mut HeaderMap) -> Option<u64> {
    let said = super::control::seconds(headers.get(header::MAX_FORWARDS)?.to_str().ok()?.trim())?;
    if said > 0 {
        headers.insert(header::MAX_FORWARDS, HeaderValue::from(said - 1));
    }
    Some(said)
}

/// The name of this host in `Via`: no two hosts have the same, so that a request through several is no loop.
#[derive(Debug, Clone)]
pub(super) struct Pseudonym {
    name: String,
    /// With HTTP/1.1 and HTTP/1.0.
    via: [HeaderValue; 2],
}

impl Pseudonym {
    /// A new one, for the life of the process.
    pub(super) fn random() -> Self {
        Self::of(&format!("weir-{:08x}", rand::rng().random::<u32>()))
    }

    pub(super) fn of(name: &str) -> Self {
        let value = |version: &str| {
            HeaderValue::from_str(&format!("{version} {name}")).unwrap_or(HeaderValue::from_static("1.1 weir"))
        };
        Self { name: name.to_owned(), via: [value("1.1"), value("1.0")] }
    }

    /// The value that a message of this version adds to `Via`.
    pub(super) fn via(&self, version: Version) -> HeaderValue {
        let [newer, older] = &self.via;
        if version == Version::HTTP_10 { older.clone() } else { newer.clone() }
    }

    /// Whether a message has passed this host before.
    pub(super) fn has_seen(&self, headers: &HeaderMap) -> bool {
        let via = joined(headers, &header::VIA);
        split(&via, b',').iter().any(|hop| hop.split_ascii_whitespace().nth(1) == Some(&self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_counted_down() {
        let left = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("max-forwards", text.parse().unwrap());
            (forwards_left(&mut headers), headers["max-forwards"].to_str().unwrap().to_owned())
        };
        assert_eq!(left("0"), (Some(0), "0".into()));
        assert_eq!(left("5"), (Some(5), "4".into()));
        assert_eq!(left("five"), (None, "five".into()), "what cannot be read says nothing");
        assert_eq!(forwards_left(&mut HeaderMap::new()), None);
    }

    #[test]
    fn a_loop_is_known_by_our_own_name() {
        let (us, other) = (Pseudonym::of("weir-0a"), Pseudonym::random());
        let mut headers = HeaderMap::new();
        assert!(!us.has_seen(&headers));
        headers.append("via", other.via(Version::HTTP_10));
        headers.append("via", "1.1 weir, 1.1 weir-0ab (weir-0a), HTTP/2 proxy".parse().unwrap());
        assert!(!us.has_seen(&headers) && other.has_seen(&headers));
        headers.append("via", us.via(Version::HTTP_11));
        assert!(us.has_seen(&headers));
        assert_eq!(us.via(Version::HTTP_10), "1.0 weir-0a");
    }

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
