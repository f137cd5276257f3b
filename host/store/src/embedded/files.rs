//! Checks of the store's files before the database opens them. The database cuts its log at the first batch that it cannot read,
//! takes a keyspace whose files are gone for new, and reports neither.
//!
//! - `wal`: the log. `header`: links between its batches, and the mark beside it. `judge`: torn or damaged. `trees`: tables.
//! - `inspect`: all of it, changing nothing. `salvage`: readable data, into a new directory.
//!
//! A power cut leaves a torn tail: it was never acknowledged, so it is cut off. Every other difference from what was written is
//! damage: refused, with the way out. Never repairs a damaged file.

pub(super) mod batch_header;
mod inspect;
mod judge;
pub(super) mod salvage;
mod tests;
mod trees;
mod wal;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use self::batch_header::{BatchHeader, MARK_FILE};
use self::inspect::Place;
use self::judge::Damage;
use crate::StoreError;

/// The file that marks a directory as a database.
const MARKER: &str = "version";
const MARKER_BYTES: &[u8] = b"FJL\x03";
const LOCK: &str = "lock";

/// The state of the log at a start.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The last batch, with `last` as after it; none where the log has no numbers yet.
    pub(super) header: Option<BatchHeader>,
}

/// Checks the directory, and cuts off the part of the log that was never acknowledged.
///
/// # Errors
/// `Damaged` with the way out; `Misconfigured` when another process has it open or it cannot be read.
pub(super) fn prepare(directory: &Path) -> Result<Log, StoreError> {
    let _lock = lock(directory)?;
    if !directory.join(MARKER).exists() {
        begin_again(directory)?;
        return Ok(Log::default());
    }
    let findings = inspect::inspect(directory, &Place::Here).map_err(|error| unreadable(directory, &error))?;
    if let Some(first) = findings.damage.first() {
        return Err(StoreError::Damaged(refusal(directory, first, findings.damage.len() - 1)));
    }
    if findings.mark_is_lost {
        tracing::warn!(
            file = %directory.join(MARK_FILE).display(),
            "the mark of what had been synced is not there or not whole: whether the end of the log is, cannot be told this time"
        );
    }
    for (name, from) in &findings.torn {
        cut(&directory.join(name), *from).map_err(|error| unreadable(directory, &error))?;
    }
    for (file, range) in &findings.unsynced {
        write_again(file, range.clone()).map_err(|error| unreadable(directory, &error))?;
    }
    Ok(Log { header: findings.last })
}

/// Removes the remains of a first start that did not complete.
fn begin_again(directory: &Path) -> Result<(), StoreError> {
    let findings = inspect::unmarked(directory).map_err(|error| unreadable(directory, &error))?;
    if let Some(first) = findings.first() {
        return Err(StoreError::Damaged(refusal(directory, first, 0)));
    }
    let first = directory.join("0.jnl");
    if first.exists() {
        fs::remove_file(&first).map_err(|error| unreadable(directory, &error))?;
    }
    Ok(())
}

fn cut(file: &Path, from: usize) -> io::Result<()> {
    let open = OpenOptions::new().write(true).open(file)?;
    let len = open.metadata()?.len();
    tracing::info!(
        file = %file.display(), from, len,
        "cut off the end of the store's log: it was being written when the host ended, and never acknowledged"
    );
    open.set_len(from as u64)?;
    open.sync_all()
}

/// Overwrites a file with its own content and syncs it. After a failed sync the system may take pages for written that are not,
/// and the next sync would report success.
fn write_again(file: &Path, range: Range<usize>) -> io::Result<()> {
    let open = OpenOptions::new().read(true).write(true).open(file)?;
    let end = range.end.min(usize::try_from(open.metadata()?.len()).map_err(io::Error::other)?);
    let mut bytes = vec![0; end.saturating_sub(range.start)];
    open.read_exact_at(&mut bytes, range.start as u64)?;
    open.write_all_at(&bytes, range.start as u64)?;
    open.sync_all()
}

/// Locks the directory, as the database does.
///
/// # Errors
/// `Misconfigured` when another process has it open.
pub(super) fn lock(directory: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(directory.join(LOCK));
    let file = file.map_err(|error| unreadable(directory, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(in_use(directory)),
        Err(TryLockError::Error(error)) => Err(unreadable(directory, &error)),
    }
}

/// The error when another process has the directory open.
pub(super) fn in_use(directory: &Path) -> StoreError {
    StoreError::InUse(directory.display().to_string())
}

/// The error when the directory cannot be opened.
pub(super) fn unreadable(directory: &Path, error: &io::Error) -> StoreError {
    StoreError::Misconfigured(format!("store.path: cannot open {}: {error}", directory.display()))
}

/// The error for damage, with the way out.
fn refusal(directory: &Path, first: &Damage, others: usize) -> String {
    let more = if others > 0 { format!(" (and {others} more places)") } else { String::new() };
    format!("{}{more}. {}", said(directory, first), remedy(directory))
}

/// The text of one damage.
fn said(directory: &Path, damage: &Damage) -> String {
    let Damage { file, range, why, groups } = damage;
    let range = range.as_ref().map_or(String::new(), |range| format!(", bytes {} to {}", range.start, range.end));
    let groups = match groups.as_ref().map(|groups| (*groups.start(), *groups.end())) {
        None => String::new(),
        Some((one, last)) if one == last => format!("; group of writes {one} was acknowledged and is missing"),
        Some((first, last)) => format!("; groups of writes {first} to {last} were acknowledged and are missing"),
    };
    format!("{}{range}: {why}{groups}", directory.join(file).display())
}

/// The commands that help with a damaged directory.
pub(super) fn remedy(directory: &Path) -> String {
    let mut to = directory.as_os_str().to_owned();
    to.push("-salvaged");
    let (from, to) = (quoted(directory), quoted(&PathBuf::from(to)));
    format!(
        "Nothing was changed. See all of it with: weir store verify {from} -- take what can be read into a new directory \
         with: weir store salvage {from} --to {to} -- then set store.path to that directory and start again"
    )
}

/// A path, quoted for a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@".contains(&byte);
    if text.bytes().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
