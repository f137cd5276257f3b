//! A batch of hits on counters as the script takes it, and its replies, grouped as toggles are. The host computes the place of a
//! pair in the table of windows; the script reads it.

use redis::Cmd;

use super::RedisStore;
use super::batch::{Envelope, Rules, Sent, Target, by_target, sent_by_target, size, write_id, write_tagged};
use super::reply::{Outcome, Reply, unexpected};
use crate::unique::{self, Mark};
use crate::{Commit, CountBatch, CountOp, CountOutcome, CountResult, StoreError, limit};
use weir_core::journal::entry::encode_count;
use weir_core::model::{RateLimit, partition_of};

/// The part of an operation's rule that the script needs: without an actor neither limit nor window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Rule {
    limit: Option<RateLimit>,
    /// Of the window, in milliseconds.
    unique_ms: u32,
}

impl Rule {
    fn of(op: &CountOp) -> Self {
        let limit = op.actor.as_ref().and(op.rule.limit);
        Self { limit, unique_ms: op.window().map_or(0, |(_, unique_ms)| unique_ms) }
    }
}

/// How a batch is sent.
struct Plan<'a> {
    batch: &'a CountBatch,
    /// By partition, then in the order of first occurrence.
    targets: Vec<Target<'a>>,
    rules: Rules<Rule>,
    /// Size of a partition's table of windows.
    buckets: u32,
}

impl RedisStore {
    /// See [`crate::State::count`].
    pub(super) async fn apply_counts(&self, kind: &str, batch: &CountBatch) -> Result<Commit<CountResult>, StoreError> {
        let step = |ops: Vec<CountOp>| {
            let CountBatch { digest, at_ms, now_ms, keep_actors, unique_pairs_max, .. } = *batch;
            let batch = CountBatch { digest, at_ms, now_ms, keep_actors, unique_pairs_max, ops };
            async move { self.count_step(kind, &batch).await }
        };
        match self.steps(&batch.ops, |op| partition_of(&op.target, self.partitions)) {
            Some(steps) => self.in_steps(&batch.ops, steps, step).await,
            None => self.count_step(kind, batch).await,
        }
    }

    async fn count_step(&self, kind: &str, batch: &CountBatch) -> Result<Commit<CountResult>, StoreError> {
        let plan = Plan {
            batch,
            targets: by_target(batch.ops.iter().map(|op| &op.target), self.partitions),
            rules: Rules::new(batch.ops.iter().map(Rule::of)),
            buckets: unique::buckets(batch.unique_pairs_max, self.partitions),
        };
        let envelope = Envelope {
            digest: &batch.digest,
            at_ms: batch.at_ms,
            now_ms: batch.now_ms,
            sent: sent_by_target(&plan.targets),
            keys: batch.ops.iter().map(|op| op.idempotency.as_ref()).collect(),
        };
        let arguments = |command: &mut Cmd| plan.arguments(command);
        let one =
            |sent: &Sent, extra: &mut Reply| result(sent, Rule::of(&batch.ops[sent.index]).limit.is_some(), extra);
        self.batch_call(&self.link.scripts.count, kind, &envelope, arguments, one).await
    }
}

impl Plan<'_> {
    /// See `count.lua`.
    fn arguments(&self, command: &mut Cmd) {
        command.arg(self.buckets).arg(u8::from(self.batch.keep_actors)).arg(self.rules.distinct.len());
        for rule in &self.rules.distinct {
            let (interval_us, burst) = rule.limit.map_or((0, 0), |rate| (limit::interval_us(rate), rate.burst.max(1)));
            command.arg(interval_us).arg(burst).arg(rule.unique_ms);
        }
        for targets in self.targets.chunk_by(|a, b| a.partition == b.partition) {
            self.partition_arguments(command, targets);
        }
    }

    fn partition_arguments(&self, command: &mut Cmd, targets: &[Target<'_>]) {
        command.arg(targets.iter().flat_map(size).collect::<Vec<u8>>());
        let ops = || targets.iter().flat_map(|target| &target.ops).copied();
        command.arg(ops().flat_map(|index| self.operation(index)).collect::<Vec<u8>>());
        let mut buffer = Vec::with_capacity(32 * targets.len());
        if self.batch.keep_actors {
            for op in ops().map(|index| &self.batch.ops[index]) {
                encode_count(&mut buffer, &op.target, op.actor.as_ref(), op.added());
            }
            command.arg(&buffer);
        }
        for target in targets {
            buffer.clear();
            write_id(&mut buffer, target.id);
            command.arg(&buffer);
            if !self.batch.keep_actors {
                buffer.clear();
                encode_count(&mut buffer, target.id, None, 0);
                // The script appends the sum.
                buffer.truncate(buffer.len() - size_of::<u64>());
                command.arg(&buffer);
            }
            for op in target.ops.iter().map(|&index| &self.batch.ops[index]) {
                if let (Some(actor), Some(_)) = (&op.actor, op.rule.limit) {
                    buffer.clear();
                    write_tagged(&mut buffer, actor);
                    command.arg(&buffer);
                }
            }
        }
    }

    /// Number of the rule, the amount, the place of the pair and its fingerprint.
    fn operation(&self, index: usize) -> [u8; 18] {
        let op = &self.batch.ops[index];
        let mark = op.window().map(|(actor, _)| unique::mark(&op.target, actor, self.buckets));
        let Mark { bucket, fingerprint } = mark.unwrap_or(Mark { bucket: 0, fingerprint: [0; 4] });
        let mut bytes = [0; 18];
        bytes[..2].copy_from_slice(&(self.rules.of[index] + 1).to_le_bytes());
        // Exact as long as it counts: beyond 2^53 it overflows.
        bytes[2..10].copy_from_slice(&(op.added() as f64).to_le_bytes());
        bytes[10..14].copy_from_slice(&bucket.to_le_bytes());
        bytes[14..].copy_from_slice(&fingerprint);
        bytes
    }
}

/// Decodes the letter of an operation. `extra` is at its extra numbers, if it has some.
fn result(sent: &Sent, is_limited: bool, extra: &mut Reply) -> Result<CountResult, StoreError> {
    let Sent { letter, count, entry, .. } = *sent;
    match letter {
        b'+' | b'0' => {
            let counted = letter == b'+';
            let position = if counted { entry } else { extra.number()? };
            let rate = if is_limited { Some(extra.rate()?) } else { None };
            Ok(CountResult::Done(CountOutcome { count, counted, position, rate, replayed: false }))
        }
        b'l' => {
            let (retry_after_ms, rate) = extra.limited()?;
            Ok(CountResult::Limited { retry_after_ms, rate })
        }
        b'm' => Ok(CountResult::TargetMissing),
        b'c' => Ok(CountResult::TargetNotLoaded),
        b'o' => Ok(CountResult::Overflow),
        b'x' => Ok(CountResult::IdempotencyConflict),
        b'r' => {
            let Outcome { count, changed, position, rate, .. } = extra.outcome()?;
            Ok(CountResult::Done(CountOutcome { count, counted: changed, position, rate, replayed: true }))
        }
        _ => Err(unexpected("the letter of a result")),
    }
}
