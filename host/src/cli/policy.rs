//! x
#[derive(Debug, clap::Subcommand)]
pub enum PolicyCommand { X }
pub fn run(_: PolicyCommand) -> std::process::ExitCode { std::process::ExitCode::SUCCESS }
