//! Modules from upload to deletion: upload, activation, rollback, deletion, the watched directory.
//!
//! - `disk`: what was uploaded, and the set that is active; `audit`: who did what.
//! - `loader`: the gate that every component passes, on its way to a module.
//! - `set`: which module serves which interface; `control`, `change`: what is in force, and how it changes; `saver`: writes
//!   down what has changed by itself.
//! - `service`: what operators do; `upload`, `watch`: how a component comes in; `status`: what operators see.

mod audit;
pub(super) mod change;
pub(super) mod control;
pub(super) mod disk;
pub(super) mod loader;
pub(super) mod saver;
mod service;
pub(super) mod set;
mod status;
#[cfg(test)]
mod tests;
mod upload;
mod watch;

pub(super) use audit::AuditTrail;
pub use control::ControlError;
pub(super) use service::BUILT_IN;
pub use service::Registry;
pub use upload::ModuleUpload;
