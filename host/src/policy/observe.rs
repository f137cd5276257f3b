//! Calls are watched: a new module is judged, breakers that open or close are told, what is sampled goes to the shadow and
//! into the decision log.

use std::sync::Arc;
use std::time::Duration;

use weir_policy_vectors::{Answer, Call};

use super::Policies;
use super::call::Outcome;
use super::instance::Cause;
use super::interface::Interface;
use super::life::set::{Active, Probation};
use super::module::Module;
use super::trial::Trial;
use super::trial::observer::Job;
use crate::clock::Clock;

impl Active {
    /// Whether deciding may wait for I/O: also that of a module which stands in for one that has failed lately.
    pub(super) fn does_io(&self, interface: Interface) -> bool {
        let live = &self.live.get(interface).module;
        let canary = self.canary.as_ref().map(|canary| &canary.module).filter(|module| module.exports(interface));
        let is_needed = self.on_probation(live).is_some() || live.breakers.is_troubled();
        let before = is_needed.then(|| self.before(live, interface)).flatten();
        live.does_io || [canary, before].into_iter().flatten().any(|module| module.does_io)
    }

    fn on_probation(&self, module: &Module) -> Option<&Arc<Probation>> {
        self.probation.as_ref().filter(|probation| probation.covers(&module.digest))
    }

    /// The module that served before `module`: what was proven while that is on probation, later what a rollback brings back.
    fn before(&self, module: &Module, interface: Interface) -> Option<&Arc<Module>> {
        let proven = self.on_probation(module).map(|probation| &probation.proven);
        let before = &proven.or(self.previous.as_ref())?.get(interface).module;
        (before.digest != module.digest).then_some(before)
    }
}

/// Whether this one is of the sample.
fn sampled(share: f64) -> bool {
    share >= 1.0 || (share > 0.0 && rand::random::<f64>() < share)
}

impl Policies {
    /// Who decides what `module` has failed to decide: the one before it. The built-in module only on probation: later the
    /// kind says whether the built-in rules may. With `may_wait` false, only one that does no I/O.
    pub(super) fn stands_in<'a>(
        &self,
        active: &'a Active,
        module: &Module,
        interface: Interface,
        may_wait: bool,
    ) -> Option<&'a Arc<Module>> {
        let is_new = active.on_probation(module).is_some();
        let before = active.before(module, interface)?;
        let may_decide = is_new || before.digest != self.builtin_digest;
        (may_decide && (may_wait || !before.does_io)).then_some(before)
    }

    /// Tells operators what the breakers of a module have done.
    pub(super) fn tell_breakers(&self, module: &Module) {
        for notice in module.breakers.take_notices() {
            self.control.event(notice.what, module.title(), "weir", Some(notice.reason));
        }
    }

    /// A canary that fails is rolled back.
    pub(super) fn judge_canary<T>(&self, canary: &Arc<Trial>, outcome: &Outcome<T>) {
        self.tell_breakers(&canary.module);
        let verdict = match outcome {
            Ok(answered) => canary.judge.note(answered.elapsed, None),
            Err(failure) if failure.cause == Cause::Open => None,
            Err(failure) => {
                canary.with_comparison(|comparison| comparison.failed(failure));
                canary.judge.note(Duration::ZERO, Some(failure))
            }
        };
        if let Some(reason) = verdict {
            self.roll_back_canary(canary, &reason);
        }
    }

    /// So is a set on probation.
    pub(super) fn judge_live<T>(&self, active: &Active, module: &Module, outcome: &Outcome<T>) {
        self.tell_breakers(module);
        let Some(probation) = active.on_probation(module) else { return };
        let verdict = match outcome {
            Ok(answered) => probation.judge.note(answered.elapsed, None),
            // It was not asked.
            Err(failure) if failure.cause == Cause::Open => None,
            Err(failure) => probation.judge.note(Duration::ZERO, Some(failure)),
        };
        if let Some(reason) = verdict {
            self.roll_back_probation(probation, module, &reason);
        }
    }

    /// Hands what the live module decided to the shadow and the decision log, where it is of their samples. `weight` is
    /// what it takes to keep that, in decisions.
    pub(super) fn observe_live(
        &self,
        active: &Active,
        module: &Arc<Module>,
        interface: Interface,
        weight: usize,
        elapsed: Duration,
        recorded: impl FnOnce() -> (Call, Answer),
    ) {
        let shadow = active.shadow.as_ref().filter(|shadow| shadow.module.exports(interface) && sampled(shadow.share));
        let logged = sampled(self.decision_share);
        if shadow.is_none() && !logged {
            return;
        }
        if !self.observer.has_room(weight) {
            if let Some(shadow) = shadow {
                shadow.skip();
            }
            return;
        }
        let (call, answer) = recorded();
        if let Some(trial) = shadow.cloned() {
            self.observer.send(weight, Job::Shadow { trial, call: call.clone(), live: (answer.clone(), elapsed) });
        }
        if logged {
            let at_ms = Clock::Real.now_ms();
            self.observer.send(weight, Job::Decision { module: Arc::clone(module), at_ms, call, answer, elapsed });
        }
    }

    /// Hands what a canary decided to the live module, to compare.
    pub(super) fn observe_canary(
        &self,
        active: &Active,
        canary: &Arc<Trial>,
        interface: Interface,
        weight: usize,
        elapsed: Duration,
        recorded: impl FnOnce() -> (Call, Answer),
    ) {
        let live = Arc::clone(&active.live.get(interface).module);
        // One that does I/O would do it for what it does not serve.
        if live.does_io || !self.observer.has_room(weight) {
            canary.skip();
            return;
        }
        let (call, answer) = recorded();
        self.observer.send(weight, Job::Canary { trial: Arc::clone(canary), live, call, candidate: (answer, elapsed) });
    }
}
