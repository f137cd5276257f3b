//! A table on standard output, and the same as JSON in `target/bench/`.

use std::fs;

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

/// Collects the rows of a benchmark and the aims that it answers to.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Value>,
    aims: Vec<(String, f64, Aim)>,
}

impl Report {
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

    /// Prints the aims, met and missed, and writes `target/bench/<name>.json`.
    pub fn finish(self, name: &str) {
        println!("\n{:<70}{:>12}{:>12}  ", "aim", "aimed at", "measured");
        let mut aims = Vec::new();
        for (what, value, aim) in &self.aims {
            let (sign, bound) = match aim {
                Aim::AtLeast(bound) => (">=", *bound),
                Aim::AtMost(bound) => ("<=", *bound),
            };
            let verdict = if aim.is_met(*value) { "met" } else { "MISSED" };
            let aimed = format!("{sign} {}", cell(Some(bound)));
            println!("{what:<70}{aimed:>12}{:>12}  {verdict}", cell(Some(*value)));
            aims.push(json!({ "aim": what, "sign": sign, "bound": bound, "value": value, "verdict": verdict }));
        }
        let report = json!({ "benchmark": name, "machine": machine(), "rows": self.rows, "aims": aims });
        let target = std::env::current_exe().expect("the path of this executable");
        let directory = target.ancestors().nth(3).expect("target/<profile>/deps/<bench>").join("bench");
        fs::create_dir_all(&directory).expect("target/bench");
        let path = directory.join(format!("{name}.json"));
        let text = serde_json::to_string_pretty(&report).expect("JSON");
        fs::write(&path, text).expect("the report");
        println!("\nwritten: target/bench/{name}.json");
    }
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
