//! Lifetime of a module: from bytes to a pool of instances, or to the reason why not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::counter;
use serde::Serialize;
use wasmtime::component::InstancePre;
use weir_policy_vectors::Vectors;

use super::bindings::{self, ExportIndices};
use super::border::{Border, instead, is_granted_import};
use super::breaker::{Breakers, OpenBreaker};
use super::call::{Answered, CallSeconds, Called, Outcome, Role};
use super::compiler;
use super::component::ComponentBytes;
use super::engine::{Metering, PolicyEngine};
use super::imports::{Grant, Imports};
use super::instance::{CallFailure, Pool, Recipe, Warm, with_words};
use super::interface::Interface;
use super::log_gate::LogGate;
use super::memory::MemoryLimit;
use super::outline::Outline;
use super::refusal::LoadError;
use super::said::Said;
use super::state::HostState;
use super::turn::Turn;
use super::wasi;
use weir_core::clock::Clock;
use weir_core::config::{BreakerConfig, PolicyConfig};
use weir_core::model::Digest;
use weir_core::telemetry::POLICY_FAILURES_TOTAL;

/// How long a module counts as unhealthy after a failed call.
const UNHEALTHY_TIME: Duration = Duration::from_secs(60);

/// What is known of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModuleInfo {
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    /// `built-in`, or its name.
    pub name: String,
    /// Its version, if it has one.
    pub version: Option<String>,
    /// Its size, in bytes.
    pub bytes: usize,
    /// Its functions.
    pub functions: u64,
    /// The interfaces that it exports; of a live module, those that it serves.
    pub interfaces: Vec<&'static str>,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it exports besides, and the host ignores: the first of it.
    pub ignored: Vec<String>,
    /// The hash of its sources, where `weir policy build` made it.
    pub source_sha256: Option<String>,
    /// No call has failed in the last minute.
    pub healthy: bool,
    /// Calls that failed.
    pub failures: u64,
    /// What the last failure was.
    pub last_failure: Option<String>,
    /// What it is not called for now, because calls failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub breakers: Vec<OpenBreaker>,
    /// Why it does not fit this weir, of one that was active when the host ended and could not be loaded again. What its kinds
    /// say of failures (`on_policy_failure`) answers in its place.
    pub unfit: Option<String>,
    /// Functions that failed when they were tried without a host: of `weir policy check` and `build`.
    pub failing: Vec<Failing>,
}

/// A function that failed when it was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failing {
    /// Such as `toggle.decide`.
    pub function: String,
    /// The kind of the first call that failed.
    pub kind: String,
    /// Why it did.
    pub reason: String,
    /// Every call of it failed.
    pub never: bool,
}

/// A component that was compiled, and whose imports fit.
pub(super) struct Compiled {
    pub(super) digest: Digest,
    bytes: usize,
    pub(super) outline: Outline,
    border: Border,
    pre: InstancePre<HostState>,
    metering: Metering,
}

impl Compiled {
    /// From compiled code; see [`compiler::deserialize`] for where that may come from.
    pub(super) fn new(
        engine: &PolicyEngine,
        code: &[u8],
        outline: Outline,
        given: ComponentBytes<'_>,
    ) -> Result<Self, LoadError> {
        let ComponentBytes { digest, bytes } = given;
        let component = compiler::deserialize(engine, code)?;
        let border = Border::of(engine, &component)?;
        let wrong = |error: wasmtime::Error| LoadError::WrongImport { reason: format!("{error:#}") };
        let own = wasi::linker_for(engine, &component).map_err(wrong)?;
        let pre = own.as_ref().unwrap_or(&engine.linker).instantiate_pre(&component).map_err(wrong)?;
        Ok(Self { digest, bytes: bytes.len(), outline, border, pre, metering: engine.metering })
    }

    /// The interfaces that it exports.
    pub(super) fn interfaces(&self) -> &[Interface] {
        &self.border.known
    }

    /// What it imports.
    pub(super) fn imports(&self) -> &[String] {
        &self.border.imports
    }

    /// The test vectors that it carries.
    pub(super) fn vectors(&self) -> Option<&Vectors> {
        self.outline.vectors.as_ref()
    }

    /// Whether it imports something that does I/O, so that calls of it may wait.
    pub(super) fn does_io(&self) -> bool {
        self.border.imports.iter().any(|name| is_granted_import(name))
    }

    /// The first import that `grant` does not hold.
    pub(super) fn not_granted(&self, grant: &Grant) -> Option<&str> {
        let missing = |name: &&String| is_granted_import(name) && !grant.allows(name);
        self.border.imports.iter().find(missing).map(String::as_str)
    }
}

/// A module that was found good.
pub(super) struct Module {
    pub(super) digest: Digest,
    pub(super) pool: Pool,
    /// What it exports as the WIT says.
    fit: Vec<Interface>,
    /// Calls of it may wait for I/O: never on a thread that must not.
    pub(super) does_io: bool,
    info: ModuleInfo,
    log: Arc<LogGate>,
    /// Keeps calls from it while they fail.
    pub(super) breakers: Breakers,
    pub(super) seconds: CallSeconds,
    failures: AtomicU64,
    last_failure: Mutex<Option<(Instant, String)>>,
}

/// What a module is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Label {
    /// Its name.
    pub(super) name: String,
    /// Its version.
    pub(super) version: Option<String>,
}

/// What a module is started with.
pub(super) struct Start {
    pub(super) label: Label,
    /// What its instances see.
    pub(super) imports: Imports,
    /// Instances that are warm at once.
    pub(super) instances: usize,
    /// When its breakers open.
    pub(super) clock: Clock,
}

impl Module {
    /// Starts a pool of instances. Everything that it exports must be as the WIT says.
    pub(super) fn start(
        engine: &PolicyEngine,
        config: &PolicyConfig,
        compiled: &Compiled,
        start: Start,
    ) -> Result<Self, LoadError> {
        let (module, unfit) = Self::start_what_fits(engine, config, compiled, start)?;
        match unfit.into_iter().next() {
            None => Ok(module),
            Some((_, refusal)) => Err(refusal),
        }
    }

    /// The same, of which what is not as the WIT says is left out, with the reason: a module of an older contract serves what
    /// has not changed since.
    pub(super) fn start_what_fits(
        engine: &PolicyEngine,
        config: &PolicyConfig,
        compiled: &Compiled,
        start: Start,
    ) -> Result<(Self, Vec<Unfit>), LoadError> {
        let Start { label, imports, instances, clock } = start;
        let digest = compiled.digest.to_string();
        let log = Arc::new(LogGate::new(format!("{} {}", label.name, &digest[..12]), imports.are_stubs()));
        let does_io = compiled.does_io();
        let (gate, memory, elements) = (Arc::clone(&log), config.memory_bytes_max, config.table_elements_max);
        let deadline_ms = if does_io { config.granted_call_deadline_ms } else { config.call_deadline_ms };
        let time = Duration::from_millis(deadline_ms);
        let mut recipe = Recipe {
            pre: compiled.pre.clone(),
            exports: ExportIndices::default(),
            state: Box::new(move || HostState {
                imports: imports.begin(time),
                log: Arc::clone(&gate),
                said: Said::default(),
                turn: Turn::default(),
                memory: MemoryLimit::new(memory, elements),
            }),
            transfer_bytes_max: config.transfer_bytes_max,
            call_ticks: engine.ticks(deadline_ms),
            metered: compiled.metering == Metering::Fuel,
            gives_way: !does_io,
        };
        let (fit, unfit) = bind(&mut recipe, &compiled.border)?;
        let instances_max = if does_io { config.granted_calls_max.max(1) } else { instances };
        let pool = Pool::fill(recipe, instances.min(instances_max), instances_max, time).map_err(not_started)?;
        let info = ModuleInfo {
            digest,
            name: label.name,
            version: label.version,
            bytes: compiled.bytes,
            functions: compiled.outline.functions,
            interfaces: fit.iter().map(|interface| interface.name()).collect(),
            imports: compiled.border.imports.clone(),
            ignored: compiled.border.ignored.clone(),
            source_sha256: compiled.outline.source_sha256.clone(),
            healthy: true,
            failures: 0,
            last_failure: None,
            breakers: Vec::new(),
            unfit: None,
            failing: Vec::new(),
        };
        let module = Self {
            digest: compiled.digest,
            pool,
            fit,
            does_io,
            info,
            log,
            breakers: Breakers::new(&config.breaker, clock),
            seconds: CallSeconds::default(),
            failures: AtomicU64::new(0),
            last_failure: Mutex::new(None),
        };
        Ok((module, unfit))
    }

    /// In place of one that cannot be loaded any more: its digest and name, and every call fails.
    pub(super) fn unfit(digest: Digest, label: Label, reason: &str) -> Self {
        let text = digest.to_string();
        Self {
            digest,
            pool: Pool::unfit(reason.to_owned()),
            fit: Vec::new(),
            does_io: false,
            log: Arc::new(LogGate::new(format!("{} {}", label.name, &text[..12]), true)),
            info: ModuleInfo {
                digest: text,
                name: label.name,
                version: label.version,
                bytes: 0,
                functions: 0,
                interfaces: Vec::new(),
                imports: Vec::new(),
                ignored: Vec::new(),
                source_sha256: None,
                healthy: false,
                failures: 0,
                last_failure: None,
                breakers: Vec::new(),
                unfit: Some(reason.to_owned()),
                failing: Vec::new(),
            },
            breakers: Breakers::new(&BreakerConfig::default(), Clock::Real),
            seconds: CallSeconds::default(),
            failures: AtomicU64::new(0),
            last_failure: Mutex::new(None),
        }
    }

    /// Why it does not fit.
    pub(super) fn is_unfit(&self) -> Option<&str> {
        self.info.unfit.as_deref()
    }

    /// Whether it exports `interface`.
    pub(super) fn exports(&self, interface: Interface) -> bool {
        self.fit.contains(&interface)
    }

    /// What it is called.
    pub(super) fn label(&self) -> Label {
        Label { name: self.info.name.clone(), version: self.info.version.clone() }
    }

    /// Its name and the beginning of its digest, for people.
    pub(super) fn title(&self) -> String {
        format!("{} ({})", self.info.name, &self.info.digest[..12])
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
            counter!(POLICY_FAILURES_TOTAL, "interface" => interface_name, "role" => role, "cause" => cause)
                .increment(1);
            if failure.is_of_module() {
                self.failed(interface, failure);
            }
        }
        checked
    }

    /// Notes a failed call: the module is unhealthy for a minute from now on.
    pub(super) fn failed(&self, interface: Interface, failure: &CallFailure) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        if self.info.unfit.is_some() {
            return;
        }
        let text = format!("{} in {}: {}", failure.cause.as_str(), interface.name(), failure.reason);
        self.log.failed(&format!("policy call failed: {text}"));
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), text));
    }

    /// What is known of it now.
    pub(super) fn info(&self) -> ModuleInfo {
        let failures = self.failures.load(Ordering::Relaxed);
        let last = self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let recent = last.as_ref().is_some_and(|(at, _)| at.elapsed() < UNHEALTHY_TIME);
        let breakers = self.breakers.open();
        let healthy = !recent && breakers.is_empty() && self.info.unfit.is_none();
        ModuleInfo { healthy, failures, last_failure: last.map(|(_, text)| text), breakers, ..self.info.clone() }
    }
}

/// An interface that a module exports otherwise than the WIT says, and how.
pub(super) type Unfit = (Interface, LoadError);

/// Finds the functions of the known exports and checks their types on a first instance.
fn bind(recipe: &mut Recipe, border: &Border) -> Result<(Vec<Interface>, Vec<Unfit>), LoadError> {
    let mut store = recipe.store();
    let started = recipe.pre.instantiate(&mut store);
    let instance = started.map_err(|error| not_started(with_words(&mut store, &error)))?;
    let (mut fit, mut unfit) = (Vec::new(), Vec::new());
    for &interface in &border.known {
        let wrong = bindings::wrong_functions(interface, &mut store, &instance);
        let found = recipe.exports.find(interface, &recipe.pre).map_err(|error| format!("{error:#}"));
        match (wrong.is_empty(), found) {
            (true, Ok(())) => fit.push(interface),
            (wrong_is_empty, found) => {
                let reason = if wrong_is_empty { found.err().unwrap_or_default() } else { wrong.join("; ") };
                let reason = reason + &instead(interface, border);
                recipe.exports.forget(interface);
                unfit.push((interface, LoadError::WrongExport { interface: interface.export_name(), reason }));
            }
        }
    }
    Ok((fit, unfit))
}

fn not_started(error: wasmtime::Error) -> LoadError {
    LoadError::Instantiate { reason: format!("{error:#}") }
}
