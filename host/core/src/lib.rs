//! What every part of weir stands on.
//!
//! | module | holds |
//! |---|---|
//! | [`model`] | ids, partitions, positions, states, changes: values without behaviour |
//! | [`error`] | why a request is refused |
//! | [`clock`] | wall time and steady time |
//! | [`config`] | the types of `weir.toml`, how they are read and checked |
//! | [`operators`] | the operators' API as types: what the listener writes and the command line reads |
//! | [`telemetry`] | names of metrics, logs, request ids |
//! | [`journal`] | the format of a journal entry, the chain of entries, and what a flush publishes |
//! | [`batcher`] | gathers what is concurrent, bounded |
//! | [`tls`] | encrypted connections to others |
//!
//! Uses no other crate of weir. Never reads from a store or from SQL, and holds no rule.

pub mod batcher;
pub mod clock;
pub mod config;
pub mod error;
pub mod journal;
pub mod model;
pub mod operators;
pub mod telemetry;
pub mod tls;
