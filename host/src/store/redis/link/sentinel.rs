//! Sentinels: who the master is. They are asked anew at each connect, and every half second while there is a connection, so that
//! a master that was put down is left before it says so itself.
//!
//! All are asked at once, and the one with the latest configuration is believed: a sentinel that was cut off goes on naming the
//! master of before. Whether what it names is a master at all is looked at when it is connected (see `server`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError};
use tokio::sync::Mutex;

use super::{Opener, wrong};
use crate::config::SentinelUrl;
use crate::store::StoreError;

/// How often it is asked whether the master is still the same.
pub(super) const WATCH_EVERY: Duration = Duration::from_millis(500);
/// Time for the answer of one sentinel.
const ANSWER: Duration = Duration::from_millis(500);
/// How long the others are waited for when one has answered.
const OTHERS: Duration = Duration::from_millis(100);

/// One sentinel.
struct Seat {
    info: ConnectionInfo,
    connection: Mutex<Option<MultiplexedConnection>>,
}

/// All of a master.
pub(in crate::store::redis) struct Sentinels {
    master: String,
    template: ConnectionInfo,
    seats: Vec<Seat>,
    opener: Opener,
    /// The configuration that was believed last.
    epoch: AtomicU64,
}

/// Where the master is, and all that is known of it, as Redis words it.
type Answer = (Option<(String, u16)>, HashMap<String, String>);

/// What one says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    epoch: u64,
    host: String,
    port: u16,
}

impl Sentinels {
    /// Of a URL; connects when it is asked.
    pub(in crate::store::redis) fn new(url: &SentinelUrl, opener: Opener) -> Result<Self, StoreError> {
        let info = |text: String| text.into_connection_info().map_err(|error| wrong(&error.to_string()));
        let seat = |(host, port): &(String, u16)| {
            let info = info(format!("redis://{host}:{port}"))?;
            let mut settings = info.redis_settings().clone();
            if let Some(username) = &url.username {
                settings = settings.set_username(username);
            }
            if let Some(password) = &url.password {
                settings = settings.set_password(password);
            }
            Ok(Seat { info: info.set_redis_settings(settings), connection: Mutex::default() })
        };
        Ok(Self {
            master: url.master.clone(),
            template: info(url.template.clone())?,
            seats: url.nodes.iter().map(seat).collect::<Result<_, StoreError>>()?,
            epoch: AtomicU64::new(0),
            opener,
        })
    }

    /// What they call the master.
    pub(super) fn name(&self) -> &str {
        &self.master
    }

    /// The master's settings, without its address.
    pub(in crate::store::redis) fn template(&self) -> &ConnectionInfo {
        &self.template
    }

    /// How to connect to the master, as it is now.
    pub(in crate::store::redis) async fn find(&self) -> Result<ConnectionInfo, StoreError> {
        let mut asking: FuturesUnordered<_> = self.seats.iter().map(|seat| self.ask(seat)).collect();
        let (mut best, mut answers, mut failures): (Option<Told>, usize, Vec<String>) = (None, 0, Vec::new());
        let known = self.epoch.load(Ordering::Acquire);
        loop {
            let next = match &best {
                Some(told) if told.epoch >= known => tokio::time::timeout(OTHERS, asking.next()).await.ok().flatten(),
                _ => asking.next().await,
            };
            match next {
                None => break,
                Some(Err(reason)) => failures.push(reason),
                Some(Ok(told)) => {
                    answers += 1;
                    if best.as_ref().is_none_or(|best| best.epoch < told.epoch) {
                        best = Some(told);
                    }
                }
            }
        }
        drop(asking);
        // What was known is not unlearnt because those who knew it are silent: a sentinel that was cut off goes on naming the
        // master that was put down. Most of them together may have been set up anew.
        match best.take() {
            Some(told) if !may_be_believed((told.epoch, known), answers, self.seats.len()) => failures.push(format!(
                "{}:{} is named by so few that they may have been cut off, and by an older configuration (epoch {}, {known} is \
                 known)",
                told.host, told.port, told.epoch
            )),
            told => best = told,
        }
        if let Some(told) = &best {
            self.epoch.store(told.epoch, Ordering::Release);
        }
        match best {
            Some(Told { host, port, .. }) => Ok(self.template.clone().set_addr(ConnectionAddr::Tcp(host, port))),
            None => Err(StoreError::Unavailable(format!(
                "no sentinel names the master {:?}: {}",
                self.master,
                failures.join("; ")
            ))),
        }
    }

    async fn ask(&self, seat: &Seat) -> Result<Told, String> {
        let asked = tokio::time::timeout(ANSWER, self.ask_at(seat)).await;
        let asked = asked.unwrap_or_else(|_| Err(format!("no answer within {} ms", ANSWER.as_millis())));
        asked.map_err(|reason| format!("{}: {reason}", seat.info.addr()))
    }

    async fn ask_at(&self, seat: &Seat) -> Result<Told, String> {
        let mut kept = seat.connection.lock().await;
        // Not put back when this fails, or is given up.
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => {
                let config = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER));
                let opened = self.opener.open_and_drive(&seat.info, config).await;
                opened.map_err(|error| error.to_string())?
            }
        };
        let mut pipe = redis::pipe();
        pipe.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        pipe.cmd("SENTINEL").arg("MASTER").arg(&self.master);
        let answer: Result<Answer, RedisError> = pipe.query_async(&mut connection).await;
        let (address, fields) = answer.map_err(|error| error.to_string())?;
        *kept = Some(connection);
        let (host, port) = address.ok_or("it watches no such master")?;
        let epoch = fields.get("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
        Ok(Told { epoch, host, port })
    }
}

/// Whether a configuration is believed that `answers` of so many sentinels have told together, where another one was believed
/// before: a later one always, an older one of most of them.
fn may_be_believed((told, known): (u64, u64), answers: usize, sentinels: usize) -> bool {
    told >= known || answers * 2 > sentinels
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
