//! Address space for instances: what they reserve, what the system allows, and what to write where that is too little.
//!
//! Pure but for the question of the limit.

use rustix::process::{Resource, getrlimit};

use weir_core::config::{PolicyConfig, PolicyPoolConfig};

/// The part of the address space that instances may take: modules that are tried have as much again, and the process needs some.
const SHARE: u64 = 3;
/// Linear memories that are tried where that of the configuration is too large for the limit, in bytes.
const SMALLER_MEMORIES: [usize; 3] = [8 << 20, 4 << 20, 2 << 20];
/// A gibibyte.
const GIB: u64 = 1 << 30;

/// The limit of the process's address space (`ulimit -v`); `None` without one.
pub(super) fn address_limit_bytes() -> Option<u64> {
    getrlimit(Resource::As).current
}

/// Instances of one module that may be alive at once.
pub(super) fn instances_each(config: &PolicyConfig) -> usize {
    config.instances.max(config.granted_calls_max).saturating_add(1)
}

/// Address space of all linear memories, in bytes; `memories_each`: of each instance that a module may have.
fn reserved_bytes(each: usize, memories_each: usize, pool: &PolicyPoolConfig) -> u64 {
    let memories = u64::try_from(each.saturating_mul(memories_each)).unwrap_or(u64::MAX);
    memories.saturating_mul(pool.slot_bytes())
}

/// Why the instances do not fit, and the settings that do.
pub(super) fn too_small(config: &PolicyConfig, memories_each: usize, limit_bytes: u64) -> String {
    let needed = reserved_bytes(instances_each(config), memories_each, &config.pool);
    let what = format!(
        "the address space is limited to {} (ulimit -v, LimitAS=), and policy instances reserve {}",
        shown(limit_bytes),
        shown(needed)
    );
    match fitting(config, memories_each, limit_bytes) {
        Some(fitting) => {
            format!("{what}; raise the limit, or write in the configuration: {}", fitting.settings(memories_each))
        }
        None => {
            let least = Fitting { each: 2, memory_bytes_max: SMALLER_MEMORIES[SMALLER_MEMORIES.len() - 1] };
            let least_bytes =
                reserved_bytes(least.each, memories_each, &PolicyPoolConfig::least(least.memory_bytes_max));
            format!("{what}; raise the limit to {} or more", shown(least_bytes.saturating_mul(SHARE)))
        }
    }
}

/// What fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fitting {
    /// Instances of one module that may be alive at once.
    each: usize,
    /// Linear memory of one.
    memory_bytes_max: usize,
}

impl Fitting {
    /// As TOML.
    fn settings(self, memories_each: usize) -> String {
        let pool = PolicyPoolConfig::least(self.memory_bytes_max);
        format!(
            "[policy] instances = {0}, granted_calls_max = {0}, memory_bytes_max = {1}; [policy.pool] \
             memory_reservation_bytes = {2}, memory_guard_bytes = {3} (which reserves {4}, and checks bounds in code)",
            self.each - 1,
            self.memory_bytes_max,
            pool.memory_reservation_bytes,
            pool.memory_guard_bytes,
            shown(reserved_bytes(self.each, memories_each, &pool))
        )
    }
}

/// The most instances that fit, with the memory of the configuration, or the greatest that lets any fit.
fn fitting(config: &PolicyConfig, memories_each: usize, limit_bytes: u64) -> Option<Fitting> {
    let smaller = SMALLER_MEMORIES.into_iter().filter(|bytes| *bytes < config.memory_bytes_max);
    std::iter::once(config.memory_bytes_max).chain(smaller).find_map(|memory_bytes_max| {
        let one = reserved_bytes(1, memories_each, &PolicyPoolConfig::least(memory_bytes_max));
        let fit = usize::try_from(limit_bytes / SHARE / one.max(1)).unwrap_or(usize::MAX);
        let each = fit.min(instances_each(config));
        (each >= 2).then_some(Fitting { each, memory_bytes_max })
    })
}

/// Bytes for the eyes of people.
fn shown(bytes: u64) -> String {
    if bytes >= 10 * GIB { format!("{} GiB", bytes / GIB) } else { format!("{} MiB", bytes >> 20) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_fits() {
        let config = PolicyConfig::default();
        for limit_bytes in [2 * GIB, 4 * GIB, 16 * GIB, 64 * GIB, 512 * GIB] {
            let Some(found) = fitting(&config, 116, limit_bytes) else {
                assert!(limit_bytes < 4 * GIB, "{limit_bytes}");
                continue;
            };
            let pool = PolicyPoolConfig::least(found.memory_bytes_max);
            assert!(reserved_bytes(found.each, 116, &pool) <= limit_bytes / SHARE, "{limit_bytes}: {found:?}");
        }
        let said = too_small(&config, 116, 16 * GIB);
        assert!(said.contains("limited to 16 GiB") && said.contains("memory_reservation_bytes = 16777216"), "{said}");
        let said = too_small(&config, 116, GIB);
        assert!(said.contains("raise the limit to 1"), "{said}");
    }
}
