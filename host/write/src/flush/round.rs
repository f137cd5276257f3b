//! One round: read after the checkpoint, coalesce, one transaction, trim.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use metrics::{counter, histogram};

use super::gather::Gathered;
use super::{FlushError, Worker};
use crate::capability::Fold;
use weir_cache::PurgeMode;
use weir_core::journal::Mark;
use weir_core::model::{Aside, Checkpoint, Id, Partition, Position};
use weir_core::telemetry;
use weir_sql::{Applied, Fence, Row};
use weir_store::{JournalRead, StoreError};

/// Changes that are read from a journal at once.
const READ_CHANGES_MAX: usize = 10_000;
/// Rows on their way to the dead letters that the log names at once.
const DEAD_NAMED_MAX: usize = 3;

impl Worker {
    /// Flushes at most `changes_max` changes (and at most the adaptive batch). Returns how many it took.
    pub(super) async fn round(&mut self, changes_max: usize) -> Result<usize, FlushError> {
        self.release_due().await?;
        let limit = self.batch.changes().min(changes_max.max(1));
        let mut gathered = self.gather(limit).await?;
        if gathered.fences.is_empty() {
            return Ok(0);
        }
        let rows = Arc::new(self.rows(gathered.take_fold()).await?);
        let fences: Vec<Fence> = gathered.fences.values().copied().collect();

        let started = Instant::now();
        let asides = gathered.asides.values().cloned().collect();
        let applied = match self.apply(&fences, &rows, asides).await {
            Ok(applied) => applied,
            Err(error) => {
                // A batch that is too large for a time limit or a packet would fail for ever; a smaller one passes.
                self.batch.shrink();
                return Err(error);
            }
        };
        // Reads that depend on these tables are read anew.
        let tables = self.parts.table.tables();
        let groups: Vec<String> = tables.iter().map(|table| format!("table:{}", table.to_ascii_lowercase())).collect();
        self.parts.invalidations.invalidate_groups(groups.iter().map(String::as_str), PurgeMode::Hard);
        let elapsed = started.elapsed();
        self.batch.learn(gathered.changes.min(limit), elapsed);
        self.count(gathered.changes, &applied, elapsed);

        let invalid = self.note_dead(&applied, &rows);
        let reached = self.settle(&fences, &applied, &rows);
        self.committed(&mut gathered, &reached, &invalid).await?;
        let now_ms = self.parts.clock.now_ms();
        self.status.lock().unwrap_or_else(PoisonError::into_inner).flushed_at_ms = Some(now_ms);
        Ok(gathered.changes.max(1))
    }

    /// Reads entries after the checkpoints, beginning with another partition each time.
    async fn gather(&mut self, limit: usize) -> Result<Gathered, FlushError> {
        let mut gathered = self.nothing_gathered();
        let heads = self.parts.watch.heads();
        let count = self.partitions.len();
        self.turn = (self.turn + 1) % count.max(1);
        for offset in 0..count {
            let partition = self.partitions[(self.turn + offset) % count];
            let Some(checkpoint) = self.owned.get(&partition).copied() else { continue };
            let stored = self.aside_of(&checkpoint).map_or(checkpoint.position, |aside| aside.ahead);
            let idle = matches!(heads.get(usize::from(partition)), Some(Some(head))
                if head.incarnation == checkpoint.incarnation && head.last <= stored
                    && (head.backlog.entries == 0 || stored > checkpoint.position));
            if idle {
                continue;
            }
            match self.gather_from(checkpoint, limit, &mut gathered).await {
                Ok(()) => drop(self.passed_over.remove(&partition)),
                Err(error) => self.pass_over(partition, error)?,
            }
        }
        Ok(gathered)
    }

    /// A partition that cannot be read keeps back the others only where they are lost with it.
    fn pass_over(&mut self, partition: Partition, error: FlushError) -> Result<(), FlushError> {
        match error {
            FlushError::Store(StoreError::Unavailable(reason)) if !self.is_one_step() => {
                if self.passed_over.insert(partition) {
                    tracing::warn!(kind = self.parts.kind, partition, reason, "a partition waits for its server");
                }
                Ok(())
            }
            other => Err(other),
        }
    }

    /// Reads one partition until nothing is left of it, or no room.
    async fn gather_from(
        &mut self,
        checkpoint: Checkpoint,
        limit: usize,
        gathered: &mut Gathered,
    ) -> Result<(), FlushError> {
        let aside = self.aside_of(&checkpoint).cloned();
        let (partition, mut after) = (checkpoint.partition, checkpoint.position);
        if let Some(aside) = &aside {
            after = aside.ahead;
        }
        loop {
            let room = gathered.room(limit).min(READ_CHANGES_MAX);
            if room == 0 {
                return Ok(());
            }
            let (kind, store) = (&self.parts.kind, &self.parts.store);
            let read = store.read_journal(kind, partition, checkpoint.incarnation, after, room).await?;
            let entries = match read {
                JournalRead::Entries(entries) => {
                    self.is_whole_again(partition);
                    entries
                }
                JournalRead::OtherIncarnation(head) => return self.adopt_life(head).await,
                // What waits comes first; then the checkpoint is where the journal shows its loss.
                JournalRead::Rewound(_) | JournalRead::Hole(..) if aside.is_some() => return Ok(()),
                // What was read before is flushed first: then the journal says better what it has lost.
                JournalRead::Rewound(_) | JournalRead::Hole(..) if after > checkpoint.position => return Ok(()),
                JournalRead::Rewound(head) => return self.restart_life(head, checkpoint).await,
                JournalRead::Hole(head, hole) => return self.pass_hole(head, checkpoint, hole).await,
            };
            let Some(newest) = entries.last().map(|entry| entry.position) else { return Ok(()) };
            after = newest;
            gathered.fences.insert(partition, Fence { from: checkpoint, to: newest });
            if let Some(aside) = &aside {
                gathered.asides.insert(partition, Aside { ahead: newest, ..aside.clone() });
            }
            let mut read = 0;
            gathered.marks.extend(entries.last().map(|entry| (partition, Mark::from(entry))));
            for mut entry in entries {
                read += entry.changes.len();
                if let Some(aside) = &aside {
                    entry.changes.retain(|change| !aside.holds(change.target()));
                }
                gathered.add(partition, entry)?;
            }
            if read < room {
                return Ok(());
            }
        }
    }

    /// Nothing yet, to be folded as the kind's capability does.
    pub(super) fn nothing_gathered(&self) -> Gathered {
        Gathered::new((self.parts.fold)(&self.parts.table))
    }

    /// The rows to write. What asks the rules is done off the threads that answer requests: ten thousand text ids take a module
    /// some 20 ms.
    pub(super) async fn rows(&self, fold: Box<dyn Fold>) -> Result<Vec<Row>, FlushError> {
        let (rules, kind) = (Arc::clone(&self.parts.policies), self.parts.kind.clone());
        if !fold.asks_rules() {
            return Ok(fold.rows(&kind, &rules));
        }
        let task = tokio::task::spawn_blocking(move || fold.rows(&kind, &rules));
        task.await.map_err(|_| FlushError::Stopped)
    }

    /// After the commit: wake the waiting requests, trim.
    async fn committed(
        &mut self,
        gathered: &mut Gathered,
        reached: &[(Fence, Position)],
        invalid: &BTreeSet<Id>,
    ) -> Result<(), FlushError> {
        for (fence, position) in reached {
            let partition = fence.from.partition;
            // Where something waits, what is stored beyond it is trimmed with it.
            if *position == fence.from.position {
                continue;
            }
            let targets = gathered.touched(partition);
            let unsound: Vec<Id> = targets.iter().filter(|target| invalid.contains(*target)).cloned().collect();
            // Of an entry before the last one no more is known than its place.
            let mark = gathered.marks.get(&partition).copied().filter(|_| *position == fence.to);
            let upto = mark.unwrap_or_else(|| (*position).into());
            self.trim(*fence, upto, &targets, &unsound).await?;
        }
        Ok(())
    }

    /// Drops the entries up to `upto`, which SQL has, and wakes those who wait for it.
    async fn trim(&self, fence: Fence, upto: Mark, targets: &[Id], unsound: &[Id]) -> Result<(), FlushError> {
        let (partition, incarnation) = (fence.from.partition, fence.from.incarnation);
        let (kind, store) = (&self.parts.kind, &self.parts.store);
        store.trim_to(kind, partition, incarnation, upto, targets, unsound).await?;
        self.parts.watch.commit(partition, incarnation, upto.position);
        Ok(())
    }

    /// Reports rows that went to the dead letters, in one line however many they are; their targets, of which the store knows
    /// something else than SQL.
    pub(super) fn note_dead(&self, applied: &Applied, rows: &[Row]) -> BTreeSet<Id> {
        let mut invalid = BTreeSet::new();
        let dead = applied.dead.iter().filter_map(|(index, reason)| Some((rows.get(*index)?, reason.as_str())));
        if !applied.dead.is_empty() {
            tracing::error!(
                kind = self.parts.kind,
                rows = applied.dead.len(),
                first = first_dead(dead.clone()),
                "rows can not be stored: moved to the dead letters (weir dead-letters list)"
            );
        }
        for (row, _) in dead {
            self.parts.watch.note_dead(row.origin().partition, row.origin().position);
            if row.has_state() {
                invalid.insert(row.target().clone());
            }
        }
        invalid
    }

    fn count(&self, changes: usize, applied: &Applied, elapsed: std::time::Duration) {
        let kind = &self.parts.kind;
        histogram!(telemetry::FLUSH_SECONDS, "kind" => kind.clone()).record(elapsed.as_secs_f64());
        counter!(telemetry::FLUSH_CHANGES_TOTAL, "kind" => kind.clone()).increment(changes as u64);
        for (action, rows) in [("insert", applied.inserted), ("update", applied.updated), ("delete", applied.deleted)] {
            counter!(telemetry::FLUSH_ROWS_TOTAL, "kind" => kind.clone(), "action" => action).increment(rows);
        }
        counter!(telemetry::FLUSH_STATEMENTS_TOTAL, "kind" => kind.clone()).increment(applied.statements);
        counter!(telemetry::DEAD_LETTERS_TOTAL, "kind" => kind.clone()).increment(applied.dead.len() as u64);
    }
}

/// The first rows of many that are dead, and why each is.
fn first_dead<'r>(dead: impl Iterator<Item = (&'r Row, &'r str)>) -> String {
    let named = dead.take(DEAD_NAMED_MAX).map(|(row, reason)| {
        let actor = row.actor().map(|actor| format!(" actor {actor}")).unwrap_or_default();
        format!("target {}{actor}: {reason}", row.target())
    });
    named.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::model::{Action, Origin};
    use weir_sql::RowChange;

    #[test]
    fn the_first_dead_rows_are_named_and_no_more() {
        let row = |actor: i64| {
            let (origin, target, actor) = (Origin::default(), Id::Int(3), Id::Int(actor));
            Row::Toggle(RowChange { origin, target, actor, action: Action::Add })
        };
        let rows: Vec<Row> = (0..5_000).map(row).collect();
        let said = first_dead(rows.iter().map(|row| (row, "23503: no such user")));
        assert!(said.starts_with("target 3 actor 0: 23503: no such user; target 3 actor 1: "), "{said}");
        assert_eq!(said.matches("target").count(), DEAD_NAMED_MAX);
    }
}
