//! Calls are observed: a new module is judged, breakers that open or close are reported, what is sampled goes to the shadow
//! and into the decision log.

use std::sync::Arc;
use std::time::Duration;

use weir_policy_vectors::{Answer, Call};

use super::observer::Job;
use super::service::Trials;
use crate::call::Outcome;
use crate::instance::Cause;
use crate::interface::Interface;
use crate::module::Module;
use crate::registry::set::Active;
use crate::trial::Trial;

/// Whether this one is of the sample.
fn sampled(share: f64) -> bool {
    share >= 1.0 || (share > 0.0 && rand::random::<f64>() < share)
}

impl Trials {
    /// A canary that fails is rolled back.
    pub(crate) fn judge_canary<T>(&self, canary: &Arc<Trial>, outcome: &Outcome<T>) {
        self.control.report_breakers(&canary.module);
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
    pub(crate) fn judge_live<T>(&self, active: &Active, module: &Module, outcome: &Outcome<T>) {
        self.control.report_breakers(module);
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
    pub(crate) fn observe_live(
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
            let at_ms = self.control.clock.now_ms();
            self.observer.send(weight, Job::Decision { module: Arc::clone(module), at_ms, call, answer, elapsed });
        }
    }

    /// Hands what a canary decided to the live module, to compare.
    pub(crate) fn observe_canary(
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
