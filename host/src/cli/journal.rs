//! `weir journal holes|acknowledge`: what journals have lost; through the running host, or from SQL when none runs.

use clap::Subcommand;
use hyper::Method;
use serde_json::Value;

use super::client::{AdminAddress, AdminClient, segment};
use super::{Failure, Where};
use crate::app::operations::Operator;

/// What to do with journals.
#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// Print what journals have lost before it was in SQL, newest first.
    Holes {
        /// Only those of this kind.
        #[arg(long)]
        kind: Option<String>,
        /// Which configuration.
        #[command(flatten)]
        place: Where,
        /// Which host.
        #[command(flatten)]
        admin: AdminAddress,
        /// One JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Take note of the holes of a kind, so that hosts are ready again.
    Acknowledge {
        /// The kind, such as feed-like.
        kind: String,
        /// Which configuration.
        #[command(flatten)]
        place: Where,
        /// Which host.
        #[command(flatten)]
        admin: AdminAddress,
    },
}

/// Runs the command.
///
/// # Errors
/// Unknown kind; when neither host nor SQL is reachable.
pub async fn run(command: JournalCommand) -> Result<(), Failure> {
    match command {
        JournalCommand::Holes { kind, place, admin, json } => {
            let (config, _) = place.load()?;
            let of_kind = kind.as_deref().map(|kind| format!("?kind={}", segment(kind))).unwrap_or_default();
            let path = format!("/admin/v1/journal/holes{of_kind}");
            let known = match AdminClient::new(&admin, &config.admin)?.call(Method::GET, &path).await? {
                Some(known) => known,
                None => Operator::open_to_look(config).await?.journal_holes(kind.as_deref()).await?,
            };
            let holes = known.get("holes").and_then(Value::as_array).cloned().unwrap_or_default();
            if json {
                println!("{}", Value::Array(holes));
            } else {
                print(&holes);
            }
        }
        JournalCommand::Acknowledge { kind, place, admin } => {
            let (config, _) = place.load()?;
            let path = format!("/admin/v1/journal/{}/acknowledge", segment(&kind));
            let done = match AdminClient::new(&admin, &config.admin)?.call(Method::POST, &path).await? {
                Some(done) => done,
                None => Operator::open(config).await?.acknowledge_holes(&kind).await?,
            };
            println!("{kind}: {} holes acknowledged", done.get("acknowledged").unwrap_or(&Value::Null));
        }
    }
    Ok(())
}

fn print(holes: &[Value]) {
    if holes.is_empty() {
        println!("no holes");
    }
    for hole in holes {
        let number = |name: &str| hole.get(name).and_then(Value::as_u64);
        let text = |name: &str| number(name).map_or_else(|| "?".into(), |number| number.to_string());
        let targets = hole.get("targets").and_then(Value::as_array).cloned().unwrap_or_default();
        let targets: Vec<&str> = targets.iter().filter_map(Value::as_str).collect();
        let bound = if hole.get("is_exact") == Some(&Value::Bool(true)) { "" } else { "at most " };
        println!(
            "{}  {} partition {}: {bound}{} accepted changes lost after {} up to {}{}{}{}",
            text("id"),
            hole.get("kind").and_then(Value::as_str).unwrap_or_default(),
            text("partition"),
            number("amount").or(number("changes")).unwrap_or_default(),
            text("after"),
            text("last"),
            number("next").map_or_else(|| ", the end".into(), |next| format!(", next {next}")),
            if targets.is_empty() { String::new() } else { format!("; targets {}", targets.join(" ")) },
            if number("acknowledged_at_ms").is_some() { "; acknowledged" } else { "" },
        );
    }
}
