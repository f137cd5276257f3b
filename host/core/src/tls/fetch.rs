//! One GET over `http` or `https`, bounded in time and size: for small documents that are read now and then, such as keys.
//!
//! A connection of its own for each, whose name is looked up anew. Follows no redirect, repeats nothing, keeps nothing. Whether
//! an address may be asked in plain is the caller's to decide (see `TlsConfig::decide`).

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::header::{HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::{ClientTls, TlsFailure};

/// Bounds of one document.
#[derive(Debug, Clone, Copy)]
pub struct FetchLimits {
    /// Time for all of it.
    pub timeout: Duration,
    /// Size of its body, in bytes.
    pub bytes_max: usize,
}

/// What was answered.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The status, whatever it is.
    pub status: u16,
    /// The headers, such as `Cache-Control`.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No URL that can be asked.
    #[error("{0:?} is no http:// or https:// URL")]
    Address(String),
    /// No connection.
    #[error("{host} cannot be reached: {reason}")]
    Unreachable {
        /// Who.
        host: String,
        /// What the system says.
        reason: String,
    },
    /// The connection could not be encrypted.
    #[error("{host}: {failure}")]
    Tls {
        /// Who.
        host: String,
        /// Why.
        failure: TlsFailure,
    },
    /// Not all of it came in time.
    #[error("no whole answer within {0} ms")]
    Late(u128),
    /// The body is larger than it may be.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    /// What came is no answer.
    #[error("the answer cannot be understood: {0}")]
    Broken(String),
}

/// Asks for `url` with these headers; `https` needs `tls`.
///
/// # Errors
/// See [`FetchError`]. A status that says no is none.
pub async fn get(
    url: &str,
    headers: HeaderMap,
    tls: Option<&ClientTls>,
    limits: FetchLimits,
) -> Result<Fetched, FetchError> {
    let fetching = fetch(url, headers, tls, limits.bytes_max);
    match tokio::time::timeout(limits.timeout, fetching).await {
        Ok(fetched) => fetched,
        Err(_) => Err(FetchError::Late(limits.timeout.as_millis())),
    }
}

async fn fetch(
    url: &str,
    headers: HeaderMap,
    tls: Option<&ClientTls>,
    bytes_max: usize,
) -> Result<Fetched, FetchError> {
    let address = || FetchError::Address(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| address())?;
    let authority = uri.authority().ok_or_else(address)?;
    let host = authority.host();
    let tls = match uri.scheme_str() {
        Some("https") => Some(tls.ok_or_else(address)?),
        Some("http") => None,
        _ => return Err(address()),
    };
    let port = authority.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, port)).await;
    let stream =
        stream.map_err(|error| FetchError::Unreachable { host: authority.to_string(), reason: error.to_string() })?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = uri.path_and_query().map_or("/", |path| path.as_str()).parse().map_err(|_| address())?;
    *request.headers_mut() = headers;
    let named = HeaderValue::from_str(authority.as_str()).map_err(|_| address())?;
    request.headers_mut().insert(header::HOST, named);
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    request.headers_mut().entry(USER_AGENT).or_insert(HeaderValue::from_static("weir"));
    let Some(tls) = tls else { return exchange(stream, request, bytes_max).await };
    let stream = tls.connect(bare, stream).await;
    let stream = stream.map_err(|failure| FetchError::Tls { host: authority.to_string(), failure })?;
    exchange(stream, request, bytes_max).await
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>, bytes_max: usize) -> Result<Fetched, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| FetchError::Broken(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Ends with the sender, or with the other side.
    let driver = tokio::spawn(connection);
    let answered = async {
        let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        let body = Limited::new(body, bytes_max).collect().await.map_err(|error| {
            let is_long = error.is::<LengthLimitError>();
            if is_long { FetchError::TooLarge(bytes_max) } else { FetchError::Broken(error.to_string()) }
        })?;
        Ok(Fetched { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
    };
    let answered = answered.await;
    driver.abort();
    answered
}
