//! `weir rooms`: the draw of a queue, made again from what is public.

use std::path::PathBuf;

use clap::Subcommand;

use super::Failure;
use crate::model::{Id, IdType};
use crate::room::draw;

/// What may be done with waiting rooms.
#[derive(Debug, Subcommand)]
pub enum RoomsCommand {
    /// Print the order that a seed makes of arrivals, first the first.
    Draw {
        /// The seed, in hexadecimal: `draw.seed` of `GET /v1/rooms/{kind}/{queue}`, once somebody has been let in.
        #[arg(long, value_name = "HEX")]
        seed: String,
        /// What was public before: `draw.commitment`. With it, a seed that is another one is refused.
        #[arg(long, value_name = "HEX")]
        commitment: Option<String>,
        /// Actors' ids, one a line, in the order of their arrival, as `arrivals` of
        /// `GET /admin/v1/rooms/{kind}/{queue}/arrivals` lists them.
        #[arg(value_name = "FILE")]
        arrivals: PathBuf,
    },
}

/// Runs a command.
///
/// # Errors
/// What is no seed or cannot be read; a seed that was not the one that was promised.
pub fn run(command: RoomsCommand) -> Result<(), Failure> {
    let RoomsCommand::Draw { seed, commitment, arrivals } = command;
    let seed = draw::seed_of(&seed).ok_or_else(|| Failure::usage("--seed must be 64 hexadecimal digits"))?;
    let promised = draw::commitment(&seed);
    if commitment.is_some_and(|commitment| commitment != promised) {
        return Err(Failure::no(format!("this seed was not promised: its commitment is {promised}")));
    }
    let text = std::fs::read_to_string(&arrivals)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", arrivals.display())))?;
    let mut actors = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        // A lot is made of an id's text: its type does not matter.
        let actor = Id::parse(IdType::Text, line)
            .map_err(|error| Failure::usage(format!("{}, line {}: {error}", arrivals.display(), number + 1)))?;
        actors.push(actor);
    }
    draw::order(&seed, &actors).iter().for_each(|actor| println!("{actor}"));
    Ok(())
}
