//! A table on standard output, and the same as JSON in `target/bench/`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

/// A demand on a measured value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Aim {
    /// Not less than this.
    AtLeast(f64),
    /// Not more than this.
    AtMost(f64),
}

impl Aim {
    /// Whether `value` fulfils it.
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

/// How far from the usual ratio one may be in a smoke test: the machine is busy, the build is one for tests, and sizes are
/// small. What is farther off measures something else.
const SMOKE_FACTOR: f64 = 4.0;

/// The same for what waits for the disk.
const DISK_FACTOR: f64 = 10.0;

/// Collects the rows of a benchmark, the aims that it answers to, and the ratios that `host/docs/speed.md` tells of.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Value>,
    aims: Vec<(String, f64, Aim)>,
    usual: Vec<Usual>,
    is_smoke: bool,
}

/// A ratio beside what it usually is.
#[derive(Debug)]
struct Usual {
    what: String,
    value: f64,
    usual: f64,
    factor: f64,
}

impl Usual {
    fn to_json(&self) -> Value {
        json!({ "ratio": self.what, "value": self.value, "usual": self.usual })
    }

    fn is_near(&self) -> bool {
        (self.usual / self.factor..=self.usual * self.factor).contains(&self.value)
    }
}

impl Report {
    /// Of a run that only shows whether the benchmark works: nobody looks at aims, but a ratio that is far from the usual
    /// one is a failure.
    pub fn smoke() -> Self {
        Self { is_smoke: true, ..Self::default() }
    }

    /// What a ratio usually is: `smoke` with the sizes of a smoke test in a build for tests, where that makes a difference.
    pub fn in_smoke(&self, smoke: f64, otherwise: f64) -> f64 {
        if self.is_smoke { smoke } else { otherwise }
    }

    /// Keeps a ratio with what it usually is, as `host/docs/speed.md` has it.
    pub fn usual(&mut self, what: impl Into<String>, value: f64, usual: f64) {
        self.usual.push(Usual { what: what.into(), value, usual, factor: SMOKE_FACTOR });
    }

    /// The same for a ratio that hangs on how long the disk takes, which others use too.
    pub fn usual_of_disk(&mut self, what: impl Into<String>, value: f64, usual: f64) {
        self.usual.push(Usual { what: what.into(), value, usual, factor: DISK_FACTOR });
    }

    /// Prints a title and the heads of the columns; widths are those of [`Report::row`].
    pub fn section(&self, title: &str, columns: &[&str]) {
        println!("\n{title}");
        let heads: String = columns.iter().map(|column| format!("{column:>12}")).collect();
        println!("{:<46}{heads}", "");
    }

    /// Prints and keeps one row: named values, each already cut to the digits that mean something.
    pub fn row(&mut self, section: &str, name: &str, values: &[(&str, Option<f64>)]) {
        let cells: String = values.iter().map(|(_, value)| format!("{:>12}", cell(*value))).collect();
        println!("{name:<46}{cells}");
        let mut row = json!({ "section": section, "name": name });
        for (column, value) in values {
            row[*column] = json!(value);
        }
        self.rows.push(row);
    }

    /// Keeps a measured value with what is aimed at.
    pub fn aim(&mut self, what: impl Into<String>, value: f64, aim: Aim) {
        self.aims.push((what.into(), value, aim));
    }

    /// Prints the aims, met and missed, and the ratios beside the usual ones; writes `target/bench/<name>.json`. Fails in a
    /// smoke test where nothing was measured or a ratio is far from the usual one.
    pub fn finish(self, name: &str) -> ExitCode {
        let mut aims = Vec::new();
        if !self.aims.is_empty() && !self.is_smoke {
            println!("\n{:<70}{:>12}{:>12}  ", "aim", "aimed at", "measured");
        }
        for (what, value, aim) in self.aims.iter().filter(|_| !self.is_smoke) {
            let (sign, bound) = match aim {
                Aim::AtLeast(bound) => (">=", *bound),
                Aim::AtMost(bound) => ("<=", *bound),
            };
            let verdict = if aim.is_met(*value) { "met" } else { "MISSED" };
            let aimed = format!("{sign} {}", cell(Some(bound)));
            println!("{what:<70}{aimed:>12}{:>12}  {verdict}", cell(Some(*value)));
            aims.push(json!({ "aim": what, "sign": sign, "bound": bound, "value": value, "verdict": verdict }));
        }
        if !self.usual.is_empty() {
            println!("\n{:<70}{:>12}{:>12}  ", "ratio", "usual", "measured");
        }
        for usual in &self.usual {
            let verdict = if usual.is_near() { "" } else { "FAR OFF" };
            println!("{:<70}{:>12}{:>12}  {verdict}", usual.what, cell(Some(usual.usual)), cell(Some(usual.value)));
        }
        if self.is_smoke {
            return self.verdict(name);
        }
        let usual: Vec<Value> = self.usual.iter().map(Usual::to_json).collect();
        let report =
            json!({ "benchmark": name, "machine": machine(), "rows": self.rows, "aims": aims, "ratios": usual });
        let directory = target_directory().join("bench");
        fs::create_dir_all(&directory).expect("target/bench");
        let path = directory.join(format!("{name}.json"));
        let text = serde_json::to_string_pretty(&report).expect("JSON");
        fs::write(&path, text).expect("the report");
        println!("\nwritten: target/bench/{name}.json");
        ExitCode::SUCCESS
    }

    /// The line and the end of a smoke test.
    fn verdict(&self, name: &str) -> ExitCode {
        let far = self.usual.iter().filter(|usual| !usual.is_near()).count();
        let is_well = far == 0 && !self.usual.is_empty();
        let word = if is_well { "ok" } else { "FAILED" };
        let (rows, ratios) = (self.rows.len(), self.usual.len());
        println!("bench {name}: {word}, {rows} rows, {ratios} ratios, {far} of them far off");
        ExitCode::from(u8::from(!is_well))
    }
}

/// Where cargo builds.
pub fn target_directory() -> PathBuf {
    let executable = std::env::current_exe().expect("the path of this executable");
    executable.ancestors().nth(3).expect("target/<profile>/deps/<bench>").to_owned()
}

fn cell(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(value) if value.abs() >= 1_000.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 100.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

/// Processor and number of cores, for the reader of a figure.
pub fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    let model = model.trim_start_matches(['\t', ' ', ':']);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores of {model}")
}
