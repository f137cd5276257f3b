//! What was recorded of the counts, and whether it still holds.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What instructions may grow by, without the file being changed. Of one tree they are up to 1 % apart.
const GROWTH_MAX: f64 = 0.03;
/// The same of page faults, which are up to 16 % apart.
const FAULTS_GROWTH_MAX: f64 = 0.20;
/// Page faults for each that come and go by themselves: the kernel and the allocator round.
const FAULTS_SLACK: f64 = 0.5;

const HEAD: &str =
    "# What a request costs, counted (`tests/bench/run count`), not timed. CI fails when instructions grow by
# more than 3 %, or page faults by more than 20 % and half a fault. Whoever makes it grow and means it records it, with
# the reason: `tests/bench/run count --record \"why\"`. Page faults are counted with an allocator that gives memory back
# at once, so that each large buffer that is not reused is one.
";

/// Counts of one thing that the host does.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    /// What, and on which store.
    pub name: String,
    /// Instructions for each.
    pub instructions: f64,
    /// Page faults for each.
    pub page_faults: f64,
}

impl Counts {
    /// The lesser of each, of two counts of the same thing.
    pub fn least(&self, other: &Self) -> Self {
        assert_eq!(self.name, other.name, "counts of different things");
        Self {
            name: self.name.clone(),
            instructions: self.instructions.min(other.instructions),
            page_faults: self.page_faults.min(other.page_faults),
        }
    }
}

/// The file.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// The compiler that made the binary that was counted.
    rustc: String,
    #[serde(rename = "count", default)]
    counts: Vec<Recorded>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    name: String,
    instructions: u64,
    page_faults: f64,
    /// Why it is what it is.
    reason: String,
}

impl Bounds {
    /// Reads the file; empty when there is none.
    pub fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap_or_default();
        if text.is_empty() { Self::default() } else { toml::from_str(&text).expect("the recorded counts") }
    }

    /// Writes the file.
    pub fn write(&self, file: &Path) {
        let text = toml::to_string(self).expect("TOML");
        fs::write(file, format!("{HEAD}{text}")).expect("the file of the counts");
    }

    /// With what was counted now. The reason stays where the count has hardly changed.
    pub fn recorded(&self, counted: &[Counts], rustc: &str, reason: &str) -> Self {
        let of = |counts: &Counts| {
            let new = Recorded {
                name: counts.name.clone(),
                instructions: counts.instructions.round() as u64,
                page_faults: (counts.page_faults * 100.0).round() / 100.0,
                reason: reason.to_owned(),
            };
            let before = self.counts.iter().find(|before| before.name == counts.name);
            match before {
                Some(before) if before.faults(counts).is_empty() && new.faults(&before.counts()).is_empty() => {
                    Recorded { reason: before.reason.clone(), ..new }
                }
                _ => new,
            }
        };
        Self { rustc: rustc.to_owned(), counts: counted.iter().map(of).collect() }
    }

    /// A line for each bound that does not hold.
    pub fn faults(&self, counted: &[Counts], rustc: &str) -> Vec<String> {
        let mut faults = Vec::new();
        for counts in counted {
            match self.counts.iter().find(|recorded| recorded.name == counts.name) {
                Some(recorded) => faults.extend(recorded.faults(counts)),
                None => faults.push(format!("{}: not recorded", counts.name)),
            }
        }
        let is_counted = |recorded: &&Recorded| !counted.iter().any(|counts| counts.name == recorded.name);
        faults.extend(self.counts.iter().filter(is_counted).map(|recorded| format!("{}: not counted", recorded.name)));
        if !faults.is_empty() && self.rustc != rustc {
            faults.push(format!("recorded with {}, counted with {rustc}", self.rustc));
        }
        faults
    }

    /// What was recorded of it: instructions and page faults.
    pub fn of(&self, name: &str) -> Option<(f64, f64)> {
        let recorded = self.counts.iter().find(|recorded| recorded.name == name)?;
        Some((recorded.instructions as f64, recorded.page_faults))
    }
}

impl Recorded {
    fn counts(&self) -> Counts {
        Counts { name: self.name.clone(), instructions: self.instructions as f64, page_faults: self.page_faults }
    }

    fn faults(&self, counts: &Counts) -> Vec<String> {
        let mut faults = Vec::new();
        let mut look = |what: &str, recorded: f64, bound: f64, counted: f64| {
            if counted > bound {
                let percent = (counted / recorded.max(f64::MIN_POSITIVE) - 1.0) * 100.0;
                faults.push(format!("{}: {what} {recorded:.1} -> {counted:.1} (+{percent:.1} %)", self.name));
            }
        };
        let instructions = self.instructions as f64;
        look("instructions", instructions, instructions * (1.0 + GROWTH_MAX), counts.instructions);
        let faults_max = self.page_faults * (1.0 + FAULTS_GROWTH_MAX) + FAULTS_SLACK;
        look("page faults", self.page_faults, faults_max, counts.page_faults);
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(instructions: f64, page_faults: f64) -> Vec<Counts> {
        vec![Counts { name: "one request".into(), instructions, page_faults }]
    }

    #[test]
    fn five_percent_more_are_caught_and_what_is_meant_is_recorded_with_its_reason() {
        let bounds = Bounds::default().recorded(&counts(100_000.0, 2.0), "1.95", "first");
        for (instructions, page_faults, faults) in
            [(100_000.0, 2.0, 0), (102_900.0, 2.6, 0), (105_000.0, 2.0, 1), (90_000.0, 3.0, 1), (105_000.0, 9.0, 2)]
        {
            let found = bounds.faults(&counts(instructions, page_faults), "1.95");
            assert_eq!(found.len(), faults, "{instructions} {page_faults}: {found:?}");
        }
        assert!(bounds.faults(&[], "1.95")[0].contains("not counted"));
        assert!(Bounds::default().faults(&counts(1.0, 0.0), "")[0].contains("not recorded"));
        let other = bounds.faults(&counts(105_000.0, 2.0), "1.96");
        assert!(other.iter().any(|line| line.contains("counted with 1.96")), "{other:?}");

        let again = bounds.recorded(&counts(101_000.0, 2.0), "1.95", "second");
        assert_eq!((again.counts[0].reason.as_str(), again.counts[0].instructions), ("first", 101_000));
        let more = bounds.recorded(&counts(110_000.0, 2.0), "1.95", "checks the effect of each row");
        assert_eq!(more.counts[0].reason, "checks the effect of each row");
        assert!(more.faults(&counts(110_000.0, 2.0), "1.95").is_empty());
    }
}
