//! The command line: parses, calls, prints. May use everything; holds no logic of its own.
//!
//! Exit codes: 0 done · 1 the answer is no (a check found something, a module is refused, nothing was found) · 2 wrong
//! usage or configuration · 3 something needed was not there (a server, a port, a tool).

pub mod check;
pub mod client;
pub mod config;
pub mod dead_letters;
pub mod explain;
pub mod flush;
pub mod health;
pub mod init;
pub mod journal;
pub mod policy;
pub mod rooms;
pub mod store;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde_json::json;

use crate::admin::OperationsError;
use crate::app::{AppError, demo, serve};
use crate::config::{Config, ConfigError, Loaded, Sources, listen_address};
use crate::sql::SqlError;
use crate::store::StoreError;

/// The answer is no.
pub const EXIT_NO: u8 = 1;
/// Wrong usage or configuration.
pub const EXIT_USAGE: u8 = 2;
/// Something needed was not there.
pub const EXIT_UNAVAILABLE: u8 = 3;

/// The configuration that is taken where none is named.
const BESIDE: &str = "weir.toml";

const EXIT_CODES: &str = "Exit codes: 0 done; 1 the answer is no (a check found something, a module is refused, nothing \
                          was found); 2 wrong usage or configuration; 3 something needed was not there.";

/// An HTTP host for hot paths: answers from Redis or an embedded store, writes behind to SQL, rules in WebAssembly.
#[derive(Debug, Parser)]
#[command(name = "weir", version, about, after_help = EXIT_CODES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Which configuration.
#[derive(Debug, Clone, Args)]
pub struct Where {
    /// Configuration file, or a directory with some (*.toml, in the order of their names). Of several, later ones override.
    /// Without it: `weir.toml` if it is there, else the embedded demo.
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// Directory of the embedded demo.
    #[arg(long, value_name = "DIR", default_value = "weir-data")]
    pub data: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the host.
    Serve {
        #[command(flatten)]
        place: Where,
        /// Public listener; port 0 picks a free one.
        #[arg(long, value_name = "ADDR", value_parser = listen_address)]
        listen: Option<SocketAddr>,
        /// Operators' listener; port 0 picks a free one.
        #[arg(long, value_name = "ADDR", value_parser = listen_address)]
        admin_listen: Option<SocketAddr>,
        /// Log lines as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write a commented weir.toml.
    Init {
        /// File to write.
        #[arg(value_name = "FILE", default_value = "weir.toml")]
        file: PathBuf,
        /// Overwrite it.
        #[arg(long)]
        force: bool,
    },
    /// Check configuration, policy module, store and SQL schema, and say what to change.
    Check {
        #[command(flatten)]
        place: Where,
        /// Findings as JSON.
        #[arg(long)]
        json: bool,
    },
    /// The configuration: what is in force and where it comes from, mistakes, the JSON Schema for editors.
    Config {
        #[command(subcommand)]
        command: config::ConfigCommand,
    },
    /// Ask the running host whether it is alive, or ready: for health checks.
    Health {
        #[command(flatten)]
        place: Where,
        #[command(flatten)]
        admin: client::AdminAddress,
        /// Whether it is ready, and not only alive.
        #[arg(long)]
        ready: bool,
        /// The answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print everything known of a target, or of one actor on it: store state, journal entries, SQL row, checkpoint.
    Explain {
        /// The kind, such as feed-like.
        kind: String,
        /// The target's id.
        target: String,
        /// The actor's id; only a toggle needs one.
        actor: Option<String>,
        #[command(flatten)]
        place: Where,
        #[command(flatten)]
        admin: client::AdminAddress,
        /// The whole as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Flush to SQL what waits in the journal now, of one kind or of all: asks the running host.
    Flush {
        /// The kind, such as feed-like; without one all.
        kind: Option<String>,
        #[command(flatten)]
        place: Where,
        #[command(flatten)]
        admin: client::AdminAddress,
        /// The answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Policy modules.
    Policy {
        #[command(subcommand)]
        command: policy::PolicyCommand,
    },
    /// Compiles a component from standard input: what the host starts as a child.
    #[command(name = crate::policy::CHILD_COMMAND, hide = true)]
    CompileComponent(crate::policy::ChildArguments),
    /// Waiting rooms.
    Rooms {
        #[command(subcommand)]
        command: rooms::RoomsCommand,
    },
    /// What journals have lost before it was in SQL.
    Journal {
        #[command(subcommand)]
        command: journal::JournalCommand,
    },
    /// What the store holds, and whose it is; whether the directory of an embedded one is whole.
    Store {
        #[command(subcommand)]
        command: store::StoreCommand,
    },
    /// Rows that could never be stored.
    DeadLetters {
        #[command(subcommand)]
        command: dead_letters::DeadLettersCommand,
    },
}

/// Why a command ended without its result, and the exit code for it.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub code: u8,
    /// What happened and what to do next.
    pub message: String,
    /// Whether standard output has it already, as JSON.
    pub is_told: bool,
}

impl Failure {
    fn of(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), is_told: false }
    }

    /// Standard output has it already, as JSON.
    #[must_use]
    pub fn told(self) -> Self {
        Self { is_told: true, ..self }
    }

    /// The answer is no.
    pub fn no(message: impl Into<String>) -> Self {
        Self::of(EXIT_NO, message)
    }

    /// Wrong usage or configuration.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::of(EXIT_USAGE, message)
    }

    /// Something needed was not there.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::of(EXIT_UNAVAILABLE, message)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        AppError::from(error).into()
    }
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        AppError::from(error).into()
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        let code = match &error {
            AppError::Config(_)
            | AppError::Partitions { .. }
            | AppError::Store(StoreError::Misconfigured(_) | StoreError::InUse(_)) => EXIT_USAGE,
            AppError::Policy(_) | AppError::Schema(_) => EXIT_NO,
            AppError::Store(_) | AppError::Sql(_) | AppError::System { .. } | AppError::Waited { .. } => {
                EXIT_UNAVAILABLE
            }
        };
        Self::of(code, error.to_string())
    }
}

impl Where {
    /// The same with one file.
    pub fn of(config: &[PathBuf]) -> Self {
        Self { config: config.to_vec(), data: PathBuf::new() }
    }

    /// Whether there is no configuration, so that it is the demo's.
    pub fn is_demo(&self) -> bool {
        self.config.is_empty() && !Path::new(BESIDE).exists() && !Sources::default().with_environment().names_own()
    }

    /// What it is read from: files, or the demo, and the environment.
    pub fn sources(&self) -> Sources {
        let sources = match self.config.as_slice() {
            [] if self.is_demo() => Sources::built_in(Config::demo(&self.data)),
            [] if !Path::new(BESIDE).exists() => Sources::default(),
            [] => Sources::files([BESIDE]),
            files => Sources::files(files),
        };
        sources.with_environment()
    }

    /// The configuration, and whether it is the demo's. Nothing is created.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(&self) -> Result<(Config, bool), ConfigError> {
        Ok((self.sources().load()?.config, self.is_demo()))
    }

    /// The same for those who serve: the files with keys and tokens are looked into, too.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load_to_serve(&self) -> Result<Loaded, ConfigError> {
        let is_demo = self.is_demo();
        // The demo makes its key when it starts.
        let sources = self.sources();
        if is_demo { sources.load() } else { sources.with_secrets().load() }
    }
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    crate::tls::install_provider();
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => {
            let _ = error.print();
            if !error.use_stderr() {
                return ExitCode::SUCCESS;
            }
            if wants_json() {
                println!("{}", refusal(EXIT_USAGE, error.render().to_string().trim()));
            }
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let result = match command {
        Command::Policy { command } => return policy::run(command),
        Command::Init { file, force } => init::run(&file, force),
        Command::Serve { place, listen, admin_listen, json } => {
            // Before anything else is said.
            if place.is_demo() {
                let line = demo::first_line(&place.data);
                if json { println!("{}", json!({ "demo": line })) } else { println!("{line}") }
            }
            crate::telemetry::init_tracing(json);
            let listen = serve::Addresses { public: listen, operators: admin_listen };
            block_on(serve::run(place, listen, json))
        }
        Command::Config { command } => config::run(command),
        Command::Health { place, admin, ready, json } => block_on(health::run(&place, &admin, ready, json)),
        Command::Check { place, json } => block_on(check::run(place, json)),
        Command::Explain { kind, target, actor, place, admin, json } => {
            block_on(explain::run(explain::Pair { kind, target, actor }, place, admin, json))
        }
        Command::Flush { kind, place, admin, json } => block_on(flush::run(kind.as_deref(), &place, &admin, json)),
        Command::CompileComponent(arguments) => {
            // The parent adds what it is about.
            return match crate::policy::child_main(&arguments) {
                Ok(()) => ExitCode::SUCCESS,
                Err(reason) => {
                    eprintln!("{reason}");
                    ExitCode::from(EXIT_NO)
                }
            };
        }
        Command::Rooms { command } => rooms::run(command),
        Command::Journal { command } => block_on(journal::run(command)),
        Command::Store { command } => block_on(store::run(command)),
        Command::DeadLetters { command } => block_on(dead_letters::run(command)),
    };
    finish(result)
}

/// Whether the result was asked for as JSON: then standard output has nothing but JSON, also where it was not understood what
/// else was asked for.
fn wants_json() -> bool {
    std::env::args_os().skip(1).take_while(|argument| argument != "--").any(|argument| argument == "--json")
}

/// Why a command ended without its result, for programs.
fn refusal(code: u8, message: &str) -> serde_json::Value {
    json!({ "ok": false, "error": message, "exit_code": code })
}

/// Says why it failed, if it did: in words, and as JSON where that was asked for.
fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if wants_json() && !failure.is_told {
                println!("{}", refusal(failure.code, &failure.message));
            }
            eprintln!("weir: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn block_on(task: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Failure::unavailable(format!("start the runtime: {error}")))?.block_on(task)
}

impl From<OperationsError> for Failure {
    fn from(error: OperationsError) -> Self {
        match error {
            OperationsError::NotFound(message) | OperationsError::Conflict(message) => Self::no(message),
            OperationsError::Refused { reason, .. } => Self::no(reason),
            OperationsError::Invalid(message) => Self::usage(message),
            OperationsError::Unavailable(message) => Self::unavailable(message),
        }
    }
}
