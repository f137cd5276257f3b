//! weir: an HTTP host for an application's hot paths. Answers from a store, writes behind to SQL, rules in WebAssembly.
//!
//! # Layout: the rooms, in the order of the way of a write
//!
//! | room | duty | tier |
//! |---|---|---|
//! | [`http`] | parse, bound, authenticate, route; map every cause to its one status | 4 |
//! | [`capability`] | the write path, once: batch → rule → store step → hydrate → receipt → level; what a capability says of itself | 3 |
//! | [`toggle`] | the toggle capability: reactions and likes of one actor on one target | 3 |
//! | [`counter`] | the counter capability: how often, not by whom | 3 |
//! | [`ingest`] | the ingest capability: documents, checked for shape, all of a request or none; their status | 3 |
//! | [`preference`] | the preference capability: settings of members; look-ups of thousands in chunks: fetch, columns, rule | 3 |
//! | [`write`](mod@write) | the capabilities that are written behind, listed once | 3 |
//! | [`room`] | the room capability: arrivals → batch → rule → store step → place; the clocks of queues; tokens | 3 |
//! | [`listener`] | bounded HTTP/1 connections for `http` and `admin`: strict framing, limits, problem+json, drain | 1 |
//! | [`tls`] | encrypted connections to others: trust, our certificates, what a failed handshake means | 1 |
//! | [`batcher`] | gather what is concurrent, bounded | 1 |
//! | [`policy`] | one wasm call per batch; trusts nothing that comes back | 2 |
//! | [`store`] | one atomic step per partition: rule × state → state + journal | 2 |
//! | [`journal`] | the entry format, the only thing that both halves share | 1 |
//! | [`flush`] | journal → coalesce → one SQL transaction → trim | 3 |
//! | [`sql`] | fence, checkpoint, bulk writes and loads, dead letters | 2 |
//! | [`cache`] | what was read, bounded by bytes: freshness, one reader at a time, invalidation; what the rule says of it | 2 |
//! | [`read`] | the read capability: named SQL reads → profile → rule → cache → JSON | 3 |
//! | [`upstream`] | the read capability over HTTP: reverse proxy and shared cache (RFC 9111) | 3 |
//! | [`admin`] | the operators' listener | 4 |
//! | [`app`], [`cli`] | composition, drain order; the command line | 5 |
//! | [`model`], [`error`], [`clock`], [`telemetry`], [`config`] | the floor | 0 |
//! | [`operators`] | the operators' API as types: what `admin` writes and `cli` reads | 0 |
//!
//! `batcher`, `clock`, `config`, `error`, `journal`, `model`, `operators`, `telemetry` and `tls` are in the crate `weir-core`, `listener` is
//! `weir-listener`. A room imports only from lower tiers, and tier 2 rooms never from each other; `tests/` checks it.

pub use weir_core::{batcher, clock, config, error, journal, model, operators, telemetry, tls};
pub use weir_listener as listener;

pub mod admin;
pub mod app;
pub mod cache;
pub mod capability;
pub mod cli;
pub mod counter;
pub mod flush;
pub mod http;
pub mod ingest;
pub mod policy;
pub mod preference;
pub mod read;
pub mod room;
pub mod sql;
pub mod store;
pub mod toggle;
pub mod upstream;
pub mod write;
