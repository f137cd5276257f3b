//! Before anything is flushed: the journal's life and SQL's checkpoint are made to agree, and an earlier owner is
//! fenced.

use std::collections::BTreeSet;

use super::{FlushError, Worker};
use weir_core::journal::Mark;
use weir_core::model::{Change, Checkpoint, Id, Partition, Position};
use weir_store::{Head, JournalRead};

/// Dead letters read at once when the trim of an earlier owner is made good.
const LETTERS_PAGE: usize = 1_000;
/// Changes read at once when the trim of an earlier owner is made good.
const CATCH_UP_CHANGES: usize = 10_000;

impl Worker {
    /// Becomes the owner of all partitions that can be reached: raises the epoch of each that it does not own yet, which
    /// fences the owner before. Then drops what the journals still hold although SQL has it (an owner that died between
    /// commit and trim).
    pub(super) async fn take_over(&mut self) -> Result<(), FlushError> {
        let mut claims = Vec::with_capacity(self.partitions.len());
        for head in self.heads().await? {
            if !self.owned.contains_key(&head.partition) {
                claims.push((head.partition, head.incarnation));
            }
        }
        if claims.is_empty() {
            return Ok(());
        }
        let rows = self.parts.sql.claim(&self.parts.kind, &claims, true).await?;
        let mut late = Vec::new();
        for ((partition, incarnation), row) in claims.into_iter().zip(rows) {
            if row.incarnation > incarnation {
                late.push(row);
            } else {
                self.owned.insert(partition, row);
            }
        }
        for head in self.heads().await? {
            if let Some(row) =
                late.iter().find(|row| row.partition == head.partition && row.incarnation > head.incarnation)
            {
                let head = self.parts.store.follow(&self.parts.kind, &head, row, None).await?;
                self.adopt_life(head).await?;
                continue;
            }
            match self.owned.get(&head.partition).copied() {
                Some(row) if row.incarnation != head.incarnation => {}
                Some(row) if row.position > head.flushed => {
                    let (kind, store) = (&self.parts.kind, &self.parts.store);
                    match store.read_journal(kind, head.partition, row.incarnation, row.position, 1).await? {
                        JournalRead::Rewound(head) => self.restart_life(head, row).await?,
                        // The next round, which knows what to do.
                        JournalRead::Hole(..) => {}
                        _ => self.catch_up(head, row).await?,
                    }
                }
                Some(row) if row.position < head.flushed => self.forget(head, row).await?,
                _ => {}
            }
        }
        self.parts.watch.replace(&self.heads().await?);
        self.load_asides().await?;
        self.learn_holes().await;
        let kept: Vec<Partition> = self.open.iter().map(|hole| hole.partition).collect();
        self.to_sweep.extend(kept);
        Ok(())
    }

    /// The journal is in another life than this flusher knew: SQL takes note of it, at position 0.
    pub(super) async fn adopt_life(&mut self, head: Head) -> Result<(), FlushError> {
        tracing::warn!(kind = self.parts.kind, partition = head.partition, incarnation = %head.incarnation,
            "the journal has begun a new life");
        let kind = &self.parts.kind;
        let rows = self.parts.sql.claim(kind, &[(head.partition, head.incarnation)], true).await?;
        match rows.first() {
            Some(row) if row.incarnation == head.incarnation => {
                self.owned.insert(head.partition, *row);
            }
            // SQL has seen a later life meanwhile: learn everything anew in the next turn.
            _ => self.owned.clear(),
        }
        Ok(())
    }

    /// The journal has lost entries that SQL holds (a failover, an old backup). What is left of it below the
    /// checkpoint is committed, so it is dropped and never applied over what came later; all state is forgotten.
    pub(super) async fn restart_life(&mut self, head: Head, checkpoint: Checkpoint) -> Result<(), FlushError> {
        tracing::error!(
            kind = self.parts.kind,
            partition = head.partition,
            last = head.last,
            checkpoint = checkpoint.position,
            "the journal has lost entries that SQL has committed; its state is read from SQL again"
        );
        // Not the checkpoint itself: should the reset fail, the rewind must still be seen. There is no entry at it.
        let committed = checkpoint.position.saturating_sub(1).min(head.last);
        self.trim_committed(&head, committed, &BTreeSet::new()).await?;
        let (kind, store) = (&self.parts.kind, &self.parts.store);
        store.trim(kind, head.partition, head.incarnation, committed, &[], &[]).await?;
        let head = store.reset(kind, head.partition, head.incarnation).await?;
        self.adopt_life(head).await
    }

    /// SQL holds less than it had committed: an old backup was restored, or it is another database. What the store
    /// knows is no longer what SQL holds, so all of it is forgotten; what still waits in the journal is flushed.
    async fn forget(&mut self, head: Head, row: Checkpoint) -> Result<(), FlushError> {
        tracing::error!(
            kind = self.parts.kind,
            partition = head.partition,
            checkpoint = row.position,
            flushed = head.flushed,
            "SQL holds less than it had committed (an old backup, another database?); state is read from SQL again"
        );
        let head = self.parts.store.reset(&self.parts.kind, head.partition, head.incarnation).await?;
        self.adopt_life(head).await
    }

    /// Trims what was committed and not trimmed. The targets are learned from the entries, the rows that SQL did not
    /// take from the dead letters.
    async fn catch_up(&mut self, head: Head, row: Checkpoint) -> Result<(), FlushError> {
        let invalid = self.dead_targets(head.partition, &row, head.flushed).await?;
        self.trim_committed(&head, row.position, &invalid).await
    }

    /// Drops the entries up to `position`, and names the targets that they changed.
    pub(super) async fn trim_committed(
        &self,
        head: &Head,
        position: Position,
        invalid: &BTreeSet<String>,
    ) -> Result<(), FlushError> {
        let (kind, store) = (&self.parts.kind, &self.parts.store);
        let mut after = head.flushed;
        loop {
            let read = store.read_journal(kind, head.partition, head.incarnation, after, CATCH_UP_CHANGES).await?;
            let JournalRead::Entries(entries) = read else {
                // A rewound or new life shows itself again in the next round, which treats it.
                return Ok(());
            };
            let committed: Vec<_> = entries.into_iter().take_while(|entry| entry.position <= position).collect();
            let Some(upto) = committed.last().map(Mark::from) else { return Ok(()) };
            let touched: BTreeSet<&Id> = committed.iter().flat_map(|e| &e.changes).map(Change::target).collect();
            let touched: Vec<Id> = touched.into_iter().cloned().collect();
            let unsound: Vec<Id> = touched.iter().filter(|id| invalid.contains(&id.to_string())).cloned().collect();
            store.trim_to(kind, head.partition, head.incarnation, upto, &touched, &unsound).await?;
            after = upto.position;
        }
    }

    /// Canonical texts of targets with a dead letter from an entry above `after` of this life.
    pub(super) async fn dead_targets(
        &self,
        partition: Partition,
        row: &Checkpoint,
        after: Position,
    ) -> Result<BTreeSet<String>, FlushError> {
        let incarnation = row.incarnation.to_string();
        let mut targets = BTreeSet::new();
        let mut last_id = 0;
        loop {
            let page = self.parts.sql.dead_letters(Some(&self.parts.kind), last_id, LETTERS_PAGE).await?;
            let Some(last) = page.last() else { return Ok(targets) };
            last_id = last.id;
            targets.extend(
                page.into_iter()
                    .filter(|l| l.partition == partition && l.incarnation == incarnation && l.position > after)
                    .map(|letter| letter.target),
            );
        }
    }
}
