//! Files of the registry's directory: only this user's, whole or not at all.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Only this user.
const DIRECTORY_MODE: u32 = 0o700;
/// The same of a file.
pub(super) const FILE_MODE: u32 = 0o600;
/// End of the names of files that are not whole yet.
pub(super) const TEMPORARY: &str = ".part";

/// Creates a directory, and those above it.
pub(super) fn create_dir(dir: &Path) -> Result<(), String> {
    let mut builder = DirBuilder::new();
    let created = builder.recursive(true).mode(DIRECTORY_MODE).create(dir);
    created.map_err(|error| format!("{}: {error}", dir.display()))
}

/// Removes a file, if it is there.
pub(super) fn remove_file(path: &Path) -> Result<(), String> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!("{}: {error}", path.display())),
        _ => Ok(()),
    }
}

/// Reads a file of JSON.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{} is damaged: {error}", path.display()))
}

/// What of a file survives the loss of power at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durable {
    /// Nothing: it can be made again, and its content is checked when it is read.
    No,
    /// Its content, under whatever name the directory has for it.
    File,
    /// Both, and the names of what was written into the directory before it.
    FileAndName,
}

/// Writes a file whole or not at all.
pub(super) fn write(path: &Path, bytes: &[u8], durable: Durable) -> Result<(), String> {
    let written = || -> std::io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        let temporary = dir.join(format!(".{}{TEMPORARY}", uuid::Uuid::new_v4().simple()));
        let mut file = OpenOptions::new().create_new(true).write(true).mode(FILE_MODE).open(&temporary)?;
        let sync = |file: &File| if durable == Durable::No { Ok(()) } else { file.sync_all() };
        let done = file.write_all(bytes).and_then(|()| sync(&file)).and_then(|()| std::fs::rename(&temporary, path));
        if done.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        done?;
        if durable == Durable::FileAndName { File::open(dir)?.sync_all() } else { Ok(()) }
    };
    written().map_err(|error| format!("{}: {error}", path.display()))
}
