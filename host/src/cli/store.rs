//! `weir store`: shows what the store holds and which database owns it, and offers ways out for changes that no host
//! flushes. Works on the store directly; on an embedded one only while no host runs.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, Where};
use crate::app::custody::changes;
use crate::app::holdings::Keeper;
use crate::clock::Clock;
use crate::config::Config;
use crate::store::embedded::{salvage, verify};
use crate::store::{Inventory, KindInventory};

/// What to do with the store.
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
    /// Print whose the journal is, and what waits in it for SQL. Changes nothing.
    List {
        /// Which configuration.
        #[command(flatten)]
        place: Where,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give up what waits of a kind, and all that is known of it.
    Drop(Dropped),
    /// Write what waits of a kind into the tables of another, which is configured: the kind has got another name.
    Rename {
        /// The kind as it was called.
        from: String,
        /// The kind that it is now.
        to: String,
        /// Which configuration.
        #[command(flatten)]
        place: Where,
    },
    /// The journal belongs to the database at sql.url from now on, whoever's it was. What waits in it goes there.
    Adopt {
        /// Which configuration.
        #[command(flatten)]
        place: Where,
        /// Do it.
        #[arg(long)]
        yes: bool,
    },
    /// Give up what waits in other stores that this database had before.
    Forget {
        /// Which configuration.
        #[command(flatten)]
        place: Where,
        /// Do it.
        #[arg(long)]
        yes: bool,
    },
}

/// What is dropped.
#[derive(Debug, Args)]
pub struct Dropped {
    /// The kind.
    #[arg(required_unless_present = "all")]
    kind: Option<String>,
    /// Everything in the store, whatever database it belongs to.
    #[arg(long, conflicts_with = "kind")]
    all: bool,
    #[command(flatten)]
    place: Where,
    /// Do it.
    #[arg(long)]
    yes: bool,
}

/// Runs the command.
///
/// # Errors
/// When store or SQL are not to be had, or what is asked for must not be.
pub async fn run(command: StoreCommand) -> Result<(), Failure> {
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
        StoreCommand::List { place, json } => list(&loaded(&place)?, json).await,
        StoreCommand::Drop(dropped) => drop_some(dropped).await,
        StoreCommand::Rename { from, to, place } => {
            let count = Keeper::open(loaded(&place)?).await?.rename(&from, &to).await?;
            println!("{} of {from} are in the tables of {to}; {from} is gone from the store", changes(count));
            Ok(())
        }
        StoreCommand::Adopt { place, yes } => {
            let config = loaded(&place)?;
            if !yes {
                let holdings = look(&config).await?;
                let owner = holdings.database.map_or_else(|| "nobody yet".to_owned(), |id| id.to_string());
                return Err(unconfirmed(&format!(
                    "{} belongs to {owner}; {} would go to the database at sql.url",
                    holdings.place,
                    changes(waiting(&holdings))
                )));
            }
            let holdings = Keeper::open(config).await?.adopt().await?;
            let owner = holdings.database.map(|id| id.to_string()).unwrap_or_default();
            println!("{} belongs to {owner} now; {} wait in it", holdings.place, changes(waiting(&holdings)));
            Ok(())
        }
        StoreCommand::Forget { place, yes } => {
            if !yes {
                return Err(unconfirmed("what waits in other stores of this database would not be missed any more"));
            }
            let count = Keeper::open(loaded(&place)?).await?.forget().await?;
            println!("other stores of this database are forgotten; kinds that had one: {count}");
            Ok(())
        }
    }
}

fn loaded(place: &Where) -> Result<Config, Failure> {
    Ok(place.load()?.0.with_namespace())
}

fn unconfirmed(what: &str) -> Failure {
    Failure::no(format!("{what}; say --yes to do it"))
}

fn waiting(holdings: &Inventory) -> u64 {
    holdings.all().map(KindInventory::waiting).sum()
}

async fn look(config: &Config) -> Result<Inventory, Failure> {
    let nothing = || Failure::no(format!("there is no store in {}", config.store.path.display()));
    crate::store::inspect(&config.store).await?.0.ok_or_else(nothing)
}

async fn drop_some(dropped: Dropped) -> Result<(), Failure> {
    let config = loaded(&dropped.place)?;
    if !dropped.yes {
        let holdings = look(&config).await?;
        let chosen = |kind: &&KindInventory| dropped.kind.as_ref().is_none_or(|name| *name == kind.kind);
        let count = holdings.all().filter(chosen).map(KindInventory::waiting).sum();
        return Err(unconfirmed(&format!("{} in {} would never reach SQL", changes(count), holdings.place)));
    }
    let keeper = Keeper::open(config).await?;
    let count = match &dropped.kind {
        Some(kind) => keeper.drop_kind(kind).await?,
        None => keeper.drop_all().await?,
    };
    let what = dropped.kind.as_deref().unwrap_or("everything");
    println!("{what} is gone from the store; {} that SQL did not have were given up", changes(count));
    Ok(())
}

async fn list(config: &Config, json: bool) -> Result<(), Failure> {
    let holdings = look(config).await?;
    let owner = holdings.database.map(|id| id.to_string());
    let now_ms = Clock::Real.now_ms();
    let mut kinds = Vec::new();
    for kind in holdings.all() {
        let backlog = kind.backlog();
        let is_configured = config.kinds().iter().any(|(name, _)| *name == kind.kind);
        kinds.push(json!({
            "kind": kind.kind, "waiting": backlog.entries, "bytes": backlog.bytes, "configured": is_configured,
            "oldest_seconds": backlog.oldest_age_ms(now_ms) / 1_000, "flushed_by_a_host": kind.is_flushed,
        }));
    }
    if json {
        println!("{}", json!({ "place": holdings.place, "database": owner, "kinds": kinds }));
        return Ok(());
    }
    println!("{}", holdings.place);
    println!("database: {}", owner.as_deref().unwrap_or("not known yet"));
    for (kind, line) in holdings.all().zip(&kinds) {
        let note = match (kind.is_flushed, line["configured"] == true) {
            (true, _) => ", a host flushes it",
            (false, true) => "",
            (false, false) => ", not in the configuration",
        };
        let (waiting, bytes, oldest) = (changes(kind.waiting()), &line["bytes"], &line["oldest_seconds"]);
        println!("{}: {waiting} wait for SQL ({bytes} bytes, the oldest for {oldest} s){note}", kind.kind);
    }
    Ok(())
}
