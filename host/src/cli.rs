//! cli: being built.

pub mod policy;
