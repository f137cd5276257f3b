//! A batch of toggles: evaluates each rule in order, changes the state, appends the entries.

use super::batch::{self, Work, Works};
use super::limits::{Limited, Limits};
use super::outcome::{Before, Outcome, Outcomes};
use super::state::State;
use super::target::{Mode, Pair, Target};
use super::transaction::Transaction;
use crate::{Commit, StoreError, ToggleBatch, ToggleOp, ToggleOutcome, ToggleResult};
use weir_core::journal::entry;
use weir_core::model::{Action, Effect, PairState, Partition, Position, RateState, partition_of};

struct Apply<'a> {
    state: &'a mut State,
    limits: &'a mut Limits,
    kind: usize,
    batch: &'a ToggleBatch,
    works: Works,
    outcomes: Outcomes,
}

/// Applies `batch`. See [`crate::State::toggle`].
pub(super) fn toggle(
    transaction: &mut Transaction<'_>,
    state: &mut State,
    limits: &mut Limits,
    (partitions, idempotency_ttl_ms): (Partition, u64),
    kind: &str,
    batch: &ToggleBatch,
) -> Result<Commit<ToggleResult>, StoreError> {
    let now_ms = batch.now_ms;
    let places: Vec<Partition> = batch.ops.iter().map(|op| partition_of(&op.target, partitions)).collect();
    let works = batch::enter(transaction, kind, places.iter().copied(), now_ms)?;
    let keys = batch.ops.iter().filter_map(|op| op.idempotency.as_ref());
    let outcomes = Outcomes::read(transaction, kind, (now_ms, idempotency_ttl_ms), keys)?;

    // Nothing fails from here on.
    let place = state.kind(kind);
    let mut apply = Apply { state, limits, kind: place, batch, works, outcomes };
    let mut results = Vec::with_capacity(batch.ops.len());
    for (op, partition) in batch.ops.iter().zip(places) {
        let result = apply.one(op, partition);
        if let Some(idempotency) = &op.idempotency
            && let Some(outcome) = remembered(&result)
        {
            apply.outcomes.remember(transaction, kind, idempotency, outcome);
        }
        results.push(result);
    }
    let Apply { state, works, .. } = apply;
    Ok(Commit { results, heads: batch::leave(transaction, state, kind, works, batch.at_ms) })
}

impl Apply<'_> {
    fn one(&mut self, op: &ToggleOp, partition: Partition) -> ToggleResult {
        match self.outcomes.before(op.idempotency.as_ref()) {
            Before::New => {}
            Before::Again(first) => return replayed(first),
            Before::Conflict => return ToggleResult::IdempotencyConflict,
        }
        let Some(work) = self.works.get_mut(&partition) else { return ToggleResult::TargetNotLoaded };
        let (limits, batch, kind, group) = (&mut *self.limits, self.batch, self.kind, self.state.group);
        let evaluated = self
            .state
            .with((kind, partition), &op.target, |target| evaluate(target, op, work, (limits, kind), (batch, group)));
        evaluated.unwrap_or(ToggleResult::TargetNotLoaded)
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
        return ToggleResult::TargetNotLoaded;
    }
    match target.mode {
        Mode::Missing => return ToggleResult::TargetMissing,
        Mode::Whole | Mode::Huge => {}
        Mode::Count | Mode::Exists | Mode::Settings => return ToggleResult::TargetNotLoaded,
    }
    let active = match target.pair(&op.actor) {
        Pair::Unknown => return ToggleResult::PairNotLoaded,
        Pair::Absent => false,
        Pair::Present(_) => true,
    };
    let effect = if active { op.rule.when_present } else { op.rule.when_absent };
    // A denied operation does not count.
    let counts = effect != Effect::Deny;
    let rate = match limits.check((kind, now_ms), (&op.target, &op.actor), op.rule.limit, counts) {
        Ok(rate) => rate,
        Err(Limited { retry_after_ms, rate }) => return ToggleResult::Limited { retry_after_ms, rate },
    };
    let action = match effect {
        Effect::Deny => return ToggleResult::Denied(PairState { active, count: target.count }),
        Effect::Add if !active => Action::Add,
        Effect::Remove if active => Action::Remove,
        _ => return done(active, false, target.count, target.position(work.head.flushed), rate),
    };
    let present = action == Action::Add;
    target.set(&op.actor, if present { Pair::Present(batch.at_ms) } else { Pair::Absent });
    target.count = if present { target.count + 1 } else { target.count.saturating_sub(1) };
    target.touch(work.position, group);
    target.touch_pair(&op.actor, work.position);
    entry::encode_record(work.record(&batch.digest, batch.at_ms, 1), action, &op.target, &op.actor);
    done(present, true, target.count, work.position, rate)
}

/// The part of a result that an idempotency key remembers; `None` where a repetition is evaluated again.
fn remembered(result: &ToggleResult) -> Option<Outcome> {
    let outcome = |state: &PairState| Outcome {
        denied: false,
        active: state.active,
        changed: false,
        number: state.count,
        position: 0,
        rate: None,
    };
    match result {
        ToggleResult::Denied(state) => Some(Outcome { denied: true, ..outcome(state) }),
        ToggleResult::Done(ToggleOutcome { state, changed, position, rate, replayed: false }) => {
            Some(Outcome { changed: *changed, position: *position, rate: *rate, ..outcome(state) })
        }
        _ => None,
    }
}

/// The result of a repetition.
fn replayed(first: Outcome) -> ToggleResult {
    let Outcome { denied, active, changed, number, position, rate } = first;
    let state = PairState { active, count: number };
    if denied {
        ToggleResult::Denied(state)
    } else {
        ToggleResult::Done(ToggleOutcome { state, changed, position, rate, replayed: true })
    }
}

fn done(active: bool, changed: bool, count: u64, position: Position, rate: Option<RateState>) -> ToggleResult {
    ToggleResult::Done(ToggleOutcome { state: PairState { active, count }, changed, position, rate, replayed: false })
}
