//! Whether a component keeps state between calls.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;
use weir_policy_vectors::Call;

use super::bench::{Bench, Difference, difference, stem};
use super::calls::{calls_of_every_sort, exported_functions};
use crate::call::Role;
use crate::compiler::Compiler;
use crate::engine::Metering;
use crate::imports::Settings;
use crate::module::ModuleInfo;
use crate::outline;
use crate::refusal::LoadError;
use crate::trial::comparison::{decisions, differences};
use weir_core::config::PolicyConfig;

/// What came of a purity check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PurityReport {
    /// The module.
    pub module: ModuleInfo,
    /// Calls that were compared.
    pub calls: usize,
    /// Functions that it exports and of which no call could be compared, each with the reason.
    pub not_covered: Vec<String>,
    /// Answers of a used instance that a fresh one does not give.
    pub differences: Vec<Difference>,
    /// Calls that failed on a used instance only.
    pub failures: Vec<String>,
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
    let functions = exported_functions(&info);
    let exported = |call: &Call| info.interfaces.contains(&call.interface());
    let carried = vectors.cases.into_iter().map(|case| case.call);
    let calls: Vec<Call> = carried.chain(calls_of_every_sort("purity")).filter(exported).collect();
    let mut report =
        PurityReport { module: info, calls: 0, not_covered: Vec::new(), differences: Vec::new(), failures: Vec::new() };
    let (mut covered, mut failed) = (BTreeSet::new(), BTreeMap::new());
    for (index, call) in calls.iter().chain(calls.iter().rev()).enumerate() {
        fresh.pool.renew();
        let (first, again) = (fresh.ask(Role::Test, call, None), used.ask(Role::Test, call, None));
        match (first, again) {
            (Ok(first), Ok(again)) => {
                report.calls += 1;
                // Where nothing was asked, nothing was compared.
                if decisions(call) > 0 {
                    covered.insert(call.name());
                }
                for (input, before, now) in differences(call, &first.answer, &again.answer) {
                    report.differences.push(difference(index + 1, call, input, before, now));
                }
            }
            (Ok(_), Err(failure)) => {
                report.failures.push(format!("call {}: {}: {}", index + 1, failure.cause.as_str(), failure.reason));
            }
            // What fails on a fresh instance is no question of purity, but then nothing was compared.
            (Err(failure), _) => {
                failed.entry(call.name()).or_insert_with(|| format!("{}: {}", failure.cause.as_str(), failure.reason));
            }
        }
    }
    let missing = functions.into_iter().filter(|function| !covered.contains(function.as_str()));
    let why = |function: String| match failed.get(function.as_str()) {
        Some(reason) => format!("{function}: its calls fail: {reason}"),
        None => format!("{function}: there is no call of it"),
    };
    report.not_covered = missing.map(why).collect();
    Ok(report)
}
