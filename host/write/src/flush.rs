//! Flush: from the journal to SQL, exactly once.
//!
//! Uses journal, policy, store and SQL, and of `capability` what folds changes. Never imports a
//! capability, never answers a request.
//! When to flush and which entries survive is the policy's; what is safe is decided here and in SQL.
//!
//! One [`Flusher`] per kind and host. Of several hosts the one with the lease works, which only saves work: what keeps
//! two flushers apart is the compare-and-set of the checkpoint, first in each transaction.
//!
//! - `gather`: what one round takes, folded by the capability.
//! - `round`: read after the checkpoint → coalesce → one transaction → trim.
//! - `adopt`: make SQL's checkpoint and the journal's life agree before anything is flushed.
//! - `hole`: entries that the journal has lost: said, recorded, left behind.
//! - `aside`: targets whose rows another session has locked wait by themselves.
//! - `batch_size`: the adaptive batch size.
//! - `backoff`: pauses between attempts.

mod adopt;
mod aside;
mod backoff;
mod batch_size;
mod gather;
mod hole;
mod round;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::capability::Fold;
use aside::SetAside;
use backoff::Backoff;
use batch_size::BatchSize;
use weir_cache::InvalidationLog;
use weir_core::clock::Clock;
use weir_core::config::{FlushConfig, JournalConfig, KindTable};
use weir_core::journal::{Hole, JournalWatch};
use weir_core::model::{Backlog, Checkpoint, Partition};
use weir_core::{operators, telemetry};
use weir_policy::Rules;
use weir_sql::{JournalHole, Sink, SqlError};
use weir_store::{Head, Journal, StoreError};

/// What a flusher is made of.
pub struct FlushParts {
    /// The kind.
    pub kind: String,
    /// The user's tables.
    pub table: KindTable,
    /// Makes an empty fold for these tables: what the kind's capability makes of changes.
    pub fold: fn(&KindTable) -> Box<dyn Fold>,
    /// The host's bounds.
    pub config: FlushConfig,
    /// Name of this host in leases.
    pub owner: String,
    /// When to flush, and which entries survive.
    pub policies: Arc<Rules>,
    /// The journal.
    pub store: Arc<dyn Journal>,
    /// The truth.
    pub sql: Arc<dyn Sink>,
    /// Bounds of the journal: a full one is flushed whatever the policy plans.
    pub journal: JournalConfig,
    /// Shared with the capability.
    pub watch: Arc<JournalWatch>,
    /// Receives the tables that have changed.
    pub invalidations: Arc<InvalidationLog>,
    /// The time.
    pub clock: Clock,
    /// Becomes `true` when SQL's schema is known to fit; until then nothing is flushed.
    pub schema_ready: watch::Receiver<bool>,
}

/// What an operator sees of a flusher.
#[derive(Debug, Clone, Default)]
pub struct FlushStatus {
    /// The kind.
    pub kind: String,
    /// Changes in the journal that SQL has not committed.
    pub backlog_entries: u64,
    /// Targets that these change.
    pub backlog_targets: u64,
    /// Their size, in bytes.
    pub backlog_bytes: u64,
    /// Age of the oldest, in milliseconds.
    pub oldest_age_ms: u64,
    /// Whether this host holds the lease.
    pub lease: bool,
    /// The adaptive batch, in changes.
    pub batch_changes: usize,
    /// Checkpoints that this host works from.
    pub checkpoints: Vec<operators::CheckpointRow>,
    /// Why the last attempt failed; `None` after a success.
    pub last_error: Option<String>,
    /// Whether that needs an operator: schema, grants, damaged data.
    pub stuck: bool,
    /// Whether the host flushes by `flush.age_ms_max` because the rules have planned none for so long.
    pub overdue: bool,
    /// Whether the flusher has ended, which it does only when the host stops.
    pub ended: bool,
    /// What waits because another session has locked rows; everything else goes on.
    pub set_aside: Vec<operators::SetAside>,
    /// When the last flush was committed, in Unix milliseconds.
    pub flushed_at_ms: Option<u64>,
    /// Unacknowledged holes in its journal, as far as this host knows; number 0 where SQL has not recorded one
    /// yet.
    pub holes: Vec<JournalHole>,
}

/// Why a flush did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlushError {
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// See [`SqlError`].
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// Not everything was committed in time; the rest stays in the journal.
    #[error("not everything was committed in time; the rest stays in the journal")]
    DeadlineExceeded,
    /// The schema has not been checked yet, because SQL does not answer.
    #[error("SQL has not answered yet: the schema is not checked")]
    SchemaUnchecked,
    /// The flusher has stopped.
    #[error("the flusher has stopped")]
    Stopped,
}

impl FlushError {
    /// The value of the metric's label `cause`.
    fn cause(&self) -> &'static str {
        match self {
            Self::Store(_) => "store",
            Self::Sql(SqlError::Fenced) => "fenced",
            Self::Sql(SqlError::Transient(_)) | Self::SchemaUnchecked | Self::DeadlineExceeded | Self::Stopped => {
                "transient"
            }
            Self::Sql(SqlError::ReadOnly(_)) => "read-only",
            Self::Sql(SqlError::Locked(_)) => "locked",
            Self::Sql(SqlError::OutcomeUnknown(_)) => "unknown",
            Self::Sql(SqlError::Permanent(_)) => "permanent",
        }
    }

    /// Whether it lasts until an operator does something.
    fn needs_operator(&self) -> bool {
        matches!(
            self,
            Self::Sql(SqlError::Permanent(_)) | Self::Store(StoreError::Damaged(_) | StoreError::Misconfigured(_))
        )
    }
}

/// Pause before a journal is looked at again that gave nothing although something waits, in milliseconds.
const POLL_MS: u64 = 50;
/// What is appended wakes the flusher at most once in this time, in milliseconds: under load something always is.
const WAKE_GAP_MS: u64 = 5;
/// Failures of SQL in a row after which a host gives the lease back.
const SQL_FAILURES_MAX: u32 = 3;

/// What a flusher is asked from outside.
enum Command {
    /// Flush all that waits now, whatever the policy plans.
    FlushNow(oneshot::Sender<Result<u64, FlushError>>, Instant),
    /// Flush all that waits, until the deadline at most, then stop.
    Drain(Instant, oneshot::Sender<()>),
}

/// A running flusher. Dropping it does not stop it; [`Flusher::stop`] and [`Flusher::abort`] do.
pub struct Flusher {
    commands: mpsc::Sender<Command>,
    status: Arc<Mutex<FlushStatus>>,
    task: JoinHandle<()>,
    watch: Arc<JournalWatch>,
    clock: Clock,
}

impl Flusher {
    /// Starts on the current runtime.
    pub fn start(parts: FlushParts) -> Self {
        let (commands, inbox) = mpsc::channel(16);
        let status = Arc::new(Mutex::new(FlushStatus { kind: parts.kind.clone(), ..FlushStatus::default() }));
        let (watch, clock) = (Arc::clone(&parts.watch), parts.clock.clone());
        let task = tokio::spawn(Worker::new(parts, Arc::clone(&status)).run(inbox));
        Self { commands, status, task, watch, clock }
    }

    /// Flushes everything that waits now, whatever the policy plans, and returns how many changes that were when they are
    /// committed. When another host holds the lease, waits for that host, or until its lease has run out.
    ///
    /// # Errors
    /// Why one round failed, or that the time is over; what was committed before stays.
    pub async fn flush_now(&self, time: Duration) -> Result<u64, FlushError> {
        let (answer, result) = oneshot::channel();
        let command = Command::FlushNow(answer, Instant::now() + time);
        self.commands.send(command).await.map_err(|_| FlushError::Stopped)?;
        result.await.map_err(|_| FlushError::Stopped)?
    }

    /// Flushes what waits, within `grace`, gives the lease back and stops. What is left stays in the journal.
    pub async fn stop(&self, grace: Duration) {
        let (stopped, ended) = oneshot::channel();
        // A transaction under way is awaited even beyond the grace: its outcome is SQL's to decide.
        if self.commands.send(Command::Drain(Instant::now() + grace, stopped)).await.is_ok() {
            let _ = ended.await;
        }
    }

    /// Ends at once, as a crash would; a transaction under way still comes to its end.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// What an operator sees.
    pub fn status(&self) -> FlushStatus {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let backlog = self.watch.backlog();
        status.ended = self.task.is_finished();
        status.backlog_entries = backlog.entries;
        status.backlog_targets = backlog.targets;
        status.backlog_bytes = backlog.bytes;
        status.oldest_age_ms = backlog.oldest_age_ms(self.clock.now_ms());
        status
    }
}

/// What a flusher does after a turn.
struct Next {
    /// When to look again.
    pause: Duration,
    /// Whether new changes wake it before.
    wake: bool,
}

/// The task of one flusher.
struct Worker {
    parts: FlushParts,
    partitions: Vec<Partition>,
    status: Arc<Mutex<FlushStatus>>,
    /// Checkpoints of the partitions, while this host owns them; empty when it does not.
    owned: BTreeMap<Partition, Checkpoint>,
    /// What waits for a lock, of the partitions that are owned.
    asides: BTreeMap<Partition, SetAside>,
    /// Who held locks that were waited for, when that was last asked.
    held_by: Vec<String>,
    /// Partitions that could not be read when they were tried last, while others could.
    passed_over: BTreeSet<Partition>,
    /// Holes that SQL has not recorded yet.
    found: BTreeMap<Partition, Hole>,
    /// Unacknowledged holes, as SQL last reported them.
    open: Vec<JournalHole>,
    /// Partitions whose state holds what a hole left behind.
    to_sweep: BTreeSet<Partition>,
    sweeping: Option<JoinHandle<()>>,
    lease_until: Option<Instant>,
    batch: BatchSize,
    backoff: Backoff,
    /// Failures of SQL in a row.
    sql_failures: u32,
    /// Since when the policy does not flush what is older than the host allows; until it plans a flush again.
    overdue_since: Option<Instant>,
    /// The partition that the next round begins with, so that none waits for ever.
    turn: usize,
}

impl Worker {
    fn new(parts: FlushParts, status: Arc<Mutex<FlushStatus>>) -> Self {
        Self {
            partitions: (0..parts.store.partitions()).collect(),
            batch: BatchSize::new(&parts.config),
            backoff: Backoff::new(&parts.config),
            sql_failures: 0,
            overdue_since: None,
            parts,
            status,
            owned: BTreeMap::new(),
            asides: BTreeMap::new(),
            held_by: Vec::new(),
            passed_over: BTreeSet::new(),
            found: BTreeMap::new(),
            open: Vec::new(),
            to_sweep: BTreeSet::new(),
            sweeping: None,
            lease_until: None,
            turn: 0,
        }
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut look_at = Instant::now();
        let mut wakeful = false;
        loop {
            let mut poll = false;
            let rested_at = Instant::now() + Duration::from_millis(WAKE_GAP_MS);
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(Command::FlushNow(answer, deadline)) => {
                        let result = self.flush_all(deadline).await;
                        let _ = answer.send(result);
                    }
                    Some(Command::Drain(deadline, stopped)) => {
                        self.drain(deadline).await;
                        let _ = stopped.send(());
                        return;
                    }
                    None => return self.release().await,
                },
                () = appended(&self.parts.watch, rested_at), if wakeful => {}
                () = tokio::time::sleep_until(look_at) => poll = true,
            }
            match self.turn(poll).await {
                Ok(Next { pause, wake }) => {
                    self.recovered();
                    let next = Instant::now() + pause;
                    look_at = if poll { next } else { look_at.min(next) };
                    wakeful = wake;
                }
                // After a failure new changes do not wake it: backing off is the point.
                Err(error) => {
                    (look_at, wakeful) = (Instant::now() + self.failed(&error), false);
                    if self.sql_failures >= SQL_FAILURES_MAX {
                        self.give_way().await;
                    }
                }
            }
        }
    }

    /// One look at the backlog, and one round if the policy wants it now. What this host appends it knows without asking
    /// the store; `poll` asks, for what other hosts appended.
    async fn turn(&mut self, poll: bool) -> Result<Next, FlushError> {
        if poll {
            self.poll().await?;
        }
        let lease_third = Duration::from_millis(self.parts.config.lease_ms / 3);
        let held = self.hold_lease().await?;
        self.report();
        self.sweep_lost();
        if !held {
            return Ok(Next { pause: lease_third, wake: false });
        }
        let (watch, kind) = (&self.parts.watch, &self.parts.kind);
        let backlog = watch.backlog();
        let plan = self.parts.policies.plan_flush(kind, self.parts.clock.now_ms(), &backlog).await;
        let wanted = watch.take_flush_wanted() || plan.flush_now || watch.is_full(&self.parts.journal);
        let overdue = self.is_overdue(&backlog, plan.flush_now);
        if (wanted || overdue) && backlog.entries > 0 {
            // A rule that would never flush does not say how much either.
            let changes_max = if overdue { usize::MAX } else { plan.changes_max as usize };
            let taken = self.round(changes_max).await?;
            // Commands come between rounds; the next turn polls what is left.
            let pause = if taken == 0 { Duration::from_millis(POLL_MS) } else { Duration::ZERO };
            return Ok(Next { pause, wake: true });
        }
        let look_again_ms = u64::from(plan.look_again_ms).clamp(1, self.parts.config.look_again_ms_max);
        // The lease is renewed at a third of its time.
        Ok(Next { pause: Duration::from_millis(look_again_ms).min(lease_third), wake: true })
    }

    /// Whether the oldest change waits for longer than the host allows, and the policy does not want to flush. Said once for
    /// each time that it begins.
    fn is_overdue(&mut self, backlog: &Backlog, planned: bool) -> bool {
        let age_ms = backlog.oldest_age_ms(self.parts.clock.now_ms());
        let overdue = !planned && backlog.entries > 0 && age_ms >= self.parts.config.age_ms_max;
        if overdue {
            let kind = &self.parts.kind;
            counter!(telemetry::FLUSH_OVERDUE_TOTAL, "kind" => kind.clone()).increment(1);
            if self.overdue_since.is_none() {
                let age_ms_max = self.parts.config.age_ms_max;
                tracing::warn!(
                    kind,
                    age_ms,
                    age_ms_max,
                    waiting = backlog.entries,
                    "the rules do not flush what waits: flush.age_ms_max is over, so the host does; look at flush.plan of the \
                     module that serves"
                );
            }
            self.overdue_since.get_or_insert_with(Instant::now);
        } else if planned {
            self.overdue_since = None;
        }
        overdue
    }

    /// Learns the heads. A journal that says less than this host committed has lost entries: all is adopted anew.
    async fn poll(&mut self) -> Result<(), FlushError> {
        let heads = self.heads().await?;
        let lost = |head: &Head| {
            let owned = self.owned.get(&head.partition);
            owned.is_some_and(|row| row.incarnation == head.incarnation && head.flushed < row.position)
        };
        if heads.iter().any(lost) {
            self.owned.clear();
        }
        self.parts.watch.replace(&heads);
        if !self.open.is_empty() {
            // Somebody may have acknowledged them.
            self.learn_holes().await;
        }
        Ok(())
    }

    /// Rounds until everything that waits now is committed, by this host or by another that holds the lease. How many
    /// changes that were.
    async fn flush_all(&mut self, deadline: Instant) -> Result<u64, FlushError> {
        let goal = self.parts.store.heads(&self.parts.kind, &self.partitions).await?;
        let waiting = goal.iter().map(|head| head.backlog.entries).sum();
        loop {
            self.poll().await?;
            let heads = self.parts.watch.heads();
            let reached = |(head, goal): (&Option<Head>, &Head)| {
                head.is_some_and(|head| {
                    head.backlog.entries == 0 || head.incarnation == goal.incarnation && head.flushed >= goal.last
                })
            };
            if heads.iter().zip(&goal).all(reached) {
                return Ok(waiting);
            }
            if Instant::now() >= deadline {
                return Err(FlushError::DeadlineExceeded);
            }
            let taken = if self.hold_lease().await? { self.round(usize::MAX).await? } else { 0 };
            if taken == 0 {
                tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
            }
        }
    }

    async fn drain(mut self, deadline: Instant) {
        while let Err(error) = self.flush_all(deadline).await {
            let pause = self.failed(&error);
            if Instant::now() + pause >= deadline {
                break;
            }
            tokio::time::sleep(pause).await;
        }
        let left = self.parts.watch.backlog().entries;
        if left > 0 {
            tracing::warn!(
                kind = self.parts.kind,
                left,
                "stopping with changes in the journal; the next start flushes them"
            );
        }
        self.release().await;
    }

    /// Takes or keeps the lease, and owns all partitions afterwards. `false` when another host has it.
    async fn hold_lease(&mut self) -> Result<bool, FlushError> {
        if !*self.parts.schema_ready.borrow() {
            return Err(FlushError::SchemaUnchecked);
        }
        let lease_ms = self.parts.config.lease_ms;
        let now = Instant::now();
        let fresh_enough = Duration::from_millis(lease_ms - lease_ms / 3);
        if self.lease_until.is_none_or(|until| until < now + fresh_enough) {
            // Before the lease: one that somebody else's flusher holds says nothing.
            self.parts.store.check_binding().await?;
            let held = self.parts.store.lease(&self.parts.kind, &self.parts.owner, lease_ms).await?;
            self.lease_until = held.then(|| now + Duration::from_millis(lease_ms));
            gauge!(telemetry::FLUSH_LEASE, "kind" => self.parts.kind.clone()).set(if held { 1.0 } else { 0.0 });
            if !held {
                self.owned.clear();
                return Ok(false);
            }
        }
        if self.owned.len() < self.partitions.len() {
            self.take_over().await?;
        }
        Ok(true)
    }

    /// The heads of the partitions that can be reached. Where the store is several servers a lost one keeps back its own
    /// partitions only.
    async fn heads(&self) -> Result<Vec<Head>, FlushError> {
        let (store, kind) = (&self.parts.store, &self.parts.kind);
        let error = match store.heads(kind, &self.partitions).await {
            Ok(heads) => return Ok(heads),
            Err(error) if self.is_one_step() => return Err(error.into()),
            Err(error) => error,
        };
        let each = self.partitions.iter().map(|partition| store.heads(kind, std::slice::from_ref(partition)));
        let each = futures_util::future::join_all(each).await;
        let reached: Vec<Head> = each.into_iter().flatten().flatten().collect();
        if reached.is_empty() { Err(error.into()) } else { Ok(reached) }
    }

    /// Whether all partitions are reached together or not at all.
    fn is_one_step(&self) -> bool {
        let first = self.partitions.first().map(|&partition| self.parts.store.step_of(partition));
        self.partitions.iter().all(|&partition| Some(self.parts.store.step_of(partition)) == first)
    }

    async fn release(self) {
        if self.lease_until.is_some() {
            let _ = self.parts.store.release(&self.parts.kind, &self.parts.owner).await;
        }
    }

    /// A turn went well: whatever failed before is over.
    fn recovered(&mut self) {
        self.backoff.reset();
        self.sql_failures = 0;
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if status.last_error.take().is_some() {
            tracing::info!(kind = self.parts.kind, "flushing works again");
        }
        status.stuck = false;
    }

    /// Gives the lease back, so that a host whose way to SQL is better may try.
    async fn give_way(&mut self) {
        self.sql_failures = 0;
        if self.lease_until.take().is_some() {
            let _ = self.parts.store.release(&self.parts.kind, &self.parts.owner).await;
        }
    }

    /// Notes a failure; returns how long to wait before the next attempt.
    fn failed(&mut self, error: &FlushError) -> Duration {
        counter!(telemetry::FLUSH_FAILURES_TOTAL, "kind" => self.parts.kind.clone(), "cause" => error.cause())
            .increment(1);
        // What is owned is learned anew: somebody else may have moved it meanwhile.
        self.owned.clear();
        match error {
            FlushError::Sql(SqlError::Fenced) => self.lease_until = None,
            // SQL answers: another host would meet the same lock.
            FlushError::Sql(SqlError::Locked(_)) => {}
            FlushError::Sql(_) => self.sql_failures += 1,
            _ => {}
        }
        {
            let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
            let text = error.to_string();
            if status.last_error.as_ref() != Some(&text) {
                let held_by = matches!(error, FlushError::Sql(SqlError::Locked(_))).then(|| self.held_by.join("; "));
                tracing::error!(kind = self.parts.kind, %error, held_by, "flush failed; the changes stay in the journal");
            }
            status.last_error = Some(text);
            status.stuck = error.needs_operator();
        }
        self.report();
        self.backoff.next()
    }

    fn report(&self) {
        let kind = &self.parts.kind;
        let backlog: Backlog = self.parts.watch.backlog();
        gauge!(telemetry::BACKLOG_ENTRIES, "kind" => kind.clone()).set(backlog.entries as f64);
        gauge!(telemetry::BACKLOG_BYTES, "kind" => kind.clone()).set(backlog.bytes as f64);
        let age_ms = backlog.oldest_age_ms(self.parts.clock.now_ms());
        gauge!(telemetry::BACKLOG_OLDEST_SECONDS, "kind" => kind.clone()).set(age_ms as f64 / 1_000.0);
        gauge!(telemetry::FLUSH_BATCH_CHANGES, "kind" => kind.clone()).set(self.batch.changes() as f64);
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.lease = self.lease_until.is_some();
        status.batch_changes = self.batch.changes();
        status.overdue = self.overdue_since.is_some();
        status.checkpoints = self.owned.values().map(checkpoint_row).collect();
    }
}

fn checkpoint_row(row: &Checkpoint) -> operators::CheckpointRow {
    operators::CheckpointRow {
        partition: row.partition,
        incarnation: row.incarnation.to_string(),
        epoch: row.epoch,
        position: row.position,
    }
}

/// Waits until something was appended, but not before `rested_at`.
async fn appended(watch: &JournalWatch, rested_at: Instant) {
    tokio::time::sleep_until(rested_at).await;
    watch.appended().await;
}
