//! A component is tried without a host: on test vectors, on recorded decisions, on itself.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;

use super::local::{load, refused, unusable};
use crate::app::kind_policies;
use crate::cli::EXIT_USAGE;
use crate::policy::{self, Compiler, Difference, PurityReport, ReplayReport, TestReport};

/// Differences that are printed; the JSON holds more.
const DIFFERENCES_PRINTED_MAX: usize = 20;

/// Runs test vectors. Exit code 1 when one fails.
pub(super) fn test(file: &Path, cases: Option<&Path>, config: &[PathBuf], json: bool) -> ExitCode {
    let config = match load(config) {
        Ok(config) => config,
        Err(error) => return unusable("test", &error, json),
    };
    let text = match cases.map(std::fs::read_to_string).transpose() {
        Ok(text) => text,
        Err(error) => {
            let path = cases.unwrap_or(file).display();
            eprintln!("weir policy test: cannot read {path}: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match policy::test_file(&config.policy, Compiler::this_executable(), file, text.as_deref()) {
        Ok(report) => {
            print(json, &report, || print_cases(&report));
            exit(report.cases.iter().all(|case| case.passed))
        }
        Err(error) => refused(file, &error, json),
    }
}

/// Asks again what was recorded. Exit code 1 when something differs or fails.
pub(super) fn replay(file: &Path, decisions: &Path, config: &[PathBuf], json: bool) -> ExitCode {
    let config = match load(config) {
        Ok(config) => config,
        Err(error) => return unusable("replay", &error, json),
    };
    let kinds = kind_policies(&config);
    match policy::replay_file(&config.policy, Compiler::this_executable(), &kinds, file, decisions) {
        Ok(report) => {
            print(json, &report, || print_replay(&report));
            exit(report.differing == 0 && report.failed == 0)
        }
        Err(error) => refused(file, &error, json),
    }
}

/// Compares a fresh with a used instance. Exit code 1 when they differ, and when a function could not be looked at.
pub(super) fn purity(file: &Path, config: &[PathBuf], json: bool) -> ExitCode {
    let config = match load(config) {
        Ok(config) => config,
        Err(error) => return unusable("check", &error, json),
    };
    match policy::check_purity(&config.policy, Compiler::this_executable(), file) {
        Ok(report) => {
            print(json, &report, || print_purity(file, &report));
            exit(report.differences.is_empty() && report.failures.is_empty() && report.not_covered.is_empty())
        }
        Err(error) => refused(file, &error, json),
    }
}

fn exit(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(json: bool, report: &impl Serialize, words: impl FnOnce()) {
    if json { println!("{}", json!(report)) } else { words() }
}

fn print_cases(report: &TestReport) {
    for case in &report.cases {
        let fuel = case.fuel.map_or_else(String::new, |fuel| format!("{fuel} fuel"));
        let state = if case.passed { "ok" } else { "FAILED" };
        println!("{state:<6}  {:<15}  {fuel:>14}  {}", case.call, case.name);
        if let Some(reason) = &case.reason {
            println!("        {reason}");
        }
    }
    let failed = report.cases.iter().filter(|case| !case.passed).count();
    println!(
        "{} {}: {} passed, {failed} failed",
        report.module.name,
        &report.module.digest[..12],
        report.cases.len() - failed
    );
}

fn print_differences(differences: &[Difference], all: u64) {
    for difference in differences.iter().take(DIFFERENCES_PRINTED_MAX) {
        let Difference { line, call, kind, input, before, now } = difference;
        println!("  line {line}: {call} {kind} {input}\n    before {before}\n    now    {now}");
    }
    let more = all.saturating_sub(differences.len().min(DIFFERENCES_PRINTED_MAX) as u64);
    if more > 0 {
        println!("  and {more} more");
    }
}

fn print_replay(report: &ReplayReport) {
    let ReplayReport { calls, skipped, failed, differing, .. } = report;
    println!("{calls} calls replayed, {skipped} skipped (interfaces that it does not export), {failed} failed");
    if let Some(failure) = &report.first_failure {
        println!("  the first: {failure}");
    }
    for line in &report.unreadable {
        println!("  not read: {line}");
    }
    println!("{differing} decisions differ");
    print_differences(&report.differences, *differing);
    if report.fuel_before > 0 {
        println!("fuel {} before, {} now", report.fuel_before, report.fuel_now);
    }
}

fn print_purity(file: &Path, report: &PurityReport) {
    let print_rest = || report.not_covered.iter().for_each(|function| println!("  not looked at: {function}"));
    if report.differences.is_empty() && report.failures.is_empty() {
        println!("{}: pure, as far as {} calls show", file.display(), report.calls);
        print_rest();
        return;
    }
    println!("{}: not pure: a used instance answers otherwise than a fresh one", file.display());
    print_differences(&report.differences, report.differences.len() as u64);
    report.failures.iter().for_each(|failure| println!("  {failure}"));
    print_rest();
}
