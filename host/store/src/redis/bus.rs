//! The invalidation bus: short messages of hosts in one stream, which every host reads from its last position. A host that was
//! away reads on from there, or learns that it has missed messages because the stream was cut meanwhile.
//!
//! The step that sends a message also changes the versions of the shared cache entries that the message invalidates (see
//! `shared`). So a host that has received the message finds the new version, too.
//!
//! It has a connection of its own, because a reader blocks in it. The caller must repeat a message that could not be sent.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::streams::StreamReadReply;
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, RedisError, Value};

use uuid::Uuid;

use super::keys::Keys;
use super::link::{Opener, Sentinels, addresses, opener_of, sentinels_of};
use crate::StoreError;
use weir_core::config::{Namespace, StoreConfig};

/// Messages kept for hosts that were away, approximately.
const MESSAGES_KEPT: usize = 10_000;
/// Most versions in the hash.
const FIELDS_KEPT: usize = 4_096;
/// Most messages of one read.
const MESSAGES_READ: usize = 1_000;
/// How long a read blocks, in milliseconds.
const BLOCK_MS: usize = 2_000;
/// Additional time for an answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The field with the version of everything that is shared.
pub const VERSION_OF_ALL: &str = "*";

/// The result of a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// These messages, in the order of sending.
    Messages(Vec<Vec<u8>>),
    /// Some messages are lost.
    Missed,
}

/// A position in the stream.
pub struct InvalidationBus {
    /// The configured servers.
    seeds: Vec<ConnectionInfo>,
    /// The sentinels that know the server, where they are configured.
    sentinels: Option<Sentinels>,
    opener: Opener,
    keys: Keys,
    /// The index of the next server to try.
    next: usize,
    /// In a cluster, the node that has the stream according to another node.
    moved_to: Option<ConnectionInfo>,
    connection: Option<MultiplexedConnection>,
    /// The last message read; `None` before the first connection.
    after: Option<String>,
}

impl InvalidationBus {
    /// Connects when it is first used.
    ///
    /// # Errors
    /// An invalid URL, an unreadable certificate.
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

    /// Sends a message to all hosts, including this one, and changes the versions in these `fields`. Waits for no replica:
    /// otherwise every message would be late while one is down. Hosts that received a message notice when a failover loses it.
    ///
    /// # Errors
    /// It may have been sent all the same.
    pub async fn send(&mut self, message: &[u8], fields: &[String]) -> Result<(), StoreError> {
        let mut command = redis::cmd("EVAL");
        command.arg(include_str!("publish.lua")).arg(2).arg(self.keys.relay()).arg(self.keys.versions()).arg(message);
        command.arg(Uuid::new_v4().simple().to_string()).arg(MESSAGES_KEPT).arg(FIELDS_KEPT).arg(fields);
        let sent: Result<String, RedisError> = match self.connection().await {
            Ok(connection) => command.query_async(connection).await,
            Err(error) => Err(error),
        };
        sent.map(drop).map_err(|error| self.lost(&error))
    }

    /// Waits some seconds for messages; none is no error. The first call only takes its position.
    ///
    /// # Errors
    /// Redis does not answer. Call again: no message is lost.
    pub async fn receive(&mut self) -> Result<Received, StoreError> {
        let received = self.read().await;
        received.map_err(|error| self.lost(&error))
    }

    async fn read(&mut self) -> Result<Received, RedisError> {
        let (relay, versions) = (self.keys.relay(), self.keys.versions());
        let Some(after) = self.after.clone() else {
            let connection = self.connection().await?;
            begin_versions(connection, &versions, false).await?;
            let (_, newest) = ends(connection, &relay).await?;
            self.after = Some(newest.unwrap_or_else(|| "0-0".into()));
            return Ok(Received::Messages(Vec::new()));
        };
        let connection = self.connection().await?;
        let (oldest, newest) = ends(connection, &relay).await?;
        // The last message read is older than all in the stream, or newer than all in it: a gap, or another Redis.
        let read = number(&after);
        let is_behind = oldest.as_deref().is_some_and(|oldest| read < number(oldest) && read != (0, 0));
        // The last message read is missing although it was not cut off: the stream went back to an earlier state.
        let is_other = read > newest.as_deref().map_or((0, 0), number)
            || (!is_behind && read != (0, 0) && !has(connection, &relay, &after).await?);
        if is_other {
            // Versions may have gone back, too, and would validate outdated entries.
            begin_versions(connection, &versions, true).await?;
        }
        if is_behind || is_other {
            self.after = Some(newest.unwrap_or_else(|| "0-0".into()));
            return Ok(Received::Missed);
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
        Ok(Received::Messages(messages))
    }

    /// Continues elsewhere: at the node that the cluster names, or else at the next configured server.
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

/// Sets the version of everything that is shared, and replaces it where it must change.
async fn begin_versions(connection: &mut MultiplexedConnection, versions: &str, anew: bool) -> Result<(), RedisError> {
    let command = if anew { "HSET" } else { "HSETNX" };
    let version = Uuid::new_v4().simple().to_string();
    redis::cmd(command).arg(versions).arg(VERSION_OF_ALL).arg(version).query_async(connection).await
}

/// Ids of the first and the last message in the stream.
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

/// Whether this message is in the stream.
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
