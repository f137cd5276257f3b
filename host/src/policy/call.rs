//! The calls of a module: arguments in, answer checked, time and failures counted.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use metrics::{Histogram, counter, histogram};
use weir_policy_vectors::{Answer, Call};

use super::FlushPlan;
use super::bindings;
use super::convert::{self, UuidTexts};
use super::instance::{CallFailure, Cause, Warm};
use super::interface::Interface;
use super::module::Module;
use super::record;
use crate::model::{Intent, ToggleChange, ToggleRule};
use crate::telemetry::{POLICY_CALL_SECONDS, POLICY_FAILURES_TOTAL};

/// Changes that one deadline is for when a batch is coalesced: it is many times the size of a batch of requests.
const COALESCE_STEP: usize = 1_000;

/// What a module is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It serves.
    Live,
    /// It serves a share of the targets.
    Canary,
    /// It only shows what it would decide.
    Shadow,
    /// It is tried with test vectors or recorded calls: nothing is counted.
    Test,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Canary => "canary",
            Self::Shadow => "shadow",
            Self::Test => "test",
        }
    }
}

/// The histograms of one module's calls, looked up once: that takes as long as a call.
#[derive(Default)]
pub(super) struct CallSeconds([[OnceLock<Histogram>; 4]; 2]);

impl CallSeconds {
    fn of(&self, interface: Interface, role: Role) -> &Histogram {
        self.0[interface as usize][role as usize]
            .get_or_init(|| histogram!(POLICY_CALL_SECONDS, "interface" => interface.name(), "role" => role.as_str()))
    }
}

/// An answer that keeps the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answered<T> {
    pub(super) answer: T,
    /// How long the call took, waiting for an instance included.
    pub(super) elapsed: Duration,
    /// Fuel that it used, where that is counted.
    pub(super) fuel: Option<u64>,
}

/// The outcome of a call.
pub(super) type Outcome<T> = Result<Answered<T>, CallFailure>;

impl Module {
    /// One rule for each intent.
    pub(super) fn decide(&self, role: Role, kind: &str, now_ms: u64, batch: &[Intent]) -> Outcome<Vec<ToggleRule>> {
        let mut texts = UuidTexts::for_ids(batch.iter().flat_map(|intent| [&intent.target, &intent.actor]));
        let intents = convert::intents(batch, &mut texts);
        let call = |warm: &mut Warm| match &warm.toggle {
            Some(toggle) => toggle.call_decide(&mut warm.store, kind, now_ms, &intents),
            None => Err(not_exported()),
        };
        let check = |rules: Vec<bindings::toggle::Rule>| convert::check_rules(batch.len(), &rules);
        self.run(role, Interface::Toggle, 1, call, check)
    }

    /// When to flush.
    pub(super) fn plan(
        &self,
        role: Role,
        kind: &str,
        now_ms: u64,
        waiting: bindings::flush::Backlog,
    ) -> Outcome<FlushPlan> {
        let call = |warm: &mut Warm| match &warm.flush {
            Some(flush) => flush.call_plan(&mut warm.store, kind, now_ms, waiting),
            None => Err(not_exported()),
        };
        self.run(role, Interface::Flush, 1, call, convert::check_plan)
    }

    /// Indexes of the changes that survive, `last` among them: [`convert::last_of_each_pair`].
    pub(super) fn coalesce(
        &self,
        role: Role,
        kind: &str,
        changes: &[ToggleChange],
        last: &[usize],
    ) -> Outcome<Vec<u32>> {
        let mut texts = UuidTexts::for_ids(changes.iter().flat_map(|change| [&change.target, &change.actor]));
        let entries = convert::entries(changes, &mut texts);
        let call = |warm: &mut Warm| match &warm.flush {
            Some(flush) => flush.call_coalesce(&mut warm.store, kind, &entries),
            None => Err(not_exported()),
        };
        let check = |kept: Vec<u32>| convert::check_kept(last, changes.len(), &kept).map(|()| kept);
        let deadlines = changes.len().div_ceil(COALESCE_STEP) as u64;
        self.run(role, Interface::Flush, deadlines, call, check)
    }

    /// A call and its answer as test vectors and the decision log have them.
    pub(super) fn ask(&self, role: Role, call: &Call) -> Outcome<Answer> {
        fn answer<T>(answered: Answered<T>, to_answer: impl FnOnce(T) -> Answer) -> Answered<Answer> {
            Answered { answer: to_answer(answered.answer), elapsed: answered.elapsed, fuel: answered.fuel }
        }
        match call {
            Call::ToggleDecide(call) => {
                let batch: Vec<Intent> = call.batch.iter().map(record::to_intent).collect();
                let answered = self.decide(role, &call.kind, call.now_ms, &batch)?;
                Ok(answer(answered, |rules| record::rules(&rules)))
            }
            Call::FlushPlan(call) => {
                let answered = self.plan(role, &call.kind, call.now_ms, record::to_backlog(&call.backlog))?;
                Ok(answer(answered, |plan| record::plan(&plan)))
            }
            Call::FlushCoalesce(call) => {
                let changes: Vec<ToggleChange> = call.entries.iter().map(record::to_change).collect();
                let last = convert::last_of_each_pair(&changes);
                let answered = self.coalesce(role, &call.kind, &changes, &last)?;
                Ok(answer(answered, Answer::Kept))
            }
        }
    }

    /// Calls, measures, checks the answer, and counts what fails.
    fn run<Raw, T>(
        &self,
        role: Role,
        interface: Interface,
        deadlines: u64,
        call: impl FnOnce(&mut Warm) -> wasmtime::Result<Raw>,
        check: impl FnOnce(Raw) -> Result<T, String>,
    ) -> Outcome<T> {
        let started = Instant::now();
        let answered = self.pool.call(deadlines, call);
        let elapsed = started.elapsed();
        let checked = answered.and_then(|(raw, fuel)| match check(raw) {
            Ok(answer) => Ok(Answered { answer, elapsed, fuel }),
            Err(reason) => Err(CallFailure::contract(reason)),
        });
        if role == Role::Test {
            return checked;
        }
        self.seconds.of(interface, role).record(elapsed.as_secs_f64());
        if let Err(failure) = &checked {
            let (interface_name, role, cause) = (interface.name(), role.as_str(), failure.cause.as_str());
            counter!(POLICY_FAILURES_TOTAL, "interface" => interface_name, "role" => role, "cause" => cause)
                .increment(1);
            // Too many callers are no fault of the module.
            if failure.cause != Cause::Busy {
                self.failed(interface, failure);
            }
        }
        checked
    }
}

/// Cannot happen: a module is called only for what it exports.
fn not_exported() -> wasmtime::Error {
    wasmtime::Error::msg("the module does not export this interface")
}
