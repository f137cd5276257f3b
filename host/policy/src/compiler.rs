//! Compiling a component in bounded time and memory.
//!
//! What comes from outside is compiled by a child process: it can be ended at its deadline, its memory is limited by the
//! system, and a fault of the compiler ends only the child. What comes back is code of this very executable, and is
//! loaded only here; compiled code from anywhere else is never accepted.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit};
use wasmtime::component::Component;

use super::engine::{Metering, PolicyEngine, compiling_engine};
use super::refusal::LoadError;
use weir_core::config::{PolicyConfig, PolicyPoolConfig};

/// How often a child is looked after, at first; later the pauses are longer.
const POLL_FIRST: Duration = Duration::from_micros(500);
const POLL_MAX: Duration = Duration::from_millis(10);
/// Bytes of a child's message that are kept.
const MESSAGE_BYTES_MAX: u64 = 4_096;
/// Exit code of a child that says why a component does not compile.
const EXIT_REFUSED: u8 = 1;
/// Command of `weir` that runs [`child_main`].
pub const CHILD_COMMAND: &str = "compile-component";

/// Where components are compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compiler {
    /// In this process, on a thread that cannot be stopped and whose memory is not limited: for components that are
    /// trusted, and for tests.
    InProcess,
    /// By this executable of weir, as a child process.
    Child(PathBuf),
}

impl Compiler {
    /// This executable, as a child.
    pub fn this_executable() -> Self {
        // Also after the file was replaced: the code must be that of the process that loads it.
        let running = PathBuf::from("/proc/self/exe");
        if running.exists() {
            Self::Child(running)
        } else {
            std::env::current_exe().map_or(Self::InProcess, Self::Child)
        }
    }

    /// Compiled code for `engine`, which [`deserialize`] makes a component of.
    pub(super) fn compile(
        &self,
        engine: &PolicyEngine,
        config: &PolicyConfig,
        bytes: &[u8],
    ) -> Result<Vec<u8>, LoadError> {
        match self {
            Self::InProcess => compile_on_thread(engine, bytes, deadline(config)),
            Self::Child(executable) => compile_in_child(executable, engine.metering, config, bytes),
        }
    }
}

fn deadline(config: &PolicyConfig) -> Duration {
    Duration::from_millis(config.compile_deadline_ms)
}

fn too_long(config_deadline: Duration) -> LoadError {
    LoadError::CompileDeadline { deadline_ms: u64::try_from(config_deadline.as_millis()).unwrap_or(u64::MAX) }
}

/// Beyond the deadline the thread ends by itself, and its result is dropped; size and number of functions bound how long
/// that takes.
fn compile_on_thread(engine: &PolicyEngine, bytes: &[u8], deadline: Duration) -> Result<Vec<u8>, LoadError> {
    let (send, receive) = mpsc::sync_channel(1);
    let (compiler, bytes) = (engine.engine.clone(), bytes.to_vec());
    let work = move || {
        // The receiver is gone when the deadline has passed.
        let _ = send.send(compiler.precompile_component(&bytes));
    };
    std::thread::Builder::new()
        .name("weir-policy-compile".into())
        .spawn(work)
        .map_err(|error| LoadError::Engine { reason: format!("cannot start a thread to compile on: {error}") })?;
    match receive.recv_timeout(deadline) {
        Ok(compiled) => compiled.map_err(|error| LoadError::Compile { reason: format!("{error:#}") }),
        Err(mpsc::RecvTimeoutError::Timeout) => Err(too_long(deadline)),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(LoadError::Compile { reason: "the compiler panicked".into() }),
    }
}

fn compile_in_child(
    executable: &PathBuf,
    metering: Metering,
    config: &PolicyConfig,
    bytes: &[u8],
) -> Result<Vec<u8>, LoadError> {
    let failed = |what: &str, error: std::io::Error| LoadError::Engine { reason: format!("{what}: {error}") };
    let mut command = Command::new(executable);
    command
        .arg(CHILD_COMMAND)
        .args(["--call-memory-bytes-max", &config.memory_bytes_max.to_string()])
        .args(["--data-bytes-max", &config.compile_memory_bytes_max.to_string()])
        // How bounds are checked is part of the code.
        .args(["--memory-reservation-bytes", &config.pool.memory_reservation_bytes.to_string()])
        .args(["--memory-guard-bytes", &config.pool.memory_guard_bytes.to_string()])
        .env_clear()
        // The allocator would reserve a GiB at once, which counts against the child's limit.
        .env("MIMALLOC_ARENA_RESERVE", "16MiB")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if metering == Metering::Fuel {
        command.arg("--metered");
    }
    let mut child = Reaped(command.spawn().map_err(|error| failed("cannot start the compiler", error))?);
    let (stdin, stdout, stderr) = (child.0.stdin.take(), child.0.stdout.take(), child.0.stderr.take());
    let (Some(mut stdin), Some(mut stdout), Some(stderr)) = (stdin, stdout, stderr) else {
        return Err(LoadError::Engine { reason: "the compiler has no pipes".into() });
    };
    std::thread::scope(|scope| {
        // A child that ended early closes its input: its exit status says more than the broken pipe.
        scope.spawn(move || stdin.write_all(bytes));
        let code = scope.spawn(move || {
            let mut code = Vec::new();
            stdout.read_to_end(&mut code).map(|_| code)
        });
        let message = scope.spawn(move || {
            let mut message = String::new();
            let _ = stderr.take(MESSAGE_BYTES_MAX).read_to_string(&mut message);
            message
        });
        let ended = wait(&mut child.0, deadline(config));
        // Closes the pipes, so that the threads end.
        drop(child);
        let code = code.join().unwrap_or_else(|_| Ok(Vec::new()));
        let message = message.join().unwrap_or_default();
        match ended.map_err(|error| failed("cannot wait for the compiler", error))? {
            None => Err(too_long(deadline(config))),
            Some(status) if status.success() => code.map_err(|error| failed("cannot read from the compiler", error)),
            Some(status) => Err(LoadError::Compile { reason: why_ended(status, message.trim(), config) }),
        }
    })
}

fn why_ended(status: ExitStatus, message: &str, config: &PolicyConfig) -> String {
    if status.code() == Some(i32::from(EXIT_REFUSED)) && !message.is_empty() {
        return message.to_owned();
    }
    format!(
        "the compiler ended with {status}, as when it needs more than policy.compile_memory_bytes_max = {}",
        config.compile_memory_bytes_max
    )
}

/// A child that is ended when it is dropped.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the child ends; `None` at the deadline.
fn wait(child: &mut Child, deadline: Duration) -> std::io::Result<Option<ExitStatus>> {
    let started = Instant::now();
    let mut pause = POLL_FIRST;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(POLL_MAX);
    }
}

/// What the child must know of the configuration. In bytes.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct ChildArguments {
    /// Linear memory of an instance.
    #[arg(long)]
    call_memory_bytes_max: usize,
    /// Data of the child.
    #[arg(long)]
    data_bytes_max: u64,
    /// Address space of a linear memory.
    #[arg(long)]
    memory_reservation_bytes: u64,
    /// Address space behind it.
    #[arg(long)]
    memory_guard_bytes: u64,
    /// Whether the code counts fuel.
    #[arg(long)]
    metered: bool,
}

/// The child: reads a component from standard input, writes its code to standard output. Its data is limited to
/// `data_bytes_max`, in bytes; beyond, it ends.
///
/// # Errors
/// The reason why it does not compile, for standard error.
pub fn child_main(arguments: &ChildArguments) -> Result<(), String> {
    let ChildArguments { call_memory_bytes_max, data_bytes_max, memory_reservation_bytes, memory_guard_bytes, metered } =
        *arguments;
    let limit = |what, bytes| {
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        rustix::process::setrlimit(what, limit).map_err(|error| format!("cannot limit the compiler: {error}"))
    };
    // A host that was killed can end no child.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|error| format!("cannot tie the compiler to its host: {error}"))?;
    limit(Resource::Data, data_bytes_max)?;
    limit(Resource::Core, 0)?;
    let pool = PolicyPoolConfig { memory_reservation_bytes, memory_guard_bytes };
    let config = PolicyConfig { memory_bytes_max: call_memory_bytes_max, pool, ..PolicyConfig::default() };
    let metering = if metered { Metering::Fuel } else { Metering::None };
    let engine = compiling_engine(&config, metering).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let code = engine.precompile_component(&bytes).map_err(|error| format!("{error:#}"))?;
    std::io::stdout().write_all(&code).map_err(|error| error.to_string())
}

/// Makes a component of compiled code.
///
/// `code` must come from [`Compiler::compile`] of this executable: directly, or through the cache of the registry, which
/// only this process's user can write and whose content is checked against its hash.
#[allow(
    unsafe_code,
    reason = "compiled code is native code; it comes only from this executable's own compiler, never from outside. \
              Measured: a module of 60 kB compiles in tens of milliseconds and loads in under one"
)]
pub(super) fn deserialize(engine: &PolicyEngine, code: &[u8]) -> Result<Component, LoadError> {
    // SAFETY: see above.
    unsafe { Component::deserialize(&engine.engine, code) }
        .map_err(|error| LoadError::Compile { reason: does_not_load(&format!("{error:#}")) })
}

/// Which setting bounds what wasmtime has too much of, by its words for it.
const SETTINGS: [(&str, &str); 5] = [
    ("core module instances", "policy.core_instances_max"),
    ("linear memories", "policy.memories_max"),
    ("tables, which exceeds", "policy.tables_max"),
    ("minimum element size", "policy.table_elements_max"),
    ("memory minimum size", "policy.memory_bytes_max"),
];

fn does_not_load(reason: &str) -> String {
    let setting = SETTINGS.iter().find(|(words, _)| reason.contains(words));
    let remedy = setting.map_or_else(String::new, |(_, setting)| format!(" (the limit is {setting})"));
    format!("the compiled code does not load: {reason}{remedy}")
}
