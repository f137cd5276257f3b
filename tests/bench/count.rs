//! Instructions and page faults of single things that the host does, against what was recorded.
//!
//! `tests/bench/run count [--record "why"]`

use std::path::Path;
use std::process::{Command, ExitCode};

use clap::Args;
use weir_tests::bench::counted::bounds::Bounds;
use weir_tests::bench::counted::count;

/// How often everything is counted when something is to be recorded, or has grown.
const RUNS_MAX: usize = 3;

/// Counts, and compares with `tests/bench/counted.toml`.
#[derive(Debug, Args)]
pub struct Options {
    /// Records what was counted, with this reason for what has changed.
    #[arg(long)]
    record: Option<String>,
}

/// Runs it.
pub fn run(options: &Options) -> ExitCode {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/counted.toml");
    let bounds = Bounds::read(&file);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut counted = runtime.block_on(count());
    let rustc = Command::new("rustc").arg("--version").output().expect("rustc");
    let rustc = String::from_utf8_lossy(&rustc.stdout).trim().to_owned();
    // What comes by the clock can only add, so the least of several runs is what a thing costs.
    let mut runs = 1;
    while runs < RUNS_MAX && (options.record.is_some() || !bounds.faults(&counted, &rustc).is_empty()) {
        for (least, again) in counted.iter_mut().zip(runtime.block_on(count())) {
            *least = least.least(&again);
        }
        runs += 1;
    }
    println!("the least of {runs} runs");
    println!("{:<32}{:>14}{:>14}{:>14}{:>14}", "", "instructions", "recorded", "page faults", "recorded");
    for counts in &counted {
        let recorded = bounds.of(&counts.name);
        let cell =
            |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
        println!(
            "{:<32}{:>14.0}{:>14}{:>14.2}{:>14}",
            counts.name,
            counts.instructions,
            cell(recorded.map(|recorded| recorded.0), 0),
            counts.page_faults,
            cell(recorded.map(|recorded| recorded.1), 2)
        );
    }
    if let Some(reason) = &options.record {
        bounds.recorded(&counted, &rustc, reason).write(&file);
        println!("recorded in tests/bench/counted.toml");
        return ExitCode::SUCCESS;
    }
    let faults = bounds.faults(&counted, &rustc);
    for fault in &faults {
        println!("count: {fault}");
    }
    if faults.is_empty() {
        println!("count: ok, nothing has grown beyond its bound");
        return ExitCode::SUCCESS;
    }
    println!("count: FAILED; when it is worth it: tests/bench/run count --record \"why\"");
    ExitCode::FAILURE
}
