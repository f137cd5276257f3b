//! weir's default rules.
//!
//! `rules`, `delivery` and `admission` are an ordinary library over the types of the border: the host falls back on it, and
//! its tests run natively. `glue` makes a component of it, and is compiled only for that (and for the tests).

pub mod admission;
pub mod delivery;
#[cfg(any(test, target_arch = "wasm32"))]
mod glue;
pub mod rules;
