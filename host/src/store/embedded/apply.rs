//! A batch of toggles on a transaction: evaluates each rule in order, changes the state, appends the entries.

use std::collections::{BTreeMap, HashMap};

use super::layout::{
    HeadRecord, Mode, Pair, Space, TargetRecord, View, damaged, expiry_key, journal_key, member_key, order_key,
    outcome_key, target_key,
};
use super::transaction::Transaction;
use crate::journal::entry;
use crate::model::{Action, Effect, PairState, Partition, Position, RateState, ToggleChange, partition_of};
use crate::store::limit::{self, Verdict};
use crate::store::text::tagged;
use crate::store::{Idempotency, StoreError, ToggleBatch, ToggleCommit, ToggleOp, ToggleOutcome, ToggleResult};

/// Rate limits in memory at most; beyond, those that are whole again are forgotten, and then all.
const LIMITS_MAX: usize = 1_000_000;

/// Greatest position that a time can lead to, however wrong the clock: leaves room to count on.
const POSITION_OF_TIME_MAX: Position = 1 << 62;

/// Rate limits: in memory only. A restart forgives; nothing that was promised depends on them.
#[derive(Default)]
pub(super) struct Limits {
    tats_us: HashMap<Vec<u8>, u64>,
    sweep_at: usize,
}

impl Limits {
    fn set(&mut self, key: Vec<u8>, tat_us: u64, now_us: u64) {
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
}

/// What a batch gathers in one partition.
struct Work {
    head: HeadRecord,
    /// The place of the entry, if there will be one.
    position: Position,
    changes: Vec<ToggleChange>,
}

struct Apply<'a, 'b> {
    transaction: &'a mut Transaction<'b>,
    limits: &'a mut Limits,
    kind: &'a str,
    now_ms: u64,
    idempotency_ttl_ms: u64,
    work: BTreeMap<Partition, Work>,
}

/// Applies `batch`. See [`crate::store::Store::toggle`].
pub(super) fn toggle(
    transaction: &mut Transaction<'_>,
    limits: &mut Limits,
    (partitions, idempotency_ttl_ms): (Partition, u64),
    kind: &str,
    batch: &ToggleBatch,
) -> Result<ToggleCommit, StoreError> {
    let now_ms = batch.now_ms;
    let mut apply = Apply { transaction, limits, kind, now_ms, idempotency_ttl_ms, work: BTreeMap::new() };
    let mut results = Vec::with_capacity(batch.ops.len());
    for op in &batch.ops {
        results.push(apply.one(op, partition_of(&op.target, partitions))?);
    }
    let Apply { transaction, work, .. } = apply;
    let mut heads = Vec::with_capacity(work.len());
    for (partition, Work { mut head, position, changes }) in work {
        if !changes.is_empty() {
            let bytes = entry::encode(&batch.digest, now_ms, &changes);
            head.oldest_at_ms = if head.entries == 0 { now_ms } else { head.oldest_at_ms };
            head.entries += changes.len() as u64;
            head.bytes += bytes.len() as u64;
            head.last = position;
            transaction.put(Space::Journal, journal_key(kind, partition, position), &bytes);
            transaction.put_head(kind, partition, &head);
        }
        heads.push(head.public(partition));
    }
    Ok(ToggleCommit { results, heads })
}

impl Apply<'_, '_> {
    fn one(&mut self, op: &ToggleOp, partition: Partition) -> Result<ToggleResult, StoreError> {
        let (head, position) = self.enter(partition)?;
        if let Some(idempotency) = &op.idempotency
            && let Some(first) = self.first_outcome(idempotency)?
        {
            return Ok(first);
        }
        let key = target_key(self.kind, partition, &op.target);
        let Some(mut target) = self.transaction.target(&key)?.filter(|target| target.is_known(&head, self.now_ms))
        else {
            return Ok(ToggleResult::ColdTarget);
        };
        if target.mode == Mode::Missing {
            return Ok(ToggleResult::TargetMissing);
        }
        let actor = tagged(&op.actor);
        let pair = self.transaction.pair(&target, &actor)?;
        let active = match pair {
            Pair::Unknown => return Ok(ToggleResult::ColdPair),
            Pair::Absent => false,
            Pair::Present(_) => true,
        };
        let effect = if active { op.rule.when_present } else { op.rule.when_absent };
        let rate = match self.limit(op, &key, &actor, effect) {
            Ok(rate) => rate,
            Err(limited) => return Ok(limited),
        };
        let result = match (effect, pair) {
            (Effect::Deny, _) => ToggleResult::Denied(PairState { active, count: target.count }),
            (Effect::Add, Pair::Absent) => {
                self.change(partition, op, Action::Add, &key, &mut target, pair);
                done(true, true, target.count, position, rate)
            }
            (Effect::Remove, Pair::Present(_)) => {
                self.change(partition, op, Action::Remove, &key, &mut target, pair);
                done(false, true, target.count, position, rate)
            }
            _ => done(active, false, target.count, if target.last > head.flushed { target.last } else { 0 }, rate),
        };
        if let Some(idempotency) = &op.idempotency {
            self.remember(idempotency, &result);
        }
        Ok(result)
    }

    /// The head of the partition, and the place that an entry of this batch would get there.
    fn enter(&mut self, partition: Partition) -> Result<(HeadRecord, Position), StoreError> {
        if let Some(work) = self.work.get(&partition) {
            return Ok((work.head, work.position));
        }
        let head = self.transaction.head_or_fresh(self.kind, partition)?;
        // Times make positions that are not met again by a journal that was restored from an old copy.
        let position = head.last.saturating_add(1).max(self.now_ms.saturating_mul(1_000).min(POSITION_OF_TIME_MAX));
        self.work.insert(partition, Work { head, position, changes: Vec::new() });
        Ok((head, position))
    }

    /// `Err` when the operation is over its limit. What is denied does not count.
    fn limit(
        &mut self,
        op: &ToggleOp,
        target_key: &[u8],
        actor: &str,
        effect: Effect,
    ) -> Result<Option<RateState>, ToggleResult> {
        let Some(limit) = op.rule.limit else { return Ok(None) };
        let now_us = self.now_ms.saturating_mul(1_000);
        let key = [target_key, &[0], actor.as_bytes()].concat();
        match limit::check(limit, now_us, self.limits.tats_us.get(&key).copied().unwrap_or(0)) {
            Verdict::Limited { retry_after_ms, rate } => Err(ToggleResult::Limited { retry_after_ms, rate }),
            Verdict::Pass { tat_us, rate } => {
                if effect != Effect::Deny {
                    self.limits.set(key, tat_us, now_us);
                }
                Ok(Some(rate))
            }
        }
    }

    fn change(
        &mut self,
        partition: Partition,
        op: &ToggleOp,
        action: Action,
        key: &[u8],
        target: &mut TargetRecord,
        pair: Pair,
    ) {
        let Some(work) = self.work.get_mut(&partition) else { return };
        let actor = tagged(&op.actor);
        let pair_key = member_key(&target.generation, b'p', &actor);
        let whole = target.mode == Mode::Whole;
        match action {
            Action::Add => {
                target.count += 1;
                self.transaction.put(Space::Members, pair_key, &self.now_ms.to_le_bytes());
                if whole {
                    self.transaction.put(Space::Members, order_key(&target.generation, self.now_ms, &actor), b"");
                }
            }
            Action::Remove if whole => {
                target.count = target.count.saturating_sub(1);
                self.transaction.delete(Space::Members, pair_key);
                if let Pair::Present(since_ms) = pair {
                    self.transaction.delete(Space::Members, order_key(&target.generation, since_ms, &actor));
                }
            }
            Action::Remove => {
                target.count = target.count.saturating_sub(1);
                self.transaction.put(Space::Members, pair_key, b"");
            }
        }
        if !whole {
            let dirty_key = member_key(&target.generation, b'd', &actor);
            self.transaction.put(Space::Members, dirty_key, &work.position.to_le_bytes());
        }
        if target.expires_ms != 0 {
            self.transaction.delete(Space::Expiry, expiry_key(target.expires_ms, b't', key));
            target.expires_ms = 0;
        }
        target.last = work.position;
        self.transaction.put_target(key, target);
        work.changes.push(ToggleChange {
            target: op.target.clone(),
            actor: op.actor.clone(),
            action,
            at_ms: self.now_ms,
        });
    }

    /// What the key was answered before, or a conflict; `None` when the key is new.
    fn first_outcome(&self, idempotency: &Idempotency) -> Result<Option<ToggleResult>, StoreError> {
        let Some(bytes) = self.transaction.get(Space::Outcomes, &outcome_key(self.kind, &idempotency.key))? else {
            return Ok(None);
        };
        let record = OutcomeRecord::decode(&bytes).ok_or_else(|| damaged("an outcome"))?;
        if self.now_ms >= record.expires_ms {
            return Ok(None);
        }
        Ok(Some(if record.fingerprint == idempotency.fingerprint {
            record.result
        } else {
            ToggleResult::IdempotencyConflict
        }))
    }

    fn remember(&mut self, idempotency: &Idempotency, result: &ToggleResult) {
        let key = outcome_key(self.kind, &idempotency.key);
        let expires_ms = self.now_ms.saturating_add(self.idempotency_ttl_ms);
        let record = OutcomeRecord { fingerprint: idempotency.fingerprint, expires_ms, result: result.clone() };
        self.transaction.put(Space::Expiry, expiry_key(expires_ms, b'o', &key), b"");
        self.transaction.put(Space::Outcomes, key, &record.encode());
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
