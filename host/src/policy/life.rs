//! The life of a module: registry on disk, gate, activation, rollback, the watched directory.

mod audit;
pub(super) mod control;
pub(super) mod loader;
pub(super) mod registry;
pub(super) mod saver;
pub(super) mod set;
pub(super) mod start;
pub(super) mod status;
#[cfg(test)]
mod tests;
mod trials;
mod upload;
pub(super) mod watch;
