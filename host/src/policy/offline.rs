//! What is asked of a component without a host: is it good, does it pass its vectors, does it decide as recorded, does it
//! keep state between calls.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use weir_policy_vectors::{Call, Vectors};

use super::KindPolicy;
use super::bindings::Settings;
use super::call::Role;
use super::compiler::Compiler;
use super::decide::Subject;
use super::engine::Metering;
use super::imports::{Grant, Imports};
use super::interface::flush;
use super::life::loader::{Loader, Times, settings};
use super::module::{Compiled, Label, Module, ModuleInfo};
use super::outline;
use super::refusal::LoadError;
use super::trial::comparison::differences;
use super::trial::decisions;
use super::trial::vectors::{self, CaseReport};
use crate::config::PolicyConfig;
use crate::model::{Action, Backlog, Document, Hit, Id, Intent, ToggleChange, Verb};

/// Differences that a report names; the others are counted.
const DIFFERENCES_MAX: usize = 100;

/// What came of test vectors.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TestReport {
    /// The module.
    pub module: ModuleInfo,
    /// The cases, in order.
    pub cases: Vec<CaseReport>,
}

/// A decision that is not as it was.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Line of the log, from 1; of a purity check, the number of the call.
    pub line: usize,
    /// What was called, such as `toggle.decide`.
    pub call: &'static str,
    /// The kind.
    pub kind: String,
    /// What was decided on.
    pub input: Value,
    /// The answer that was recorded, or of a fresh instance.
    pub before: Value,
    /// The answer now, or of a used instance.
    pub now: Value,
}

/// What came of recorded decisions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplayReport {
    /// The module.
    pub module: ModuleInfo,
    /// Calls that were replayed.
    pub calls: u64,
    /// Calls of interfaces that the module does not export.
    pub skipped: u64,
    /// Calls that failed, the first reason.
    pub failed: u64,
    /// The reason of the first that failed.
    pub first_failure: Option<String>,
    /// Lines that are no decision.
    pub unreadable: Vec<String>,
    /// Decisions that differ.
    pub differing: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
    /// Fuel of all calls as it was recorded, where it was.
    pub fuel_before: u64,
    /// Fuel of the same calls now.
    pub fuel_now: u64,
}

/// What came of a purity check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PurityReport {
    /// The module.
    pub module: ModuleInfo,
    /// Calls that were compared.
    pub calls: usize,
    /// Answers of a used instance that a fresh one does not give.
    pub differences: Vec<Difference>,
    /// Calls that failed on a used instance only.
    pub failures: Vec<String>,
}

/// A component that is looked at by itself.
struct Bench {
    loader: Loader,
    compiled: Arc<Compiled>,
    label: Label,
}

impl Bench {
    fn new(
        config: &PolicyConfig,
        compiler: Compiler,
        settings: Settings,
        metering: Metering,
        bytes: &[u8],
        label: &str,
    ) -> Result<Self, LoadError> {
        // One instance shows as much as several.
        let config = PolicyConfig { instances: 1, ..config.clone() };
        let loader = Loader::new(&config, settings, compiler, None, metering)?;
        let compiled = loader.compile(bytes, None, &mut Times::default())?;
        let (name, version) = (compiled.outline.name.clone(), compiled.outline.version.clone());
        let label = Label { name: name.unwrap_or_else(|| label.to_owned()), version };
        Ok(Self { loader, compiled, label })
    }

    fn start(&self) -> Result<Module, LoadError> {
        let imports = Imports::of_host(&self.loader.settings, &self.label.name, Grant::everything(), None, false);
        Module::start(&self.loader.engine, &self.loader.config, &self.compiled, self.label.clone(), imports, 1)
    }

    fn with_vectors(&self, vectors: &Vectors) -> Result<Module, LoadError> {
        vectors::stub(&self.loader.engine, &self.loader.config, &self.compiled, vectors)
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| "unnamed".into(), |stem| stem.to_string_lossy().into_owned())
}

/// Passes a component through the gate: size and shape, compiled, imports and exports, started, the vectors that it
/// carries. Whether its imports are granted is not asked: that is the host's configuration.
///
/// # Errors
/// Why a host would refuse it.
pub fn check(config: &PolicyConfig, compiler: Compiler, bytes: &[u8]) -> Result<ModuleInfo, LoadError> {
    let bench = Bench::new(config, compiler, Settings::default(), Metering::None, bytes, "given")?;
    let module = bench.start()?;
    if let Some(vectors) = bench.compiled.vectors() {
        bench.loader.check_vectors(&bench.compiled, &[vectors], &mut Times::default())?;
    }
    Ok(module.info())
}

/// The same for a file. With `granted`, also whether `config` grants what it imports.
///
/// # Errors
/// Why a host would refuse it.
pub fn check_file(
    config: &PolicyConfig,
    compiler: Compiler,
    path: &Path,
    granted: bool,
) -> Result<ModuleInfo, LoadError> {
    let bytes = outline::read(path, config.module_bytes_max)?;
    let info = check(config, compiler, &bytes)?;
    let name = if info.name == "given" { stem(path) } else { info.name.clone() };
    let grant = Grant::of(config, &name, &info.digest);
    if let Some(import) = info.imports.iter().find(|import| granted && !grant.allows(import)) {
        return Err(LoadError::NotGranted { import: import.clone(), module: name });
    }
    Ok(ModuleInfo { name, ..info })
}

/// Runs test vectors on the component, fuel counted: `vectors`, or else those that it carries.
///
/// # Errors
/// A component that is refused, or that carries no vectors when none are given. Cases that fail are in the report.
pub fn test_file(
    config: &PolicyConfig,
    compiler: Compiler,
    path: &Path,
    vectors: Option<&str>,
) -> Result<TestReport, LoadError> {
    let bytes = outline::read(path, config.module_bytes_max)?;
    let bench = Bench::new(config, compiler, Settings::default(), Metering::Fuel, &bytes, &stem(path))?;
    let given = vectors.map(outline::parse_vectors).transpose()?;
    let vectors = given
        .as_ref()
        .or(bench.compiled.vectors())
        .ok_or_else(|| LoadError::BadVectors { reason: "it carries none: name a file of them".into() })?;
    let cases = vectors::run(&bench.loader.engine, &bench.loader.config, &bench.compiled, vectors)?;
    Ok(TestReport { module: bench.start()?.info(), cases })
}

/// Asks the component again what a decision log has recorded. Its settings are those of `kinds`.
///
/// # Errors
/// A component that is refused, or a log that cannot be read.
pub fn replay_file(
    config: &PolicyConfig,
    compiler: Compiler,
    kinds: &[KindPolicy],
    path: &Path,
    log: &Path,
) -> Result<ReplayReport, LoadError> {
    let bytes = outline::read(path, config.module_bytes_max)?;
    let bench = Bench::new(config, compiler, settings(kinds.iter()), Metering::Fuel, &bytes, &stem(path))?;
    let module = bench.start()?;
    let unreadable = |error: std::io::Error| LoadError::Unreadable { path: log.to_owned(), reason: error.to_string() };
    let mut report = ReplayReport {
        module: module.info(),
        calls: 0,
        skipped: 0,
        failed: 0,
        first_failure: None,
        unreadable: Vec::new(),
        differing: 0,
        differences: Vec::new(),
        fuel_before: 0,
        fuel_now: 0,
    };
    for (index, decision) in decisions::read(log).map_err(unreadable)?.enumerate() {
        match decision {
            Ok(decision) => report.replay(&module, index + 1, &decision),
            Err(reason) => report.unreadable.push(reason),
        }
    }
    Ok(report)
}

impl ReplayReport {
    fn replay(&mut self, module: &Module, line: usize, decision: &weir_policy_vectors::Decision) {
        if !self.module.interfaces.contains(&decision.call.interface()) {
            self.skipped += 1;
            return;
        }
        self.calls += 1;
        match module.ask(Role::Test, &decision.call, None) {
            Ok(answered) => {
                if let (Some(before), Some(now)) = (decision.fuel, answered.fuel) {
                    self.fuel_before += before;
                    self.fuel_now += now;
                }
                for (input, before, now) in differences(&decision.call, &decision.answer, &answered.answer) {
                    self.differing += 1;
                    if self.differences.len() < DIFFERENCES_MAX {
                        self.differences.push(difference(line, &decision.call, input, before, now));
                    }
                }
            }
            Err(failure) => {
                self.failed += 1;
                let reason = || format!("line {line}: {}: {}", failure.cause.as_str(), failure.reason);
                self.first_failure.get_or_insert_with(reason);
            }
        }
    }
}

fn difference(line: usize, call: &Call, input: Value, before: Value, now: Value) -> Difference {
    Difference { line, call: call.name(), kind: call.kind().to_owned(), input, before, now }
}

/// Asks a fresh instance for each call, and one used instance all of them twice: a pure module answers the same. The
/// calls are those of the vectors that it carries, and some of every sort.
///
/// # Errors
/// A component that is refused.
pub fn check_purity(config: &PolicyConfig, compiler: Compiler, path: &Path) -> Result<PurityReport, LoadError> {
    let bytes = outline::read(path, config.module_bytes_max)?;
    let bench = Bench::new(config, compiler, Settings::default(), Metering::None, &bytes, &stem(path))?;
    let vectors = bench.compiled.vectors().cloned().unwrap_or_default();
    let (fresh, used) = (bench.with_vectors(&vectors)?, bench.with_vectors(&vectors)?);
    let info = bench.start()?.info();
    let exported = |call: &Call| info.interfaces.contains(&call.interface());
    let carried = vectors.cases.into_iter().map(|case| case.call);
    let calls: Vec<Call> = carried.chain(calls_of_every_sort()).filter(exported).collect();
    let mut report = PurityReport { module: info, calls: calls.len(), differences: Vec::new(), failures: Vec::new() };
    for (index, call) in calls.iter().chain(calls.iter().rev()).enumerate() {
        fresh.pool.renew();
        let (first, again) = (fresh.ask(Role::Test, call, None), used.ask(Role::Test, call, None));
        match (first, again) {
            (Ok(first), Ok(again)) => {
                for (input, before, now) in differences(call, &first.answer, &again.answer) {
                    report.differences.push(difference(index + 1, call, input, before, now));
                }
            }
            (Ok(_), Err(failure)) => {
                report.failures.push(format!("call {}: {}: {}", index + 1, failure.cause.as_str(), failure.reason));
            }
            // What fails on a fresh instance is no question of purity.
            (Err(_), _) => {}
        }
    }
    Ok(report)
}

fn calls_of_every_sort() -> Vec<Call> {
    let verbs = [Verb::Toggle, Verb::Set, Verb::Clear];
    let id = |n: i64| if n % 2 == 0 { Id::Int(n) } else { Id::Text(format!("id-{n}").into()) };
    let intent = |n: i64| Intent { target: id(n / 3), actor: id(n), verb: verbs[n.unsigned_abs() as usize % 3] };
    let change = |n: i64| ToggleChange {
        target: id(n / 4 % 3),
        actor: id(n % 5),
        action: if n % 3 == 0 { Action::Remove } else { Action::Add },
        at_ms: 0,
    };
    let hit =
        |n: i64| Hit { target: id(n / 3), actor: (n % 3 > 0).then(|| id(n)), by: 1 + n.unsigned_abs() as u32 % 9 };
    let document = |n: i64| Document { id: id(n), actor: id(n / 2), body: body(n).to_string().into() };
    let mut calls = Vec::new();
    for size in [1, 2, 7, 64] {
        calls.push(record_batch(&(0..size).map(intent).collect::<Vec<_>>()));
        calls.push(record_batch(&(0..size).map(hit).collect::<Vec<_>>()));
        calls.push(record_batch(&(0..size).map(document).collect::<Vec<_>>()));
        calls.push(flush::record_coalesce("purity", &(0..size).map(change).collect::<Vec<_>>()));
        let entries = size.unsigned_abs() * 100;
        let backlog = Backlog { entries, targets: entries / 3, bytes: entries * 19, oldest_at_ms: Some(500) };
        calls.push(flush::record_plan("purity", 1_000, &backlog));
    }
    calls
}

fn record_batch<S: Subject>(batch: &[S]) -> Call {
    S::record("purity", 1_000, batch)
}

/// Fields of every sort, some of them with white space around.
fn body(n: i64) -> Value {
    match n % 4 {
        0 => json!({ "title": format!(" title {n} "), "tracks": [{ "title": "a", "seconds": n }] }),
        1 => json!({ "title": "", "description": null, "public": true }),
        2 => json!({}),
        _ => json!({ "text": "x".repeat(n.unsigned_abs() as usize * 10), "nested": { "n": [n, 0.5] } }),
    }
}
