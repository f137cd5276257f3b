//! Every other change of the store: hydration, trimming, new lives, and the sweeping of what expired.
//!
//! What may fail (the disk) is read before anything is changed.

use std::collections::HashSet;

use fjall::{Readable, Slice};

use super::apply::OutcomeRecord;
use super::guest;
use super::layout::{HeadRecord, Space, Spaces, View, damaged, expiry_key, failed, journal_key, position_of};
use super::state::{Mode, Pair, State, Target};
use super::transaction::Transaction;
use crate::journal::entry;
use crate::model::{Id, Incarnation, Partition, Position};
use crate::store::{Head, Hydrated, Hydration, LoadedState, PairLoad, StoreError};

/// Keys on disk, and targets in memory, that one step of the sweeper looks at.
const SWEEP_STEP: usize = 1_024;
/// Changes of one journal's tail that are read at a start; a longer one must reach SQL before its targets are known.
const TAIL_CHANGES_MAX: u64 = 100_000;

/// Times to live, and what else changes need of the configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) state_ttl_ms: u64,
    pub(super) absent_ttl_ms: u64,
    pub(super) huge_pairs_max: u64,
}

/// A hydration whose tables are made: what takes long is done before the writer's turn.
pub(super) struct Prepared {
    partition: Partition,
    incarnation: Incarnation,
    position: Position,
    now_ms: u64,
    targets: Vec<(Id, Target)>,
    pairs: Vec<PairLoad>,
}

impl Prepared {
    pub(super) fn new(hydration: Hydration, terms: &Terms) -> Self {
        let Hydration { partition, incarnation, position, targets, pairs, now_ms } = hydration;
        let prepare = |load: crate::store::TargetLoad| {
            let is_missing = load.state == LoadedState::Missing;
            let ttl_ms = if is_missing { terms.absent_ttl_ms } else { terms.state_ttl_ms };
            (load.target, Target::new(&load.state, now_ms.saturating_add(ttl_ms)))
        };
        Self { partition, incarnation, position, now_ms, targets: targets.into_iter().map(prepare).collect(), pairs }
    }
}

/// See [`crate::store::Store::hydrate`].
pub(super) fn hydrate(
    transaction: &mut Transaction<'_>,
    state: &mut State,
    kind: &str,
    hydration: Prepared,
) -> Result<Hydrated, StoreError> {
    let Prepared { partition, incarnation, position, now_ms, targets, pairs } = hydration;
    let mut head = transaction.head_or_fresh(kind, partition)?;
    let speaks = incarnation == head.incarnation && position >= head.flushed.max(head.floor);
    let place = (state.kind(kind), partition);
    let Some(known) = state.known(place.0, partition) else { return Ok(Hydrated::Stale(head.public(partition))) };
    // What changed of a huge target after the checkpoint: whether it changed the count, only its rows could tell.
    let is_early = |(id, target): &(Id, Target)| {
        target.mode == Mode::Huge && known.tails.get(id).is_some_and(|tail| tail.last > position)
    };
    if speaks && targets.iter().any(is_early) {
        head.floor = head.last;
        transaction.put_head(kind, partition, &head);
        return Ok(Hydrated::Stale(head.public(partition)));
    }
    if !speaks {
        return Ok(Hydrated::Stale(head.public(partition)));
    }
    for (id, target) in targets {
        hydrate_target(state, place, (id, target), head.flushed, now_ms);
    }
    for load in pairs {
        state.with(place, &load.target, |target| {
            if target.mode == Mode::Huge && target.is_known(now_ms) && target.pair(&load.actor) == Pair::Unknown {
                target.set(&load.actor, load.present_since_ms.map_or(Pair::Absent, Pair::Present));
            }
        });
    }
    Ok(Hydrated::Accepted)
}

fn hydrate_target(
    state: &mut State,
    place: (usize, Partition),
    (id, mut target): (Id, Target),
    flushed: Position,
    now_ms: u64,
) {
    let Some(known) = state.known(place.0, place.1) else { return };
    if known.targets.get(&id).is_some_and(|before| before.is_known(now_ms)) {
        return;
    }
    if let Some(tail) = known.tails.remove(&id)
        && target.mode == Mode::Whole
    {
        tail.over(&mut target, flushed);
    }
    state.remove(place, &id);
    state.insert(place, &id, target);
}

/// What is left of the journals by an earlier process: what changed is laid over what SQL says of a target, so that it
/// need not reach SQL first. Writes the heads of those with too much of it.
pub(super) fn read_tails(spaces: &Spaces, state: &mut State) -> Result<(), StoreError> {
    let mut transaction = Transaction::new(spaces);
    let (_, snapshot) = transaction.committed();
    for guard in snapshot.iter(spaces.of(Space::Heads)) {
        let (key, value) = guard.into_inner().map_err(failed)?;
        let mut head = HeadRecord::decode(&value).ok_or_else(|| damaged("a head"))?;
        let Some((kind, [0, partition @ ..])) = key.split_last_chunk::<3>() else { return Err(damaged("a head")) };
        let kind = std::str::from_utf8(kind).map_err(|_| damaged("a head"))?;
        let partition = Partition::from_be_bytes(*partition);
        if head.entries > TAIL_CHANGES_MAX {
            head.floor = head.last;
            transaction.put_head(kind, partition, &head);
            continue;
        }
        let begin = journal_key(kind, partition, head.flushed.saturating_add(1));
        let end = journal_key(kind, partition, Position::MAX);
        for guard in snapshot.range(spaces.of(Space::Journal), begin..=end) {
            let (key, value) = guard.into_inner().map_err(failed)?;
            let entry = entry::decode(position_of(&key).unwrap_or(0), &value)
                .map_err(|error| StoreError::Damaged(error.to_string()))?;
            let place = state.kind(kind);
            if let Some(known) = state.known(place, partition) {
                known.add_tail(entry);
            }
        }
    }
    transaction.end_job(true);
    if transaction.is_empty() { Ok(()) } else { transaction.commit(true).map_err(failed) }
}

/// What a trim is told.
pub(super) struct Trim {
    pub(super) partition: Partition,
    pub(super) incarnation: Incarnation,
    pub(super) position: Position,
    pub(super) touched: Vec<Id>,
    pub(super) invalid: Vec<Id>,
}

/// See [`crate::store::Store::trim`]. `now_ms` is the newest time that the store was told.
pub(super) fn trim(
    transaction: &mut Transaction<'_>,
    state: &mut State,
    terms: &Terms,
    kind: &str,
    trim: Trim,
    now_ms: u64,
) -> Result<(), StoreError> {
    let Trim { partition, incarnation, position, touched, invalid } = trim;
    let Some(mut head) = transaction.head(kind, partition)? else { return Ok(()) };
    let applies = head.incarnation == incarnation && head.flushed <= position && position <= head.last;
    if !applies {
        return Ok(());
    }
    // The entries say themselves whom they touched: a caller that lost some targets does not keep them for ever.
    let mut touched: HashSet<Id> = touched.into_iter().collect();
    let mut dropped = Vec::new();
    let (spaces, snapshot) = transaction.committed();
    let after_key = |position: Position| journal_key(kind, partition, position.saturating_add(1));
    for guard in snapshot.range(spaces.of(Space::Journal), after_key(head.flushed)..after_key(position)) {
        let (key, value) = guard.into_inner().map_err(failed)?;
        let entry = entry::decode(position_of(&key).unwrap_or(0), &value)
            .map_err(|error| StoreError::Damaged(error.to_string()))?;
        head.entries = head.entries.saturating_sub(entry.changes.len() as u64);
        head.bytes = head.bytes.saturating_sub(value.len() as u64);
        touched.extend(entry.changes.into_iter().map(|change| change.target));
        dropped.push(key.to_vec());
    }
    head.flushed = position;
    if head.entries > 0 {
        head.oldest_at_ms = oldest_at_ms(transaction, kind, partition, &head)?;
    }

    // Nothing fails from here on.
    dropped.into_iter().for_each(|key| transaction.delete(Space::Journal, key));
    let place = (state.kind(kind), partition);
    let invalid: HashSet<Id> = invalid.into_iter().collect();
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
            // Some of it SQL will never hold: let SQL have the rest first.
            head.floor = head.last;
        }
    }
    // What was dirty until now may have grown beyond the bound.
    state.make_room();
    transaction.put_head(kind, partition, &head);
    Ok(())
}

/// When the first entry above `flushed` was accepted.
fn oldest_at_ms(
    transaction: &Transaction<'_>,
    kind: &str,
    partition: Partition,
    head: &HeadRecord,
) -> Result<u64, StoreError> {
    let (spaces, snapshot) = transaction.committed();
    let range = journal_key(kind, partition, head.flushed.saturating_add(1))..=journal_key(kind, partition, head.last);
    let Some(guard) = snapshot.range(spaces.of(Space::Journal), range).next() else {
        return Ok(head.oldest_at_ms);
    };
    let (key, value) = guard.into_inner().map_err(failed)?;
    let first = entry::decode(position_of(&key).unwrap_or(0), &value)
        .map_err(|error| StoreError::Damaged(error.to_string()))?;
    Ok(first.changes.first().map_or(0, |change| change.at_ms))
}

/// What SQL has of a target's changes; `flushed` is how far SQL has got.
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
        if is_clean && target.expires_ms == 0 {
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

/// See [`crate::store::Store::reset`].
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
            head.last = 0;
        }
        head.floor = head.last;
        transaction.put_head(kind, partition, &head);
        let place = state.kind(kind);
        state.clear(place, partition);
    }
    Ok(head.public(partition))
}

/// See [`crate::store::Store::wipe_state`].
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

/// Where the sweeper is in the keyspace of expiries. Before it, nothing is left: not looking there again spares the
/// database the tombstones.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    from: Vec<u8>,
    /// Seen up to this time.
    swept_ms: u64,
}

impl Sweeper {
    /// Deletes some of what expired up to `now_ms`; whether there may be more.
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

/// Deletes what one expiry stands for.
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
