//! `weir dead-letters list|replay|drop`: through the running host, or directly when none runs.

use clap::{Args, Subcommand};
use hyper::Method;

use super::client::{AdminAddress, AdminClient, segment};
use super::{Failure, Where};
use crate::app::operations::Operator;
use crate::operators::{DeadLetter, DeadLetters, Done, to_text};

/// Dead letters asked for at once.
const PAGE: usize = 500;

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// Print them, oldest first.
    List {
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
    /// Try to store them again, after the cause was mended.
    Replay(Chosen),
    /// Forget them: SQL stays as it is.
    Drop(Chosen),
}

/// Which dead letters.
#[derive(Debug, Args)]
pub struct Chosen {
    /// Their numbers.
    #[arg(required_unless_present = "all")]
    ids: Vec<i64>,
    /// All of them.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    admin: AdminAddress,
}

/// Runs the command.
///
/// # Errors
/// When neither host nor SQL is reachable, or when a letter still cannot be stored.
pub async fn run(command: DeadLettersCommand) -> Result<(), Failure> {
    match command {
        DeadLettersCommand::List { kind, place, admin, json } => {
            let letters = Source::open(&place, &admin, true).await?.all(kind.as_deref()).await?;
            if json {
                println!("{}", to_text(&letters));
            } else {
                print(&letters);
            }
            Ok(())
        }
        DeadLettersCommand::Replay(chosen) => each(&chosen, "stored", "POST").await,
        DeadLettersCommand::Drop(chosen) => each(&chosen, "dropped", "DELETE").await,
    }
}

async fn each(chosen: &Chosen, done: &str, method: &str) -> Result<(), Failure> {
    let source = Source::open(&chosen.place, &chosen.admin, false).await?;
    let ids =
        if chosen.all { source.all(None).await?.iter().map(|letter| letter.id).collect() } else { chosen.ids.clone() };
    let mut failed = 0;
    for id in &ids {
        let result = if method == "POST" { source.replay(*id).await } else { source.drop(*id).await };
        match result {
            Ok(()) => println!("{id}: {done}"),
            Err(failure) => {
                failed += 1;
                println!("{id}: {}", failure.message);
            }
        }
    }
    match (ids.len(), failed) {
        (0, _) => {
            println!("no dead letters");
            Ok(())
        }
        (_, 0) => Ok(()),
        (all, failed) => Err(Failure::no(format!("{failed} of {all} failed, see above"))),
    }
}

/// Where dead letters come from: a running host, or its data.
enum Source {
    Host(AdminClient),
    Data(Box<Operator>),
}

impl Source {
    /// `is_look`: nothing shall change.
    async fn open(place: &Where, admin: &AdminAddress, is_look: bool) -> Result<Self, Failure> {
        let (config, _) = place.load()?;
        let client = AdminClient::new(admin, &config.admin)?;
        match client.call::<DeadLetters>(Method::GET, "/admin/v1/dead-letters?limit=1").await? {
            Some(_) => Ok(Self::Host(client)),
            None if is_look => Ok(Self::Data(Box::new(Operator::open_to_look(config).await?))),
            None => Ok(Self::Data(Box::new(Operator::open(config).await?))),
        }
    }

    async fn all(&self, kind: Option<&str>) -> Result<Vec<DeadLetter>, Failure> {
        let (mut letters, mut after) = (Vec::new(), 0);
        loop {
            let page = self.page(kind, after).await?;
            let Some(last) = page.last() else { return Ok(letters) };
            after = last.id;
            letters.extend(page);
        }
    }

    async fn page(&self, kind: Option<&str>, after: i64) -> Result<Vec<DeadLetter>, Failure> {
        let page: DeadLetters = match self {
            Self::Host(client) => {
                let of_kind = kind.map(|kind| format!("&kind={}", segment(kind))).unwrap_or_default();
                let path = format!("/admin/v1/dead-letters?limit={PAGE}&after={after}{of_kind}");
                client.call(Method::GET, &path).await?.unwrap_or_default()
            }
            Self::Data(operator) => operator.dead_letters(kind, after, PAGE).await?,
        };
        Ok(page.dead_letters)
    }

    async fn replay(&self, id: i64) -> Result<(), Failure> {
        match self {
            Self::Host(client) => {
                client.call::<Done>(Method::POST, &format!("/admin/v1/dead-letters/{id}/replay")).await.map(|_| ())
            }
            Self::Data(operator) => Ok(operator.replay_dead_letter(id).await?),
        }
    }

    async fn drop(&self, id: i64) -> Result<(), Failure> {
        match self {
            Self::Host(client) => {
                client.call::<Done>(Method::DELETE, &format!("/admin/v1/dead-letters/{id}")).await.map(|_| ())
            }
            Self::Data(operator) => Ok(operator.drop_dead_letter(id).await?),
        }
    }
}

fn print(letters: &[DeadLetter]) {
    if letters.is_empty() {
        println!("no dead letters");
    }
    for DeadLetter { id, kind, action, target, actor, reason, .. } in letters {
        println!("{id}  {kind} {action} target {target} actor {actor}: {reason}");
    }
}
