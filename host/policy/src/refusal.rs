//! Why a component is refused.

use std::path::PathBuf;

use super::interface::Interface;
use super::nearest::nearest;
use super::said::clip;

/// Bytes of a refusal that come from the module itself: what is handed in must not fill logs and the audit trail.
const REFLECTED_BYTES_MAX: usize = 1_000;
/// Names that a refusal lists.
const NAMES_MAX: usize = 12;
/// Bytes of each.
const NAME_BYTES_MAX: usize = 100;

/// Why a component is refused. The message says what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The WebAssembly engine cannot be set up on this machine.
    #[error("cannot set up the WebAssembly engine: {reason}")]
    Engine {
        /// What the engine said.
        reason: String,
    },
    /// The file cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Larger than the configuration allows.
    #[error("{bytes} bytes are more than policy.module_bytes_max = {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        bytes_max: usize,
    },
    /// Not WebAssembly, or cut short.
    #[error("not a WebAssembly component: {}", reflected(.reason))]
    NotAComponent {
        /// Where reading failed.
        reason: String,
    },
    /// A core module, not a component.
    #[error(
        "a core WebAssembly module, not a component: make one of it with `weir policy build` or `wasm-tools component new`"
    )]
    CoreModule,
    /// More functions than the configuration allows.
    #[error("{functions} functions are more than policy.functions_max = {functions_max}")]
    TooManyFunctions {
        /// Their number.
        functions: u64,
        /// The limit.
        functions_max: u32,
    },
    /// Compiling took too long.
    #[error("not compiled within policy.compile_deadline_ms = {deadline_ms}")]
    CompileDeadline {
        /// The limit, in milliseconds.
        deadline_ms: u64,
    },
    /// Not valid, or beyond a limit that is known before it runs.
    #[error("does not compile: {}", reflected(.reason))]
    Compile {
        /// What the compiler said.
        reason: String,
    },
    /// Imports something that weir does not have.
    #[error(
        "imports {}, which weir does not offer (it offers log, config, redis and sql of weir:policy@0.1.0, and of wasi what \
         standard output and error need)",
        clip(.name, NAME_BYTES_MAX)
    )]
    UnknownImport {
        /// The import.
        name: String,
    },
    /// Imports what its operator has not granted.
    #[error(
        "imports {}, which is not granted to it: if it shall have that, write [[policy.grant]] with module = \
         {module:?} into the configuration and restart",
        clip(.import, NAME_BYTES_MAX)
    )]
    NotGranted {
        /// The import.
        import: String,
        /// The module's name.
        module: String,
    },
    /// Imports something that weir has, but with another version or signature.
    #[error("an import does not fit what weir offers: {}", reflected(.reason))]
    WrongImport {
        /// What does not fit.
        reason: String,
    },
    /// Exports none of the interfaces of weir.
    #[error(
        "exports none of {}; it exports {}{}",
        Interface::ALL.map(Interface::export_name).join(", "),
        listed(.found),
        meant(.found)
    )]
    NoExports {
        /// What it exports instead.
        found: Vec<String>,
    },
    /// Exports something that can only be meant as an interface of weir.
    #[error("exports {}, which weir does not know: do you mean {nearest}?", clip(.found, NAME_BYTES_MAX))]
    MisspeltExport {
        /// What it exports.
        found: String,
        /// What is near.
        nearest: &'static str,
    },
    /// It failed in every call of a function that it was tried with.
    #[error(
        "no call of {function} has an answer (name your configuration with --config if the rules need settings): {}",
        clip(.reason, 2 * REFLECTED_BYTES_MAX)
    )]
    NeverAnswers {
        /// The function, such as `toggle.decide`.
        function: String,
        /// Why the first one failed.
        reason: String,
    },
    /// Its name is a word of weir's own.
    #[error("{name:?} is a word of the commands and paths of weir: give it another name (--name)")]
    ReservedName {
        /// The name.
        name: String,
    },
    /// Exports an interface of weir, but not as its WIT says.
    #[error("{interface} is not as the WIT says: {}", reflected(.reason))]
    WrongExport {
        /// The interface.
        interface: &'static str,
        /// The functions and what is wrong with them.
        reason: String,
    },
    /// The registry cannot be read or written.
    #[error("policy.registry: {reason}")]
    Registry {
        /// What the system said.
        reason: String,
    },
    /// What it carries as test vectors is none.
    #[error("its test vectors are not usable: {}", reflected(.reason))]
    BadVectors {
        /// What is wrong with them.
        reason: String,
    },
    /// It does not answer as its test vectors say.
    #[error("{failed} of {cases} test vectors fail: {}", clip(.first, 2 * REFLECTED_BYTES_MAX))]
    Vectors {
        /// How many fail.
        failed: usize,
        /// How many there are.
        cases: usize,
        /// The first that fails, with what was expected and what came.
        first: String,
    },
    /// Its test vectors take too long.
    #[error(
        "{run} of {cases} test vectors have run within policy.compile_deadline_ms = {deadline_ms}: give fewer, or quicker ones"
    )]
    VectorsDeadline {
        /// How many were run.
        run: usize,
        /// How many there are.
        cases: usize,
        /// The limit, in milliseconds.
        deadline_ms: u64,
    },
    /// It does not start: a trap, the deadline, or memory over the limit.
    #[error("does not start: {}", clip(.reason, 2 * REFLECTED_BYTES_MAX))]
    Instantiate {
        /// What happened.
        reason: String,
    },
}

impl LoadError {
    /// A stable word for scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Engine { .. } => "engine",
            Self::Unreadable { .. } => "unreadable",
            Self::TooLarge { .. } => "too-large",
            Self::NotAComponent { .. } => "not-a-component",
            Self::CoreModule => "core-module",
            Self::TooManyFunctions { .. } => "too-many-functions",
            Self::CompileDeadline { .. } => "compile-deadline",
            Self::Compile { .. } => "compile",
            Self::UnknownImport { .. } => "unknown-import",
            Self::Registry { .. } => "registry",
            Self::NotGranted { .. } => "import-not-granted",
            Self::WrongImport { .. } => "wrong-import",
            Self::BadVectors { .. } => "bad-vectors",
            Self::Vectors { .. } => "vectors",
            Self::VectorsDeadline { .. } => "vectors-deadline",
            Self::NoExports { .. } => "no-exports",
            Self::WrongExport { .. } => "wrong-export",
            Self::MisspeltExport { .. } => "misspelt-export",
            Self::NeverAnswers { .. } => "never-answers",
            Self::ReservedName { .. } => "reserved-name",
            Self::Instantiate { .. } => "instantiate",
        }
    }
}

/// Names of a component, the first of them.
pub(super) fn listed(names: &[String]) -> String {
    let kept: Vec<String> = names.iter().take(NAMES_MAX).map(|name| clip(name, NAME_BYTES_MAX)).collect();
    match names.len().saturating_sub(kept.len()) {
        _ if names.is_empty() => "nothing".into(),
        0 => kept.join(", "),
        more => format!("{} and {more} more", kept.join(", ")),
    }
}

fn reflected(reason: &str) -> String {
    clip(reason, REFLECTED_BYTES_MAX)
}

/// What the first export that is near one of ours may be meant as.
fn meant(found: &[String]) -> String {
    let near = found.iter().find_map(|name| {
        let own = name.split('@').next().unwrap_or(name).trim_start_matches("weir:policy/");
        let interface = Interface::from_name(nearest(own, Interface::ALL.into_iter().map(Interface::name))?)?;
        Some((name, interface.export_name()))
    });
    near.map_or_else(String::new, |(name, ours)| format!(" (do you mean {ours} by {}?)", clip(name, NAME_BYTES_MAX)))
}
