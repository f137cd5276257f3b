//! The upgrade from format 4 to 5: keys get a namespace, kind by kind, where the kind was proved to be this database's.
//!
//! A key keeps its hash tag and so its slot. Each rename is a step of its own and safe to repeat. The moving kinds are recorded
//! before the first rename, their arrival after the last one, so that a host that was killed halfway, or works beside another
//! one, continues from there. No client is served before the end: only then is the record written that every connection checks.
//! Hosts of the earlier version must have ended; the lease of one that still flushes reveals it.

use std::time::Duration;

use redis::{FromRedisValue, Value};
use tokio::time::Instant;

use super::inventory::{CALL_KEYS, Pages, earlier_format};
use super::keys::{EARLIER_FORMAT, EARLIER_RELAY, EARLIER_TAGGED, Owner, earlier_flusher, earlier_owner};
use super::link::{Link, Nature, OnLink};
use super::ownership::{KIND, MOVED, MOVING, OwnershipGuard};
use super::reply::unexpected;
use super::server::Refusal;
use crate::{Binding, StoreError};

/// How often the lease of an earlier host is checked.
const LEASE_LOOK: Duration = Duration::from_millis(100);
/// Longest remaining time of a lease; one that lasts longer must have been renewed.
const LEASE_MAX: Duration = Duration::from_secs(15);

/// Moves the kinds that `binding` takes, where they have not moved yet.
pub(super) async fn run(link: &Link, guard: &OwnershipGuard, binding: &Binding) -> Result<(), StoreError> {
    let record = guard.read(&mut OnLink(link)).await.map_err(Refusal::into_error)?;
    if guard.is_begun(&record) || binding.take.is_empty() {
        return Ok(());
    }
    let Some((_, partitions)) = earlier_format(link).await? else { return Ok(()) };
    if partitions != guard.partitions {
        return Err(crate::other_partitions("this Redis", partitions, guard.partitions));
    }
    for kind in &binding.take {
        wait_for_earlier_host(link, kind).await?;
    }
    for kind in &binding.take {
        let note = guard.note(&mut OnLink(link), &format!("{KIND}{kind}"), "1").await;
        note.map_err(Refusal::into_error)?;
    }
    if binding.takes_all {
        set_earlier(link, &format!("{MOVING}{}", guard.namespace)).await?;
    }
    let mut moved = 0;
    loop {
        let renamed = rename_all(link, guard, binding).await?;
        moved += renamed;
        if renamed == 0 {
            break;
        }
    }
    guard.write(&mut OnLink(link)).await.map_err(Refusal::into_error)?;
    if binding.takes_all {
        set_earlier(link, &format!("{MOVED}{}", guard.namespace)).await?;
        for name in EARLIER_RELAY {
            link.run(&link.scripts.unlink, Nature::Writes, &[name.to_owned()], |_| {}).await?;
        }
    }
    let kinds = binding.take.join(", ");
    tracing::info!(kinds, keys = moved, namespace = %guard.namespace, "the data of format 4 was taken over");
    Ok(())
}

/// The value that hosts of the earlier version find instead of their format.
async fn set_earlier(link: &Link, version: &str) -> Result<(), StoreError> {
    let mut command = redis::cmd("HSET");
    command.arg(EARLIER_FORMAT).arg("version").arg(version);
    link.ask(EARLIER_FORMAT, command, Nature::Writes).await.map(|_| ())
}

/// Goes once through all keys. Returns how many it renamed.
async fn rename_all(link: &Link, guard: &OwnershipGuard, binding: &Binding) -> Result<i64, StoreError> {
    let is_ours = |name: &str| match earlier_owner(name) {
        Some(Owner::Kind(kind)) => binding.take.iter().any(|taken| taken == kind),
        Some(Owner::Room(room)) => binding.rooms.iter().any(|taken| taken == room),
        Some(Owner::Module) => binding.takes_all,
        Some(Owner::Nobody) | None => false,
    };
    let (mut renamed, mut pages) = (0, Pages::new(EARLIER_TAGGED));
    while let Some(mut page) = pages.next(link).await? {
        page.retain(|name| is_ours(name));
        for names in Link::by_slot(page) {
            for names in names.chunks(CALL_KEYS) {
                let pairs = names.iter().filter_map(|name| Some([name.clone(), guard.keys.of_earlier(name)?]));
                let pairs: Vec<String> = pairs.flatten().collect();
                match link.run(&link.scripts.rename, Nature::Writes, &pairs, |_| {}).await? {
                    Value::Int(count) => renamed += count,
                    _ => return Err(unexpected("a number")),
                }
            }
        }
    }
    Ok(renamed)
}

/// Waits until the lease of an ended host has expired.
async fn wait_for_earlier_host(link: &Link, kind: &str) -> Result<(), StoreError> {
    let (name, deadline) = (earlier_flusher(kind), Instant::now() + LEASE_MAX);
    let mut left = i64::MAX;
    loop {
        let mut command = redis::cmd("PTTL");
        command.arg(&name);
        let now = link.ask(&name, command, Nature::Reads).await?;
        let now: i64 = FromRedisValue::from_redis_value(now).map_err(|_| unexpected("a time"))?;
        if now < 0 {
            return Ok(());
        }
        if now > left || Instant::now() > deadline {
            return Err(StoreError::Misconfigured(format!(
                "store.url: a host of an earlier version of weir still flushes {kind} here: stop all hosts of that version, then \
                 start this one"
            )));
        }
        left = now;
        tokio::time::sleep(LEASE_LOOK).await;
    }
}
