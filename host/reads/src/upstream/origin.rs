//! The connections to an origin: a pool, its bounds, and the meaning of each failure. Never resends a request by itself.

use std::error::Error as StdError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, Uri, Version};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::events::is_events;
use super::message::{Connection, mend};
use super::{UpstreamError, hop};
use weir_core::config::{ConfigError, UpstreamConfig, UpstreamLimits};
use weir_core::telemetry::SHED_TOTAL;
use weir_core::tls::{ClientTls, TlsFailure};
use weir_listener::Interim;
use weir_listener::reply::{CutShort, Piece};

/// How long an idle connection stays open: shorter than the servers' own timeout (5 s in Node, 60 s or more in others), so that
/// a request seldom meets a connection that the server is closing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

type Cause = Box<dyn StdError + Send + Sync>;
/// A request's body on its way to the origin.
pub(super) type OutBody = UnsyncBoxBody<Bytes, Cause>;

/// One origin.
pub(super) struct Origin {
    client: Client<HttpsConnector<HttpConnector>, OutBody>,
    base: String,
    /// Why its connections cannot be encrypted, if they cannot.
    distrust: Mutex<Option<TlsFailure>>,
    pub(super) authority: HeaderValue,
    requests: Arc<Semaphore>,
    event_streams: Arc<Semaphore>,
    limits: UpstreamLimits,
}

/// An origin's answer. The permit stands for one of its concurrent requests or event streams, until the body has arrived.
pub(super) struct OriginAnswer {
    pub(super) response: Response<Incoming>,
    pub(super) permit: OwnedSemaphorePermit,
}

impl Origin {
    pub(super) fn new(config: &UpstreamConfig) -> Result<Self, ConfigError> {
        let wrong = |reason: String| ConfigError::Value { field: format!("upstream {:?}", config.name), reason };
        let authority = HeaderValue::from_str(config.authority()).map_err(|error| wrong(format!("origin: {error}")))?;
        let _: Uri = config.origin.parse().map_err(|error| wrong(format!("origin: {error}")))?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_millis(config.limits.connect_timeout_ms)));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(config.limits.idle_connections_max)
            .http1_max_buf_size(config.limits.header_bytes_max)
            .http1_max_headers(config.limits.headers_max)
            .build(encrypting(config, connector)?);
        Ok(Self {
            client,
            base: config.origin.clone(),
            distrust: Mutex::default(),
            authority,
            requests: Arc::new(Semaphore::new(config.limits.requests_max.min(Semaphore::MAX_PERMITS))),
            event_streams: Arc::new(Semaphore::new(config.limits.event_streams_max.min(Semaphore::MAX_PERMITS))),
            limits: config.limits.clone(),
        })
    }

    /// Sends a request and waits for the head of the answer. Informational responses before it go to `interim`.
    pub(super) async fn send(
        &self,
        (method, path_and_query): (Method, &str),
        mut headers: HeaderMap,
        body: OutBody,
        interim: Interim,
    ) -> Result<OriginAnswer, UpstreamError> {
        let Ok(permit) = Arc::clone(&self.requests).try_acquire_owned() else {
            counter!(SHED_TOTAL, "limit" => "upstream.requests_max").increment(1);
            return Err(UpstreamError::Overloaded);
        };
        let uri: Uri = format!("{}{path_and_query}", self.base).parse().map_err(|_| UpstreamError::BadPath)?;
        let changes = !method.is_safe();
        if method == Method::GET || method == Method::HEAD {
            put_framing(&mut headers, &body);
        }
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        hyper::ext::on_informational(&mut request, move |said| {
            let mut headers = said.headers().clone();
            hop::strip(&mut headers);
            interim.send(said.status(), &headers);
        });
        let connection = capture_connection(&mut request);
        let timeout = Duration::from_millis(self.limits.head_timeout_ms);
        match tokio::time::timeout(timeout, self.client.request(request)).await {
            Ok(Ok(mut response)) => {
                self.trusts(None);
                let (is_sound, mended) = mend(&mut response);
                if is_sound == Connection::Doubtful {
                    tracing::warn!(
                        origin = self.base,
                        status = response.status().as_u16(),
                        "an origin's answer does not say well where it ends; its connection is not used again"
                    );
                    if let Some(connected) = connection.connection_metadata().as_ref() {
                        connected.poison();
                    }
                }
                mended?;
                // A stream may last for hours: streams have permits of their own, so that they never use up those of requests.
                let permit = match is_events(response.headers()) {
                    false => permit,
                    // The request has taken effect: pass the answer on under the permit of the request.
                    true if changes => self.event_stream().unwrap_or(permit),
                    true => self.event_stream()?,
                };
                Ok(OriginAnswer { response, permit })
            }
            Ok(Err(error)) => {
                if let Some(failure) = TlsFailure::of(&error) {
                    self.trusts(Some(failure));
                }
                Err(classify(&error))
            }
            Err(_) => {
                counter!(SHED_TOTAL, "limit" => "upstream.head_timeout_ms").increment(1);
                Err(UpstreamError::Late)
            }
        }
    }

    fn event_stream(&self) -> Result<OwnedSemaphorePermit, UpstreamError> {
        Arc::clone(&self.event_streams).try_acquire_owned().map_err(|_| {
            counter!(SHED_TOTAL, "limit" => "upstream.event_streams_max").increment(1);
            UpstreamError::Overloaded
        })
    }

    /// Records whether its connections can be encrypted, and logs each change once.
    fn trusts(&self, failure: Option<TlsFailure>) {
        let mut known = self.distrust.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == failure {
            return;
        }
        match &failure {
            Some(failure) => tracing::error!(
                origin = self.base,
                cause = failure.name(),
                reason = failure.told("upstream"),
                "no encrypted connection to an origin: its requests are refused"
            ),
            None => tracing::info!(origin = self.base, "an origin's connections are encrypted again"),
        }
        *known = failure;
    }

    /// Why its connections cannot be encrypted, if they cannot.
    pub(super) fn distrust(&self) -> Option<String> {
        let known = self.distrust.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().map(|failure| format!("{}: {}", self.base, failure.told("upstream")))
    }

    /// A request's body, bounded.
    pub(super) fn bounded(&self, body: Incoming) -> OutBody {
        let bytes_max = usize::try_from(self.limits.request_body_bytes_max).unwrap_or(usize::MAX);
        Limited::new(body.map_err(ClientsBody), bytes_max).boxed_unsync()
    }

    /// Whether a body announces that it is too large.
    pub(super) fn is_too_large(&self, body: &Incoming) -> bool {
        body.size_hint().lower() > self.limits.request_body_bytes_max
    }
}

/// Connects without encryption, or with encryption only.
fn encrypting(
    config: &UpstreamConfig,
    mut connector: HttpConnector,
) -> Result<HttpsConnector<HttpConnector>, ConfigError> {
    let place = format!("upstream {:?}", config.name);
    let Some(settings) = config.secured(&place)? else {
        // This origin uses `http` only: no certificate is ever checked.
        let tls = weir_core::tls::plain().map_err(|reason| ConfigError::Value { field: place, reason })?;
        return Ok(HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector));
    };
    connector.enforce_http(false);
    let tls = ClientTls::new(&place, &settings)?;
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls.client_config()).https_only();
    Ok(match tls.server_name() {
        Some(name) => builder
            .with_server_name_resolver(FixedServerNameResolver::new(name.clone()))
            .enable_http1()
            .wrap_connector(connector),
        None => builder.enable_http1().wrap_connector(connector),
    })
}

/// Tries whether an origin's connections can be encrypted; an `http` origin is not contacted.
///
/// # Errors
/// Why not, and what to do.
pub(super) async fn try_encrypting(config: &UpstreamConfig) -> Result<Option<()>, String> {
    let place = format!("upstream {:?}", config.name);
    let Some(settings) = config.secured(&place).map_err(|error| error.to_string())? else { return Ok(None) };
    let tls = ClientTls::new(&place, &settings).map_err(|error| error.to_string())?;
    let uri: Uri = config.origin.parse().map_err(|error| format!("{place}: {error}"))?;
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let trying = async {
        let stream = tokio::net::TcpStream::connect((bare, uri.port_u16().unwrap_or(443))).await;
        let stream = stream.map_err(|error| format!("cannot be reached: {error}"))?;
        tls.connect(bare, stream).await.map(drop).map_err(|failure| failure.told("upstream"))
    };
    let limit = Duration::from_millis(config.limits.connect_timeout_ms.saturating_mul(2));
    let tried = tokio::time::timeout(limit, trying).await;
    let tried = tried.unwrap_or_else(|_| Err(format!("no connection within {} ms", limit.as_millis())));
    tried.map(Some).map_err(|reason| format!("{}: {reason}", config.origin))
}

/// Frames the body of a GET or HEAD: hyper drops a body of unknown length. An origin that does not read the body would take it
/// for the next request, so the connection is closed after it.
fn put_framing(headers: &mut HeaderMap, body: &OutBody) {
    if body.is_end_stream() {
        return;
    }
    if body.size_hint().exact().is_none() {
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
}

/// The client did not send its whole body: not a failure of the origin.
#[derive(Debug, thiserror::Error)]
#[error("the client's body: {0}")]
struct ClientsBody(#[source] hyper::Error);

/// No body.
pub(super) fn empty() -> OutBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn classify(error: &hyper_util::client::legacy::Error) -> UpstreamError {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    let mut last = error.to_string();
    while let Some(inner) = cause {
        if inner.is::<LengthLimitError>() {
            counter!(SHED_TOTAL, "limit" => "upstream.request_body_bytes_max").increment(1);
            return UpstreamError::RequestBodyTooLarge;
        }
        if inner.is::<ClientsBody>() {
            return UpstreamError::RequestBodyBroken;
        }
        last = inner.to_string();
        cause = inner.source();
    }
    tracing::debug!(%error, last, "an origin failed");
    if error.is_connect() { UpstreamError::Unreachable } else { UpstreamError::Broken }
}

/// The next piece of a body: `None` at its end; an error when it was cut short or has stalled for too long.
pub(super) async fn next_piece(body: &mut Incoming, idle: Duration) -> Option<Piece> {
    loop {
        let frame = match tokio::time::timeout(idle, body.frame()).await {
            Err(_) => {
                counter!(SHED_TOTAL, "limit" => "upstream.body_idle_timeout_ms").increment(1);
                return Some(Err(CutShort("the origin's body stood still for too long".into())));
            }
            Ok(None) => return None,
            Ok(Some(Err(error))) => return Some(Err(CutShort(format!("the origin's body was cut short: {error}")))),
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers are not passed on.
        if let Ok(bytes) = frame.into_data() {
            return Some(Ok(bytes));
        }
    }
}

/// A body that is passed on as it arrives.
pub(super) fn passing(
    body: Incoming,
    idle: Duration,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Piece> + Send {
    futures_util::stream::unfold(Some((body, permit)), move |state| async move {
        let (mut body, permit) = state?;
        let piece = next_piece(&mut body, idle).await?;
        let goes_on = piece.is_ok();
        Some((piece, goes_on.then_some((body, permit))))
    })
}
