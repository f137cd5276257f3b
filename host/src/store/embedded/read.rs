//! Reads: of the state in memory, and of the journal on disk; both run beside the writer.

use std::collections::VecDeque;

use fjall::{Readable, Snapshot};
use serde_json::json;

use super::layout::{HeadRecord, Space, Spaces, View, damaged, failed, journal_key, position_of};
use super::state::{Mode, Pair, State};
use crate::journal::{Entry, entry};
use crate::model::{Id, Incarnation, Member, PairState, Partition, Position, partition_of};
use crate::store::explain;
use crate::store::{Head, JournalRead, Members, ReadResult, StoreError};

/// What was read, and the group of writes that must be on the disk before it is told.
pub(super) struct Seen<T> {
    pub(super) value: T,
    pub(super) group: u64,
}

/// See [`crate::store::Store::read`].
pub(super) fn pairs(
    state: &State,
    (kind, partitions): (&str, Partition),
    now_ms: u64,
    pairs: &[(Id, Option<Id>)],
) -> Seen<Vec<ReadResult>> {
    let mut group = 0;
    let one = |(id, actor): &(Id, Option<Id>)| {
        let Some(target) = state.target(kind, partition_of(id, partitions), id, now_ms) else {
            return ReadResult::ColdTarget;
        };
        group = group.max(target.group);
        if target.mode == Mode::Missing {
            return ReadResult::TargetMissing;
        }
        let active = match actor.as_ref().map(|actor| target.pair(actor)) {
            Some(Pair::Unknown) => return ReadResult::ColdPair,
            Some(Pair::Present(_)) => true,
            Some(Pair::Absent) | None => false,
        };
        ReadResult::Known(PairState { active, count: target.count })
    };
    let value = pairs.iter().map(one).collect();
    Seen { value, group }
}

/// See [`crate::store::Store::members`]. Of a whole target all members, in no order and not cut, so that the
/// writer does not wait for that.
pub(super) fn members(state: &State, (kind, partition): (&str, Partition), now_ms: u64, id: &Id) -> Seen<Members> {
    let Some(target) = state.target(kind, partition, id, now_ms) else {
        return Seen { value: Members::ColdTarget, group: 0 };
    };
    let member = |(actor, since_ms): (Id, u64)| Member { actor, since_ms };
    let value = match target.mode {
        Mode::Missing => Members::TargetMissing,
        Mode::Whole => Members::Whole(target.members().map(member).collect()),
        Mode::Huge => {
            let (mut present, mut absent) = (Vec::new(), Vec::new());
            for (actor, pair) in target.dirty() {
                match pair {
                    Pair::Present(since_ms) => present.push(member((actor, since_ms))),
                    Pair::Absent | Pair::Unknown => absent.push(actor),
                }
            }
            Members::Overlay { present, absent }
        }
    };
    Seen { value, group: target.group }
}

/// What is known of a pair, in words.
pub(super) fn explain_pair(
    state: &State,
    (kind, partition): (&str, Partition),
    now_ms: u64,
    (id, actor): (&Id, &Id),
    flushed: Position,
) -> serde_json::Value {
    let Some(target) = state.target(kind, partition, id, now_ms) else { return json!({ "known": "cold" }) };
    if target.mode == Mode::Missing {
        return json!({ "known": "missing", "expires_ms": target.expires_ms });
    }
    let (pair, since_ms) = match target.pair(actor) {
        Pair::Unknown => ("unknown", None),
        Pair::Absent => ("absent", None),
        Pair::Present(since_ms) => ("present", Some(since_ms)),
    };
    json!({
        "known": if target.mode == Mode::Huge { "huge" } else { "whole" },
        "count": target.count,
        "pair": pair,
        "since_ms": since_ms,
        "dirty": target.last > flushed,
        "invalid": target.invalid,
    })
}

/// One snapshot of the disk.
pub(super) struct Reader<'a> {
    spaces: &'a Spaces,
    snapshot: Snapshot,
}

impl<'a> Reader<'a> {
    pub(super) fn new(spaces: &'a Spaces) -> Self {
        Self { spaces, snapshot: spaces.snapshot() }
    }

    pub(super) fn view(&self) -> (&Spaces, &Snapshot) {
        (self.spaces, &self.snapshot)
    }

    pub(super) fn head(&self, kind: &str, partition: Partition) -> Result<Option<HeadRecord>, StoreError> {
        self.view().head(kind, partition)
    }

    /// The heads in order; `None` when one does not exist yet.
    pub(super) fn heads(&self, kind: &str, partitions: &[Partition]) -> Result<Option<Vec<Head>>, StoreError> {
        partitions.iter().map(|&partition| Ok(self.head(kind, partition)?.map(|head| head.public(partition)))).collect()
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

    /// The head of a pair's partition and the pair's entries above `flushed`, for `explain`.
    pub(super) fn explain(
        &self,
        (kind, partition): (&str, Partition),
        target: &Id,
        actor: &Id,
    ) -> Result<Option<(Head, VecDeque<serde_json::Value>)>, StoreError> {
        let Some(head) = self.head(kind, partition)? else { return Ok(None) };
        let mut found = VecDeque::new();
        for entry in self.entries_after(kind, partition, head.flushed, head.last) {
            explain::entry(&entry?, target, actor, &mut found);
        }
        Ok(Some((head.public(partition), found)))
    }
}
