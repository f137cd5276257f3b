//! Contents of a Redis: inventory without changes, deletion by an operator.

use std::collections::BTreeSet;
use std::sync::Arc;

use redis::{Cmd, FromRedisValue};

use super::RedisStore;
use super::keys::{EARLIER_FORMAT, Owner, earlier_flusher, earlier_head, earlier_owner};
use super::link::{Link, Nature, OnLink, address_text, addresses, sentinels_of};
use super::ownership::{EARLIER, KIND, MOVING, OwnershipGuard};
use super::reply::{Reply, unexpected};
use super::server::Refusal;
use crate::{Durability, Inventory, KindInventory, StoreError};
use weir_core::config::{StoreConfig, StoreType};
use weir_core::model::Partition;

/// Most keys of one call that renames or deletes.
pub(super) const CALL_KEYS: usize = 500;

/// See [`crate::inspect`].
pub async fn inspect(config: &StoreConfig) -> Result<(Inventory, Durability), StoreError> {
    let guard = Arc::clone(&Link::new(config)?.guard);
    let link = Link::unwatched(config, &guard)?;
    link.ensure().await?;
    let record = guard.read(&mut OnLink(&link)).await.map_err(Refusal::into_error)?;
    if guard.is_begun(&record) {
        guard.judge(&record)?;
    } else if let Err(error @ StoreError::Misconfigured(_)) = guard.find_earlier(&mut OnLink(&link)).await {
        return Err(error);
    }
    Ok((read(&link, &guard, config).await?, link.durability()))
}

/// See [`crate::Ownership::inventory`].
pub(super) async fn read(link: &Link, guard: &OwnershipGuard, config: &StoreConfig) -> Result<Inventory, StoreError> {
    let record = guard.read(&mut OnLink(link)).await.map_err(Refusal::into_error)?;
    let mut kinds = Vec::new();
    for kind in recorded_kinds(link, guard).await? {
        let head = |partition| guard.keys.head(&kind, partition);
        kinds.push(held(link, guard.partitions, (&kind, head), &guard.keys.flusher(&kind)).await?);
    }
    let (mut journal, mut earlier) = (record.journal, Vec::new());
    if !guard.is_begun(&record)
        && let Some(found) = earlier_kinds(link, guard).await?
    {
        // A start that did not complete has already proved that these kinds are this database's.
        earlier = std::mem::take(&mut kinds);
        earlier.iter_mut().for_each(|kind| kind.is_taken = true);
        for kind in found {
            match earlier.iter_mut().find(|known| known.kind == kind.kind) {
                Some(known) => known.heads.extend(kind.heads),
                None => earlier.push(kind),
            }
        }
        journal = None;
    }
    let partitions = record.partitions;
    Ok(Inventory { place: place(config, guard)?, journal, database: record.database, partitions, kinds, earlier })
}

/// The type of the store, its servers, and the namespace. Contains no password.
fn place(config: &StoreConfig, guard: &OwnershipGuard) -> Result<String, StoreError> {
    if let Some(sentinels) = sentinels_of(config)? {
        // Whichever server is the master: the data goes with it.
        let mut nodes: Vec<String> = sentinels.nodes.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        nodes.sort();
        let database = sentinels.template.rsplit_once('/').map_or("0", |(_, database)| database);
        let (nodes, namespace) = (nodes.join(","), &guard.namespace);
        return Ok(format!("redis-sentinel {nodes}/{}/{database} {namespace}", sentinels.master));
    }
    let infos = addresses(&config.url)?;
    // `TcpTls` would add words of its own.
    let mut servers: Vec<String> = infos.iter().map(address_text).collect();
    servers.sort();
    let database = infos.first().map_or(0, |info| info.redis_settings().db());
    let word = if config.store_type == StoreType::RedisCluster { "redis-cluster" } else { "redis" };
    Ok(format!("{word} {}/{database} {}", servers.join(","), guard.namespace))
}

async fn recorded_kinds(link: &Link, guard: &OwnershipGuard) -> Result<Vec<String>, StoreError> {
    let key = guard.keys.format();
    let mut command = redis::cmd("HKEYS");
    command.arg(&key);
    let fields = link.ask(&key, command, Nature::Reads).await?;
    let fields: Vec<String> = FromRedisValue::from_redis_value(fields).map_err(|_| unexpected("names"))?;
    let mut kinds: Vec<String> =
        fields.iter().filter_map(|field| field.strip_prefix(KIND)).map(str::to_owned).collect();
    kinds.sort();
    Ok(kinds)
}

/// The inventory of one kind under these names.
async fn held(
    link: &Link,
    partitions: Partition,
    (kind, head): (&str, impl Fn(Partition) -> String),
    flusher: &str,
) -> Result<KindInventory, StoreError> {
    let all: Vec<Partition> = (0..partitions).collect();
    // In a cluster each partition is on a node of its own.
    let calls = all.chunks(if link.is_cluster() { 1 } else { all.len().max(1) });
    let mut heads = Vec::new();
    for partitions in calls {
        let names: Vec<String> = partitions.iter().map(|&partition| head(partition)).collect();
        let mut reply = Reply::of(link.run(&link.scripts.peek, Nature::Reads, &names, |_| {}).await?)?;
        for &partition in partitions {
            heads.extend(reply.head_if_any(partition)?);
        }
    }
    let mut command = redis::cmd("EXISTS");
    command.arg(flusher);
    let is_flushed = link.ask(flusher, command, Nature::Reads).await? == redis::Value::Int(1);
    Ok(KindInventory { kind: kind.to_owned(), heads, is_flushed, is_taken: false })
}

/// The kinds of format 4; `None` where there is nothing to take over.
async fn earlier_kinds(link: &Link, guard: &OwnershipGuard) -> Result<Option<Vec<KindInventory>>, StoreError> {
    let Some((version, partitions)) = earlier_format(link).await? else { return Ok(None) };
    if version != EARLIER && version != format!("{MOVING}{}", guard.namespace) {
        return Ok(None);
    }
    let (mut names, mut pages) = (BTreeSet::new(), Pages::new("weir:{*}:x"));
    while let Some(page) = pages.next(link).await? {
        let kinds = page.iter().filter_map(|name| match earlier_owner(name) {
            Some(Owner::Kind(kind)) => Some(kind.to_owned()),
            _ => None,
        });
        names.extend(kinds);
    }
    let mut kinds = Vec::new();
    for kind in &names {
        let head = |partition| earlier_head(kind, partition);
        kinds.push(held(link, partitions, (kind, head), &earlier_flusher(kind)).await?);
    }
    Ok(Some(kinds))
}

/// The record of format 4.
pub(super) async fn earlier_format(link: &Link) -> Result<Option<(String, Partition)>, StoreError> {
    let mut command = redis::cmd("HMGET");
    command.arg(EARLIER_FORMAT).arg("version").arg("partitions");
    let found = match link.ask(EARLIER_FORMAT, command, Nature::Reads).await {
        // See `OwnershipGuard::check`.
        Err(error) if Refusal::Store(error.clone()).is_forbidden() => return Ok(None),
        found => found?,
    };
    let (version, partitions): (Option<String>, Option<Partition>) =
        FromRedisValue::from_redis_value(found).map_err(|_| unexpected("a format"))?;
    Ok(version.zip(partitions))
}

/// Iterates over the names that match a pattern, page by page, on all servers.
pub(super) struct Pages<'a> {
    pattern: &'a str,
    server: usize,
    cursor: u64,
}

impl<'a> Pages<'a> {
    pub(super) fn new(pattern: &'a str) -> Self {
        Self { pattern, server: 0, cursor: 0 }
    }

    /// The next page, which may be empty; `None` after the last.
    pub(super) async fn next(&mut self, link: &Link) -> Result<Option<Vec<String>>, StoreError> {
        let Some((cursor, names)) = link.scan(self.server, self.cursor, self.pattern).await? else { return Ok(None) };
        self.cursor = cursor;
        if cursor == 0 {
            self.server += 1;
        }
        Ok(Some(names))
    }
}

/// Deletes all matching keys, and repeats until there are none: a scan may miss keys while a slot moves.
async fn unlink(link: &Link, pattern: &str) -> Result<(), StoreError> {
    loop {
        let (mut is_any, mut pages) = (false, Pages::new(pattern));
        while let Some(page) = pages.next(link).await? {
            for names in Link::by_slot(page) {
                for names in names.chunks(CALL_KEYS) {
                    is_any = true;
                    link.run(&link.scripts.unlink, Nature::Writes, names, |_| {}).await?;
                }
            }
        }
        if !is_any {
            return Ok(());
        }
    }
}

impl RedisStore {
    pub(super) fn unwatched(&self) -> Result<Link, StoreError> {
        Link::unwatched(&self.config, &self.link.guard)
    }

    /// See [`crate::Ownership::drop_kind`]. Removes the record of the kind last.
    pub(super) async fn drop_of_kind(&self, kind: &str) -> Result<(), StoreError> {
        let link = self.unwatched()?;
        for pattern in self.keys.of_kind(kind) {
            unlink(&link, &pattern).await?;
        }
        let key = self.keys.format();
        let mut command: Cmd = redis::cmd("HDEL");
        command.arg(&key).arg(format!("{KIND}{kind}"));
        link.ask(&key, command, Nature::Writes).await.map(|_| ())
    }

    /// See [`crate::Ownership::drop_all`].
    pub(super) async fn drop_everything(&self) -> Result<(), StoreError> {
        unlink(&self.unwatched()?, &self.keys.all()).await
    }
}
