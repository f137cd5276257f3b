//! The calls of a module: arguments in, answer checked, time and failures counted.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use metrics::{Histogram, histogram};
use weir_policy_vectors::{Answer, Call};

use super::contract::Contract;
use super::decide::{Asked, Subject};
use super::instance::{CallFailure, Warm};
use super::interface::{Interface, admission, cache, counter, delivery, flush, ingest, toggle};
use super::module::Module;
use crate::model::{Arrival, Document, Hit, Intent, SettingColumn, ToggleChange};
use crate::telemetry::{POLICY_CALL_SECONDS, POLICY_FAILURES_TOTAL};

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Called<'a> {
    pub(super) interface: Interface,
    /// Of the interface, as the WIT names it.
    pub(super) function: &'static str,
    pub(super) kind: &'a str,
}

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
    const COUNT: usize = 4;

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
pub(super) struct CallSeconds([[OnceLock<Histogram>; Role::COUNT]; Interface::COUNT]);

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

impl<T> Answered<T> {
    /// The same with another form of the answer.
    fn map<U>(self, form: impl FnOnce(T) -> U) -> Answered<U> {
        Answered { answer: form(self.answer), elapsed: self.elapsed, fuel: self.fuel }
    }
}

/// The outcome of a call.
pub(super) type Outcome<T> = Result<Answered<T>, CallFailure>;

impl Module {
    /// A call and its answer as test vectors and the decision log have them. The answer is held to `contract`, too.
    pub(super) fn ask(&self, role: Role, call: &Call, contract: Option<&dyn Contract>) -> Outcome<Answer> {
        match call {
            Call::ToggleDecide(call) => {
                let batch: Vec<Intent> = call.batch.iter().map(toggle::to_intent).collect();
                self.decide(role, &call.kind, call.now_ms, &batch, contract)
            }
            Call::CounterDecide(call) => {
                let batch: Vec<Hit> = call.batch.iter().map(counter::to_hit).collect();
                self.decide(role, &call.kind, call.now_ms, &batch, contract)
            }
            Call::IngestValidate(call) => {
                let batch: Vec<Document> = call.batch.iter().map(ingest::to_document).collect();
                self.decide(role, &call.kind, call.now_ms, &batch, contract)
            }
            Call::DeliveryFields(call) => Ok(self.fields(role, &call.kind, &call.topic, contract)?.map(Answer::Fields)),
            Call::DeliveryEnabled(call) => {
                let columns: Vec<SettingColumn> = call.columns.iter().map(delivery::to_column).collect();
                let asked = delivery::Asked {
                    kind: &call.kind,
                    topic: &call.topic,
                    now_ms: call.now_ms,
                    members: call.members,
                    columns: &columns,
                };
                Ok(self.enabled(role, asked)?.map(Answer::Enabled))
            }
            Call::FlushPlan(call) => {
                let planned = self.plan(role, &call.kind, call.now_ms, flush::to_backlog(&call.backlog))?;
                Ok(planned.map(|plan| flush::record_planned(&plan)))
            }
            Call::FlushCoalesce(call) => {
                let changes: Vec<ToggleChange> = call.entries.iter().map(flush::to_change).collect();
                let last = flush::last_of_each_pair(&changes);
                Ok(self.coalesce(role, &call.kind, &changes, &last)?.map(Answer::Kept))
            }
            Call::AdmissionPlace(call) => {
                let batch: Vec<Arrival> = call.batch.iter().map(admission::to_arrival).collect();
                self.decide(role, &call.kind, call.now_ms, &batch, contract)
            }
            Call::AdmissionPlan(call) => {
                let planned = self.admit(role, &call.kind, call.now_ms, admission::to_room(&call.room))?;
                Ok(planned.map(|plan| admission::record_planned(&plan)))
            }
            Call::CacheEligible(call) => {
                let profile = cache::to_profile(&call.kind, &call.profile);
                Ok(self.eligible(role, &call.kind, call.now_ms, &profile)?.map(|rule| cache::record_rule(&rule)))
            }
        }
    }

    fn decide<S: Subject>(
        &self,
        role: Role,
        kind: &str,
        now_ms: u64,
        batch: &[S],
        contract: Option<&dyn Contract>,
    ) -> Outcome<Answer> {
        let asked = Asked { kind, now_ms, batch, contract, may_wait: true };
        Ok(S::ask(self, role, asked)?.map(|rules| S::record_rules(&rules)))
    }

    /// Calls, measures, checks the answer, and counts what fails: every failure passes here, whatever broke. Nothing is
    /// called while the breaker is open. The call may take `deadlines` times as long as one may.
    pub(super) fn run<Raw, T>(
        &self,
        role: Role,
        called: Called<'_>,
        deadlines: u64,
        call: impl FnOnce(&mut Warm) -> wasmtime::Result<Raw>,
        check: impl FnOnce(Raw) -> Result<T, String>,
    ) -> Outcome<T> {
        if role != Role::Test {
            self.breakers.admit(called)?;
        }
        let started = Instant::now();
        let answered = self.pool.call(deadlines, call).map_err(|failure| failure.within(called.interface));
        let elapsed = started.elapsed();
        let checked = answered.and_then(|(raw, fuel)| match check(raw) {
            Ok(answer) => Ok(Answered { answer, elapsed, fuel }),
            Err(reason) => Err(CallFailure::contract(reason)),
        });
        if role == Role::Test {
            return checked;
        }
        let interface = called.interface;
        self.seconds.of(interface, role).record(elapsed.as_secs_f64());
        match &checked {
            Err(failure) if !failure.is_of_module() || self.is_unfit().is_some() => self.breakers.give_back(called),
            outcome => self.breakers.note(called, outcome.as_ref().err()),
        }
        if let Err(failure) = &checked {
            let (interface_name, role, cause) = (interface.name(), role.as_str(), failure.cause.as_str());
            metrics::counter!(POLICY_FAILURES_TOTAL, "interface" => interface_name, "role" => role, "cause" => cause)
                .increment(1);
            if failure.is_of_module() {
                self.failed(interface, failure);
            }
        }
        checked
    }
}

/// Cannot happen: a module is called only for what it exports.
pub(super) fn not_exported() -> wasmtime::Error {
    wasmtime::Error::msg("the module does not export this interface")
}
