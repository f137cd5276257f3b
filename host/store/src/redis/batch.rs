//! The common part of all batches (see `batch.lua`): the order of operations, shared arguments, and replies.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;

use redis::Cmd;

use super::keys::Keys;
use super::link::Nature;
use super::reply::{Reply, unexpected};
use super::{RedisStore, TIME_MS_MAX, fresh_arguments};
use crate::{Commit, Head, Idempotency, StoreError};
use weir_core::model::{Digest, Id, Partition, Position, partition_of};

/// The operations on one target, by their index in the batch, in order.
pub(super) struct Target<'a> {
    pub(super) partition: Partition,
    pub(super) id: &'a Id,
    pub(super) ops: Vec<usize>,
}

/// Groups operations by partition and target, so that the script reads each target once. Targets are independent, so their
/// operations may be evaluated one target after the other. `ids`: the target of each operation.
pub(super) fn by_target<'a>(ids: impl Iterator<Item = &'a Id>, partitions: Partition) -> Vec<Target<'a>> {
    let (mut targets, mut place): (Vec<Target<'a>>, HashMap<&Id, usize>) = (Vec::new(), HashMap::new());
    for (index, id) in ids.enumerate() {
        let target = *place.entry(id).or_insert_with(|| {
            targets.push(Target { partition: partition_of(id, partitions), id, ops: Vec::new() });
            targets.len() - 1
        });
        targets[target].ops.push(index);
    }
    // A stable sort: within a partition in the order of first occurrence.
    targets.sort_by_key(|target| target.partition);
    targets
}

/// Numbers distinct rules, because few are distinct.
pub(super) struct Rules<R> {
    pub(super) distinct: Vec<R>,
    /// Index into `distinct` of each operation of the batch.
    pub(super) of: Vec<u16>,
}

impl<R: Copy + Eq + std::hash::Hash> Rules<R> {
    pub(super) fn new(rules: impl Iterator<Item = R>) -> Self {
        let (mut distinct, mut numbers, mut of) = (Vec::new(), HashMap::new(), Vec::new());
        for rule in rules {
            // Most rules equal the one before.
            let number = match distinct.last() {
                Some(last) if *last == rule => distinct.len() - 1,
                _ => *numbers.entry(rule).or_insert_with(|| {
                    distinct.push(rule);
                    distinct.len() - 1
                }),
            };
            // A batch has fewer operations than a `u16` can count.
            of.push(u16::try_from(number).unwrap_or(u16::MAX));
        }
        Self { distinct, of }
    }
}

/// The shared arguments of every batch.
pub(super) struct Envelope<'a> {
    pub(super) digest: &'a Digest,
    pub(super) at_ms: u64,
    pub(super) now_ms: u64,
    /// The operations as they are sent, in ascending order of their partitions: index in the batch, partition.
    pub(super) sent: Vec<(usize, Partition)>,
    /// The idempotency key of each operation of the batch.
    pub(super) keys: Vec<Option<&'a Idempotency>>,
}

/// The order in which operations on targets are sent.
pub(super) fn sent_by_target(targets: &[Target<'_>]) -> Vec<(usize, Partition)> {
    targets.iter().flat_map(|target| target.ops.iter().map(|&index| (index, target.partition))).collect()
}

impl Envelope<'_> {
    fn arguments(&self, command: &mut Cmd, keys: &Keys, kind: &str, (ttl_ms, is_told): (u64, bool)) {
        let at_ms = self.at_ms.min(TIME_MS_MAX / 2_000);
        // Hosts share rates and windows, so the server's clock decides, not a host's.
        let told_ms = if is_told { self.now_ms.min(TIME_MS_MAX / 2_000).to_string() } else { String::new() };
        command.arg(format!("{at_ms} {told_ms}")).arg(&self.digest.0[..]).arg(ttl_ms);
        fresh_arguments(command);
        // Numbers of the operations as sent, from 1; and their partitions.
        let mut number_of = vec![0; self.sent.len()];
        let mut partition_of = vec![0; self.sent.len()];
        for (number, &(index, partition)) in self.sent.iter().enumerate() {
            (number_of[index], partition_of[index]) = (number + 1, partition);
        }
        let keyed = || self.keys.iter().enumerate().filter_map(|(index, key)| Some((index, (*key)?)));
        // Operations with the same idempotency key are evaluated in their own order, not in the order of sending.
        let mut seen = HashSet::new();
        let order: Vec<String> = match keyed().any(|(_, idempotency)| !seen.insert(idempotency.key)) {
            true => number_of.iter().map(usize::to_string).collect(),
            false => Vec::new(),
        };
        command.arg(order.join(" ")).arg(keyed().count());
        for (index, idempotency) in keyed() {
            let name = keys.outcome(kind, partition_of[index], &idempotency.key);
            command.arg(number_of[index]).arg([&idempotency.fingerprint[..], name.as_bytes()].concat());
        }
    }
}

/// The reply for one operation.
pub(super) struct Sent {
    /// Of the operation in the batch.
    pub(super) index: usize,
    pub(super) letter: u8,
    /// The count of its target; 0 for a create.
    pub(super) count: u64,
    /// The position of its partition's new entry.
    pub(super) entry: Position,
}

impl RedisStore {
    /// Runs the script of a batch. `arguments` are the script's own. `one` builds the result of an operation from its letter and,
    /// where it has some, its extra numbers.
    pub(super) async fn batch_call<R: Clone>(
        &self,
        script: &redis::Script,
        kind: &str,
        envelope: &Envelope<'_>,
        arguments: impl FnOnce(&mut Cmd),
        one: impl FnMut(&Sent, &mut Reply) -> Result<R, StoreError>,
    ) -> Result<Commit<R>, StoreError> {
        let mut partitions: Vec<Partition> = envelope.sent.iter().map(|(_, partition)| *partition).collect();
        partitions.dedup();
        let names: Vec<String> = partitions.iter().map(|&partition| self.keys.head(kind, partition)).collect();
        let value = self
            .link
            .run(script, Nature::Accepts, &names, |command| {
                envelope.arguments(command, &self.keys, kind, (self.idempotency_ttl_ms, self.is_time_told));
                arguments(command);
            })
            .await?;
        let mut reply = Reply::of(value)?;
        let mut replies = reply.list()?;
        let heads: Vec<Head> = partitions.iter().map(|&partition| replies.head(partition)).collect::<Result<_, _>>()?;
        let results = results(&mut reply, &envelope.sent, &heads, one)?;
        // The batch is applied: a later failure must not make the caller send it again.
        self.after_heads(kind, &heads).await.map_err(|error| match error {
            StoreError::Unavailable(reason) | StoreError::Refused(reason) => StoreError::OutcomeUnknown(reason),
            other => other,
        })?;
        Ok(Commit { results, heads })
    }
}

/// The results in the order of the batch. `reply` is at: one letter per operation; the extra numbers of those that have some,
/// after their own number; the count of each, for operations on targets.
fn results<R: Clone>(
    reply: &mut Reply,
    sent: &[(usize, Partition)],
    heads: &[Head],
    mut one: impl FnMut(&Sent, &mut Reply) -> Result<R, StoreError>,
) -> Result<Vec<R>, StoreError> {
    let (letters, mut extra) = (reply.bytes()?, reply.list()?);
    let mut counts = if reply.is_empty() { None } else { Some(reply.list()?) };
    if letters.len() != sent.len() {
        return Err(unexpected("a letter for each operation"));
    }
    let entry_of: HashMap<Partition, Position> = heads.iter().map(|head| (head.partition, head.last)).collect();
    // Everything is in the order of sending.
    let mut back = Vec::with_capacity(sent.len());
    for (&(index, partition), letter) in sent.iter().zip(letters) {
        let count = counts.as_mut().map_or(Ok(0), Reply::number)?;
        back.push(Sent { index, letter, count, entry: entry_of.get(&partition).copied().unwrap_or(0) });
    }
    let mut results: Vec<Option<R>> = vec![None; sent.len()];
    while !extra.is_empty() {
        let number = usize::try_from(extra.number()?).unwrap_or_default();
        let of = back.get(number.wrapping_sub(1)).ok_or_else(|| unexpected("the number of an operation"))?;
        results[of.index] = Some(one(of, &mut extra)?);
    }
    for of in back {
        if results[of.index].is_none() {
            results[of.index] = Some(one(&of, &mut extra)?);
        }
    }
    results.into_iter().collect::<Option<_>>().ok_or_else(|| unexpected("a result for each operation"))
}

/// The number of operations on a target, in two bytes. A batch has fewer operations than that can count.
pub(super) fn size(target: &Target<'_>) -> [u8; 2] {
    u16::try_from(target.ops.len()).unwrap_or(u16::MAX).to_be_bytes()
}

/// The canonical text of an id.
pub(super) fn write_id(to: &mut Vec<u8>, id: &Id) {
    // Writing into a `Vec` cannot fail.
    let _ = write!(to, "{id}");
}

/// As [`crate::text::tagged`].
pub(super) fn write_tagged(to: &mut Vec<u8>, id: &Id) {
    to.push(match id {
        Id::Int(_) => b'i',
        Id::Uuid(_) => b'u',
        Id::Text(_) => b't',
    });
    write_id(to, id);
}
