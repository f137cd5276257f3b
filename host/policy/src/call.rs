//! What a call of a module is, and what comes of it. Names no interface's functions and no module.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Histogram, histogram};

use super::instance::CallFailure;
use super::interface::Interface;
use weir_core::telemetry::POLICY_CALL_SECONDS;

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Called<'a> {
    pub(super) interface: Interface,
    /// Of the interface, as the WIT names it.
    pub(super) function: &'static str,
    pub(super) kind: &'a str,
}

/// What a module is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It serves.
    Live,
    /// It serves a share of the targets.
    Canary,
    /// It only shows what it would decide.
    Shadow,
    /// It is tried with test vectors or recorded calls: nothing is counted.
    Test,
}

impl Role {
    const COUNT: usize = 4;

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Canary => "canary",
            Self::Shadow => "shadow",
            Self::Test => "test",
        }
    }
}

/// The histograms of one module's calls, looked up once: that takes as long as a call.
#[derive(Default)]
pub(super) struct CallSeconds([[OnceLock<Histogram>; Role::COUNT]; Interface::COUNT]);

impl CallSeconds {
    /// The one of these calls.
    pub(super) fn of(&self, interface: Interface, role: Role) -> &Histogram {
        self.0[interface as usize][role as usize]
            .get_or_init(|| histogram!(POLICY_CALL_SECONDS, "interface" => interface.name(), "role" => role.as_str()))
    }
}

/// An answer that keeps the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answered<T> {
    pub(super) answer: T,
    /// How long the call took, waiting for an instance included.
    pub(super) elapsed: Duration,
    /// Fuel that it used, where that is counted.
    pub(super) fuel: Option<u64>,
}

impl<T> Answered<T> {
    /// The same with another form of the answer.
    pub(super) fn map<U>(self, form: impl FnOnce(T) -> U) -> Answered<U> {
        Answered { answer: form(self.answer), elapsed: self.elapsed, fuel: self.fuel }
    }
}

/// The outcome of a call.
pub(super) type Outcome<T> = Result<Answered<T>, CallFailure>;

/// Cannot happen: a module is called only for what it exports.
pub(super) fn not_exported() -> wasmtime::Error {
    wasmtime::Error::msg("the module does not export this interface")
}
