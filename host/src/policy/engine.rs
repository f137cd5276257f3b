//! Lifetime of the process: the WebAssembly engine, its limits, and the clock of the calls' deadlines.

use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::bindings::{self, HostState};
use super::module::LoadError;
use crate::config::PolicyConfig;

/// Modules whose instances may be alive at once: the active ones, one being tried, one kept for a rollback.
const MODULES_MAX: usize = 4;
/// Core instances of one component instance: a guest of Rust has one, and the shims of its imports two.
const CORE_INSTANCES_MAX: u32 = 8;
/// Linear memories of one component instance.
const MEMORIES_MAX: u32 = 2;
/// Tables of one component instance.
const TABLES_MAX: u32 = 4;

/// One per process.
pub(super) struct PolicyEngine {
    /// Compiles and runs.
    pub(super) engine: Engine,
    /// Everything that a module may import.
    pub(super) linker: Linker<HostState>,
    /// Ticks of the epoch that a call may take.
    pub(super) call_ticks: u64,
}

impl PolicyEngine {
    /// Reserves address space for the instances and starts the ticker, which ends with the engine.
    pub(super) fn new(config: &PolicyConfig) -> Result<Self, LoadError> {
        let failed = |error: wasmtime::Error| LoadError::Engine { reason: format!("{error:#}") };
        let engine = Engine::new(&engine_config(config)).map_err(failed)?;
        let mut linker = Linker::new(&engine);
        bindings::add_to_linker(&mut linker).map_err(failed)?;

        let tick_ms = (config.call_deadline_ms / 10).clamp(1, 50);
        start_ticker(&engine, Duration::from_millis(tick_ms))
            .map_err(|error| LoadError::Engine { reason: format!("cannot start the ticker: {error}") })?;
        // The first tick may come at once, so a call of n ticks has n - 1 whole ones at least.
        let call_ticks = config.call_deadline_ms.div_ceil(tick_ms) + 1;
        Ok(Self { engine, linker, call_ticks })
    }
}

fn engine_config(config: &PolicyConfig) -> Config {
    let instances = u32::try_from(config.instances.saturating_add(1).saturating_mul(MODULES_MAX)).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_MAX))
        .total_memories(instances.saturating_mul(MEMORIES_MAX))
        .total_tables(instances.saturating_mul(TABLES_MAX))
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
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
        // Components carry no names: the cause of a trap says more than its frames, and a panic has logged its message.
        .wasm_backtrace_max_frames(None)
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
