//! The one thread that writes: takes all jobs that wait, runs them on one transaction, commits it with one fdatasync
//! (none where only policy modules keep something), then answers them all.
//!
//! A failed commit is fatal for the store: what reached the disk is unknown, so nothing more is written until the
//! directory has been opened anew.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use metrics::gauge;
use tokio::sync::{mpsc, watch};

use super::change::Sweeper;
use super::layout::{Spaces, failed};
use super::limits::Limits;
use super::state::State;
use super::transaction::Transaction;
use crate::store::StoreError;
use crate::telemetry::STORE_MEMORY_BYTES;

/// Jobs of one group at most.
const GROUP_JOBS_MAX: usize = 512;
/// Jobs that wait at most; beyond, callers wait to hand theirs over.
pub(super) const QUEUE_JOBS_MAX: usize = 1_024;
/// Targets in memory that one step of the sweeper looks at.
const SWEEP_TARGETS: usize = 1_024;

/// Answers the caller when the group is on the disk, or when it is not.
pub(super) type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Runs on the transaction and the state. A job that fails says so with `false`: its writes are forgotten, and it has
/// left the state as it was.
pub(super) type Job = Box<dyn FnOnce(&mut Transaction<'_>, &mut State, &mut Limits) -> (bool, Answer) + Send>;

/// How far the disk has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// The last group that is on the disk.
    pub(super) group: u64,
    /// A commit failed: no group comes after.
    pub(super) failed: bool,
}

/// What the writer works on.
pub(super) struct Writer {
    pub(super) spaces: Arc<Spaces>,
    pub(super) state: Arc<RwLock<State>>,
    pub(super) progress: watch::Sender<Progress>,
    /// The newest time that the store was told.
    pub(super) now_ms: Arc<AtomicU64>,
}

impl Writer {
    /// Runs until all senders are gone and the queue is empty.
    pub(super) fn run(&self, mut jobs: mpsc::Receiver<Job>) {
        let (mut limits, mut sweeper) = (Limits::default(), Sweeper::default());
        let memory = gauge!(STORE_MEMORY_BYTES);
        let mut poisoned: Option<StoreError> = None;
        let mut group = Vec::new();
        while let Some(first) = jobs.blocking_recv() {
            group.push(first);
            while group.len() < GROUP_JOBS_MAX
                && let Ok(job) = jobs.try_recv()
            {
                group.push(job);
            }
            if poisoned.is_none() {
                poisoned = self.run_group(&mut limits, group.drain(..)).err();
            } else {
                self.refuse(&mut limits, group.drain(..), poisoned.as_ref());
            }
            let now_ms = self.now_ms.load(Ordering::Relaxed);
            while poisoned.is_none() && sweep(&self.spaces, &mut sweeper, now_ms) && jobs.is_empty() {}
            let mut state = self.state();
            while state.sweep(now_ms, SWEEP_TARGETS) && jobs.is_empty() {}
            memory.set(state.bytes as f64);
        }
        self.spaces.sync_mark();
    }

    /// `Err` when the commit failed; the answers are given in any case.
    fn run_group(&self, limits: &mut Limits, group: impl Iterator<Item = Job>) -> Result<(), StoreError> {
        let mut transaction = Transaction::new(&self.spaces);
        let mut answers = Vec::new();
        for job in group {
            // Taken for each job: readers need not wait for the whole group.
            let (keep, answer) = job(&mut transaction, &mut self.state(), limits);
            transaction.end_job(keep);
            answers.push(answer);
        }
        let sync = transaction.holds_promises();
        let committed = if transaction.is_empty() { Ok(()) } else { transaction.commit(sync) };
        match committed {
            Ok(()) => {
                let group = {
                    let mut state = self.state();
                    state.group += 1;
                    state.group - 1
                };
                self.progress.send_replace(Progress { group, failed: false });
                answers.into_iter().for_each(|answer| answer(Ok(())));
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "a write to the embedded store failed; it takes no more writes until weir is restarted");
                self.progress.send_modify(|progress| progress.failed = true);
                // A database that an earlier background write poisoned refused before it wrote anything.
                let cause = match error {
                    fjall::Error::Poisoned => failed(error),
                    other => StoreError::OutcomeUnknown(other.to_string()),
                };
                answers.into_iter().for_each(|answer| answer(Err(cause.clone())));
                Err(failed(fjall::Error::Poisoned))
            }
        }
    }

    /// Answers without writing. The jobs run, because only they hold the way to the caller, on what is thrown away.
    fn refuse(&self, limits: &mut Limits, group: impl Iterator<Item = Job>, cause: Option<&StoreError>) {
        for job in group {
            let (_, answer) = job(&mut Transaction::new(&self.spaces), &mut State::default(), limits);
            answer(Err(cause.cloned().unwrap_or_else(|| failed(fjall::Error::Poisoned))));
        }
    }

    fn state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One step of the sweeper; whether there is more to do. Nothing depends on it being on the disk.
fn sweep(spaces: &Spaces, sweeper: &mut Sweeper, now_ms: u64) -> bool {
    let mut transaction = Transaction::new(spaces);
    let more = match sweeper.step(&mut transaction, now_ms) {
        Ok(more) => more,
        Err(error) => {
            tracing::error!(%error, "what expired in the embedded store could not be deleted");
            return false;
        }
    };
    transaction.end_job(true);
    // A failure shows at the next group's commit.
    (transaction.is_empty() || transaction.commit(false).is_ok()) && more
}
