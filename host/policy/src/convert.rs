//! Across the border, for all interfaces: ids into the guest's types, lengths and limits of its answers checked.

use super::bindings::{Id as WireId, RateLimit as WireRateLimit};
use weir_core::model::{Id, RateLimit};

/// Length of a hyphenated UUID.
const UUID_TEXT_BYTES: usize = 36;

/// A buffer for the texts of all UUIDs of a batch: one allocation, none when there are no UUIDs.
pub(super) struct UuidTexts(Vec<u8>);

impl UuidTexts {
    /// A buffer for the UUIDs among `ids`.
    pub(super) fn for_ids<'a>(ids: impl Iterator<Item = &'a Id>) -> Self {
        let uuids = ids.filter(|id| matches!(id, Id::Uuid(_))).count();
        Self(vec![0; uuids * UUID_TEXT_BYTES])
    }

    /// What makes the guest's ids of them, each once.
    pub(super) fn writer(&mut self) -> UuidWriter<'_> {
        UuidWriter(&mut self.0)
    }
}

/// Writes UUIDs into their buffer.
pub(super) struct UuidWriter<'a>(&'a mut [u8]);

impl<'a> UuidWriter<'a> {
    /// An id as the guest gets it.
    pub(super) fn id(&mut self, id: &'a Id) -> WireId<'a> {
        match id {
            Id::Int(value) => WireId::Int(*value),
            Id::Text(value) => WireId::Text(value),
            Id::Uuid(value) => {
                let (text, rest) = std::mem::take(&mut self.0).split_at_mut(UUID_TEXT_BYTES);
                self.0 = rest;
                WireId::Text(value.hyphenated().encode_lower(text))
            }
        }
    }
}

/// Whether an answer has as many parts as were asked for.
pub(super) fn check_length(asked: usize, of_what: &str, answered: usize, what: &str) -> Result<(), String> {
    if answered == asked { Ok(()) } else { Err(format!("{answered} {what} for {asked} {of_what}")) }
}

/// The limit of the rule at `index`, or how it breaks the contract.
pub(super) fn check_limit(index: usize, limit: Option<WireRateLimit>) -> Result<Option<RateLimit>, String> {
    match limit {
        None => Ok(None),
        Some(limit) if limit.burst == 0 => Err(format!("rule {index} has a limit with a burst of 0")),
        Some(limit) if limit.period_ms == 0 => Err(format!("rule {index} has a limit with a period of 0")),
        Some(WireRateLimit { burst, period_ms }) => Ok(Some(RateLimit { burst, period_ms })),
    }
}
