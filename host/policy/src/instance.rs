//! Lifetime of a call: warm instances, one taken for each call and put back, or replaced when the call failed.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::component::InstancePre;
use wasmtime::{Store, Trap};

use super::bindings::{ExportIndices, Exports};
use super::interface::Interface;
use super::said::Words;
use super::state::HostState;
use super::trace::explain;
use super::turn::{Turn, aside};

/// Why a call has no usable result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CallFailure {
    /// The label of the metric.
    pub(super) cause: Cause,
    /// For the operator.
    pub(super) reason: String,
}

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The guest trapped: a panic, memory exhausted, a wrong access.
    Trap,
    /// The guest took longer than a call may.
    Deadline,
    /// What came back is not what the WIT promises, or more than a call may hand back.
    Contract,
    /// No instance could be made.
    Instantiate,
    /// All instances were in use for as long as a call may take.
    Busy,
    /// The module does not fit this weir: it was active when the host ended, and could not be loaded again.
    Unfit,
    /// Nothing was called: the breaker is open.
    Open,
}

impl Cause {
    /// Every cause of a call that was to be made.
    pub(super) const ALL: [Self; 6] =
        [Self::Trap, Self::Deadline, Self::Contract, Self::Instantiate, Self::Busy, Self::Unfit];

    /// The label of the metric.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Contract => "contract",
            Self::Instantiate => "instantiate",
            Self::Busy => "busy",
            Self::Open => "open",
            Self::Unfit => "unfit",
        }
    }
}

impl CallFailure {
    /// Whether the module is at fault. It is not when there were too many callers, or when it was not called.
    pub(super) fn is_of_module(&self) -> bool {
        !matches!(self.cause, Cause::Busy | Cause::Open)
    }

    /// The guest returned something that the contract forbids.
    pub(super) fn contract(reason: String) -> Self {
        Self { cause: Cause::Contract, reason }
    }

    /// A call that wasmtime ended. What is no trap is a result that could not be lifted: a pointer out of bounds, an
    /// unknown case, text that is not UTF-8, too many bytes.
    fn of_call(error: &wasmtime::Error, words: &Words) -> Self {
        let cause = match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => Cause::Deadline,
            Some(_) => Cause::Trap,
            None => Cause::Contract,
        };
        Self { cause, reason: explain(error, words) }
    }

    /// Adds what only the interface knows: which cases its enums have.
    pub(super) fn within(mut self, interface: Interface) -> Self {
        let split = self.reason.split_once(UNKNOWN_CASE).filter(|_| self.cause == Cause::Contract);
        if let Some((before, after)) = split {
            let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            let (case, after) = after.split_at(digits);
            let words = interface.words_of_answers();
            self.reason =
                format!("{before}an enum or variant of the answer has no case {case}; the WIT knows {words}{after}");
        }
        self
    }
}

/// How wasmtime begins what it says of a case that an enum or variant does not have.
const UNKNOWN_CASE: &str = "unexpected discriminant: ";

/// An instance, ready to be called.
pub(super) struct Warm {
    /// Holds the instance.
    pub(super) store: Store<HostState>,
    /// Its interfaces.
    pub(super) exports: Exports,
}

/// What is needed to make an instance.
pub(super) struct Recipe {
    /// The component, its imports resolved.
    pub(super) pre: InstancePre<HostState>,
    /// Where its functions are.
    pub(super) exports: ExportIndices,
    /// Makes the state of an instance.
    pub(super) state: Box<dyn Fn() -> HostState + Send + Sync>,
    /// Bytes that one call may hand back.
    pub(super) transfer_bytes_max: usize,
    /// Ticks that a call may take; the start of an instance is held to the same.
    pub(super) call_ticks: u64,
    /// The engine counts fuel.
    pub(super) metered: bool,
    /// Calls are made where requests are served, and give way when they take long: see [`Turn`].
    pub(super) gives_way: bool,
}

impl Recipe {
    /// An empty store with the limits of this module.
    pub(super) fn store(&self) -> Store<HostState> {
        let mut store = Store::new(self.pre.engine(), (self.state)());
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(self.transfer_bytes_max);
        store.set_epoch_deadline(self.call_ticks);
        if self.gives_way {
            store.epoch_deadline_callback(|mut context| Ok(context.data_mut().turn.go_on()));
        }
        self.refuel(&mut store);
        store
    }

    /// Fuel is counted, never short: it is the deadline that ends a call.
    fn refuel(&self, store: &mut Store<HostState>) {
        if self.metered {
            // Fails only where fuel is not counted.
            let _ = store.set_fuel(u64::MAX);
        }
    }

    /// A call begins, which may take `deadlines` times as long as one may.
    fn begin(&self, store: &mut Store<HostState>, deadlines: u64) {
        let ticks = self.call_ticks.saturating_mul(deadlines);
        if !self.gives_way {
            return store.set_epoch_deadline(ticks);
        }
        let (turn, first) = Turn::begin(ticks);
        store.data_mut().turn = turn;
        store.set_epoch_deadline(first);
    }

    fn instantiate(&self) -> wasmtime::Result<Warm> {
        let mut store = self.store();
        let instance = self.pre.instantiate(&mut store).map_err(|error| with_words(&mut store, &error))?;
        let exports = self.exports.load(&mut store, &instance)?;
        Ok(Warm { store, exports })
    }
}

/// An error of an instance that does not start, with what it said.
pub(super) fn with_words(store: &mut Store<HostState>, error: &wasmtime::Error) -> wasmtime::Error {
    let words = store.data_mut().said.take();
    wasmtime::Error::msg(explain(error, &words))
}

/// The instances of one module. A call takes one; when all are taken it waits, at most as long as a call may take.
pub(super) struct Pool {
    /// Why there is none, of a module that does not fit.
    recipe: Result<Recipe, String>,
    instances_max: usize,
    wait_max: Duration,
    state: Mutex<PoolState>,
    returned: Condvar,
}

#[derive(Default)]
struct PoolState {
    idle: Vec<Warm>,
    /// Idle and taken.
    alive: usize,
    /// Callers that wait for one. A wake-up without a waiter costs a system call, too.
    waiting: usize,
}

impl Pool {
    /// Makes `instances` now, so that no call pays for it, and more when they are needed.
    pub(super) fn fill(
        recipe: Recipe,
        instances: usize,
        instances_max: usize,
        wait_max: Duration,
    ) -> wasmtime::Result<Self> {
        let idle = (0..instances).map(|_| recipe.instantiate()).collect::<wasmtime::Result<Vec<_>>>()?;
        let state = PoolState { alive: idle.len(), idle, waiting: 0 };
        Ok(Self { recipe: Ok(recipe), instances_max, wait_max, state: Mutex::new(state), returned: Condvar::new() })
    }

    /// Of a module that does not fit: every call fails for this reason.
    pub(super) fn unfit(reason: String) -> Self {
        Self {
            recipe: Err(reason),
            instances_max: 0,
            wait_max: Duration::ZERO,
            state: Mutex::default(),
            returned: Condvar::new(),
        }
    }

    /// Runs `call` on an instance. It may take `deadlines` times as long as a call may. Also says how much fuel it
    /// used, where that is counted.
    pub(super) fn call<R>(
        &self,
        deadlines: u64,
        call: impl FnOnce(&mut Warm) -> wasmtime::Result<R>,
    ) -> Result<(R, Option<u64>), CallFailure> {
        let recipe = self.recipe.as_ref();
        let recipe = recipe.map_err(|reason| CallFailure { cause: Cause::Unfit, reason: reason.clone() })?;
        let mut warm = self.take(recipe)?;
        let mut slot = Slot { pool: self, recipe, back: None };
        recipe.begin(&mut warm.store, deadlines);
        let time = self.wait_max.saturating_mul(deadlines.try_into().unwrap_or(u32::MAX));
        warm.store.data_mut().imports.begin_call(time);
        recipe.refuel(&mut warm.store);
        warm.store.data_mut().said.clear();
        let result = call(&mut warm).map_err(|error| {
            let words = warm.store.data_mut().said.take();
            CallFailure::of_call(&error, &words)
        });
        let left = if recipe.metered { warm.store.get_fuel().ok() } else { None };
        let fuel = left.map(|left| u64::MAX - left);
        // After any failure the whole store is suspect. After much growth it is given up before it reaches its limit.
        if result.is_ok() && !warm.store.data().memory.is_nearly_full() {
            slot.back = Some(warm);
        } else {
            drop(warm);
        }
        result.map(|result| (result, fuel))
    }

    /// Gives up the idle instances: the next calls begin with fresh ones.
    pub(super) fn renew(&self) {
        let mut state = self.lock();
        state.alive -= state.idle.len();
        state.idle.clear();
    }

    fn take(&self, recipe: &Recipe) -> Result<Warm, CallFailure> {
        let mut state = self.lock();
        let mut deadline = None;
        loop {
            if let Some(warm) = state.idle.pop() {
                return Ok(warm);
            }
            if state.alive < self.instances_max {
                state.alive += 1;
                drop(state);
                return recipe.instantiate().map_err(|error| {
                    self.lock().alive -= 1;
                    self.returned.notify_one();
                    CallFailure { cause: Cause::Instantiate, reason: format!("{error:#}") }
                });
            }
            let now = Instant::now();
            let left = deadline.get_or_insert_with(|| now + self.wait_max).saturating_duration_since(now);
            if left.is_zero() {
                let reason = format!(
                    "all {} instances are in use: raise policy.instances or policy.granted_calls_max",
                    self.instances_max
                );
                return Err(CallFailure { cause: Cause::Busy, reason });
            }
            state.waiting += 1;
            state = aside(|| self.returned.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0);
            state.waiting -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a taken instance. When dropped, what is in `back` returns to the pool; a fresh instance if nothing is.
struct Slot<'a> {
    pool: &'a Pool,
    recipe: &'a Recipe,
    back: Option<Warm>,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        // The caller that lost time anyway makes the spare. If that fails, the next call that finds none tries again.
        let fresh = || if std::thread::panicking() { None } else { self.recipe.instantiate().ok() };
        let back = self.back.take().or_else(fresh);
        let mut state = self.pool.lock();
        match back {
            Some(warm) => state.idle.push(warm),
            None => state.alive -= 1,
        }
        let somebody_waits = state.waiting > 0;
        drop(state);
        if somebody_waits {
            self.pool.returned.notify_one();
        }
    }
}
