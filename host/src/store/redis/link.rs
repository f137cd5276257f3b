//! The connection: one, shared by all callers, made anew when it is lost. Nothing is ever sent twice.
//!
//! What was not sent is [`StoreError::Unavailable`]. A write that was handed to the connection and not answered, for
//! whatever reason, is [`StoreError::OutcomeUnknown`]. The one repetition there is follows a NOSCRIPT, which says that
//! nothing ran.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError, Script,
    ServerErrorKind, Value,
};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::scripts::Scripts;
use super::server::{self, Refusal};
use crate::model::Partition;
use crate::store::{Durability, StoreError};

/// Commands that wait to be written to the socket at most; beyond, callers wait.
const PIPELINE_COMMANDS_MAX: usize = 1_024;
/// After a failed attempt, callers are answered at once for this long.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// What a call may leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    Reads,
    Writes,
}

#[derive(Clone)]
struct Live {
    connection: MultiplexedConnection,
    /// Its driver has ended, or it is not to be used any more.
    dead: Arc<AtomicBool>,
}

pub(super) struct Link {
    pub(super) scripts: Scripts,
    info: ConnectionInfo,
    timeout: Duration,
    partitions: Partition,
    live: RwLock<Option<Live>>,
    durability: RwLock<Durability>,
    /// Held while connecting; when the last attempt failed, and with what.
    attempt: Mutex<Option<(Instant, StoreError)>>,
}

impl Link {
    pub(super) fn new(url: &str, timeout: Duration, partitions: Partition) -> Result<Self, StoreError> {
        let wrong = |reason: &str| {
            StoreError::Misconfigured(format!(
                "store.url: {reason}; write redis://[user:password@]host:port[/database]"
            ))
        };
        let info = url.into_connection_info().map_err(|error| wrong(&error.to_string()))?;
        if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            return Err(wrong("TLS is not built in"));
        }
        let unknown = Durability {
            mode: "unknown".into(),
            description: "Redis has not been reached yet".into(),
            survives_power_loss: false,
        };
        Ok(Self {
            scripts: Scripts::new(),
            info,
            timeout,
            partitions,
            live: RwLock::new(None),
            durability: RwLock::new(unknown),
            attempt: Mutex::new(None),
        })
    }

    pub(super) fn durability(&self) -> Durability {
        self.durability.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn current(&self) -> Option<Live> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner).clone();
        live.filter(|live| !live.dead.load(Ordering::Acquire))
    }

    /// The connection, made when there is none. One caller makes it; the others wait for the same attempt.
    async fn live(&self) -> Result<Live, StoreError> {
        if let Some(live) = self.current() {
            return Ok(live);
        }
        let asked = Instant::now();
        let mut attempt = self.attempt.lock().await;
        if let Some(live) = self.current() {
            return Ok(live);
        }
        if let Some((failed_at, error)) = attempt.as_ref()
            && (*failed_at >= asked || failed_at.elapsed() < PAUSE_AFTER_FAILURE)
        {
            return Err(error.clone());
        }
        match self.connect().await {
            Ok(live) => {
                *attempt = None;
                *self.live.write().unwrap_or_else(PoisonError::into_inner) = Some(live.clone());
                tracing::info!(address = %self.info.addr(), durability = self.durability().mode, "connected to Redis");
                Ok(live)
            }
            Err(error) => {
                if attempt.is_none() {
                    tracing::warn!(address = %self.info.addr(), %error, "Redis is not available");
                }
                *attempt = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Connects if there is no connection.
    pub(super) async fn ensure(&self) -> Result<(), StoreError> {
        self.live().await.map(|_| ())
    }

    async fn connect(&self) -> Result<Live, StoreError> {
        let away = |reason: String| StoreError::Unavailable(format!("Redis at {}: {reason}", self.info.addr()));
        let attempt = async {
            let config = AsyncConnectionConfig::new()
                .set_response_timeout(Some(self.timeout))
                .set_pipeline_buffer_size(PIPELINE_COMMANDS_MAX);
            let settings = self.info.redis_settings();
            let dead = Arc::new(AtomicBool::new(false));
            let mut connection = match self.info.addr() {
                ConnectionAddr::Unix(path) => {
                    let stream = UnixStream::connect(path).await.map_err(RedisError::from)?;
                    let (connection, driver) = MultiplexedConnection::new_with_config(settings, stream, config).await?;
                    drive(driver, &dead);
                    connection
                }
                ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(RedisError::from)?;
                    stream.set_nodelay(true).map_err(RedisError::from)?;
                    let (connection, driver) = MultiplexedConnection::new_with_config(settings, stream, config).await?;
                    drive(driver, &dead);
                    connection
                }
                _ => {
                    return Err(Refusal::Store(StoreError::Misconfigured("store.url: unknown kind of address".into())));
                }
            };
            let durability = server::check(&mut connection).await?;
            server::check_format(&mut connection, self.partitions).await?;
            for script in self.scripts.all() {
                script.load_async(&mut connection).await?;
            }
            Ok((Live { connection, dead }, durability))
        };
        match tokio::time::timeout(self.timeout.max(Duration::from_millis(100)) * 2, attempt).await {
            Err(_) => Err(away("no connection in time".into())),
            Ok(Err(Refusal::Store(error))) => Err(error),
            Ok(Err(Refusal::Connection(error))) => Err(match classify(&error, Nature::Reads) {
                StoreError::Unavailable(reason) => away(reason),
                other => other,
            }),
            Ok(Ok((live, durability))) => {
                *self.durability.write().unwrap_or_else(PoisonError::into_inner) = durability;
                Ok(live)
            }
        }
    }

    /// Records format and partitions again, after the data has gone.
    pub(super) async fn check_format(&self) -> Result<(), StoreError> {
        let mut live = self.live().await?;
        match server::check_format(&mut live.connection, self.partitions).await {
            Ok(()) => Ok(()),
            Err(Refusal::Store(error)) => Err(error),
            Err(Refusal::Connection(error)) => Err(self.failed(&live, &error, Nature::Reads)),
        }
    }

    /// Runs a script; `arguments` adds keys and arguments to the command.
    pub(super) async fn run(
        &self,
        script: &Script,
        nature: Nature,
        keys: &[String],
        arguments: impl FnOnce(&mut redis::Cmd),
    ) -> Result<Value, StoreError> {
        let mut live = self.live().await?;
        let mut command = redis::cmd("EVALSHA");
        command.arg(script.get_hash()).arg(keys.len()).arg(keys);
        arguments(&mut command);
        let first = command.query_async(&mut live.connection).await;
        let answer: Result<Value, RedisError> = match first {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                let loaded = script.load_async(&mut live.connection).await;
                // Nothing ran so far.
                loaded.map_err(|error| match self.failed(&live, &error, Nature::Reads) {
                    StoreError::OutcomeUnknown(reason) => StoreError::Unavailable(reason),
                    other => other,
                })?;
                command.query_async(&mut live.connection).await
            }
            answer => answer,
        };
        answer.map_err(|error| self.failed(&live, &error, nature))
    }

    /// PING.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        let mut live = self.live().await?;
        let answer: Result<String, RedisError> = redis::cmd("PING").query_async(&mut live.connection).await;
        answer.map(|_| ()).map_err(|error| self.failed(&live, &error, Nature::Reads))
    }

    fn failed(&self, live: &Live, error: &RedisError, nature: Nature) -> StoreError {
        if !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) {
            // Lost, late, or out of step: what comes next on it cannot be trusted.
            live.dead.store(true, Ordering::Release);
        }
        classify(error, nature)
    }
}

/// Drives a connection until it is lost or no longer used.
fn drive(driver: impl Future<Output = ()> + Send + 'static, dead: &Arc<AtomicBool>) {
    let dead = Arc::clone(dead);
    tokio::spawn(async move {
        driver.await;
        dead.store(true, Ordering::Release);
    });
}

/// What an error means to the callers of the store.
fn classify(error: &RedisError, nature: Nature) -> StoreError {
    let text = error.to_string();
    match error.code() {
        // The script did not begin: its `#!lua` line makes Redis check these first.
        Some("OOM" | "READONLY" | "MISCONF" | "NOREPLICAS") => StoreError::Refused(text),
        Some("LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "NOSCRIPT") => {
            StoreError::Unavailable(text)
        }
        Some("WEIRDAMAGED" | "WRONGTYPE") => StoreError::Damaged(text),
        Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "MOVED" | "ASK" | "CROSSSLOT") => {
            StoreError::Misconfigured(format!("store.url: {text}"))
        }
        _ if error.kind() == ErrorKind::AuthenticationFailed => StoreError::Misconfigured(format!("store.url: {text}")),
        _ if nature == Nature::Writes => StoreError::OutcomeUnknown(text),
        _ => StoreError::Unavailable(text),
    }
}
