//! Reads, each of one snapshot; they run beside the writer.

use std::collections::{HashMap, VecDeque};

use fjall::{Readable, Snapshot};
use serde_json::json;

use super::layout::{
    HeadRecord, Mode, Pair, Space, Spaces, TargetRecord, View, damaged, failed, journal_key, member_key, order_key,
    position_of, target_key,
};
use crate::journal::{Entry, entry};
use crate::model::{Id, Incarnation, Member, PairState, Partition, Position, partition_of};
use crate::store::explain;
use crate::store::text::{tagged, untagged};
use crate::store::{Head, JournalRead, Members, ReadResult, StoreError};

/// One snapshot of the store.
pub(super) struct Reader<'a> {
    spaces: &'a Spaces,
    snapshot: Snapshot,
    partitions: Partition,
}

impl<'a> Reader<'a> {
    pub(super) fn new(spaces: &'a Spaces, partitions: Partition) -> Self {
        Self { spaces, snapshot: spaces.snapshot(), partitions }
    }

    pub(super) fn view(&self) -> (&Spaces, &Snapshot) {
        (self.spaces, &self.snapshot)
    }

    fn head(&self, kind: &str, partition: Partition) -> Result<Option<HeadRecord>, StoreError> {
        self.view().head(kind, partition)
    }

    /// The heads in order; `None` when one does not exist yet.
    pub(super) fn heads(&self, kind: &str, partitions: &[Partition]) -> Result<Option<Vec<Head>>, StoreError> {
        partitions.iter().map(|&partition| Ok(self.head(kind, partition)?.map(|head| head.public(partition)))).collect()
    }

    fn known(
        &self,
        head: Option<&HeadRecord>,
        kind: &str,
        target: &Id,
        now_ms: u64,
    ) -> Result<Option<TargetRecord>, StoreError> {
        let Some(head) = head else { return Ok(None) };
        let key = target_key(kind, partition_of(target, self.partitions), target);
        Ok(self.view().target(&key)?.filter(|target| target.is_known(head, now_ms)))
    }

    pub(super) fn read(
        &self,
        kind: &str,
        now_ms: u64,
        pairs: &[(Id, Option<Id>)],
    ) -> Result<Vec<ReadResult>, StoreError> {
        let mut heads: HashMap<Partition, Option<HeadRecord>> = HashMap::new();
        let mut results = Vec::with_capacity(pairs.len());
        for (target, actor) in pairs {
            let partition = partition_of(target, self.partitions);
            let head = match heads.get(&partition) {
                Some(head) => *head,
                None => *heads.entry(partition).or_insert(self.head(kind, partition)?),
            };
            let Some(record) = self.known(head.as_ref(), kind, target, now_ms)? else {
                results.push(ReadResult::ColdTarget);
                continue;
            };
            if record.mode == Mode::Missing {
                results.push(ReadResult::TargetMissing);
                continue;
            }
            let pair = actor.as_ref().map(|actor| self.view().pair(&record, &tagged(actor))).transpose()?;
            results.push(match pair {
                Some(Pair::Unknown) => ReadResult::ColdPair,
                Some(Pair::Present(_)) => ReadResult::Known(PairState { active: true, count: record.count }),
                Some(Pair::Absent) | None => ReadResult::Known(PairState { active: false, count: record.count }),
            });
        }
        Ok(results)
    }

    pub(super) fn members(
        &self,
        kind: &str,
        now_ms: u64,
        target: &Id,
        before: Option<&Member>,
        limit: usize,
    ) -> Result<Members, StoreError> {
        let head = self.head(kind, partition_of(target, self.partitions))?;
        let Some(record) = self.known(head.as_ref(), kind, target, now_ms)? else { return Ok(Members::ColdTarget) };
        match record.mode {
            Mode::Missing => Ok(Members::TargetMissing),
            Mode::Huge => self.overlay(&record),
            Mode::Whole => {
                let start = order_key(&record.generation, 0, "");
                let end = match before {
                    Some(member) => order_key(&record.generation, member.since_ms, &tagged(&member.actor)),
                    None => member_key(&record.generation, b'o' + 1, ""),
                };
                let range = self.snapshot.range(self.spaces.of(Space::Members), start..end);
                let member = |guard: fjall::Guard| {
                    let key = guard.key().map_err(failed)?;
                    let (since, actor) =
                        key.get(17..).and_then(<[u8]>::split_first_chunk::<8>).ok_or_else(bad_member)?;
                    let actor = untagged(actor).ok_or_else(bad_member)?;
                    Ok(Member { actor, since_ms: u64::from_be_bytes(*since) })
                };
                range.rev().take(limit).map(member).collect::<Result<_, _>>().map(Members::Whole)
            }
        }
    }

    fn overlay(&self, record: &TargetRecord) -> Result<Members, StoreError> {
        let (mut present, mut absent) = (Vec::new(), Vec::new());
        for guard in self.snapshot.prefix(self.spaces.of(Space::Members), member_key(&record.generation, b'd', "")) {
            let key = guard.key().map_err(failed)?;
            let tagged_actor =
                key.get(17..).and_then(|bytes| std::str::from_utf8(bytes).ok()).ok_or_else(bad_member)?;
            let actor = untagged(tagged_actor.as_bytes()).ok_or_else(bad_member)?;
            match self.view().pair(record, tagged_actor)? {
                Pair::Present(since_ms) => present.push(Member { actor, since_ms }),
                Pair::Absent | Pair::Unknown => absent.push(actor),
            }
        }
        Ok(Members::Overlay { present, absent })
    }

    /// `None` when there is no head yet.
    pub(super) fn journal(
        &self,
        kind: &str,
        partition: Partition,
        incarnation: Incarnation,
        position: Position,
        changes_max: usize,
    ) -> Result<Option<JournalRead>, StoreError> {
        let Some(head) = self.head(kind, partition)? else { return Ok(None) };
        if head.incarnation != incarnation {
            return Ok(Some(JournalRead::OtherIncarnation(head.public(partition))));
        }
        if position > head.flushed
            && self.view().get(Space::Journal, &journal_key(kind, partition, position))?.is_none()
        {
            return Ok(Some(JournalRead::Rewound(head.public(partition))));
        }
        let (mut entries, mut changes) = (Vec::new(), 0);
        for entry in self.entries_after(kind, partition, position.max(head.flushed), head.last) {
            let entry = entry?;
            changes += entry.changes.len();
            entries.push(entry);
            if changes >= changes_max {
                break;
            }
        }
        if entries.is_empty() && position <= head.flushed && head.entries > 0 {
            return Err(damaged("the journal"));
        }
        Ok(Some(JournalRead::Entries(entries)))
    }

    fn entries_after(
        &self,
        kind: &str,
        partition: Partition,
        after: Position,
        last: Position,
    ) -> impl Iterator<Item = Result<Entry, StoreError>> {
        let range = journal_key(kind, partition, after.saturating_add(1))..=journal_key(kind, partition, last);
        // An empty range where `after` is `last`.
        let guards = (after < last).then(|| self.snapshot.range(self.spaces.of(Space::Journal), range));
        guards.into_iter().flatten().map(|guard| {
            let (key, value) = guard.into_inner().map_err(failed)?;
            let position = position_of(&key).ok_or_else(|| damaged("the journal"))?;
            entry::decode(position, &value).map_err(|error| StoreError::Damaged(error.to_string()))
        })
    }

    pub(super) fn explain(
        &self,
        kind: &str,
        now_ms: u64,
        target: &Id,
        actor: &Id,
    ) -> Result<serde_json::Value, StoreError> {
        let partition = partition_of(target, self.partitions);
        let Some(head) = self.head(kind, partition)? else {
            return Ok(json!({ "partition": partition, "state": { "known": "cold" }, "head": null, "journal": [] }));
        };
        let state = match self.known(Some(&head), kind, target, now_ms)? {
            None => json!({ "known": "cold" }),
            Some(record) if record.mode == Mode::Missing => {
                json!({ "known": "missing", "expires_ms": record.expires_ms })
            }
            Some(record) => {
                let (pair, since_ms) = match self.view().pair(&record, &tagged(actor))? {
                    Pair::Unknown => ("unknown", None),
                    Pair::Absent => ("absent", None),
                    Pair::Present(since_ms) => ("present", Some(since_ms)),
                };
                json!({
                    "known": if record.mode == Mode::Huge { "huge" } else { "whole" },
                    "count": record.count,
                    "pair": pair,
                    "since_ms": since_ms,
                    "dirty": record.last > head.flushed,
                    "invalid": record.invalid,
                })
            }
        };
        let mut found = VecDeque::new();
        for entry in self.entries_after(kind, partition, head.flushed, head.last) {
            explain::entry(&entry?, target, actor, &mut found);
        }
        Ok(
            json!({ "partition": partition, "state": state, "head": explain::head(&head.public(partition)), "journal": found }),
        )
    }
}

fn bad_member() -> StoreError {
    damaged("a member")
}
