//! Who did what with modules, on disk: kept by count and by age, and what changed something longer than what was refused.
//!
//! One line of JSON each, newest last. A line is bounded, whatever was handed in, so that no upload can push the others out.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::registry::{Durable, FILE_MODE, create_dir, remove_file, write};
use crate::config::AuditConfig;
use crate::policy::said::clip;

/// Bytes of an outcome that are kept.
const OUTCOME_BYTES_MAX: usize = 300;
/// The same of who, and of which module.
const NAME_BYTES_MAX: usize = 150;
/// How often lines are looked at for their age, in milliseconds.
const LOOK_MS: u64 = 3_600_000;
const DAY_MS: u64 = 86_400_000;
/// The outcome of what was done.
pub(in crate::policy) const DONE: &str = "done";

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::policy) struct AuditLine {
    pub(in crate::policy) at_ms: u64,
    pub(in crate::policy) by: String,
    pub(in crate::policy) what: String,
    pub(in crate::policy) module: Option<String>,
    pub(in crate::policy) outcome: String,
}

/// The log of a registry.
pub(in crate::policy) struct AuditTrail {
    dir: PathBuf,
    bounds: AuditConfig,
    /// Nothing is written.
    is_look: bool,
    /// One writer at a time.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Lines of the file; `None` before it was read.
    lines: Option<usize>,
    /// When lines were looked at for their age, in Unix milliseconds.
    looked_at_ms: u64,
}

impl AuditTrail {
    pub(in crate::policy) fn new(dir: &Path, bounds: AuditConfig) -> Self {
        Self { dir: dir.to_owned(), bounds, is_look: false, state: Mutex::default() }
    }

    /// Of a registry that is only looked at: writes nothing when `is_look`.
    pub(in crate::policy) fn only_looked_at(self, is_look: bool) -> Self {
        Self { is_look, ..self }
    }

    /// Writes a line down. What cannot be written is said in the host's log.
    pub(in crate::policy) fn note(&self, line: &AuditLine) {
        if self.is_look {
            return;
        }
        let line = AuditLine {
            at_ms: line.at_ms,
            by: clip(&line.by, NAME_BYTES_MAX),
            what: line.what.clone(),
            module: line.module.as_deref().map(|module| clip(module, NAME_BYTES_MAX)),
            outcome: clip(&line.outcome, OUTCOME_BYTES_MAX),
        };
        if let Err(error) = self.append(&line) {
            let AuditLine { by, what, module, outcome, .. } = line;
            tracing::error!(error, by, what, module, outcome, "the audit log cannot be written");
        }
    }

    fn append(&self, line: &AuditLine) -> Result<(), String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        create_dir(&self.dir)?;
        let path = self.path();
        let mut text = serde_json::to_vec(line).map_err(|error| error.to_string())?;
        text.push(b'\n');
        let opened = OpenOptions::new().create(true).append(true).mode(FILE_MODE).open(&path);
        let written = opened.and_then(|mut file| file.write_all(&text));
        written.map_err(|error| format!("{}: {error}", path.display()))?;
        let lines = state.lines.map_or_else(|| self.read().len(), |lines| lines + 1);
        state.lines = Some(lines);
        // A little more than is kept, so that not every line rewrites the file.
        let many = lines > self.bounds.entries_max + self.bounds.entries_max / 10;
        // A clock that was set back looks again.
        if many || line.at_ms.abs_diff(state.looked_at_ms) > LOOK_MS {
            state.looked_at_ms = line.at_ms;
            state.lines = Some(self.prune(line.at_ms)?);
        }
        Ok(())
    }

    /// Drops what need not be kept: how many lines are left.
    fn prune(&self, now_ms: u64) -> Result<usize, String> {
        let lines = self.read();
        let before = lines.len();
        let kept = kept(lines, &self.bounds, now_ms);
        let older = self.dir.join("audit.1.ndjson");
        if kept.len() < before || older.exists() {
            let mut text = Vec::new();
            for line in &kept {
                serde_json::to_writer(&mut text, line).map_err(|error| error.to_string())?;
                text.push(b'\n');
            }
            write(&self.path(), &text, Durable::FileAndName)?;
            // The older half of a trail that an earlier weir wrote: it is in the file now.
            remove_file(&older)?;
        }
        Ok(kept.len())
    }

    /// The last `limit` lines, newest first.
    pub(in crate::policy) fn last(&self, limit: usize) -> Vec<AuditLine> {
        let mut lines = self.read();
        lines.reverse();
        lines.truncate(limit);
        lines
    }

    /// All lines, oldest first. What is cut short by a crash is left out.
    fn read(&self) -> Vec<AuditLine> {
        let text = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        let texts = [text(self.dir.join("audit.1.ndjson")), text(self.path())];
        texts.iter().flat_map(|text| text.lines()).filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn path(&self) -> PathBuf {
        self.dir.join("audit.ndjson")
    }
}

/// The lines that stay: young enough, and not too many. What was refused goes before what changed something.
fn kept(mut lines: Vec<AuditLine>, bounds: &AuditConfig, now_ms: u64) -> Vec<AuditLine> {
    let oldest_ms = now_ms.saturating_sub(bounds.age_days_max.saturating_mul(DAY_MS));
    lines.retain(|line| line.at_ms >= oldest_ms);
    let mut surplus = lines.len().saturating_sub(bounds.entries_max);
    lines.retain(|line| {
        let goes = surplus > 0 && line.outcome != DONE;
        surplus -= usize::from(goes);
        !goes
    });
    lines.drain(..surplus.min(lines.len()));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at_ms: u64, what: &str, outcome: &str) -> AuditLine {
        AuditLine { at_ms, by: "me".into(), what: what.into(), module: None, outcome: outcome.into() }
    }

    fn bounds(entries_max: usize) -> AuditConfig {
        AuditConfig { entries_max, age_days_max: 10 }
    }

    #[test]
    fn refused_uploads_do_not_erase_what_was_done() {
        let dir = tempfile::tempdir().unwrap();
        let trail = AuditTrail::new(dir.path(), bounds(20));
        for at_ms in 0..5 {
            trail.note(&line(at_ms, "activate", DONE));
        }
        let huge = "weir:policy/no-such@0.1.0, ".repeat(100_000);
        for at_ms in 5..505 {
            trail.note(&line(at_ms, "upload", &huge));
        }
        let lines = trail.last(1_000);
        assert!((20..=22).contains(&lines.len()), "{}", lines.len());
        assert_eq!(lines[0].at_ms, 504, "newest first");
        assert_eq!(lines.iter().filter(|line| line.what == "activate").count(), 5);
        assert!(std::fs::metadata(trail.path()).unwrap().len() < 20_000);
        // Another host of the same directory goes on with it.
        let trail = AuditTrail::new(dir.path(), bounds(20));
        trail.note(&line(505, "rollback", DONE));
        assert_eq!((trail.last(1)[0].what.as_str(), trail.last(1).len()), ("rollback", 1));
        assert_eq!(trail.last(1_000).iter().filter(|line| line.outcome == DONE).count(), 6);
    }

    #[test]
    fn lines_go_by_their_age() {
        let dir = tempfile::tempdir().unwrap();
        let trail = AuditTrail::new(dir.path(), bounds(20));
        std::fs::write(dir.path().join("audit.1.ndjson"), serde_json::to_vec(&line(1, "upload", DONE)).unwrap())
            .unwrap();
        trail.note(&line(2, "activate", DONE));
        trail.note(&line(3 + DAY_MS, "activate", DONE));
        assert_eq!(trail.last(9).len(), 3, "the older half of an earlier weir is read too");
        trail.note(&line(3 + 10 * DAY_MS, "rollback", DONE));
        let left: Vec<u64> = trail.last(9).iter().map(|line| line.at_ms).collect();
        assert_eq!(left, [3 + 10 * DAY_MS, 3 + DAY_MS]);
    }

    #[test]
    fn of_too_many_the_oldest_go() {
        let lines = (0..9).map(|at_ms| line(at_ms, "activate", DONE)).collect();
        let left: Vec<u64> = kept(lines, &bounds(3), 9).iter().map(|line| line.at_ms).collect();
        assert_eq!(left, [6, 7, 8]);
    }
}
