//! Entries that a journal has lost: said loudly, recorded, and left behind, so that what follows them reaches SQL.
//!
//! In this order, each step safe to repeat after a crash:
//!
//! 1. It is said: log, metric, status. SQL may be away, and then nothing else happens until it is back.
//! 2. One transaction moves the checkpoint behind the hole and into another life, and records what was lost. So a hole is
//!    recorded once, whichever host finds it; no host commits in the old life any more; and what was lost is never
//!    applied later, even if somebody puts it back.
//! 3. The store follows (as it does whenever SQL's checkpoint is of a later life): what lies below the checkpoint is
//!    trimmed, and a new life begins, so that all state of the partition is read from SQL again.
//!
//! Writes are taken all the while. Until an operator acknowledges it, the host is not ready.

use std::sync::{Arc, PoisonError};

use metrics::{counter, gauge};

use super::{FlushError, Worker};
use weir_core::journal::Hole;
use weir_core::model::{Checkpoint, Incarnation, Partition};
use weir_core::telemetry;
use weir_sql::{JournalHole, Passed};
use weir_store::Head;

/// Targets that are named with a hole at most.
const TARGETS_NAMED_MAX: usize = 100;
/// Open holes of a kind that are shown at most.
const HOLES_SHOWN_MAX: usize = 100;

impl Worker {
    /// Nothing follows `row` in its journal but a hole.
    pub(super) async fn pass_hole(&mut self, head: Head, row: Checkpoint, hole: Hole) -> Result<(), FlushError> {
        let (kind, store) = (self.parts.kind.clone(), Arc::clone(&self.parts.store));
        // Below the floor the state knows nothing: an earlier hole has seen to that.
        let targets = match head.floor >= hole.last {
            true => Vec::new(),
            false => store.lost_targets(&kind, head.partition, &hole, TARGETS_NAMED_MAX).await?,
        };
        self.say(&head, &hole, &targets);
        let life = Incarnation::after(head.incarnation);
        let passed = Passed { from: &row, life, hole: &hole, targets: &targets };
        let row = self.parts.sql.pass_hole(&kind, passed, self.parts.clock.now_ms()).await?;
        self.found.remove(&head.partition);
        counter!(telemetry::JOURNAL_LOST_CHANGES_TOTAL, "kind" => kind.clone())
            .increment(hole.amount.unwrap_or(hole.changes));
        let head = store.follow(&kind, &head, &row, Some(hole.mark())).await?;
        self.adopt_life(head).await?;
        self.parts.watch.replace(&[head]);
        self.to_sweep.insert(head.partition);
        self.learn_holes().await;
        Ok(())
    }

    /// Once for each hole, however often it is met before SQL has taken note of it.
    fn say(&mut self, head: &Head, hole: &Hole, targets: &[String]) {
        if self.found.insert(head.partition, *hole) == Some(*hole) {
            return;
        }
        tracing::error!(
            kind = self.parts.kind, partition = head.partition, incarnation = %head.incarnation,
            after = hole.after, last = hole.last, next = hole.next, changes = hole.changes, amount = hole.amount, exact = hole.is_exact,
            targets = targets.join(" "),
            "the journal has lost accepted changes that were not yet in SQL; what follows is flushed, the state is read from \
             SQL again (see `weir journal holes`; `weir journal acknowledge {}` makes the host ready again)", self.parts.kind
        );
        self.report_holes();
    }

    /// Entries follow the checkpoint: what was missing there is back, before SQL has taken note of it.
    pub(super) fn is_whole_again(&mut self, partition: Partition) {
        if self.found.remove(&partition).is_some() {
            tracing::warn!(kind = self.parts.kind, partition, "what the journal had lost is there again");
            self.report_holes();
        }
    }

    /// Reads the recorded, unacknowledged holes from SQL. If SQL does not answer, keeps the known ones.
    pub(super) async fn learn_holes(&mut self) {
        let open = self.parts.sql.journal_holes(Some(&self.parts.kind), true, HOLES_SHOWN_MAX).await;
        if let Ok(open) = open {
            self.open = open;
            self.report_holes();
        }
    }

    fn report_holes(&self) {
        let count = self.found.len() + self.open.len();
        gauge!(telemetry::JOURNAL_HOLES, "kind" => self.parts.kind.clone()).set(count as f64);
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.holes = self.open.clone();
        status.holes.extend(self.found.iter().map(|(&partition, hole)| JournalHole {
            id: 0,
            kind: self.parts.kind.clone(),
            partition,
            incarnation: String::new(),
            after: hole.after,
            last: hole.last,
            next: hole.next,
            changes: hole.changes,
            amount: hole.amount,
            is_exact: hole.is_exact,
            targets: Vec::new(),
            found_at_ms: self.parts.clock.now_ms(),
            acknowledged_at_ms: None,
        }));
    }

    /// Forgets what holes left behind in the state, beside everything else. Partitions with open holes are swept once more by
    /// the host that takes over: the one before may have died meanwhile.
    pub(super) fn sweep_lost(&mut self) {
        if self.to_sweep.is_empty() || self.sweeping.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let partitions: Vec<_> = std::mem::take(&mut self.to_sweep).into_iter().collect();
        let (kind, store) = (self.parts.kind.clone(), Arc::clone(&self.parts.store));
        self.sweeping = Some(tokio::spawn(async move {
            if let Err(error) = store.forget_lost(&kind, &partitions).await {
                tracing::warn!(kind, %error, "what a hole in the journal left behind was not all forgotten");
            }
        }));
    }
}
