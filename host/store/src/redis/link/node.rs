//! One server: its connection, shared by all callers and replaced when it is lost, and the meaning of its answers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue, RedisError, ServerErrorKind,
    Value,
};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::sentinel::{Sentinels, WATCH_EVERY};
use super::slots::Address;
use super::{Call, Facts, Nature, Scripts, Settings, address_text, server};
use crate::StoreError;
use crate::redis::ownership::OnConnection;
use crate::redis::server::Refusal;
use weir_core::tls::TlsFailure;

/// Most commands that wait to be written to the socket; beyond, callers wait.
const PIPELINE_COMMANDS_MAX: usize = 1_024;
/// Backoff after a failed attempt: callers get an immediate answer meanwhile.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Why a server did not execute a call.
#[derive(Debug)]
pub(super) enum Failure {
    /// Final: no other server would do better.
    Store(StoreError),
    /// Nothing was done: this node has the slot.
    Moved(Address),
    /// Nothing was done: the slot is moving to this node, and the key is there already.
    Asked(Address),
    /// Nothing was done: the slot is moving.
    OnTheWay(String),
    /// Nothing was done: the server is down, or serves no client now.
    Away(String),
}

impl Failure {
    /// The value of the metric label `cause`.
    pub(super) fn cause(&self) -> &'static str {
        match self {
            Self::Store(error) => error.cause(),
            Self::Moved(_) => "moved",
            Self::Asked(_) => "asked",
            Self::OnTheWay(_) => "on-the-way",
            Self::Away(_) => "away",
        }
    }

    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Away(reason) | Self::OnTheWay(reason) => StoreError::Unavailable(reason),
            Self::Moved(to) | Self::Asked(to) => StoreError::Unavailable(format!("the slot has moved to {to}")),
        }
    }
}

#[derive(Clone)]
struct Live {
    connection: MultiplexedConnection,
    /// Its address.
    address: String,
    /// Its driver has ended, or it must not be used any more.
    dead: Arc<AtomicBool>,
}

pub(super) struct Node {
    info: ConnectionInfo,
    /// The sentinels that know its address; without them `info` has it.
    sentinels: Option<Arc<Sentinels>>,
    settings: Arc<Settings>,
    scripts: Arc<Scripts>,
    live: RwLock<Option<Live>>,
    facts: RwLock<Option<Facts>>,
    /// Held while connecting; the time of the last failed attempt, and its error.
    attempt: Mutex<Option<(Instant, StoreError)>>,
}

impl Node {
    pub(super) fn new(info: ConnectionInfo, settings: Arc<Settings>, scripts: Arc<Scripts>) -> Self {
        let (live, facts) = (RwLock::new(None), RwLock::new(None));
        Self { info, sentinels: None, settings, scripts, live, facts, attempt: Mutex::new(None) }
    }

    /// The present master according to sentinels.
    pub(super) fn watched(sentinels: Arc<Sentinels>, settings: Arc<Settings>, scripts: Arc<Scripts>) -> Self {
        let node = Self::new(sentinels.template().clone(), settings, scripts);
        Self { sentinels: Some(sentinels), ..node }
    }

    /// Its name: its address, or the sentinels' name for the master.
    fn name(&self) -> String {
        let address =
            || self.live.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|live| live.address.clone());
        match &self.sentinels {
            None => address_text(&self.info),
            Some(sentinels) => {
                let last = address().map(|address| format!(", last at {address}")).unwrap_or_default();
                format!("the master {:?}{last}", sentinels.name())
            }
        }
    }

    /// Leaves a master that its sentinels no longer name, and connects to the new one.
    async fn follow(&self) {
        let (Some(sentinels), Some(live)) = (&self.sentinels, self.current()) else { return };
        // Without an answer there is no better address.
        let Ok(info) = sentinels.find().await else { return };
        let now = address_text(&info);
        if now != live.address {
            tracing::warn!(master = sentinels.name(), before = live.address, now, "the sentinels name another master");
            live.dead.store(true, Ordering::Release);
            // The next caller will see a failure.
            let _ = self.live().await;
        }
    }

    /// Its status at the last connect or check.
    pub(super) fn facts(&self) -> Option<Facts> {
        self.facts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn replicas_min(&self) -> u32 {
        self.settings.replicas_min
    }

    /// Asks for its present status.
    pub(super) async fn learn(&self) -> Result<Facts, StoreError> {
        let mut live = self.live().await?;
        match server::check(&mut live.connection, self.settings.is_cluster).await {
            Ok(facts) => {
                *self.facts.write().unwrap_or_else(PoisonError::into_inner) = Some(facts.clone());
                Ok(facts)
            }
            Err(Refusal::Store(error)) => Err(error),
            Err(Refusal::Connection(error)) => Err(self.failed(&live, &error, Nature::Reads).into_error()),
        }
    }

    fn current(&self) -> Option<Live> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner).clone();
        live.filter(|live| !live.dead.load(Ordering::Acquire))
    }

    /// The connection. One caller opens it; the others wait for the same attempt.
    async fn live(&self) -> Result<Live, StoreError> {
        if let Some(live) = self.current() {
            return Ok(live);
        }
        let called_at = Instant::now();
        let mut attempt = self.attempt.lock().await;
        if let Some(live) = self.current() {
            return Ok(live);
        }
        if let Some((failed_at, error)) = attempt.as_ref()
            && (*failed_at >= called_at || failed_at.elapsed() < PAUSE_AFTER_FAILURE)
        {
            return Err(error.clone());
        }
        match self.connect().await {
            Ok((live, facts)) => {
                *attempt = None;
                tracing::info!(address = live.address, durability = facts.mode(), "connected to Redis");
                *self.facts.write().unwrap_or_else(PoisonError::into_inner) = Some(facts);
                *self.live.write().unwrap_or_else(PoisonError::into_inner) = Some(live.clone());
                Ok(live)
            }
            Err(error) => {
                if attempt.is_none() {
                    tracing::warn!(address = self.name(), %error, "Redis is not available");
                }
                *attempt = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// The cause of the last failure is fixed: the next attempt need not wait.
    pub(super) async fn forget_failure(&self) {
        *self.attempt.lock().await = None;
    }

    /// Connects if there is no connection.
    pub(super) async fn ensure(&self) -> Result<(), StoreError> {
        self.live().await.map(|_| ())
    }

    async fn connect(&self) -> Result<(Live, Facts), StoreError> {
        let attempt = async {
            let mut live = self.open().await?;
            let facts = server::check(&mut live.connection, self.settings.is_cluster).await?;
            if self.settings.is_watched && !self.settings.is_cluster {
                self.settings.guard.check(&mut OnConnection(&mut live.connection), None).await?;
            }
            for script in self.scripts.all() {
                script.load_async(&mut live.connection).await?;
            }
            Ok((live, facts))
        };
        match tokio::time::timeout(self.settings.timeout.max(Duration::from_millis(100)) * 2, attempt).await {
            Err(_) => Err(self.named(StoreError::Unavailable("no connection in time".into()))),
            Ok(Err(Refusal::Store(error))) => Err(self.named(error)),
            // In TLS 1.3 a server refuses our certificate after the handshake.
            Ok(Err(Refusal::Connection(error))) if TlsFailure::of(&error).is_some() => {
                let told = TlsFailure::of(&error).map(|failure| failure.told("store")).unwrap_or_default();
                Err(self.named(StoreError::Unavailable(told)))
            }
            Ok(Err(Refusal::Connection(error))) => Err(self.named(match classify(&error, Nature::Reads) {
                // The fault was there before the call was sent.
                StoreError::Refused(reason) => StoreError::Unavailable(reason),
                other => other,
            })),
            Ok(Ok(connected)) => Ok(connected),
        }
    }

    async fn open(&self) -> Result<Live, Refusal> {
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(self.settings.timeout))
            .set_pipeline_buffer_size(PIPELINE_COMMANDS_MAX);
        let dead = Arc::new(AtomicBool::new(false));
        let found = match &self.sentinels {
            Some(sentinels) => Some(sentinels.find().await?),
            None => None,
        };
        let info = found.as_ref().unwrap_or(&self.info);
        let (connection, driver) = self.settings.opener.open(info, config).await?;
        drive(driver, &dead);
        Ok(Live { connection, dead, address: address_text(info) })
    }

    /// See [`super::Link::check_record`].
    pub(super) async fn check_record(&self, kind: Option<&str>) -> Result<(), StoreError> {
        let mut live = self.live().await?;
        match self.settings.guard.check(&mut OnConnection(&mut live.connection), kind).await {
            Ok(()) => Ok(()),
            Err(Refusal::Store(error)) => Err(error),
            Err(Refusal::Connection(error)) => Err(self.failed(&live, &error, Nature::Reads).into_error()),
        }
    }

    /// Sends a call. `is_asked`: the slot is moving to this node, and another node redirected this call with ASK.
    pub(super) async fn call(&self, call: &Call<'_>, is_asked: bool) -> Result<Value, Failure> {
        let mut live = self.live().await.map_err(|error| match error {
            StoreError::Unavailable(reason) => Failure::Away(reason),
            other => Failure::Store(other),
        })?;
        let answer = match self.send(&mut live, call, is_asked).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                if let Some(script) = call.script {
                    // Nothing ran so far.
                    let loaded = script.load_async(&mut live.connection).await;
                    loaded.map_err(|error| self.failed(&live, &error, Nature::Reads))?;
                }
                self.send(&mut live, call, is_asked).await
            }
            answer => answer,
        };
        let (answer, replicas) = answer.map_err(|error| self.failed(&live, &error, call.nature))?;
        match replicas {
            Some(replicas) if replicas < u64::from(self.settings.replicas_min) => {
                let wanted = self.settings.replicas_min;
                let reason = format!("{replicas} of {wanted} replicas have it so far (store.replicas_min)");
                let changes = call.nature.changes();
                Err(Failure::Store(if changes { StoreError::OutcomeUnknown } else { StoreError::Unavailable }(reason)))
            }
            _ => Ok(answer),
        }
    }

    /// The answer, and the number of replicas that have the write, where that was requested. WAIT covers the writes of its own
    /// connection, so it must use the same one; it delays the commands behind it.
    async fn send(&self, live: &mut Live, call: &Call<'_>, is_asked: bool) -> Result<(Value, Option<u64>), RedisError> {
        let waits = call.nature.waits() && self.settings.replicas_min > 0;
        if !is_asked && !waits {
            return Ok((call.command.query_async(&mut live.connection).await?, None));
        }
        let mut pipe = redis::pipe();
        if is_asked {
            pipe.cmd("ASKING");
        }
        pipe.add_command(call.command.clone());
        if waits {
            pipe.cmd("WAIT").arg(self.settings.replicas_min).arg(self.settings.replicas_timeout_ms);
        }
        let count = usize::from(is_asked) + 1 + usize::from(waits);
        let mut answers = live.connection.send_packed_commands(&pipe, 0, count).await?.into_iter();
        let mut next = || match answers.next().unwrap_or(Value::Nil) {
            Value::ServerError(error) => Err(RedisError::from(error)),
            value => Ok(value),
        };
        if is_asked {
            next()?;
        }
        let answer = next()?;
        // Without an answer to WAIT, no replica is known to have it.
        let replicas = waits.then(|| next().ok().and_then(|value| u64::from_redis_value(value).ok()).unwrap_or(0));
        Ok((answer, replicas))
    }

    /// Whether it answers, and, of a single server, accepts writes: a server that was demoted since the connect is left.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        let mut live = self.live().await?;
        if self.settings.is_cluster {
            let answer: Result<String, RedisError> = redis::cmd("PING").query_async(&mut live.connection).await;
            return answer.map(|_| ()).map_err(|error| self.failed(&live, &error, Nature::Reads).into_error());
        }
        match server::check_role(&mut live.connection).await {
            Ok(()) => Ok(()),
            Err(Refusal::Store(error)) => {
                live.dead.store(true, Ordering::Release);
                Err(self.named(error))
            }
            Err(Refusal::Connection(error)) => Err(self.failed(&live, &error, Nature::Reads).into_error()),
        }
    }

    /// The same error, with the address where that identifies the server.
    fn named(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Unavailable(reason) => StoreError::Unavailable(format!("Redis at {}: {reason}", self.name())),
            other => other,
        }
    }

    /// The map of slots, as this node sees it.
    pub(super) async fn slots(&self) -> Result<Value, StoreError> {
        let mut live = self.live().await?;
        let answer = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut live.connection).await;
        answer.map_err(|error| self.failed(&live, &error, Nature::Reads).into_error())
    }

    fn failed(&self, live: &Live, error: &RedisError, nature: Nature) -> Failure {
        // Lost, late, or out of step: later answers on this connection cannot be trusted.
        let is_lost = !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension);
        if is_lost || serves_nobody(error) {
            live.dead.store(true, Ordering::Release);
        }
        if self.settings.is_cluster
            && let Some(failure) = self.elsewhere(error)
        {
            return failure;
        }
        match classify(error, nature) {
            StoreError::Unavailable(reason) => Failure::Away(reason),
            other => Failure::Store(other),
        }
    }

    /// The redirection or refusal of a cluster node.
    fn elsewhere(&self, error: &RedisError) -> Option<Failure> {
        let (ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. }) = self.info.addr() else {
            return None;
        };
        let to = || {
            let (address, _) = error.redirect_node()?;
            Address::parse(address, host)
        };
        match error.code()? {
            "MOVED" => to().map(Failure::Moved),
            "ASK" => to().map(Failure::Asked),
            "TRYAGAIN" | "WEIRMOVING" => Some(Failure::OnTheWay(error.to_string())),
            // A demoted master: it refused the call before it ran.
            "READONLY" => Some(Failure::Away(error.to_string())),
            _ => None,
        }
    }
}

/// Checks at intervals whether the sentinels still name the same master, as long as the node is in use.
pub(super) fn follow(node: &Arc<Node>) {
    let node = Arc::downgrade(node);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(WATCH_EVERY).await;
            let Some(node) = node.upgrade() else { return };
            node.follow().await;
        }
    });
}

/// Drives a connection until it is lost or no longer used.
fn drive(driver: impl Future<Output = ()> + Send + 'static, dead: &Arc<AtomicBool>) {
    let dead = Arc::clone(dead);
    tokio::spawn(async move {
        driver.await;
        dead.store(true, Ordering::Release);
    });
}

/// Whether an error means that this server is the wrong one now: it was demoted, is still loading, or demands a login that it did
/// not demand at the connect. The connection is then closed, so that the name is resolved again and the server is checked; it may
/// be another one.
fn serves_nobody(error: &RedisError) -> bool {
    matches!(
        error.code(),
        Some("READONLY" | "LOADING" | "MASTERDOWN" | "NOREPLICAS" | "NOAUTH" | "WRONGPASS" | "CLUSTERDOWN")
    ) || error.kind() == ErrorKind::AuthenticationFailed
}

/// The store error for an error of the server.
fn classify(error: &RedisError, nature: Nature) -> StoreError {
    let text = error.to_string();
    match error.code() {
        // The script did not start: its `#!lua` line makes Redis check these first.
        Some("OOM" | "READONLY" | "MISCONF" | "NOREPLICAS") => StoreError::Refused(text),
        Some("LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "NOSCRIPT") => {
            StoreError::Unavailable(text)
        }
        Some("WEIRDAMAGED" | "WRONGTYPE") => StoreError::Damaged(text),
        Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "MOVED" | "ASK" | "CROSSSLOT") => {
            StoreError::Misconfigured(format!("store.url: {text}"))
        }
        _ if error.kind() == ErrorKind::AuthenticationFailed => StoreError::Misconfigured(format!("store.url: {text}")),
        _ if nature.changes() => StoreError::OutcomeUnknown(text),
        _ => StoreError::Unavailable(text),
    }
}
