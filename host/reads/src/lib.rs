//! What is answered from the cache.
//!
//! | module | holds |
//! |---|---|
//! | [`read`] | named SQL reads: profile, rule, cache, JSON |
//! | [`upstream`] | the same over HTTP: reverse proxy and shared cache (RFC 9111) |
//!
//! Uses `weir-core`, `weir-cache`, `weir-sql`, `weir-store` (for the order of invalidations) and `weir-listener`. Writes nothing.

pub mod read;
pub mod upstream;
