//! The one build script for guests: compile, make a component, note in it what it is and how it is tested, check.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;
use wasm_encoder::{ComponentSection as _, CustomSection};
use weir_policy_vectors::{NAME_SECTION, VECTORS_SECTION, VERSION_SECTION};
use wit_component::ComponentEncoder;

use super::sources::{self, Guest};
use super::toolchain::{self, TARGET, Toolchain};
use crate::config::PolicyConfig;
use crate::policy::{self, Compiler, Failing, LoadError, SOURCE_SECTION};

/// A guest is small and called often: size first, inlined across crates, no unwinding.
const PROFILE: [(&str, &str); 4] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s"),
    ("CARGO_PROFILE_RELEASE_LTO", "true"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
];
/// Strips names: users of a working module do not need them.
const STRIPPED: [(&str, &str); 2] =
    [("CARGO_PROFILE_RELEASE_STRIP", "symbols"), ("CARGO_PROFILE_RELEASE_DEBUG", "false")];
/// Keeps names and lines, for the module's author.
const NAMED: [(&str, &str); 2] =
    [("CARGO_PROFILE_RELEASE_STRIP", "none"), ("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only")];

/// What was built.
#[derive(Debug, Serialize)]
pub(super) struct Built {
    /// The component.
    pub(super) path: PathBuf,
    /// Its size, in bytes.
    pub(super) bytes: usize,
    /// Its digest.
    pub(super) sha256: String,
    /// Hash of its sources, as embedded in it.
    pub(super) source_sha256: String,
    /// The interfaces that it exports.
    pub(super) interfaces: Vec<&'static str>,
    /// Functions that failed when they were tried without settings.
    pub(super) failing: Vec<Failing>,
}

/// Why nothing was built. The message says what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    #[error("cannot run cargo ({reason}): install Rust, see https://rustup.rs")]
    NoCargo { reason: String },
    #[error("{dir} is not a guest: {reason}")]
    NotAGuest { dir: PathBuf, reason: String },
    #[error(
        "{what} {text:?} in its Cargo.toml cannot be a module's: 1 to 64 letters, digits, hyphens, dots and underscores, \
         and no word of weir's own such as canary"
    )]
    Name { what: &'static str, text: String },
    #[error("{path} is not a file of test vectors: {reason}")]
    Vectors { path: PathBuf, reason: String },
    #[error(
        "this machine cannot compile for {TARGET}.\n  rustup target add {TARGET}: {added}\n  from sources: {sources}\n\
         Do one of these:\n  - with rustup:         rustup target add {TARGET}\n  \
         - on Debian or Ubuntu: apt-get install rustc-web rust-web-src lld"
    )]
    NoToolchain { added: String, sources: String },
    #[error("the compiler failed, see above")]
    Compile,
    #[error("{path}: {reason}")]
    File { path: PathBuf, reason: String },
    #[error("the compiled module cannot be made a component: {reason}")]
    Encode { reason: String },
    #[error("the component is built, but this host would refuse it: {0}")]
    Refused(#[from] LoadError),
}

/// Builds the guest in `dir` and writes its component to `output`; with `debug`, names and lines stay in it.
pub(super) fn build(dir: &Path, output: Option<&Path>, debug: bool) -> Result<Built, BuildError> {
    let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let guest = sources::guest(&cargo, dir)?;
    let toolchain = toolchain::find(&guest.dir)?;
    let core = compile(&cargo, &guest, &toolchain, debug)?;
    eprintln!("Making a component of {} ...", core.display());
    let component = encode(&read(&core)?, &guest)?;
    let info = policy::check(&PolicyConfig::default(), Compiler::this_executable(), &[], &component)?;
    let path = output.map_or_else(|| guest.dir.join("policy.wasm"), Path::to_owned);
    std::fs::write(&path, &component)
        .map_err(|error| BuildError::File { path: path.clone(), reason: error.to_string() })?;
    Ok(Built {
        path,
        bytes: component.len(),
        sha256: info.digest,
        source_sha256: guest.source_sha256,
        interfaces: info.interfaces,
        failing: info.failing,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    std::fs::read(path).map_err(|error| BuildError::File { path: path.to_owned(), reason: error.to_string() })
}

/// Runs cargo in a target directory of the guests' own, so that it never waits for, or undoes, a build of the host.
fn compile(cargo: &Path, guest: &Guest, toolchain: &Toolchain, debug: bool) -> Result<PathBuf, BuildError> {
    match toolchain {
        Toolchain::Installed => eprintln!("Compiling {} for {TARGET} ...", guest.package),
        Toolchain::FromSources { rustc, .. } => {
            eprintln!("Compiling {} and the standard library of {} for {TARGET} ...", guest.package, rustc.display());
        }
    }
    let target = guest.target.join("guest");
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--lib", "--package", &guest.package]).arg("--target-dir").arg(&target);
    toolchain.apply(&mut command);
    let status = command
        .envs(PROFILE)
        .envs(if debug { NAMED } else { STRIPPED })
        .env("CARGO_ENCODED_RUSTFLAGS", flags(guest, toolchain))
        .current_dir(&guest.dir)
        .stdout(Stdio::null())
        .status()
        .map_err(|error| BuildError::NoCargo { reason: error.to_string() })?;
    if !status.success() {
        return Err(BuildError::Compile);
    }
    Ok(target.join(TARGET).join("release").join(format!("{}.wasm", guest.library)))
}

/// Keeps this machine's paths out of the component: they would end up in the texts of panics.
fn flags(guest: &Guest, toolchain: &Toolchain) -> OsString {
    let sysroot = toolchain::sysroot(&toolchain.rustc(), &guest.dir);
    let library = sysroot.map(|root| root.join("lib/rustlib/src/rust"));
    let home = std::env::home_dir().map(|home| home.join(".cargo"));
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or(home);
    let mut remapped: Vec<(PathBuf, String)> = vec![(guest.workspace.clone(), ".".into())];
    remapped.extend(guest.elsewhere.iter().map(|(name, path)| (path.clone(), format!("/{name}"))));
    remapped.extend(cargo_home.map(|path| (path, "/cargo".into())));
    // Debian's sources are a link: the compiler sees where it leads.
    remapped.extend(library.as_ref().and_then(|path| path.canonicalize().ok()).map(|path| (path, "/rust".into())));
    remapped.extend(library.map(|path| (path, "/rust".into())));
    let mut flags = OsString::new();
    for (from, to) in remapped {
        if !flags.is_empty() {
            flags.push("\u{1f}");
        }
        flags.push("--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    }
    flags
}

/// Makes a component of a core module, and notes in it what is known of the guest.
fn encode(core: &[u8], guest: &Guest) -> Result<Vec<u8>, BuildError> {
    let mut component = ComponentEncoder::default()
        .validate(true)
        .module(core)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| BuildError::Encode { reason: format!("{error:#}") })?;
    let notes = [
        (NAME_SECTION, Some(&guest.package)),
        (VERSION_SECTION, Some(&guest.version)),
        (SOURCE_SECTION, Some(&guest.source_sha256)),
        (VECTORS_SECTION, guest.vectors.as_ref()),
    ];
    for (name, text) in notes {
        if let Some(text) = text {
            CustomSection { name: name.into(), data: text.as_bytes().into() }.append_to_component(&mut component);
        }
    }
    Ok(component)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(dir: &Path) -> Result<Guest, BuildError> {
        sources::guest(Path::new(env!("CARGO")), dir)
    }

    #[test]
    fn the_default_policy_is_as_new_as_its_sources() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest/default");
        let info =
            policy::check_file(&PolicyConfig::default(), Compiler::InProcess, &[], &dir.join("policy.wasm"), false)
                .unwrap();
        assert_eq!(
            info.source_sha256,
            Some(guest(&dir).unwrap().source_sha256),
            "guest/default/policy.wasm is older than guest/ or wit/; rebuild it: cargo run -- policy build guest/default",
        );
        assert!(info.bytes < 200_000, "{} bytes", info.bytes);
    }

    #[test]
    fn what_is_no_guest_is_told_apart() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let reason = |dir: &str| guest(&root.join(dir)).unwrap_err().to_string();
        assert!(reason("wit").contains("no Cargo.toml"));
        assert!(reason(".").contains("a workspace, not a package"));
        assert!(reason("guest/sdk").contains("crate-type"));
    }

    #[test]
    fn what_cannot_be_noted_in_a_component_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = |name: &str, version: &str| {
            let package = format!("[package]\nname = \"{name}\"\nversion = \"{version}\"\n");
            let rest = "[lib]\ncrate-type = [\"cdylib\"]\npath = \"lib.rs\"\n[workspace]\n";
            std::fs::write(dir.path().join("Cargo.toml"), package + rest).unwrap();
        };
        std::fs::write(dir.path().join("lib.rs"), "").unwrap();
        let reason = || guest(dir.path()).unwrap_err().to_string();
        manifest("one-way", "1.0.0+build");
        assert!(reason().contains("version \"1.0.0+build\""), "{}", reason());
        manifest(&"a".repeat(65), "1.0.0");
        assert!(reason().contains("name \"aaa"), "{}", reason());
        manifest("one-way", "1.0.0");
        std::fs::write(dir.path().join("cases.json"), "{\"cases\": []}").unwrap();
        assert!(reason().contains("cases.json") && reason().contains("there is no case"), "{}", reason());
    }

    #[test]
    fn a_component_says_what_it_is_and_how_it_is_tested() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest/default");
        let component = std::fs::read(dir.join("policy.wasm")).unwrap();
        let mut noted = std::collections::BTreeMap::new();
        for payload in wasmparser::Parser::new(0).parse_all(&component) {
            if let wasmparser::Payload::CustomSection(section) = payload.unwrap() {
                noted.insert(section.name().to_owned(), section.data().to_owned());
            }
        }
        let text = |name: &str| String::from_utf8(noted[name].clone()).unwrap();
        assert_eq!((text(NAME_SECTION), text(VERSION_SECTION)), ("weir-default-policy".into(), "0.1.0".into()));
        assert_eq!(text(VECTORS_SECTION), std::fs::read_to_string(dir.join("cases.json")).unwrap());
    }

    #[test]
    fn the_hash_follows_every_source_file_and_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        std::fs::create_dir(dir.path().join("src")).unwrap();
        write(
            "Cargo.toml",
            "[package]\nname = \"g\"\nversion = \"0.0.0\"\n[lib]\ncrate-type = [\"cdylib\"]\n[workspace]\n",
        );
        write("src/lib.rs", "");
        let hash = || guest(dir.path()).unwrap().source_sha256;
        let first = hash();
        write("README.md", "is no source");
        assert_eq!(hash(), first);
        write("src/lib.rs", "// a comment is one");
        assert_ne!(hash(), first);
        write("src/lib.rs", "");
        let one_case = r#"{"name":"a","flush.coalesce":{"kind":"k","entries":[]},"expect":{"kept":[]}}"#;
        write("cases.json", &format!("{{\"cases\":[{one_case}]}}"));
        assert_ne!(hash(), first, "the vectors are in the component");
        std::fs::remove_file(dir.path().join("cases.json")).unwrap();
        write("src/a.rs", "");
        let added = hash();
        assert_ne!(added, first);
        std::fs::rename(dir.path().join("src/a.rs"), dir.path().join("src/b.rs")).unwrap();
        assert!(![first, added].contains(&hash()));
    }
}
