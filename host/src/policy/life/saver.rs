//! Writes down the active set after it has changed by itself: on a thread of its own, until it succeeds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;

use crate::policy::{LoadError, Policies};

/// Pause after a write that failed.
const RETRY: Duration = Duration::from_secs(1);

/// The sending side.
pub(in crate::policy) struct Saver {
    sender: mpsc::Sender<(&'static str, String)>,
    waiting: Arc<AtomicUsize>,
}

/// The receiving side, for its thread.
pub(in crate::policy) struct Changes {
    receiver: mpsc::Receiver<(&'static str, String)>,
    waiting: Arc<AtomicUsize>,
}

/// A queue. Changes by itself are few: each ends a module's service.
pub(in crate::policy) fn queue() -> (Saver, Changes) {
    let (sender, receiver) = mpsc::channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    (Saver { sender, waiting: Arc::clone(&waiting) }, Changes { receiver, waiting })
}

impl Saver {
    /// Asks for it: what has changed, and which module.
    pub(in crate::policy) fn send(&self, what: &'static str, module: String) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _ = self.sender.send((what, module));
    }

    /// Whether something is not written down yet.
    pub(in crate::policy) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// Starts the thread. It ends with the policies.
pub(in crate::policy) fn start(policies: Weak<Policies>, changes: Changes) -> Result<(), LoadError> {
    let work = move || {
        while let Ok((what, module)) = changes.receiver.recv() {
            loop {
                let Some(policies) = policies.upgrade() else { return };
                if policies.save_now(what, &module) {
                    break;
                }
                drop(policies);
                std::thread::sleep(RETRY);
            }
            changes.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    };
    std::thread::Builder::new()
        .name("weir-policy-save".into())
        .spawn(work)
        .map(drop)
        .map_err(|error| LoadError::Engine { reason: format!("cannot start a thread to save on: {error}") })
}
