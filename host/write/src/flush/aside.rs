//! Targets whose rows another session has locked: everything else goes on, their changes stay in the journal.
//!
//! A flush waits for a lock no longer than `sql.lock_timeout_ms`. Then it is done once more, and whatever is locked is set
//! aside (see `sql/aside.rs`): the checkpoint of its partition stays before its first change, nothing behind is trimmed,
//! and SQL knows how far the others have got. Later rounds read from there on, and pass its changes over. Now and then the
//! journal is read from the checkpoint again, for the changes of those that wait alone; when they are stored, in their order,
//! the checkpoint moves to where the others are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::gather::Gathered;
use super::{FlushError, Worker};
use weir_core::journal::Hole;
use weir_core::model::{Aside, Backlog, Checkpoint, Partition, Position};
use weir_core::{operators, telemetry};
use weir_sql::{Applied, Around, Fence, Row, SqlError};
use weir_store::{Head, JournalRead};

/// Changes that are read from a journal at once.
const READ_CHANGES_MAX: usize = 10_000;
/// Time to learn who holds a lock.
const HOLDERS_LIMIT: Duration = Duration::from_secs(1);
/// Locked rows that one flush logs by name.
const LOGGED_MAX: usize = 5;

/// What waits of one partition.
pub(super) struct SetAside {
    pub(super) aside: Aside,
    /// Canonical texts of targets of which a row went to the dead letters beyond the checkpoint: the store forgets them when it
    /// moves.
    invalid: BTreeSet<String>,
    retry_at: Instant,
    backoff: Backoff,
}

/// What was read of a partition for those that wait.
struct Waited {
    gathered: Gathered,
    /// Everything up to here is stored already.
    stored: Position,
}

impl Worker {
    /// What waits of a partition, if it speaks of this checkpoint.
    pub(super) fn aside_of(&self, checkpoint: &Checkpoint) -> Option<&Aside> {
        let set_aside = self.asides.get(&checkpoint.partition)?;
        Some(&set_aside.aside).filter(|aside| aside.is_of(checkpoint))
    }

    /// Learns from SQL what was set aside, by whomever: called by a new owner.
    pub(super) async fn load_asides(&mut self) -> Result<(), FlushError> {
        let mut asides = BTreeMap::new();
        for aside in self.parts.sql.asides(&self.parts.kind).await? {
            let Some(row) = self.owned.get(&aside.partition).copied().filter(|row| aside.is_of(row)) else { continue };
            let invalid = self.dead_targets(aside.partition, &row, row.position).await?;
            asides.insert(aside.partition, self.begin_waiting(aside, invalid));
        }
        self.asides = asides;
        self.report_asides();
        Ok(())
    }

    fn begin_waiting(&self, aside: Aside, invalid: BTreeSet<String>) -> SetAside {
        let mut backoff = Backoff::new(&self.parts.config);
        SetAside { aside, invalid, retry_at: Instant::now() + backoff.next(), backoff }
    }

    /// The transaction; where rows are locked once more, around them.
    pub(super) async fn apply(
        &mut self,
        fences: &[Fence],
        rows: &Arc<Vec<Row>>,
        asides: Vec<Aside>,
    ) -> Result<Applied, FlushError> {
        let around = Around { asides, set_aside: false };
        match self.apply_once(fences, rows, around.clone()).await {
            Err(FlushError::Sql(SqlError::Locked(reason))) if self.parts.sql.locks_rows() => {
                let kind = &self.parts.kind;
                counter!(telemetry::FLUSH_LOCK_TIMEOUTS_TOTAL, "kind" => kind.clone()).increment(1);
                tracing::debug!(kind, reason, "a flush met a lock; it is done again around what is locked");
                self.apply_once(fences, rows, Around { set_aside: true, ..around }).await
            }
            other => other,
        }
    }

    /// On a task of its own: a cancelled flusher must not leave a connection in mid-transaction. Who holds a lock is known
    /// only while somebody waits for it, so it is asked when half of the time is over.
    async fn apply_once(
        &mut self,
        fences: &[Fence],
        rows: &Arc<Vec<Row>>,
        around: Around,
    ) -> Result<Applied, FlushError> {
        let (sql, kind, table) = (Arc::clone(&self.parts.sql), self.parts.kind.clone(), self.parts.table.clone());
        let (fences, rows, now_ms) = (fences.to_vec(), Arc::clone(rows), self.parts.clock.now_ms());
        let mut task =
            tokio::spawn(async move { sql.apply_around(&kind, &table, &fences, &rows, &around, now_ms).await });
        let half = self.parts.sql.lock_timeout() / 2;
        let ended = match tokio::time::timeout(half, &mut task).await {
            Ok(ended) => ended,
            Err(_) => {
                self.ask_holders().await;
                task.await
            }
        };
        match ended {
            Ok(result) => Ok(result?),
            Err(error) => Err(SqlError::OutcomeUnknown(format!("the flush task ended: {error}")).into()),
        }
    }

    async fn ask_holders(&mut self) {
        self.held_by = match tokio::time::timeout(HOLDERS_LIMIT, self.parts.sql.lock_holders()).await {
            Ok(Ok(holders)) => holders,
            Ok(Err(error)) => vec![format!("not known: {error}; GRANT PROCESS, or pg_read_all_stats, to weir's user")],
            Err(_) => vec!["not known: SQL did not tell in time".into()],
        };
    }

    /// Takes what a committed flush of these partitions left waiting; how far each checkpoint has moved.
    pub(super) fn settle(&mut self, fences: &[Fence], applied: &Applied, rows: &[Row]) -> Vec<(Fence, Position)> {
        self.log_waiting(applied, rows);
        let mut reached = Vec::with_capacity(fences.len());
        for fence in fences {
            let partition = fence.from.partition;
            let aside = applied.asides.iter().find(|aside| aside.partition == partition);
            let position = aside.map_or(fence.to, |aside| aside.position);
            if let Some(checkpoint) = self.owned.get_mut(&partition) {
                checkpoint.position = position;
            }
            reached.push((*fence, position));
            let Some(aside) = aside else { continue };
            let dead = applied.dead.iter().filter_map(|(index, _)| rows.get(*index));
            let dead = dead.filter(|row| row.origin().partition == partition && row.has_state());
            let dead: BTreeSet<String> = dead.map(|row| row.target().to_string()).collect();
            match self.asides.get_mut(&partition) {
                Some(known) => {
                    known.aside = aside.clone();
                    known.invalid.extend(dead);
                }
                None => {
                    let waiting = self.begin_waiting(aside.clone(), dead);
                    self.asides.insert(partition, waiting);
                }
            }
        }
        self.report_asides();
        reached
    }

    fn log_waiting(&self, applied: &Applied, rows: &[Row]) {
        let tables = self.parts.table.tables().join(", ");
        for (index, reason) in applied.waiting.iter().take(LOGGED_MAX) {
            let Some(row) = rows.get(*index) else { continue };
            if self.asides.get(&row.origin().partition).is_some_and(|known| known.aside.holds(row.target())) {
                continue;
            }
            tracing::warn!(
                kind = self.parts.kind, tables, target = %row.target(), reason, held_by = self.held_by.join("; "),
                "another session has locked a row: this target waits in the journal until it is free, all others go on"
            );
        }
        if applied.waiting.len() > LOGGED_MAX {
            tracing::warn!(kind = self.parts.kind, targets = applied.waiting.len(), "more targets are locked");
        }
    }

    /// Tries to store what waits, of each partition whose time has come.
    pub(super) async fn release_due(&mut self) -> Result<(), FlushError> {
        let now = Instant::now();
        let due: Vec<Partition> =
            self.asides.iter().filter(|(_, known)| known.retry_at <= now).map(|(partition, _)| *partition).collect();
        for partition in due {
            let Some(checkpoint) = self.owned.get(&partition).copied() else { continue };
            match self.aside_of(&checkpoint).cloned() {
                Some(aside) => self.let_go(checkpoint, aside).await?,
                None => drop(self.asides.remove(&partition)),
            }
        }
        Ok(())
    }

    async fn let_go(&mut self, checkpoint: Checkpoint, aside: Aside) -> Result<(), FlushError> {
        let partition = checkpoint.partition;
        let Some(Waited { mut gathered, stored }) = self.read_waiting(checkpoint, &aside).await? else { return Ok(()) };
        let rows = Arc::new(self.rows(gathered.take_fold()).await?);
        let fences = [Fence { from: checkpoint, to: stored }];
        // Where they are all stored, the checkpoint goes to where the others are.
        let freed = Aside { position: stored, targets: BTreeSet::new(), ..aside.clone() };
        let around = Around { asides: vec![freed], set_aside: true };
        let applied = match self.apply_once(&fences, &rows, around).await {
            Err(FlushError::Sql(SqlError::Locked(_))) => {
                self.wait_longer(partition);
                return Ok(());
            }
            other => other?,
        };
        self.note_dead(&applied, &rows);
        for (fence, position) in self.settle(&fences, &applied, &rows) {
            if position > fence.from.position {
                // What is trimmed may be much, and whose it is is read once more, in parts.
                let invalid = self.asides.get(&partition).map(|known| known.invalid.clone()).unwrap_or_default();
                let Checkpoint { incarnation, position: flushed, .. } = fence.from;
                let backlog = Backlog::default();
                let head = Head { partition, incarnation, last: position, flushed, floor: 0, backlog };
                self.trim_committed(&head, position, &invalid).await?;
                self.parts.watch.commit(partition, incarnation, position);
            }
        }
        if applied.asides.iter().all(|aside| aside.targets.is_empty()) {
            self.asides.remove(&partition);
            self.report_asides();
            tracing::info!(kind = self.parts.kind, partition, "the locks are gone: what waited for them is stored");
        } else {
            self.wait_longer(partition);
        }
        Ok(())
    }

    /// The changes of those that wait, from the checkpoint to where the others are. `None` where the journal is another one
    /// than it was.
    async fn read_waiting(&mut self, checkpoint: Checkpoint, aside: &Aside) -> Result<Option<Waited>, FlushError> {
        let mut waited = Waited { gathered: self.nothing_gathered(), stored: checkpoint.position };
        let (mut after, mut met) = (checkpoint.position, false);
        loop {
            let (kind, store) = (&self.parts.kind, &self.parts.store);
            let read =
                store.read_journal(kind, checkpoint.partition, checkpoint.incarnation, after, READ_CHANGES_MAX).await?;
            let entries = match read {
                JournalRead::Entries(entries) => entries,
                JournalRead::OtherIncarnation(head) => return self.adopt_life(head).await.map(|()| None),
                // At the checkpoint itself: what waits is lost with it. Beyond, it shows again once that has moved.
                JournalRead::Rewound(head) if after == checkpoint.position => {
                    return self.restart_life(head, checkpoint).await.map(|()| None);
                }
                JournalRead::Hole(head, hole) if hole.after < aside.ahead => {
                    return self.give_up(head, checkpoint, aside, hole).await.map(|()| None);
                }
                JournalRead::Rewound(_) | JournalRead::Hole(..) => return Ok(Some(waited)),
            };
            let Some(newest) = entries.last().map(|entry| entry.position) else { return Ok(Some(waited)) };
            after = newest;
            for mut entry in entries {
                if entry.position > aside.ahead {
                    return Ok(Some(waited));
                }
                entry.changes.retain(|change| aside.holds(change.target()));
                met |= !entry.changes.is_empty();
                if !met {
                    waited.stored = entry.position;
                }
                waited.gathered.add(checkpoint.partition, entry)?;
            }
        }
    }

    /// The journal has lost entries of which something may have waited, and what follows them cannot be distinguished
    /// from what is stored: nothing of it is stored twice, so all that waits here is given up, recorded and said as a
    /// hole is.
    async fn give_up(
        &mut self,
        head: Head,
        checkpoint: Checkpoint,
        aside: &Aside,
        hole: Hole,
    ) -> Result<(), FlushError> {
        let hole = Hole {
            after: checkpoint.position,
            changes: head.backlog.entries.max(hole.changes),
            amount: None,
            is_exact: false,
            ..hole
        };
        let hole = match hole.end() < aside.ahead {
            true => Hole { last: aside.ahead, next: None, total: None, total_amount: None, ..hole },
            false => hole,
        };
        self.pass_hole(head, checkpoint, hole).await
    }

    fn wait_longer(&mut self, partition: Partition) {
        if let Some(known) = self.asides.get_mut(&partition) {
            known.retry_at = Instant::now() + known.backoff.next();
        }
    }

    fn report_asides(&self) {
        let targets: usize = self.asides.values().map(|known| known.aside.targets.len()).sum();
        gauge!(telemetry::FLUSH_SET_ASIDE_TARGETS, "kind" => self.parts.kind.clone()).set(targets as f64);
        let status = |known: &SetAside| operators::SetAside {
            partition: known.aside.partition,
            position: known.aside.position,
            ahead: known.aside.ahead,
            targets: known.aside.targets.iter().take(LOGGED_MAX).cloned().collect(),
            targets_count: known.aside.targets.len(),
            held_by: self.held_by.clone(),
        };
        let asides = self.asides.values().map(status).collect();
        self.status.lock().unwrap_or_else(PoisonError::into_inner).set_aside = asides;
    }
}
