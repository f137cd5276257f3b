//! Reading a body, bounded in bytes and in time.

use std::error::Error;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;
use hyper::header::{self, HeaderMap};
use metrics::counter;

use super::framing::Fault;
use super::head::one;
use super::problem::{BAD_BODY, BODY_TIMEOUT, BODY_TOO_LARGE, MALFORMED, Problem, UNSUPPORTED_BODY};
use crate::telemetry::SHED_TOTAL;

/// Bounds of a body.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Size in bytes; beyond: 413.
    pub bytes_max: usize,
    /// Time for all of it; beyond: 408.
    pub timeout: Duration,
}

/// Reads a whole body. One that is announced as too large is refused unread; one whose length is not announced as soon
/// as it is too large.
///
/// # Errors
/// 408, 413, or 400 for broken chunks and a body that ends early. Each closes the connection.
pub async fn read<B>(mut body: B, limits: BodyLimits) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes, Error: Error + 'static> + Unpin,
{
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if body.size_hint().lower() > limits.bytes_max as u64 {
        return Err(too_large(limits.bytes_max));
    }
    let whole = async {
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken(&error))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limits.bytes_max {
                return Err(too_large(limits.bytes_max));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.freeze())
    };
    tokio::time::timeout(limits.timeout, whole).await.unwrap_or_else(|_| {
        counter!(SHED_TOTAL, "limit" => "body_timeout_ms").increment(1);
        let detail = format!("send the whole body within {} ms", limits.timeout.as_millis());
        Err(Problem::new(&BODY_TIMEOUT, detail).close())
    })
}

/// The refusal of a body that could not be read to its end: with the reason, where `framing` has seen it.
pub fn broken(error: &(dyn Error + 'static)) -> Problem {
    let mut causes = std::iter::successors(Some(error), |cause: &&(dyn Error + 'static)| (*cause).source());
    let fault = causes.find_map(|cause| cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<Fault>());
    let detail =
        fault.map_or("the body ended early or is not well-formed in its transfer coding", |fault| fault.detail());
    Problem::new(&MALFORMED, detail).close()
}

fn too_large(bytes_max: usize) -> Problem {
    counter!(SHED_TOTAL, "limit" => "body_bytes_max").increment(1);
    Problem::new(&BODY_TOO_LARGE, format!("send a body of at most {bytes_max} bytes")).close()
}

/// Checks that a body that is sent is not compressed.
///
/// # Errors
/// 415.
pub fn check_uncoded(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(Problem::new(&UNSUPPORTED_BODY, "send the body without Content-Encoding"));
    }
    Ok(())
}

/// Checks that a body that is sent is declared as plain JSON.
///
/// # Errors
/// 415.
pub fn check_json_type(headers: &HeaderMap) -> Result<(), Problem> {
    check_uncoded(headers)?;
    let refuse = |detail: &'static str| Err(Problem::new(&UNSUPPORTED_BODY, detail));
    let Ok(Some(given)) = one(headers, &header::CONTENT_TYPE) else {
        return refuse("send one Content-Type: application/json with a body, or no body");
    };
    let essence = given.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if essence.eq_ignore_ascii_case(b"application/json") {
        return Ok(());
    }
    refuse("send the body as application/json, or no body")
}

/// Checks that a body holds no data: it is empty, white space, or an empty JSON object.
///
/// # Errors
/// 400.
pub fn check_says_nothing(body: &[u8]) -> Result<(), Problem> {
    let mut text = body.trim_ascii();
    if let Some(inside) = text.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")) {
        text = inside.trim_ascii();
    }
    if text.is_empty() {
        return Ok(());
    }
    let detail = match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(serde_json::Value::Object(_)) => "no field is known here: send no body or {}".to_owned(),
        Ok(_) => "send no body or a JSON object".to_owned(),
        Err(error) => format!("not JSON ({error}): send no body or {{}}"),
    };
    Err(Problem::new(&BAD_BODY, detail))
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    const LIMITS: BodyLimits = BodyLimits { bytes_max: 8, timeout: Duration::from_secs(30) };

    #[test]
    fn a_body_that_says_nothing() {
        for good in ["", " \r\n", "{}", " { } \n"] {
            check_says_nothing(good.as_bytes()).unwrap();
        }
        for bad in ["{", "}", "[]", "null", "{\"a\":1}", "{}{}", "{} x", "\u{feff}{}", "{{}}", "\"\""] {
            assert_eq!(check_says_nothing(bad.as_bytes()).unwrap_err().status(), 400, "{bad}");
        }
    }

    #[test]
    fn only_plain_json_is_a_body() {
        let with = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            check_json_type(&headers).is_ok()
        };
        assert!(with(&[("content-type", "application/json")]));
        assert!(with(&[("content-type", "Application/JSON; charset=utf-8")]));
        assert!(!with(&[]));
        assert!(!with(&[("content-type", "text/plain")]));
        assert!(!with(&[("content-type", "application/jsonx")]));
        assert!(!with(&[("content-type", "application/json"), ("content-type", "application/json")]));
        assert!(!with(&[("content-type", "application/json"), ("content-encoding", "gzip")]));
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_bound() {
        let read_text = |text: &'static str| read(Full::new(Bytes::from(text)), LIMITS);
        assert_eq!(read_text("12345678").await.unwrap(), "12345678");
        assert_eq!(read_text("123456789").await.unwrap_err().status(), 413);
        assert_eq!(read_text("").await.unwrap(), "");
    }
}
