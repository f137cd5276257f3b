//! A place in the journal, and whether SQL has got there.

use std::time::Duration;

use tokio::time::Instant;

use super::KindContext;
use weir_core::error::Refusal;
use weir_core::model::{Incarnation, Partition, Position};

/// A place in the journal of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The target's partition.
    pub partition: Partition,
    /// The life of its journal: a place in an earlier one says nothing of this.
    pub incarnation: Incarnation,
    /// The entry; 0 when SQL already held it.
    pub position: Position,
}

/// `partition-position-incarnation`, as clients get it.
impl std::fmt::Display for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.partition, self.position, self.incarnation.0.simple())
    }
}

/// Pause between two looks at a head that another host's flusher moves, in milliseconds.
const POLL_MS: u64 = 100;

impl KindContext {
    /// Whether this host knows that everything up to `receipt` is committed in SQL.
    pub fn knows_stored(&self, receipt: Receipt) -> bool {
        self.parts.watch.is_stored(receipt.partition, receipt.incarnation, receipt.position)
    }

    /// Whether this host knows that a row of the entry of `receipt` went to the dead letters.
    pub fn knows_dead(&self, receipt: Receipt) -> bool {
        self.parts.watch.is_dead(receipt.partition, receipt.incarnation, receipt.position)
    }

    /// Whether everything up to `receipt` is committed in SQL.
    ///
    /// # Errors
    /// Fails when neither this host's knowledge nor the store can tell.
    pub async fn is_stored(&self, receipt: Receipt) -> Result<bool, Refusal> {
        let parts = &self.parts;
        if receipt.partition >= parts.store.partitions() {
            return Ok(false);
        }
        if self.knows_stored(receipt) {
            return Ok(true);
        }
        let heads = parts.store.heads(&parts.kind, &[receipt.partition]).await;
        let heads = heads.map_err(|error| self.store_refusal(&error))?;
        parts.watch.observe(&heads);
        Ok(self.knows_stored(receipt))
    }

    /// Waits until `receipt` is stored or `deadline` has passed; whether it is stored. Woken by this host's flusher;
    /// when another host flushes, the head is polled.
    pub async fn wait_stored(&self, receipt: Receipt, deadline: Instant) -> bool {
        let mut committed = self.parts.watch.subscribe();
        loop {
            if self.knows_stored(receipt) {
                return true;
            }
            let now = Instant::now();
            if now >= deadline {
                return false;
            }
            let poll_at = deadline.min(now + Duration::from_millis(POLL_MS));
            if tokio::time::timeout_at(poll_at, committed.changed()).await.is_err()
                && matches!(self.is_stored(receipt).await, Ok(true))
            {
                return true;
            }
        }
    }

    /// Waits until the entry of `receipt` was flushed, whatever became of its rows, or `deadline` has passed; whether it was.
    pub async fn wait_flushed(&self, receipt: Receipt, deadline: Instant) -> bool {
        let parts = &self.parts;
        let mut committed = parts.watch.subscribe();
        loop {
            if parts.watch.is_flushed(receipt.partition, receipt.incarnation, receipt.position) {
                return true;
            }
            let now = Instant::now();
            if now >= deadline {
                return false;
            }
            let poll_at = deadline.min(now + Duration::from_millis(POLL_MS));
            if tokio::time::timeout_at(poll_at, committed.changed()).await.is_err()
                && let Ok(heads) = parts.store.heads(&parts.kind, &[receipt.partition]).await
            {
                parts.watch.observe(&heads);
            }
        }
    }

    /// When a request that begins now stops waiting for SQL: a fifth of the time is left for the reply, because journaled is
    /// an answer, and a missed deadline is none.
    pub fn wait_until(&self, deadline: Instant) -> Instant {
        deadline - Duration::from_millis(self.parts.deadline_ms / 5)
    }
}
