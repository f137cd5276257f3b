//! Reads of the state in memory and of the journal on disk; both run beside the writer.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::{PoisonError, RwLock};

use fjall::{Readable, Slice, Snapshot};
use serde_json::json;

use super::layout::{HeadRecord, Space, Spaces, View, damaged, decoded, failed, journal_key};
use super::state::State;
use super::target::{Mode, Pair};
use crate::explain;
use crate::{Head, JournalRead, MemberRead, Members, PendingDocument, READ_BYTES_MAX, ReadResult, StoreError};
use weir_core::journal::chain::{Followed, Found, follow};
use weir_core::journal::{Entry, Mark, entry};
use weir_core::model::{Id, Incarnation, Member, PairState, Partition, Position, partition_of};

/// A value that was read, and the group of writes that must be on disk before it may be returned.
pub(super) struct Seen<T> {
    pub(super) value: T,
    pub(super) group: u64,
}

/// See [`crate::State::read`].
pub(super) fn pairs(
    state: &State,
    (kind, partitions): (&str, Partition),
    now_ms: u64,
    pairs: &[(Id, Option<Id>)],
) -> Seen<Vec<ReadResult>> {
    let mut group = 0;
    let one = |(id, actor): &(Id, Option<Id>)| {
        let Some(target) = state.target(kind, partition_of(id, partitions), id, now_ms) else {
            return ReadResult::TargetNotLoaded;
        };
        group = group.max(target.group);
        if target.mode == Mode::Missing {
            return ReadResult::TargetMissing;
        }
        let active = match actor.as_ref().map(|actor| target.pair(actor)) {
            Some(Pair::Unknown) => return ReadResult::PairNotLoaded,
            Some(Pair::Present(_)) => true,
            Some(Pair::Absent) | None => false,
        };
        ReadResult::Known(PairState { active, count: target.count })
    };
    let value = pairs.iter().map(one).collect();
    Seen { value, group }
}

/// See [`crate::State::settings`].
pub(super) fn settings(
    state: &State,
    (kind, partitions): (&str, Partition),
    now_ms: u64,
    members: &[Id],
) -> Seen<Vec<MemberRead>> {
    let mut group = 0;
    let one = |id: &Id| {
        let Some(target) = state.target(kind, partition_of(id, partitions), id, now_ms) else {
            return MemberRead::NotLoaded;
        };
        group = group.max(target.group);
        match target.mode {
            Mode::Settings => MemberRead::Known(target.settings.clone()),
            Mode::Missing => MemberRead::Missing,
            // Of another capability.
            Mode::Whole | Mode::Huge | Mode::Count | Mode::Exists => MemberRead::NotLoaded,
        }
    };
    let value = members.iter().map(one).collect();
    Seen { value, group }
}

/// See [`crate::State::members`]. Of a whole target all members, in no order and uncut, so that the writer does not wait
/// for sorting.
pub(super) fn members(state: &State, (kind, partition): (&str, Partition), now_ms: u64, id: &Id) -> Seen<Members> {
    let Some(target) = state.target(kind, partition, id, now_ms) else {
        return Seen { value: Members::TargetNotLoaded, group: 0 };
    };
    let member = |(actor, since_ms): (Id, u64)| Member { actor, since_ms };
    let value = match target.mode {
        Mode::Missing => Members::TargetMissing,
        // Of another capability: its members are unknown.
        Mode::Count | Mode::Exists | Mode::Settings => Members::TargetNotLoaded,
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

/// The place of a waiting document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    partition: Partition,
    position: Position,
    /// The offset of its record in the entry, in bytes.
    place: usize,
    id: Id,
}

/// The places of documents; `None` for those that do not wait. Index-aligned with `ids`.
pub(super) fn places(state: &State, kind: &str, ids: &[(Partition, Id)]) -> Seen<Vec<Option<Place>>> {
    let mut group = 0;
    let one = |(partition, id): &(Partition, Id)| {
        let waiting = state.pending(kind, *partition)?.get(id)?;
        group = group.max(waiting.group);
        Some(Place { partition: *partition, position: waiting.position, place: waiting.place, id: id.clone() })
    };
    let value = ids.iter().map(one).collect();
    Seen { value, group }
}

/// The places of an actor's newest `limit` documents in each partition, in no order: the writer does not wait for sorting.
pub(super) fn places_of(
    state: &State,
    (kind, partitions): (&str, Partition),
    actor: &Id,
    limit: usize,
) -> Seen<Vec<Place>> {
    let (mut value, mut group) = (Vec::new(), 0);
    for partition in 0..partitions {
        let newest = state.pending(kind, partition).map(|pending| pending.newest_of(actor, limit));
        for (id, waiting) in newest.into_iter().flatten() {
            group = group.max(waiting.group);
            value.push(Place { partition, position: waiting.position, place: waiting.place, id: id.clone() });
        }
    }
    Seen { value, group }
}

/// The newest `limit` of these, newest first, ties by the id's text descending.
pub(super) fn newest(mut places: Vec<Place>, limit: usize) -> Vec<Option<Place>> {
    places.sort_by_cached_key(|place| Reverse((place.position, place.id.to_string())));
    places.truncate(limit);
    places.into_iter().map(Some).collect()
}

/// The state of a target, and of a pair where there is an actor, for operators.
pub(super) fn explain(
    state: &State,
    (kind, partition): (&str, Partition),
    now_ms: u64,
    (id, actor): (&Id, Option<&Id>),
    flushed: Position,
) -> serde_json::Value {
    if let Some(waiting) = state.pending(kind, partition).and_then(|pending| pending.get(id)) {
        return json!({ "known": "pending", "position": waiting.position, "actor": waiting.actor.to_json() });
    }
    let Some(target) = state.target(kind, partition, id, now_ms) else { return json!({ "known": "cold" }) };
    let (count, dirty, invalid) = (target.count, target.last > flushed, target.invalid);
    let known = match target.mode {
        Mode::Missing => return json!({ "known": "missing", "expires_ms": target.expires_ms }),
        Mode::Exists => return json!({ "known": "exists", "expires_ms": target.expires_ms }),
        Mode::Count => return json!({ "known": "counter", "count": count, "dirty": dirty, "invalid": invalid }),
        Mode::Settings => {
            let settings = target.settings.to_json();
            return json!({ "known": "settings", "settings": settings, "dirty": dirty, "invalid": invalid });
        }
        Mode::Whole => "whole",
        Mode::Huge => "huge",
    };
    let (pair, since_ms) = match actor.map_or(Pair::Unknown, |actor| target.pair(actor)) {
        Pair::Unknown => ("unknown", None),
        Pair::Absent => ("absent", None),
        Pair::Present(since_ms) => ("present", Some(since_ms)),
    };
    json!({
        "known": known, "count": count, "pair": pair, "since_ms": since_ms, "dirty": dirty, "invalid": invalid,
    })
}

/// The number of changes up to an entry, where the entry says so.
fn mark_of(position: Position, bytes: &[u8]) -> Result<Mark, StoreError> {
    let entry = entry::decode(position, bytes).map_err(|error| StoreError::Damaged(error.to_string()))?;
    Ok(Mark::from(&entry))
}

/// One snapshot of the disk.
pub(super) struct Reader<'a> {
    spaces: &'a Spaces,
    snapshot: Snapshot,
    /// The present state: only for the figures of a head.
    state: &'a RwLock<State>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(spaces: &'a Spaces, state: &'a RwLock<State>) -> Self {
        Self { spaces, snapshot: spaces.snapshot(), state }
    }

    fn public(&self, kind: &str, partition: Partition, head: &HeadRecord) -> Head {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        head.public(partition, state.waiting(kind, partition))
    }

    pub(super) fn view(&self) -> (&Spaces, &Snapshot) {
        (self.spaces, &self.snapshot)
    }

    pub(super) fn head(&self, kind: &str, partition: Partition) -> Result<Option<HeadRecord>, StoreError> {
        self.view().head(kind, partition)
    }

    /// The heads in order; `None` when one does not exist yet.
    pub(super) fn heads(&self, kind: &str, partitions: &[Partition]) -> Result<Option<Vec<Head>>, StoreError> {
        let head =
            |&partition: &Partition| Ok(self.head(kind, partition)?.map(|head| self.public(kind, partition, &head)));
        partitions.iter().map(head).collect()
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
            return Ok(Some(JournalRead::OtherIncarnation(self.public(kind, partition, &head))));
        }
        let there = self.view().get(Space::Journal, &journal_key(kind, partition, position))?;
        let there = there.map(|bytes| mark_of(position, &bytes)).transpose()?;
        let (mut entries, mut changes, mut bytes, mut is_all) = (Vec::new(), 0, 0, true);
        for entry in self.entries_after(kind, partition, position.max(head.gone), head.last) {
            let (entry, size) = entry?;
            (changes, bytes) = (changes + entry.changes.len(), bytes + size);
            entries.push(entry);
            if changes >= changes_max || bytes >= READ_BYTES_MAX {
                is_all = false;
                break;
            }
        }
        let public = || self.public(kind, partition, &head);
        Ok(Some(match follow(&head.chain(), Found { position, there, entries, is_all }) {
            Followed::Entries(entries) => JournalRead::Entries(entries),
            Followed::Hole(hole) => JournalRead::Hole(public(), hole),
            Followed::Rewound => JournalRead::Rewound(public()),
            Followed::Misplaced(_) => return Err(damaged("the journal")),
        }))
    }

    /// Entries, each with its size on disk, in bytes.
    fn entries_after(
        &self,
        kind: &str,
        partition: Partition,
        after: Position,
        last: Position,
    ) -> impl Iterator<Item = Result<(Entry, usize), StoreError>> {
        let range = journal_key(kind, partition, after.saturating_add(1))..=journal_key(kind, partition, last);
        // An empty range where `after` is `last`.
        let guards = (after < last).then(|| self.snapshot.range(self.spaces.of(Space::Journal), range));
        guards.into_iter().flatten().map(|guard| {
            let (key, value) = guard.into_inner().map_err(failed)?;
            Ok((decoded(&key, &value)?, value.len()))
        })
    }

    /// The head of a pair's partition and the pair's entries above `flushed`, for `explain`.
    pub(super) fn explain(
        &self,
        (kind, partition): (&str, Partition),
        target: &Id,
        actor: Option<&Id>,
    ) -> Result<Option<(Head, VecDeque<serde_json::Value>)>, StoreError> {
        let Some(head) = self.head(kind, partition)? else { return Ok(None) };
        let mut found = VecDeque::new();
        for entry in self.entries_after(kind, partition, head.flushed.max(head.gone), head.last) {
            explain::entry(&entry?.0, target, actor, &mut found);
        }
        Ok(Some((self.public(kind, partition, &head), found)))
    }

    /// The documents at these places; `None` where there is none, or its entry has gone meanwhile. Index-aligned.
    pub(super) fn documents(
        &self,
        kind: &str,
        places: Vec<Option<Place>>,
    ) -> Result<Vec<Option<PendingDocument>>, StoreError> {
        let mut found = vec![None; places.len()];
        let mut sorted: Vec<(usize, Place)> =
            places.into_iter().enumerate().filter_map(|(index, place)| Some((index, place?))).collect();
        // Reads each entry once, and holds one at a time.
        sorted.sort_by_key(|(_, place)| (place.partition, place.position));
        let mut held: Option<(Partition, Position, Option<Slice>)> = None;
        for (index, place) in sorted {
            let Place { partition, position, place: at, id } = place;
            let entry = match held.take() {
                Some((of, at, entry)) if (of, at) == (partition, position) => entry,
                _ => self.view().get(Space::Journal, &journal_key(kind, partition, position))?,
            };
            if let Some(bytes) = &entry {
                let read = entry::decode_document(bytes, at).and_then(|of| Ok((of, entry::decode_at_ms(bytes)?)));
                let (document, at_ms) = read.map_err(|error| StoreError::Damaged(error.to_string()))?;
                if document.id != id {
                    return Err(damaged("a document"));
                }
                let (actor, body) = (document.actor, document.body);
                found[index] = Some(PendingDocument { id, actor, body, at_ms, partition, position });
            }
            held = Some((partition, position, entry));
        }
        Ok(found)
    }
}
