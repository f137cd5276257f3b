//! `weir policy`: build a guest, check a component.
//!
//! Tier 5. Plain words go to standard error, results to standard output; with `--json` the result is one JSON object.

mod build;
mod sources;
mod toolchain;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use crate::config::{Config, PolicyConfig};
use crate::policy::{self, Compiler, ModuleInfo};

/// What can be done with policy modules. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.
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
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check whether this host would take a component, and say why not.
    Check {
        /// The component.
        file: PathBuf,
        /// Take the limits from this configuration instead of the defaults.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Does it.
pub fn run(command: PolicyCommand) -> ExitCode {
    match command {
        PolicyCommand::Build { dir, output, json } => build(&dir, output.as_deref(), json),
        PolicyCommand::Check { file, config, json } => check(&file, config.as_deref(), json),
    }
}

fn build(dir: &Path, output: Option<&Path>, json: bool) -> ExitCode {
    match build::build(dir, output) {
        Ok(built) if json => {
            println!("{}", serde_json::to_value(&built).unwrap_or_default());
            ExitCode::SUCCESS
        }
        Ok(built) => {
            let interfaces = built.interfaces.join(", ");
            println!("{}: {} bytes, exports {interfaces}, sha256 {}", built.path.display(), built.bytes, built.sha256);
            ExitCode::SUCCESS
        }
        Err(error) => {
            if json {
                println!("{}", json!({ "error": error.to_string() }));
            }
            eprintln!("weir policy build: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check(file: &Path, config: Option<&Path>, json: bool) -> ExitCode {
    // Without a configuration nothing is granted or refused.
    let given = config.is_some();
    let config = match config.map(Config::load).transpose() {
        Ok(config) => config.map_or_else(PolicyConfig::default, |config| config.policy),
        Err(error) => {
            if json {
                println!("{}", json!({ "ok": false, "code": "configuration", "reason": error.to_string() }));
            }
            eprintln!("weir policy check: {error}");
            return ExitCode::from(super::EXIT_USAGE);
        }
    };
    match policy::check_file(&config, Compiler::this_executable(), file, given) {
        Ok(info) if json => {
            println!("{}", json!({ "ok": true, "module": info }));
            ExitCode::SUCCESS
        }
        Ok(info) => {
            print_info(&info);
            ExitCode::SUCCESS
        }
        Err(error) => {
            if json {
                println!("{}", json!({ "ok": false, "code": error.code(), "reason": error.to_string() }));
            }
            eprintln!("{}: refused: {error}", file.display());
            ExitCode::FAILURE
        }
    }
}

fn print_info(info: &ModuleInfo) {
    let list = |names: &[String]| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    println!("{}: good", info.name);
    println!("  digest     {}", info.digest);
    println!("  size       {} bytes, {} functions", info.bytes, info.functions);
    println!("  takes over {}", info.interfaces.join(", "));
    println!("  imports    {}", list(&info.imports));
    if !info.ignored.is_empty() {
        println!("  ignored    {}", list(&info.ignored));
    }
    if let Some(sources) = &info.source_sha256 {
        println!("  sources    {sources}");
    }
}
