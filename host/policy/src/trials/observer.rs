//! What is done off the reply path: the shadow decides, decisions are written down.
//!
//! One thread. Its queue is bounded: what does not fit is counted and left out, so that it never slows a request.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;

use weir_policy_vectors::{Answer, Call, Decision};

use super::metered::Metered;
use crate::call::{Outcome, Role};
use crate::contract::Contracts;
use crate::instance::Cause;
use crate::module::Module;
use crate::refusal::LoadError;
use crate::registry::control::Control;
use crate::trial::Trial;
use crate::trial::comparison::{Comparison, decisions, differences};
use crate::trial::decisions::DecisionLog;

/// Decisions that wait, over all observations: their memory is what counts, so a large one weighs as several.
const QUEUE_DECISIONS_MAX: usize = 50_000;

/// Something to do.
pub(super) enum Job {
    /// The shadow decides what the live module has decided.
    Shadow { trial: Arc<Trial>, call: Call, live: (Answer, Duration) },
    /// The live module decides what the canary has decided.
    Canary { trial: Arc<Trial>, live: Arc<Module>, call: Call, candidate: (Answer, Duration) },
    /// A decision for the log.
    Decision { module: Arc<Module>, at_ms: u64, call: Call, answer: Answer, elapsed: Duration },
}

/// The sending side.
pub(crate) struct Observer {
    sender: mpsc::Sender<(usize, Job)>,
    waiting: Arc<AtomicUsize>,
}

/// The receiving side, for its thread.
pub(crate) struct Jobs {
    receiver: mpsc::Receiver<(usize, Job)>,
    waiting: Arc<AtomicUsize>,
}

/// A queue.
pub(crate) fn queue() -> (Observer, Jobs) {
    let (sender, receiver) = mpsc::channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    (Observer { sender, waiting: Arc::clone(&waiting) }, Jobs { receiver, waiting })
}

impl Observer {
    /// Whether an observation of this weight, in decisions, would fit: asked before one is made.
    pub(super) fn has_room(&self, weight: usize) -> bool {
        self.waiting.load(Ordering::Relaxed).saturating_add(weight) < QUEUE_DECISIONS_MAX
    }

    /// Hands it over. It is lost when the host is ending.
    pub(super) fn send(&self, weight: usize, job: Job) {
        self.waiting.fetch_add(weight, Ordering::Relaxed);
        let _ = self.sender.send((weight, job));
    }
}

impl Jobs {
    /// The next one; `None` when the host has ended.
    pub(super) fn next(&self) -> Option<Job> {
        let (weight, job) = self.receiver.recv().ok()?;
        self.waiting.fetch_sub(weight, Ordering::Relaxed);
        Some(job)
    }
}

/// Starts the thread. It ends with the sending side.
pub(crate) fn start(
    control: Weak<Control>,
    contracts: Arc<Contracts>,
    jobs: Jobs,
    mut log: DecisionLog,
    mut metered: Metered,
) -> Result<(), LoadError> {
    let work = move || {
        while let Some(job) = jobs.next() {
            match job {
                Job::Shadow { trial, call, live } => match ask_shadow(&control, &contracts, &trial, &call) {
                    Ok(answered) => {
                        let differing = differences(&call, &live.0, &answered.answer);
                        let compare = |comparison: &mut Comparison| {
                            comparison.compare(&call, live.1, answered.elapsed, differing);
                        };
                        trial.with_comparison(compare);
                    }
                    // Not compared: the shadow was not called.
                    Err(failure) if failure.cause == Cause::Open => trial.skip(),
                    Err(failure) => trial.with_comparison(|comparison| comparison.failed(&failure)),
                },
                Job::Canary { trial, live, call, candidate } => {
                    let asked = live.ask(Role::Test, &call, None).ok();
                    let both = asked.map(|asked| (differences(&call, &asked.answer, &candidate.0), asked.elapsed));
                    trial.with_comparison(|comparison| match both {
                        Some((differing, elapsed)) => comparison.compare(&call, elapsed, candidate.1, differing),
                        None => comparison.served(decisions(&call), candidate.1),
                    });
                }
                Job::Decision { module, at_ms, call, answer, elapsed } => {
                    let fuel = control.upgrade().and_then(|control| metered.fuel(&control, &module, &call));
                    let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
                    let decision = Decision { at_ms, digest: module.digest.to_string(), call, answer, micros, fuel };
                    if let Err(error) = log.write(&decision) {
                        tracing::warn!(%error, "the decision log cannot be written");
                    }
                }
            }
        }
    };
    std::thread::Builder::new()
        .name("weir-policy-observe".into())
        .spawn(work)
        .map(drop)
        .map_err(|error| LoadError::Engine { reason: format!("cannot start a thread to observe on: {error}") })
}

/// The shadow is held to what the kind asks of a module that serves.
fn ask_shadow(control: &Weak<Control>, contracts: &Contracts, trial: &Trial, call: &Call) -> Outcome<Answer> {
    let contract = contracts.of_call(call);
    let outcome = trial.module.ask(Role::Shadow, call, contract.as_deref());
    if let Some(control) = control.upgrade() {
        control.report_breakers(&trial.module);
    }
    outcome
}
