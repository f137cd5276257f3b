//! `weir config`: what is in force and where it comes from, mistakes, the schema for editors. Needs no server and changes nothing.

use std::io::Write;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Failure, Where};
use crate::config::{schema, shown};

/// What of the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print what is in force, secrets hidden, and where each value comes from.
    Show {
        /// Which configuration.
        #[command(flatten)]
        place: Where,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say everything that is wrong in it; asks no server (`weir check` does).
    Check {
        /// Which configuration.
        #[command(flatten)]
        place: Where,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of weir.toml, for editors: `#:schema ./weir.schema.json` as its first line.
    Schema,
}

/// Does it.
///
/// # Errors
/// Everything that is wrong in the configuration.
pub fn run(command: ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Show { place, json } => show(&place, json),
        ConfigCommand::Check { place, json } => check(&place, json),
        ConfigCommand::Schema => {
            say(&serde_json::to_string_pretty(schema()).unwrap_or_default());
            Ok(())
        }
    }
}

fn show(place: &Where, json: bool) -> Result<(), Failure> {
    let loaded = place.sources().load()?;
    if json {
        let one = |shown: crate::config::Shown| json!({ "setting": shown.setting, "value": shown.value, "from": shown.origin });
        let settings: Vec<Value> = shown(&loaded).into_iter().map(one).collect();
        println!("{}", json!({ "ok": true, "settings": settings, "warnings": loaded.warnings }));
    } else {
        say(loaded.to_text().trim_end());
        loaded.warnings.iter().for_each(|warning| eprintln!("weir: {warning}"));
    }
    Ok(())
}

fn check(place: &Where, json: bool) -> Result<(), Failure> {
    let loaded = place.load_to_serve()?;
    if json {
        println!("{}", json!({ "ok": true, "warnings": loaded.warnings, "exit_code": 0 }));
    } else {
        loaded.warnings.iter().for_each(|warning| println!("warning: {warning}"));
        println!("configuration: valid; `weir check` asks the servers, too");
    }
    Ok(())
}

/// To standard output, of which the reader may want the beginning only.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
