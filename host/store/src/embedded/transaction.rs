//! The writes of one group: an overlay of a snapshot, in two layers, so that a failed job leaves nothing behind.

use std::collections::HashMap;

use fjall::{Readable, Slice, Snapshot};

use super::layout::{HeadRecord, Space, Spaces, View, Writes, failed, prefix};
use crate::StoreError;
use weir_core::model::{Incarnation, Partition};

/// The writes of one group. A commit writes each key at most once, as the database's batches require.
pub(super) struct Transaction<'a> {
    spaces: &'a Spaces,
    snapshot: Snapshot,
    /// Writes of the jobs before.
    accepted: Writes,
    /// Writes of the present job.
    pending: Writes,
}

impl View for Transaction<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, StoreError> {
        for layer in [&self.pending, &self.accepted] {
            if let Some(written) = layer[space as usize].get(key) {
                return Ok(written.clone());
            }
        }
        self.snapshot.get(self.spaces.of(space), key).map_err(failed)
    }
}

impl View for (&Spaces, &Snapshot) {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, StoreError> {
        self.1.get(self.0.of(space), key).map_err(failed)
    }
}

impl<'a> Transaction<'a> {
    pub(super) fn new(spaces: &'a Spaces) -> Self {
        Self { spaces, snapshot: spaces.snapshot(), accepted: Writes::default(), pending: Writes::default() }
    }

    pub(super) fn put(&mut self, space: Space, key: Vec<u8>, value: &[u8]) {
        self.pending[space as usize].insert(key, Some(value.into()));
    }

    pub(super) fn delete(&mut self, space: Space, key: Vec<u8>) {
        self.pending[space as usize].insert(key, None);
    }

    pub(super) fn put_head(&mut self, kind: &str, partition: Partition, head: &HeadRecord) {
        self.put(Space::Heads, prefix(kind, partition), &head.encode());
    }

    /// The head, created when there is none.
    pub(super) fn head_or_fresh(&mut self, kind: &str, partition: Partition) -> Result<HeadRecord, StoreError> {
        if let Some(head) = self.head(kind, partition)? {
            return Ok(head);
        }
        let head = HeadRecord::fresh(Incarnation::fresh());
        self.put_head(kind, partition, &head);
        Ok(head)
    }

    /// The committed state before this group, for ranges. It lacks the keys of this group.
    pub(super) fn committed(&self) -> (&'a Spaces, Snapshot) {
        (self.spaces, self.snapshot.clone())
    }

    /// Ends a job: adopts its writes or drops them.
    pub(super) fn end_job(&mut self, keep: bool) {
        for (accepted, pending) in self.accepted.iter_mut().zip(&mut self.pending) {
            if keep {
                accepted.extend(pending.drain());
            } else {
                pending.clear();
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.accepted.iter().all(HashMap::is_empty)
    }

    /// Whether a job wrote data that callers are promised: everything except policy modules' keys and their expiry.
    pub(super) fn holds_promises(&self) -> bool {
        let helps = [Space::Modules as usize, Space::Expiry as usize];
        self.accepted.iter().enumerate().any(|(space, layer)| !layer.is_empty() && !helps.contains(&space))
    }

    /// Commits all adopted writes atomically; with `sync`, returns when they are on disk.
    pub(super) fn commit(self, sync: bool) -> fjall::Result<()> {
        self.spaces.commit(self.accepted, sync)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_fails_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let spaces = crate::embedded::open_spaces(directory.path()).unwrap();
        let mut transaction = Transaction::new(&spaces);
        transaction.put(Space::System, b"first".to_vec(), b"1");
        transaction.end_job(true);
        transaction.put(Space::System, b"first".to_vec(), b"2");
        transaction.put(Space::System, b"second".to_vec(), b"2");
        transaction.delete(Space::Heads, b"third".to_vec());
        assert_eq!(
            transaction.get(Space::System, b"first").unwrap().as_deref(),
            Some(&b"2"[..]),
            "a job sees its writes"
        );
        transaction.end_job(false);
        assert_eq!(transaction.get(Space::System, b"first").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(transaction.get(Space::System, b"second").unwrap(), None);
        transaction.commit(true).unwrap();
        let system = spaces.of(Space::System);
        assert_eq!(system.get("first").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(system.len().unwrap(), 2, "and the header");
    }
}
