//! Reads: of pairs, of members, of the journal, and for `explain`.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde_json::{Value, json};

use super::RedisStore;
use super::keys::Keys;
use super::link::Nature;
use super::reply::{Reply, tagged_id, unexpected};
use crate::page::page;
use crate::text::tagged;
use crate::{Journal as _, JournalRead, Members, READ_BYTES_MAX, ReadResult, StoreError, explain};
use weir_core::journal::Mark;
use weir_core::journal::chain::{Chain, Followed, Found, follow};
use weir_core::model::{Id, Incarnation, Member, Partition, Position, Settings, partition_of};

/// Journal changes that `explain` reads in one call.
const EXPLAIN_PAGE_CHANGES: usize = 2_000;

impl RedisStore {
    /// See [`crate::State::read`].
    pub(super) async fn read_pairs(
        &self,
        kind: &str,
        pairs: &[(Id, Option<Id>)],
    ) -> Result<Vec<ReadResult>, StoreError> {
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        if !self.link.is_cluster() {
            return self.read_call(kind, pairs).await;
        }
        let call = |pairs: Vec<(Id, Option<Id>)>| async move { self.read_call(kind, &pairs).await };
        self.in_calls(pairs, |(target, _)| partition_of(target, self.partitions), call).await
    }

    async fn read_call(&self, kind: &str, pairs: &[(Id, Option<Id>)]) -> Result<Vec<ReadResult>, StoreError> {
        let (heads, index) = keys_of(&self.keys, kind, self.partitions, pairs.iter().map(|(target, _)| target));
        let value = self
            .link
            .run(&self.link.scripts.read, Nature::Reads, &heads, |command| {
                for (target, actor) in pairs {
                    let place = index.get(&partition_of(target, self.partitions)).copied().unwrap_or(1);
                    command.arg(place).arg(target.to_string()).arg(actor.as_ref().map(tagged).unwrap_or_default());
                }
            })
            .await?;
        let mut reply = Reply::of(value)?;
        pairs.iter().map(|_| reply.read_result()).collect()
    }

    /// See [`crate::State::members`].
    pub(super) async fn members_of(
        &self,
        kind: &str,
        target: &Id,
        before: Option<&Member>,
        limit: usize,
    ) -> Result<Members, StoreError> {
        let partition = partition_of(target, self.partitions);
        let (mut cursor, mut whole) = (0, HashMap::new());
        loop {
            let value = self
                .head_call(Nature::Reads, &self.link.scripts.members, kind, partition, |command| {
                    command.arg(target.to_string()).arg(cursor);
                })
                .await?;
            let mut reply = Reply::of(value)?;
            match reply.number()? {
                0 => {
                    whole.extend(reply.members()?);
                    cursor = reply.number()?;
                    if cursor == 0 {
                        break;
                    }
                }
                1 => {
                    let present = reply.members()?;
                    let present = present.into_iter().map(|(actor, since_ms)| Member { actor, since_ms }).collect();
                    return Ok(Members::Overlay { present, absent: reply.actors()? });
                }
                3 => return Ok(Members::TargetMissing),
                _ => return Ok(Members::TargetNotLoaded),
            }
        }
        let all = whole.into_iter().map(|(actor, since_ms)| Member { actor, since_ms }).collect();
        let page = page(all, before, limit).await;
        page.map(Members::Whole).ok_or_else(|| StoreError::Unavailable("the host is stopping".into()))
    }

    /// Pages of the journal; `None` when there is no head.
    pub(super) async fn journal(
        &self,
        kind: &str,
        partition: Partition,
        (incarnation, position, changes_max): (Incarnation, Position, usize),
    ) -> Result<Option<JournalRead>, StoreError> {
        let value = self
            .head_call(Nature::ReadsForSql, &self.link.scripts.journal, kind, partition, |command| {
                command.arg(incarnation.to_string()).arg(position).arg(changes_max.max(1)).arg(READ_BYTES_MAX);
            })
            .await?;
        let mut reply = Reply::of(value)?;
        let code = reply.number()?;
        if code == 3 {
            return Ok(None);
        }
        let head = reply.head(partition)?;
        let mut listed = reply.list()?;
        match code {
            0 => {}
            1 => return Ok(Some(JournalRead::OtherIncarnation(head))),
            _ => return Err(unexpected("the code of a journal")),
        }
        let mut entries = Vec::new();
        while !listed.is_empty() {
            entries.push(listed.entry()?);
        }
        let (mut numbers, mut there) = (reply.list()?, reply.list()?);
        let chain = Chain {
            trimmed: (numbers.number()?, numbers.number()?),
            trimmed_amount: u64::try_from(numbers.signed()?).ok(),
            last: head.last,
            changes: numbers.number()?,
            amount: numbers.number()?,
        };
        let there = if there.is_empty() { None } else { Some(Mark::from(&there.entry()?)) };
        let found = Found { position, there, entries, is_all: numbers.number()? == 1 };
        Ok(Some(match follow(&chain, found) {
            Followed::Entries(entries) => JournalRead::Entries(entries),
            Followed::Hole(hole) => JournalRead::Hole(head, hole),
            Followed::Rewound => JournalRead::Rewound(head),
            Followed::Misplaced(position) => return Err(self.misplaced(kind, partition, position)),
        }))
    }

    /// An entry that names a predecessor other than the real one, and not a later one either.
    fn misplaced(&self, kind: &str, partition: Partition, position: Position) -> StoreError {
        let journal = self.keys.head(kind, partition).trim_end_matches('x').to_owned() + "j";
        StoreError::Damaged(format!(
            "entry {position}-0 of {journal} is not of that journal, although it says so: somebody has put it there; look at it \
             with XRANGE, and XDEL it"
        ))
    }

    /// See [`crate::State::explain`].
    pub(super) async fn explain_target(
        &self,
        kind: &str,
        (partition, target): (Partition, &Id),
        actor: Option<&Id>,
    ) -> Result<Value, StoreError> {
        let value = self
            .head_call(Nature::Reads, &self.link.scripts.explain, kind, partition, |command| {
                command.arg(target.to_string()).arg(actor.map(tagged).unwrap_or_default());
            })
            .await?;
        let state = explained(&mut Reply::of(value)?)?;
        let heads = self.heads(kind, &[partition]).await?;
        let head = heads.first().ok_or_else(|| unexpected("a head"))?;
        let (mut found, mut position, mut hole) = (VecDeque::new(), head.flushed, None);
        while let Some(read) = self.journal(kind, partition, (head.incarnation, position, EXPLAIN_PAGE_CHANGES)).await?
        {
            match read {
                JournalRead::Entries(entries) if !entries.is_empty() => {
                    position = entries.last().map_or(position, |newest| newest.position);
                    entries.iter().for_each(|entry| explain::entry(entry, target, actor, &mut found));
                    continue;
                }
                JournalRead::Hole(_, found) => hole = Some(found),
                _ => {}
            }
            break;
        }
        let head = explain::head(head);
        // SQL reports what the flusher has recorded meanwhile.
        Ok(json!({ "partition": partition, "state": state, "head": head, "journal": found, "journal_hole": hole }))
    }
}

/// The state of a target and a pair, for operators.
fn explained(reply: &mut Reply) -> Result<Value, StoreError> {
    let (mode, count, dirty, invalid) = (reply.text()?, reply.number()?, reply.number()? == 1, reply.number()? == 1);
    let (pair, ttl_ms, position) = (reply.bytes()?, reply.signed()?, reply.number()?);
    let known = match mode.as_str() {
        "cold" => return Ok(json!({ "known": "cold" })),
        "m" => return Ok(json!({ "known": "missing", "ttl_ms": ttl_ms })),
        "e" => return Ok(json!({ "known": "exists", "ttl_ms": ttl_ms })),
        "c" => return Ok(json!({ "known": "counter", "count": count, "dirty": dirty, "invalid": invalid })),
        "f" => {
            let settings = Settings::from_bytes(&pair).ok_or_else(|| unexpected("settings"))?.to_json();
            return Ok(json!({ "known": "settings", "settings": settings, "dirty": dirty, "invalid": invalid }));
        }
        "p" => {
            let actor = tagged_id(&pair)?.to_json();
            return Ok(json!({ "known": "pending", "position": position, "actor": actor }));
        }
        "w" => "whole",
        "h" => "huge",
        _ => return Err(unexpected("the mode of a target")),
    };
    let pair = String::from_utf8(pair).map_err(|_| unexpected("a pair"))?;
    let since_ms = pair.parse::<u64>().ok();
    let pair = if since_ms.is_some() { "present" } else { pair.as_str() };
    Ok(json!({
        "known": known, "count": count, "pair": pair, "since_ms": since_ms, "dirty": dirty, "invalid": invalid,
    }))
}

/// The partitions of `targets` in ascending order, as keys; and for each partition its index among them, from 1.
fn keys_of<'a>(
    keys: &Keys,
    kind: &str,
    partitions: Partition,
    targets: impl Iterator<Item = &'a Id>,
) -> (Vec<String>, BTreeMap<Partition, usize>) {
    let mut index: BTreeMap<Partition, usize> = targets.map(|target| (partition_of(target, partitions), 0)).collect();
    for (place, (_, slot)) in index.iter_mut().enumerate() {
        *slot = place + 1;
    }
    (index.keys().map(|&partition| keys.head(kind, partition)).collect(), index)
}
