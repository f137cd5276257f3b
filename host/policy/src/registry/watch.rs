//! The watched directory: a component that appears there passes the same gate, and is activated when it is good.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use super::control::lock;
use super::service::Registry;
use super::upload::ModuleUpload;
use crate::component::{ComponentBytes, digest_of};
use crate::outline;
use crate::refusal::LoadError;
use weir_core::config::is_free_module_name;
use weir_core::model::Digest;
use weir_core::operators::WatchedFile;

/// How often the directory is looked at.
const PAUSE: Duration = Duration::from_millis(500);

/// How often a file that seems to be the same is read all the same: a clock may stand still or step back, and who replaces a
/// file may set its times.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// What is seen of a file without reading it: when its content and its inode changed, its size, which inode it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileState {
    modified: SystemTime,
    changed: (i64, i64),
    bytes: u64,
    inode: u64,
}

/// A file as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Read {
    state: FileState,
    at: Instant,
    /// The digest of its content, or why it cannot be had.
    content: Result<Digest, String>,
}

impl Registry {
    /// Begins to watch `policy.dir`, where one is configured, as long as the registry lives.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn watch(self: &Arc<Self>) -> Result<(), LoadError> {
        match &self.loader.config.dir {
            Some(dir) => start(Arc::downgrade(self), dir.clone()),
            None => Ok(()),
        }
    }
}

/// Watches `dir` until the registry is gone.
fn start(registry: Weak<Registry>, dir: PathBuf) -> Result<(), LoadError> {
    let watch = move || {
        let mut watcher = Watcher { dir, seen: BTreeMap::new(), done: BTreeMap::new(), first: true };
        while let Some(registry) = registry.upgrade() {
            watcher.look(&registry);
            drop(registry);
            std::thread::sleep(PAUSE);
        }
    };
    std::thread::Builder::new()
        .name("weir-policy-watch".into())
        .spawn(watch)
        .map(drop)
        .map_err(|error| LoadError::Engine { reason: format!("cannot start a thread to watch on: {error}") })
}

struct Watcher {
    dir: PathBuf,
    /// How files looked last time: one that still changes is not taken yet.
    seen: BTreeMap<PathBuf, Read>,
    /// What they held when they were taken. What is only touched, or written again as it was, is not taken again: that would
    /// undo a rollback.
    done: BTreeMap<PathBuf, Result<Digest, String>>,
    first: bool,
}

impl Watcher {
    fn look(&mut self, registry: &Registry) {
        let now: BTreeMap<PathBuf, Read> = states(&self.dir)
            .into_iter()
            .map(|(path, state)| {
                let read = self.read(registry, &path, state);
                (path, read)
            })
            .collect();
        let is_new = |path: &PathBuf, read: &Read| self.done.get(path) != Some(&read.content);
        let is_settled = |path: &PathBuf, read: &Read| {
            self.seen.get(path).is_some_and(|seen| (seen.state, &seen.content) == (read.state, &read.content))
        };
        let mut settled: Vec<(&PathBuf, &Read)> =
            now.iter().filter(|(path, read)| is_new(path, read) && is_settled(path, read)).collect();
        // The youngest is activated last.
        settled.sort_by_key(|(_, read)| (read.state.modified, read.state.changed));
        let taken: Vec<PathBuf> = settled.iter().map(|(path, _)| (*path).clone()).collect();
        for path in taken {
            let (watched, content) = take(registry, &path, self.first);
            let mut all = lock(&registry.control.watched);
            all.retain(|other| other.file != watched.file);
            all.push(watched);
            self.done.insert(path, content);
        }
        if !self.seen.is_empty() || now.is_empty() {
            // From now on a known module that appears was put there to be activated.
            self.first = false;
        }
        // What was removed and is put back is there to be activated.
        self.done.retain(|path, _| now.contains_key(path));
        self.seen = now;
    }

    /// Reads a file, unless it was read a moment ago and seems to be the same.
    fn read(&self, registry: &Registry, path: &Path, state: FileState) -> Read {
        let known = self.seen.get(path).filter(|seen| seen.state == state && seen.at.elapsed() < READ_AGAIN);
        known.cloned().unwrap_or_else(|| {
            let read = outline::read(path, registry.loader.config.module_bytes_max);
            let content = read.map(|bytes| digest_of(&bytes)).map_err(|error| error.to_string());
            Read { state, at: Instant::now(), content }
        })
    }
}

fn states(dir: &Path) -> BTreeMap<PathBuf, FileState> {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let wasm = files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "wasm"));
    let found = wasm.filter_map(|path| {
        let found = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let state = FileState {
            modified: found.modified().ok()?,
            changed: (found.ctime(), found.ctime_nsec()),
            bytes: found.len(),
            inode: found.ino(),
        };
        Some((path, state))
    });
    found.collect()
}

/// Takes one file. At the first look after a start, modules that were uploaded or taken before are left as the active set
/// has them: a rollback, or a module that was deleted, must not be undone by a restart. Also says what it holds.
fn take(registry: &Registry, path: &Path, first: bool) -> (WatchedFile, Result<Digest, String>) {
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let bytes = match outline::read(path, registry.loader.config.module_bytes_max) {
        Ok(bytes) => bytes,
        Err(error) => return (refused(file, None, &error.to_string()), Err(error.to_string())),
    };
    let component = ComponentBytes::of(&bytes);
    let content = component.digest;
    let digest = content.to_string();
    let is_known = || {
        let store = registry.control.store();
        store.get(&digest).is_some() || store.was_taken(&digest)
    };
    if first && is_known() {
        return (WatchedFile { file, state: "known".to_owned(), digest: Some(digest), reason: None }, Ok(content));
    }
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let upload = ModuleUpload {
        bytes: &bytes,
        name: stem.filter(|stem| is_free_module_name(stem)),
        activate: true,
        ..ModuleUpload::default()
    };
    let watched = match registry.upload_component("directory", component, &upload) {
        Ok(_) => {
            registry.control.store().note_taken(&digest);
            WatchedFile { file, state: "activated".to_owned(), digest: Some(digest), reason: None }
        }
        Err(error) => refused(file, Some(digest), &error.to_string()),
    };
    (watched, Ok(content))
}

fn refused(file: String, digest: Option<String>, reason: &str) -> WatchedFile {
    tracing::error!(file, reason, "the policy module in the watched directory is refused");
    WatchedFile { file, state: "refused".to_owned(), digest, reason: Some(reason.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Policies, PolicySetup};
    use wasm_encoder::{ComponentSection as _, CustomSection};
    use weir_core::config::PolicyConfig;

    /// The default rules; the digest is another one for each `mark`, the size is not.
    fn module(mark: &str) -> Vec<u8> {
        let mut bytes = crate::builtin::COMPONENT.to_vec();
        CustomSection { name: "mark".into(), data: mark.as_bytes().into() }.append_to_component(&mut bytes);
        bytes
    }

    #[test]
    fn files_are_told_apart_by_their_digests() {
        let dir = tempfile::tempdir().unwrap();
        let watched = dir.path().join("watched");
        let config = PolicyConfig {
            registry: dir.path().join("registry"),
            call_deadline_ms: 2_000,
            compile_deadline_ms: 60_000,
            instances: 1,
            ..PolicyConfig::default()
        };
        let registry = Arc::clone(&Policies::load(&config, &[], PolicySetup::default()).unwrap().registry);
        let mut watcher = Watcher { dir: watched.clone(), seen: BTreeMap::new(), done: BTreeMap::new(), first: true };
        let path = watched.join("rules.wasm");
        let put = |mark: &str| {
            std::fs::create_dir_all(&watched).unwrap();
            std::fs::write(&path, module(mark)).unwrap();
        };
        let serves = || registry.control.active_report()["toggle"].digest.clone();
        let digest = |mark: &str| digest_of(&module(mark)).to_string();
        let mut looks = |registry: &Registry| (0..3).for_each(|_| watcher.look(registry));

        looks(&registry);
        put("a");
        looks(&registry);
        assert_eq!(serves(), digest("a"));
        registry.rollback("me").unwrap();
        // Written again as it was, with other times: that undoes no rollback.
        put("a");
        std::fs::File::open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        looks(&registry);
        assert_ne!(serves(), digest("a"));
        // Another content of the same size and time is another module.
        let modified = path.metadata().unwrap().modified().unwrap();
        put("b");
        std::fs::File::open(&path).unwrap().set_modified(modified).unwrap();
        looks(&registry);
        assert_eq!(serves(), digest("b"));
        // Taken away and put back, it is there to be activated.
        registry.rollback("me").unwrap();
        std::fs::remove_file(&path).unwrap();
        looks(&registry);
        put("b");
        looks(&registry);
        assert_eq!(serves(), digest("b"));
    }
}
