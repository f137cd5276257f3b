//! What was uploaded, on disk: modules by digest, the active set, compiled code, the audit log.
//!
//! ```text
//! modules/DIGEST.wasm         the component
//! modules/DIGEST.json         what is known of it
//! modules/DIGEST.cases.json   test vectors that were uploaded with it
//! active.json                 which module serves which interface, before the last activation, and what is tried
//! compiled/ENGINE/DIGEST      compiled code behind its SHA-256: made here, never accepted from outside
//! taken.txt                   what was taken from the watched directory: it is not activated again by a restart
//! audit.ndjson                who did what: see `audit`
//! ```
//!
//! A file appears whole or not at all: written beside, synced, renamed. The active set is written after the modules that
//! it names and before it is in force, so after a crash it is the old one or the new one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::set::SavedSet;
use crate::component::digest_of;
use crate::files::{Durable, TEMPORARY, create_dir, read_json, remove_file, write};
use weir_core::model::Digest;

/// Files of the watched directory that are remembered.
const TAKEN_MAX: usize = 1_000;
/// Written by others than the owner.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Length of a SHA-256.
const HASH_BYTES: usize = 32;

/// What is known of an uploaded module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// SHA-256, in hexadecimal.
    pub(super) digest: String,
    pub(crate) name: String,
    pub(crate) version: Option<String>,
    pub(super) uploaded_at_ms: u64,
    pub(super) by: String,
    pub(super) bytes: usize,
    pub(super) functions: u64,
    pub(super) exports: Vec<String>,
    pub(super) imports: Vec<String>,
    pub(super) checks: Checks,
    /// Which upload it was, from 1: the wall clock may step back between two. 0 of one that an earlier weir took.
    #[serde(default)]
    pub(super) order: u64,
    /// Why it was taken out of service by itself, until it is activated again.
    #[serde(default)]
    pub(super) condemned: Option<Condemned>,
}

impl Record {
    /// What the youngest has most of.
    pub(super) fn youth(&self) -> (u64, u64) {
        (self.order, self.uploaded_at_ms)
    }
}

/// A module was rolled back by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Condemned {
    pub(super) at_ms: u64,
    pub(super) reason: String,
}

/// What the gate has found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Checks {
    /// Test vectors that it has passed.
    pub(super) vectors: usize,
    /// Time to compile it, in milliseconds.
    pub(super) compile_ms: f64,
}

/// The directory. Nothing is created before something is uploaded.
pub(crate) struct ModuleStore {
    dir: PathBuf,
    /// Only looked at: nothing is written.
    is_look: bool,
    records: BTreeMap<String, Record>,
}

impl ModuleStore {
    /// Reads what is there. Traces of an upload that a crash cut short are removed.
    pub(crate) fn open(dir: &Path) -> Result<Self, String> {
        Self::read(dir, false)
    }

    /// Reads what is there, and never writes anything: no code is kept, no line is added to the audit log.
    pub(crate) fn look(dir: &Path) -> Result<Self, String> {
        Self::read(dir, true)
    }

    fn read(dir: &Path, is_look: bool) -> Result<Self, String> {
        let mut registry = Self { dir: dir.to_owned(), is_look, records: BTreeMap::new() };
        let entries = match std::fs::read_dir(registry.modules()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(registry),
            Err(error) => return Err(format!("{}: {error}", registry.modules().display())),
        };
        for entry in entries {
            let path = entry.map_err(|error| error.to_string())?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.ends_with(TEMPORARY) {
                if !is_look {
                    // Another host may be removing it too.
                    let _ = std::fs::remove_file(&path);
                }
            } else if name.ends_with(".json") && !name.ends_with(".cases.json") {
                match read_json::<Record>(&path) {
                    Ok(record) if registry.wasm(&record.digest).exists() => {
                        registry.records.insert(record.digest.clone(), record);
                    }
                    Ok(_) => {}
                    Err(error) => tracing::error!(error, "a module of the registry is left out: upload it again"),
                }
            }
        }
        Ok(registry)
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// All modules, by digest.
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// The module of this digest.
    pub(crate) fn get(&self, digest: &str) -> Option<&Record> {
        self.records.get(digest)
    }

    /// The number of the next upload.
    pub(super) fn next_order(&self) -> u64 {
        self.records.values().map(|record| record.order).max().unwrap_or(0) + 1
    }

    /// Notes that a module was rolled back by itself, or with `None` that it is in service again.
    pub(super) fn condemn(&mut self, digest: &str, condemned: Option<&Condemned>) -> Result<(), String> {
        let path = self.modules().join(format!("{digest}.json"));
        let Some(record) = self.records.get_mut(digest).filter(|record| record.condemned.as_ref() != condemned) else {
            return Ok(());
        };
        let changed = Record { condemned: condemned.cloned(), ..record.clone() };
        let text = serde_json::to_vec_pretty(&changed).map_err(|error| error.to_string())?;
        write(&path, &text, Durable::FileAndName)?;
        *record = changed;
        Ok(())
    }

    /// Keeps a module.
    pub(super) fn add(&mut self, record: Record, bytes: &[u8], cases: Option<&str>) -> Result<(), String> {
        create_dir(&self.modules())?;
        write(&self.wasm(&record.digest), bytes, Durable::File)?;
        match cases {
            Some(cases) => write(&self.cases(&record.digest), cases.as_bytes(), Durable::File)?,
            // Those of an upload that a crash cut short.
            None => remove_file(&self.cases(&record.digest))?,
        }
        // Last: without it the others are nothing.
        let text = serde_json::to_vec_pretty(&record).map_err(|error| error.to_string())?;
        write(&self.modules().join(format!("{}.json", record.digest)), &text, Durable::FileAndName)?;
        self.records.insert(record.digest.clone(), record);
        Ok(())
    }

    /// The component, if it is still what its digest says, and that digest.
    pub(crate) fn bytes(&self, digest: &str) -> Result<(Digest, Vec<u8>), String> {
        let path = self.wasm(digest);
        let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let found = digest_of(&bytes);
        if found.to_string() != digest {
            return Err(format!("{} is damaged: its digest is {found}; upload it again", path.display()));
        }
        Ok((found, bytes))
    }

    /// The test vectors that were uploaded with it.
    pub(super) fn cases_of(&self, digest: &str) -> Result<Option<String>, String> {
        let path = self.cases(digest);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// Removes a module and its compiled code.
    pub(super) fn remove(&mut self, digest: &str) -> Result<(), String> {
        self.records.remove(digest);
        let mut paths = vec![self.modules().join(format!("{digest}.json")), self.wasm(digest), self.cases(digest)];
        if let Ok(engines) = std::fs::read_dir(self.compiled()) {
            paths.extend(engines.flatten().map(|engine| engine.path().join(digest)));
        }
        paths.iter().try_for_each(|path| remove_file(path))
    }

    /// The set that was active last.
    pub(crate) fn saved(&self) -> Result<SavedSet, String> {
        let path = self.dir.join("active.json");
        if path.exists() { read_json(&path) } else { Ok(SavedSet::default()) }
    }

    /// Writes down the active set.
    pub(super) fn save(&self, set: &SavedSet) -> Result<(), String> {
        create_dir(&self.dir)?;
        let text = serde_json::to_vec_pretty(set).map_err(|error| error.to_string())?;
        write(&self.dir.join("active.json"), &text, Durable::FileAndName)
    }

    /// Compiled code that this user's process left here and no other user could have changed.
    pub(super) fn code(&self, engine: &str, digest: &str) -> Option<Vec<u8>> {
        let mut file = File::open(self.compiled().join(engine).join(digest)).ok()?;
        let found = file.metadata().ok()?;
        if found.uid() != rustix::process::geteuid().as_raw() || found.mode() & WRITABLE_BY_OTHERS != 0 {
            return None;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(found.len()).ok()?);
        file.read_to_end(&mut bytes).ok()?;
        let (hash, code) = bytes.split_at_checked(HASH_BYTES)?;
        (Sha256::digest(code).as_slice() == hash).then(|| code.to_vec())
    }

    /// Keeps compiled code, and drops what another engine has left. It is only a cache: what fails is done again later.
    pub(super) fn keep_code(&self, engine: &str, digest: &str, code: &[u8]) {
        if self.is_look {
            return;
        }
        let dir = self.compiled().join(engine);
        for other in std::fs::read_dir(self.compiled()).into_iter().flatten().flatten() {
            if other.path() != dir {
                let _ = std::fs::remove_dir_all(other.path());
            }
        }
        let hashed = [Sha256::digest(code).as_slice(), code].concat();
        if let Err(error) = create_dir(&dir).and_then(|()| write(&dir.join(digest), &hashed, Durable::No)) {
            tracing::warn!(%error, "compiled code is not kept");
        }
    }

    /// Drops the compiled code of what is not in the registry.
    pub(super) fn drop_code(&self, digest: &str) {
        if self.get(digest).is_some() {
            return;
        }
        for engine in std::fs::read_dir(self.compiled()).into_iter().flatten().flatten() {
            // Most refusals come before there is any.
            let _ = std::fs::remove_file(engine.path().join(digest));
        }
    }

    /// Whether a file of this digest was taken from the watched directory before.
    pub(super) fn was_taken(&self, digest: &str) -> bool {
        self.taken().iter().any(|taken| taken == digest)
    }

    /// Remembers that a file was taken from the watched directory: the last [`TAKEN_MAX`] are.
    pub(super) fn note_taken(&self, digest: &str) {
        let mut taken = self.taken();
        taken.retain(|other| other != digest);
        taken.push(digest.to_owned());
        let first = taken.len().saturating_sub(TAKEN_MAX);
        let written = create_dir(&self.dir)
            .and_then(|()| write(&self.dir.join("taken.txt"), taken[first..].join("\n").as_bytes(), Durable::No));
        if let Err(error) = written {
            tracing::warn!(error, "what was taken from the watched directory is not remembered");
        }
    }

    fn taken(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.join("taken.txt")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn modules(&self) -> PathBuf {
        self.dir.join("modules")
    }

    fn compiled(&self) -> PathBuf {
        self.dir.join("compiled")
    }

    fn wasm(&self, digest: &str) -> PathBuf {
        self.modules().join(format!("{digest}.wasm"))
    }

    fn cases(&self, digest: &str) -> PathBuf {
        self.modules().join(format!("{digest}.cases.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(bytes: &[u8], name: &str) -> Record {
        Record {
            digest: crate::component::digest_of(bytes).to_string(),
            name: name.into(),
            version: None,
            uploaded_at_ms: 5,
            by: "me".into(),
            bytes: bytes.len(),
            functions: 1,
            exports: vec!["toggle".into()],
            imports: Vec::new(),
            checks: Checks { vectors: 0, compile_ms: 1.0 },
            order: 0,
            condemned: None,
        }
    }

    #[test]
    fn what_was_added_is_there_when_it_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registry");
        let mut registry = ModuleStore::open(&path).unwrap();
        assert!(!path.exists(), "nothing is created before it is needed");
        let known = record(b"module", "one");
        registry.add(known.clone(), b"module", Some("{}")).unwrap();
        let mut registry = ModuleStore::open(&path).unwrap();
        assert_eq!(registry.records().collect::<Vec<_>>(), [&known]);
        assert_eq!(registry.bytes(&known.digest).unwrap().1, b"module");
        assert_eq!(registry.cases_of(&known.digest).unwrap().as_deref(), Some("{}"));
        std::fs::write(registry.wasm(&known.digest), b"other").unwrap();
        assert!(registry.bytes(&known.digest).unwrap_err().contains("damaged"));
        registry.remove(&known.digest).unwrap();
        assert_eq!(ModuleStore::open(&path).unwrap().records().count(), 0);
        assert_eq!(std::fs::read_dir(path.join("modules")).unwrap().count(), 0);
    }

    #[test]
    fn an_upload_that_was_cut_short_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut registry = ModuleStore::open(dir.path()).unwrap();
        let known = record(b"module", "one");
        registry.add(known.clone(), b"module", None).unwrap();
        std::fs::remove_file(registry.modules().join(format!("{}.json", known.digest))).unwrap();
        std::fs::write(registry.modules().join(format!(".1{TEMPORARY}")), b"half").unwrap();
        let registry = ModuleStore::open(dir.path()).unwrap();
        assert_eq!(registry.records().count(), 0);
        assert!(!registry.modules().join(format!(".1{TEMPORARY}")).exists());
    }

    #[test]
    fn code_that_others_could_have_changed_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let registry = ModuleStore::open(dir.path()).unwrap();
        registry.keep_code("e1", "d", b"code");
        assert_eq!(registry.code("e1", "d").as_deref(), Some(&b"code"[..]));
        let path = registry.compiled().join("e1/d");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o620)).unwrap();
        assert_eq!(registry.code("e1", "d"), None);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[HASH_BYTES] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(registry.code("e1", "d"), None);
        registry.keep_code("e2", "d", b"code");
        assert!(!registry.compiled().join("e1").exists());
    }
}
