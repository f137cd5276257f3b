//! What is done off the reply path: the shadow decides, decisions are written down.
//!
//! One thread. Its queue is bounded: what does not fit is counted and left out, so that it never slows a request.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use weir_policy_vectors::{Answer, Call};

use super::Trial;
use super::comparison::decisions;
use crate::policy::module::Module;

/// Decisions that wait, over all observations: their memory is what counts.
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

impl Job {
    fn weight(&self) -> usize {
        match self {
            Self::Shadow { call, .. } | Self::Canary { call, .. } | Self::Decision { call, .. } => {
                decisions(call).max(1)
            }
        }
    }
}

/// The sending side.
pub(in crate::policy) struct Observer {
    sender: mpsc::Sender<Job>,
    waiting: Arc<AtomicUsize>,
}

/// The receiving side, for its thread.
pub(in crate::policy) struct Jobs {
    receiver: mpsc::Receiver<Job>,
    waiting: Arc<AtomicUsize>,
}

/// A queue.
pub(in crate::policy) fn queue() -> (Observer, Jobs) {
    let (sender, receiver) = mpsc::channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    (Observer { sender, waiting: Arc::clone(&waiting) }, Jobs { receiver, waiting })
}

impl Observer {
    /// Whether an observation of so many decisions would fit: asked before one is made.
    pub(in crate::policy) fn has_room(&self, decisions: usize) -> bool {
        self.waiting.load(Ordering::Relaxed).saturating_add(decisions) < QUEUE_DECISIONS_MAX
    }

    /// Hands it over. It is lost when the host is ending.
    pub(in crate::policy) fn send(&self, job: Job) {
        self.waiting.fetch_add(job.weight(), Ordering::Relaxed);
        let _ = self.sender.send(job);
    }
}

impl Jobs {
    /// The next one; `None` when the host has ended.
    pub(in crate::policy) fn next(&self) -> Option<Job> {
        let job = self.receiver.recv().ok()?;
        self.waiting.fetch_sub(job.weight(), Ordering::Relaxed);
        Some(job)
    }
}
