//! The executors: what is loaded and stored of each capability, written once for all engines.
//!
//! They run an engine's statements over its connection (`wire`), and know what differs between engines from `engine`.
//! Hold no SQL text.

mod bisect;
pub(super) mod checkpoints;
pub(super) mod counters;
mod dead_letters;
pub(super) mod documents;
pub(super) mod flush;
mod pairs;
pub(super) mod preferences;
pub(super) mod toggles;
