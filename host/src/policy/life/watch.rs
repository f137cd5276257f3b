//! The watched directory: a component that appears there passes the same gate, and is activated when it is good.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::control::{ModuleUpload, lock};
use crate::config::is_free_module_name;
use crate::policy::module::digest_of;
use crate::policy::{LoadError, Policies, outline};

/// How often the directory is looked at.
const PAUSE: Duration = Duration::from_millis(500);

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::policy) struct Watched {
    file: String,
    /// `activated`, `known` (it was uploaded before this start) or `refused`.
    state: &'static str,
    digest: Option<String>,
    reason: Option<String>,
}

/// What is seen of a file without reading it.
type Stamp = (SystemTime, u64);

/// Watches `dir` until the policies are gone.
pub(in crate::policy) fn start(policies: Weak<Policies>, dir: PathBuf) -> Result<(), LoadError> {
    let watch = move || {
        let mut watcher = Watcher { dir, seen: BTreeMap::new(), done: BTreeMap::new(), first: true };
        while let Some(policies) = policies.upgrade() {
            watcher.look(&policies);
            drop(policies);
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
    seen: BTreeMap<PathBuf, Stamp>,
    /// How they looked when they were taken.
    done: BTreeMap<PathBuf, Stamp>,
    first: bool,
}

impl Watcher {
    fn look(&mut self, policies: &Arc<Policies>) {
        let now = stamps(&self.dir);
        let mut settled: Vec<(&PathBuf, Stamp)> = now
            .iter()
            .filter(|(path, stamp)| self.done.get(*path) != Some(stamp))
            .filter(|(path, stamp)| self.seen.get(*path) == Some(stamp))
            .map(|(path, stamp)| (path, *stamp))
            .collect();
        // The youngest is activated last.
        settled.sort_by_key(|(_, stamp)| stamp.0);
        for (path, stamp) in settled {
            let watched = take(policies, path, self.first);
            let mut all = lock(&policies.control.watched);
            all.retain(|other| other.file != watched.file);
            all.push(watched);
            self.done.insert(path.clone(), stamp);
        }
        if !self.seen.is_empty() || now.is_empty() {
            // From now on a known module that appears was put there to be activated.
            self.first = false;
        }
        self.seen = now;
    }
}

fn stamps(dir: &Path) -> BTreeMap<PathBuf, Stamp> {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let wasm = files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "wasm"));
    let stamped = wasm.filter_map(|path| {
        let found = path.metadata().ok()?;
        found.is_file().then_some((found.modified().ok()?, found.len())).map(|stamp| (path, stamp))
    });
    stamped.collect()
}

/// Takes one file. At the first look after a start, modules that were uploaded or taken before are left as the active set
/// has them: a rollback, or a module that was deleted, must not be undone by a restart.
fn take(policies: &Arc<Policies>, path: &Path, first: bool) -> Watched {
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let bytes = match outline::read(path, policies.loader.config.module_bytes_max) {
        Ok(bytes) => bytes,
        Err(error) => return refused(file, None, &error.to_string()),
    };
    let digest = digest_of(&bytes).to_string();
    let is_known = || {
        let registry = policies.control.registry();
        registry.get(&digest).is_some() || registry.was_taken(&digest)
    };
    if first && is_known() {
        return Watched { file, state: "known", digest: Some(digest), reason: None };
    }
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let upload = ModuleUpload {
        bytes: &bytes,
        name: stem.filter(|stem| is_free_module_name(stem)),
        activate: true,
        ..ModuleUpload::default()
    };
    match policies.upload("directory", &upload) {
        Ok(_) => {
            policies.control.registry().note_taken(&digest);
            Watched { file, state: "activated", digest: Some(digest), reason: None }
        }
        Err(error) => refused(file, Some(digest), &error.to_string()),
    }
}

fn refused(file: String, digest: Option<String>, reason: &str) -> Watched {
    tracing::error!(file, reason, "the policy module in the watched directory is refused");
    Watched { file, state: "refused", digest, reason: Some(reason.to_owned()) }
}
