//! `weir rooms`: the draw of a queue, made again from what is public.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Deserialize;
use serde_json::Value;

use super::Failure;
use crate::model::{Id, IdType};
use crate::operators::IdValue;
use crate::room::lottery;

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
        /// Who arrived, in the order of arrival: the answer of `GET /admin/v1/rooms/{kind}/{queue}/arrivals`, or actors' ids,
        /// one a line.
        #[arg(value_name = "FILE")]
        arrivals: PathBuf,
    },
}

/// Runs a command.
///
/// # Errors
/// What is no seed or cannot be read; what is no id; a seed that was not the one that was promised.
pub fn run(command: RoomsCommand) -> Result<(), Failure> {
    let RoomsCommand::Draw { seed, commitment, arrivals } = command;
    let seed = lottery::seed_of(&seed).ok_or_else(|| Failure::usage("--seed must be 64 hexadecimal digits"))?;
    let promised = lottery::commitment(&seed);
    if commitment.is_some_and(|commitment| commitment != promised) {
        return Err(Failure::no(format!("this seed was not promised: its commitment is {promised}")));
    }
    let text = std::fs::read_to_string(&arrivals)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", arrivals.display())))?;
    let actors = if text.trim_start().starts_with('{') { answered(&text) } else { listed(&text) };
    let actors = actors.map_err(|reason| Failure::no(format!("{}: {reason}", arrivals.display())))?;
    lottery::order(&seed, &actors).iter().for_each(|actor| println!("{actor}"));
    Ok(())
}

/// The answer that lists arrivals, as somebody has saved it.
#[derive(Deserialize)]
struct Saved {
    arrivals: Option<Vec<Value>>,
}

/// The arrivals of `{"arrivals":[…]}`.
fn answered(text: &str) -> Result<Vec<Id>, String> {
    let wrong = |reason: &dyn std::fmt::Display| format!("is no {{\"arrivals\":[…]}}: {reason}");
    let saved: Saved = serde_json::from_str(text).map_err(|error| wrong(&error))?;
    let arrivals = saved.arrivals.ok_or_else(|| wrong(&"there is no such list"))?;
    let id = |(at, arrival): (usize, Value)| match IdValue::deserialize(&arrival) {
        Ok(IdValue::Text(text)) => id(&text).map_err(|reason| format!("arrival {}: {reason}", at + 1)),
        Ok(IdValue::Number(number)) => Ok(Id::Int(number)),
        Err(_) => Err(format!("arrival {}: {arrival} is no id", at + 1)),
    };
    arrivals.into_iter().enumerate().map(id).collect()
}

/// The arrivals of a list of lines; empty ones do not count.
fn listed(text: &str) -> Result<Vec<Id>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty());
    lines.map(|(at, line)| id(line).map_err(|reason| format!("line {}: {reason}", at + 1))).collect()
}

/// A lot is made of an id's text: its type does not matter.
fn id(text: &str) -> Result<Id, String> {
    if text.trim() != text {
        return Err(format!("{text:?} is no id: it has a space at an end"));
    }
    Id::parse(IdType::Text, text).map_err(|error| format!("{text:?} is no id: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_lines_or_the_answer_that_lists_them() {
        let texts = |ids: Vec<Id>| ids.iter().map(Id::to_string).collect::<Vec<_>>();
        assert_eq!(listed("7\nanna\n\n").map(texts), Ok(vec!["7".into(), "anna".into()]));
        assert_eq!(answered("{\"arrivals\":[7,\"anna\"]}").map(texts), Ok(vec!["7".into(), "anna".into()]));
        for wrong in ["7\n 8", "a\tb"] {
            assert!(listed(wrong).is_err(), "{wrong:?}");
        }
        for wrong in ["{", "{}", "{\"arrivals\":[1.5]}", "{\"arrivals\":[\"\"]}"] {
            assert!(answered(wrong).is_err(), "{wrong:?}");
        }
    }
}
