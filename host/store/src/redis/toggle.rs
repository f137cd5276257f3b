//! A batch of toggles as the script takes it, and its replies: grouped by partition and target, so that the script reads each
//! target once; rules are numbered, because few are distinct.

use redis::Cmd;

use super::RedisStore;
use super::batch::{Envelope, Rules, Sent, Target, by_target, sent_by_target, size, write_id, write_tagged};
use super::reply::{Outcome, Reply, unexpected};
use crate::{Commit, StoreError, ToggleBatch, ToggleOp, ToggleOutcome, ToggleResult, limit};
use weir_core::journal::entry::encode_pair;
use weir_core::model::{Effect, PairState, ToggleRule, partition_of};

/// How a batch is sent.
struct Plan<'a> {
    batch: &'a ToggleBatch,
    /// By partition, then in the order of first occurrence.
    targets: Vec<Target<'a>>,
    rules: Rules<ToggleRule>,
}

impl RedisStore {
    /// See [`crate::State::toggle`].
    pub(super) async fn apply_toggles(
        &self,
        kind: &str,
        batch: &ToggleBatch,
    ) -> Result<Commit<ToggleResult>, StoreError> {
        let step = |ops: Vec<ToggleOp>| {
            let batch = ToggleBatch { digest: batch.digest, at_ms: batch.at_ms, now_ms: batch.now_ms, ops };
            async move { self.toggle_step(kind, &batch).await }
        };
        match self.steps(&batch.ops, |op| partition_of(&op.target, self.partitions)) {
            Some(steps) => self.in_steps(&batch.ops, steps, step).await,
            None => self.toggle_step(kind, batch).await,
        }
    }

    async fn toggle_step(&self, kind: &str, batch: &ToggleBatch) -> Result<Commit<ToggleResult>, StoreError> {
        let plan = Plan {
            batch,
            targets: by_target(batch.ops.iter().map(|op| &op.target), self.partitions),
            rules: Rules::new(batch.ops.iter().map(|op| op.rule)),
        };
        let envelope = Envelope {
            digest: &batch.digest,
            at_ms: batch.at_ms,
            now_ms: batch.now_ms,
            sent: sent_by_target(&plan.targets),
            keys: batch.ops.iter().map(|op| op.idempotency.as_ref()).collect(),
        };
        let arguments = |command: &mut Cmd| plan.arguments(command);
        let one = |sent: &Sent, extra: &mut Reply| result(sent, batch.ops[sent.index].rule.limit.is_some(), extra);
        self.batch_call(&self.link.scripts.toggle, kind, &envelope, arguments, one).await
    }
}

impl Plan<'_> {
    /// See `toggle.lua`.
    fn arguments(&self, command: &mut Cmd) {
        command.arg(self.rules.distinct.len());
        for rule in &self.rules.distinct {
            let (interval_us, burst) = rule.limit.map_or((0, 0), |rate| (limit::interval_us(rate), rate.burst.max(1)));
            command.arg(&[letter(rule.when_absent), letter(rule.when_present)][..]).arg(interval_us).arg(burst);
        }
        for targets in self.targets.chunk_by(|a, b| a.partition == b.partition) {
            self.partition_arguments(command, targets);
        }
    }

    fn partition_arguments(&self, command: &mut Cmd, targets: &[Target<'_>]) {
        let mut buffer = Vec::with_capacity(32 * targets.len());
        for &index in targets.iter().flat_map(|target| &target.ops) {
            encode_pair(&mut buffer, &self.batch.ops[index].target, &self.batch.ops[index].actor);
        }
        command.arg(&buffer).arg(targets.iter().flat_map(size).collect::<Vec<u8>>());
        let rules =
            targets.iter().flat_map(|target| &target.ops).flat_map(|&index| (self.rules.of[index] + 1).to_be_bytes());
        command.arg(rules.collect::<Vec<u8>>());
        for target in targets {
            buffer.clear();
            write_id(&mut buffer, target.id);
            command.arg(&buffer);
            for &index in &target.ops {
                buffer.clear();
                write_tagged(&mut buffer, &self.batch.ops[index].actor);
                command.arg(&buffer);
            }
        }
    }
}

fn letter(effect: Effect) -> u8 {
    match effect {
        Effect::Add => b'a',
        Effect::Remove => b'r',
        Effect::Keep => b'k',
        Effect::Deny => b'd',
    }
}

/// Decodes the letter of an operation. `extra` is at its extra numbers, if it has some.
fn result(sent: &Sent, is_limited: bool, extra: &mut Reply) -> Result<ToggleResult, StoreError> {
    let Sent { letter, count, entry, .. } = *sent;
    let state = PairState { active: matches!(letter, b'+' | b'p' | b'D'), count };
    match letter {
        b'+' | b'-' | b'p' | b'a' => {
            let changed = matches!(letter, b'+' | b'-');
            let position = if changed { entry } else { extra.number()? };
            let rate = if is_limited { Some(extra.rate()?) } else { None };
            Ok(ToggleResult::Done(ToggleOutcome { state, changed, position, rate, replayed: false }))
        }
        b'D' | b'd' => Ok(ToggleResult::Denied(state)),
        b'l' => {
            let (retry_after_ms, rate) = extra.limited()?;
            Ok(ToggleResult::Limited { retry_after_ms, rate })
        }
        b'm' => Ok(ToggleResult::TargetMissing),
        b'c' => Ok(ToggleResult::TargetNotLoaded),
        b'u' => Ok(ToggleResult::PairNotLoaded),
        b'x' => Ok(ToggleResult::IdempotencyConflict),
        b'r' => {
            let Outcome { denied, active, count, changed, position, rate } = extra.outcome()?;
            let state = PairState { active, count };
            Ok(match denied {
                true => ToggleResult::Denied(state),
                false => ToggleResult::Done(ToggleOutcome { state, changed, position, rate, replayed: true }),
            })
        }
        _ => Err(unexpected("the letter of a result")),
    }
}
