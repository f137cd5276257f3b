//! Who did what with modules, on disk: kept by count and by age, and what changed something longer than what was
//! refused.
//!
//! One line of JSON each, newest last. A line is bounded, whatever was handed in, so that no upload can push the others
//! out.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::files::{Durable, FILE_MODE, create_dir, remove_file, write};
use crate::said::clip;
use weir_core::config::AuditConfig;

/// Bytes of an outcome that are kept.
const OUTCOME_BYTES_MAX: usize = 300;
/// The same of who, and of which module.
const NAME_BYTES_MAX: usize = 150;
/// How often lines are looked at for their age, in milliseconds.
const LOOK_MS: u64 = 3_600_000;
const DAY_MS: u64 = 86_400_000;
/// The outcome of what was done.
pub(super) const DONE: &str = "done";

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AuditLine {
    pub(super) at_ms: u64,
    pub(super) by: String,
    pub(super) what: String,
    pub(super) module: Option<String>,
    pub(super) outcome: String,
}

/// The log of a registry.
pub(crate) struct AuditTrail {
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
    pub(crate) fn new(dir: &Path, bounds: AuditConfig) -> Self {
        Self { dir: dir.to_owned(), bounds, is_look: false, state: Mutex::default() }
    }

    /// Of a registry that is only looked at: writes nothing when `is_look`.
    pub(crate) fn only_looked_at(self, is_look: bool) -> Self {
        Self { is_look, ..self }
    }

    /// Writes a line. If that fails, the host's log says so.
    pub(super) fn note(&self, line: &AuditLine) {
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
        let opened = OpenOptions::new().create(true).read(true).append(true).mode(FILE_MODE).open(&path);
        let written = opened.and_then(|mut file| {
            if state.lines.is_none() && is_torn(&file)? {
                // A crash cut the last line short: it must not swallow this one.
                text.insert(0, b'\n');
            }
            file.write_all(&text)
        });
        written.map_err(|error| format!("{}: {error}", path.display()))?;
        let lines = match state.lines {
            Some(lines) => lines + 1,
            None => self.read()?.len(),
        };
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
        let lines = self.read()?;
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
    pub(super) fn last(&self, limit: usize) -> Vec<AuditLine> {
        let mut lines = self.read().unwrap_or_else(|error| {
            tracing::error!(error, "the audit log cannot be read");
            Vec::new()
        });
        lines.reverse();
        lines.truncate(limit);
        lines
    }

    /// All lines, oldest first. A line that is cut short or damaged is left out, alone; a file that cannot be read is
    /// an error, because it may hold what must be kept.
    fn read(&self) -> Result<Vec<AuditLine>, String> {
        let mut lines = Vec::new();
        for path in [self.dir.join("audit.1.ndjson"), self.path()] {
            let bytes = match std::fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(format!("{}: {error}", path.display())),
            };
            lines.extend(bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()));
        }
        Ok(lines)
    }

    fn path(&self) -> PathBuf {
        self.dir.join("audit.ndjson")
    }
}

/// Whether the last line of a file has no end.
fn is_torn(mut file: &File) -> std::io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
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
    fn damage_costs_the_line_that_it_is_in() {
        let dir = tempfile::tempdir().unwrap();
        let whole = serde_json::to_string(&line(1, "activate", DONE)).unwrap();
        let text = [whole.as_bytes(), b"\n\xff\xfe{}\n", whole.as_bytes(), b"\n", &whole.as_bytes()[..20]].concat();
        std::fs::write(dir.path().join("audit.ndjson"), text).unwrap();
        let trail = AuditTrail::new(dir.path(), bounds(20));
        assert_eq!(trail.last(9).len(), 2, "bytes that are no text and a torn line are left out alone");
        trail.note(&line(2, "rollback", DONE));
        assert_eq!(trail.last(1)[0].what, "rollback", "a torn line does not swallow the next");
        assert_eq!(trail.last(9).len(), 3);
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_empty() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("audit.1.ndjson")).unwrap();
        let trail = AuditTrail::new(dir.path(), bounds(1));
        assert!(trail.read().is_err());
        assert!(trail.prune(1).is_err(), "and nothing is dropped");
    }

    #[test]
    fn of_too_many_the_oldest_go() {
        let lines = (0..9).map(|at_ms| line(at_ms, "activate", DONE)).collect();
        let left: Vec<u64> = kept(lines, &bounds(3), 9).iter().map(|line| line.at_ms).collect();
        assert_eq!(left, [6, 7, 8]);
    }
}
