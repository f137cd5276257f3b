//! What a Redis is and how it is configured: checked at each connection, before anything else is sent.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;

use super::keys;
use crate::model::Partition;
use crate::store::{Durability, StoreError};

/// The data format in Redis.
const FORMAT: &str = "3";
/// The scripts need `#!lua` flags and PEXPIRE NX.
const VERSION_MIN: u32 = 7;

/// Refuses a server that would break a promise; says what an acknowledged write survives there.
pub(super) async fn check(connection: &mut MultiplexedConnection) -> Result<Durability, Refusal> {
    let info: String = redis::cmd("INFO").query_async(connection).await?;
    let info: HashMap<&str, &str> = info.lines().filter_map(|line| line.trim().split_once(':')).collect();
    let version = info.get("redis_version").copied().unwrap_or("unknown");
    if version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_none_or(|major| major < VERSION_MIN) {
        return Err(misconfigured(format!("store.url: this Redis is version {version}; weir needs 7.0 or later")));
    }
    if info.get("cluster_enabled").copied() == Some("1") {
        return Err(misconfigured(
            "store.url: this Redis is a node of a cluster, which weir does not speak yet; name a single server".into(),
        ));
    }
    let settings = settings(connection, &info).await?;
    let policy = settings.get("maxmemory-policy").map_or("unknown", String::as_str);
    if policy != "noeviction" {
        return Err(misconfigured(format!(
            "store.url: this Redis has maxmemory-policy {policy} and may drop acknowledged writes; run \
             `redis-cli CONFIG SET maxmemory-policy noeviction` (and write it into redis.conf)"
        )));
    }
    Ok(durability(&settings))
}

/// Records format and number of partitions in an empty Redis, compares them in another.
pub(super) async fn check_format(connection: &mut MultiplexedConnection, partitions: Partition) -> Result<(), Refusal> {
    let mut read = redis::cmd("HMGET");
    read.arg(keys::FORMAT).arg("version").arg("partitions");
    let (mut version, mut recorded): (Option<String>, Option<Partition>) = read.query_async(connection).await?;
    if version.is_none() || recorded.is_none() {
        // Another host may be doing the same: the first one wins.
        for (field, value) in [("version", FORMAT.to_owned()), ("partitions", partitions.to_string())] {
            let mut write = redis::cmd("HSETNX");
            write.arg(keys::FORMAT).arg(field).arg(value).query_async::<i64>(connection).await?;
        }
        (version, recorded) = read.query_async(connection).await?;
    }
    if version.as_deref() != Some(FORMAT) {
        return Err(misconfigured(format!(
            "store.url: the data in this Redis was written by another version of weir (format {}, this one has {FORMAT}): \
             let that version flush everything, stop it, and delete its keys (weir:*)",
            version.as_deref().unwrap_or("unknown")
        )));
    }
    match recorded {
        Some(recorded) if recorded != partitions => {
            Err(Refusal::Store(crate::store::other_partitions("this Redis", recorded, partitions)))
        }
        _ => Ok(()),
    }
}

/// Why a connection is not used.
pub(super) enum Refusal {
    /// It failed.
    Connection(redis::RedisError),
    /// The server is not fit.
    Store(StoreError),
}

impl From<redis::RedisError> for Refusal {
    fn from(error: redis::RedisError) -> Self {
        Self::Connection(error)
    }
}

fn misconfigured(message: String) -> Refusal {
    Refusal::Store(StoreError::Misconfigured(message))
}

/// By CONFIG GET, or, where that is not allowed, what INFO says.
async fn settings(
    connection: &mut MultiplexedConnection,
    info: &HashMap<&str, &str>,
) -> Result<HashMap<String, String>, Refusal> {
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg("maxmemory-policy").arg("appendonly").arg("appendfsync").arg("save");
    let asked: redis::RedisResult<HashMap<String, String>> = command.query_async(connection).await;
    match asked {
        Ok(settings) if settings.contains_key("maxmemory-policy") => return Ok(settings),
        Err(error) if error.is_io_error() => return Err(error.into()),
        _ => {}
    }
    let aof = if info.get("aof_enabled").copied() == Some("1") { "yes" } else { "no" };
    let policy = info.get("maxmemory_policy").copied().unwrap_or("unknown");
    let settings = [("maxmemory-policy", policy), ("appendonly", aof), ("appendfsync", "unknown"), ("save", "unknown")];
    Ok(settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
}

fn durability(settings: &HashMap<String, String>) -> Durability {
    let setting = |name: &str| settings.get(name).map_or("", String::as_str);
    let (mode, description) = match (setting("appendonly"), setting("appendfsync"), setting("save")) {
        ("yes", "always", _) => ("aof-always", "every acknowledged write has been synced to the disk of Redis"),
        ("yes", "no", _) => {
            ("aof-no-sync", "a loss of power of Redis loses what its system had not yet written to disk")
        }
        ("yes", _, _) => {
            ("aof-everysec", "a loss of power of Redis loses up to about two seconds of acknowledged writes")
        }
        (_, _, "") => ("none", "a restart of Redis loses every write that is not yet in SQL"),
        _ => ("rdb-only", "a crash of Redis loses the acknowledged writes since its last snapshot"),
    };
    Durability {
        mode: mode.into(),
        description: format!(
            "{description} (appendonly {}, appendfsync {})",
            setting("appendonly"),
            setting("appendfsync")
        ),
        survives_power_loss: mode == "aof-always",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_synced_append_only_file_survives_power_loss() {
        let of = |appendonly: &str, appendfsync: &str, save: &str| {
            let settings = [("appendonly", appendonly), ("appendfsync", appendfsync), ("save", save)];
            durability(&settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
        };
        assert_eq!(of("yes", "always", "").mode, "aof-always");
        assert_eq!(of("yes", "everysec", "3600 1").mode, "aof-everysec");
        assert_eq!(of("yes", "no", "").mode, "aof-no-sync");
        assert_eq!(of("no", "everysec", "3600 1").mode, "rdb-only");
        assert_eq!(of("no", "always", "").mode, "none");
        assert!(of("yes", "always", "").survives_power_loss);
        assert!(!of("yes", "unknown", "").survives_power_loss);
    }
}
