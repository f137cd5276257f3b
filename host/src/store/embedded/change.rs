//! Every other change of the store on a transaction: hydration, trimming, new lives, and the sweeping of what expired.

use std::collections::HashSet;

use fjall::{Readable, Slice};
use uuid::Uuid;

use super::apply::OutcomeRecord;
use super::guest;
use super::layout::{
    HeadRecord, Mode, Pair, Space, TargetRecord, View, damaged, expiry_key, failed, journal_key, member_key, number,
    order_key, position_of, target_key,
};
use super::transaction::Transaction;
use crate::journal::entry;
use crate::model::{Id, Incarnation, Partition, Position};
use crate::store::text::tagged;
use crate::store::{Head, Hydrated, Hydration, LoadedState, PairLoad, StoreError, TargetLoad};

/// Keys that one step of the sweeper looks at.
const SWEEP_KEYS: usize = 1_024;

/// Times to live, and what else changes need of the configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) state_ttl_ms: u64,
    pub(super) absent_ttl_ms: u64,
    pub(super) huge_pairs_max: u64,
}

/// See [`crate::store::Store::hydrate`].
pub(super) fn hydrate(
    transaction: &mut Transaction<'_>,
    terms: &Terms,
    kind: &str,
    hydration: &Hydration,
) -> Result<Hydrated, StoreError> {
    let head = transaction.head_or_fresh(kind, hydration.partition)?;
    let speaks = hydration.incarnation == head.incarnation && hydration.position >= head.flushed.max(head.floor);
    if !speaks {
        return Ok(Hydrated::Stale(head.public(hydration.partition)));
    }
    for load in &hydration.targets {
        hydrate_target(
            transaction,
            terms,
            &head,
            &target_key(kind, hydration.partition, &load.target),
            load,
            hydration,
        )?;
    }
    for load in &hydration.pairs {
        hydrate_pair(transaction, &head, &target_key(kind, hydration.partition, &load.target), load, hydration.now_ms)?;
    }
    Ok(Hydrated::Accepted)
}

fn hydrate_target(
    transaction: &mut Transaction<'_>,
    terms: &Terms,
    head: &HeadRecord,
    key: &[u8],
    load: &TargetLoad,
    hydration: &Hydration,
) -> Result<(), StoreError> {
    if let Some(before) = transaction.target(key)? {
        if before.is_known(head, hydration.now_ms) {
            return Ok(());
        }
        drop_target(transaction, key, &before, hydration.now_ms);
    }
    let (mode, count, ttl_ms) = match &load.state {
        LoadedState::Missing => (Mode::Missing, 0, terms.absent_ttl_ms),
        LoadedState::Whole(_) => (Mode::Whole, 0, terms.state_ttl_ms),
        LoadedState::Huge(count) => (Mode::Huge, *count, terms.state_ttl_ms),
    };
    let mut target = TargetRecord::clean(mode, head, count, hydration.now_ms.saturating_add(ttl_ms));
    if let LoadedState::Whole(members) = &load.state {
        let mut seen = HashSet::with_capacity(members.len());
        for (actor, since_ms) in members {
            let actor = tagged(actor);
            if seen.insert(actor.clone()) {
                transaction.put(Space::Members, order_key(&target.generation, *since_ms, &actor), b"");
                let pair_key = member_key(&target.generation, b'p', &actor);
                transaction.put(Space::Members, pair_key, &since_ms.to_le_bytes());
            }
        }
        target.count = seen.len() as u64;
    }
    transaction.put(Space::Expiry, expiry_key(target.expires_ms, b't', key), b"");
    transaction.put_target(key, &target);
    Ok(())
}

fn hydrate_pair(
    transaction: &mut Transaction<'_>,
    head: &HeadRecord,
    key: &[u8],
    load: &PairLoad,
    now_ms: u64,
) -> Result<(), StoreError> {
    let Some(mut target) = transaction.target(key)?.filter(|target| target.is_known(head, now_ms)) else {
        return Ok(());
    };
    let actor = tagged(&load.actor);
    if target.mode != Mode::Huge || transaction.pair(&target, &actor)? != Pair::Unknown {
        return Ok(());
    }
    let pair_key = member_key(&target.generation, b'p', &actor);
    match load.present_since_ms {
        Some(since_ms) => transaction.put(Space::Members, pair_key, &since_ms.to_le_bytes()),
        None => transaction.put(Space::Members, pair_key, b""),
    }
    target.pairs += 1;
    transaction.put_target(key, &target);
    Ok(())
}

/// Forgets a target; its members are left to the sweeper.
fn drop_target(transaction: &mut Transaction<'_>, key: &[u8], target: &TargetRecord, now_ms: u64) {
    if target.expires_ms != 0 {
        transaction.delete(Space::Expiry, expiry_key(target.expires_ms, b't', key));
    }
    transaction.delete(Space::Targets, key.to_vec());
    abandon(transaction, target, now_ms);
}

/// Leaves a generation of members to the sweeper.
fn abandon(transaction: &mut Transaction<'_>, target: &TargetRecord, now_ms: u64) {
    if target.mode != Mode::Missing {
        // After `now`, so that a sweep that has passed `now` meets it.
        let key = expiry_key(now_ms.saturating_add(1), b'g', target.generation.as_bytes());
        transaction.put(Space::Expiry, key, b"");
    }
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
    terms: &Terms,
    kind: &str,
    trim: &Trim,
    now_ms: u64,
) -> Result<(), StoreError> {
    let Some(mut head) = transaction.head(kind, trim.partition)? else { return Ok(()) };
    let applies = head.incarnation == trim.incarnation && head.flushed <= trim.position && trim.position <= head.last;
    if !applies {
        return Ok(());
    }
    // The entries say themselves whom they touched: a caller that lost some targets does not keep them for ever.
    let mut touched: HashSet<Vec<u8>> =
        trim.touched.iter().map(|target| target_key(kind, trim.partition, target)).collect();
    let (spaces, snapshot) = transaction.committed();
    let after_key = |position: Position| journal_key(kind, trim.partition, position.saturating_add(1));
    for guard in snapshot.range(spaces.of(Space::Journal), after_key(head.flushed)..after_key(trim.position)) {
        let (key, value) = guard.into_inner().map_err(failed)?;
        let dropped = entry::decode(position_of(&key).unwrap_or(0), &value)
            .map_err(|error| StoreError::Damaged(error.to_string()))?;
        head.entries = head.entries.saturating_sub(dropped.changes.len() as u64);
        head.bytes = head.bytes.saturating_sub(value.len() as u64);
        touched.extend(dropped.changes.iter().map(|change| target_key(kind, trim.partition, &change.target)));
        transaction.delete(Space::Journal, key.to_vec());
    }
    head.flushed = trim.position;
    if head.entries > 0 {
        head.oldest_at_ms = oldest_at_ms(transaction, kind, trim.partition, &head)?;
    }
    transaction.put_head(kind, trim.partition, &head);
    let invalid: HashSet<Vec<u8>> =
        trim.invalid.iter().map(|target| target_key(kind, trim.partition, target)).collect();
    for key in touched.union(&invalid) {
        clean_target(transaction, terms, &head, key, invalid.contains(key), now_ms)?;
    }
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

fn clean_target(
    transaction: &mut Transaction<'_>,
    terms: &Terms,
    head: &HeadRecord,
    key: &[u8],
    invalid: bool,
    now_ms: u64,
) -> Result<(), StoreError> {
    let Some(mut target) = transaction.target(key)? else { return Ok(()) };
    let before = target;
    target.invalid |= invalid;
    let is_clean = target.last <= head.flushed;
    if is_clean && (target.invalid || target.life != head.life) {
        drop_target(transaction, key, &target, now_ms);
        return Ok(());
    }
    if is_clean && target.mode == Mode::Huge {
        if target.pairs > terms.huge_pairs_max {
            abandon(transaction, &target, now_ms);
            (target.generation, target.pairs) = (Uuid::now_v7(), 0);
        } else {
            forget_dirty_pairs(transaction, &target, head.flushed)?;
        }
    } else if target.mode == Mode::Huge {
        forget_dirty_pairs(transaction, &target, head.flushed)?;
    }
    if is_clean && target.expires_ms == 0 {
        target.expires_ms = now_ms.saturating_add(terms.state_ttl_ms);
        transaction.put(Space::Expiry, expiry_key(target.expires_ms, b't', key), b"");
    }
    if target != before {
        transaction.put_target(key, &target);
    }
    Ok(())
}

/// Pairs of a huge target whose newest change SQL holds are no longer laid over SQL.
fn forget_dirty_pairs(
    transaction: &mut Transaction<'_>,
    target: &TargetRecord,
    flushed: Position,
) -> Result<(), StoreError> {
    let (spaces, snapshot) = transaction.committed();
    for guard in snapshot.prefix(spaces.of(Space::Members), member_key(&target.generation, b'd', "")) {
        let key = guard.key().map_err(failed)?;
        // Through the transaction: a job of this group may have made the pair dirty again.
        let Some(position) = transaction.get(Space::Members, &key)? else { continue };
        if number(&position).ok_or_else(|| damaged("a changed pair"))? <= flushed {
            transaction.delete(Space::Members, key.to_vec());
        }
    }
    Ok(())
}

/// See [`crate::store::Store::reset`].
pub(super) fn reset(
    transaction: &mut Transaction<'_>,
    kind: &str,
    partition: Partition,
    than: Incarnation,
) -> Result<Head, StoreError> {
    let mut head = transaction.head_or_fresh(kind, partition)?;
    if head.incarnation <= than {
        head.incarnation = Incarnation::after(than);
        head.life = Uuid::now_v7();
        head.flushed = 0;
        if head.entries == 0 {
            // An empty journal has nothing that SQL must hold first.
            head.last = 0;
        }
        head.floor = head.last;
        transaction.put_head(kind, partition, &head);
    }
    Ok(head.public(partition))
}

/// See [`crate::store::Store::wipe_state`].
pub(super) fn wipe_state(
    transaction: &mut Transaction<'_>,
    kind: &str,
    partitions: Partition,
) -> Result<(), StoreError> {
    for partition in 0..partitions {
        if let Some(mut head) = transaction.head(kind, partition)? {
            head.life = Uuid::now_v7();
            head.floor = head.last;
            transaction.put_head(kind, partition, &head);
        }
    }
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
        let mut left = SWEEP_KEYS;
        for guard in snapshot.range(spaces.of(Space::Expiry), self.from.clone()..until.clone()) {
            let key = guard.key().map_err(failed)?;
            self.from = key.to_vec();
            left = left.saturating_sub(1);
            if !sweep_one(transaction, &key, &mut left, now_ms)? || left == 0 {
                return Ok(true);
            }
        }
        self.from = until;
        self.swept_ms = now_ms;
        Ok(false)
    }
}

/// Deletes what one expiry stands for; whether all of it is gone.
fn sweep_one(
    transaction: &mut Transaction<'_>,
    key: &Slice,
    left: &mut usize,
    now_ms: u64,
) -> Result<bool, StoreError> {
    let Some((at, [what, rest @ ..])) = key.split_first_chunk::<8>() else { return Err(damaged("an expiry")) };
    let at_ms = u64::from_be_bytes(*at);
    match what {
        b't' => {
            if let Some(target) = transaction.target(rest)?.filter(|target| target.expires_ms == at_ms) {
                drop_target(transaction, rest, &target, now_ms);
            }
        }
        b'o' => {
            let record = transaction.get(Space::Outcomes, rest)?;
            if record.is_some_and(|bytes| OutcomeRecord::decode(&bytes).is_none_or(|record| record.expires_ms == at_ms))
            {
                transaction.delete(Space::Outcomes, rest.to_vec());
            }
        }
        b'm' => guest::sweep(transaction, rest, at_ms)?,
        _ => {
            let (spaces, snapshot) = transaction.committed();
            for guard in snapshot.prefix(spaces.of(Space::Members), rest) {
                if *left == 0 {
                    return Ok(false);
                }
                *left -= 1;
                transaction.delete(Space::Members, guard.key().map_err(failed)?.to_vec());
            }
        }
    }
    transaction.delete(Space::Expiry, key.to_vec());
    Ok(true)
}
