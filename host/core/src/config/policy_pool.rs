//! `[policy.pool]`: the address space of policy instances.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigError, all, at_least};

/// Bytes of a page of WebAssembly.
const PAGE_BYTES: u64 = 64 << 10;

/// Address space of policy instances. It is reserved at the start and is no memory: what is not used costs nothing, unless the
/// system limits address space (`ulimit -v`, `LimitAS=`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyPoolConfig {
    /// Address space of one linear memory, in bytes: at least `policy.memory_bytes_max`. With 4 GiB code needs no check of bounds;
    /// with less it has them, and runs some per cent slower.
    pub memory_reservation_bytes: u64,
    /// Address space behind each linear memory that nobody may touch, in bytes. With less than 2 GiB behind a memory of less than
    /// 4 GiB the checks are exact.
    pub memory_guard_bytes: u64,
}

impl Default for PolicyPoolConfig {
    fn default() -> Self {
        Self { memory_reservation_bytes: 4 << 30, memory_guard_bytes: 32 << 20 }
    }
}

impl PolicyPoolConfig {
    /// The least that instances with so much linear memory can do with.
    pub fn least(memory_bytes_max: usize) -> Self {
        let memory_bytes = u64::try_from(memory_bytes_max).unwrap_or(u64::MAX);
        let pages = memory_bytes.div_ceil(PAGE_BYTES).saturating_mul(PAGE_BYTES);
        Self { memory_reservation_bytes: pages, memory_guard_bytes: PAGE_BYTES }
    }

    /// Address space of one linear memory and what is behind it, in bytes.
    pub fn slot_bytes(&self) -> u64 {
        self.memory_reservation_bytes.saturating_add(self.memory_guard_bytes)
    }

    pub(super) fn validate(&self, memory_bytes_max: usize) -> Result<(), ConfigError> {
        let least = Self::least(memory_bytes_max).memory_reservation_bytes;
        all([
            at_least("policy.pool.memory_reservation_bytes", self.memory_reservation_bytes, least),
            at_least("policy.pool.memory_guard_bytes", self.memory_guard_bytes, PAGE_BYTES),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_fits_into_its_address_space() {
        let pool = PolicyPoolConfig::default();
        assert!(pool.validate(16 << 20).is_ok() && PolicyPoolConfig::least(100_000).validate(100_000).is_ok());
        let small = PolicyPoolConfig { memory_reservation_bytes: 1 << 20, ..pool };
        let said = small.validate(16 << 20).unwrap_err().to_string();
        assert!(said.contains("policy.pool.memory_reservation_bytes: must be at least 16777216"), "{said}");
    }
}
