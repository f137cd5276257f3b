//! Batches that are decided: one rule for each item.
//!
//! The live module decides; a canary decides for a share of the targets. If a module fails, or is not called because it
//! has failed, the previous module decides; after that, the kind's fallback applies: the built-in rules, or a refusal.

use std::sync::Arc;

use super::service::Rules;
use crate::builtin::{self, KindRules};
use crate::call::{Answered, Role};
use crate::decision::{Decided, Decider, PolicyError, Verdict};
use crate::instance::CallFailure;
use crate::module::Module;
use crate::registry::set::Active;
use crate::subject::{Asked, Subject};
use crate::trial::Trial;
use weir_core::config::PolicyFailure;
use weir_core::model::{CountRule, Digest, Document, Hit, Intent, ToggleRule};

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

    /// An empty batch has the decider `of_nothing`.
    fn into_decided(self, of_nothing: Digest) -> Decided<R> {
        let (first, _) = self.deciders.first().copied().unwrap_or((of_nothing, 0));
        let is_one = self.deciders.iter().all(|(digest, _)| *digest == first);
        let decider = if is_one { Decider::One(first) } else { Decider::Each(self.digests().collect()) };
        Decided { rules: self.rules, decider }
    }
}

impl Rules {
    /// One rule for each intent. Fails when the module does and the kind says to refuse then; a kind that was not
    /// given to [`Policies::load`](crate::Policies::load) refuses.
    ///
    /// # Errors
    /// What the module did, where nothing stands in for it.
    pub async fn decide_toggles(
        self: &Arc<Self>,
        kind: &str,
        now_ms: u64,
        batch: &[Intent],
    ) -> Result<Decided<ToggleRule>, PolicyError> {
        self.decide(kind, now_ms, batch).await
    }

    /// One rule for each hit; else as [`Rules::decide_toggles`].
    ///
    /// # Errors
    /// See [`Rules::decide_toggles`].
    pub async fn decide_counts(
        self: &Arc<Self>,
        kind: &str,
        now_ms: u64,
        batch: &[Hit],
    ) -> Result<Decided<CountRule>, PolicyError> {
        self.decide(kind, now_ms, batch).await
    }

    /// A verdict for each document; else as [`Rules::decide_toggles`]. What is normalised is a JSON object that keeps
    /// the kind's [`Contract`](crate::Contract). Documents of more than 32 KiB are judged on a
    /// thread that may be busy; those that one call cannot carry (see `policy.transfer_bytes_max`) in several.
    ///
    /// # Errors
    /// See [`Rules::decide_toggles`]: one failed call is a failure of the whole batch.
    pub async fn validate(
        self: &Arc<Self>,
        kind: &str,
        now_ms: u64,
        batch: &[Document],
    ) -> Result<Decided<Verdict>, PolicyError> {
        self.decide(kind, now_ms, batch).await
    }

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
        let (rules, kind, batch) = (Arc::clone(self), kind.to_owned(), batch.to_vec());
        let digest = active.live.get(S::INTERFACE).module.digest;
        let decide = move || {
            let contract = contract.as_deref();
            rules.decide_now(&active, Asked { kind: &kind, now_ms, batch: &batch, contract, may_wait: true })
        };
        tokio::task::spawn_blocking(decide).await.unwrap_or_else(|error| {
            Err(PolicyError { digest, interface: S::INTERFACE.name(), reason: format!("the call ended: {error}") })
        })
    }

    fn decide_now<S: Subject>(&self, active: &Active, asked: Asked<'_, S>) -> Result<Decided<S::Rule>, PolicyError> {
        let canary = active.canary.as_ref().filter(|canary| canary.module.exports(S::INTERFACE));
        let Some(canary) = canary else {
            let of_nothing = active.live.get(S::INTERFACE).module.digest;
            return Ok(self.decide_live(active, asked)?.into_decided(of_nothing));
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
            let (part, later) = rest.split(&self.config);
            let outcome = part.ask(&canary.module, Role::Canary);
            self.trials.judge_canary(canary, &outcome);
            let Ok(Answered { answer, elapsed, .. }) = outcome else {
                ruled.append(self.decide_live(active, rest)?);
                return Ok(ruled);
            };
            self.trials
                .observe_canary(active, canary, S::INTERFACE, S::weight(part.batch), elapsed, || part.record(&answer));
            ruled.append(Ruled::by(canary.module.digest, answer));
            rest = later;
        }
        Ok(ruled)
    }

    /// The live module decides; after its first failure, the fallback does.
    fn decide_live<S: Subject>(&self, active: &Active, asked: Asked<'_, S>) -> Result<Ruled<S::Rule>, PolicyError> {
        let module = &active.live.get(S::INTERFACE).module;
        if let Some(kind) = self.kinds.get(asked.kind).filter(|_| self.runs_natively(module)) {
            return Ok(Ruled::by(module.digest, S::builtin(&kind.settings, asked.now_ms, asked.batch)));
        }
        let (mut ruled, mut rest) = (Ruled::none(), asked);
        while !rest.batch.is_empty() {
            let (part, later) = rest.split(&self.config);
            let outcome = part.ask(module, Role::Live);
            self.trials.judge_live(active, module, &outcome);
            match outcome {
                Ok(Answered { answer, elapsed, .. }) => {
                    let weight = S::weight(part.batch);
                    self.trials.observe_live(active, module, S::INTERFACE, weight, elapsed, || part.record(&answer));
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

    /// Decides what the live module has failed to decide: the previous module does. If there is none, or it fails too,
    /// the kind's fallback applies.
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
                let (part, later) = rest.split(&self.config);
                let outcome = part.ask(before, Role::Live);
                self.report_breakers(before);
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
                ruled.append(Ruled::by(builtin::digest(), S::builtin(settings, rest.now_ms, rest.batch)));
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
