//! Lifetime of a module: from bytes to a pool of instances, or to the reason why not.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use wasmparser::{Parser, Payload};
use wasmtime::component::{Component, InstancePre};

use super::Interface;
use super::bindings::{self, HostState, Settings};
use super::engine::PolicyEngine;
use super::instance::{CallFailure, MemoryLimit, Pool, Recipe};
use super::log_gate::LogGate;
use crate::config::PolicyConfig;
use crate::model::Digest;

/// How long a module counts as unhealthy after a failed call.
const UNHEALTHY_TIME: Duration = Duration::from_secs(60);

/// Name of the custom section in which `weir policy build` notes the hash of the sources.
pub const SOURCE_SECTION: &str = "weir:source-sha256";

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
    #[error("imports {name}, which weir does not offer (it offers weir:policy/log and weir:policy/config)")]
    UnknownImport {
        /// The import.
        name: String,
    },
    /// Imports something that weir has, but with another version or signature.
    #[error("an import does not fit what weir offers: {reason}")]
    WrongImport {
        /// What does not fit.
        reason: String,
    },
    /// Exports none of the interfaces of weir.
    #[error("exports neither {} nor {}; it exports {}", Interface::Toggle.export_name(), Interface::Flush.export_name(), listed(.found))]
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
            Self::WrongImport { .. } => "wrong-import",
            Self::NoExports { .. } => "no-exports",
            Self::WrongExport { .. } => "wrong-export",
            Self::Instantiate { .. } => "instantiate",
        }
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

/// What is known of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModuleInfo {
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    /// `built-in`, or the file.
    pub source: String,
    /// Its size, in bytes.
    pub bytes: usize,
    /// Its functions.
    pub functions: u64,
    /// The interfaces that it serves.
    pub interfaces: Vec<&'static str>,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it exports besides, and the host ignores.
    pub ignored: Vec<String>,
    /// The hash of its sources, where `weir policy build` made it.
    pub source_sha256: Option<String>,
    /// No call has failed since it was loaded.
    pub healthy: bool,
    /// Calls that failed.
    pub failures: u64,
    /// What the last failure was.
    pub last_failure: Option<String>,
}

/// A module that was found good.
pub(super) struct Module {
    pub(super) digest: Digest,
    pub(super) pool: Pool,
    info: ModuleInfo,
    log: Arc<LogGate>,
    failures: AtomicU64,
    last_failure: Mutex<Option<(Instant, String)>>,
}

impl Module {
    /// Validates, compiles and starts a component.
    pub(super) fn load(
        engine: &PolicyEngine,
        config: &PolicyConfig,
        settings: &Settings,
        source: &str,
        bytes: &[u8],
    ) -> Result<Self, LoadError> {
        let outline = inspect(config, bytes)?;
        let component = compile(engine, bytes, Duration::from_millis(config.compile_deadline_ms))?;
        let border = Border::of(engine, &component)?;
        let pre = engine
            .linker
            .instantiate_pre(&component)
            .map_err(|error| LoadError::WrongImport { reason: format!("{error:#}") })?;

        let digest = Digest(Sha256::digest(bytes).into());
        let name = digest.to_string();
        let log = Arc::new(LogGate::new(name[..12].to_owned()));
        let (settings, gate, memory) = (Arc::clone(settings), Arc::clone(&log), config.memory_bytes_max);
        let mut recipe = Recipe {
            pre,
            toggle: None,
            flush: None,
            state: Box::new(move || HostState {
                settings: Arc::clone(&settings),
                log: Arc::clone(&gate),
                memory: MemoryLimit::new(memory),
            }),
            transfer_bytes_max: config.transfer_bytes_max,
            call_ticks: engine.call_ticks,
        };
        let interfaces = bind(&mut recipe, &border)?;
        let wait_max = Duration::from_millis(config.call_deadline_ms);
        let pool = Pool::fill(recipe, config.instances, wait_max).map_err(not_started)?;
        let info = ModuleInfo {
            digest: name,
            source: source.to_owned(),
            bytes: bytes.len(),
            functions: outline.functions,
            interfaces,
            imports: border.imports,
            ignored: border.ignored,
            source_sha256: outline.source_sha256,
            healthy: true,
            failures: 0,
            last_failure: None,
        };
        Ok(Self { digest, pool, info, log, failures: AtomicU64::new(0), last_failure: Mutex::new(None) })
    }

    /// Whether it exports `interface`.
    pub(super) fn exports(&self, interface: Interface) -> bool {
        self.info.interfaces.contains(&interface.name())
    }

    /// Notes a failed call: the module is unhealthy for a minute from now on.
    pub(super) fn failed(&self, interface: Interface, failure: &CallFailure) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let text = format!("{} in {}: {}", failure.cause.as_str(), interface.name(), failure.reason);
        self.log.write(tracing::Level::ERROR, &format!("policy call failed: {text}"));
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), text));
    }

    /// What is known of it now.
    pub(super) fn info(&self) -> ModuleInfo {
        let failures = self.failures.load(Ordering::Relaxed);
        let last = self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let recent = last.as_ref().is_some_and(|(at, _)| at.elapsed() < UNHEALTHY_TIME);
        ModuleInfo { healthy: !recent, failures, last_failure: last.map(|(_, text)| text), ..self.info.clone() }
    }
}

/// Reads a component's file, unless it is larger than allowed.
pub(super) fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, LoadError> {
    use std::io::Read as _;
    let unreadable = |error: std::io::Error| LoadError::Unreadable { path: path.to_owned(), reason: error.to_string() };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let too_large = |bytes: u64| LoadError::TooLarge { bytes, bytes_max };
    if size > bytes_max as u64 {
        return Err(too_large(size));
    }
    // The file may grow, or be a pipe without a size.
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > bytes_max { Err(too_large(bytes.len() as u64)) } else { Ok(bytes) }
}

/// What is seen without compiling.
struct Outline {
    functions: u64,
    source_sha256: Option<String>,
}

fn inspect(config: &PolicyConfig, bytes: &[u8]) -> Result<Outline, LoadError> {
    if bytes.len() > config.module_bytes_max {
        return Err(LoadError::TooLarge { bytes: bytes.len() as u64, bytes_max: config.module_bytes_max });
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(LoadError::NotAComponent { reason: "it does not begin with \\0asm".into() });
    }
    if Parser::is_core_wasm(bytes) {
        return Err(LoadError::CoreModule);
    }
    let mut outline = Outline { functions: 0, source_sha256: None };
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(|error| LoadError::NotAComponent { reason: error.to_string() })? {
            Payload::FunctionSection(functions) => outline.functions += u64::from(functions.count()),
            Payload::CustomSection(section) if section.name() == SOURCE_SECTION => {
                outline.source_sha256 = Some(String::from_utf8_lossy(section.data()).into_owned());
            }
            _ => {}
        }
    }
    if outline.functions > u64::from(config.functions_max) {
        return Err(LoadError::TooManyFunctions { functions: outline.functions, functions_max: config.functions_max });
    }
    Ok(outline)
}

/// Compiles on a thread of its own. It cannot be stopped: beyond the deadline it ends by itself, and its result is
/// dropped; size and number of functions bound how long that takes.
fn compile(engine: &PolicyEngine, bytes: &[u8], deadline: Duration) -> Result<Component, LoadError> {
    let (send, receive) = mpsc::sync_channel(1);
    let (compiler, bytes) = (engine.engine.clone(), bytes.to_vec());
    let work = move || {
        // The receiver is gone when the deadline has passed.
        let _ = send.send(Component::new(&compiler, &bytes));
    };
    std::thread::Builder::new()
        .name("weir-policy-compile".into())
        .spawn(work)
        .map_err(|error| LoadError::Engine { reason: format!("cannot start a thread to compile on: {error}") })?;
    match receive.recv_timeout(deadline) {
        Ok(compiled) => compiled.map_err(|error| LoadError::Compile { reason: format!("{error:#}") }),
        Err(mpsc::RecvTimeoutError::Timeout) => {
            Err(LoadError::CompileDeadline { deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX) })
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(LoadError::Compile { reason: "the compiler panicked".into() }),
    }
}

/// Names of what a component imports and exports.
struct Border {
    imports: Vec<String>,
    known: Vec<Interface>,
    ignored: Vec<String>,
}

impl Border {
    fn of(engine: &PolicyEngine, component: &Component) -> Result<Self, LoadError> {
        let ty = component.component_type();
        let imports: Vec<String> = ty.imports(&engine.engine).map(|(name, _)| name.to_owned()).collect();
        let offered = |name: &&String| bindings::IMPORTS.contains(&name.split('@').next().unwrap_or(name));
        if let Some(name) = imports.iter().find(|name| !offered(name)) {
            return Err(LoadError::UnknownImport { name: name.clone() });
        }
        let exports: Vec<String> = ty.exports(&engine.engine).map(|(name, _)| name.to_owned()).collect();
        let is = |interface: Interface| component.get_export_index(None, interface.export_name()).is_some();
        let known: Vec<Interface> = Interface::ALL.into_iter().filter(|&interface| is(interface)).collect();
        if known.is_empty() {
            return Err(LoadError::NoExports { found: exports });
        }
        let ours = |name: &String| known.iter().any(|interface| name.starts_with(interface.export_prefix()));
        let ignored = exports.into_iter().filter(|name| !ours(name)).collect();
        Ok(Self { imports, known, ignored })
    }
}

/// Finds the functions of the known exports and checks their types on a first instance.
fn bind(recipe: &mut Recipe, border: &Border) -> Result<Vec<&'static str>, LoadError> {
    let mut store = recipe.store();
    let instance = recipe.pre.instantiate(&mut store).map_err(not_started)?;
    for &interface in &border.known {
        let wrong = bindings::wrong_functions(interface, &mut store, &instance);
        let interface_name = interface.export_name();
        if !wrong.is_empty() {
            return Err(LoadError::WrongExport { interface: interface_name, reason: wrong.join("; ") });
        }
        let refused =
            |error: wasmtime::Error| LoadError::WrongExport { interface: interface_name, reason: format!("{error:#}") };
        let pre: &InstancePre<HostState> = &recipe.pre;
        match interface {
            Interface::Toggle => {
                recipe.toggle = Some(bindings::toggle::GuestIndices::new(pre).map_err(refused)?);
            }
            Interface::Flush => recipe.flush = Some(bindings::flush::GuestIndices::new(pre).map_err(refused)?),
        }
    }
    Ok(border.known.iter().map(|interface| interface.name()).collect())
}

fn not_started(error: wasmtime::Error) -> LoadError {
    LoadError::Instantiate { reason: format!("{error:#}") }
}
