//! All other changes of the store: trims, new lives, and the sweep of expired records.
//!
//! Reads that may fail (the disk) come before any change.

use std::collections::HashSet;

use fjall::{Readable, Slice};

use super::guest;
use super::layout::{HeadRecord, Space, UNKNOWN, View, damaged, decoded, expiry_key, failed, journal_key};
use super::outcome::OutcomeRecord;
use super::state::State;
use super::target::{Mode, Target};
use super::transaction::Transaction;
use crate::{Head, LoadedState, StoreError};
use weir_core::journal::entry::{self, EntryHead};
use weir_core::journal::{Link, Mark};
use weir_core::model::{Change, Id, Incarnation, Partition, Position};

/// Keys on disk, and targets in memory, that one step of the sweeper visits.
const SWEEP_STEP: usize = 1_024;

/// Times to live, and the other settings that changes need.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) state_ttl_ms: u64,
    pub(super) absent_ttl_ms: u64,
    pub(super) huge_pairs_max: u64,
}

/// The arguments of a trim.
pub(super) struct Trim {
    pub(super) partition: Partition,
    pub(super) incarnation: Incarnation,
    pub(super) upto: Mark,
    pub(super) touched: Vec<Id>,
    pub(super) invalid: Vec<Id>,
}

/// See [`crate::Journal::trim`]. `now_ms` is the newest time that a caller passed to the store.
pub(super) fn trim(
    transaction: &mut Transaction<'_>,
    state: &mut State,
    terms: &Terms,
    kind: &str,
    trim: Trim,
    now_ms: u64,
) -> Result<(), StoreError> {
    let Trim { partition, incarnation, upto, touched: touched_by_caller, invalid } = trim;
    let position = upto.position;
    let Some(mut head) = transaction.head(kind, partition)? else { return Ok(()) };
    let applies = head.incarnation == incarnation && head.flushed <= position && position <= head.last;
    if !applies {
        return Ok(());
    }
    let dropped = take_entries(transaction, kind, partition, (&mut head, position))?;
    let has_moved = head.gone < position;
    (head.flushed, head.gone) = (position, head.gone.max(position));
    let next = first_after(transaction, kind, partition, &head)?;
    head.oldest_at_ms = next.map_or(head.oldest_at_ms, |next| next.at_ms);
    // Entries of the previous format do not name the one before them. Later entries will show what is missing.
    let trimmed = if dropped.is_end_unlinked { position.into() } else { trimmed(&head, upto, next) };
    let left = trimmed.changes.map_or(head.entries, |trimmed| head.changes.saturating_sub(trimmed));
    let is_some_lost = left < head.entries;
    head.entries = left;
    if has_moved || trimmed.amount.is_some() {
        head.amount_gone = trimmed.amount.unwrap_or(UNKNOWN);
    }
    if head.entries == 0 {
        head.bytes = 0;
    }

    // Nothing fails from here on.
    dropped.keys.into_iter().for_each(|key| transaction.delete(Space::Journal, key));
    let place = (state.kind(kind), partition);
    let invalid: HashSet<Id> = invalid.into_iter().collect();
    let exists_until_ms = now_ms.saturating_add(terms.state_ttl_ms);
    for id in dropped.documents {
        clean_document(state, (place, &id), exists_until_ms);
    }
    if is_some_lost {
        // Documents in lost entries stop waiting.
        state.with_pending(place, |pending| pending.forget_upto(position));
    }
    // The entries name their targets: even when a caller has lost some of them, those targets become clean.
    let mut touched = dropped.targets;
    touched.extend(touched_by_caller);
    touched.extend(invalid.iter().cloned());
    for target in &touched {
        let is_invalid = invalid.contains(target);
        clean_target(state, terms, (place, target), (head.flushed, is_invalid), now_ms);
        let Some(known) = state.known(place.0, partition) else { continue };
        let Some(tail) = known.tails.get(target).map(|tail| tail.last) else { continue };
        if tail <= head.flushed || is_invalid {
            known.tails.remove(target);
        }
        if tail > head.flushed && is_invalid {
            // SQL will never hold a part of it: let SQL have the rest first.
            head.floor = head.last;
        }
    }
    // Targets that were dirty until now may have grown beyond the bound.
    state.make_room();
    transaction.put_head(kind, partition, &head);
    Ok(())
}

/// The entries to drop: their keys, and their changes.
#[derive(Default)]
struct Dropped {
    keys: Vec<Vec<u8>>,
    documents: Vec<Id>,
    targets: HashSet<Id>,
    /// Whether the last entry to drop exists, and has the previous format.
    is_end_unlinked: bool,
}

/// Reads the entries from `flushed` up to `position`, and subtracts them from the backlog in the head.
fn take_entries(
    transaction: &Transaction<'_>,
    kind: &str,
    partition: Partition,
    (head, position): (&mut HeadRecord, Position),
) -> Result<Dropped, StoreError> {
    let mut dropped = Dropped::default();
    let (spaces, snapshot) = transaction.committed();
    let after_key = |position: Position| journal_key(kind, partition, position.saturating_add(1));
    for guard in snapshot.range(spaces.of(Space::Journal), after_key(head.flushed)..after_key(position)) {
        let (key, value) = guard.into_inner().map_err(failed)?;
        let entry = decoded(&key, &value)?;
        head.entries = head.entries.saturating_sub(entry.changes.len() as u64);
        head.bytes = head.bytes.saturating_sub(value.len() as u64);
        dropped.is_end_unlinked = entry.position == position && entry.link.previous.is_none();
        for change in entry.changes {
            match change {
                Change::Document(document) => dropped.documents.push(document.id),
                other => drop(dropped.targets.insert(other.into_target())),
            }
        }
        dropped.keys.push(key.to_vec());
    }
    Ok(dropped)
}

/// The document stops waiting. If its id may be used again, the store remembers that it exists; a document that SQL refused is
/// then cleaned like every invalid target.
fn clean_document(state: &mut State, (place, id): ((usize, Partition), &Id), exists_until_ms: u64) {
    let waiting = state.with_pending(place, |pending| pending.remove(id)).flatten();
    if waiting.is_some_and(|waiting| waiting.is_asked_again) {
        state.insert(place, id, Target::new(&LoadedState::Exists, exists_until_ms));
    }
}

/// What the first entry above `flushed` says about itself.
fn first_after(
    transaction: &Transaction<'_>,
    kind: &str,
    partition: Partition,
    head: &HeadRecord,
) -> Result<Option<EntryHead>, StoreError> {
    let (spaces, snapshot) = transaction.committed();
    let range =
        journal_key(kind, partition, head.flushed.saturating_add(1))..=journal_key(kind, partition, Position::MAX);
    let Some(guard) = snapshot.range(spaces.of(Space::Journal), range).next() else { return Ok(None) };
    let (_, value) = guard.into_inner().map_err(failed)?;
    entry::decode_head(&value).map(Some).map_err(|error| StoreError::Damaged(error.to_string()))
}

/// How many of all changes ever appended lie at or below the trim point, lost ones included, as far as the store can tell.
fn trimmed(head: &HeadRecord, upto: Mark, next: Option<EntryHead>) -> Mark {
    let position = upto.position;
    match next.map(|next| next.link) {
        Some(Link { previous: Some(previous), before, amount }) if previous <= position => {
            Mark { position, changes: before, amount }
        }
        None if position == head.last => Mark { position, changes: Some(head.changes), amount: Some(head.amount) },
        _ => upto,
    }
}

/// Drops what SQL has of a target's changes; `flushed` is how far SQL has got.
fn clean_target(
    state: &mut State,
    terms: &Terms,
    (place, id): ((usize, Partition), &Id),
    (flushed, is_invalid): (Position, bool),
    now_ms: u64,
) {
    let cleaned = state.with(place, id, |target| {
        target.invalid |= is_invalid;
        let is_clean = target.last <= flushed;
        if target.mode == Mode::Huge {
            target.forget_dirty(flushed);
            if is_clean && target.pairs_known() > terms.huge_pairs_max {
                target.forget_pairs();
            }
        }
        if is_clean && target.is_dirty() {
            target.expires_ms = now_ms.saturating_add(terms.state_ttl_ms);
        }
        (is_clean && target.invalid, target.expires_ms)
    });
    match cleaned {
        Some((true, _)) => state.remove(place, id),
        Some((false, expires_ms)) => state.queue(place, id, expires_ms),
        None => {}
    }
}

/// See [`crate::Journal::reset`].
pub(super) fn reset(
    transaction: &mut Transaction<'_>,
    state: &mut State,
    kind: &str,
    partition: Partition,
    than: Incarnation,
) -> Result<Head, StoreError> {
    let mut head = transaction.head_or_fresh(kind, partition)?;
    if head.incarnation <= than {
        head.incarnation = Incarnation::after(than);
        head.flushed = 0;
        if head.entries == 0 {
            // An empty journal has nothing that SQL must hold first.
            head.gone = head.newest();
            head.last = 0;
        }
        head.floor = head.last;
        transaction.put_head(kind, partition, &head);
        let place = state.kind(kind);
        state.clear(place, partition);
    }
    Ok(head.public(partition, state.waiting(kind, partition)))
}

/// See [`crate::State::wipe_state`].
pub(super) fn wipe_state(
    transaction: &mut Transaction<'_>,
    state: &mut State,
    kind: &str,
    partitions: Partition,
) -> Result<(), StoreError> {
    for partition in 0..partitions {
        if let Some(mut head) = transaction.head(kind, partition)? {
            head.floor = head.last;
            transaction.put_head(kind, partition, &head);
        }
    }
    let place = state.kind(kind);
    (0..partitions).for_each(|partition| state.clear(place, partition));
    Ok(())
}

/// The sweeper's place in the keyspace of expiries. Everything before it is deleted: starting there spares the database the
/// tombstones.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    from: Vec<u8>,
    /// Swept up to this time.
    swept_ms: u64,
}

impl Sweeper {
    /// Deletes some of the records that expired up to `now_ms`. Returns whether there may be more.
    pub(super) fn step(&mut self, transaction: &mut Transaction<'_>, now_ms: u64) -> Result<bool, StoreError> {
        if now_ms < self.swept_ms {
            // The clock was set back.
            self.from.clear();
        } else if now_ms < self.swept_ms.saturating_add(1_000) {
            return Ok(false);
        }
        let until = expiry_key(now_ms.saturating_add(1), 0, &[]);
        if self.from >= until {
            self.from.clear();
        }
        let (spaces, snapshot) = transaction.committed();
        for (looked_at, guard) in snapshot.range(spaces.of(Space::Expiry), self.from.clone()..until.clone()).enumerate()
        {
            let key = guard.key().map_err(failed)?;
            self.from = key.to_vec();
            if looked_at == SWEEP_STEP {
                return Ok(true);
            }
            sweep_one(transaction, &key)?;
        }
        self.from = until;
        self.swept_ms = now_ms;
        Ok(false)
    }
}

/// Deletes the record of one expiry.
fn sweep_one(transaction: &mut Transaction<'_>, key: &Slice) -> Result<(), StoreError> {
    let Some((at, [what, rest @ ..])) = key.split_first_chunk::<8>() else { return Err(damaged("an expiry")) };
    let at_ms = u64::from_be_bytes(*at);
    if *what == b'm' {
        guest::sweep(transaction, rest, at_ms)?;
    } else {
        let record = transaction.get(Space::Outcomes, rest)?;
        if record.is_some_and(|bytes| OutcomeRecord::decode(&bytes).is_none_or(|record| record.expires_ms == at_ms)) {
            transaction.delete(Space::Outcomes, rest.to_vec());
        }
    }
    transaction.delete(Space::Expiry, key.to_vec());
    Ok(())
}
