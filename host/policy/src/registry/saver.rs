//! What has changed by itself and is to be written down: a queue for the thread of `change`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

/// The sending side.
pub(crate) struct Saver {
    sender: mpsc::Sender<(&'static str, String)>,
    waiting: Arc<AtomicUsize>,
}

/// The receiving side, for its thread.
pub(crate) struct Changes {
    receiver: mpsc::Receiver<(&'static str, String)>,
    waiting: Arc<AtomicUsize>,
}

/// A queue. Changes by itself are few: each ends a module's service.
pub(crate) fn queue() -> (Saver, Changes) {
    let (sender, receiver) = mpsc::channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    (Saver { sender, waiting: Arc::clone(&waiting) }, Changes { receiver, waiting })
}

impl Saver {
    /// Asks for it: what has changed, and which module.
    pub(super) fn send(&self, what: &'static str, module: String) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _ = self.sender.send((what, module));
    }

    /// Whether something is not written down yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

impl Changes {
    /// The next one, which changed what and which module; `None` when the host has ended.
    pub(super) fn next(&self) -> Option<(&'static str, String)> {
        self.receiver.recv().ok()
    }

    /// It is written down.
    pub(super) fn done(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
