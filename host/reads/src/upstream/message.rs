//! The end of an origin's answer, where its headers contradict each other or are wrong (RFC 9112, section 6; RFC 9110, sections
//! 8.6 and 15). weir repairs what it can; the rest is 502. It does not reuse a connection on which both sides may disagree about
//! where the next answer begins.

use hyper::body::Body;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use super::UpstreamError;
use super::control::{joined, split};

/// Transfer codings that change the bytes of a body (RFC 9112, section 7.2). Unregistered names mean nothing.
const COMPRESSIONS: [&str; 5] = ["gzip", "x-gzip", "deflate", "compress", "x-compress"];

/// Whether a connection may be reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    /// It may be reused.
    Sound,
    /// It may not be reused.
    Doubtful,
}

/// Repairs the lengths of an answer.
///
/// # Errors
/// [`UpstreamError::Broken`]: it switches protocols or is compressed for one hop. weir asks for neither, and does not undo it.
pub(super) fn mend<B: Body>(response: &mut Response<B>) -> (Connection, Result<(), UpstreamError>) {
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return (Connection::Doubtful, Err(UpstreamError::Broken));
    }
    let exact = response.body().size_hint().exact();
    let headers = response.headers_mut();
    let has_length = headers.contains_key(header::CONTENT_LENGTH);
    if headers.contains_key(header::TRANSFER_ENCODING) {
        let codings = joined(headers, &header::TRANSFER_ENCODING).to_ascii_lowercase();
        let codings = split(&codings, b',');
        let chunked = codings.iter().filter(|coding| **coding == "chunked").count();
        if chunked > 1 || codings.iter().any(|coding| COMPRESSIONS.contains(coding)) {
            return (Connection::Doubtful, Err(UpstreamError::Broken));
        }
        // The chunks decide, and an intermediary forwards one length only.
        headers.remove(header::CONTENT_LENGTH);
        return (if has_length { Connection::Doubtful } else { Connection::Sound }, Ok(()));
    }
    if !has_length {
        return (Connection::Sound, Ok(()));
    }
    let said = joined(headers, &header::CONTENT_LENGTH);
    let length = one_number(&said);
    if status == StatusCode::NO_CONTENT {
        // It has no body, so it has no length; bytes that follow belong to no answer.
        headers.remove(header::CONTENT_LENGTH);
        return (if length == Some(0) { Connection::Sound } else { Connection::Doubtful }, Ok(()));
    }
    // hyper has checked the length of a body, but not the one of an answer without a body (HEAD, 304).
    match length.filter(|length| exact.is_none_or(|exact| exact == *length || exact == 0)) {
        Some(length) => drop(headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length))),
        None => drop(headers.remove(header::CONTENT_LENGTH)),
    }
    (Connection::Sound, Ok(()))
}

/// `5`, and `5, 5`.
fn one_number(text: &str) -> Option<u64> {
    let mut numbers = text.split(',').map(|number| {
        let number = number.trim();
        number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse::<u64>().ok()).flatten()
    });
    let first = numbers.next()??;
    numbers.all(|number| number == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;

    use super::*;

    fn mended(status: u16, pairs: &[(&str, &str)], body: &'static str) -> (Connection, Result<Option<String>, ()>) {
        let mut response = Response::builder().status(status);
        for (name, value) in pairs {
            response = response.header(*name, *value);
        }
        let mut response = response.body(Full::new(Bytes::from(body))).unwrap();
        let (connection, result) = mend(&mut response);
        let lengths: Vec<&str> =
            response.headers().get_all("content-length").iter().map(|value| value.to_str().unwrap()).collect();
        assert!(lengths.len() < 2, "{lengths:?}");
        let length = lengths.first().map(|length| (*length).to_owned());
        (connection, result.map(|()| length).map_err(|_| ()))
    }

    #[test]
    fn an_answer_has_one_length_or_is_none() {
        use Connection::{Doubtful, Sound};
        let of = mended;
        let some = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(of(200, &[("content-length", "4")], "four"), (Sound, some("4")));
        assert_eq!(of(200, &[("content-length", "4"), ("content-length", "4, 4")], "four"), (Sound, some("4")));
        assert_eq!(of(200, &[("transfer-encoding", "Chunked")], "four"), (Sound, Ok(None)));
        let both = [("content-length", "2"), ("transfer-encoding", "chunked")];
        assert_eq!(of(200, &both, "four"), (Doubtful, Ok(None)), "the chunks count");
        for coding in ["gzip, chunked", "chunked, chunked", "Deflate", "x-gzip"] {
            assert_eq!(of(200, &[("transfer-encoding", coding)], "four"), (Doubtful, Err(())), "{coding}");
        }
        assert_eq!(of(200, &[("transfer-encoding", "identity")], "four"), (Sound, Ok(None)), "up to the end");
        assert_eq!(of(101, &[("upgrade", "websocket")], ""), (Doubtful, Err(())));
        assert_eq!(of(204, &[("content-length", "4")], ""), (Doubtful, Ok(None)));
        assert_eq!(of(204, &[("content-length", "0")], ""), (Sound, Ok(None)));
        assert_eq!(of(304, &[("content-length", "4")], ""), (Sound, some("4")), "of what it would have been");
        assert_eq!(of(304, &[("content-length", "4, 5")], ""), (Sound, Ok(None)));
        assert_eq!(of(304, &[("content-length", "x")], ""), (Sound, Ok(None)));
    }
}
