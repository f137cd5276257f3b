//! Is a component good, does it pass its vectors, does it decide as recorded?

use std::path::Path;

use serde::Serialize;
use weir_policy_vectors::Decision;

use super::bench::{Bench, Difference, difference, stem};
use super::calls;
use crate::call::Role;
use crate::compiler::Compiler;
use crate::decision::KindPolicy;
use crate::engine::Metering;
use crate::imports::{Grant, Settings};
use crate::module::{Module, ModuleInfo};
use crate::outline;
use crate::refusal::LoadError;
use crate::registry::loader::{Times, settings};
use crate::trial::comparison::differences;
use crate::trial::decisions;
use crate::trial::vectors::{self, CaseReport};
use weir_core::config::{PolicyConfig, is_reserved_module_name};

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

/// Passes a component through the gate: size and shape, compiled, imports and exports, started, the vectors that it
/// carries. Whether its imports are granted is not asked: that is the host's configuration. Then each of its functions is
/// called for each of `kinds`, or for one without settings; those that fail are in [`ModuleInfo::failing`].
///
/// # Errors
/// Why a host would refuse it.
pub fn check(
    config: &PolicyConfig,
    compiler: Compiler,
    kinds: &[KindPolicy],
    bytes: &[u8],
) -> Result<ModuleInfo, LoadError> {
    let bench = Bench::new(config, compiler, settings(kinds.iter()), Metering::None, bytes, "given")?;
    if let Some(name) = bench.compiled.outline.name.as_ref().filter(|name| is_reserved_module_name(name)) {
        return Err(LoadError::ReservedName { name: name.clone() });
    }
    let module = bench.start()?;
    if let Some(vectors) = bench.compiled.vectors() {
        bench.loader.check_vectors(&bench.compiled, &[vectors], &mut Times::default())?;
    }
    let info = module.info();
    let failing = calls::call_all(&bench, &info, kinds)?.into_values().collect();
    Ok(ModuleInfo { failing, ..info })
}

/// The same for a file. With `granted`, also whether `config` grants what it imports.
///
/// # Errors
/// Why a host would refuse it, or that no call of one of its functions has an answer.
pub fn check_file(
    config: &PolicyConfig,
    compiler: Compiler,
    kinds: &[KindPolicy],
    path: &Path,
    granted: bool,
) -> Result<ModuleInfo, LoadError> {
    let bytes = outline::read(path, config.module_bytes_max)?;
    let info = check(config, compiler, kinds, &bytes)?;
    if let Some(never) = info.failing.iter().find(|failing| failing.never) {
        return Err(LoadError::NeverAnswers { function: never.function.clone(), reason: never.reason.clone() });
    }
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
    fn replay(&mut self, module: &Module, line: usize, decision: &Decision) {
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
