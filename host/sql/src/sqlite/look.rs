//! Looking at a database file without changing anything on disk.
//!
//! A database in WAL mode has two files beside it, which opening it creates; so which way it can be opened depends on
//! what is there. Holds no SQL.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteConnectOptions;

use crate::SqlError;
use crate::classify::sql_error;

/// A database that takes the place of one that is not there.
const IN_MEMORY: &str = "sqlite::memory:";

/// Bytes from the beginning of a file that say how it is written.
const HEAD_BYTES: u64 = 20;
/// The value that means WAL there.
const WAL: u8 = 2;

/// A copy of a database's files, which goes with its value.
#[derive(Debug)]
pub(super) struct Copied(PathBuf);

impl Drop for Copied {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "a copy could not be removed");
        }
    }
}

/// How to open what `given` names, and the copy that is opened where nothing else would do.
pub(super) fn options(given: SqliteConnectOptions) -> Result<(SqliteConnectOptions, Option<Copied>), SqlError> {
    let file = given.get_filename().to_owned();
    if !file.exists() {
        return Ok((IN_MEMORY.parse().map_err(sql_error)?, None));
    }
    let (log, index) = (beside(&file, "-wal"), beside(&file, "-shm"));
    let has_log = uses_log(&file).map_err(|error| SqlError::Transient(format!("{}: {error}", file.display())))?;
    match (has_log && log.exists(), index.exists()) {
        // Reading creates no file.
        (false, _) if !has_log => Ok((given.read_only(true), None)),
        // No process has it open, and nothing waits to be taken over.
        (false, _) => Ok((given.read_only(true).immutable(true), None)),
        (true, true) => Ok((given.read_only(true), None)),
        // Left behind: reading would make the index anew.
        (true, false) => {
            let (copy, copied) = copy(&file, &log)
                .map_err(|error| SqlError::Transient(format!("cannot copy {}: {error}", file.display())))?;
            Ok((given.filename(copied), Some(copy)))
        }
    }
}

/// Whether the database is in WAL mode: byte 18 of a file says how it is written.
fn uses_log(file: &Path) -> std::io::Result<bool> {
    let mut head = Vec::new();
    std::fs::File::open(file)?.take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok(head.get(18) == Some(&WAL))
}

/// The file beside it whose name goes on like this.
fn beside(file: &Path, end: &str) -> PathBuf {
    let mut name: OsString = file.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Copies both files; where the copy of the first is.
fn copy(file: &Path, log: &Path) -> std::io::Result<(Copied, PathBuf)> {
    let directory = std::env::temp_dir().join(format!("weir-look-{}", uuid::Uuid::new_v4().simple()));
    // Rows of the application lie in it: no other user may read them.
    std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
    let copy = Copied(directory);
    let to = copy.0.join("database");
    std::fs::copy(file, &to)?;
    std::fs::copy(log, beside(&to, "-wal"))?;
    Ok((copy, to))
}
