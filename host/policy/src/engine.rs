//! Lifetime of the process: the WebAssembly engine, its limits, and the clock of the calls' deadlines.

use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use super::interface::Interface;
use super::refusal::LoadError;
use super::space;
use super::state::{self, HostState};
use weir_core::config::PolicyConfig;

/// Modules whose instances may be alive at once: of each interface one that is live, one before that, and one draining; a
/// shadow, a canary, those that ended last, one being tried, and two that serve where nothing was activated.
const MODULES_MAX: usize = 3 * Interface::COUNT + 8;
/// Frames of a trap that are kept, the innermost.
const FRAMES_MAX: usize = 12;
/// What wasmtime keeps of one function of an instance, in bytes, generously.
const FUNCTION_BYTES: usize = 64;
/// What it keeps of an instance at most where few functions are allowed, in bytes: its default.
const INSTANCE_BYTES_MIN: usize = 1 << 20;

/// Whether calls are metered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metering {
    /// Not: as requests are served.
    None,
    /// Fuel is counted: for tests and replays. The same answers, slower.
    Fuel,
}

/// One per process and metering.
pub(super) struct PolicyEngine {
    /// Compiles and runs.
    pub(super) engine: Engine,
    /// Everything that a module may import.
    pub(super) linker: Linker<HostState>,
    /// Whether it counts fuel.
    pub(super) metering: Metering,
    /// Length of an epoch, in milliseconds.
    tick_ms: u64,
}

impl PolicyEngine {
    /// Reserves address space for the instances and starts the ticker, which ends with the engine.
    pub(super) fn new(config: &PolicyConfig, metering: Metering) -> Result<Self, LoadError> {
        let failed = |error: wasmtime::Error| LoadError::Engine { reason: format!("{error:#}") };
        let engine = new_engine(config, metering).map_err(failed)?;
        let mut linker = Linker::new(&engine);
        state::add_to_linker(&mut linker).map_err(failed)?;

        let tick_ms = (config.call_deadline_ms / 10).clamp(1, 50);
        start_ticker(&engine, Duration::from_millis(tick_ms))
            .map_err(|error| LoadError::Engine { reason: format!("cannot start the ticker: {error}") })?;
        Ok(Self { engine, linker, metering, tick_ms })
    }

    /// Epochs in `deadline_ms`. The first tick may come at once, so n ticks have n - 1 whole ones at least.
    pub(super) fn ticks(&self, deadline_ms: u64) -> u64 {
        deadline_ms.div_ceil(self.tick_ms) + 1
    }

    /// Names what compiled code must fit: this version of wasmtime, these settings, this processor.
    pub(super) fn compatibility(&self) -> String {
        let mut hasher = std::hash::DefaultHasher::new();
        self.engine.precompile_compatibility_hash().hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

/// Only compiles; the code runs in a [`PolicyEngine`] of the same limits. Without instances it needs no address space for any,
/// which is no property of the code.
pub(super) fn compiling_engine(config: &PolicyConfig, metering: Metering) -> Result<Engine, LoadError> {
    let mut settings = engine_config(config, metering);
    settings.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    Engine::new(&settings).map_err(|error| LoadError::Engine { reason: format!("{error:#}") })
}

/// Where the address space for all instances cannot be had at once for another reason than a limit (a sandbox, valgrind), each
/// instance gets its own when it is made. The compiled code is the same. Under a limit (`ulimit -v`) instances would fail one by
/// one later: there it is refused, with what fits.
fn new_engine(config: &PolicyConfig, metering: Metering) -> wasmtime::Result<Engine> {
    let mut settings = engine_config(config, metering);
    let refused = match Engine::new(&settings) {
        Ok(engine) => return Ok(engine),
        Err(refused) => refused,
    };
    if let Some(limit_bytes) = space::address_limit_bytes() {
        return Err(wasmtime::Error::msg(space::too_small(
            config,
            MODULES_MAX * config.memories_max as usize,
            limit_bytes,
        )));
    }
    settings.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    let Ok(engine) = Engine::new(&settings) else { return Err(refused) };
    tracing::warn!(
        reason = format!("{refused:#}"),
        "no address space for all policy instances at once; each gets its own, which makes new ones slower \
         (policy.pool.memory_reservation_bytes, vm.overcommit_memory)"
    );
    Ok(engine)
}

fn engine_config(config: &PolicyConfig, metering: Metering) -> Config {
    let each = space::instances_each(config);
    let instances = u32::try_from(each.saturating_mul(MODULES_MAX)).unwrap_or(u32::MAX);
    let instance_bytes = (config.functions_max as usize).saturating_mul(FUNCTION_BYTES).max(INSTANCE_BYTES_MIN);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(config.core_instances_max))
        .total_memories(instances.saturating_mul(config.memories_max))
        .total_tables(instances.saturating_mul(config.tables_max))
        .max_core_instances_per_component(config.core_instances_max)
        .max_memories_per_component(config.memories_max)
        .max_tables_per_component(config.tables_max)
        .table_elements(config.table_elements_max)
        .max_core_instance_size(instance_bytes)
        .max_component_instance_size(instance_bytes)
        .max_memory_size(config.memory_bytes_max)
        // What a dropped instance has written is cleared by hand up to here, which is cheaper than asking the kernel.
        .linear_memory_keep_resident(64 << 10)
        .table_keep_resident(16 << 10);

    let mut engine = Config::new();
    engine
        .wasm_component_model(true)
        // Calls are synchronous: no task object, no fibre.
        .concurrency_support(false)
        .epoch_interruption(true)
        .consume_fuel(metering == Metering::Fuel)
        .memory_reservation(config.pool.memory_reservation_bytes)
        .memory_guard_size(config.pool.memory_guard_bytes)
        // The same bits on every processor, so that a decision can be replayed anywhere: one NaN, and no instruction that
        // may answer as it likes. All of this is part of the key of compiled code ([`PolicyEngine::compatibility`]).
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .relaxed_simd_deterministic(true)
        // Who wrote a module that traps wants to know where. Only a call that fails pays for it.
        .wasm_backtrace_max_frames(NonZeroUsize::new(FRAMES_MAX))
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    engine
}

fn start_ticker(engine: &Engine, tick: Duration) -> std::io::Result<()> {
    let weak = engine.weak();
    let tick = move || {
        loop {
            std::thread::sleep(tick);
            match weak.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
        }
    };
    std::thread::Builder::new().name("weir-policy-tick".into()).spawn(tick).map(drop)
}
