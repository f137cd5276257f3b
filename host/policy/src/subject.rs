//! What rules decide on in batches, and how a module is asked for it.

use weir_default_policy::rules::Settings;
use weir_policy_vectors::{Answer, Call};

use super::call::{Outcome, Role};
use super::contract::Contract;
use super::interface::Interface;
use super::module::Module;
use weir_core::config::PolicyConfig;
use weir_core::model::Id;

/// What rules decide on in batches: an intent, a hit, a document, an arrival. Of each comes one rule.
pub(super) trait Subject: Clone + Send + Sync + 'static {
    /// Who decides.
    const INTERFACE: Interface;
    /// What is decided.
    type Rule: Clone + Send + 'static;
    /// Whether a kind may ask more of answers than the interface does.
    const HAS_CONTRACT: bool = false;

    /// What a canary is chosen by.
    fn target(&self) -> &Id;

    /// How many of the first items of a batch go together in one call: 1 or more, where there is one.
    fn fitting(_config: &PolicyConfig, batch: &[Self]) -> usize {
        batch.len()
    }

    /// Whether a pure module decides them in microseconds, so that a thread of requests may do it.
    fn is_quick(_batch: &[Self]) -> bool {
        true
    }

    /// What they weigh while they wait to be observed, in decisions.
    fn weight(batch: &[Self]) -> usize {
        batch.len()
    }

    /// Asks a module, in one call.
    fn ask(module: &Module, role: Role, asked: Asked<'_, Self>) -> Outcome<Vec<Self::Rule>>;

    /// The built-in rules.
    fn builtin(settings: &Settings, now_ms: u64, batch: &[Self]) -> Vec<Self::Rule>;

    /// The call in the language of vectors.
    fn record(kind: &str, now_ms: u64, batch: &[Self]) -> Call;

    /// The answer in the language of vectors.
    fn record_rules(rules: &[Self::Rule]) -> Answer;
}

/// A batch, or what is left of it, and what it is about.
pub(super) struct Asked<'a, S> {
    pub(super) kind: &'a str,
    pub(super) now_ms: u64,
    pub(super) batch: &'a [S],
    /// What the kind asks of answers besides.
    pub(super) contract: Option<&'a dyn Contract>,
    /// Whether it is asked where a thread may wait, so that what stands in for a module may do I/O.
    pub(super) may_wait: bool,
}

impl<S> Clone for Asked<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Asked<'_, S> {}

impl<'a, S: Subject> Asked<'a, S> {
    /// What goes in the next call, and what is left.
    pub(super) fn split(self, config: &PolicyConfig) -> (Self, Self) {
        let (part, later) = self.batch.split_at(S::fitting(config, self.batch).min(self.batch.len()));
        (Self { batch: part, ..self }, Self { batch: later, ..self })
    }

    /// Asks a module, in one call.
    pub(super) fn ask(self, module: &Module, role: Role) -> Outcome<Vec<S::Rule>> {
        S::ask(module, role, self)
    }

    /// The call and its answer in the language of vectors.
    pub(super) fn record(self, rules: &[S::Rule]) -> (Call, Answer) {
        (S::record(self.kind, self.now_ms, self.batch), S::record_rules(rules))
    }
}
