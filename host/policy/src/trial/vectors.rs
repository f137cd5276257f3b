//! Test vectors, run on the component: the same engine, the same limits, a fresh instance for each case.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use weir_policy_vectors::{Case, Vectors};

use crate::call::Role;
use crate::engine::PolicyEngine;
use crate::imports::Imports;
use crate::module::{Compiled, Label, Module, Start};
use crate::refusal::LoadError;
use weir_core::clock::Clock;
use weir_core::config::PolicyConfig;

/// What came of one case.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// What was called, such as `toggle.decide`.
    pub call: &'static str,
    /// Whether the answer was the expected one.
    pub passed: bool,
    /// What was expected and what came, where it was not.
    pub reason: Option<String>,
    /// Fuel that the call used, where it is counted.
    pub fuel: Option<u64>,
    /// Time of the call, in microseconds.
    pub micros: u64,
}

/// Starts a module that sees what `vectors` say.
pub(crate) fn stub(
    engine: &PolicyEngine,
    config: &PolicyConfig,
    compiled: &Compiled,
    vectors: &Vectors,
) -> Result<Module, LoadError> {
    let settings = Arc::new(vectors.settings.clone().into_iter().collect());
    let imports = Imports::of_vectors(settings, &vectors.granted);
    let label = Label { name: "under-test".into(), version: None };
    Module::start(engine, config, compiled, Start { label, imports, instances: 1, clock: Clock::Real })
}

/// Runs every case. Cases of an interface that the component does not export fail.
pub(crate) fn run(
    engine: &PolicyEngine,
    config: &PolicyConfig,
    compiled: &Compiled,
    vectors: &Vectors,
) -> Result<Vec<CaseReport>, LoadError> {
    let module = stub(engine, config, compiled, vectors)?;
    Ok(vectors.cases.iter().map(|case| run_case(&module, case)).collect())
}

/// Runs the cases of all files, in no more time than compiling may take: how many passed. Thousands of
/// cases, each as long as a call may be, would keep the gate shut for hours.
pub(crate) fn gate(
    engine: &PolicyEngine,
    config: &PolicyConfig,
    compiled: &Compiled,
    files: &[&Vectors],
) -> Result<usize, LoadError> {
    let deadline_ms = config.compile_deadline_ms;
    let (began, deadline) = (Instant::now(), Duration::from_millis(deadline_ms));
    let cases = files.iter().map(|vectors| vectors.cases.len()).sum();
    let mut reports = Vec::with_capacity(cases);
    for vectors in files {
        let module = stub(engine, config, compiled, vectors)?;
        for case in &vectors.cases {
            if began.elapsed() >= deadline {
                // What has failed says more.
                verdict(&reports, cases)?;
                return Err(LoadError::VectorsDeadline { run: reports.len(), cases, deadline_ms });
            }
            reports.push(run_case(&module, case));
        }
    }
    verdict(&reports, cases)?;
    Ok(reports.len())
}

fn run_case(module: &Module, case: &Case) -> CaseReport {
    // What stands for the granted imports begins anew with each instance.
    module.pool.renew();
    let mut report = CaseReport {
        name: case.name.clone(),
        call: case.call.name(),
        passed: false,
        reason: None,
        fuel: None,
        micros: 0,
    };
    match module.ask(Role::Test, &case.call, None) {
        Ok(answered) => {
            report.fuel = answered.fuel;
            report.micros = u64::try_from(answered.elapsed.as_micros()).unwrap_or(u64::MAX);
            report.passed = answered.answer == case.expect;
            if !report.passed {
                report.reason = Some(format!("expected {}, got {}", text(&case.expect), text(&answered.answer)));
            }
        }
        Err(failure) => report.reason = Some(format!("{}: {}", failure.cause.as_str(), failure.reason)),
    }
    report
}

fn text(answer: &impl Serialize) -> String {
    serde_json::to_string(answer).unwrap_or_default()
}

/// Whether all of them passed; there are `cases` in all.
fn verdict(reports: &[CaseReport], cases: usize) -> Result<(), LoadError> {
    let failing: Vec<&CaseReport> = reports.iter().filter(|report| !report.passed).collect();
    match failing.first() {
        None => Ok(()),
        Some(first) => Err(LoadError::Vectors {
            failed: failing.len(),
            cases,
            first: format!("{:?}: {}", first.name, first.reason.as_deref().unwrap_or_default()),
        }),
    }
}
