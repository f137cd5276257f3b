//! A database behind a server: its pool, which of the servers of the URL it leads to, and whether that one serves.
//!
//! Shared by all engines that connect over a network. How to apply session settings to a connection and how to try a
//! server is the engine's; this module decides when.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::pool::PoolOptions;
use sqlx::{ConnectOptions as _, Connection, Database, Pool};

use super::health::{Health, Known};
use super::hosts::{Hosts, Shown, servers};
use super::lease::{Lease, UNTESTED_IDLE_MAX};
use super::{SqlError, Standing};
use weir_core::config::{ConfigError, SqlConfig, TlsConfig};

/// How a driver connects to one server.
pub(super) type ConnectOptions<S> = <<<S as ServerDriver>::Sqlx as Database>::Connection as Connection>::Options;
/// A driver's connection.
type ConnectionOf<S> = <<S as ServerDriver>::Sqlx as Database>::Connection;

/// One server of the URL, as its driver knows it.
pub(super) struct Endpoint<O> {
    /// How to connect to it.
    pub options: O,
    /// Its address, for messages.
    pub address: String,
    /// The host's name, where the connection is not encrypted and crosses a network.
    pub plain_host: Option<String>,
}

impl<O> Endpoint<O> {
    /// Of a server on a socket, or else at `host` and `port`.
    pub fn new(options: O, socket: Option<PathBuf>, host: String, port: u16, tls: Option<&TlsConfig>) -> Self {
        match socket {
            Some(socket) => Self { options, address: socket.display().to_string(), plain_host: None },
            None => Self { options, address: format!("{host}:{port}"), plain_host: tls.is_none().then_some(host) },
        }
    }
}

/// What an engine with servers does on its connections.
pub(super) trait ServerDriver: Send + Sync + 'static {
    /// The driver.
    type Sqlx: Database;
    /// What begins a session.
    type Session: Clone + Send + Sync + 'static;

    /// How to connect to the server of one URL. Never encrypted "if possible": the answering side would decide that.
    ///
    /// # Errors
    /// When the driver does not understand the URL.
    fn endpoint(
        settings: &SqlConfig,
        url: &str,
        tls: Option<&TlsConfig>,
    ) -> Result<Endpoint<ConnectOptions<Self>>, SqlError>;

    /// Sets the session's settings on a new connection.
    fn begin_session(
        session: &Self::Session,
        connection: &mut ConnectionOf<Self>,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Why a server takes no writes; `None`: it does.
    fn read_only(
        connection: &mut ConnectionOf<Self>,
    ) -> impl Future<Output = Result<Option<String>, sqlx::Error>> + Send;

    /// Writes something that changes nothing.
    fn write_nothing(connection: &mut ConnectionOf<Self>) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// The servers that the URL names, and what is known of the one that is used.
pub(super) struct Server<S: ServerDriver> {
    hosts: Arc<Hosts<ConnectOptions<S>>>,
    health: Health,
    acquire_timeout_ms: u64,
}

impl<S: ServerDriver> Server<S> {
    /// Prepares to connect; needs no server yet.
    ///
    /// # Errors
    /// When the URL or its files are wrong.
    pub async fn open(settings: &SqlConfig, session: S::Session) -> Result<(Self, Pool<S::Sqlx>), SqlError> {
        let hosts = Arc::new(hosts::<S>(settings)?);
        let acquire_timeout = Duration::from_millis(settings.acquire_timeout_ms);
        if hosts.are_several() {
            // The next connection attempt meets the same error.
            let _ = hosts.find(acquire_timeout, trial::<S>(true), |_| ()).await;
        }
        let known = Known::new();
        let options = PoolOptions::new().max_connections(settings.connections_max).acquire_timeout(acquire_timeout);
        let options = checked_connections::<S>(options, session, &known, hosts.are_several());
        let pool = options.connect_lazy_with(hosts.options());
        let probe = probe::<S>(&hosts, &pool, &known, acquire_timeout);
        let health = Health::start(known, probe);
        Ok((Self { hosts, health, acquire_timeout_ms: settings.acquire_timeout_ms }, pool))
    }

    /// Takes a connection; fails at once while the server is known to be away.
    ///
    /// # Errors
    /// Names the server's address.
    pub async fn lease(&self, pool: &Pool<S::Sqlx>, limit: Duration) -> Result<Lease<S::Sqlx>, SqlError> {
        let leased = self.health.lease(pool, limit).await;
        leased.map_err(|error| Lease::refused(pool, error, (&self.hosts.address(), self.acquire_timeout_ms)))
    }

    /// What is known of it.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The server that is used has taken writes of weir's.
    pub fn settle(&self) {
        self.hosts.settle();
    }
}

/// How to connect to each server that the settings name.
fn hosts<S: ServerDriver>(settings: &SqlConfig) -> Result<Hosts<ConnectOptions<S>>, SqlError> {
    let wrong = |error: ConfigError| SqlError::Permanent(error.to_string());
    let (url, tls) = servers(settings).map_err(wrong)?;
    let one = |url: &String| {
        let Endpoint { options, address, plain_host } = S::endpoint(settings, url, tls.as_ref())?;
        // A driver may take the name from its environment, where the configuration could not check it.
        if let Some(host) = plain_host {
            settings.check_plain(&host).map_err(wrong)?;
        }
        Ok((options.disable_statement_logging(), address))
    };
    Ok(Hosts::new(url.singles().iter().map(one).collect::<Result<_, SqlError>>()?))
}

/// Gives each new connection its session, refuses one to a server that takes no writes where there is a choice, and tests one that
/// was idle.
fn checked_connections<S: ServerDriver>(
    options: PoolOptions<S::Sqlx>,
    session: S::Session,
    known: &Arc<Known>,
    is_choice: bool,
) -> PoolOptions<S::Sqlx> {
    let (shed, suspecting) = (Arc::clone(known), Arc::clone(known));
    options
        .after_connect(move |connection, _| {
            let (session, suspecting) = (session.clone(), Arc::clone(&suspecting));
            Box::pin(async move {
                S::begin_session(&session, connection).await?;
                if is_choice && let Some(reason) = S::read_only(connection).await? {
                    suspecting.suspect();
                    return Err(sqlx::Error::AnyDriverError(reason.into()));
                }
                Ok(())
            })
        })
        .test_before_acquire(false)
        .before_acquire(move |connection, about| {
            let keeps = !shed.is_shed(about.age);
            Box::pin(async move {
                if keeps && about.idle_for >= UNTESTED_IDLE_MAX {
                    connection.ping().await?;
                }
                Ok(keeps)
            })
        })
}

/// Tries a server on a connection of its own: whether it takes writes, with one that changes nothing. Where there is a choice one
/// that says beforehand that it takes none is asked for none.
fn trial<S: ServerDriver>(
    is_choice: bool,
) -> impl Fn(ConnectOptions<S>) -> BoxFuture<'static, Shown> + Clone + Send + Sync {
    move |options| {
        Box::pin(async move {
            let mut connection = match options.connect().await {
                Ok(connection) => connection,
                Err(error) => return Shown::Refuses(error),
            };
            let refusal = if is_choice { S::read_only(&mut connection).await } else { Ok(None) };
            let shown = match refusal {
                Ok(Some(reason)) => Shown::ReadOnly(reason),
                Ok(None) => Shown::of(S::write_nothing(&mut connection).await),
                Err(error) => Shown::Answers(error),
            };
            // It has done its work: how it ends does not matter.
            drop(connection.close().await);
            shown
        })
    }
}

/// What finds SQL back, and leads the pool there.
fn probe<S: ServerDriver>(
    hosts: &Arc<Hosts<ConnectOptions<S>>>,
    pool: &Pool<S::Sqlx>,
    known: &Arc<Known>,
    limit: Duration,
) -> impl Fn() -> BoxFuture<'static, Standing> + Send + use<S> {
    let (hosts, pool, known) = (Arc::clone(hosts), pool.clone(), Arc::clone(known));
    move || {
        let (hosts, pool, known) = (Arc::clone(&hosts), pool.clone(), Arc::clone(&known));
        Box::pin(async move {
            let moved = |options| {
                pool.set_connect_options(options);
                known.moved();
            };
            hosts.find(limit, trial::<S>(hosts.are_several()), moved).await
        })
    }
}

/// The address within the brackets that a URL puts around an IPv6 address.
pub(super) fn unbracketed(host: &str) -> Option<String> {
    host.strip_prefix('[')?.strip_suffix(']').map(str::to_owned)
}
