//! The decision log: sampled calls and answers of the live modules, one JSON object a line, bounded on disk.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use weir_policy_vectors::Decision;

use crate::files::{FILE_MODE, create_dir};

/// The file that is written to.
const FILE: &str = "decisions.ndjson";
/// The older half.
const OLDER_FILE: &str = "decisions.1.ndjson";
/// Bytes of a decision that is written; a larger one is left out. Several times the documents of one call: what became
/// of them is written beside them.
const DECISION_BYTES_MAX: usize = 1 << 20;

/// Appends to the log. When the file has reached half of the bound it becomes the older half, and the one before it is
/// dropped.
pub(crate) struct DecisionLog {
    dir: PathBuf,
    bytes_max: u64,
    file: Option<(File, u64)>,
}

impl DecisionLog {
    pub(crate) fn new(dir: &Path, bytes_max: u64) -> Self {
        Self { dir: dir.to_owned(), bytes_max, file: None }
    }

    /// Writes one. `false` when it is too large.
    pub(crate) fn write(&mut self, decision: &Decision) -> std::io::Result<bool> {
        let mut line = serde_json::to_vec(decision)?;
        line.push(b'\n');
        if line.len() > DECISION_BYTES_MAX.min(usize::try_from(self.bytes_max / 2).unwrap_or(usize::MAX)) {
            return Ok(false);
        }
        let mut open = match self.file.take() {
            Some((file, bytes)) if bytes + line.len() as u64 <= self.bytes_max / 2 => (file, bytes),
            Some(_) => self.rotate()?,
            None => self.open()?,
        };
        open.0.write_all(&line)?;
        open.1 += line.len() as u64;
        self.file = Some(open);
        Ok(true)
    }

    fn open(&self) -> std::io::Result<(File, u64)> {
        create_dir(&self.dir).map_err(std::io::Error::other)?;
        // It holds the ids of actors.
        let file = OpenOptions::new().create(true).append(true).mode(FILE_MODE).open(self.dir.join(FILE))?;
        let bytes = file.metadata()?.len();
        Ok((file, bytes))
    }

    fn rotate(&self) -> std::io::Result<(File, u64)> {
        std::fs::rename(self.dir.join(FILE), self.dir.join(OLDER_FILE))?;
        self.open()
    }
}

/// Reads a log, or a part of one. Each line becomes a decision, or the reason why it is not one; the last may be cut
/// short.
pub(crate) fn read(path: &Path) -> std::io::Result<impl Iterator<Item = Result<Decision, String>> + use<>> {
    let lines = BufReader::new(File::open(path)?).lines().enumerate();
    let parse = |(index, line): (usize, std::io::Result<String>)| {
        let line = line.map_err(|error| error.to_string());
        line.and_then(|line| serde_json::from_str(&line).map_err(|error| error.to_string()))
            .map_err(|reason| format!("line {}: {reason}", index + 1))
    };
    Ok(lines.map(parse))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(at_ms: u64, entries: usize) -> Decision {
        let entry = serde_json::json!({"target": 1, "actor": 2, "action": "add"});
        serde_json::from_value(serde_json::json!({
            "at_ms": at_ms, "digest": "00", "micros": 3, "fuel": 4, "answer": {"kept": [0]},
            "flush.coalesce": {"kind": "k", "entries": vec![entry; entries]},
        }))
        .unwrap()
    }

    #[test]
    fn the_log_keeps_its_bound_and_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let bytes_max = 4_096;
        let mut log = DecisionLog::new(dir.path(), bytes_max);
        for at_ms in 0..200 {
            assert!(log.write(&decision(at_ms, 1)).unwrap());
        }
        assert!(!log.write(&decision(0, 1_000)).unwrap());
        let size = |name: &str| dir.path().join(name).metadata().unwrap().len();
        assert!(size(FILE) + size(OLDER_FILE) <= bytes_max);
        let read_all = |name: &str| read(&dir.path().join(name)).unwrap().map(|read| read.unwrap().at_ms);
        let kept: Vec<u64> = read_all(OLDER_FILE).chain(read_all(FILE)).collect();
        assert_eq!(kept, (200 - kept.len() as u64..200).collect::<Vec<_>>());
        drop(log);
        // It goes on where it was.
        DecisionLog::new(dir.path(), bytes_max).write(&decision(200, 1)).unwrap();
        assert_eq!(read_all(FILE).last(), Some(200));
    }

    #[test]
    fn a_line_that_is_cut_short_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part.ndjson");
        let whole = serde_json::to_string(&decision(1, 1)).unwrap();
        std::fs::write(&path, format!("{whole}\n{}", &whole[..20])).unwrap();
        let lines: Vec<_> = read(&path).unwrap().collect();
        assert_eq!(lines[0], Ok(decision(1, 1)));
        assert!(lines[1].as_ref().unwrap_err().starts_with("line 2: "));
    }
}
