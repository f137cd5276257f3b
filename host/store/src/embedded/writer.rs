//! The single writing thread: takes all waiting jobs, runs them on one transaction, commits it with one fdatasync (none where
//! only policy modules wrote), then answers them all.
//!
//! After a failed commit it is unknown what reached the disk, and nothing in memory can be trusted: the store refuses writes
//! until the disk accepts them again. Then it closes and reopens the database, rewrites data that the disk may only seem to have,
//! and reloads all memory from there: a restart without a restart.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use metrics::gauge;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, watch};

use super::change::Sweeper;
use super::handle::{DatabaseHandle, Health, probe};
use super::layout::{Spaces, failed};
use super::limits::Limits;
use super::room::SharedRooms;
use super::state::State;
use super::transaction::Transaction;
use super::{Opened, open_all};
use crate::StoreError;
use weir_core::model::Partition;
use weir_core::telemetry::STORE_MEMORY_BYTES;

/// Most jobs of one group.
const GROUP_JOBS_MAX: usize = 512;
/// Most waiting jobs; beyond, callers wait to submit theirs.
pub(super) const QUEUE_JOBS_MAX: usize = 1_024;
/// Targets in memory that one step of the sweeper visits.
const SWEEP_TARGETS: usize = 1_024;
/// How often the writer tests whether the disk accepts writes again.
const MEND_INTERVAL: Duration = Duration::from_millis(500);
/// How often waiting jobs are refused meanwhile.
const REFUSE_INTERVAL: Duration = Duration::from_millis(10);
/// Groups of one life of the database: the next life has higher numbers.
const LIFE_BITS: u32 = 40;

/// Answers the caller once the group is on disk, or has failed.
pub(super) type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// The arguments of a job.
pub(super) struct Desk<'a, 'b> {
    pub(super) transaction: &'a mut Transaction<'b>,
    pub(super) state: &'a mut State,
    pub(super) limits: &'a mut Limits,
}
/// Runs on the transaction and the state; with `None` where it is refused. A job that fails returns `false`: its writes are
/// dropped, and it has left the state unchanged.
pub(super) type Job = Box<dyn FnOnce(Option<Desk<'_, '_>>) -> (bool, Answer) + Send>;

/// How far the disk has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    /// The last group that is on disk.
    pub(super) group: u64,
    /// A commit failed: no further group follows in this life of the database.
    pub(super) failed: bool,
    /// The last group of the life before that was on disk.
    before: u64,
}

impl Progress {
    /// Whether a group is on disk; `None` while that is undecided.
    pub(super) fn is_written(&self, group: u64) -> Option<bool> {
        let (life, of) = (self.group >> LIFE_BITS, group >> LIFE_BITS);
        if group == 0 || life == of && group <= self.group {
            Some(true)
        } else if of < life {
            Some(of + 1 == life && group <= self.before)
        } else {
            self.failed.then_some(false)
        }
    }

    /// The first progress of the next life.
    fn next_life(&self) -> Self {
        Self { group: ((self.group >> LIFE_BITS) + 1) << LIFE_BITS, failed: false, before: self.group }
    }
}

/// The state of the writer.
pub(super) struct Writer {
    pub(super) spaces: DatabaseHandle,
    pub(super) state: Arc<RwLock<State>>,
    pub(super) rooms: SharedRooms,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) health: Health,
    /// The newest time that a caller passed to the store.
    pub(super) now_ms: Arc<AtomicU64>,
    pub(super) path: PathBuf,
    pub(super) partitions: Partition,
    pub(super) memory_bytes_max: usize,
}

/// Why jobs are refused, and when to test the disk next.
struct Trouble {
    cause: StoreError,
    next_try: Instant,
}

impl Writer {
    /// Runs until all senders are gone and the queue is empty.
    pub(super) fn run(&self, mut jobs: mpsc::Receiver<Job>) {
        // The database may panic; without this thread no call would be answered, and the failure would go unnoticed.
        if std::panic::catch_unwind(AssertUnwindSafe(|| self.work(&mut jobs))).is_err() {
            self.health.refuse("the thread that writes has ended; restart weir");
            self.progress.send_modify(|progress| progress.failed = true);
        }
    }

    fn work(&self, jobs: &mut mpsc::Receiver<Job>) {
        let (mut limits, mut sweeper) = (Limits::default(), Sweeper::default());
        let memory = gauge!(STORE_MEMORY_BYTES);
        let mut trouble: Option<Trouble> = None;
        let mut group = Vec::new();
        while let Some(first) = self.next(jobs, &mut trouble, &mut sweeper) {
            group.push(first);
            while group.len() < GROUP_JOBS_MAX
                && let Ok(job) = jobs.try_recv()
            {
                group.push(job);
            }
            if let Some(Trouble { cause, .. }) = &trouble {
                group.drain(..).for_each(|job| job(None).1(Err(cause.clone())));
                continue;
            }
            if let Err(cause) = self.run_group(&mut limits, group.drain(..)) {
                trouble = Some(Trouble { cause, next_try: Instant::now() + MEND_INTERVAL });
                continue;
            }
            let now_ms = self.now_ms.load(Ordering::Relaxed);
            if let Ok(spaces) = self.spaces.get() {
                while sweep(&spaces, &mut sweeper, now_ms) && jobs.is_empty() {}
            }
            let mut state = self.state();
            while state.sweep(now_ms, SWEEP_TARGETS) && jobs.is_empty() {}
            memory.set(state.bytes as f64);
        }
        if let Ok(spaces) = self.spaces.get() {
            spaces.sync_mark();
        }
    }

    /// The next job; after a failure this also tries to recover.
    fn next(
        &self,
        jobs: &mut mpsc::Receiver<Job>,
        trouble: &mut Option<Trouble>,
        sweeper: &mut Sweeper,
    ) -> Option<Job> {
        while let Some(found) = trouble {
            if Instant::now() >= found.next_try {
                match self.mend() {
                    Ok(()) => {
                        (*trouble, *sweeper) = (None, Sweeper::default());
                        break;
                    }
                    Err(cause) => {
                        self.health.refuse(&cause.to_string());
                        *found = Trouble { cause, next_try: Instant::now() + MEND_INTERVAL };
                    }
                }
            }
            match jobs.try_recv() {
                Ok(job) => return Some(job),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => std::thread::sleep(REFUSE_INTERVAL),
            }
        }
        jobs.blocking_recv()
    }

    /// Reopens the database, and reloads everything from it.
    fn mend(&self) -> Result<(), StoreError> {
        probe(&self.path).map_err(|error| StoreError::Refused(format!("disk: {error}; tried again until it works")))?;
        self.spaces.close()?;
        let opened = open_all(&self.path, self.partitions, self.memory_bytes_max);
        let Opened { spaces, mut state, rooms } = opened.inspect_err(|error| {
            tracing::error!(%error, "the embedded store could not be opened again; tried again until it can");
        })?;
        let progress = self.progress.borrow().next_life();
        state.group = progress.group + 1;
        // The flusher may commit at any moment what it has read.
        state.note_all_read();
        // In this order: a caller that sees the recovery never sees data that was not on disk.
        *self.rooms.lock().unwrap_or_else(PoisonError::into_inner) = rooms;
        *self.state() = state;
        self.spaces.put(spaces);
        self.progress.send_replace(progress);
        let refused_ms = self.health.recover().map_or(0, |time| time.as_millis());
        tracing::warn!(refused_ms, "the embedded store takes writes again: it was opened anew and read from the disk");
        Ok(())
    }

    /// `Err` when the commit failed; the jobs are answered in any case.
    fn run_group(&self, limits: &mut Limits, group: impl Iterator<Item = Job>) -> Result<(), StoreError> {
        let spaces = self.spaces.get()?;
        let mut transaction = Transaction::new(&spaces);
        let mut answers = Vec::new();
        for job in group {
            // Locked per job, so that readers need not wait for the whole group.
            let (keep, answer) =
                job(Some(Desk { transaction: &mut transaction, state: &mut self.state(), limits: &mut *limits }));
            transaction.end_job(keep);
            answers.push(answer);
        }
        let sync = transaction.holds_promises();
        let committed = if transaction.is_empty() { spaces.check() } else { transaction.commit(sync) };
        match committed {
            Ok(()) => {
                let group = {
                    let mut state = self.state();
                    state.group += 1;
                    state.group - 1
                };
                self.progress.send_modify(|progress| progress.group = group);
                answers.into_iter().for_each(|answer| answer(Ok(())));
                Ok(())
            }
            Err(error) => {
                // A database that an earlier background write poisoned refuses before it writes anything.
                let cause = match error {
                    fjall::Error::Poisoned => failed(error),
                    fjall::Error::Io(error) => StoreError::OutcomeUnknown(format!("disk: {error}")),
                    other => StoreError::OutcomeUnknown(other.to_string()),
                };
                tracing::error!(
                    error = %cause,
                    "a write to the embedded store failed; it refuses writes until the disk takes them again"
                );
                self.health.refuse(&cause.to_string());
                self.progress.send_modify(|progress| progress.failed = true);
                answers.into_iter().for_each(|answer| answer(Err(cause.clone())));
                Err(failed(fjall::Error::Poisoned))
            }
        }
    }

    fn state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One step of the sweeper. Returns whether there is more to do. It need not reach the disk.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failure_took_is_never_told() {
        let mut progress = Progress { group: 7, ..Progress::default() };
        assert_eq!(
            (progress.is_written(0), progress.is_written(7), progress.is_written(8)),
            (Some(true), Some(true), None)
        );
        progress.failed = true;
        assert_eq!((progress.is_written(7), progress.is_written(8)), (Some(true), Some(false)));
        let mut next = progress.next_life();
        assert_eq!(
            (next.is_written(7), next.is_written(8), next.is_written(next.group + 1)),
            (Some(true), Some(false), None)
        );
        next.group += 100;
        assert_eq!((next.is_written(8), next.is_written(next.group)), (Some(false), Some(true)));
        assert_eq!(next.next_life().is_written(7), Some(false), "nobody knows any more");
    }
}
