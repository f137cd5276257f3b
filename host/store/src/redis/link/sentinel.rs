//! Sentinels, which know the present master. They are asked at each connect, and every half second while there is a connection,
//! so that a demoted master is left before it says so itself.
//!
//! All sentinels are asked at once, and the latest configuration wins: a sentinel that was cut off goes on naming the old master.
//! The connect checks whether the named server really is a master (see `server`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError};
use tokio::sync::Mutex;

use super::{Opener, wrong};
use crate::StoreError;
use weir_core::config::SentinelUrl;

/// How often the sentinels are asked whether the master is still the same.
pub(super) const WATCH_EVERY: Duration = Duration::from_millis(500);
/// Time limit for the answer of one sentinel.
const ANSWER: Duration = Duration::from_millis(500);
/// How long to wait for the others after the first answer.
const OTHERS: Duration = Duration::from_millis(100);

/// One sentinel.
struct Sentinel {
    info: ConnectionInfo,
    connection: Mutex<Option<MultiplexedConnection>>,
}

/// All sentinels of a master.
pub(in crate::redis) struct Sentinels {
    master: String,
    template: ConnectionInfo,
    sentinels: Vec<Sentinel>,
    opener: Opener,
    /// The last accepted configuration.
    epoch: AtomicU64,
}

/// The address of the master, and its other settings in the syntax of Redis.
type Answer = (Option<(String, u16)>, HashMap<String, String>);

/// The answer of one sentinel.
#[derive(Debug, Clone, PartialEq, Eq)]
struct MasterAnswer {
    epoch: u64,
    host: String,
    port: u16,
}

impl Sentinels {
    /// From a URL; connects on demand.
    pub(in crate::redis) fn new(url: &SentinelUrl, opener: Opener) -> Result<Self, StoreError> {
        let info = |text: String| text.into_connection_info().map_err(|error| wrong(&error.to_string()));
        let sentinel = |(host, port): &(String, u16)| {
            let info = info(format!("redis://{host}:{port}"))?;
            let mut settings = info.redis_settings().clone();
            if let Some(username) = &url.username {
                settings = settings.set_username(username);
            }
            if let Some(password) = &url.password {
                settings = settings.set_password(password);
            }
            Ok(Sentinel { info: info.set_redis_settings(settings), connection: Mutex::default() })
        };
        Ok(Self {
            master: url.master.clone(),
            template: info(url.template.clone())?,
            sentinels: url.nodes.iter().map(sentinel).collect::<Result<_, StoreError>>()?,
            epoch: AtomicU64::new(0),
            opener,
        })
    }

    /// The sentinels' name of the master.
    pub(super) fn name(&self) -> &str {
        &self.master
    }

    /// The master's settings, without its address.
    pub(in crate::redis) fn template(&self) -> &ConnectionInfo {
        &self.template
    }

    /// The connection settings of the present master.
    pub(in crate::redis) async fn find(&self) -> Result<ConnectionInfo, StoreError> {
        let mut asking: FuturesUnordered<_> = self.sentinels.iter().map(|sentinel| self.ask(sentinel)).collect();
        let (mut best, mut answers, mut failures): (Option<MasterAnswer>, usize, Vec<String>) = (None, 0, Vec::new());
        let known = self.epoch.load(Ordering::Acquire);
        loop {
            let next = match &best {
                Some(answer) if answer.epoch >= known => {
                    tokio::time::timeout(OTHERS, asking.next()).await.ok().flatten()
                }
                _ => asking.next().await,
            };
            match next {
                None => break,
                Some(Err(reason)) => failures.push(reason),
                Some(Ok(answer)) => {
                    answers += 1;
                    if best.as_ref().is_none_or(|best| best.epoch < answer.epoch) {
                        best = Some(answer);
                    }
                }
            }
        }
        drop(asking);
        // A configuration stays valid while the sentinels that know it are silent: a sentinel that was cut off goes on naming the
        // demoted master. A majority of them together may have been set up anew.
        match best.take() {
            Some(answer) if !may_be_believed((answer.epoch, known), answers, self.sentinels.len()) => failures.push(format!(
                "{}:{} is named by so few that they may have been cut off, and by an older configuration (epoch {}, {known} is \
                 known)",
                answer.host, answer.port, answer.epoch
            )),
            answer => best = answer,
        }
        if let Some(answer) = &best {
            self.epoch.store(answer.epoch, Ordering::Release);
        }
        match best {
            Some(MasterAnswer { host, port, .. }) => {
                Ok(self.template.clone().set_addr(ConnectionAddr::Tcp(host, port)))
            }
            None => Err(StoreError::Unavailable(format!(
                "no sentinel names the master {:?}: {}",
                self.master,
                failures.join("; ")
            ))),
        }
    }

    async fn ask(&self, sentinel: &Sentinel) -> Result<MasterAnswer, String> {
        let asked = tokio::time::timeout(ANSWER, self.ask_at(sentinel)).await;
        let asked = asked.unwrap_or_else(|_| Err(format!("no answer within {} ms", ANSWER.as_millis())));
        asked.map_err(|reason| format!("{}: {reason}", sentinel.info.addr()))
    }

    async fn ask_at(&self, sentinel: &Sentinel) -> Result<MasterAnswer, String> {
        let mut cached = sentinel.connection.lock().await;
        // Not returned when this fails, or is cancelled.
        let mut connection = match cached.take() {
            Some(connection) => connection,
            None => {
                let config = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER));
                let opened = self.opener.open_and_drive(&sentinel.info, config).await;
                opened.map_err(|error| error.to_string())?
            }
        };
        let mut pipe = redis::pipe();
        pipe.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        pipe.cmd("SENTINEL").arg("MASTER").arg(&self.master);
        let answer: Result<Answer, RedisError> = pipe.query_async(&mut connection).await;
        let (address, fields) = answer.map_err(|error| error.to_string())?;
        *cached = Some(connection);
        let (host, port) = address.ok_or("it watches no such master")?;
        let epoch = fields.get("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
        Ok(MasterAnswer { epoch, host, port })
    }
}

/// Whether to accept a configuration that `answers` of all sentinels name, over the last accepted one: a later configuration
/// always, an older one from a majority.
fn may_be_believed((answer, known): (u64, u64), answers: usize, sentinels: usize) -> bool {
    answer >= known || answers * 2 > sentinels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentinel_that_was_cut_off_leads_nobody_back() {
        assert!(may_be_believed((3, 2), 1, 3), "one that knows more is enough");
        assert!(may_be_believed((2, 2), 1, 3));
        assert!(!may_be_believed((1, 2), 1, 3), "the others are silent");
        assert!(may_be_believed((1, 2), 2, 3), "most of them were set up anew");
    }
}
