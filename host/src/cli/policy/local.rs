//! What needs no running host: build a guest, check a component.
//!
//! Results go to standard output, reasons to standard error; with `--json` the result is one JSON object, a refusal too.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::build;
use crate::app::kind_policies;
use crate::cli::EXIT_USAGE;
use crate::config::{Config, ConfigError, Sources};
use crate::policy::{self, Compiler, Failing, LoadError, ModuleInfo};

/// Builds the guest in `dir`.
pub(super) fn build(dir: &Path, output: Option<&Path>, debug: bool, json: bool) -> ExitCode {
    match build::build(dir, output, debug) {
        Ok(built) if json => {
            println!("{}", serde_json::to_value(&built).unwrap_or_default());
            ExitCode::SUCCESS
        }
        Ok(built) => {
            let interfaces = built.interfaces.join(", ");
            println!("{}: {} bytes, exports {interfaces}, sha256 {}", built.path.display(), built.bytes, built.sha256);
            print_failing(&built.failing);
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

/// Says whether a host with the limits of `config` would take the component.
pub(super) fn check(file: &Path, config: &[PathBuf], json: bool) -> ExitCode {
    // Without a configuration nothing is granted or refused.
    let granted = !config.is_empty();
    let config = match load(config) {
        Ok(config) => config,
        Err(error) => return unusable("check", &error, json),
    };
    let kinds = if granted { kind_policies(&config) } else { Vec::new() };
    match policy::check_file(&config.policy, Compiler::this_executable(), &kinds, file, granted) {
        Ok(info) if json => {
            println!("{}", json!({ "ok": true, "module": info }));
            ExitCode::SUCCESS
        }
        Ok(info) => {
            print_info(file, &info);
            ExitCode::SUCCESS
        }
        Err(error) => refused(file, &error, json),
    }
}

/// The configuration that is named, or the defaults.
pub(super) fn load(config: &[PathBuf]) -> Result<Config, ConfigError> {
    if config.is_empty() {
        return Ok(Config::default());
    }
    Ok(Sources::files(config).with_environment().load()?.config)
}

/// Says that the configuration cannot be used.
pub(super) fn unusable(command: &str, error: &ConfigError, json: bool) -> ExitCode {
    if json {
        println!("{}", json!({ "ok": false, "code": "configuration", "reason": error.to_string() }));
    }
    eprintln!("weir policy {command}: {error}");
    ExitCode::from(EXIT_USAGE)
}

/// Says why a component is refused.
pub(super) fn refused(file: &Path, error: &LoadError, json: bool) -> ExitCode {
    if json {
        println!("{}", json!({ "ok": false, "code": error.code(), "reason": error.to_string() }));
    }
    eprintln!("{}: refused: {error}", file.display());
    ExitCode::FAILURE
}

fn print_info(file: &Path, info: &ModuleInfo) {
    let list = |names: &[String]| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    println!("{}: good", file.display());
    println!("  name       {}{}", info.name, info.version.as_ref().map(|v| format!(" {v}")).unwrap_or_default());
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
    print_failing(&info.failing);
}

/// Functions that failed when they were tried: no reason to refuse a module that has others, or that lacked its settings.
fn print_failing(failing: &[Failing]) {
    for Failing { function, kind, reason, .. } in failing {
        println!("  fails      {function} of the kind {kind:?}: {reason}");
    }
}
