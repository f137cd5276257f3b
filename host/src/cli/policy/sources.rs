//! What a guest is made of, and the hash of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use weir_policy_vectors::Vectors;

use super::build::BuildError;
use crate::config::{is_module_name, is_reserved_module_name};
use crate::model::Digest;

/// File of test vectors, beside Cargo.toml.
const VECTORS_FILE: &str = "cases.json";

/// How a guest's Cargo.toml says that a dependency is only for native tests.
const NATIVE_ONLY: &str = "cfg(not(target_arch = \"wasm32\"))";

/// A guest's package.
#[derive(Debug)]
pub(super) struct Guest {
    /// Its name; the module's too.
    pub(super) package: String,
    /// Its version; the module's too.
    pub(super) version: String,
    /// Text of its test vectors, where it has some.
    pub(super) vectors: Option<String>,
    /// Name of its library, as in file names.
    pub(super) library: String,
    /// Directory of its Cargo.toml.
    pub(super) dir: PathBuf,
    /// The workspace that it belongs to; may be itself.
    pub(super) workspace: PathBuf,
    /// Names and directories of what it is built from outside of the workspace, such as the SDK.
    pub(super) elsewhere: Vec<(String, PathBuf)>,
    /// Where the workspace builds.
    pub(super) target: PathBuf,
    /// Hash of its sources.
    pub(super) source_sha256: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    crate_types: Vec<String>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    target: Option<String>,
    path: Option<PathBuf>,
}

impl Package {
    /// Names and directories of the packages on this machine that a component of it is built from.
    fn built_from(&self) -> impl Iterator<Item = (&str, &Path)> {
        let native_only = |dependency: &&Dependency| {
            dependency.kind.as_deref() == Some("dev") || dependency.target.as_deref() == Some(NATIVE_ONLY)
        };
        let dependencies = self.dependencies.iter().filter(move |dependency| !native_only(dependency));
        dependencies.filter_map(|dependency| Some((dependency.name.as_str(), dependency.path.as_deref()?)))
    }
}

/// Asks cargo what is in `dir`, and hashes it.
pub(super) fn guest(cargo: &Path, dir: &Path) -> Result<Guest, BuildError> {
    let not_a_guest = |reason: String| BuildError::NotAGuest { dir: dir.to_owned(), reason };
    let manifest =
        dir.join("Cargo.toml").canonicalize().map_err(|error| not_a_guest(format!("no Cargo.toml: {error}")))?;
    let metadata = metadata(cargo, &manifest).map_err(|failure| match failure {
        MetadataFailure::NoCargo(reason) => BuildError::NoCargo { reason },
        MetadataFailure::Refused(reason) => not_a_guest(reason),
    })?;
    let package = metadata
        .packages
        .iter()
        .find(|package| package.manifest_path == manifest)
        .ok_or_else(|| not_a_guest("it is a workspace, not a package".into()))?;
    let library = package
        .targets
        .iter()
        .find(|target| target.crate_types.iter().any(|kind| kind == "cdylib"))
        .ok_or_else(|| not_a_guest("its Cargo.toml says no `crate-type = [\"cdylib\"]` under [lib]".into()))?;
    for (what, text) in [("name", &package.name), ("version", &package.version)] {
        if !is_module_name(text) || is_reserved_module_name(text) {
            return Err(BuildError::Name { what, text: text.clone() });
        }
    }
    let elsewhere = package.built_from().filter(|(_, path)| !path.starts_with(&metadata.workspace_root));
    let dir = manifest.parent().unwrap_or(dir).to_owned();
    Ok(Guest {
        package: package.name.clone(),
        version: package.version.clone(),
        vectors: vectors(&dir)?,
        library: library.name.replace('-', "_"),
        dir,
        elsewhere: elsewhere.map(|(name, path)| (name.to_owned(), path.to_owned())).collect(),
        source_sha256: hash(&metadata, package)?,
        target: metadata.target_directory,
        workspace: metadata.workspace_root,
    })
}

/// Text of the test vectors in `dir`, if there are some.
fn vectors(dir: &Path) -> Result<Option<String>, BuildError> {
    let path = dir.join(VECTORS_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => match Vectors::parse(&text) {
            Ok(_) => Ok(Some(text)),
            Err(error) => Err(BuildError::Vectors { path, reason: error.to_string() }),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BuildError::File { path, reason: error.to_string() }),
    }
}

enum MetadataFailure {
    NoCargo(String),
    Refused(String),
}

fn metadata(cargo: &Path, manifest: &Path) -> Result<Metadata, MetadataFailure> {
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(manifest)
        .output()
        .map_err(|error| MetadataFailure::NoCargo(error.to_string()))?;
    if !output.status.success() {
        return Err(MetadataFailure::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| MetadataFailure::Refused(format!("cargo metadata is not understood: {error}")))
}

/// SHA-256 over the sorted relative paths and contents of the package's sources and vectors, the sources of the packages
/// of the same workspace that it is built from, and the workspace's WIT. Not what only native tests use.
fn hash(metadata: &Metadata, package: &Package) -> Result<String, BuildError> {
    let root = &metadata.workspace_root;
    let mut files = BTreeMap::new();
    collect(root, &root.join("wit"), &mut files)?;
    if let Some(dir) = package.manifest_path.parent() {
        collect(root, &dir.join(VECTORS_FILE), &mut files)?;
    }
    let mut done: Vec<&Path> = Vec::new();
    let mut todo = vec![package];
    while let Some(package) = todo.pop() {
        let Some(dir) = package.manifest_path.parent() else { continue };
        if done.contains(&dir) {
            continue;
        }
        done.push(dir);
        for part in ["Cargo.toml", "build.rs", "src", "wit"] {
            collect(root, &dir.join(part), &mut files)?;
        }
        let paths: Vec<&Path> = package.built_from().map(|(_, path)| path).collect();
        let member = |member: &&Package| paths.iter().any(|path| member.manifest_path.parent() == Some(path));
        todo.extend(metadata.packages.iter().filter(member));
    }
    let mut hash = Sha256::new();
    for (path, content) in &files {
        for part in [path.as_bytes(), content] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    Ok(Digest(hash.finalize().into()).to_string())
}

/// Adds `path`, or everything below it, if it is there.
fn collect(root: &Path, path: &Path, files: &mut BTreeMap<String, Vec<u8>>) -> Result<(), BuildError> {
    let unreadable = |error: std::io::Error| BuildError::File { path: path.to_owned(), reason: error.to_string() };
    if path.is_dir() {
        for entry in std::fs::read_dir(path).map_err(unreadable)? {
            collect(root, &entry.map_err(unreadable)?.path(), files)?;
        }
    } else if path.is_file() {
        let relative = path.strip_prefix(root).unwrap_or(path);
        let parts: Vec<_> = relative.components().map(|part| part.as_os_str().to_string_lossy()).collect();
        files.insert(parts.join("/"), std::fs::read(path).map_err(unreadable)?);
    }
    Ok(())
}
