//! A batch of toggles: evaluates each rule in order, changes the state, appends the entries.
//!
//! What may fail (the disk) is read before anything is changed: a batch has its whole effect or none.

use std::collections::{BTreeMap, HashMap};

use super::layout::{HeadRecord, Space, View, damaged, expiry_key, journal_key, outcome_key};
use super::state::{Mode, Pair, State, Target};
use super::transaction::Transaction;
use crate::journal::entry;
use crate::model::{Action, Effect, Id, PairState, Partition, Position, RateState, partition_of};
use crate::store::limit::{self, Verdict};
use crate::store::{Idempotency, StoreError, ToggleBatch, ToggleCommit, ToggleOp, ToggleOutcome, ToggleResult};

/// Rate limits in memory at most; beyond, those that are whole again are forgotten, and then all.
const LIMITS_MAX: usize = 1_000_000;

/// Greatest position that a time can lead to, however wrong the clock: leaves room to count on.
const POSITION_OF_TIME_MAX: Position = 1 << 62;

/// Rate limits: in memory only. A restart forgives; nothing that was promised depends on them.
#[derive(Default)]
pub(super) struct Limits {
    /// By index of the kind, target and actor.
    tats_us: HashMap<(usize, Id, Id), u64>,
    sweep_at: usize,
}

impl Limits {
    fn set(&mut self, key: (usize, Id, Id), tat_us: u64, now_us: u64) {
        if self.tats_us.len() >= self.sweep_at.max(1_024) {
            self.tats_us.retain(|_, tat_us| *tat_us > now_us);
            if self.tats_us.len() >= LIMITS_MAX {
                tracing::warn!(limits = self.tats_us.len(), "too many rate limits in memory: all are forgotten");
                self.tats_us.clear();
            }
            self.sweep_at = (self.tats_us.len() * 2).min(LIMITS_MAX);
        }
        self.tats_us.insert(key, tat_us);
    }

    /// `Err` when the operation is over its limit. What is denied does not count.
    fn check(
        &mut self,
        (kind, now_ms): (usize, u64),
        op: &ToggleOp,
        effect: Effect,
    ) -> Result<Option<RateState>, ToggleResult> {
        let Some(limit) = op.rule.limit else { return Ok(None) };
        let now_us = now_ms.saturating_mul(1_000);
        let key = (kind, op.target.clone(), op.actor.clone());
        match limit::check(limit, now_us, self.tats_us.get(&key).copied().unwrap_or(0)) {
            Verdict::Limited { retry_after_ms, rate } => Err(ToggleResult::Limited { retry_after_ms, rate }),
            Verdict::Pass { tat_us, rate } => {
                if effect != Effect::Deny {
                    self.set(key, tat_us, now_us);
                }
                Ok(Some(rate))
            }
        }
    }
}

/// What a batch gathers in one partition.
struct Work {
    head: HeadRecord,
    /// The place of the entry, if there will be one.
    position: Position,
    /// The entry, packed; empty as long as nothing changed.
    entry: Vec<u8>,
    changes: u64,
}

struct Apply<'a> {
    state: &'a mut State,
    limits: &'a mut Limits,
    kind: usize,
    batch: &'a ToggleBatch,
    work: BTreeMap<Partition, Work>,
    /// First outcomes of the batch's idempotency keys, as far as there are any.
    outcomes: HashMap<[u8; 16], OutcomeRecord>,
    /// When outcomes of this batch are forgotten.
    outcomes_expire_ms: u64,
}

/// Applies `batch`. See [`crate::store::Store::toggle`].
pub(super) fn toggle(
    transaction: &mut Transaction<'_>,
    state: &mut State,
    limits: &mut Limits,
    (partitions, idempotency_ttl_ms): (Partition, u64),
    kind: &str,
    batch: &ToggleBatch,
) -> Result<ToggleCommit, StoreError> {
    let now_ms = batch.now_ms;
    let places: Vec<Partition> = batch.ops.iter().map(|op| partition_of(&op.target, partitions)).collect();
    let mut work = BTreeMap::new();
    for partition in &places {
        if !work.contains_key(partition) {
            work.insert(*partition, enter(transaction, kind, *partition, now_ms)?);
        }
    }
    let outcomes = first_outcomes(transaction, kind, batch)?;

    // Nothing fails from here on.
    let outcomes_expire_ms = now_ms.saturating_add(idempotency_ttl_ms);
    let place = state.kind(kind);
    let mut apply = Apply { state, limits, kind: place, batch, work, outcomes, outcomes_expire_ms };
    let mut results = Vec::with_capacity(batch.ops.len());
    for (op, partition) in batch.ops.iter().zip(places) {
        let result = apply.one(op, partition);
        if let Some(idempotency) = &op.idempotency {
            apply.remember(transaction, kind, idempotency, &result);
        }
        results.push(result);
    }
    let mut heads = Vec::with_capacity(apply.work.len());
    for (partition, Work { mut head, position, entry, changes }) in apply.work {
        if changes > 0 {
            head.oldest_at_ms = if head.entries == 0 { now_ms } else { head.oldest_at_ms };
            head.entries += changes;
            head.bytes += entry.len() as u64;
            head.last = position;
            transaction.put(Space::Journal, journal_key(kind, partition, position), &entry);
            transaction.put_head(kind, partition, &head);
        }
        heads.push(head.public(partition));
    }
    Ok(ToggleCommit { results, heads })
}

/// The head of a partition, and the place that an entry of this batch would get there.
fn enter(transaction: &mut Transaction<'_>, kind: &str, partition: Partition, now_ms: u64) -> Result<Work, StoreError> {
    let head = transaction.head_or_fresh(kind, partition)?;
    // Times make positions that are not met again by a journal that was restored from an old copy.
    let position = head.last.saturating_add(1).max(now_ms.saturating_mul(1_000).min(POSITION_OF_TIME_MAX));
    Ok(Work { head, position, entry: Vec::new(), changes: 0 })
}

/// What the idempotency keys of the batch were answered before.
fn first_outcomes(
    transaction: &Transaction<'_>,
    kind: &str,
    batch: &ToggleBatch,
) -> Result<HashMap<[u8; 16], OutcomeRecord>, StoreError> {
    let mut outcomes = HashMap::new();
    for idempotency in batch.ops.iter().filter_map(|op| op.idempotency.as_ref()) {
        let Some(bytes) = transaction.get(Space::Outcomes, &outcome_key(kind, &idempotency.key))? else { continue };
        let record = OutcomeRecord::decode(&bytes).ok_or_else(|| damaged("an outcome"))?;
        if batch.now_ms < record.expires_ms {
            outcomes.insert(idempotency.key, record);
        }
    }
    Ok(outcomes)
}

impl Apply<'_> {
    fn one(&mut self, op: &ToggleOp, partition: Partition) -> ToggleResult {
        if let Some(idempotency) = &op.idempotency
            && let Some(first) = self.outcomes.get(&idempotency.key)
        {
            let is_same = first.fingerprint == idempotency.fingerprint;
            return if is_same { first.result.clone() } else { ToggleResult::IdempotencyConflict };
        }
        let Some(work) = self.work.get_mut(&partition) else { return ToggleResult::ColdTarget };
        let (limits, batch, kind, group) = (&mut *self.limits, self.batch, self.kind, self.state.group);
        let evaluated = self
            .state
            .with((kind, partition), &op.target, |target| evaluate(target, op, work, (limits, kind), (batch, group)));
        evaluated.unwrap_or(ToggleResult::ColdTarget)
    }

    fn remember(
        &mut self,
        transaction: &mut Transaction<'_>,
        kind: &str,
        idempotency: &Idempotency,
        result: &ToggleResult,
    ) {
        let is_outcome = match result {
            ToggleResult::Done(outcome) => !outcome.replayed,
            ToggleResult::Denied(_) => true,
            _ => false,
        };
        if !is_outcome || self.outcomes.contains_key(&idempotency.key) {
            return;
        }
        let key = outcome_key(kind, &idempotency.key);
        let expires_ms = self.outcomes_expire_ms;
        let record = OutcomeRecord { fingerprint: idempotency.fingerprint, expires_ms, result: replayed(result) };
        transaction.put(Space::Expiry, expiry_key(expires_ms, b'o', &key), b"");
        transaction.put(Space::Outcomes, key, &record.encode());
        self.outcomes.insert(idempotency.key, record);
    }
}

/// One operation on its target.
fn evaluate(
    target: &mut Target,
    op: &ToggleOp,
    work: &mut Work,
    (limits, kind): (&mut Limits, usize),
    (batch, group): (&ToggleBatch, u64),
) -> ToggleResult {
    let now_ms = batch.now_ms;
    if !target.is_known(now_ms) {
        return ToggleResult::ColdTarget;
    }
    if target.mode == Mode::Missing {
        return ToggleResult::TargetMissing;
    }
    let active = match target.pair(&op.actor) {
        Pair::Unknown => return ToggleResult::ColdPair,
        Pair::Absent => false,
        Pair::Present(_) => true,
    };
    let effect = if active { op.rule.when_present } else { op.rule.when_absent };
    let rate = match limits.check((kind, now_ms), op, effect) {
        Ok(rate) => rate,
        Err(limited) => return limited,
    };
    let action = match effect {
        Effect::Deny => return ToggleResult::Denied(PairState { active, count: target.count }),
        Effect::Add if !active => Action::Add,
        Effect::Remove if active => Action::Remove,
        _ => {
            let position = if target.last > work.head.flushed { target.last } else { 0 };
            return done(active, false, target.count, position, rate);
        }
    };
    let present = action == Action::Add;
    target.set(&op.actor, if present { Pair::Present(now_ms) } else { Pair::Absent });
    target.count = if present { target.count + 1 } else { target.count.saturating_sub(1) };
    target.touch(&op.actor, work.position);
    target.group = group;
    if work.entry.is_empty() {
        entry::encode_head(&mut work.entry, &batch.digest, now_ms);
    }
    entry::encode_record(&mut work.entry, action, &op.target, &op.actor);
    work.changes += 1;
    done(present, true, target.count, work.position, rate)
}

/// The result as it is answered to the same request again.
fn replayed(result: &ToggleResult) -> ToggleResult {
    match result {
        ToggleResult::Done(outcome) => ToggleResult::Done(ToggleOutcome { replayed: true, ..*outcome }),
        other => other.clone(),
    }
}

fn done(active: bool, changed: bool, count: u64, position: Position, rate: Option<RateState>) -> ToggleResult {
    ToggleResult::Done(ToggleOutcome { state: PairState { active, count }, changed, position, rate, replayed: false })
}

/// The first outcome under an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OutcomeRecord {
    fingerprint: [u8; 16],
    pub(super) expires_ms: u64,
    result: ToggleResult,
}

impl OutcomeRecord {
    fn encode(&self) -> Vec<u8> {
        let (denied, outcome) = match &self.result {
            ToggleResult::Denied(state) => {
                (true, ToggleOutcome { state: *state, changed: false, position: 0, rate: None, replayed: true })
            }
            ToggleResult::Done(outcome) => (false, *outcome),
            // Nothing else is remembered: it would be evaluated anew.
            _ => return Vec::new(),
        };
        let mut out = Vec::with_capacity(60);
        out.extend_from_slice(&self.fingerprint);
        out.extend_from_slice(&self.expires_ms.to_le_bytes());
        let flags = [denied, outcome.state.active, outcome.changed, outcome.rate.is_some()];
        out.extend(flags.map(u8::from));
        let (remaining, reset_ms) = outcome.rate.map_or((0, 0), |rate| (u64::from(rate.remaining), rate.reset_ms));
        for value in [outcome.state.count, outcome.position, remaining, reset_ms] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out
    }

    /// The outcome as it is answered again.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (fingerprint, rest) = bytes.split_first_chunk::<16>()?;
        let (expires_ms, rest) = rest.split_first_chunk::<8>()?;
        let ([denied, active, changed, limited], rest) = rest.split_first_chunk::<4>()?;
        let rest: &[u8; 32] = rest.try_into().ok()?;
        let value = |index: usize| {
            rest.get(index * 8..).and_then(<[u8]>::first_chunk::<8>).map(|bytes| u64::from_le_bytes(*bytes))
        };
        let state = PairState { active: *active != 0, count: value(0)? };
        let rate = RateState { remaining: u32::try_from(value(2)?).ok()?, reset_ms: value(3)? };
        let result = if *denied != 0 {
            ToggleResult::Denied(state)
        } else {
            ToggleResult::Done(ToggleOutcome {
                state,
                changed: *changed != 0,
                position: value(1)?,
                rate: (*limited != 0).then_some(rate),
                replayed: true,
            })
        };
        Some(Self { fingerprint: *fingerprint, expires_ms: u64::from_le_bytes(*expires_ms), result })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_read_back() {
        let state = PairState { active: true, count: 3 };
        let rate = Some(RateState { remaining: 2, reset_ms: 9 });
        for result in [
            ToggleResult::Denied(state),
            ToggleResult::Done(ToggleOutcome { state, changed: true, position: 7, rate, replayed: true }),
            ToggleResult::Done(ToggleOutcome { state, changed: false, position: 0, rate: None, replayed: true }),
        ] {
            let record = OutcomeRecord { fingerprint: [4; 16], expires_ms: 8, result };
            assert_eq!(OutcomeRecord::decode(&record.encode()), Some(record.clone()));
            assert_eq!(OutcomeRecord::decode(&record.encode()[1..]), None);
        }
    }
}
