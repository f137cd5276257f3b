//! Opens a connection to one server, plain or encrypted, before the first command. Resolves the name each time.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, RedisError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::StoreError;
use crate::redis::server::Refusal;
use weir_core::config::{TlsConfig, TlsMode};
use weir_core::tls::{ClientTls, TlsFailure};

/// How long a server that does not answer a TLS handshake has to show that it speaks plain.
const PLAIN_ANSWER: Duration = Duration::from_millis(300);

/// The task that drives a connection until it is lost or no longer used.
pub(in crate::redis) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How the connections of one setting are opened.
#[derive(Debug, Clone)]
pub(in crate::redis) struct Opener {
    /// The name of the setting.
    place: &'static str,
    tls: Option<ClientTls>,
    /// The operator allows plain connections to other machines.
    may_leave: bool,
    /// Time limit of a handshake.
    timeout: Duration,
}

impl Opener {
    /// With the settings of `place`; reads certificates.
    pub(in crate::redis) fn new(
        place: &'static str,
        tls: Option<&TlsConfig>,
        word: Option<TlsMode>,
        timeout: Duration,
    ) -> Result<Self, StoreError> {
        let tls = tls.map(|tls| ClientTls::new(place, tls)).transpose();
        let tls = tls.map_err(|error| StoreError::Misconfigured(error.to_string()))?;
        Ok(Self { place, tls, may_leave: word == Some(TlsMode::Off), timeout: timeout.max(Duration::from_millis(100)) })
    }

    /// Connects and authenticates. The connection lives as long as the driver does.
    pub(in crate::redis) async fn open(
        &self,
        info: &ConnectionInfo,
        config: AsyncConnectionConfig,
    ) -> Result<(MultiplexedConnection, Driver), Refusal> {
        let settings = info.redis_settings();
        match info.addr() {
            ConnectionAddr::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(RedisError::from)?;
                let (connection, driver) = MultiplexedConnection::new_with_config(settings, stream, config).await?;
                Ok((connection, Box::pin(driver)))
            }
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                // URLs write an IPv6 address in brackets.
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let stream = TcpStream::connect((host, *port)).await.map_err(RedisError::from)?;
                stream.set_nodelay(true).map_err(RedisError::from)?;
                let Some(tls) = &self.tls else {
                    self.check_plain((host, *port), &stream)?;
                    let (connection, driver) = MultiplexedConnection::new_with_config(settings, stream, config).await?;
                    return Ok((connection, Box::pin(driver)));
                };
                let stream = self
                    .encrypt(tls, (host, *port), stream)
                    .await
                    .map_err(|failure| Refusal::Store(StoreError::Unavailable(failure.told(self.place))))?;
                let (connection, driver) = MultiplexedConnection::new_with_config(settings, stream, config).await?;
                Ok((connection, Box::pin(driver)))
            }
            _ => Err(Refusal::Store(StoreError::Misconfigured(format!("{}.url: unknown kind of address", self.place)))),
        }
    }

    /// Refuses a plain connection to another machine. The URL may name this one: a sentinel, a node of a cluster or a resolver
    /// may have led elsewhere.
    fn check_plain(&self, (host, port): (&str, u16), stream: &TcpStream) -> Result<(), Refusal> {
        let peer = stream.peer_addr().map_err(RedisError::from)?;
        if self.may_leave || peer.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        let place = self.place;
        Err(Refusal::Store(StoreError::Misconfigured(format!(
            "{place}.tls: {host}:{port} is another machine, and {place}.url asks for no encryption: write rediss://, or \
             {place}.tls = \"off\" where nobody else can listen"
        ))))
    }

    /// As [`Opener::open`], on a task of its own, and with errors of the driver.
    pub(in crate::redis) async fn open_and_drive(
        &self,
        info: &ConnectionInfo,
        config: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, RedisError> {
        match self.open(info, config).await {
            Ok((connection, driver)) => {
                tokio::spawn(driver);
                Ok(connection)
            }
            Err(Refusal::Connection(error)) => Err(error),
            Err(Refusal::Store(error)) => Err(RedisError::from(std::io::Error::other(error.to_string()))),
        }
    }

    async fn encrypt(
        &self,
        tls: &ClientTls,
        (host, port): (&str, u16),
        stream: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, TlsFailure> {
        let late = || TlsFailure::Other(format!("no answer to a TLS handshake within {} ms", self.timeout.as_millis()));
        let encrypted = tokio::time::timeout(self.timeout, tls.connect(host, stream)).await;
        match encrypted.unwrap_or_else(|_| Err(late())) {
            // A plain Redis waits for the end of a line, or closes the connection: probe it.
            Err(TlsFailure::Other(_)) if is_plain((host, port)).await => Err(TlsFailure::Plain),
            encrypted => encrypted,
        }
    }
}

/// Whether a server answers in plain; sends it nothing secret.
async fn is_plain((host, port): (&str, u16)) -> bool {
    let asking = async {
        let mut stream = TcpStream::connect((host, port)).await.ok()?;
        stream.write_all(b"PING\r\n").await.ok()?;
        let mut first = [0];
        stream.read_exact(&mut first).await.ok()?;
        Some(matches!(&first, b"+" | b"-"))
    };
    tokio::time::timeout(PLAIN_ANSWER, asking).await.ok().flatten().unwrap_or(false)
}
