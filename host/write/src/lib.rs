//! Write-behind: the capabilities that are written behind, listed once.
//!
//! | module | holds |
//! |---|---|
//! | [`capability`] | the write path, once: batch, rule, store step, hydrate, receipt, level; the trait that a capability implements |
//! | [`toggle`] | reactions and likes of one actor on one target |
//! | [`counter`] | how often, not by whom |
//! | [`ingest`] | documents, checked for shape, all of a request or none; their status |
//! | [`preference`] | settings of members; look-ups of thousands in chunks |
//! | [`flush`] | journal, coalesce, one SQL transaction, trim |
//!
//! Uses `weir-core`, `weir-cache`, `weir-store`, `weir-sql` and `weir-policy`; knows no route. From the list below the host starts
//! kinds, configures policy modules, and folds their changes; a new capability must be added here. Capabilities know
//! `capability` alone, never each other, and `flush` knows none of them; `tests/` checks it.

pub mod capability;
pub mod counter;
pub mod flush;
pub mod ingest;
pub mod preference;
pub mod toggle;

use std::collections::BTreeMap;

use crate::capability::{Fold, KindParts, NoFold, Plug, WrittenKinds};
use crate::counter::Counter;
use crate::ingest::Ingest;
use crate::preference::Preference;
use crate::toggle::Toggle;
use weir_core::config::{Config, ConfigError, KindTable};
use weir_policy::KindPolicy;

/// All of them.
pub const CAPABILITIES: [Plug; 4] =
    [Plug::of::<Toggle>(), Plug::of::<Counter>(), Plug::of::<Ingest>(), Plug::of::<Preference>()];

/// Whether all configured kinds can be started, before anything is opened.
///
/// # Errors
/// What is wrong with the first that can not.
pub fn check(config: &Config) -> Result<(), ConfigError> {
    CAPABILITIES.iter().try_for_each(|capability| capability.check(config))
}

/// The configuration with a kind under another name.
pub fn renamed(config: &Config, from: &str, to: &str) -> Config {
    let mut config = config.clone();
    CAPABILITIES.iter().for_each(|capability| capability.rename(&mut config, from, to));
    config
}

/// What policy modules learn of all configured kinds.
pub fn rules(config: &Config) -> Vec<KindPolicy> {
    CAPABILITIES.iter().flat_map(|capability| capability.rules(config)).collect()
}

/// Starts all configured kinds, each of its parts, on the current runtime.
///
/// # Errors
/// What is wrong with the configuration.
pub fn start(config: &Config, parts: &BTreeMap<String, KindParts>) -> Result<WrittenKinds, ConfigError> {
    let mut kinds = WrittenKinds::default();
    CAPABILITIES.iter().try_for_each(|capability| capability.start(config, parts, &mut kinds))?;
    Ok(kinds)
}

/// An empty fold for the tables of a kind.
pub fn fold(table: &KindTable) -> Box<dyn Fold> {
    let found = CAPABILITIES.iter().find_map(|capability| capability.fold(table));
    found.unwrap_or_else(|| Box::new(NoFold))
}
