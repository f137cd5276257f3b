//! Decodes the replies of scripts. An unexpected reply is damage, never a panic.

use std::collections::VecDeque;

use redis::Value;

use crate::text::untagged;
use crate::{Head, PendingDocument, ReadResult, StoreError};
use weir_core::journal::entry::{self, EntryHead};
use weir_core::journal::{Entry, Link};
use weir_core::model::{Backlog, Digest, Id, Incarnation, PairState, Partition, Position, RateState};

/// Values of an array, taken in order.
pub(super) struct Reply(VecDeque<Value>);

/// The reply does not come from the scripts of this version.
pub(super) fn unexpected(what: &str) -> StoreError {
    StoreError::Damaged(format!("Redis replied something else than {what}"))
}

impl Reply {
    pub(super) fn of(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(values) => Ok(Self(values.into())),
            _ => Err(unexpected("a list")),
        }
    }

    /// The next value, of any type.
    pub(super) fn next(&mut self) -> Value {
        self.0.pop_front().unwrap_or(Value::Nil)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn list(&mut self) -> Result<Self, StoreError> {
        Self::of(self.0.pop_front().unwrap_or(Value::Nil))
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        match self.0.pop_front() {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            _ => Err(unexpected("a string")),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        String::from_utf8(self.bytes()?).map_err(|_| unexpected("a text"))
    }

    pub(super) fn signed(&mut self) -> Result<i64, StoreError> {
        match self.0.pop_front() {
            Some(Value::Int(number)) => Ok(number),
            Some(Value::BulkString(bytes)) => {
                let text = std::str::from_utf8(&bytes).ok();
                text.and_then(|text| text.parse().ok()).ok_or_else(|| unexpected("a number"))
            }
            _ => Err(unexpected("a number")),
        }
    }

    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        u64::try_from(self.signed()?).map_err(|_| unexpected("a number"))
    }

    fn flag(&mut self) -> Result<bool, StoreError> {
        Ok(self.number()? != 0)
    }

    /// A head.
    pub(super) fn head(&mut self, partition: Partition) -> Result<Head, StoreError> {
        let mut fields = self.list()?;
        let incarnation = fields.text()?.parse().map(Incarnation).map_err(|_| unexpected("an incarnation"))?;
        let (last, flushed, floor) = (fields.number()?, fields.number()?, fields.number()?);
        let (entries, bytes, oldest, targets) =
            (fields.number()?, fields.number()?, fields.number()?, fields.number()?);
        let backlog = Backlog { targets, entries, bytes, oldest_at_ms: (entries > 0).then_some(oldest) };
        Ok(Head { partition, incarnation, last, flushed, floor, backlog })
    }

    /// A head, where there is one.
    pub(super) fn head_if_any(&mut self, partition: Partition) -> Result<Option<Head>, StoreError> {
        if matches!(self.0.front(), Some(Value::Nil)) {
            self.0.pop_front();
            return Ok(None);
        }
        self.head(partition).map(Some)
    }

    /// Actors and since when, without the target's field ''.
    pub(super) fn members(&mut self) -> Result<Vec<(Id, u64)>, StoreError> {
        let (mut listed, mut members) = (self.list()?, Vec::new());
        while !listed.is_empty() {
            match listed.bytes()?.as_slice() {
                b"" => drop(listed.bytes()?),
                field => members.push((tagged_id(field)?, listed.number()?)),
            }
        }
        Ok(members)
    }

    pub(super) fn actors(&mut self) -> Result<Vec<Id>, StoreError> {
        let (mut listed, mut actors) = (self.list()?, Vec::new());
        while !listed.is_empty() {
            actors.push(tagged_id(&listed.bytes()?)?);
        }
        Ok(actors)
    }

    /// The rest of a rate limit.
    pub(super) fn rate(&mut self) -> Result<RateState, StoreError> {
        let remaining = u32::try_from(self.number()?).map_err(|_| unexpected("a number"))?;
        Ok(RateState { remaining, reset_ms: self.number()? })
    }

    /// Over a rate limit: milliseconds to wait, and the rest of the limit.
    pub(super) fn limited(&mut self) -> Result<(u64, RateState), StoreError> {
        let retry_after_ms = self.number()?;
        Ok((retry_after_ms, RateState { remaining: 0, reset_ms: self.number()? }))
    }

    /// The outcome of an earlier operation with the same idempotency key.
    pub(super) fn outcome(&mut self) -> Result<Outcome, StoreError> {
        let (code, active, count) = (self.number()?, self.flag()?, self.number()?);
        let (changed, position) = (self.flag()?, self.number()?);
        let (remaining, reset_ms) = (self.signed()?, self.number()?);
        let rate = u32::try_from(remaining).ok().map(|remaining| RateState { remaining, reset_ms });
        Ok(Outcome { denied: code == 1, active, count, changed, position, rate })
    }

    /// A waiting document in `partition`; `None` where there is none.
    pub(super) fn document(&mut self, partition: Partition) -> Result<Option<PendingDocument>, StoreError> {
        let mut fields = match self.next() {
            Value::Nil => return Ok(None),
            fields => Self::of(fields)?,
        };
        let (id, actor) = (tagged_id(&fields.bytes()?)?, tagged_id(&fields.bytes()?)?);
        let (body, at_ms, position) = (fields.text()?.into(), fields.number()?, fields.number()?);
        Ok(Some(PendingDocument { id, actor, body, at_ms, partition, position }))
    }

    pub(super) fn read_result(&mut self) -> Result<ReadResult, StoreError> {
        let (code, active, count) = (self.number()?, self.flag()?, self.number()?);
        Ok(match code {
            0 => ReadResult::Known(PairState { active, count }),
            3 => ReadResult::TargetMissing,
            4 => ReadResult::TargetNotLoaded,
            5 => ReadResult::PairNotLoaded,
            _ => return Err(unexpected("the code of a result")),
        })
    }

    pub(super) fn entry(&mut self) -> Result<Entry, StoreError> {
        let id = self.text()?;
        let position = id.strip_suffix("-0").and_then(|text| text.parse().ok()).ok_or_else(|| unexpected("an id"))?;
        let (letters, records) = (self.bytes()?, self.bytes()?);
        let digest = Digest(self.bytes()?.try_into().map_err(|_| unexpected("a digest"))?);
        let Numbers { at_ms, total, link } =
            Numbers::of(&self.bytes()?).ok_or_else(|| unexpected("an entry's numbers"))?;
        let head = EntryHead { digest, at_ms, link: Link::default() };
        let mut entry = entry::decode_records(position, head, &letters, &records)
            .map_err(|error| StoreError::Damaged(error.to_string()))?;
        let before = total.checked_sub(entry.changes.len() as u64).ok_or_else(|| unexpected("an entry's numbers"))?;
        let (previous, amount) = link.unzip();
        entry.link = Link { previous, before: Some(before), amount };
        Ok(entry)
    }
}

/// The field `n` of an entry.
struct Numbers {
    at_ms: u64,
    /// Changes ever appended, up to it.
    total: u64,
    /// The entry before it, and the sum of all changes before it. Not in the previous format.
    link: Option<(u64, u64)>,
}

impl Numbers {
    fn of(field: &[u8]) -> Option<Self> {
        let number = |index: usize| {
            let number = f64::from_le_bytes(field.get(index * 8..index * 8 + 8)?.try_into().ok()?);
            // Written from whole numbers below 2^53.
            ((0.0..=9_007_199_254_740_991.0).contains(&number) && number.fract() == 0.0).then_some(number as u64)
        };
        let link = if field.len() > 24 { Some((number(3)?, number(4)?)) } else { None };
        Some(Self { at_ms: number(0)?, total: number(1)?, link })
    }
}

/// The remembered outcome of an operation, of any capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    /// It was denied; only `active` and `count` have a meaning besides.
    pub(super) denied: bool,
    pub(super) active: bool,
    /// The count; for a create the time of acceptance, in Unix milliseconds.
    pub(super) count: u64,
    /// It changed the pair, counted, or created.
    pub(super) changed: bool,
    pub(super) position: Position,
    pub(super) rate: Option<RateState>,
}

/// An id after the letter of its type.
pub(super) fn tagged_id(bytes: &[u8]) -> Result<Id, StoreError> {
    untagged(bytes).ok_or_else(|| unexpected("an id"))
}
