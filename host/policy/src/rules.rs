//! Rules are asked: the live module decides, of a share of the targets a canary, and something else where a module fails.
//!
//! - `service`: what all have in common; `decide`: batches of which each item gets a rule; `delivery`, `flush`, `admission`,
//!   `cache`: the others.

mod admission;
mod cache;
mod decide;
mod delivery;
mod flush;
mod service;

pub use service::Rules;
