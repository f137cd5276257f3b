//! A batch of toggles as the script takes it, and its answers: grouped by partition and target, so that the script reads
//! each target once; rules named by number, because few are distinct.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;

use redis::Cmd;

use super::keys;
use super::reply::{Reply, unexpected};
use crate::journal::entry::encode_pair;
use crate::model::{Effect, Id, PairState, Partition, Position, RateState, ToggleRule, partition_of};
use crate::store::{Head, StoreError, ToggleBatch, ToggleOp, ToggleOutcome, ToggleResult, limit};

/// The operations on one target, by their index in the batch, in order.
struct Target<'a> {
    partition: Partition,
    id: &'a Id,
    ops: Vec<usize>,
}

/// How a batch is sent.
pub(super) struct Plan<'a> {
    batch: &'a ToggleBatch,
    /// By partition, and then as they occur first.
    targets: Vec<Target<'a>>,
    rules: Vec<ToggleRule>,
    /// Index into `rules` of each operation of the batch.
    rule_of: Vec<u16>,
    /// The script evaluates in the order of the batch, not of sending.
    is_reordered: bool,
}

impl<'a> Plan<'a> {
    /// Different targets are independent, so that they may be evaluated one after the other; but operations that share an
    /// idempotency key are evaluated in their order.
    pub(super) fn new(batch: &'a ToggleBatch, partitions: Partition) -> Self {
        let (mut targets, mut place): (Vec<Target<'a>>, HashMap<&Id, usize>) = (Vec::new(), HashMap::new());
        let (mut rules, mut numbers, mut rule_of) = (Vec::new(), HashMap::new(), Vec::with_capacity(batch.ops.len()));
        for (index, op) in batch.ops.iter().enumerate() {
            let target = *place.entry(&op.target).or_insert_with(|| {
                let partition = partition_of(&op.target, partitions);
                targets.push(Target { partition, id: &op.target, ops: Vec::new() });
                targets.len() - 1
            });
            targets[target].ops.push(index);
            // Nearly always the rule before it.
            let number = match rules.last() {
                Some(last) if *last == op.rule => rules.len() - 1,
                _ => *numbers.entry(op.rule).or_insert_with(|| {
                    rules.push(op.rule);
                    rules.len() - 1
                }),
            };
            // A batch has far fewer operations than this can count.
            rule_of.push(u16::try_from(number).unwrap_or(u16::MAX));
        }
        targets.sort_by_key(|target| target.partition);
        Self { batch, targets, rules, rule_of, is_reordered: has_shared_key(&batch.ops) }
    }

    /// The partitions in ascending order, each once.
    pub(super) fn partitions(&self) -> Vec<Partition> {
        let mut partitions: Vec<Partition> = self.targets.iter().map(|target| target.partition).collect();
        partitions.dedup();
        partitions
    }

    /// Everything from the order of evaluation on: see `toggle.lua`.
    pub(super) fn arguments(&self, command: &mut Cmd, kind: &str, partitions: Partition) {
        // Numbers of the operations as sent, from 1.
        let sent: Vec<usize> = self.targets.iter().flat_map(|target| target.ops.iter().copied()).collect();
        let mut number_of = vec![0; sent.len()];
        for (number, &index) in sent.iter().enumerate() {
            number_of[index] = number + 1;
        }
        let order: Vec<String> = match self.is_reordered {
            true => number_of.iter().map(usize::to_string).collect(),
            false => Vec::new(),
        };
        command.arg(order.join(" ")).arg(self.rules.len());
        for rule in &self.rules {
            let (interval_us, burst) = rule.limit.map_or((0, 0), |rate| (limit::interval_us(rate), rate.burst.max(1)));
            command.arg(&[letter(rule.when_absent), letter(rule.when_present)][..]).arg(interval_us).arg(burst);
        }
        let keyed =
            || self.batch.ops.iter().enumerate().filter_map(|(index, op)| Some((index, op.idempotency.as_ref()?)));
        command.arg(keyed().count());
        for (index, idempotency) in keyed() {
            let name = keys::outcome(kind, &idempotency.key, partitions);
            command.arg(number_of[index]).arg([&idempotency.fingerprint[..], name.as_bytes()].concat());
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
        command.arg(&buffer);
        // A batch has far fewer operations than this can count.
        let size = |target: &Target<'_>| u16::try_from(target.ops.len()).unwrap_or(u16::MAX).to_be_bytes();
        command.arg(targets.iter().flat_map(size).collect::<Vec<u8>>());
        let rules =
            targets.iter().flat_map(|target| &target.ops).flat_map(|&index| (self.rule_of[index] + 1).to_be_bytes());
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

    /// The results in the order of the batch.
    pub(super) fn results(&self, reply: &mut Reply, heads: &[Head]) -> Result<Vec<ToggleResult>, StoreError> {
        let (letters, mut counts, mut extra) = (reply.bytes()?, reply.list()?, reply.list()?);
        if letters.len() != self.batch.ops.len() {
            return Err(unexpected("a letter for each operation"));
        }
        let position_of: HashMap<Partition, Position> = heads.iter().map(|head| (head.partition, head.last)).collect();
        // Everything comes in the order of sending.
        let mut sent = Vec::with_capacity(letters.len());
        for target in &self.targets {
            let entry = position_of.get(&target.partition).copied().unwrap_or(0);
            for &index in &target.ops {
                let letter = letters.get(sent.len()).copied().unwrap_or_default();
                let is_limited = self.batch.ops[index].rule.limit.is_some();
                sent.push(Sent { index, letter, count: counts.number()?, entry, is_limited });
            }
        }
        let mut results: Vec<Option<ToggleResult>> = vec![None; letters.len()];
        while !extra.is_empty() {
            let number = usize::try_from(extra.number()?).unwrap_or_default();
            let of = sent.get(number.wrapping_sub(1)).ok_or_else(|| unexpected("the number of an operation"))?;
            results[of.index] = Some(of.result(&mut extra)?);
        }
        for of in sent {
            if results[of.index].is_none() {
                results[of.index] = Some(of.result(&mut extra)?);
            }
        }
        results.into_iter().collect::<Option<_>>().ok_or_else(|| unexpected("a result for each operation"))
    }
}

fn has_shared_key(ops: &[ToggleOp]) -> bool {
    let mut seen = HashSet::new();
    ops.iter().filter_map(|op| op.idempotency.as_ref()).any(|idempotency| !seen.insert(idempotency.key))
}

fn letter(effect: Effect) -> u8 {
    match effect {
        Effect::Add => b'a',
        Effect::Remove => b'r',
        Effect::Keep => b'k',
        Effect::Deny => b'd',
    }
}

fn write_id(to: &mut Vec<u8>, id: &Id) {
    // Writing into a `Vec` cannot fail.
    let _ = write!(to, "{id}");
}

/// As [`crate::store::text::tagged`].
fn write_tagged(to: &mut Vec<u8>, id: &Id) {
    to.push(match id {
        Id::Int(_) => b'i',
        Id::Uuid(_) => b'u',
        Id::Text(_) => b't',
    });
    write_id(to, id);
}

/// What came back for one operation.
struct Sent {
    /// Of the operation in the batch.
    index: usize,
    letter: u8,
    count: u64,
    /// The place of the partition's new entry.
    entry: Position,
    is_limited: bool,
}

impl Sent {
    /// `extra` is at what belongs to this operation, if anything does.
    fn result(&self, extra: &mut Reply) -> Result<ToggleResult, StoreError> {
        let active = matches!(self.letter, b'+' | b'p' | b'D');
        let state = PairState { active, count: self.count };
        match self.letter {
            b'+' | b'-' | b'p' | b'a' => {
                let changed = matches!(self.letter, b'+' | b'-');
                let position = if changed { self.entry } else { extra.number()? };
                let rate = if self.is_limited { Some(rate(extra)?) } else { None };
                Ok(ToggleResult::Done(ToggleOutcome { state, changed, position, rate, replayed: false }))
            }
            b'D' | b'd' => Ok(ToggleResult::Denied(state)),
            b'l' => {
                let retry_after_ms = extra.number()?;
                Ok(ToggleResult::Limited {
                    retry_after_ms,
                    rate: RateState { remaining: 0, reset_ms: extra.number()? },
                })
            }
            b'm' => Ok(ToggleResult::TargetMissing),
            b'c' => Ok(ToggleResult::ColdTarget),
            b'u' => Ok(ToggleResult::ColdPair),
            b'x' => Ok(ToggleResult::IdempotencyConflict),
            b'r' => {
                let (code, active, count) = (extra.number()?, extra.number()? != 0, extra.number()?);
                let (changed, position) = (extra.number()? != 0, extra.number()?);
                let (remaining, reset_ms) = (extra.signed()?, extra.number()?);
                let state = PairState { active, count };
                let rate = u32::try_from(remaining).ok().map(|remaining| RateState { remaining, reset_ms });
                Ok(match code {
                    1 => ToggleResult::Denied(state),
                    _ => ToggleResult::Done(ToggleOutcome { state, changed, position, rate, replayed: true }),
                })
            }
            _ => Err(unexpected("the letter of a result")),
        }
    }
}

fn rate(numbers: &mut Reply) -> Result<RateState, StoreError> {
    let remaining = u32::try_from(numbers.number()?).map_err(|_| unexpected("a number"))?;
    Ok(RateState { remaining, reset_ms: numbers.number()? })
}
