//! Batches that are decided: one rule for each item.
//!
//! The live module decides, of a share of the targets a canary; where a module fails, or is not called because it has failed,
//! the one before it decides, then whatever the kind says: the built-in rules, or nobody.

use std::sync::Arc;

use weir_default_policy::rules::Settings;
use weir_policy_vectors::{Answer, Call};

use super::call::{Answered, Outcome, Role};
use super::contract::Contract;
use super::instance::CallFailure;
use super::interface::Interface;
use super::life::set::Active;
use super::module::Module;
use super::trial::Trial;
use super::{Decided, Decider, KindRules, Policies, PolicyError};
use crate::config::{PolicyConfig, PolicyFailure};
use crate::model::{Digest, Id};

/// What rules decide on in batches: an intent, a hit, a document. Of each comes one rule.
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

/// Rules for the first items of a batch.
struct Ruled<R> {
    rules: Vec<R>,
    /// Who made them: so many in a row.
    deciders: Vec<(Digest, usize)>,
}

impl<R> Ruled<R> {
    fn none() -> Self {
        Self { rules: Vec::new(), deciders: Vec::new() }
    }

    fn by(digest: Digest, rules: Vec<R>) -> Self {
        Self { deciders: vec![(digest, rules.len())], rules }
    }

    fn append(&mut self, later: Self) {
        if self.rules.is_empty() {
            *self = later;
        } else {
            self.rules.extend(later.rules);
            self.deciders.extend(later.deciders);
        }
    }

    fn digests(&self) -> impl Iterator<Item = Digest> {
        self.deciders.iter().flat_map(|(digest, count)| std::iter::repeat_n(*digest, *count))
    }

    /// `nobody` decides a batch of nothing.
    fn into_decided(self, nobody: Digest) -> Decided<R> {
        let (first, _) = self.deciders.first().copied().unwrap_or((nobody, 0));
        let is_one = self.deciders.iter().all(|(digest, _)| *digest == first);
        let decider = if is_one { Decider::One(first) } else { Decider::Each(self.digests().collect()) };
        Decided { rules: self.rules, decider }
    }
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
    fn split(self, config: &PolicyConfig) -> (Self, Self) {
        let (part, later) = self.batch.split_at(S::fitting(config, self.batch).min(self.batch.len()));
        (Self { batch: part, ..self }, Self { batch: later, ..self })
    }

    fn ask(self, module: &Module, role: Role) -> Outcome<Vec<S::Rule>> {
        S::ask(module, role, self)
    }

    fn record(self, rules: &[S::Rule]) -> (Call, Answer) {
        (S::record(self.kind, self.now_ms, self.batch), S::record_rules(rules))
    }
}

impl Policies {
    /// One rule for each item: where the caller runs, or, where that may take longer, on a thread that may wait.
    pub(super) async fn decide<S: Subject>(
        self: &Arc<Self>,
        kind: &str,
        now_ms: u64,
        batch: &[S],
    ) -> Result<Decided<S::Rule>, PolicyError> {
        let active = self.active();
        let contract = if S::HAS_CONTRACT { self.contracts.of(kind) } else { None };
        if !active.does_io(S::INTERFACE) && S::is_quick(batch) {
            let contract = contract.as_deref();
            return self.decide_now(&active, Asked { kind, now_ms, batch, contract, may_wait: false });
        }
        let (policies, kind, batch) = (Arc::clone(self), kind.to_owned(), batch.to_vec());
        let digest = active.live.get(S::INTERFACE).module.digest;
        let decide = move || {
            let contract = contract.as_deref();
            policies.decide_now(&active, Asked { kind: &kind, now_ms, batch: &batch, contract, may_wait: true })
        };
        tokio::task::spawn_blocking(decide).await.unwrap_or_else(|error| {
            Err(PolicyError { digest, interface: S::INTERFACE.name(), reason: format!("the call ended: {error}") })
        })
    }

    fn decide_now<S: Subject>(&self, active: &Active, asked: Asked<'_, S>) -> Result<Decided<S::Rule>, PolicyError> {
        let canary = active.canary.as_ref().filter(|canary| canary.module.exports(S::INTERFACE));
        let Some(canary) = canary else {
            let nobody = active.live.get(S::INTERFACE).module.digest;
            return Ok(self.decide_live(active, asked)?.into_decided(nobody));
        };
        let of_canary: Vec<bool> = asked.batch.iter().map(|item| canary.takes(item.target())).collect();
        let part = |wanted: bool| -> Vec<S> {
            let both = asked.batch.iter().zip(&of_canary);
            both.filter(|(_, of_canary)| **of_canary == wanted).map(|(item, _)| item.clone()).collect()
        };
        let rest = self.decide_live(active, Asked { batch: &part(false), ..asked })?;
        let taken = self.decide_canary(active, canary, Asked { batch: &part(true), ..asked })?;
        let (rest_digests, taken_digests): (Vec<Digest>, Vec<Digest>) =
            (rest.digests().collect(), taken.digests().collect());
        let mut rest = rest.rules.into_iter().zip(rest_digests);
        let mut taken = taken.rules.into_iter().zip(taken_digests);
        let next = |of_canary: &bool| if *of_canary { taken.next() } else { rest.next() };
        let (rules, deciders) = of_canary.iter().filter_map(next).unzip();
        Ok(Decided { rules, decider: Decider::Each(deciders) })
    }

    /// The canary decides; from its first failure on the live module, so that no request pays for the trial.
    fn decide_canary<S: Subject>(
        &self,
        active: &Active,
        canary: &Arc<Trial>,
        asked: Asked<'_, S>,
    ) -> Result<Ruled<S::Rule>, PolicyError> {
        let (mut ruled, mut rest) = (Ruled::none(), asked);
        while !rest.batch.is_empty() {
            let (part, later) = rest.split(&self.loader.config);
            let outcome = part.ask(&canary.module, Role::Canary);
            self.judge_canary(canary, &outcome);
            let Ok(Answered { answer, elapsed, .. }) = outcome else {
                ruled.append(self.decide_live(active, rest)?);
                return Ok(ruled);
            };
            self.observe_canary(active, canary, S::INTERFACE, S::weight(part.batch), elapsed, || part.record(&answer));
            ruled.append(Ruled::by(canary.module.digest, answer));
            rest = later;
        }
        Ok(ruled)
    }

    /// The live module decides; from its first failure on whoever stands in for it.
    fn decide_live<S: Subject>(&self, active: &Active, asked: Asked<'_, S>) -> Result<Ruled<S::Rule>, PolicyError> {
        let module = &active.live.get(S::INTERFACE).module;
        if let Some(kind) = self.kinds.get(asked.kind).filter(|_| self.runs_natively(module)) {
            return Ok(Ruled::by(module.digest, S::builtin(&kind.settings, asked.now_ms, asked.batch)));
        }
        let (mut ruled, mut rest) = (Ruled::none(), asked);
        while !rest.batch.is_empty() {
            let (part, later) = rest.split(&self.loader.config);
            let outcome = part.ask(module, Role::Live);
            self.judge_live(active, module, &outcome);
            match outcome {
                Ok(Answered { answer, elapsed, .. }) => {
                    let weight = S::weight(part.batch);
                    self.observe_live(active, module, S::INTERFACE, weight, elapsed, || part.record(&answer));
                    ruled.append(Ruled::by(module.digest, answer));
                    rest = later;
                }
                Err(failure) => {
                    ruled.append(self.stand_in(active, module, &failure, rest)?);
                    return Ok(ruled);
                }
            }
        }
        Ok(ruled)
    }

    /// What the live module has failed to decide: the module before it does; else, or where that fails too, the kind says.
    fn stand_in<S: Subject>(
        &self,
        active: &Active,
        module: &Module,
        failure: &CallFailure,
        asked: Asked<'_, S>,
    ) -> Result<Ruled<S::Rule>, PolicyError> {
        let (mut ruled, mut rest) = (Ruled::none(), asked);
        if let Some(before) = self.stands_in(active, module, S::INTERFACE, asked.may_wait) {
            while !rest.batch.is_empty() {
                let (part, later) = rest.split(&self.loader.config);
                let outcome = part.ask(before, Role::Live);
                self.tell_breakers(before);
                let Ok(answered) = outcome else { break };
                ruled.append(Ruled::by(before.digest, answered.answer));
                rest = later;
            }
            if rest.batch.is_empty() {
                self.count_fallback(asked.kind, "previous");
                return Ok(ruled);
            }
        }
        match self.kinds.get(asked.kind) {
            Some(KindRules { settings, on_failure: PolicyFailure::BuiltIn, .. }) => {
                self.count_fallback(asked.kind, "built-in");
                ruled.append(Ruled::by(self.builtin_digest, S::builtin(settings, rest.now_ms, rest.batch)));
                Ok(ruled)
            }
            _ => {
                self.count_fallback(asked.kind, "deny");
                Err(PolicyError {
                    digest: module.digest,
                    interface: S::INTERFACE.name(),
                    reason: format!("{}: {}", failure.cause.as_str(), failure.reason),
                })
            }
        }
    }
}
