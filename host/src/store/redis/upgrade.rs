//! From format 4 to 5: keys get a namespace, kind by kind, where the kind was shown to be this database's.
//!
//! A key keeps its hash tag and so its slot. Each rename is a step of its own and safe to repeat; which kinds are on their way is
//! recorded before the first, and that all have arrived after the last, so that whoever is killed in between, or works beside
//! another host, goes on where they are. Nobody is served before the end: the record that every connection looks for is written
//! then. Hosts of the earlier version must have ended; one that still flushes is noticed by its lease.

use std::time::Duration;

use redis::{FromRedisValue, Value};
use tokio::time::Instant;

use super::custody::{Custody, KIND, MOVED, MOVING};
use super::holdings::{CALL_KEYS, Pages, earlier_format};
use super::keys::{EARLIER_FORMAT, EARLIER_RELAY, EARLIER_TAGGED, Owner, earlier_flusher, earlier_owner};
use super::link::{Link, Nature, OnLink};
use super::reply::unexpected;
use super::server::Refusal;
use crate::store::{Binding, StoreError};

/// How often a lease of an earlier host is looked at.
const LEASE_LOOK: Duration = Duration::from_millis(100);
/// How long a lease may have to run out; a longer one is taken for one that is renewed.
const LEASE_MAX: Duration = Duration::from_secs(15);

/// Moves what `binding` takes, if it is not there yet.
pub(super) async fn run(link: &Link, custody: &Custody, binding: &Binding) -> Result<(), StoreError> {
    let record = custody.read(&mut OnLink(link)).await.map_err(Refusal::into_error)?;
    if custody.is_begun(&record) || binding.take.is_empty() {
        return Ok(());
    }
    let Some((_, partitions)) = earlier_format(link).await? else { return Ok(()) };
    if partitions != custody.partitions {
        return Err(crate::store::other_partitions("this Redis", partitions, custody.partitions));
    }
    for kind in &binding.take {
        wait_for_earlier_host(link, kind).await?;
    }
    for kind in &binding.take {
        let note = custody.note(&mut OnLink(link), &format!("{KIND}{kind}"), "1").await;
        note.map_err(Refusal::into_error)?;
    }
    if binding.takes_all {
        set_earlier(link, &format!("{MOVING}{}", custody.namespace)).await?;
    }
    let mut moved = 0;
    loop {
        let renamed = rename_all(link, custody, binding).await?;
        moved += renamed;
        if renamed == 0 {
            break;
        }
    }
    custody.write(&mut OnLink(link)).await.map_err(Refusal::into_error)?;
    if binding.takes_all {
        set_earlier(link, &format!("{MOVED}{}", custody.namespace)).await?;
        for name in EARLIER_RELAY {
            link.run(&link.scripts.unlink, Nature::Writes, &[name.to_owned()], |_| {}).await?;
        }
    }
    let kinds = binding.take.join(", ");
    tracing::info!(kinds, keys = moved, namespace = %custody.namespace, "the data of format 4 was taken over");
    Ok(())
}

/// What hosts of the earlier version find where they look for their format.
async fn set_earlier(link: &Link, version: &str) -> Result<(), StoreError> {
    let mut command = redis::cmd("HSET");
    command.arg(EARLIER_FORMAT).arg("version").arg(version);
    link.ask(EARLIER_FORMAT, command, Nature::Writes).await.map(|_| ())
}

/// Goes once through all keys; how many it renamed.
async fn rename_all(link: &Link, custody: &Custody, binding: &Binding) -> Result<i64, StoreError> {
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
                let pairs = names.iter().filter_map(|name| Some([name.clone(), custody.keys.of_earlier(name)?]));
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

/// Waits until the lease of a host that has ended has run out.
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
