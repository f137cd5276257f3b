//! What is done off the reply path: the shadow decides, decisions are written down.
//!
//! One thread. Its queue is bounded: what does not fit is counted and left out, so that it never slows a request.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use weir_policy_vectors::{Answer, Call};

use super::Trial;
use crate::policy::module::Module;

/// Decisions that wait, over all observations: their memory is what counts, so a large one weighs as several.
const QUEUE_DECISIONS_MAX: usize = 50_000;

/// Something to do.
pub(in crate::policy) enum Job {
    /// The shadow decides what the live module has decided.
    Shadow { trial: Arc<Trial>, call: Call, live: (Answer, Duration) },
    /// The live module decides what the canary has decided.
    Canary { trial: Arc<Trial>, live: Arc<Module>, call: Call, candidate: (Answer, Duration) },
    /// A decision for the log.
    Decision { module: Arc<Module>, at_ms: u64, call: Call, answer: Answer, elapsed: Duration },
}

/// The sending side.
pub(in crate::policy) struct Observer {
    sender: mpsc::Sender<(usize, Job)>,
    waiting: Arc<AtomicUsize>,
}

/// The receiving side, for its thread.
pub(in crate::policy) struct Jobs {
    receiver: mpsc::Receiver<(usize, Job)>,
    waiting: Arc<AtomicUsize>,
}

/// A queue.
pub(in crate::policy) fn queue() -> (Observer, Jobs) {
    let (sender, receiver) = mpsc::channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    (Observer { sender, waiting: Arc::clone(&waiting) }, Jobs { receiver, waiting })
}

impl Observer {
    /// Whether an observation of this weight, in decisions, would fit: asked before one is made.
    pub(in crate::policy) fn has_room(&self, weight: usize) -> bool {
        self.waiting.load(Ordering::Relaxed).saturating_add(weight) < QUEUE_DECISIONS_MAX
    }

    /// Hands it over. It is lost when the host is ending.
    pub(in crate::policy) fn send(&self, weight: usize, job: Job) {
        self.waiting.fetch_add(weight, Ordering::Relaxed);
        let _ = self.sender.send((weight, job));
    }
}

impl Jobs {
    /// The next one; `None` when the host has ended.
    pub(in crate::policy) fn next(&self) -> Option<Job> {
        let (weight, job) = self.receiver.recv().ok()?;
        self.waiting.fetch_sub(weight, Ordering::Relaxed);
        Some(job)
    }
}
