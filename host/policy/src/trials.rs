//! Modules are tried beside those that serve: shadow, canary, probation. Calls are judged; what is sampled goes to the
//! shadow and into the decision log; a module that must go is taken out of service.
//!
//! - `service`: what operators begin and end; `observe`: what is done with the outcome of a call.
//! - `observer`: the thread off the reply path; `metered`: how much fuel a call uses.

mod metered;
mod observe;
pub(super) mod observer;
mod service;

pub(super) use metered::Metered;
pub use service::Trials;
