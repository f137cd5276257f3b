//! What hosts tell each other: short messages in one stream, which every host reads from where it has been. Whoever was
//! away reads on from there, or learns that it has missed some because the stream was cut meanwhile.
//!
//! What a message makes untrue in the cache that hosts share (see `shared`) gets another version in the same step. So who has
//! heard the message finds the version, too.
//!
//! On a connection of its own, because a reader waits in it. A message that could not be sent is the caller's to repeat.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::streams::StreamReadReply;
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, RedisError, Value};

use uuid::Uuid;

use super::keys::Keys;
use super::link::{Opener, Sentinels, addresses, opener_of, sentinels_of};
use crate::config::{Namespace, StoreConfig};
use crate::store::StoreError;

/// Messages kept for hosts that were away, about.
const MESSAGES_KEPT: usize = 10_000;
/// Versions kept.
const FIELDS_KEPT: usize = 4_096;
/// Messages that are read at once.
const MESSAGES_READ: usize = 1_000;
/// How long a reader waits for one, in milliseconds.
const BLOCK_MS: usize = 2_000;
/// Time for an answer besides.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The field with the version of all that is shared.
pub const VERSION_OF_ALL: &str = "*";

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// These messages, in the order in which they were sent.
    Messages(Vec<Vec<u8>>),
    /// Some that cannot be read any more.
    Missed,
}

/// A place in the stream.
pub struct Relay {
    /// The servers that are configured.
    seeds: Vec<ConnectionInfo>,
    /// Or who knows where the one is.
    sentinels: Option<Sentinels>,
    opener: Opener,
    keys: Keys,
    /// Which of them is asked next.
    next: usize,
    /// In a cluster, the node that is said to have the stream.
    moved_to: Option<ConnectionInfo>,
    connection: Option<MultiplexedConnection>,
    /// What was read last; `None` before the first connection.
    after: Option<String>,
}

impl Relay {
    /// Connects when it is first used.
    ///
    /// # Errors
    /// A URL that is none, a certificate that cannot be read.
    pub fn new(config: &StoreConfig, namespace: &Namespace) -> Result<Self, StoreError> {
        let (keys, opener) = (Keys::new(namespace), opener_of(config, RESPONSE_TIMEOUT)?);
        let sentinels = sentinels_of(config)?.map(|url| Sentinels::new(&url, opener.clone())).transpose()?;
        let seeds = match &sentinels {
            Some(sentinels) => vec![sentinels.template().clone()],
            None => addresses(&config.url)?,
        };
        Ok(Self { seeds, sentinels, opener, keys, next: 0, moved_to: None, connection: None, after: None })
    }

    async fn connection(&mut self) -> Result<&mut MultiplexedConnection, RedisError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let config = AsyncConnectionConfig::new().set_response_timeout(Some(RESPONSE_TIMEOUT));
                let seed = match &self.sentinels {
                    Some(sentinels) => sentinels.find().await.map_err(std::io::Error::other)?,
                    None => self.seeds[self.next % self.seeds.len()].clone(),
                };
                let info = self.moved_to.clone().unwrap_or(seed);
                let opening = self.opener.open_and_drive(&info, config);
                let opened = tokio::time::timeout(RESPONSE_TIMEOUT, opening).await;
                opened.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))?
            }
        };
        Ok(self.connection.insert(connection))
    }

    /// Sends a message to all hosts, this one too, and gives these `fields` of the versions another one. No replica is waited for:
    /// where one is away, every message would be late. What a failover takes back is noticed by who had heard it.
    ///
    /// # Errors
    /// It may have been sent all the same.
    pub async fn send(&mut self, message: &[u8], fields: &[String]) -> Result<(), StoreError> {
        let mut command = redis::cmd("EVAL");
        command.arg(include_str!("relay.lua")).arg(2).arg(self.keys.relay()).arg(self.keys.versions()).arg(message);
        command.arg(Uuid::new_v4().simple().to_string()).arg(MESSAGES_KEPT).arg(FIELDS_KEPT).arg(fields);
        let sent: Result<String, RedisError> = match self.connection().await {
            Ok(connection) => command.query_async(connection).await,
            Err(error) => Err(error),
        };
        sent.map(drop).map_err(|error| self.lost(&error))
    }

    /// Waits for messages, not longer than some seconds; none is no error. The first time it only takes its place.
    ///
    /// # Errors
    /// Redis is away; call again, and nothing is lost.
    pub async fn hear(&mut self) -> Result<Heard, StoreError> {
        let heard = self.read().await;
        heard.map_err(|error| self.lost(&error))
    }

    async fn read(&mut self) -> Result<Heard, RedisError> {
        let (relay, versions) = (self.keys.relay(), self.keys.versions());
        let Some(after) = self.after.clone() else {
            let connection = self.connection().await?;
            begin_versions(connection, &versions, false).await?;
            let (_, newest) = ends(connection, &relay).await?;
            self.after = Some(newest.unwrap_or_else(|| "0-0".into()));
            return Ok(Heard::Messages(Vec::new()));
        };
        let connection = self.connection().await?;
        let (oldest, newest) = ends(connection, &relay).await?;
        // What was read last is older than all that is kept, or newer than all that there is: a gap, or another Redis.
        let read = number(&after);
        let is_behind = oldest.as_deref().is_some_and(|oldest| read < number(oldest) && read != (0, 0));
        // What was read last is missing although it was not cut off: the stream went back to an earlier state.
        let is_other = read > newest.as_deref().map_or((0, 0), number)
            || (!is_behind && read != (0, 0) && !has(connection, &relay, &after).await?);
        if is_other {
            // Versions that were raised may be those of before, and stand for what is not true any more.
            begin_versions(connection, &versions, true).await?;
        }
        if is_behind || is_other {
            self.after = Some(newest.unwrap_or_else(|| "0-0".into()));
            return Ok(Heard::Missed);
        }
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(MESSAGES_READ).arg("BLOCK").arg(BLOCK_MS).arg("STREAMS").arg(&relay).arg(&after);
        let reply: Option<StreamReadReply> = command.query_async(connection).await?;
        let mut messages = Vec::new();
        for entry in reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids) {
            self.after = Some(entry.id.clone());
            if let Some(Value::BulkString(message)) = entry.map.get("m") {
                messages.push(message.clone());
            }
        }
        Ok(Heard::Messages(messages))
    }

    /// Goes on elsewhere: where the cluster says that the stream is, or else with the next of the configured servers.
    fn lost(&mut self, error: &RedisError) -> StoreError {
        self.connection = None;
        let place = error.redirect_node().and_then(|(address, _)| address.rsplit_once(':'));
        let place = place.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
        match place {
            Some((host, port)) => {
                self.moved_to = Some(self.seeds[0].clone().set_addr(ConnectionAddr::Tcp(host, port)));
            }
            None => {
                self.moved_to = None;
                self.next = self.next.wrapping_add(1);
            }
        }
        StoreError::Unavailable(error.to_string())
    }
}

/// Gives what is shared a version as a whole, another one where it must be.
async fn begin_versions(connection: &mut MultiplexedConnection, versions: &str, anew: bool) -> Result<(), RedisError> {
    let command = if anew { "HSET" } else { "HSETNX" };
    let version = Uuid::new_v4().simple().to_string();
    redis::cmd(command).arg(versions).arg(VERSION_OF_ALL).arg(version).query_async(connection).await
}

/// Ids of the first and the last message that are kept.
async fn ends(
    connection: &mut MultiplexedConnection,
    relay: &str,
) -> Result<(Option<String>, Option<String>), RedisError> {
    let one = |command: &str, from: &str, to: &str| {
        let mut one = redis::cmd(command);
        one.arg(relay).arg(from).arg(to).arg("COUNT").arg(1);
        one
    };
    let first: redis::streams::StreamRangeReply = one("XRANGE", "-", "+").query_async(connection).await?;
    let last: redis::streams::StreamRangeReply = one("XREVRANGE", "+", "-").query_async(connection).await?;
    let id = |reply: redis::streams::StreamRangeReply| reply.ids.into_iter().next().map(|entry| entry.id);
    Ok((id(first), id(last)))
}

/// Whether this message is there.
async fn has(connection: &mut MultiplexedConnection, relay: &str, id: &str) -> Result<bool, RedisError> {
    let mut range = redis::cmd("XRANGE");
    let found: redis::streams::StreamRangeReply = range.arg(relay).arg(id).arg(id).query_async(connection).await?;
    Ok(!found.ids.is_empty())
}

/// `5-1` → (5, 1).
fn number(id: &str) -> (u64, u64) {
    let (time, count) = id.split_once('-').unwrap_or((id, "0"));
    (time.parse().unwrap_or(0), count.parse().unwrap_or(0))
}
