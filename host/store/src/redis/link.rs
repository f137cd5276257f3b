//! The connections to Redis: to one server, or to the nodes of a cluster. Nothing is ever sent twice.
//!
//! A call that was not sent is [`StoreError::Unavailable`]. A write that was passed to a connection and not answered, for
//! whatever reason, is [`StoreError::OutcomeUnknown`]. The link repeats only calls of which the server said that nothing ran:
//! NOSCRIPT, and in a cluster every "not here" or "not now".
//!
//! - `open`: a connection, plain or encrypted. `sentinel`: the present master. `node`: one server and its connection.
//! - `cluster`: routing to nodes and redirections. `slots`: the map of slots.

mod cluster;
mod node;
mod open;
mod sentinel;
mod slots;

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Script, Value};

use self::cluster::Cluster;
use self::node::{Failure, Node};
pub(super) use self::open::Opener;
pub(super) use self::sentinel::Sentinels;
use self::slots::slot_of;
use super::ownership::{OwnershipGuard, Way};
use super::scripts::Scripts;
use super::server::{self, Facts, Refusal};
use crate::{Durability, NodeStatus, StoreError};
use weir_core::config::{SentinelUrl, StoreConfig, StoreType, StoreUrl};

/// Names that a server visits for one page.
const SCAN_KEYS: usize = 1_000;

/// The effect that a call may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    /// None.
    Reads,
    /// None; but other systems act on the result, so no failover may take it back: waits for replicas.
    ReadsForSql,
    /// An effect that is repeated when it is lost: a lease, a load, a trim.
    Writes,
    /// An effect that a client learns of: waits for replicas.
    Accepts,
}

impl Nature {
    /// Whether it waits for `store.replicas_min`.
    fn waits(self) -> bool {
        matches!(self, Self::ReadsForSql | Self::Accepts)
    }

    /// Whether a call that was sent and not answered may have changed something.
    fn changes(self) -> bool {
        matches!(self, Self::Writes | Self::Accepts)
    }
}

/// One call, which can be sent several times.
struct Call<'a> {
    command: Cmd,
    /// Loaded on demand, when the server does not know it.
    script: Option<&'a Script>,
    nature: Nature,
}

/// The settings that all connections share.
struct Settings {
    timeout: Duration,
    opener: Opener,
    guard: Arc<OwnershipGuard>,
    /// Whether each connection checks the record of the owner; not where operators read or change it.
    is_watched: bool,
    /// Replicas that must have a write before it is acknowledged.
    replicas_min: u32,
    /// How long to wait for them.
    replicas_timeout_ms: u64,
    is_cluster: bool,
}

enum Servers {
    One(Arc<Node>),
    Cluster(Box<Cluster>),
}

pub(super) struct Link {
    pub(super) scripts: Arc<Scripts>,
    pub(super) guard: Arc<OwnershipGuard>,
    is_watched: bool,
    servers: Servers,
}

impl Link {
    pub(super) fn new(config: &StoreConfig) -> Result<Self, StoreError> {
        if sentinels_of(config)?.is_none() {
            addresses(&config.url)?;
        }
        let Some(namespace) = config.namespace.clone() else {
            return Err(StoreError::Misconfigured(
                "store.namespace: none is set, and there is no database that gives one".into(),
            ));
        };
        Self::with(config, Arc::new(OwnershipGuard::new(namespace, config.partitions)), true)
    }

    /// A second link to the same servers without ownership checks, for operators who read or change the owner.
    pub(super) fn unwatched(config: &StoreConfig, guard: &Arc<OwnershipGuard>) -> Result<Self, StoreError> {
        Self::with(config, Arc::clone(guard), false)
    }

    fn with(config: &StoreConfig, guard: Arc<OwnershipGuard>, is_watched: bool) -> Result<Self, StoreError> {
        let is_cluster = config.store_type == StoreType::RedisCluster;
        let scripts = Arc::new(Scripts::new(is_cluster));
        let timeout = Duration::from_millis(config.response_timeout_ms);
        let settings = Arc::new(Settings {
            timeout,
            opener: opener_of(config, timeout)?,
            guard: Arc::clone(&guard),
            is_watched,
            replicas_min: config.replicas_min,
            replicas_timeout_ms: config.replicas_timeout_ms,
            is_cluster,
        });
        let opener = settings.opener.clone();
        if let Some(sentinels) = sentinels_of(config)? {
            let sentinels = Arc::new(Sentinels::new(&sentinels, opener)?);
            let node = Arc::new(Node::watched(sentinels, settings, Arc::clone(&scripts)));
            node::follow(&node);
            return Ok(Self { scripts, guard, is_watched, servers: Servers::One(node) });
        }
        let infos = addresses(&config.url)?;
        let servers = match (settings.is_cluster, infos.as_slice()) {
            (true, _) => Servers::Cluster(Box::new(Cluster::new(infos, settings, Arc::clone(&scripts))?)),
            (false, [info]) => Servers::One(Arc::new(Node::new(info.clone(), settings, Arc::clone(&scripts)))),
            (false, _) => {
                return Err(wrong("several servers are the nodes of a cluster: write store.type = \"redis-cluster\""));
            }
        };
        Ok(Self { scripts, guard, is_watched, servers })
    }

    /// Whether the partitions are on several nodes, so that a call can carry one of them only.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.servers, Servers::Cluster(_))
    }

    /// Connects if there is no connection.
    pub(super) async fn ensure(&self) -> Result<(), StoreError> {
        match &self.servers {
            Servers::One(node) => node.ensure().await,
            Servers::Cluster(cluster) => cluster.ensure().await,
        }
    }

    /// The cause of failed connections is fixed: the next attempt need not wait.
    pub(super) async fn forget_failure(&self) {
        if let Servers::One(node) = &self.servers {
            node.forget_failure().await;
        }
    }

    /// Checks the record of the owner: see [`OwnershipGuard::check`].
    pub(super) async fn check_record(&self, kind: Option<&str>) -> Result<(), StoreError> {
        match &self.servers {
            Servers::One(node) => node.check_record(kind).await,
            Servers::Cluster(cluster) => cluster.check_record(kind).await,
        }
    }

    /// Sends a command to the server that has `key`.
    pub(super) async fn ask(&self, key: &str, command: Cmd, nature: Nature) -> Result<Value, StoreError> {
        let call = Call { command, script: None, nature };
        match &self.servers {
            Servers::One(node) => node.call(&call, false).await.map_err(Failure::into_error),
            Servers::Cluster(cluster) => cluster.run(slot_of(key), &call).await,
        }
    }

    /// A page of the names that match `pattern` on one server, and the cursor of the next; 0 after the last. Servers are numbered
    /// from 0; `None` beyond the last.
    pub(super) async fn scan(
        &self,
        server: usize,
        cursor: u64,
        pattern: &str,
    ) -> Result<Option<(u64, Vec<String>)>, StoreError> {
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_KEYS);
        let call = Call { command, script: None, nature: Nature::Reads };
        let reply = match &self.servers {
            Servers::One(_) if server > 0 => None,
            Servers::One(node) => Some(node.call(&call, false).await.map_err(Failure::into_error)?),
            Servers::Cluster(cluster) => cluster.on_master(server, &call).await?,
        };
        let Some(reply) = reply else { return Ok(None) };
        let (cursor, names): (u64, Vec<Vec<u8>>) =
            redis::FromRedisValue::from_redis_value(reply).map_err(|error| StoreError::Damaged(error.to_string()))?;
        // All names of weir's are UTF-8.
        Ok(Some((cursor, names.into_iter().filter_map(|name| String::from_utf8(name).ok()).collect())))
    }

    /// Groups the names by their prefixes up to the end of their hash tags: each group is in one slot.
    pub(super) fn by_slot(names: Vec<String>) -> impl Iterator<Item = Vec<String>> {
        let mut slots: std::collections::BTreeMap<u16, Vec<String>> = std::collections::BTreeMap::new();
        for name in names {
            slots.entry(slot_of(&name)).or_default().push(name);
        }
        slots.into_values()
    }

    /// Runs a script; `arguments` adds its arguments to the command. In a cluster all `keys` must be in one slot.
    pub(super) async fn run(
        &self,
        script: &Script,
        nature: Nature,
        keys: &[String],
        arguments: impl FnOnce(&mut Cmd),
    ) -> Result<Value, StoreError> {
        if self.is_watched
            && let Err(refused) = self.guard.admit()
        {
            if !self.guard.is_check_due() {
                return Err(refused);
            }
            self.check_record(None).await?;
        }
        let mut command = redis::cmd("EVALSHA");
        command.arg(script.get_hash()).arg(keys.len()).arg(keys);
        arguments(&mut command);
        let call = Call { command, script: Some(script), nature };
        match &self.servers {
            Servers::One(node) => node.call(&call, false).await.map_err(Failure::into_error),
            Servers::Cluster(cluster) => cluster.run(keys.first().map_or(0, |key| slot_of(key)), &call).await,
        }
    }

    /// Whether Redis answers; in a cluster, every master.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        match &self.servers {
            Servers::One(node) => node.ping().await,
            Servers::Cluster(cluster) => cluster.ping().await,
        }
    }

    /// The present status of each server; asks all of them.
    pub(super) async fn nodes(&self) -> Vec<NodeStatus> {
        match &self.servers {
            Servers::One(_) => Vec::new(),
            Servers::Cluster(cluster) => cluster.nodes().await,
        }
    }

    pub(super) fn durability(&self) -> Durability {
        match &self.servers {
            Servers::One(node) => server::durability(node.facts().as_slice(), node.replicas_min(), None),
            Servers::Cluster(cluster) => cluster.durability(),
        }
    }
}

/// Sends commands through a link.
pub(super) struct OnLink<'a>(pub(super) &'a Link);

impl Way for OnLink<'_> {
    async fn ask(&mut self, key: &str, command: Cmd, nature: Nature) -> Result<Value, Refusal> {
        self.0.ask(key, command, nature).await.map_err(Refusal::Store)
    }
}

fn wrong(reason: &str) -> StoreError {
    StoreError::Misconfigured(format!(
        "store.url: {reason}; write redis://[user:password@]host:port[/database] (rediss:// with TLS), of a cluster any of \
         its nodes, or several with commas between them"
    ))
}

/// How the connections of the store are opened.
pub(super) fn opener_of(config: &StoreConfig, timeout: Duration) -> Result<Opener, StoreError> {
    let tls = config.secured().map_err(|error| StoreError::Misconfigured(error.to_string()))?;
    Opener::new("store", tls.as_ref(), config.tls, timeout)
}

/// The sentinels in `store.url`, if there are some.
pub(super) fn sentinels_of(config: &StoreConfig) -> Result<Option<SentinelUrl>, StoreError> {
    let url = StoreUrl::parse(&config.url).map_err(|reason| wrong(&reason))?;
    Ok(url.sentinels)
}

/// The address of a server, without anything else.
pub(super) fn address_text(info: &ConnectionInfo) -> String {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => format!("{host}:{port}"),
        other => other.to_string(),
    }
}

/// The servers in `store.url`. Those after the first may omit the parts that they share with it.
pub(super) fn addresses(url: &str) -> Result<Vec<ConnectionInfo>, StoreError> {
    let (first, rest) = url.split_once(',').map_or((url, ""), |(first, rest)| (first, rest));
    let (before, _) = first.rsplit_once('@').or_else(|| first.rsplit_once("//")).unwrap_or(("redis:", first));
    let joint = if first.contains('@') { "@" } else { "//" };
    let others = rest.split(',').map(str::trim).filter(|other| !other.is_empty());
    let others =
        others.map(|other| if other.contains("//") { other.to_owned() } else { format!("{before}{joint}{other}") });
    let info = |url: String| url.into_connection_info().map_err(|error| wrong(&error.to_string()));
    std::iter::once(first.trim().to_owned()).chain(others).map(info).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_share_what_the_first_says() {
        let of = |url: &str| addresses(url).map(|infos| infos.iter().map(|info| info.addr().to_string()).collect());
        assert_eq!(of("redis://a:1"), Ok(vec!["a:1".to_owned()]));
        assert_eq!(of("redis://a:1, b:2,redis://c:3"), Ok(vec!["a:1".to_owned(), "b:2".into(), "c:3".into()]));
        let infos = addresses("redis://user:word@a:1,b:2").unwrap();
        assert_eq!((infos[1].addr().to_string().as_str(), infos[1].redis_settings().username()), ("b:2", Some("user")));
        assert!(matches!(of("no url"), Err(StoreError::Misconfigured(_))));
    }
}
