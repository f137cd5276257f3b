//! Why a component is refused.

use std::path::PathBuf;

use super::interface::Interface;

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
    #[error("not a WebAssembly component: {reason}")]
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
    #[error("does not compile: {reason}")]
    Compile {
        /// What the compiler said.
        reason: String,
    },
    /// Imports something that weir does not have.
    #[error("imports {name}, which weir does not offer (it offers log, config, redis and sql of weir:policy@0.1.0)")]
    UnknownImport {
        /// The import.
        name: String,
    },
    /// Imports what its operator has not granted.
    #[error(
        "imports {import}, which is not granted to it: if it shall have that, write [[policy.grant]] with module = \
         {module:?} into the configuration and restart"
    )]
    NotGranted {
        /// The import.
        import: String,
        /// The module's name.
        module: String,
    },
    /// Imports something that weir has, but with another version or signature.
    #[error("an import does not fit what weir offers: {reason}")]
    WrongImport {
        /// What does not fit.
        reason: String,
    },
    /// Exports none of the interfaces of weir.
    #[error("exports none of {}; it exports {}", Interface::ALL.map(Interface::export_name).join(", "), listed(.found))]
    NoExports {
        /// What it exports instead.
        found: Vec<String>,
    },
    /// Exports an interface of weir, but not as its WIT says.
    #[error("{interface} is not as the WIT says: {reason}")]
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
    /// A module that was active is refused now.
    #[error(
        "{module}, which was active, is refused now: {reason}. Mend that, or remove {path} to begin with the built-in rules"
    )]
    ActiveSet {
        /// Its name and digest.
        module: String,
        /// Why it is refused.
        reason: String,
        /// Where the active set is written down.
        path: PathBuf,
    },
    /// What it carries as test vectors is none.
    #[error("its test vectors are not usable: {reason}")]
    BadVectors {
        /// What is wrong with them.
        reason: String,
    },
    /// It does not answer as its test vectors say.
    #[error("{failed} of {cases} test vectors fail: {first}")]
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
    #[error("does not start: {reason}")]
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
            Self::ActiveSet { .. } => "active-set",
            Self::NotGranted { .. } => "import-not-granted",
            Self::WrongImport { .. } => "wrong-import",
            Self::BadVectors { .. } => "bad-vectors",
            Self::Vectors { .. } => "vectors",
            Self::VectorsDeadline { .. } => "vectors-deadline",
            Self::NoExports { .. } => "no-exports",
            Self::WrongExport { .. } => "wrong-export",
            Self::Instantiate { .. } => "instantiate",
        }
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}
