//! Waiting rooms on Redis: one script call for a batch of operations on a queue, one for a tick. All keys of a queue share a
//! hash tag.

use async_trait::async_trait;
use redis::{Cmd, Value};

use super::RedisStore;
use super::link::Nature;
use super::reply::{Reply, tagged_id, unexpected};
use crate::StoreError;
use crate::queues::{
    Opened, Opening, Queues, RoomBatch, RoomCommit, RoomEnd, RoomFigures, RoomOp, RoomResult, RoomTick, RoomTimes,
    RoomVerb, TICK_PEOPLE_MAX, Ticked,
};
use crate::text::tagged;
use weir_core::model::Id;

/// Most operations of one call: bounds how long one call occupies Redis.
const CALL_OPS_MAX: usize = 500;

/// A pause that is never reached, in milliseconds.
const PAUSE_MS_MAX: u64 = 1 << 50;
/// Most queues that one opening checks for an idle one.
const OPENING_QUEUES_MAX: usize = 16;

/// A seed in Redis.
fn hex(seed: &[u8; 32]) -> String {
    seed.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut seed = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in seed.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(seed)
}

fn push_op(command: &mut Cmd, op: &RoomOp) {
    let letter = match op.verb {
        RoomVerb::Join { .. } => "J",
        RoomVerb::Poll => "P",
        RoomVerb::Look => "L",
        RoomVerb::Leave => "G",
        RoomVerb::Complete => "C",
        RoomVerb::Extend { .. } => "E",
    };
    command.arg(letter).arg(tagged(&op.actor)).arg(op.number);
    let optional = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    match op.verb {
        RoomVerb::Join { lane, lottery_rank, through_ms } => {
            command.arg(lane).arg(optional(lottery_rank)).arg(optional(through_ms));
        }
        RoomVerb::Extend { ttl_ms, stay_ms_max } => {
            command.arg(optional(ttl_ms)).arg(stay_ms_max);
        }
        _ => {}
    }
}

fn figures(reply: &mut Reply) -> Result<RoomFigures, StoreError> {
    let mut numbers = reply.list()?;
    Ok(RoomFigures {
        waiting: numbers.number()?,
        active: numbers.number()?,
        joined: numbers.number()?,
        admitted: numbers.number()?,
        completed: numbers.number()?,
        expired: numbers.number()?,
        no_shows: numbers.number()?,
        abandoned: numbers.number()?,
        left: numbers.number()?,
    })
}

fn result(reply: &mut Reply) -> Result<RoomResult, StoreError> {
    let mut status = reply.list()?;
    Ok(match status.number()? {
        1 => RoomResult::Waiting {
            number: status.number()?,
            ahead: status.number()?,
            lane: u8::try_from(status.number()?).map_err(|_| unexpected("a lane"))?,
            joined_ms: status.number()?,
            is_new: status.number()? == 1,
        },
        2 => RoomResult::Active {
            number: status.number()?,
            until_ms: status.number()?,
            admitted_ms: status.number()?,
            is_new: status.number()? == 1,
        },
        4 => {
            let end = RoomEnd::of_code(status.number()?).ok_or_else(|| unexpected("a reason"))?;
            RoomResult::Ended { end, is_new: status.number()? == 1 }
        }
        5 => RoomResult::Unknown,
        6 => RoomResult::Full,
        _ => return Err(unexpected("the code of a result")),
    })
}

impl RedisStore {
    /// The first arguments of every script of a queue. `touches`: 'CH' when a person polls through this host, 'XX' when only its
    /// clock runs.
    fn room_arguments(&self, command: &mut Cmd, seed: &[u8; 32], times: &RoomTimes, touches: &str) {
        let told_ms = if self.is_time_told { times.now_ms.to_string() } else { String::new() };
        command.arg(hex(seed)).arg(format!("{} {told_ms}", times.at_ms)).arg(times.ended_ttl_ms.max(1));
        command.arg(times.pause_ms_max.min(PAUSE_MS_MAX)).arg(&times.owner).arg(touches);
    }

    /// The names of the queues of a kind, or of the people in a lottery.
    async fn room_names(&self, key: String, what: &str, (first, last): (i64, i64)) -> Result<Vec<Id>, StoreError> {
        let arguments = |command: &mut Cmd| {
            command.arg(what).arg(first).arg(last);
        };
        let value = self.link.run(&self.link.scripts.room_list, Nature::Reads, &[key], arguments).await?;
        let (mut reply, mut names) = (Reply::of(value)?, Vec::new());
        while !reply.is_empty() {
            names.push(tagged_id(&reply.bytes()?)?);
        }
        Ok(names)
    }

    /// Records that a queue is in use, and removes an idle one where there is no room. Returns whether there is room.
    async fn list_room(&self, kind: &str, queue: &Id, opening: Opening) -> Result<bool, StoreError> {
        let known = |command: &mut Cmd| {
            command.arg(tagged(queue)).arg(opening.now_ms).arg(opening.queues_max).arg(opening.idle_ms);
            command.arg(OPENING_QUEUES_MAX);
        };
        let script = &self.link.scripts.room_known;
        for _ in 0..2 {
            let named = match self.link.run(script, Nature::Writes, &[self.keys.queues(kind)], known).await? {
                Value::Int(1) => return Ok(true),
                named => named,
            };
            if !self.make_room(kind, Reply::of(named)?, opening).await? {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Removes the first empty queue of these. Returns whether there was one. Queues in use are not checked again for a while.
    async fn make_room(&self, kind: &str, mut named: Reply, opening: Opening) -> Result<bool, StoreError> {
        let scripts = &self.link.scripts;
        let since_ms = opening.now_ms.saturating_sub(opening.idle_ms);
        while !named.is_empty() {
            let queue = tagged(&tagged_id(&named.bytes()?)?);
            let forget = |command: &mut Cmd| {
                command.arg(since_ms);
            };
            let key = self.keys.queue(kind, &queue);
            let is_gone = self.link.run(&scripts.room_forget, Nature::Writes, &[key], forget).await? == Value::Int(1);
            let unlist = |command: &mut Cmd| {
                command.arg(&queue).arg(since_ms).arg(opening.now_ms).arg(u8::from(is_gone));
            };
            self.link.run(&scripts.room_unlist, Nature::Writes, &[self.keys.queues(kind)], unlist).await?;
            if is_gone {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn apply_some(
        &self,
        key: &str,
        batch: &RoomBatch,
        ops: &[RoomOp],
    ) -> Result<Option<(Vec<RoomResult>, RoomFigures)>, StoreError> {
        let arguments = |command: &mut Cmd| {
            self.room_arguments(command, &batch.seed, &batch.times, "CH");
            command.arg(batch.waiting_max).arg(batch.times.grace_ms);
            ops.iter().for_each(|op| push_op(command, op));
        };
        let scripts = &self.link.scripts;
        // A place is a promise: wait for replicas.
        let (script, nature) = match batch.joins() {
            true => (&scripts.room_join, Nature::Accepts),
            false => (&scripts.room_apply, Nature::Writes),
        };
        let value = self.link.run(script, nature, &[key.to_owned()], arguments).await?;
        let mut reply = Reply::of(value)?;
        if reply.number()? != 0 {
            return Ok(None);
        }
        let figures = figures(&mut reply)?;
        let results = ops.iter().map(|_| result(&mut reply)).collect::<Result<_, _>>()?;
        Ok(Some((results, figures)))
    }
}

#[async_trait]
impl Queues for RedisStore {
    async fn open_room(&self, kind: &str, queue: &Id, opening: Opening) -> Result<Opened, StoreError> {
        if !self.list_room(kind, queue, opening).await? {
            return Ok(Opened::Full);
        }
        let seed = |command: &mut Cmd| {
            command.arg(hex(&opening.seed)).arg(opening.now_ms);
        };
        let script = &self.link.scripts.room_open;
        let value = self.link.run(script, Nature::Writes, &[self.keys.queue(kind, &tagged(queue))], seed).await?;
        let text = Reply::of(Value::Array(vec![value]))?.text()?;
        unhex(&text).map(Opened::Open).ok_or_else(|| unexpected("a seed"))
    }

    async fn room_queues(&self, kind: &str) -> Result<Vec<Id>, StoreError> {
        self.room_names(self.keys.queues(kind), "z", (0, -1)).await
    }

    async fn apply_room(&self, kind: &str, queue: &Id, batch: RoomBatch) -> Result<RoomCommit, StoreError> {
        let key = self.keys.queue(kind, &tagged(queue));
        let (mut results, mut newest) = (Vec::with_capacity(batch.ops.len()), RoomFigures::default());
        // Without an operation this still fetches the figures.
        let none: &[RoomOp] = &[];
        let is_empty = batch.ops.is_empty();
        for ops in batch.ops.chunks(CALL_OPS_MAX).chain(is_empty.then_some(none)) {
            match self.apply_some(&key, &batch, ops).await? {
                None => return Ok(RoomCommit::OtherLife),
                Some((some, figures)) => {
                    results.extend(some);
                    newest = figures;
                }
            }
        }
        Ok(RoomCommit::Done(results, newest))
    }

    async fn tick_room(&self, kind: &str, queue: &Id, tick: RoomTick) -> Result<Ticked, StoreError> {
        let arguments = |command: &mut Cmd| {
            self.room_arguments(command, &tick.seed, &tick.times, "XX");
            command.arg(tick.lease_ms.max(1)).arg(tick.admit).arg(tick.capacity);
            command.arg(tick.active_ttl_ms).arg(tick.claim_ms).arg(tick.times.grace_ms).arg(TICK_PEOPLE_MAX);
        };
        let key = self.keys.queue(kind, &tagged(queue));
        let value = self.link.run(&self.link.scripts.room_tick, Nature::Writes, &[key], arguments).await?;
        let mut reply = Reply::of(value)?;
        match reply.number()? {
            0 => {
                let admitted = u32::try_from(reply.number()?).map_err(|_| unexpected("a number"))?;
                let is_more = reply.number()? == 1;
                Ok(Ticked::Done { admitted, is_more, figures: figures(&mut reply)? })
            }
            1 => Ok(Ticked::OtherLife),
            _ => Ok(Ticked::NotOurs),
        }
    }

    async fn part_room(&self, kind: &str, queue: &Id, owner: &str) -> Result<(), StoreError> {
        let key = self.keys.queue(kind, &tagged(queue));
        let host = |command: &mut Cmd| {
            command.arg(owner);
        };
        self.link.run(&self.link.scripts.room_part, Nature::Writes, &[key], host).await.map(drop)
    }

    async fn room_entrants(&self, kind: &str, queue: &Id, skip: u64, limit: usize) -> Result<Vec<Id>, StoreError> {
        let first = i64::try_from(skip).unwrap_or(i64::MAX);
        let last = first.saturating_add(i64::try_from(limit).unwrap_or(i64::MAX)).saturating_sub(1);
        if limit == 0 {
            return Ok(Vec::new());
        }
        self.room_names(self.keys.draw(kind, &tagged(queue)), "l", (first, last)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_read_back() {
        let seed: [u8; 32] = std::array::from_fn(|at| at as u8 * 7);
        assert_eq!(unhex(&hex(&seed)), Some(seed));
        assert_eq!(unhex("00"), None);
        assert_eq!(unhex(&"g".repeat(64)), None);
    }
}
