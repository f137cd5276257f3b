//! weir: an HTTP host for an application's hot paths. Answers from a store, writes behind to SQL, rules in WebAssembly.
//!
//! # Layout: the crates, in the order of the way of a write
//!
//! | crate | duty | uses |
//! |---|---|---|
//! | `weir-listener` ([`listener`]) | bounded HTTP/1 connections for both APIs: strict framing, limits, problem+json, drain | core |
//! | `weir-api` ([`http`], [`admin`]) | parse, bound, authenticate, route; map every cause to its one status; the operators' API | core, listener, write, queues, reads |
//! | `weir-write` ([`write`](mod@write)) | [`capability`]: the write path, once: batch → rule → store step → hydrate → receipt → level; [`toggle`], [`counter`], [`ingest`], [`preference`] are plugs in it; [`flush`]: journal → coalesce → one SQL transaction → trim | core, policy, store, sql, cache |
//! | `weir-queues` ([`room`]) | waiting rooms: arrivals → batch → rule → store step → place; the clocks of queues; tokens | core, policy, store |
//! | `weir-reads` ([`read`], [`upstream`]) | named SQL reads → profile → rule → cache → JSON; reverse proxy and shared cache (RFC 9111) | core, listener, cache, sql, store |
//! | `weir-policy` ([`policy`]) | one wasm call per batch; trusts nothing that comes back | core |
//! | `weir-store` ([`store`]) | one atomic step per partition: rule × state → state + journal | core |
//! | `weir-sql` ([`sql`]) | fence, checkpoint, bulk writes and loads, dead letters | core |
//! | `weir-cache` ([`cache`]) | what was read, bounded by bytes: freshness, one reader at a time, invalidation; what the rule says of it | core |
//! | `weir-core` | [`model`], [`error`], [`clock`], [`telemetry`], [`config`], [`operators`] (the operators' API as types), [`journal`] (the entry format, the only thing that both halves share), [`batcher`], [`tls`] | – |
//! | `weir` ([`app`], [`cli`]) | composition, drain order, the demo; the command line | all |
//!
//! This crate hands on the modules of the others under the names above. `tests/` holds the table: a crate asks for no other.

pub use weir_api::{admin, http};
pub use weir_cache as cache;
pub use weir_core::{batcher, clock, config, error, journal, model, operators, telemetry, tls};
pub use weir_listener as listener;
pub use weir_policy as policy;
pub use weir_queues as room;
pub use weir_reads::{read, upstream};
pub use weir_sql as sql;
pub use weir_store as store;
pub use weir_write as write;
pub use weir_write::{capability, counter, flush, ingest, preference, toggle};

pub mod app;
pub mod cli;
