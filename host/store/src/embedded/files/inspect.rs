//! Reads all files of a directory and reports damage. Changes only what the database itself tidies up, and with [`Place::Beside`]
//! nothing at all.

use std::fs;
use std::io::{self, Read, Seek};
use std::ops::Range;
use std::path::{Path, PathBuf};

use lsm_tree::{AbstractTree, AnyTree};
use rustix::fs::{SeekFrom, seek};

use super::super::layout::{BEACONS, NAMES, SPACES, Space};
use super::batch_header::{BatchHeader, Mark, read_mark};
use super::judge::{Damage, LogFile, Verdict, judge};
use super::trees::{self, Keyspace};
use super::wal::{Piece, scan};
use super::{MARKER, MARKER_BYTES};

/// The directory in which tables are opened.
pub(in super::super) enum Place {
    /// In place: the database will open them there next.
    Here,
    /// Through links below this directory.
    Beside(PathBuf),
}

/// The result of an inspection.
#[derive(Debug, Default)]
pub(in super::super) struct Findings {
    pub(in super::super) damage: Vec<Damage>,
    /// Files of the log with an unacknowledged end, and where it begins.
    pub(in super::super) torn: Vec<(String, usize)>,
    /// Bytes of the newest files of the log without proof that they are on disk: a sync of them may have failed.
    pub(in super::super) unsynced: Vec<(PathBuf, Range<usize>)>,
    /// The last batch of the log, with `last` as after it.
    pub(in super::super) last: Option<BatchHeader>,
    /// Whether there should be a mark.
    pub(in super::super) mark_is_lost: bool,
    pub(in super::super) keyspaces: Vec<Keyspace>,
    /// The number of each keyspace, by name.
    pub(in super::super) numbers: Vec<Option<u64>>,
    /// Files of the log, oldest first, and the batches in them.
    pub(in super::super) log: Vec<PathBuf>,
    pub(in super::super) batches: u64,
    pub(in super::super) salt: Option<u64>,
}

fn damage(file: &str, why: impl Into<String>) -> Damage {
    Damage { file: file.into(), range: None, why: why.into(), groups: None }
}

/// Contents of a directory without the database's marker that an incomplete first start cannot have left.
pub(in super::super) fn unmarked(directory: &Path) -> io::Result<Vec<Damage>> {
    let (log, mut found) = log_files(directory)?;
    let has_writes = read_log(&log, None).iter().any(|file| !file.pieces.is_empty());
    let (keyspaces, _) = trees::list(directory)?;
    if has_writes || !keyspaces.is_empty() || read_mark(directory)? != Mark::Missing {
        found.insert(0, damage(MARKER, "it has gone, and the store with it would look empty"));
    }
    Ok(found)
}

/// The inspection of one directory.
pub(in super::super) fn inspect(directory: &Path, place: &Place) -> io::Result<Findings> {
    let mut findings = Findings::default();
    if fs::read(directory.join(MARKER)).map_or(true, |bytes| bytes != MARKER_BYTES) {
        findings.damage.push(damage(MARKER, "it is not there, or not as it was written"));
    }
    let (numbers, strange) = trees::list(directory)?;
    findings.damage.extend(strange);
    findings.keyspaces = numbers.into_iter().map(|number| trees::check(directory, number)).collect();
    if findings.keyspaces.first().is_none_or(|first| first.number != 0) {
        findings.damage.push(damage("keyspaces/0", "it has gone"));
    }
    findings.damage.extend(findings.keyspaces.iter().flat_map(|keyspace| keyspace.damage.clone()));
    let tables_are_whole = findings.damage.is_empty();

    let mark = read_mark(directory)?;
    let (log, strange) = log_files(directory)?;
    findings.damage.extend(strange);
    findings.log = log;
    let files = read_log(&findings.log, mark.header().map(|header| header.salt));
    let (numbers, persisted) = if tables_are_whole { persisted(directory, place, &mut findings)? } else { unknown() };
    let verdict = judge(&files, &mark, &persisted);
    missing_keyspaces(&mut findings, &files, &verdict, &mark, &numbers, tables_are_whole);
    findings.batches = verdict.batches;
    findings.salt = mark.header().or(verdict.last.as_ref()).map(|header| header.salt);
    findings.mark_is_lost = mark.header().is_none() && (verdict.last.is_some() || mark == Mark::Unreadable);
    findings.unsynced = unsynced(&findings.log, &files, &mark);
    findings.last = last(&files, &verdict, &mark, &numbers);
    findings.numbers = numbers;
    findings.damage.extend(verdict.damage);
    findings.torn = verdict.torn;
    Ok(findings)
}

type Numbers = Vec<Option<u64>>;

/// The assumption for damaged tables: numbers as in a new directory, everything written.
fn unknown() -> (Numbers, Vec<Option<u64>>) {
    ((1..=SPACES as u64).map(Some).collect(), vec![Some(u64::MAX); SPACES])
}

/// The number of each keyspace, and the newest sequence number in its tables.
fn persisted(directory: &Path, place: &Place, findings: &mut Findings) -> io::Result<(Numbers, Vec<Option<u64>>)> {
    let mut open = |number: u64| -> Option<AnyTree> {
        let keyspace = findings.keyspaces.iter().find(|keyspace| keyspace.number == number && !keyspace.is_unmade)?;
        let tree = match place {
            Place::Here => trees::open(directory, number).map_err(io::Error::other),
            Place::Beside(path) => trees::open_beside(directory, keyspace, &path.join(number.to_string()), |_| true),
        };
        let failed =
            |error: &io::Error| findings.damage.push(damage(&format!("keyspaces/{number}"), error.to_string()));
        tree.inspect_err(failed).ok()
    };
    let Some(meta) = open(0) else { return Ok(unknown()) };
    let numbers = trees::numbers(&meta, &NAMES).map_err(io::Error::other)?;
    let newest = |number: &Option<u64>| open((*number)?)?.get_highest_persisted_seqno();
    let persisted = numbers.iter().map(newest).collect();
    Ok((numbers, persisted))
}

/// Keyspaces with writes must exist and have a name, because the database removes keyspaces that it does not know.
fn missing_keyspaces(
    findings: &mut Findings,
    files: &[LogFile],
    verdict: &Verdict,
    mark: &Mark,
    numbers: &Numbers,
    are_known: bool,
) {
    let batches = files.iter().flat_map(|file| &file.pieces);
    let written =
        batches.fold(0, |bits, piece| if let Piece::Batch(batch) = piece { bits | batch.keyspaces } else { bits });
    let ever = |index: usize| {
        let headers = [mark.header(), verdict.last.as_ref()];
        headers.into_iter().flatten().any(|header| header.last.get(index).is_some_and(|last| *last != 0))
    };
    for (index, number) in numbers.iter().enumerate() {
        let Some(number) = number else {
            if ever(index) {
                findings.damage.push(damage("keyspaces/0", format!("it does not know the keyspace {}", NAMES[index])));
            }
            continue;
        };
        let is_made = |keyspace: &Keyspace| keyspace.number == *number && !keyspace.is_unmade;
        let is_written = written >> number.min(&63) & 1 == 1 || ever(index);
        if is_written && !findings.keyspaces.iter().any(is_made) {
            findings.damage.push(damage(&format!("keyspaces/{number}/current"), "it has gone"));
        }
    }
    let is_named = |number: u64| number == 0 || numbers.contains(&Some(number));
    let nameless = findings.keyspaces.iter().filter(|keyspace| !is_named(keyspace.number) && !keyspace.is_unmade);
    let nameless: Vec<u64> = nameless.map(|keyspace| keyspace.number).collect();
    for number in nameless.into_iter().filter(|number| are_known && written >> number.min(&63) & 1 == 1) {
        findings
            .damage
            .push(damage("keyspaces/0", format!("it does not know keyspace {number}, which was written to")));
    }
}

/// The header of the last batch, as after it.
fn last(files: &[LogFile], verdict: &Verdict, mark: &Mark, numbers: &Numbers) -> Option<BatchHeader> {
    let Some(mut header) = verdict.last.clone() else { return mark.header().cloned() };
    let batches = files.iter().flat_map(|file| &file.pieces).rev();
    let of_last = batches.filter_map(|piece| if let Piece::Batch(batch) = piece { Some(batch) } else { None });
    let touched =
        of_last.filter(|batch| batch.header.as_ref() == verdict.last.as_ref()).map(|batch| batch.keyspaces).next();
    header.last.resize(SPACES, 0);
    for (index, number) in numbers.iter().enumerate() {
        let is_marked = index == Space::System as usize || BEACONS.iter().any(|space| *space as usize == index);
        let is_touched = number.is_some_and(|number| touched.unwrap_or(0) >> number.min(63) & 1 == 1);
        if is_marked && is_touched {
            header.last[index] = header.seqno_min;
        }
    }
    Some(header)
}

/// The newest file and the one before it: a sync between them may have failed.
fn unsynced(log: &[PathBuf], files: &[LogFile], mark: &Mark) -> Vec<(PathBuf, Range<usize>)> {
    let marked = mark.header().map_or(0, |header| header.number);
    let first = |file: &LogFile| {
        file.pieces.iter().find_map(|piece| match piece {
            Piece::Batch(batch) if batch.header.as_ref().is_none_or(|header| header.number > marked) => {
                Some(batch.range.start)
            }
            _ => None,
        })
    };
    let newest = log.iter().zip(files).rev().take(2);
    newest.filter_map(|(path, file)| Some((path.clone(), first(file)?..file.end))).collect()
}

/// The files of the log in their order.
fn log_files(directory: &Path) -> io::Result<(Vec<PathBuf>, Vec<Damage>)> {
    let (mut files, mut strange) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(number) = name.strip_suffix(".jnl") else { continue };
        match number.parse::<u64>() {
            Ok(number) if entry.file_type()?.is_file() => files.push((number, entry.path())),
            _ => strange.push(damage(&name, "it is no file of the log: take it away")),
        }
    }
    files.sort();
    Ok((files.into_iter().map(|(_, path)| path).collect(), strange))
}

/// Reads the log. An unreadable file is one gap.
fn read_log(files: &[PathBuf], salt: Option<u64>) -> Vec<LogFile> {
    let mut salt = salt;
    let read = |path: &PathBuf| {
        let pieces = match read_data(path) {
            Ok(bytes) => scan(&bytes, salt),
            Err(_) => vec![Piece::Gap(super::wal::Gap { range: 0..0, why: "it cannot be read" })],
        };
        let of = |piece: &Piece| if let Piece::Batch(batch) = piece { Some(batch.header.as_ref()?.salt) } else { None };
        salt = salt.or_else(|| pieces.iter().find_map(of));
        let end = pieces.last().map_or(0, |piece| match piece {
            Piece::Batch(batch) => batch.range.end,
            Piece::Gap(gap) => gap.range.end,
        });
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        LogFile { name, end, pieces }
    };
    files.iter().map(read).collect()
}

/// The bytes of a log file, without the unwritten space at its end.
pub(in super::super) fn read_data(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let len = file.metadata()?.len();
    let mut end = 0;
    // A file system without holes reports one at the end of the file.
    while end < len {
        let Ok(data) = seek(&file, SeekFrom::Data(end)) else { break };
        end = seek(&file, SeekFrom::Hole(data)).unwrap_or(len);
    }
    file.rewind()?;
    let mut bytes = Vec::with_capacity(usize::try_from(end).map_err(io::Error::other)?);
    file.take(end).read_to_end(&mut bytes)?;
    Ok(bytes)
}
