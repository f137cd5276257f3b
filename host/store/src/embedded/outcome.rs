//! First outcomes under idempotency keys, of any capability: on disk until they expire.

use std::collections::HashMap;

use super::layout::{Space, View, damaged, expiry_key, outcome_key};
use super::transaction::Transaction;
use crate::{Idempotency, StoreError};
use weir_core::model::{Position, RateState};

/// The answer to an operation that was evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    /// It was denied; only `active` and `number` have a meaning besides.
    pub(super) denied: bool,
    pub(super) active: bool,
    /// It changed the pair, counted, or created.
    pub(super) changed: bool,
    /// The count; for a create the time of acceptance, in Unix milliseconds.
    pub(super) number: u64,
    pub(super) position: Position,
    pub(super) rate: Option<RateState>,
}

/// The result of looking up an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// New: evaluate the operation.
    New,
    /// A repetition, with the first answer.
    Again(Outcome),
    /// The key was used with another request.
    Conflict,
}

/// The outcomes under the keys of one batch.
pub(super) struct Outcomes {
    records: HashMap<[u8; 16], OutcomeRecord>,
    /// When the outcomes of this batch expire.
    expires_ms: u64,
}

impl Outcomes {
    /// Reads the earlier answers under `keys` that are still valid at `now_ms`.
    pub(super) fn read<'a>(
        transaction: &Transaction<'_>,
        kind: &str,
        (now_ms, ttl_ms): (u64, u64),
        keys: impl Iterator<Item = &'a Idempotency>,
    ) -> Result<Self, StoreError> {
        let mut records = HashMap::new();
        for idempotency in keys {
            let Some(bytes) = transaction.get(Space::Outcomes, &outcome_key(kind, &idempotency.key))? else { continue };
            let record = OutcomeRecord::decode(&bytes).ok_or_else(|| damaged("an outcome"))?;
            if now_ms < record.expires_ms {
                records.insert(idempotency.key, record);
            }
        }
        Ok(Self { records, expires_ms: now_ms.saturating_add(ttl_ms) })
    }

    /// Looks up the key of an operation.
    pub(super) fn before(&self, idempotency: Option<&Idempotency>) -> Before {
        match idempotency.and_then(|idempotency| Some((idempotency, self.records.get(&idempotency.key)?))) {
            None => Before::New,
            Some((idempotency, first)) if first.fingerprint == idempotency.fingerprint => Before::Again(first.outcome),
            Some(_) => Before::Conflict,
        }
    }

    /// Stores the outcome of an operation, if its key was new.
    pub(super) fn remember(
        &mut self,
        transaction: &mut Transaction<'_>,
        kind: &str,
        idempotency: &Idempotency,
        outcome: Outcome,
    ) {
        if self.records.contains_key(&idempotency.key) {
            return;
        }
        let (key, expires_ms) = (outcome_key(kind, &idempotency.key), self.expires_ms);
        let record = OutcomeRecord { fingerprint: idempotency.fingerprint, expires_ms, outcome };
        transaction.put(Space::Expiry, expiry_key(expires_ms, b'o', &key), b"");
        transaction.put(Space::Outcomes, key, &record.encode());
        self.records.insert(idempotency.key, record);
    }
}

/// The first outcome under an idempotency key, on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutcomeRecord {
    fingerprint: [u8; 16],
    pub(super) expires_ms: u64,
    outcome: Outcome,
}

impl OutcomeRecord {
    fn encode(&self) -> Vec<u8> {
        let Outcome { denied, active, changed, number, position, rate } = self.outcome;
        let mut out = Vec::with_capacity(60);
        out.extend_from_slice(&self.fingerprint);
        out.extend_from_slice(&self.expires_ms.to_le_bytes());
        out.extend([denied, active, changed, rate.is_some()].map(u8::from));
        let (remaining, reset_ms) = rate.map_or((0, 0), |rate| (u64::from(rate.remaining), rate.reset_ms));
        for value in [number, position, remaining, reset_ms] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (fingerprint, rest) = bytes.split_first_chunk::<16>()?;
        let (expires_ms, rest) = rest.split_first_chunk::<8>()?;
        let (flags, rest) = rest.split_first_chunk::<4>()?;
        let [denied, active, changed, limited] = flags.map(|flag| flag != 0);
        let rest: &[u8; 32] = rest.try_into().ok()?;
        let value = |index: usize| {
            rest.get(index * 8..).and_then(<[u8]>::first_chunk::<8>).map(|bytes| u64::from_le_bytes(*bytes))
        };
        let rate = RateState { remaining: u32::try_from(value(2)?).ok()?, reset_ms: value(3)? };
        let (number, position, rate) = (value(0)?, value(1)?, limited.then_some(rate));
        let outcome = Outcome { denied, active, changed, number, position, rate };
        Some(Self { fingerprint: *fingerprint, expires_ms: u64::from_le_bytes(*expires_ms), outcome })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_read_back() {
        let done = Outcome {
            denied: false,
            active: true,
            changed: true,
            number: 3,
            position: 7,
            rate: Some(RateState { remaining: 2, reset_ms: 9 }),
        };
        for outcome in
            [done, Outcome { denied: true, changed: false, ..done }, Outcome { position: 0, rate: None, ..done }]
        {
            let record = OutcomeRecord { fingerprint: [4; 16], expires_ms: 8, outcome };
            assert_eq!(OutcomeRecord::decode(&record.encode()), Some(record));
            assert_eq!(OutcomeRecord::decode(&record.encode()[1..]), None);
        }
    }
}
