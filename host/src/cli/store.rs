//! `weir store`: the directory of an embedded store, while no host has it open.

use std::path::PathBuf;

use clap::Subcommand;

use super::Failure;
use crate::store::embedded::{salvage, verify};

/// What to do with a store.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Read everything in the directory of an embedded store, and say what is damaged or missing. Changes nothing.
    Verify {
        /// The directory: store.path of the configuration.
        directory: PathBuf,
    },
    /// Take what can be read of a damaged directory into a new one, and say exactly what is missing.
    Salvage {
        /// The damaged directory, which stays as it is.
        directory: PathBuf,
        /// The new directory, for store.path.
        #[arg(long, value_name = "NEWDIR")]
        to: PathBuf,
    },
}

/// Runs a command.
///
/// # Errors
/// 1 when something is damaged or missing; 2 when the directory cannot be read or is in use.
pub fn run(command: StoreCommand) -> Result<(), Failure> {
    match command {
        StoreCommand::Verify { directory } => {
            let report = verify(&directory)?;
            print!("{report}");
            if report.is_whole() {
                return Ok(());
            }
            Err(Failure::no(format!("{} is damaged, or something is missing from it", directory.display())))
        }
        StoreCommand::Salvage { directory, to } => {
            let report = salvage(&directory, &to)?;
            print!("{report}");
            let what = if report.is_whole() { "everything" } else { "what is there; what is missing is not" };
            println!("taken: {what}. Set store.path to {} and start the host", to.display());
            Ok(())
        }
    }
}
