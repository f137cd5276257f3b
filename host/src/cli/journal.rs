//! `weir journal holes|acknowledge`: what journals have lost; through the running host, or from SQL when none runs.

use clap::Subcommand;
use hyper::Method;

use super::client::{AdminAddress, AdminClient, segment};
use super::{Failure, Where};
use crate::app::operations::Operator;
use crate::operators::{Acknowledged, JournalHole, JournalHoles, to_text};

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
            let JournalHoles { holes } = match AdminClient::new(&admin, &config.admin)?.call(Method::GET, &path).await?
            {
                Some(known) => known,
                None => Operator::open_to_look(config).await?.journal_holes(kind.as_deref()).await?,
            };
            if json {
                println!("{}", to_text(&holes));
            } else {
                print(&holes);
            }
        }
        JournalCommand::Acknowledge { kind, place, admin } => {
            let (config, _) = place.load()?;
            let path = format!("/admin/v1/journal/{}/acknowledge", segment(&kind));
            let Acknowledged { acknowledged } =
                match AdminClient::new(&admin, &config.admin)?.call(Method::POST, &path).await? {
                    Some(done) => done,
                    None => Operator::open(config).await?.acknowledge_holes(&kind).await?,
                };
            println!("{kind}: {acknowledged} holes acknowledged");
        }
    }
    Ok(())
}

fn print(holes: &[JournalHole]) {
    if holes.is_empty() {
        println!("no holes");
    }
    for hole in holes {
        println!(
            "{}  {} partition {}: {}{} accepted changes lost after {} up to {}{}{}{}",
            hole.id,
            hole.kind,
            hole.partition,
            if hole.is_exact { "" } else { "at most " },
            hole.amount.unwrap_or(hole.changes),
            hole.after,
            hole.last,
            hole.next.map_or_else(|| ", the end".into(), |next| format!(", next {next}")),
            if hole.targets.is_empty() { String::new() } else { format!("; targets {}", hole.targets.join(" ")) },
            if hole.acknowledged_at_ms.is_some() { "; acknowledged" } else { "" },
        );
    }
}
