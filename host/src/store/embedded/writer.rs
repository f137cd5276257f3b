//! The one thread that writes: takes all jobs that wait, runs them on one transaction, commits it with one fdatasync
//! (none where only policy modules keep something), then answers them all.
//!
//! A failed commit is fatal for the store: what reached the disk is unknown, so nothing more is written until the
//! directory has been opened anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::apply::Limits;
use super::change::Sweeper;
use super::layout::{Spaces, failed};
use super::transaction::Transaction;
use crate::store::StoreError;

/// Jobs of one group at most.
const GROUP_JOBS_MAX: usize = 512;
/// Jobs that wait at most; beyond, callers wait to hand theirs over.
pub(super) const QUEUE_JOBS_MAX: usize = 1_024;

/// Answers the caller when the group is on the disk, or when it is not.
pub(super) type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Runs on the transaction. A job that fails says so with `false`; its writes are forgotten.
pub(super) type Job = Box<dyn FnOnce(&mut Transaction<'_>, &mut Limits) -> (bool, Answer) + Send>;

/// Runs until all senders are gone and the queue is empty.
pub(super) fn run(spaces: &Arc<Spaces>, mut jobs: mpsc::Receiver<Job>, now_ms: &AtomicU64) {
    let (mut limits, mut sweeper) = (Limits::default(), Sweeper::default());
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
            poisoned = run_group(spaces, &mut limits, group.drain(..)).err();
        } else {
            refuse(spaces, &mut limits, group.drain(..), poisoned.as_ref());
        }
        while poisoned.is_none() && sweep(spaces, &mut sweeper, now_ms.load(Ordering::Relaxed)) && jobs.is_empty() {}
    }
}

/// `Err` when the commit failed; the answers are given in any case.
fn run_group(spaces: &Spaces, limits: &mut Limits, group: impl Iterator<Item = Job>) -> Result<(), StoreError> {
    let mut transaction = Transaction::new(spaces);
    let mut answers = Vec::new();
    for job in group {
        let (keep, answer) = job(&mut transaction, limits);
        transaction.end_job(keep);
        answers.push(answer);
    }
    let sync = transaction.holds_promises();
    let committed = if transaction.is_empty() { Ok(()) } else { transaction.commit(sync) };
    match committed {
        Ok(()) => {
            answers.into_iter().for_each(|answer| answer(Ok(())));
            Ok(())
        }
        Err(error) => {
            tracing::error!(%error, "a write to the embedded store failed; it takes no more writes until weir is restarted");
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

/// Answers without writing. The jobs run, because only they hold the way to the caller, on a transaction that is
/// thrown away.
fn refuse(spaces: &Spaces, limits: &mut Limits, group: impl Iterator<Item = Job>, cause: Option<&StoreError>) {
    for job in group {
        let (_, answer) = job(&mut Transaction::new(spaces), limits);
        answer(Err(cause.cloned().unwrap_or_else(|| failed(fjall::Error::Poisoned))));
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
