//! What rules get to know of a kind, and what they answer. Plain data.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_core::config::PolicyFailure;
use weir_core::model::{Digest, Violation};

/// What was decided for a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided<R> {
    /// Index-aligned with the batch, same length.
    pub rules: Vec<R>,
    /// The module that decided.
    pub decider: Decider,
}

/// What a policy says of a document: as it is, as it is normalised, or why not.
pub type Verdict = Result<Option<Arc<str>>, Vec<Violation>>;

/// Who decided a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decider {
    /// One module all of it.
    One(Digest),
    /// A canary some of it, or what stands in for a module that failed on the way: index-aligned with the batch. All intents
    /// and hits on one target have one decider.
    Each(Vec<Digest>),
}

/// Which entries survive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coalesced {
    /// Ascending indexes into the changes: exactly the last one of each (target, actor) pair.
    pub kept: Vec<usize>,
    /// The module failed or broke the contract, and the host's own rule was used.
    pub fell_back: bool,
}

/// The module failed, and the kind says to refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy module {digest} failed in {interface}: {reason}")]
pub struct PolicyError {
    /// The module.
    pub digest: Digest,
    /// The interface that was called.
    pub interface: &'static str,
    /// Trap, deadline, or the broken contract.
    pub reason: String,
}

/// What the rules may know of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindPolicy {
    /// Its name.
    pub kind: String,
    /// What a module reads through its `config` import.
    pub settings: BTreeMap<String, String>,
    /// What a batch gets when the module fails.
    pub on_failure: PolicyFailure,
}
