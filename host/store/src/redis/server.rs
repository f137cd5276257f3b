//! The role and the settings of a Redis: checked at each connection, before anything else is sent.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;

use crate::{Durability, StoreError};

/// The scripts need `#!lua` flags and PEXPIRE NX.
const VERSION_MIN: u32 = 7;

/// Shown for a setting that the user may not see.
const UNKNOWN: &str = "unknown";

/// The role and the settings of a server.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    settings: HashMap<String, String>,
    /// `master` or `slave`.
    role: String,
}

/// The size of a cluster.
#[derive(Debug, Clone, Copy)]
pub(super) struct Topology {
    pub(super) masters: usize,
    pub(super) replicas: usize,
    /// The smallest number of replicas of a master.
    pub(super) fewest: usize,
}

/// Refuses a server that would break a promise; describes it otherwise.
pub(super) async fn check(connection: &mut MultiplexedConnection, is_cluster: bool) -> Result<Facts, Refusal> {
    let info: String = redis::cmd("INFO").query_async(connection).await?;
    let info = fields(&info);
    let version = info.get("redis_version").copied().unwrap_or("unknown");
    if version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_none_or(|major| major < VERSION_MIN) {
        return Err(misconfigured(format!("store.url: this Redis is version {version}; weir needs 7.0 or later")));
    }
    match (info.get("cluster_enabled").copied() == Some("1"), is_cluster) {
        (true, false) => {
            return Err(misconfigured(
                "store.url: this Redis is a node of a cluster: write store.type = \"redis-cluster\"".into(),
            ));
        }
        (false, true) => {
            return Err(misconfigured(
                "store.url: this Redis is no node of a cluster: write store.type = \"redis\"".into(),
            ));
        }
        _ => {}
    }
    if !is_cluster {
        fit_to_write(&info)?;
    }
    let settings = settings(connection, &info).await?;
    let policy = settings.get("maxmemory-policy").map_or("unknown", String::as_str);
    if policy != "noeviction" {
        return Err(misconfigured(format!(
            "store.url: this Redis has maxmemory-policy {policy} and may drop acknowledged writes; run \
             `redis-cli CONFIG SET maxmemory-policy noeviction` (and write it into redis.conf)"
        )));
    }
    Ok(Facts { settings, role: info.get("role").copied().unwrap_or("unknown").to_owned() })
}

fn fields(info: &str) -> HashMap<&str, &str> {
    info.lines().filter_map(|line| line.trim().split_once(':')).collect()
}

/// Asks a single server whether it still accepts writes.
pub(super) async fn check_role(connection: &mut MultiplexedConnection) -> Result<(), Refusal> {
    let info: String = redis::cmd("INFO").arg("replication").query_async(connection).await?;
    fit_to_write(&fields(&info))
}

/// Refuses a replica, and a server that is still loading its data.
fn fit_to_write(info: &HashMap<&str, &str>) -> Result<(), Refusal> {
    if info.get("loading").copied() == Some("1") {
        return Err(Refusal::Store(StoreError::Unavailable("it is loading its data (LOADING)".into())));
    }
    if info.get("role").copied() == Some("slave") {
        let of = |name| info.get(name).copied().unwrap_or("unknown");
        return Err(Refusal::Store(StoreError::Unavailable(format!(
            "it is a replica of {}:{} and takes no writes (READONLY): let store.url name the master, or promote this one \
             (redis-cli REPLICAOF NO ONE)",
            of("master_host"),
            of("master_port")
        ))));
    }
    Ok(())
}

/// Why a connection cannot be used.
pub(super) enum Refusal {
    /// It failed.
    Connection(redis::RedisError),
    /// The server is unfit.
    Store(StoreError),
}

impl From<redis::RedisError> for Refusal {
    fn from(error: redis::RedisError) -> Self {
        Self::Connection(error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Refusal {
    /// Whether the user may not do that (ACL).
    pub(super) fn is_forbidden(&self) -> bool {
        match self {
            Self::Connection(error) => error.code() == Some("NOPERM"),
            // As `link::node` words it.
            Self::Store(StoreError::Misconfigured(reason)) => reason.contains("NOPERM"),
            Self::Store(_) => false,
        }
    }

    /// The store error, on a connection that was already checked.
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Connection(error) => StoreError::Unavailable(error.to_string()),
        }
    }
}

fn misconfigured(message: String) -> Refusal {
    Refusal::Store(StoreError::Misconfigured(message))
}

/// From CONFIG GET, or, where that is not allowed, from INFO.
async fn settings(
    connection: &mut MultiplexedConnection,
    info: &HashMap<&str, &str>,
) -> Result<HashMap<String, String>, Refusal> {
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg("maxmemory-policy").arg("appendonly").arg("appendfsync").arg("save");
    command.arg("min-replicas-to-write");
    let settings: redis::RedisResult<HashMap<String, String>> = command.query_async(connection).await;
    match settings {
        Ok(settings) if settings.contains_key("maxmemory-policy") => return Ok(settings),
        Err(error) if error.is_io_error() => return Err(error.into()),
        _ => {}
    }
    let aof = if info.get("aof_enabled").copied() == Some("1") { "yes" } else { "no" };
    let policy = info.get("maxmemory_policy").copied().unwrap_or("unknown");
    let settings = [
        ("maxmemory-policy", policy),
        ("appendonly", aof),
        ("appendfsync", UNKNOWN),
        ("save", UNKNOWN),
        ("min-replicas-to-write", UNKNOWN),
    ];
    Ok(settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
}

impl Facts {
    fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    /// The durability, ascending, its name, and what it lacks.
    fn class(&self) -> (u8, &'static str, &'static str) {
        match (self.setting("appendonly"), self.setting("appendfsync"), self.setting("save")) {
            ("yes", "always", _) => (4, "aof-always", "every acknowledged write has been synced to the disk of Redis"),
            ("yes", "no", _) => {
                (2, "aof-no-sync", "a loss of power of Redis loses what its system had not yet written to disk")
            }
            ("yes", UNKNOWN, _) => (
                2,
                "aof-unknown",
                "whether each acknowledged write is synced to the disk of Redis is unknown, because this user may not run \
                 CONFIG GET",
            ),
            ("yes", _, _) => {
                (3, "aof-everysec", "a loss of power of Redis loses up to about two seconds of acknowledged writes")
            }
            (_, _, "") => (0, "none", "a restart of Redis loses every write that is not yet in SQL"),
            (_, _, UNKNOWN) => (
                0,
                "unknown",
                "what a restart of Redis loses is unknown, because this user may not run CONFIG GET; it has no append-only file",
            ),
            _ => (1, "rdb-only", "a crash of Redis loses the acknowledged writes since its last snapshot"),
        }
    }

    /// A short name for the durability.
    pub(super) fn mode(&self) -> &'static str {
        self.class().1
    }

    /// For operators.
    pub(super) fn describe(&self) -> String {
        format!(
            "role {}, maxmemory-policy {}, appendonly {}, appendfsync {}, min-replicas-to-write {}",
            self.role,
            self.setting("maxmemory-policy"),
            self.setting("appendonly"),
            self.setting("appendfsync"),
            self.setting("min-replicas-to-write"),
        )
    }
}

/// Which losses an acknowledged write survives on these masters: the weakest one decides. `topology` for a cluster.
pub(super) fn durability(masters: &[Facts], replicas_min: u32, topology: Option<Topology>) -> Durability {
    let Some(weakest) = masters.iter().min_by_key(|facts| facts.class().0) else {
        return Durability {
            mode: "unknown".into(),
            description: "Redis has not been reached yet".into(),
            survives_power_loss: false,
        };
    };
    let (_, mode, description) = weakest.class();
    let (appendonly, appendfsync) = (weakest.setting("appendonly"), weakest.setting("appendfsync"));
    let nodes = topology.map(|Topology { masters, replicas, .. }| format!("; {masters} masters, {replicas} replicas"));
    let replication = replication(replicas_min, topology);
    Durability {
        mode: if replicas_min > 0 { format!("{mode} replicas-{replicas_min}") } else { mode.into() },
        description: format!(
            "{description} (appendonly {appendonly}, appendfsync {appendfsync}{}){replication}",
            nodes.unwrap_or_default()
        ),
        survives_power_loss: mode == "aof-always",
    }
}

/// The writes that a failover can lose.
fn replication(replicas_min: u32, topology: Option<Topology>) -> String {
    match (replicas_min, topology) {
        (0, None) => String::new(),
        (0, Some(Topology { fewest: 0, .. })) => {
            "; a master without a replica has no failover: its partitions wait until it is back".into()
        }
        (0, Some(_)) => {
            "; replication is asynchronous: a failover loses acknowledged writes that the replica that takes \
                         over had not received and SQL not committed (store.replicas_min = 1 waits for a replica)"
                .into()
        }
        (wanted, Some(topology)) if u32::try_from(topology.fewest).is_ok_and(|few| few < wanted) => format!(
            "; a write is acknowledged when {wanted} replicas have received it, but a master has {} now: writes there are \
             answered as unknown",
            topology.fewest
        ),
        (wanted, topology) => {
            let certain = topology.is_none_or(|topology| u32::try_from(topology.fewest).is_ok_and(|few| few <= wanted));
            let rest = if certain {
                "a failover to one of them loses nothing that was acknowledged"
            } else {
                "a failover loses nothing that was acknowledged if one of these takes over: Redis prefers the one that has \
                 received most, and does not promise it"
            };
            format!("; a write is acknowledged when {wanted} replicas have received it: {rest}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(appendonly: &str, appendfsync: &str, save: &str) -> Facts {
        let settings = [("appendonly", appendonly), ("appendfsync", appendfsync), ("save", save)];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Facts { settings, role: "master".into() }
    }

    #[test]
    fn only_a_synced_append_only_file_survives_power_loss() {
        let of = |appendonly: &str, appendfsync: &str, save: &str| {
            durability(&[facts(appendonly, appendfsync, save)], 0, None)
        };
        assert_eq!(of("yes", "always", "").mode, "aof-always");
        assert_eq!(of("yes", "everysec", "3600 1").mode, "aof-everysec");
        assert_eq!(of("yes", "no", "").mode, "aof-no-sync");
        assert_eq!(of("no", "everysec", "3600 1").mode, "rdb-only");
        assert_eq!(of("no", "always", "").mode, "none");
        assert!(of("yes", "always", "").survives_power_loss);
        let found = of("yes", "unknown", "unknown");
        assert_eq!((found.mode.as_str(), found.survives_power_loss), ("aof-unknown", false));
        assert!(found.description.contains("may not run CONFIG GET"), "{}", found.description);
        assert_eq!(of("no", "unknown", "unknown").mode, "unknown");
    }

    #[test]
    fn only_a_master_that_has_its_data_is_written_to() {
        let fit = |info: &str| fit_to_write(&fields(info)).is_ok();
        assert!(fit("role:master\r\nloading:0\r\n"));
        assert!(!fit("role:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\n"));
        assert!(!fit("loading:1\r\nrole:master\r\n"));
    }

    #[test]
    fn a_cluster_is_as_lasting_as_its_weakest_master() {
        let nodes = [facts("yes", "always", ""), facts("yes", "everysec", ""), facts("yes", "always", "")];
        let topology = |fewest| Some(Topology { masters: 3, replicas: 3 * fewest, fewest });
        let found = durability(&nodes, 0, topology(1));
        assert_eq!((found.mode.as_str(), found.survives_power_loss), ("aof-everysec", false));
        assert!(found.description.contains("replication is asynchronous"), "{}", found.description);
        assert!(durability(&nodes, 0, topology(0)).description.contains("no failover"));
        let found = durability(&nodes[..1], 1, topology(1));
        assert_eq!((found.mode.as_str(), found.survives_power_loss), ("aof-always replicas-1", true));
        assert!(found.description.ends_with("loses nothing that was acknowledged"), "{}", found.description);
        let found = durability(&nodes[..1], 2, topology(1));
        assert!(found.description.ends_with("answered as unknown"), "{}", found.description);
        let found = durability(&nodes[..1], 1, topology(2));
        assert!(found.description.ends_with("does not promise it"), "{}", found.description);
        assert_eq!(durability(&[], 1, topology(1)).mode, "unknown");
    }
}
