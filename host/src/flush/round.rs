//! One round: read after the checkpoint, coalesce, one transaction, trim.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use metrics::{counter, histogram};

use super::{FlushError, Worker};
use crate::journal::Entry;
use crate::model::{Id, Partition, Position, ToggleChange};
use crate::policy::Coalesced;
use crate::sql::{Applied, Fence, RowChange, SqlError};
use crate::store::JournalRead;
use crate::telemetry;

/// What one round takes from the journals.
#[derive(Default)]
struct Taken {
    changes: Vec<ToggleChange>,
    /// Where each change comes from, index-aligned.
    origins: Vec<(Partition, Position, crate::model::Digest)>,
    fences: BTreeMap<Partition, Fence>,
}

impl Taken {
    fn add(&mut self, partition: Partition, entry: Entry) {
        for change in entry.changes {
            self.origins.push((partition, entry.position, entry.digest));
            self.changes.push(change);
        }
    }
}

impl Worker {
    /// Flushes at most `changes_max` changes (and at most the adaptive batch). Returns how many it took.
    pub(super) async fn round(&mut self, changes_max: usize) -> Result<usize, FlushError> {
        let limit = self.batch.changes().min(changes_max.max(1));
        let mut taken = self.take(limit).await?;
        if taken.changes.is_empty() {
            return Ok(0);
        }
        let coalesced = self.coalesce(&mut taken).await?;
        let rows: Vec<RowChange> = coalesced.kept.iter().map(|&index| row(&taken, index)).collect();
        let fences: Vec<Fence> = taken.fences.values().copied().collect();

        let started = Instant::now();
        let applied = match self.apply(fences.clone(), rows.clone()).await {
            Ok(applied) => applied,
            Err(error) => {
                // A batch that is too large for a time limit or a packet would fail for ever; a smaller one passes.
                self.batch.shrink();
                return Err(error);
            }
        };
        let elapsed = started.elapsed();
        self.batch.learn(taken.changes.len(), elapsed);
        self.count(&taken, &applied, elapsed);

        let invalid: BTreeSet<Id> =
            applied.dead.iter().filter_map(|(index, _)| rows.get(*index)).map(|row| row.target.clone()).collect();
        for (row, (_, reason)) in applied.dead.iter().filter_map(|dead| rows.get(dead.0).zip(Some(dead))) {
            tracing::error!(
                kind = self.parts.kind, target = %row.target, actor = %row.actor, reason,
                "a row can not be stored: moved to the dead letters (weir dead-letters list)"
            );
            self.parts.watch.note_dead(row.partition, row.position);
        }
        self.committed(&taken, &fences, &invalid).await?;
        let now_ms = self.parts.clock.now_ms();
        self.status.lock().unwrap_or_else(PoisonError::into_inner).flushed_at_ms = Some(now_ms);
        Ok(taken.changes.len())
    }

    /// Reads entries after the checkpoints, beginning with another partition each time.
    async fn take(&mut self, limit: usize) -> Result<Taken, FlushError> {
        let mut taken = Taken::default();
        let heads = self.parts.watch.heads();
        let count = self.partitions.len();
        self.turn = (self.turn + 1) % count.max(1);
        for offset in 0..count {
            let partition = self.partitions[(self.turn + offset) % count];
            let Some(checkpoint) = self.owned.get(&partition).copied() else { continue };
            let idle = matches!(heads.get(usize::from(partition)), Some(Some(head))
                if head.incarnation == checkpoint.incarnation && head.backlog.entries == 0 && head.last <= checkpoint.position);
            if idle {
                continue;
            }
            let room = limit.saturating_sub(taken.changes.len());
            if room == 0 {
                break;
            }
            let (kind, store) = (&self.parts.kind, &self.parts.store);
            let read = store.read_journal(kind, partition, checkpoint.incarnation, checkpoint.position, room).await?;
            let entries = match read {
                JournalRead::Entries(entries) => entries,
                JournalRead::OtherIncarnation(head) => {
                    self.adopt_life(head).await?;
                    continue;
                }
                JournalRead::Rewound(head) => {
                    self.restart_life(head, checkpoint).await?;
                    continue;
                }
            };
            let Some(newest) = entries.last().map(|entry| entry.position) else { continue };
            taken.fences.insert(partition, Fence { from: checkpoint, to: newest });
            entries.into_iter().for_each(|entry| taken.add(partition, entry));
        }
        Ok(taken)
    }

    /// Off the threads that answer requests: ten thousand text ids take the module some 20 ms.
    async fn coalesce(&self, taken: &mut Taken) -> Result<Coalesced, FlushError> {
        let (policies, kind) = (Arc::clone(&self.parts.policies), self.parts.kind.clone());
        let changes = std::mem::take(&mut taken.changes);
        let task = tokio::task::spawn_blocking(move || {
            let coalesced = policies.coalesce(&kind, &changes);
            (changes, coalesced)
        });
        let (changes, coalesced) = task.await.map_err(|_| FlushError::Stopped)?;
        taken.changes = changes;
        Ok(coalesced)
    }

    /// The transaction, on a task of its own: a cancelled flusher must not leave a connection in mid-transaction.
    async fn apply(&mut self, fences: Vec<Fence>, rows: Vec<RowChange>) -> Result<Applied, FlushError> {
        let (sql, kind, table) = (Arc::clone(&self.parts.sql), self.parts.kind.clone(), self.parts.table.clone());
        let now_ms = self.parts.clock.now_ms();
        let task = tokio::spawn(async move { sql.apply_toggles(&kind, &table, &fences, &rows, now_ms).await });
        match task.await {
            Ok(result) => Ok(result?),
            Err(error) => Err(SqlError::OutcomeUnknown(format!("the flush task ended: {error}")).into()),
        }
    }

    /// After the commit: remember it, tell the waiting requests, trim.
    async fn committed(&mut self, taken: &Taken, fences: &[Fence], invalid: &BTreeSet<Id>) -> Result<(), FlushError> {
        let mut touched: BTreeMap<Partition, BTreeSet<&Id>> = BTreeMap::new();
        for (change, (partition, ..)) in taken.changes.iter().zip(&taken.origins) {
            touched.entry(*partition).or_default().insert(&change.target);
        }
        for fence in fences {
            if let Some(checkpoint) = self.owned.get_mut(&fence.from.partition) {
                checkpoint.position = fence.to;
            }
        }
        for fence in fences {
            let partition = fence.from.partition;
            let targets: Vec<Id> = touched.remove(&partition).unwrap_or_default().into_iter().cloned().collect();
            let unsound: Vec<Id> = targets.iter().filter(|target| invalid.contains(*target)).cloned().collect();
            let incarnation = fence.from.incarnation;
            let (kind, store) = (&self.parts.kind, &self.parts.store);
            store.trim(kind, partition, incarnation, fence.to, &targets, &unsound).await?;
            self.parts.watch.commit(partition, incarnation, fence.to);
        }
        Ok(())
    }

    fn count(&self, taken: &Taken, applied: &Applied, elapsed: std::time::Duration) {
        let kind = &self.parts.kind;
        histogram!(telemetry::FLUSH_SECONDS, "kind" => kind.clone()).record(elapsed.as_secs_f64());
        counter!(telemetry::FLUSH_CHANGES_TOTAL, "kind" => kind.clone()).increment(taken.changes.len() as u64);
        counter!(telemetry::FLUSH_ROWS_TOTAL, "kind" => kind.clone(), "action" => "insert").increment(applied.inserted);
        counter!(telemetry::FLUSH_ROWS_TOTAL, "kind" => kind.clone(), "action" => "delete").increment(applied.deleted);
        counter!(telemetry::DEAD_LETTERS_TOTAL, "kind" => kind.clone()).increment(applied.dead.len() as u64);
    }
}

fn row(taken: &Taken, index: usize) -> RowChange {
    let change = &taken.changes[index];
    let (partition, position, digest) = taken.origins[index];
    RowChange {
        partition,
        target: change.target.clone(),
        actor: change.actor.clone(),
        action: change.action,
        at_ms: change.at_ms,
        position,
        digest,
    }
}
