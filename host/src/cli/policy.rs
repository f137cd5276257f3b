//! `weir policy`: build, check and test modules here; push, try, activate and roll them back in a running host.
//!
//! Plain words go to standard error, results to standard output; with `--json` the result is one JSON object.

mod build;
mod local;
mod print;
mod remote;
mod sources;
mod toolchain;
mod trial;

mod tests;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

/// What can be done with policy modules. Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 no running host.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Build a guest written in Rust into a component.
    ///
    /// Uses the target wasm32-unknown-unknown where it is installed, else `rustup target add`, else the sources of the
    /// standard library (Debian's rustc-web and rust-web-src).
    Build {
        /// Directory of the guest's Cargo.toml.
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Where to write the component [default: policy.wasm in DIR].
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Keep names and lines in the component, so that a trap says where it was. It is several times as large.
        #[arg(long)]
        debug: bool,
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check whether this host would take a component, and say why not.
    Check {
        /// The component.
        file: PathBuf,
        /// Take limits and grants from this configuration, instead of the default limits and everything granted.
        #[arg(long, value_name = "FILE")]
        config: Vec<PathBuf>,
        /// Also ask a fresh and a used instance the same: a pure module gives the same answers.
        #[arg(long)]
        purity: bool,
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run test vectors on a component, in the host's engine and limits, and count the fuel of each call.
    Test {
        /// The component.
        file: PathBuf,
        /// The vectors [default: those that the component carries].
        cases: Option<PathBuf>,
        /// Take the limits from this configuration instead of the defaults.
        #[arg(long, value_name = "FILE")]
        config: Vec<PathBuf>,
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Ask a component again what a decision log has recorded, and print what it decides otherwise.
    Replay {
        /// The component.
        file: PathBuf,
        /// The log, such as decisions.ndjson of the registry.
        decisions: PathBuf,
        /// Take limits and the kinds' settings from this configuration.
        #[arg(long, value_name = "FILE")]
        config: Vec<PathBuf>,
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// What speaks to a running host.
    #[command(flatten)]
    Remote(remote::RemoteCommand),
}

/// Does it.
pub fn run(command: PolicyCommand) -> ExitCode {
    match command {
        PolicyCommand::Build { dir, output, debug, json } => local::build(&dir, output.as_deref(), debug, json),
        PolicyCommand::Check { file, config, purity: false, json } => local::check(&file, &config, json),
        PolicyCommand::Check { file, config, purity: true, json } => trial::purity(&file, &config, json),
        PolicyCommand::Test { file, cases, config, json } => trial::test(&file, cases.as_deref(), &config, json),
        PolicyCommand::Replay { file, decisions, config, json } => trial::replay(&file, &decisions, &config, json),
        PolicyCommand::Remote(command) => super::finish(super::block_on(remote::run(command))),
    }
}
