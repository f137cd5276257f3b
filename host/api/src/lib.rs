//! What is answered over HTTP.
//!
//! | module | holds |
//! |---|---|
//! | [`http`] | the public API: parse, bound, authenticate, route; map every cause to its one status |
//! | [`admin`] | the operators' API |
//!
//! Uses the capabilities, `weir-listener` and `weir-core`. Knows neither a store, nor SQL, nor a policy module; neither module knows
//! the other.

pub mod admin;
pub mod http;
