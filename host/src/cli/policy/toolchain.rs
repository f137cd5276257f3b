//! Finds a way to compile for `wasm32-unknown-unknown` on this machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::build::BuildError;

/// The target of all guests: a component made from it imports nothing but what it asked for.
pub(super) const TARGET: &str = "wasm32-unknown-unknown";

/// Where Debian installs its compiler.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A way to compile.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Toolchain {
    /// The target is installed.
    Installed,
    /// The standard library is compiled too, from the sources that belong to `rustc`.
    FromSources {
        /// A compiler that has the sources of its standard library.
        rustc: PathBuf,
        /// Links WebAssembly.
        linker: PathBuf,
    },
}

impl Toolchain {
    /// The compiler that compiles this way.
    pub(super) fn rustc(&self) -> PathBuf {
        match self {
            Self::Installed => default_rustc(),
            Self::FromSources { rustc, .. } => rustc.clone(),
        }
    }

    /// Makes `cargo build` compile for [`TARGET`] this way.
    pub(super) fn apply(&self, cargo: &mut Command) {
        cargo.args(["--target", TARGET]);
        if let Self::FromSources { rustc, linker } = self {
            cargo
                .arg("-Zbuild-std=std,panic_abort")
                .env("RUSTC", rustc)
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
    }
}

/// The compiler that cargo would use.
fn default_rustc() -> PathBuf {
    std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from)
}

/// Looks for the first way that works, and says what it does.
pub(super) fn find(dir: &Path) -> Result<Toolchain, BuildError> {
    let rustc = default_rustc();
    if has_target(&rustc, dir) {
        return Ok(Toolchain::Installed);
    }
    eprintln!("The target {TARGET} is not installed. Trying `rustup target add {TARGET}` ...");
    let added = match Command::new("rustup").args(["target", "add", TARGET]).current_dir(dir).output() {
        Ok(output) if output.status.success() && has_target(&rustc, dir) => return Ok(Toolchain::Installed),
        Ok(output) => last_line(&output.stderr),
        Err(error) => error.to_string(),
    };
    eprintln!("... did not work ({added}). Looking for sources of the standard library ...");
    from_sources(&rustc, dir).map_err(|sources| BuildError::NoToolchain { added, sources: sources.to_owned() })
}

fn last_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no reason given").to_owned()
}

/// The path that a compiler prints.
fn printed(rustc: &Path, dir: &Path, arguments: &[&str]) -> Option<PathBuf> {
    let output = Command::new(rustc).args(arguments).current_dir(dir).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| PathBuf::from(text.trim()))
}

fn has_target(rustc: &Path, dir: &Path) -> bool {
    printed(rustc, dir, &["--print", "target-libdir", "--target", TARGET]).is_some_and(|path| path.is_dir())
}

/// Root of what belongs to a compiler.
pub(super) fn sysroot(rustc: &Path, dir: &Path) -> Option<PathBuf> {
    printed(rustc, dir, &["--print", "sysroot"])
}

fn from_sources(default: &Path, dir: &Path) -> Result<Toolchain, &'static str> {
    let compilers = [default, Path::new(DEBIAN_RUSTC)];
    let has_sources = |rustc: &&Path| {
        sysroot(rustc, dir).is_some_and(|root| root.join("lib/rustlib/src/rust/library/std/Cargo.toml").is_file())
    };
    let rustc =
        compilers.into_iter().find(has_sources).ok_or("no compiler here has the sources of its standard library")?;
    // The default compiler may be another one than RUSTC, and its linker serves both.
    let linker = linkers(&[default, Path::new("rustc"), Path::new(DEBIAN_RUSTC)], dir)
        .into_iter()
        .find(|path| path.is_file())
        .ok_or("no linker for WebAssembly (rust-lld, wasm-ld) is installed")?;
    Ok(Toolchain::FromSources { rustc: rustc.to_owned(), linker })
}

/// Where a linker may be: beside the compilers, then on the path.
fn linkers(compilers: &[&Path], dir: &Path) -> Vec<PathBuf> {
    let beside = |rustc: &&Path| {
        let libraries = printed(rustc, dir, &["--print", "target-libdir"])?;
        Some(libraries.parent()?.join("bin/rust-lld"))
    };
    let mut found: Vec<PathBuf> = compilers.iter().filter_map(beside).collect();
    if let Some(path) = std::env::var_os("PATH") {
        for dir in std::env::split_paths(&path) {
            found.extend(["rust-lld", "wasm-ld"].map(|name| dir.join(name)));
        }
    }
    found
}
