//! A batch of changes of members' settings: changes the state in order, appends the entries.

use super::batch::{self, Works};
use super::outcome::{Before, Outcome, Outcomes};
use super::state::State;
use super::target::{Mode, Target};
use super::transaction::Transaction;
use crate::{Commit, SettingsBatch, SettingsOp, SettingsOutcome, SettingsResult, StoreError};
use weir_core::journal::entry;
use weir_core::model::{Partition, Position, partition_of};

struct Apply<'a> {
    state: &'a mut State,
    kind: usize,
    batch: &'a SettingsBatch,
    works: Works,
    outcomes: Outcomes,
}

/// Applies `batch`. See [`crate::State::put_settings`].
pub(super) fn put(
    transaction: &mut Transaction<'_>,
    state: &mut State,
    (partitions, idempotency_ttl_ms): (Partition, u64),
    kind: &str,
    batch: &SettingsBatch,
) -> Result<Commit<SettingsResult>, StoreError> {
    let now_ms = batch.now_ms;
    let places: Vec<Partition> = batch.ops.iter().map(|op| partition_of(&op.member, partitions)).collect();
    let works = batch::enter(transaction, kind, places.iter().copied(), now_ms)?;
    let keys = batch.ops.iter().filter_map(|op| op.idempotency.as_ref());
    let outcomes = Outcomes::read(transaction, kind, (now_ms, idempotency_ttl_ms), keys)?;

    // Nothing fails from here on.
    let place = state.kind(kind);
    let mut apply = Apply { state, kind: place, batch, works, outcomes };
    let mut results = Vec::with_capacity(batch.ops.len());
    for (op, partition) in batch.ops.iter().zip(places) {
        let result = apply.one(op, partition);
        if let (Some(idempotency), SettingsResult::Done(SettingsOutcome { position, replayed: false })) =
            (&op.idempotency, &result)
        {
            apply.outcomes.remember(transaction, kind, idempotency, remembered(*position));
        }
        results.push(result);
    }
    let Apply { state, works, .. } = apply;
    Ok(Commit { results, heads: batch::leave(transaction, state, kind, works, batch.at_ms) })
}

impl Apply<'_> {
    fn one(&mut self, op: &SettingsOp, partition: Partition) -> SettingsResult {
        match self.outcomes.before(op.idempotency.as_ref()) {
            Before::New => {}
            Before::Again(first) => return done(first.position, true),
            Before::Conflict => return SettingsResult::IdempotencyConflict,
        }
        let Some(work) = self.works.get_mut(&partition) else { return SettingsResult::TargetNotLoaded };
        let (now_ms, group, position) = (self.batch.now_ms, self.state.group, work.position);
        let change = |target: &mut Target| {
            if !target.is_known(now_ms) {
                return SettingsResult::TargetNotLoaded;
            }
            match target.mode {
                Mode::Missing => return SettingsResult::TargetMissing,
                Mode::Settings => {}
                Mode::Whole | Mode::Huge | Mode::Count | Mode::Exists => return SettingsResult::TargetNotLoaded,
            }
            target.settings = op.settings.over(&target.settings);
            target.touch(position, group);
            done(position, false)
        };
        let result =
            self.state.with((self.kind, partition), &op.member, change).unwrap_or(SettingsResult::TargetNotLoaded);
        if matches!(result, SettingsResult::Done(_)) {
            let entry = work.record(&self.batch.digest, self.batch.at_ms, 1);
            entry.push(entry::SETTINGS);
            entry::encode_settings(entry, &op.member, &op.settings);
        }
        result
    }
}

/// The part of a change that an idempotency key remembers.
fn remembered(position: Position) -> Outcome {
    Outcome { denied: false, active: false, changed: true, number: 0, position, rate: None }
}

fn done(position: Position, replayed: bool) -> SettingsResult {
    SettingsResult::Done(SettingsOutcome { position, replayed })
}
